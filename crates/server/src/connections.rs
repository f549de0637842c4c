//! The connections of a server, and their limits.
//!
//! A connection is unauthenticated until a request on it shows the key. Few of these are accepted, for a short time, and
//! a new one evicts the oldest when there are too many: a client that opens connections and sends nothing, or sends its
//! request slowly, blocks no other client, which needs a place only until its first request has arrived.
//! Authenticated connections are never closed to make room.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use kiln_api::ProblemCode;
use tokio_util::sync::CancellationToken;

use crate::problem::{Answer, ProblemResponse};

/// The numbers of connections that a server accepts. docs/performance.md has what a farm of 10,000 workers behind one
/// address needs and what a connection costs; both are to be measured again when connections are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectionLimits {
    pub authenticated: usize,
    /// Less than all, so that one machine cannot block the others.
    pub authenticated_per_address: usize,
    pub unauthenticated: usize,
    /// For each IPv4 address, or IPv6 network, in which a machine may have any number of addresses.
    pub unauthenticated_per_network: usize,
}

impl ConnectionLimits {
    /// The most connections, however many files the process may open.
    const MOST: usize = 65_536;
    const MOST_UNAUTHENTICATED: usize = 2048;

    /// Returns the limits for a process that may have this number of files open: each connection is one, and so are the
    /// database and each file that is read or written.
    pub(crate) fn of(files: usize) -> Self {
        let own = (files / 8).max(128);
        let all = files.saturating_sub(own).clamp(16, Self::MOST);
        let unauthenticated = (all / 8).min(Self::MOST_UNAUTHENTICATED);
        let authenticated = all - unauthenticated;
        Self {
            authenticated,
            authenticated_per_address: authenticated - authenticated / 8,
            unauthenticated,
            unauthenticated_per_network: unauthenticated / 2,
        }
    }
}

/// The connections of a server.
#[derive(Debug)]
pub(crate) struct Connections {
    limits: ConnectionLimits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the newest connection.
    newest: u64,
    /// By number, the oldest first.
    unauthenticated: BTreeMap<u64, Unauthenticated>,
    /// The numbers of unauthenticated connections by network.
    by_network: HashMap<IpAddr, BTreeSet<u64>>,
    authenticated: usize,
    authenticated_by_address: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Unauthenticated {
    network: IpAddr,
    evicted: CancellationToken,
}

/// One connection, counted while this lives.
#[derive(Debug)]
pub(crate) struct Connection {
    all: Arc<Connections>,
    number: u64,
    address: IpAddr,
    is_authenticated: AtomicBool,
    /// Cancelled once the connection is authenticated.
    pub(crate) authenticated: CancellationToken,
    /// Cancelled when the connection has to end at once, because a new one took its place.
    pub(crate) evicted: CancellationToken,
}

impl Connections {
    pub(crate) fn new(limits: ConnectionLimits) -> Arc<Self> {
        Arc::new(Self { limits, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an unauthenticated connection. If there are too many, evicts the oldest of its network, or of all.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Arc<Connection> {
        let address = address.to_canonical();
        let network = network(address);
        let evicted = CancellationToken::new();
        let mut state = self.state();
        let of_network = state.by_network.get(&network);
        let oldest = match of_network.filter(|some| some.len() >= self.limits.unauthenticated_per_network) {
            Some(some) => some.first().copied(),
            None if state.unauthenticated.len() >= self.limits.unauthenticated => {
                state.unauthenticated.keys().next().copied()
            }
            None => None,
        };
        if let Some(removed) = oldest.and_then(|oldest| state.remove_unauthenticated(oldest)) {
            removed.evicted.cancel();
        }
        state.newest += 1;
        let number = state.newest;
        state.unauthenticated.insert(number, Unauthenticated { network, evicted: evicted.clone() });
        state.by_network.entry(network).or_default().insert(number);
        drop(state);
        Arc::new(Connection {
            all: self.clone(),
            number,
            address,
            is_authenticated: AtomicBool::new(false),
            authenticated: CancellationToken::new(),
            evicted,
        })
    }
}

impl State {
    fn remove_unauthenticated(&mut self, number: u64) -> Option<Unauthenticated> {
        let removed = self.unauthenticated.remove(&number)?;
        if let Entry::Occupied(mut some) = self.by_network.entry(removed.network) {
            some.get_mut().remove(&number);
            if some.get().is_empty() {
                some.remove();
            }
        }
        Some(removed)
    }
}

impl Connection {
    /// Notes that a request on the connection has shown the key.
    ///
    /// # Errors
    /// [`ProblemCode::Busy`] if there are too many authenticated connections, in all or from this address.
    pub(crate) fn authenticate(&self) -> Answer<()> {
        if self.is_authenticated.load(Ordering::Acquire) {
            return Ok(());
        }
        let ConnectionLimits { authenticated: most, authenticated_per_address: most_of_address, .. } =
            self.all.limits;
        let mut state = self.all.state();
        // A connection serves one request at a time: no other request authenticates it meanwhile.
        if state.authenticated >= most {
            return Err(busy(format!("The server has {most} connections, the most that it accepts")));
        }
        let of_address = state.authenticated_by_address.entry(self.address).or_default();
        if *of_address >= most_of_address {
            let address = self.address;
            return Err(busy(format!(
                "{address} has {most_of_address} connections, the most of one address"
            )));
        }
        *of_address += 1;
        state.authenticated += 1;
        state.remove_unauthenticated(self.number);
        drop(state);
        self.is_authenticated.store(true, Ordering::Release);
        self.authenticated.cancel();
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut state = self.all.state();
        if !*self.is_authenticated.get_mut() {
            state.remove_unauthenticated(self.number);
            return;
        }
        state.authenticated -= 1;
        if let Entry::Occupied(mut count) = state.authenticated_by_address.entry(self.address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

fn busy(why: String) -> ProblemResponse {
    tracing::warn!(%why, "connection refused");
    ProblemResponse::new(ProblemCode::Busy, format!("{why}; close some, or try again later."))
}

/// Returns the address of IPv4, or the 64 bits of IPv6 within which a machine takes any address.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: ConnectionLimits = ConnectionLimits {
        authenticated: 5,
        authenticated_per_address: 3,
        unauthenticated: 4,
        unauthenticated_per_network: 2,
    };

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_limits_leave_files_for_all_else() {
        for files in [0, 64, 256, 1024, 4096, 20_000, 524_288, 1_048_576, usize::MAX] {
            let limits = ConnectionLimits::of(files);
            let all = limits.authenticated + limits.unauthenticated;
            assert!(files < 256 || all <= files - files / 8, "{files}: {limits:?}");
            assert!(limits.authenticated_per_address < limits.authenticated);
            assert!((1..limits.unauthenticated).contains(&limits.unauthenticated_per_network), "{limits:?}");
        }
        // 10,000 workers behind one address: a WebSocket each, and as many requests again.
        assert!(ConnectionLimits::of(65_536).authenticated_per_address > 20_000);
    }

    #[test]
    fn a_new_connection_evicts_the_oldest_unauthenticated_one() {
        let all = Connections::new(SMALL);
        let (one, other) = (address("10.0.0.1"), address("10.0.0.2"));
        let first = all.admit(one);
        let of_other = all.admit(other);
        let second = all.admit(one);
        let third = all.admit(one);
        assert!(
            first.evicted.is_cancelled() && !second.evicted.is_cancelled() && !third.evicted.is_cancelled()
        );
        assert!(!of_other.evicted.is_cancelled());
        // Any number of addresses are one network of IPv6; a connection too many in all evicts the oldest of all.
        let v6: Vec<_> = (1..=5).map(|host| all.admit(address(&format!("2001:db8::{host}")))).collect();
        let evicted = v6.iter().filter(|one| one.evicted.is_cancelled()).count();
        assert_eq!(evicted, 3);
        assert!(of_other.evicted.is_cancelled(), "there are more than four");
        drop((first, second, third, of_other, v6));
        let state = all.state();
        assert!(
            state.unauthenticated.is_empty() && state.by_network.is_empty(),
            "a closed one is still counted"
        );
    }

    #[test]
    fn authenticated_connections_are_counted_and_never_evicted() {
        let all = Connections::new(SMALL);
        let (one, other) = (address("10.0.0.1"), address("::ffff:10.0.0.2"));
        let authenticated = |address: IpAddr| {
            let connection = all.admit(address);
            connection.authenticate().unwrap();
            connection
        };
        let known: Vec<_> = (0..3).map(|_| authenticated(one)).collect();
        known[0].authenticate().unwrap();
        let fourth = all.admit(one);
        assert_eq!(fourth.authenticate().unwrap_err().0.code, ProblemCode::Busy);
        let others: Vec<_> = (0..2).map(|_| authenticated(other)).collect();
        // All places are taken, and no unauthenticated connection evicts an authenticated one.
        let third = all.admit(address("10.0.0.3"));
        assert_eq!(third.authenticate().unwrap_err().0.code, ProblemCode::Busy);
        let crowd: Vec<_> = (0..20).map(|last| all.admit(address(&format!("10.1.0.{last}")))).collect();
        assert!(known.iter().chain(&others).all(|one| !one.evicted.is_cancelled()));
        drop((crowd, fourth, third, others));
        let fifth = authenticated(address("10.0.0.2"));
        drop((known, fifth));
        let state = all.state();
        assert!(
            state.authenticated == 0 && state.authenticated_by_address.is_empty(),
            "a closed one is still counted"
        );
    }
}
