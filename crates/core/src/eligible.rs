//! Who may be given work of a step, whatever else it does: limits, caps, pauses, and what went wrong before.

use std::collections::BTreeSet;

use kiln_types::{SlotIndex, WorkerId};

use crate::{
    Core,
    accounts::AccountId,
    job::{Job, Step, Trouble},
    needs::Need,
    worker::Worker,
};

impl Core {
    /// Whether the worker may be given work of the step, as far as the most workers of its job and pauses go.
    pub(crate) fn may_serve(&self, id: WorkerId, job: &Job, step: &Step) -> bool {
        let one_too_many = job.is_full() && !job.on.contains_key(&id);
        let session = self.session_on(id, job, step);
        !one_too_many && session.is_some_and(|session| !self.is_held_off(id, step.need, session))
    }

    /// Whether the worker may be given now a task of which so much went wrong. What ran out of memory beside others
    /// gets the machine for itself.
    pub(crate) fn has_place_for(&self, id: WorkerId, need: Need, trouble: &Trouble) -> bool {
        let alone = || self.workers.get(&id).is_some_and(Worker::is_unclaimed);
        (trouble.outgrew.is_none() || alone()) && self.may_take(id, need, trouble)
    }

    /// Whether the worker may be given a task of which so much went wrong: not where it would tell nothing new, on a
    /// worker that it befell, or on one with which something else is the matter, while there are others.
    pub(crate) fn may_take(&self, id: WorkerId, need: Need, trouble: &Trouble) -> bool {
        let Some(worker) = self.workers.get(&id) else { return false };
        // Nor is one that is too small for it somewhere else to go. It is tried so often and no more.
        if trouble.outgrew.is_some() {
            return Self::is_large_enough(worker, trouble);
        }
        let again = trouble.befell(id) && self.can_go_elsewhere(need, trouble);
        let doubtful =
            trouble.is_blamed() && self.is_struck(id) && self.can_go_to_the_unstruck(need, trouble);
        !again && !doubtful
    }

    /// Whether the task has gone wrong on fewer than all workers that may take work and fit.
    fn can_go_elsewhere(&self, need: Need, trouble: &Trouble) -> bool {
        let befell: BTreeSet<WorkerId> = trouble.workers().collect();
        let failed = befell.iter().filter(|id| self.is_willing(**id, need)).count();
        self.willing(need) > failed
    }

    /// The limit that keeps the steps of this need back.
    pub(crate) fn lacking_limit(&self, need: Need) -> Option<&str> {
        let limits = &self.needs[need].requirement.limits;
        let lacks = |(name, count): &(&String, &u32)| {
            let limit = self.limits.get(*name).copied().unwrap_or_default();
            limit.used.saturating_add(**count) > limit.total
        };
        limits.iter().find(lacks).map(|(name, _)| name.as_str())
    }

    /// Whether the slot is at work for a step of this need already: more of that step uses no more of its limits.
    pub(crate) fn has_licence(&self, worker: &Worker, slot: SlotIndex, need: Need) -> bool {
        let counted = worker.slots.get(usize::from(slot.0)).map_or(&[][..], |slot| &slot.counted);
        counted.iter().any(|step| self.step_of(*step).is_some_and(|known| known.need == need))
    }

    /// Whether the slot is at work for this account already: more of the same takes no other slot.
    pub(crate) fn holds(&self, worker: WorkerId, slot: SlotIndex, account: AccountId) -> bool {
        let slot = self.workers.get(&worker).and_then(|worker| worker.slots.get(usize::from(slot.0)));
        let counted = slot.map_or(&[][..], |slot| &slot.counted);
        counted.iter().any(|(job, _)| self.jobs.get(job).is_some_and(|job| job.account == account))
    }
}
