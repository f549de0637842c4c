//! The listening socket and its connections: limits for slow and for many clients, and an orderly end.

use std::{
    collections::{HashMap, hash_map::Entry},
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::ServerError;

/// A client that has not sent its whole request head by then is cut off; so is an idle connection. Longer than
/// clients keep idle connections (90 s is common), so that none sends into one that is closing.
const HEAD_TIME: Duration = Duration::from_secs(120);
/// A client that connects and says nothing at all is cut off much sooner: such connections cost it nothing.
const FIRST_BYTE_TIME: Duration = Duration::from_secs(15);
/// Connections at a time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 2048;
/// Connections of one address at a time, so that no machine by itself keeps all others out; more are closed.
const MAX_OF_ONE: usize = 1024;
/// How long requests in progress may go on when the server stops.
const GRACE: Duration = Duration::from_secs(3);

/// # Errors
/// One sentence, with what to do next.
pub(crate) async fn bind(listen: SocketAddr) -> Result<TcpListener, ServerError> {
    TcpListener::bind(listen).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => ServerError::PortInUse { address: listen.ip(), port: listen.port() },
        io::ErrorKind::PermissionDenied => ServerError::PortForbidden { port: listen.port() },
        io::ErrorKind::AddrNotAvailable => ServerError::NoSuchAddress { address: listen.ip() },
        _ => ServerError::Listen { listen, error },
    })
}

/// Serves until `stop`, then lets requests in progress end.
pub(crate) async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let guests = Guests::default();
    let connections = TaskTracker::new();
    loop {
        // Never closed, so the permit always comes.
        let Ok(place) = places.clone().acquire_owned().await else { break };
        let (stream, from) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file numbers, or a client that left in the middle: neither ends the server.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let Some(guest) = guests.admit(from.ip()) else {
            tracing::debug!(address = %from.ip(), "a connection was closed: its address has too many");
            continue;
        };
        let (router, stop) = (router.clone(), stop.clone());
        connections.spawn(async move {
            let mut first = [0; 1];
            let speaks = tokio::select! {
                seen = tokio::time::timeout(FIRST_BYTE_TIME, stream.peek(&mut first)) => {
                    matches!(seen, Ok(Ok(1)))
                }
                () = stop.cancelled() => false,
            };
            if speaks {
                connection(stream, router, stop).await;
            }
            drop((place, guest));
        });
    }
    drop(listener);
    connections.close();
    let _ = tokio::time::timeout(GRACE, connections.wait()).await;
}

/// How many connections each address has.
#[derive(Default)]
struct Guests(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One connection, counted while it lives.
struct Guest {
    guests: Arc<Mutex<HashMap<IpAddr, usize>>>,
    address: IpAddr,
}

impl Guests {
    /// `None` where the address has as many as it may.
    fn admit(&self, address: IpAddr) -> Option<Guest> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= MAX_OF_ONE {
            return None;
        }
        *count += 1;
        Some(Guest { guests: self.0.clone(), address })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut counts = self.guests.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = counts.entry(self.address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

async fn connection(stream: TcpStream, router: Router, stop: CancellationToken) {
    // Answers are small and awaited one by one: none must wait for more to fill a packet.
    let _ = stream.set_nodelay(true);
    let service = TowerToHyperService::new(router);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_headers(100)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(GRACE, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[test]
    fn one_address_leaves_places_for_others() {
        let guests = Guests::default();
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let mut all: Vec<Guest> = (0..MAX_OF_ONE).map(|_| guests.admit(one).unwrap()).collect();
        assert!(guests.admit(one).is_none());
        assert!(guests.admit(other).is_some());
        all.pop();
        assert!(guests.admit(one).is_some());
        drop(all);
        assert!(guests.0.lock().unwrap().is_empty(), "an address that left is still counted");
    }

    /// The paused clock runs on whenever all wait: a limit of seconds takes none.
    #[tokio::test(start_paused = true)]
    async fn whoever_says_nothing_is_cut_off() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, Router::new(), stop.clone()));
        let begin = tokio::time::Instant::now();
        let mut silent = TcpStream::connect(address).await.unwrap();
        assert_eq!(silent.read(&mut [0; 16]).await.unwrap(), 0);
        let waited = begin.elapsed();
        assert!(waited >= FIRST_BYTE_TIME && waited < HEAD_TIME, "{waited:?}");
        stop.cancel();
        server.await.unwrap();
    }
}
