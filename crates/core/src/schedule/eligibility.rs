//! The rules by which a worker may get work of a step, whatever else it does: devices, caps, limits, cooldowns and failure
//! histories.

use std::collections::BTreeSet;

use kiln_types::{SessionKey, TaskIndex, WorkerId};

use crate::{
    Core, DeviceOption, Label, StepPlan,
    ids::{MemberId, RequirementId, SlotRef},
    state::{CooldownCause, FailureHistory, Job, Step, Worker},
    tuning::CANDIDATES,
};

impl Core {
    /// Returns whether the job's worker cap and cooldowns allow the worker to get work of the step.
    pub(crate) fn may_serve(&self, id: WorkerId, job: &Job, step: &Step) -> bool {
        let session = self.session_on(id, job, step);
        !job.is_closed_to(id)
            && session.is_some_and(|session| !self.has_cooldown(id, step.requirement, session))
    }

    /// Returns whether the worker may get a task of the step with this history now. One that ran out of memory gets the
    /// machine for itself.
    pub(crate) fn may_retry_now(&self, id: WorkerId, step: &Step, history: &FailureHistory) -> bool {
        let is_alone = || self.state.worker(id).is_unclaimed(None);
        (history.least_memory().is_none() || is_alone()) && self.may_retry(id, step, history)
    }

    /// Returns whether the worker may get a task with this history. As long as there are others, a task with mishaps does
    /// not go to a worker on which it had one, nor to one with incidents: that would show nothing about the origin.
    pub(crate) fn may_retry(&self, id: WorkerId, step: &Step, history: &FailureHistory) -> bool {
        if let Some(least) = history.least_memory() {
            // The task is tried on workers that are large enough, up to its limit.
            let has = self.state.worker(id).offer.memory;
            return has == 0 || has >= least;
        }
        let again =
            history.has_mishap_on(id) && self.workers_besides(history.workers(), step.requirement) > 0;
        let is_doubtful = history.has_mishaps()
            && self.has_incidents(id)
            && self.has_unsuspected_worker(step.requirement, history);
        !again && !is_doubtful
    }

    /// The task of the step that is to have this worker for itself.
    pub(crate) fn next_alone(&self, id: WorkerId, step: &Step) -> Option<TaskIndex> {
        if self.state.worker(id).offer.memory == 0 {
            return None;
        }
        let is_next = |task: &TaskIndex| {
            let history = step.tasks.history(*task).filter(|history| history.least_memory().is_some());
            history.is_some_and(|history| self.may_retry(id, step, history))
        };
        step.tasks.retries().take(CANDIDATES).find(is_next)
    }

    /// Returns whether the slot is at work for a step of this requirement: another task does not count again against its
    /// limits.
    pub(crate) fn has_licence(&self, worker: &Worker, of: SlotRef, requirement: RequirementId) -> bool {
        let counted = worker.slot(of.slot).map_or(&[][..], |slot| &slot.counted);
        counted.iter().any(|step| self.state.step(*step).requirement == requirement)
    }

    /// Returns whether a cap keeps the member off this slot. A slot that it has already is no other one.
    pub(crate) fn is_capped(&self, of: SlotRef, member: MemberId) -> bool {
        let has = || self.state.slot(of).counted.iter().any(|step| self.state.job(step.job).member == member);
        self.fair_share.is_full(member) && !has()
    }

    /// The session that the worker would have open for the step, if any; `None` if the worker has no device for the step.
    pub(crate) fn session_on(&self, id: WorkerId, job: &Job, step: &Step) -> Option<Option<SessionKey>> {
        if job.pinned.is_some() || step.plan.device.is_none() {
            return Some(step.session());
        }
        let labels = &self.state.find_worker(id)?.offer.labels;
        step.plan.best_device(labels).map(|option| Some(option.session))
    }

    /// Returns whether the worker gets no work of this session for now. A faulty one still does while there is no other:
    /// its failures soon show the origin.
    pub(crate) fn has_cooldown(
        &self,
        worker: WorkerId,
        of: RequirementId,
        session: Option<SessionKey>,
    ) -> bool {
        match self.cooldowns.cause(worker, session) {
            None => false,
            Some(CooldownCause::Refused) => true,
            Some(CooldownCause::Faulty) => self.has_other_worker([worker], of, session),
        }
    }

    /// The used-up limit because of which steps of this requirement wait.
    pub(crate) fn exhausted_limit(&self, requirement: RequirementId) -> Option<&str> {
        let limits = &self.requirements[requirement].requirement.limits;
        let is_exhausted = |(name, count): &(&String, &u32)| {
            let limit = self.limits.get(*name).copied().unwrap_or_default();
            limit.used.saturating_add(**count) > limit.total
        };
        limits.iter().find(is_exhausted).map(|(name, _)| name.as_str())
    }
}

impl StepPlan {
    /// The best device of the step on a worker with these labels.
    pub(super) fn best_device(&self, labels: &BTreeSet<Label>) -> Option<&DeviceOption> {
        self.device.as_ref()?.options.iter().find(|option| labels.contains(&option.label))
    }
}
