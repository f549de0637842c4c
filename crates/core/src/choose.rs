//! What a slot should do next: the step whose turn it is among those that it can take, and the task of it.

use kiln_types::{SlotIndex, TaskIndex, WorkerId};

use crate::{
    Core,
    accounts::{AccountId, Turn},
    estimate::UNMEASURED_MS,
    needs::Need,
    ready::{Shelf, StepId},
    reserve::Space,
};

/// How far another's turn may be ahead for a slot to stay with its scene; milliseconds of share.
const RELOAD_MS: u64 = 20_000;
/// Steps that cannot be served here and now, looked at for one decision.
pub(crate) const LOOK_AT: usize = 256;

impl Core {
    /// The task that this slot should do next.
    pub(crate) fn choose(&mut self, id: WorkerId, slot: SlotIndex) -> Option<(StepId, TaskIndex)> {
        let fitting = self.fitting(id, slot);
        let mut levels: Vec<u8> =
            fitting.iter().flat_map(|need| self.needs[*need].ready.priorities()).collect();
        levels.sort_unstable_by(|a, b| b.cmp(a));
        levels.dedup();
        // What is owed to those below goes past the highest.
        if levels.len() > 1 && self.owed_ms >= UNMEASURED_MS {
            levels.rotate_left(1);
        }
        let mut tried = 0;
        for priority in levels {
            let accounts = fitting.iter().flat_map(|need| self.needs[*need].ready.accounts(priority));
            let mut heads: Vec<(Turn, AccountId)> = accounts
                .filter(|account| !self.accounts.is_full(*account) || self.holds(id, slot, *account))
                .map(|account| (self.accounts.turn(account), account))
                .collect();
            heads.sort_unstable();
            heads.dedup();
            if let Some(found) = self.stay(id, slot, priority, heads.first().copied()) {
                return Some(found);
            }
            for (_, account) in heads {
                let shelf = Shelf { priority, account };
                let mut last = None;
                while let Some(step) =
                    fitting.iter().filter_map(|need| self.needs[*need].ready.after(shelf, last)).min()
                {
                    last = Some(step);
                    match self.takes(id, slot, step) {
                        Takes::Task(index) => return Some((step, index)),
                        Takes::WhenThereIsRoom => return None,
                        Takes::Nothing => {}
                    }
                    tried += 1;
                    if tried >= LOOK_AT {
                        return None;
                    }
                }
            }
        }
        None
    }

    /// The needs that wait and that the slot can serve, as far as its worker and limits go.
    fn fitting(&self, id: WorkerId, slot: SlotIndex) -> Vec<Need> {
        let Some(worker) = self.workers.get(&id) else { return Vec::new() };
        let fits = |need: &Need| {
            worker.fits(*need)
                && !self.needs[*need].ready.is_empty()
                && (self.lacking_limit(*need).is_none() || self.has_licence(worker, slot, *need))
        };
        self.needs.all().filter(fits).collect()
    }

    /// The next task of the scene that the slot has open, where its account's turn is at most a reload away.
    fn stay(
        &mut self,
        id: WorkerId,
        slot: SlotIndex,
        priority: u8,
        first: Option<(Turn, AccountId)>,
    ) -> Option<(StepId, TaskIndex)> {
        let (turn, account) = first?;
        let step = self.slot((id, slot))?.last?;
        let (need, shelf) = self.step_of(step)?.shelf?;
        let mine = self.accounts.turn(shelf.account);
        let close = shelf.priority == priority && shelf.account != account && mine.is_within(RELOAD_MS, turn);
        let capped = self.accounts.is_full(shelf.account) && !self.holds(id, slot, shelf.account);
        if !close || capped || !self.workers[&id].fits(need) {
            return None;
        }
        match self.takes(id, slot, step) {
            Takes::Task(index) => Some((step, index)),
            Takes::WhenThereIsRoom | Takes::Nothing => None,
        }
    }

    /// Whether the slot can take a task of this step now, and which.
    pub(crate) fn takes(&mut self, id: WorkerId, slot: SlotIndex, of: StepId) -> Takes {
        let Some((job, worker)) = self.jobs.get(&of.0).zip(self.workers.get(&id)) else {
            return Takes::Nothing;
        };
        let Some(step) = job.steps.get(usize::from(of.1.0)) else { return Takes::Nothing };
        let Some(place) = worker.slots.get(usize::from(slot.0)) else { return Takes::Nothing };
        let need = step.need;
        let lacks_limit = self.lacking_limit(need).is_some() && !place.counted.contains(&of);
        if lacks_limit || !self.may_serve(id, job, step) {
            return Takes::Nothing;
        }
        let outgrown = self.outgrown(id, step);
        if let Some(task) = outgrown.filter(|_| place.queue.is_empty() && worker.is_unclaimed_but(slot)) {
            return Takes::Task(task);
        }
        let kept = outgrown.and_then(|_| self.kept_space(id, need));
        match kept.unwrap_or_else(|| self.space(id, slot, job, step)) {
            Space::Now => {}
            Space::Later => return Takes::WhenThereIsRoom,
            Space::KeepFree if self.reserve(id, need) => return Takes::WhenThereIsRoom,
            Space::KeepFree | Space::No => return Takes::Nothing,
        }
        match step.next(|trouble| self.has_place_for(id, need, trouble)) {
            Some(task) => Takes::Task(task),
            None => {
                if worker.is_unclaimed() && worker.reserved == Some(need) {
                    // What it was kept free for had better go elsewhere by now, or has gone.
                    self.unreserve(id, need);
                    self.indexes.dirty.insert(id);
                }
                Takes::Nothing
            }
        }
    }
}

/// Whether a slot takes a task of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    Task(TaskIndex),
    /// Not while others are at work there; and nothing that comes later goes before it.
    WhenThereIsRoom,
    Nothing,
}
