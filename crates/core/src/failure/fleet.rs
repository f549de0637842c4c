//! The workers that there are for a requirement, and those of them with incidents.

use std::collections::BTreeSet;

use kiln_types::{SessionKey, WorkerId};

use crate::{
    Core,
    ids::RequirementId,
    state::{FailureHistory, Match},
};

impl Core {
    /// The number of workers that take work and fit the requirement, busy or not.
    pub(crate) fn workers_for(&self, requirement: RequirementId) -> usize {
        let counted = self.requirements[requirement].workers as usize;
        self.corrected(counted, requirement, |_| true, |known| known.slots > 0)
    }

    /// The count as it is with the workers that changed since it was taken.
    fn corrected(
        &self,
        counted: usize,
        requirement: RequirementId,
        is: impl Fn(WorkerId) -> bool,
        was: impl Fn(&Match) -> bool,
    ) -> usize {
        let changed =
            self.state.changed_workers.iter().filter_map(|id| Some((*id, self.state.find_worker(*id)?)));
        changed.fold(counted, |sum, (id, worker)| {
            let was = worker.matches.get(requirement.0).is_some_and(&was);
            sum + usize::from(is(id) && self.is_worker_for(id, requirement)) - usize::from(was)
        })
    }

    /// Returns whether the worker takes work and fits the requirement.
    pub(crate) fn is_worker_for(&self, worker: WorkerId, requirement: RequirementId) -> bool {
        self.state.find_worker(worker).is_some_and(|known| known.takes_work() && known.fits(requirement))
    }

    fn count_for(&self, workers: impl IntoIterator<Item = WorkerId>, requirement: RequirementId) -> usize {
        let workers: BTreeSet<WorkerId> = workers.into_iter().collect();
        workers.into_iter().filter(|id| self.is_worker_for(*id, requirement)).count()
    }

    /// The number of workers for the requirement besides these.
    pub(crate) fn workers_besides(
        &self,
        these: impl IntoIterator<Item = WorkerId>,
        of: RequirementId,
    ) -> usize {
        self.workers_for(of) - self.count_for(these, of)
    }

    /// Returns whether a worker besides these could be given work of this session now, and has not refused it.
    pub(crate) fn others_take(
        &self,
        besides: impl IntoIterator<Item = WorkerId>,
        requirement: RequirementId,
        session: Option<SessionKey>,
    ) -> bool {
        let gone = besides.into_iter().chain(self.cooldowns.workers(session));
        self.workers_besides(gone, requirement) > 0
    }

    /// Returns whether a worker without incidents, on which the task has not gone wrong, could be given it: that one
    /// tells best what the origin is.
    pub(crate) fn has_unsuspected_worker(&self, of: RequirementId, history: &FailureHistory) -> bool {
        let counted = self.requirements[of].with_incidents as usize;
        let suspected = self.corrected(counted, of, |id| self.has_incidents(id), |known| known.has_incidents);
        let tried = history.workers().filter(|id| !self.has_incidents(*id));
        self.workers_for(of) > suspected + self.count_for(tried, of)
    }

    /// Returns whether something went wrong on the worker since it last delivered.
    pub(crate) fn has_incidents(&self, id: WorkerId) -> bool {
        self.quarantine.with_incidents.contains(&id)
    }
}
