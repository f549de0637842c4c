//! When each worker was last heard of, as its connections know it.
//!
//! What a worker says may wait for the scheduler: in its queue, and before that in the connection, which listens to
//! nothing more until the queue has room. A lease is a time of silence, and silence is only what somebody listened to:
//! neither a message that waits nor one that nobody could read yet tells that its worker is dead.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use kiln_core::Moment;
use kiln_types::WorkerId;

/// What the connections of one worker have heard.
#[derive(Debug, Default)]
pub(crate) struct Arrival {
    /// Messages that have arrived and are not applied yet.
    waiting: AtomicU32,
    /// Since when a connection has listened in vain; milliseconds of the server's clock.
    listened: AtomicU64,
}

/// A message of a worker that waits to be applied, until this is dropped. By default of nobody.
#[derive(Debug, Default)]
pub(crate) struct Received(Option<Arc<Arrival>>);

impl Arrival {
    /// A message is here.
    pub(crate) fn receive(self: &Arc<Self>) -> Received {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        Received(Some(self.clone()))
    }

    /// What was received is handed on, and the connection listens to the next message from now on.
    pub(crate) fn listen(&self, now: Moment) {
        self.listened.fetch_max(now.0, Ordering::AcqRel);
    }

    fn waits(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if let Some(arrival) = &self.0 {
            arrival.waiting.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// The workers that are connected, or whose end the scheduler has not been told yet.
#[derive(Debug, Default)]
pub(crate) struct Arrivals(Mutex<HashMap<WorkerId, Connections>>);

#[derive(Debug, Default)]
struct Connections {
    count: u32,
    arrival: Arc<Arrival>,
}

impl Arrivals {
    fn all(&self) -> MutexGuard<'_, HashMap<WorkerId, Connections>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection of the worker begins. [`Arrivals::disconnect`] follows when the scheduler knows of its end.
    pub(crate) fn connect(&self, worker: WorkerId, now: Moment) -> Arc<Arrival> {
        let mut all = self.all();
        let known = all.entry(worker).or_default();
        known.count += 1;
        known.arrival.listen(now);
        known.arrival.clone()
    }

    pub(crate) fn disconnect(&self, worker: WorkerId) {
        let mut all = self.all();
        if let Some(known) = all.get_mut(&worker) {
            known.count = known.count.saturating_sub(1);
            if known.count == 0 {
                all.remove(&worker);
            }
        }
    }

    /// When the worker was last heard of: now, where something of it waits. `None` where it has no connection.
    pub(crate) fn last(&self, worker: WorkerId, now: Moment) -> Option<Moment> {
        let all = self.all();
        let arrival = &all.get(&worker)?.arrival;
        let listened = Moment(arrival.listened.load(Ordering::Acquire)).min(now);
        Some(if arrival.waits() { now } else { listened })
    }

    /// Whether something of the worker waits to be applied.
    pub(crate) fn waits(&self, worker: WorkerId) -> bool {
        self.all().get(&worker).is_some_and(|known| known.arrival.waits())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_counted_from_when_somebody_listens() {
        let (arrivals, worker) = (Arrivals::default(), WorkerId::from_bits(1).unwrap());
        let last = |now| arrivals.last(worker, Moment(now)).map(|at| at.0);
        assert_eq!((last(9), arrivals.waits(worker)), (None, false));
        let arrival = arrivals.connect(worker, Moment(5));
        assert_eq!(last(90_000), Some(5));
        let hello = arrival.receive();
        assert_eq!((last(90_000), arrivals.waits(worker)), (Some(90_000), true));
        arrival.listen(Moment(60_000));
        // It connects again before the end of the old connection is known.
        let again = arrivals.connect(worker, Moment(70_000)).receive();
        drop(hello);
        arrivals.disconnect(worker);
        assert_eq!(last(90_000), Some(90_000));
        drop(again);
        assert_eq!((last(90_000), arrivals.waits(worker)), (Some(70_000), false));
        arrivals.disconnect(worker);
        assert_eq!(last(90_000), None);
        assert!(arrivals.all().is_empty(), "nothing is kept of a worker that is gone");
    }
}
