//! The agenda of a simulation.

use std::collections::BTreeMap;

/// The events to come by time, then by the order in which they were added.
#[derive(Debug)]
pub struct Agenda<E> {
    events: BTreeMap<(u64, u64), E>,
    added: u64,
}

impl<E> Default for Agenda<E> {
    fn default() -> Self {
        Self { events: BTreeMap::new(), added: 0 }
    }
}

impl<E> Agenda<E> {
    pub fn at(&mut self, at: u64, event: E) {
        self.added += 1;
        self.events.insert((at, self.added), event);
    }

    /// The time of the next event.
    pub fn next(&self) -> Option<u64> {
        self.events.first_key_value().map(|((at, _), _)| *at)
    }

    pub fn pop(&mut self) -> Option<(u64, E)> {
        self.events.pop_first().map(|((at, _), event)| (at, event))
    }

    pub fn iter(&self) -> impl Iterator<Item = &E> {
        self.events.values()
    }
}
