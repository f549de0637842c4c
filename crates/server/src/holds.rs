//! Requests that have checked which bytes are here and have not yet recorded which of them they need.
//!
//! A collection spares all bytes that were promised since the oldest of these requests began, however short a promise may
//! be: nothing is removed between the check and the record.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

/// The times that the system gives to files lag behind its clock by up to one of its ticks.
const TICK: Duration = Duration::from_millis(20);

#[derive(Debug, Clone, Default)]
pub(crate) struct Holds {
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    since: BTreeMap<u64, SystemTime>,
}

/// A request in progress: while this lives, bytes that are promised after its beginning stay.
#[derive(Debug)]
pub(crate) struct Hold {
    holds: Holds,
    number: u64,
}

impl Holds {
    pub(crate) fn begin(&self) -> Hold {
        let mut open = self.lock();
        let number = open.next;
        open.next += 1;
        open.since.insert(number, SystemTime::now());
        Hold { holds: self.clone(), number }
    }

    /// Returns the time since which promised bytes must stay.
    pub(crate) fn oldest(&self) -> SystemTime {
        let open = self.lock();
        let now = SystemTime::now();
        let oldest = open.since.values().min().map_or(now, |oldest| now.min(*oldest));
        oldest.checked_sub(TICK).unwrap_or(SystemTime::UNIX_EPOCH)
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.holds.lock().since.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_request_counts_until_it_ends() {
        let holds = Holds::default();
        let start = SystemTime::now();
        let first = holds.begin();
        let second = holds.begin();
        assert!(holds.oldest() <= start);
        let one = holds.oldest();
        assert_eq!(holds.oldest(), one);
        drop(first);
        let two = holds.oldest();
        assert!(two >= one);
        assert_eq!(holds.oldest(), two);
        drop(second);
        while holds.oldest() <= two {}
    }
}
