//! The waiting tasks of a step in its order.

use std::collections::BTreeSet;

use kiln_types::{Order, TaskIndex};

use super::order::{FrameOrder, OrderKey};
use crate::{IndexSet, TaskSpan};

/// A set of tasks with its first in the step's order. The cost is that of its gaps, as with an [`IndexSet`]: a cursor walks
/// the order once, and tasks that come back before the cursor are kept apart.
#[derive(Debug)]
pub(crate) struct WaitingTasks {
    frame_order: FrameOrder,
    set: IndexSet,
    /// The first task of the set that did not come back.
    cursor: Option<OrderKey>,
    /// The tasks of the set that are before the cursor.
    back: BTreeSet<OrderKey>,
}

impl WaitingTasks {
    /// All tasks of a step.
    pub fn all(order: Order, count: u32) -> Self {
        let mut all = Self {
            frame_order: FrameOrder::new(order, count),
            set: IndexSet::first(count),
            cursor: None,
            back: BTreeSet::new(),
        };
        all.walk_again();
        all
    }

    /// The first in the step's order.
    pub fn first(&self) -> Option<OrderKey> {
        self.back.first().copied().or(self.cursor)
    }

    pub fn set(&self) -> &IndexSet {
        &self.set
    }

    pub fn len(&self) -> u32 {
        self.set.len()
    }

    /// The key of a task, whether it waits or not.
    pub fn key(&self, index: TaskIndex) -> OrderKey {
        self.frame_order.key(index)
    }

    pub fn insert(&mut self, index: TaskIndex) {
        let key = self.key(index);
        if self.set.insert(index) && self.cursor.is_none_or(|cursor| key < cursor) {
            self.back.insert(key);
        }
    }

    /// Returns whether the task was in the set.
    pub fn remove(&mut self, index: TaskIndex) -> bool {
        let key = self.key(index);
        let was_in = self.set.remove(index);
        if was_in && !self.back.remove(&key) && self.cursor == Some(key) {
            self.walk(key);
        }
        was_in
    }

    pub fn merge(&mut self, others: &IndexSet) {
        // A new walk may look at every task, which only many new tasks are worth.
        if others.len() <= self.frame_order.count() / 16 {
            others.iter().for_each(|index| self.insert(index));
        } else {
            self.set.merge(others);
            self.walk_again();
        }
    }

    pub fn subtract(&mut self, others: &IndexSet) {
        self.set.subtract(others);
        self.walk_again();
    }

    /// Removes all tasks and returns them.
    pub fn take(&mut self) -> IndexSet {
        self.cursor = None;
        self.back.clear();
        std::mem::take(&mut self.set)
    }

    /// Adds the tasks from `from` up to `count`. The order is that of the grown step.
    pub fn grow(&mut self, order: Order, from: u32, count: u32) {
        self.frame_order = FrameOrder::new(order, count);
        self.set.insert_span(TaskSpan { first: TaskIndex(from), last: TaskIndex(count - 1) });
        self.walk_again();
    }

    fn walk_again(&mut self) {
        self.back.clear();
        self.walk(self.frame_order.start());
    }

    /// Moves the cursor to the first task of the set that is not before `from`.
    fn walk(&mut self, from: OrderKey) {
        self.cursor = self.frame_order.first_in(&self.set, from);
    }

    /// Panics if the set contradicts itself. For tests.
    pub fn check(&self, name: &str) {
        for key in self.back.iter().chain(&self.cursor) {
            assert!(self.set.contains(key.index), "{name}.{} is next in line and does not wait", key.index);
            assert_eq!(*key, self.key(key.index), "{name}.{} has another key", key.index);
        }
        let mut ahead = self.set.clone();
        ahead.subtract(&self.back.iter().map(|key| key.index).collect());
        let first = self.frame_order.first_in(&ahead, self.frame_order.start());
        assert_eq!(first, self.cursor, "{name}: the cursor is not at the first that did not come back");
        let is_behind = |key: &OrderKey| self.cursor.is_none_or(|cursor| *key < cursor);
        assert!(self.back.iter().all(is_behind), "{name}: a task ahead of the cursor came back");
    }
}
