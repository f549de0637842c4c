//! The number of workers for a requirement, and of those with incidents.

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

    /// A count of an index, corrected by the workers that changed since the index was brought up to date.
    fn corrected(
        &self,
        counted: usize,
        requirement: RequirementId,
        is_counted: impl Fn(WorkerId) -> bool,
        was_counted: impl Fn(&Match) -> bool,
    ) -> usize {
        let changed =
            self.state.changed_workers.iter().filter_map(|id| Some((*id, self.state.find_worker(*id)?)));
        changed.fold(counted, |sum, (id, worker)| {
            let was = worker.matches.get(requirement.0).is_some_and(&was_counted);
            sum + usize::from(is_counted(id) && self.is_worker_for(id, requirement)) - usize::from(was)
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

    /// Returns whether another worker than these fits and has no cooldown for the session.
    pub(crate) fn has_other_worker(
        &self,
        besides: impl IntoIterator<Item = WorkerId>,
        requirement: RequirementId,
        session: Option<SessionKey>,
    ) -> bool {
        let gone = besides.into_iter().chain(self.cooldowns.workers(session));
        self.workers_besides(gone, requirement) > 0
    }

    /// Returns whether a worker fits that has no incidents and on which the task has no mishap: it shows best what the
    /// origin is.
    pub(crate) fn has_unsuspected_worker(&self, of: RequirementId, history: &FailureHistory) -> bool {
        let counted = self.requirements[of].with_incidents as usize;
        let suspected = self.corrected(counted, of, |id| self.has_incidents(id), |known| known.has_incidents);
        let tried = history.workers().filter(|id| !self.has_incidents(*id));
        self.workers_for(of) > suspected + self.count_for(tried, of)
    }

    /// Returns whether the worker has had incidents since it last delivered.
    pub(crate) fn has_incidents(&self, id: WorkerId) -> bool {
        self.quarantine.with_incidents.contains(&id)
    }
}
