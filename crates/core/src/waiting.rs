//! Tasks that wait, in the order of their step.

use std::collections::BTreeSet;

use kiln_types::{Order, TaskIndex};

use crate::{
    IndexSet, TaskSpan,
    order::{Sequence, Spot},
};

/// A set of tasks that knows its first in the step's order. It costs what its gaps cost, as an [`IndexSet`] does:
/// a cursor walks the order once, and what comes back behind the cursor is kept apart.
#[derive(Debug)]
pub(crate) struct Waiting {
    sequence: Sequence,
    set: IndexSet,
    /// The first of the set that did not come back; `None` where all of them did.
    cursor: Option<Spot>,
    /// Those of the set that stand before the cursor.
    back: BTreeSet<Spot>,
}

impl Waiting {
    /// All tasks of a step.
    pub fn all(order: Order, count: u32) -> Self {
        let mut all = Self {
            sequence: Sequence::new(order, count),
            set: IndexSet::first(count),
            cursor: None,
            back: BTreeSet::new(),
        };
        all.walk_again();
        all
    }

    /// The first in the step's order.
    pub fn first(&self) -> Option<Spot> {
        self.back.first().copied().or(self.cursor)
    }

    pub fn set(&self) -> &IndexSet {
        &self.set
    }

    pub fn len(&self) -> u32 {
        self.set.len()
    }

    /// Where a task of the step stands in its order, whether it waits or not.
    pub fn spot(&self, index: TaskIndex) -> Spot {
        self.sequence.spot(index)
    }

    pub fn insert(&mut self, index: TaskIndex) {
        let spot = self.spot(index);
        if self.set.insert(index) && self.cursor.is_none_or(|cursor| spot < cursor) {
            self.back.insert(spot);
        }
    }

    pub fn remove(&mut self, index: TaskIndex) {
        let spot = self.spot(index);
        if self.set.remove(index) && !self.back.remove(&spot) && self.cursor == Some(spot) {
            self.walk(spot);
        }
    }

    /// These too.
    pub fn merge(&mut self, others: &IndexSet) {
        // Another walk may look at every task: only many pay for it.
        if others.len() <= self.sequence.count() / 16 {
            others.iter().for_each(|index| self.insert(index));
        } else {
            self.set.merge(others);
            self.walk_again();
        }
    }

    /// None of these.
    pub fn subtract(&mut self, others: &IndexSet) {
        self.set.subtract(others);
        self.walk_again();
    }

    /// None at all; those that were in it.
    pub fn take(&mut self) -> IndexSet {
        self.cursor = None;
        self.back.clear();
        std::mem::take(&mut self.set)
    }

    /// The step has this many tasks now, and the new ones wait. The order is that of the grown step.
    pub fn grow(&mut self, order: Order, from: u32, count: u32) {
        self.sequence = Sequence::new(order, count);
        self.set.insert_span(TaskSpan { first: TaskIndex(from), last: TaskIndex(count - 1) });
        self.walk_again();
    }

    fn walk_again(&mut self) {
        self.back.clear();
        self.walk(self.sequence.start());
    }

    /// To the first of the set at `from` or behind it.
    fn walk(&mut self, from: Spot) {
        self.cursor = self.sequence.first_in(&self.set, from);
    }

    /// Panics where it contradicts itself. For tests.
    pub fn check(&self, name: &str) {
        for spot in self.back.iter().chain(&self.cursor) {
            assert!(self.set.contains(spot.index), "{name}.{} is next in line and does not wait", spot.index);
            assert_eq!(*spot, self.spot(spot.index), "{name}.{} stands elsewhere", spot.index);
        }
        let mut ahead = self.set.clone();
        ahead.subtract(&self.back.iter().map(|spot| spot.index).collect());
        let first = self.sequence.first_in(&ahead, self.sequence.start());
        assert_eq!(first, self.cursor, "{name}: the cursor is not at the first that did not come back");
        let is_behind = |spot: &Spot| self.cursor.is_none_or(|cursor| *spot < cursor);
        assert!(self.back.iter().all(is_behind), "{name}: a task ahead of the cursor came back");
    }
}
