//! Whether a slot has room for what a step needs of the machine, and workers that are kept free until they have.

use kiln_types::{SlotIndex, WorkerId};

use crate::{
    Core,
    job::{Job, Step},
    needs::{self, Need},
};

impl Core {
    /// Whether the slot has room for what the step needs, beside what the others of its worker hold.
    pub(crate) fn space(&self, id: WorkerId, slot: SlotIndex, job: &Job, step: &Step) -> Space {
        let Some(worker) = self.workers.get(&id) else { return Space::No };
        let Some(place) = worker.slots.get(usize::from(slot.0)) else { return Space::No };
        let need = step.need;
        let room = self.needs[need].requirement.room;
        let has_room = || needs::claim(worker, &worker.claims(Some(slot)), room).is_some();
        if !place.queue.is_empty() {
            // Behind others, only what claims the same: the slot is sized anew when it is vacant. And frames that turned
            // out to take more than there is must not go on beside each other.
            let behind = place.counted.first().and_then(|step| self.step_of(*step)).map(|step| step.need);
            let same = behind.is_some_and(|behind| self.needs[behind].requirement.room == room);
            let goes_on = same && worker.reserved.is_none() && has_room();
            return if goes_on { Space::Now } else { Space::Later };
        }
        if worker.reserved.is_some_and(|reserved| reserved != need) {
            return Space::No;
        }
        if has_room() {
            return Space::Now;
        }
        match self.kept_space(id, need) {
            // Kept free only for what it may be given then.
            Some(Space::KeepFree)
                if !job.on.is_empty() || step.next(|trouble| self.may_take(id, need, trouble)).is_none() =>
            {
                Space::No
            }
            kept => kept.unwrap_or(Space::No),
        }
    }

    /// What has no room beside others waits for a worker that is kept free, one for each need. `None` where that is
    /// another than this one.
    pub(crate) fn kept_space(&self, id: WorkerId, need: Need) -> Option<Space> {
        match self.needs[need].reserved {
            None => Some(Space::KeepFree),
            Some(reserved) => (reserved == id).then_some(Space::Later),
        }
    }

    /// The worker takes nothing else until there is room on it for this need. Not where it is kept free already.
    pub(crate) fn reserve(&mut self, id: WorkerId, need: Need) -> bool {
        let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.reserved.is_none()) else {
            return false;
        };
        worker.reserved = Some(need);
        self.needs[need].reserved = Some(id);
        self.indexes.dirty.insert(id);
        true
    }

    /// It is there for others again.
    pub(crate) fn unreserve(&mut self, id: WorkerId, need: Need) {
        self.needs[need].reserved = None;
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.reserved = None;
        }
        self.look_again();
    }
}

/// Whether there is room on a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Space {
    Now,
    /// When what is there ends; nothing that comes later goes before it.
    Later,
    /// Only if the worker is kept free for it.
    KeepFree,
    No,
}
