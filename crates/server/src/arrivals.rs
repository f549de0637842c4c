//! The time of the last message from each worker, as its connections know it.
//!
//! A message may wait for the scheduler: in its queue, and before that in the connection, which reads no further message
//! until the queue has room. A lease measures silence, and only time in which the connection listened counts as silence:
//! a worker whose message waits, or could not be read yet, is not silent.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use kiln_core::Moment;
use kiln_types::WorkerId;

/// The messages that the connections of one worker have received.
#[derive(Debug, Default)]
pub(crate) struct Arrival {
    /// Messages that have arrived and are not applied yet.
    waiting: AtomicU32,
    /// The time since which a connection listens without hearing anything; milliseconds of the server's clock.
    listening_since: AtomicU64,
}

/// A message of a worker that waits to be applied, until this is dropped. The default counts for no worker.
#[derive(Debug, Default)]
pub(crate) struct WaitingMessage(Option<Arc<Arrival>>);

impl Arrival {
    /// Counts a message that has arrived.
    pub(crate) fn receive(self: &Arc<Self>) -> WaitingMessage {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        WaitingMessage(Some(self.clone()))
    }

    /// Notes that the connection waits for its next message from now on.
    pub(crate) fn listen(&self, now: Moment) {
        self.listening_since.fetch_max(now.0, Ordering::AcqRel);
    }

    fn has_waiting(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }
}

impl Drop for WaitingMessage {
    fn drop(&mut self) {
        if let Some(arrival) = &self.0 {
            arrival.waiting.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// The workers that are connected, or whose disconnection has not reached the scheduler yet.
#[derive(Debug, Default)]
pub(crate) struct Arrivals(Mutex<HashMap<WorkerId, Connections>>);

#[derive(Debug, Default)]
struct Connections {
    count: u32,
    arrival: Arc<Arrival>,
}

impl Arrivals {
    fn lock(&self) -> MutexGuard<'_, HashMap<WorkerId, Connections>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a connection of the worker. [`Arrivals::disconnect`] follows when the scheduler knows of its end.
    pub(crate) fn connect(&self, worker: WorkerId, now: Moment) -> Arc<Arrival> {
        let mut all = self.lock();
        let known = all.entry(worker).or_default();
        known.count += 1;
        known.arrival.listen(now);
        known.arrival.clone()
    }

    pub(crate) fn disconnect(&self, worker: WorkerId) {
        let mut all = self.lock();
        if let Some(known) = all.get_mut(&worker) {
            known.count = known.count.saturating_sub(1);
            if known.count == 0 {
                all.remove(&worker);
            }
        }
    }

    /// Returns the time since which the worker is silent: now while a message of it waits; `None` without a connection.
    pub(crate) fn silent_since(&self, worker: WorkerId, now: Moment) -> Option<Moment> {
        let all = self.lock();
        let arrival = &all.get(&worker)?.arrival;
        let since = Moment(arrival.listening_since.load(Ordering::Acquire)).min(now);
        Some(if arrival.has_waiting() { now } else { since })
    }

    /// Returns whether a message of the worker waits to be applied.
    pub(crate) fn has_waiting(&self, worker: WorkerId) -> bool {
        self.lock().get(&worker).is_some_and(|known| known.arrival.has_waiting())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_counts_only_while_a_connection_listens() {
        let (arrivals, worker) = (Arrivals::default(), WorkerId::from_bits(1).unwrap());
        let last = |now| arrivals.silent_since(worker, Moment(now)).map(|at| at.0);
        assert_eq!((last(9), arrivals.has_waiting(worker)), (None, false));
        let arrival = arrivals.connect(worker, Moment(5));
        assert_eq!(last(90_000), Some(5));
        let hello = arrival.receive();
        assert_eq!((last(90_000), arrivals.has_waiting(worker)), (Some(90_000), true));
        arrival.listen(Moment(60_000));
        // The worker connects again before the end of the old connection is known.
        let again = arrivals.connect(worker, Moment(70_000)).receive();
        drop(hello);
        arrivals.disconnect(worker);
        assert_eq!(last(90_000), Some(90_000));
        drop(again);
        assert_eq!((last(90_000), arrivals.has_waiting(worker)), (Some(70_000), false));
        arrivals.disconnect(worker);
        assert_eq!(last(90_000), None);
        assert!(arrivals.lock().is_empty(), "a disconnected worker is still listed");
    }
}
