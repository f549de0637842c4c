//! The frame order of a step's tasks, which is computed without a table.

use kiln_types::{Order, TaskIndex};

use crate::IndexSet;

/// The key of a task in its step's order; the lowest comes first. An order is a few ascending passes over the step; only
/// the reverse order descends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OrderKey {
    pass: u32,
    pub index: TaskIndex,
}

/// The tasks 0 to `count` - 1, in an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameOrder {
    order: Order,
    /// At most [`kiln_types::MAX_TASKS`].
    count: u32,
}

impl FrameOrder {
    pub fn new(order: Order, count: u32) -> Self {
        Self { order, count }
    }

    pub fn count(&self) -> u32 {
        self.count
    }

    /// A key that is not behind any task.
    pub fn start(&self) -> OrderKey {
        let index = if self.order == Order::Reverse { u32::MAX } else { 0 };
        OrderKey { pass: 0, index: TaskIndex(index) }
    }

    pub fn key(&self, index: TaskIndex) -> OrderKey {
        let pass = match self.order {
            Order::Sequential => 0,
            // Each task is a pass of its own.
            Order::Reverse => u32::MAX - index.0,
            Order::Coarse => self.level(index.0),
            Order::Every(nth) => u32::from(!index.0.is_multiple_of(nth.get())),
        };
        OrderKey { pass, index }
    }

    /// The earliest task of the set that is not before `from`. Tasks that the set lacks are skipped span by span: a walk from
    /// the start to the end takes at most two looks per task and one for each pass.
    pub fn first_in(&self, set: &IndexSet, mut from: OrderKey) -> Option<OrderKey> {
        let passes = match self.order {
            Order::Sequential => return set.at_or_after(from.index).map(|index| self.key(index)),
            Order::Reverse => return set.at_or_before(from.index).map(|index| self.key(index)),
            Order::Coarse => self.halvings() + 1,
            Order::Every(_) => 2,
        };
        while from.pass < passes && !set.is_empty() {
            #[cfg(test)]
            LOOKS.set(LOOKS.get() + 1);
            let next = self.at_or_after(from);
            match next.and_then(|next| set.at_or_after(next)) {
                Some(found) if Some(found) == next => return Some(OrderKey { index: found, ..from }),
                Some(found) => from.index = found,
                None => from = OrderKey { pass: from.pass + 1, index: TaskIndex(0) },
            }
        }
        None
    }

    /// The first task of the key's pass that is not below its own.
    fn at_or_after(&self, from: OrderKey) -> Option<TaskIndex> {
        let low = from.index.0;
        let index = match self.order {
            Order::Sequential | Order::Reverse => Some(low),
            Order::Coarse => self.at_level(from.pass, low),
            Order::Every(nth) if from.pass == 0 => low.checked_next_multiple_of(nth.get()),
            Order::Every(nth) if nth.get() == 1 => None,
            Order::Every(nth) => Some(low + u32::from(low.is_multiple_of(nth.get()))),
        };
        index.filter(|index| *index < self.count).map(TaskIndex)
    }
}

/// The coarse order. With `end` the last task, level 0 holds tasks 0 and `end`; level l holds the tasks at odd multiples of
/// `end` / 2^l, rounded down, that are at no level before. The last level, with gaps shorter than a task, holds all that
/// are left.
impl FrameOrder {
    fn end(&self) -> u64 {
        u64::from(self.count.saturating_sub(1))
    }

    /// The number of the last level: the lowest l at which 2^l reaches `end`.
    fn halvings(&self) -> u32 {
        self.end().max(1).next_power_of_two().trailing_zeros()
    }

    fn level(&self, index: u32) -> u32 {
        let (index, end) = (u64::from(index), self.end());
        if index == 0 || index == end {
            return 0;
        }
        let lies_on = |level: &u32| (((index << level).div_ceil(end)) * end) >> level == index;
        (1..self.halvings()).find(lies_on).unwrap_or_else(|| self.halvings())
    }

    fn at_level(&self, level: u32, low: u32) -> Option<u32> {
        let (low, end) = (u64::from(low), self.end());
        let index = if level == 0 {
            if low == 0 { 0 } else { end }
        } else if level < self.halvings() {
            let multiple = (low << level).div_ceil(end) | 1;
            (multiple * end) >> level
        } else {
            // ⌈x · taken / end⌉ tasks below x are of the levels before, and so ⌊x · left / end⌋ of this one.
            let taken = 1 << (level - 1);
            let left = end - taken;
            let number = low * left / end + 1;
            (number * end).div_ceil(left) - 1
        };
        u32::try_from(index).ok().filter(|index| u64::from(*index) >= low && *index < self.count)
    }
}

#[cfg(test)]
thread_local! {
    /// The number of looks of [`FrameOrder::first_in`] on this thread.
    pub(crate) static LOOKS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}
