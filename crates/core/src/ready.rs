//! The steps that wait for one need, in the order in which they are to be served.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use kiln_types::{JobId, StepIndex};

use crate::accounts::AccountId;

/// A step, by age: jobs are numbered as they come.
pub(crate) type StepId = (JobId, StepIndex);

/// Where a step is filed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shelf {
    pub priority: u8,
    pub account: AccountId,
}

#[derive(Debug, Default)]
pub(crate) struct Ready {
    levels: BTreeMap<Reverse<u8>, BTreeMap<AccountId, BTreeSet<StepId>>>,
}

impl Ready {
    pub fn is_empty(&self) -> bool {
        self.levels.is_empty()
    }

    pub fn insert(&mut self, shelf: Shelf, step: StepId) {
        let accounts = self.levels.entry(Reverse(shelf.priority)).or_default();
        accounts.entry(shelf.account).or_default().insert(step);
    }

    pub fn remove(&mut self, shelf: Shelf, step: StepId) {
        let Some(accounts) = self.levels.get_mut(&Reverse(shelf.priority)) else { return };
        if let Some(steps) = accounts.get_mut(&shelf.account) {
            steps.remove(&step);
            if steps.is_empty() {
                accounts.remove(&shelf.account);
            }
        }
        if accounts.is_empty() {
            self.levels.remove(&Reverse(shelf.priority));
        }
    }

    /// From the highest.
    pub fn priorities(&self) -> impl Iterator<Item = u8> {
        self.levels.keys().map(|level| level.0)
    }

    pub fn accounts(&self, priority: u8) -> impl Iterator<Item = AccountId> {
        self.levels.get(&Reverse(priority)).into_iter().flat_map(|level| level.keys().copied())
    }

    /// The account's oldest step behind `last`.
    pub fn after(&self, shelf: Shelf, last: Option<StepId>) -> Option<StepId> {
        let steps = self.levels.get(&Reverse(shelf.priority))?.get(&shelf.account)?;
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        steps.range((from, Bound::Unbounded)).next().copied()
    }

    pub fn contains(&self, shelf: Shelf, step: StepId) -> bool {
        let accounts = self.levels.get(&Reverse(shelf.priority));
        accounts.and_then(|a| a.get(&shelf.account)).is_some_and(|steps| steps.contains(&step))
    }
}
