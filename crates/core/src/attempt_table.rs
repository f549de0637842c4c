//! Every attempt that may yet matter, and by worker those that are closed and may yet deliver.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Deref,
};

use kiln_types::{AttemptId, WorkerId};

use crate::worker::{Attempt, AttemptPhase};

/// The attempts by id. Late ones are also found by their worker: a worker that joins must not cost a look at every
/// attempt of the farm.
#[derive(Debug, Default)]
pub(crate) struct AttemptTable {
    all: BTreeMap<AttemptId, Attempt>,
    late: BTreeMap<WorkerId, BTreeSet<AttemptId>>,
}

impl Deref for AttemptTable {
    type Target = BTreeMap<AttemptId, Attempt>;

    fn deref(&self) -> &Self::Target {
        &self.all
    }
}

impl AttemptTable {
    /// The attempt, to change it. A late one becomes live by [`AttemptTable::resume`] alone.
    pub fn get_mut(&mut self, id: &AttemptId) -> Option<&mut Attempt> {
        self.all.get_mut(id)
    }

    pub fn insert(&mut self, id: AttemptId, attempt: Attempt) {
        self.remove(&id);
        if !attempt.phase.is_live() {
            self.late.entry(attempt.worker).or_default().insert(id);
        }
        self.all.insert(id, attempt);
    }

    pub fn remove(&mut self, id: &AttemptId) -> Option<Attempt> {
        let attempt = self.all.remove(id)?;
        if !attempt.phase.is_live() {
            self.unlist(attempt.worker, *id);
        }
        Some(attempt)
    }

    /// The late attempt is live again, in this phase.
    pub fn resume(&mut self, id: AttemptId, phase: AttemptPhase) {
        let Some(attempt) = self.all.get_mut(&id) else { return };
        attempt.phase = phase;
        let worker = attempt.worker;
        self.unlist(worker, id);
    }

    /// Closed attempts of the worker that may yet deliver, in their order.
    pub fn late_of(&self, worker: WorkerId) -> impl Iterator<Item = (AttemptId, &Attempt)> {
        let ids = self.late.get(&worker).into_iter().flatten();
        ids.filter_map(|id| Some((*id, self.all.get(id)?)))
    }

    fn unlist(&mut self, worker: WorkerId, id: AttemptId) {
        if let Some(ids) = self.late.get_mut(&worker) {
            ids.remove(&id);
            if ids.is_empty() {
                self.late.remove(&worker);
            }
        }
    }

    /// Panics where other attempts are listed as late than are. For tests.
    pub fn check(&self) {
        let mut late: BTreeMap<WorkerId, BTreeSet<AttemptId>> = BTreeMap::new();
        for (id, attempt) in self.all.iter().filter(|(_, attempt)| !attempt.phase.is_live()) {
            late.entry(attempt.worker).or_default().insert(*id);
        }
        assert_eq!(self.late, late, "other attempts are late than are listed by worker");
    }
}
