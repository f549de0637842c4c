//! The choice of a slot's next task: the step whose turn it is among those that it can take, and the task of it. What
//! has no room on any worker reserves one, which takes nothing else until there is.

use std::{cmp::Reverse, collections::BinaryHeap};

use kiln_types::{TaskId, WorkerId};

use super::fair_share::ShareRank;
use crate::{
    Core,
    claims::claim,
    ids::{QueueKey, RequirementId, ServeOrder, SlotRef, StepRef},
    state::{Job, Step},
    tuning::{CANDIDATES, RELOAD_MS, estimate::UNMEASURED_MS},
};

/// The answer of a slot to a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taking {
    Task(TaskId),
    /// Not while others are at work there; and nothing that comes later goes before it.
    WhenThereIsRoom,
    Nothing,
}

impl Taking {
    pub fn task(self) -> Option<TaskId> {
        if let Self::Task(task) = self { Some(task) } else { None }
    }
}

/// The room on a slot for a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Space {
    Now,
    /// There is room when what is there ends; nothing that comes later goes before it.
    Later,
    /// Only if the worker is reserved for it.
    IfReserved,
    No,
}

impl Core {
    /// The task that this slot should do next.
    pub(crate) fn select(&mut self, of: SlotRef) -> Option<TaskId> {
        let fitting = self.fitting(of);
        let levels = fitting.iter().flat_map(|id| self.requirements[*id].ready.priorities());
        let mut levels: Vec<u8> = levels.collect();
        levels.sort_unstable_by_key(|priority| Reverse(*priority));
        levels.dedup();
        // What is owed to those below goes past the highest.
        if levels.len() > 1 && self.owed_ms >= UNMEASURED_MS {
            levels.rotate_left(1);
        }
        let mut tried = 0;
        for priority in levels {
            let members = fitting.iter().flat_map(|id| self.requirements[*id].ready.members(priority));
            let members = members.filter(|member| !self.is_capped(of, *member));
            // Nearly always the first is taken: the others need no order.
            let mut heads: BinaryHeap<Reverse<ShareRank>> =
                members.map(|member| Reverse(self.fair_share.rank(member))).collect();
            if let Some(found) = self.stay(of, priority, heads.peek().map(|head| head.0)) {
                return Some(found);
            }
            while let Some(Reverse(head)) = heads.pop() {
                if heads.peek() == Some(&Reverse(head)) {
                    // The member has steps of another requirement, too.
                    continue;
                }
                let member = head.member;
                let key = QueueKey { priority, member };
                let mut last = None;
                while let Some(step) = self.next_step(&fitting, key, last) {
                    last = Some(step);
                    match self.takes(of, step) {
                        Taking::Task(task) => return Some(task),
                        Taking::WhenThereIsRoom => return None,
                        Taking::Nothing => {}
                    }
                    tried += 1;
                    if tried >= CANDIDATES {
                        return None;
                    }
                }
            }
        }
        None
    }

    /// The step of the account that is next behind `last`, among those with these requirements.
    fn next_step(&self, of: &[RequirementId], key: QueueKey, last: Option<StepRef>) -> Option<StepRef> {
        let steps = of.iter().filter_map(|id| self.requirements[*id].ready.after(key, last));
        steps.min_by_key(|step| ServeOrder::from(*step))
    }

    /// The requirements that wait and that the slot can serve, as far as its worker and limits go.
    fn fitting(&self, of: SlotRef) -> Vec<RequirementId> {
        let worker = self.state.worker(of.worker);
        let fits = |id: &RequirementId| {
            worker.fits(*id)
                && !self.requirements[*id].ready.is_empty()
                && (self.exhausted_limit(*id).is_none() || self.has_licence(worker, of, *id))
        };
        self.requirements.all().filter(fits).collect()
    }

    /// The next task of the scene that the slot has open, where its account's turn is at most a reload away.
    fn stay(&mut self, of: SlotRef, priority: u8, first: Option<ShareRank>) -> Option<TaskId> {
        let first = first?;
        let step = self.state.slot(of).last?;
        // The job may be forgotten since.
        let (requirement, key) = self.state.find_step(step)?.queued?;
        let own = self.fair_share.rank(key.member);
        let is_close =
            key.priority == priority && key.member != first.member && own.is_within(RELOAD_MS, first);
        if !is_close || self.is_capped(of, key.member) || !self.state.worker(of.worker).fits(requirement) {
            return None;
        }
        self.takes(of, step).task()
    }

    /// Returns whether the slot can take a task of this step now, and which.
    pub(crate) fn takes(&mut self, of: SlotRef, step_ref: StepRef) -> Taking {
        let (job, step) = (self.state.job(step_ref.job), self.state.step(step_ref));
        let (worker, slot) = (self.state.worker(of.worker), self.state.slot(of));
        let requirement = step.requirement;
        let lacks_limit = self.exhausted_limit(requirement).is_some() && !slot.counted.contains(&step_ref);
        if lacks_limit || !self.may_serve(of.worker, job, step) {
            return Taking::Nothing;
        }
        let stream = self.ready_stream_on(of.worker, step_ref);
        let alone = self.next_alone(of.worker, step).filter(|_| stream.is_none());
        if let Some(task) = alone
            && slot.queue().is_empty()
            && worker.is_unclaimed(Some(of.slot))
        {
            return Taking::Task(step_ref.task(task));
        }
        let space = match alone.map(|_| self.reserved_space(of.worker, requirement)) {
            Some(Space::No) | None => self.space(of, job, step, stream.map(|(_, memory)| memory)),
            Some(space) => space,
        };
        match space {
            Space::Now => {}
            Space::Later => return Taking::WhenThereIsRoom,
            Space::IfReserved if self.reserve(of.worker, requirement) => return Taking::WhenThereIsRoom,
            Space::IfReserved | Space::No => return Taking::Nothing,
        }
        if let Some((task, _)) = stream {
            return Taking::Task(task);
        }
        if let Some(task) = step.next(|history| self.may_retry_now(of.worker, step, history)) {
            return Taking::Task(step_ref.task(task));
        }
        if worker.is_unclaimed(None) && worker.reserved == Some(requirement) {
            // What it was reserved for had better go elsewhere by now, or has gone.
            self.unreserve(of.worker, requirement);
            self.state.changed_workers.insert(of.worker);
        }
        Taking::Nothing
    }

    /// The room on the slot for what the step requires, beside what the other slots of its worker hold. `stream`: the
    /// memory that a stream of it gives up for the slot.
    pub(crate) fn space(&self, of: SlotRef, job: &Job, step: &Step, stream: Option<u64>) -> Space {
        let (worker, slot, requirement) =
            (self.state.worker(of.worker), self.state.slot(of), step.requirement);
        let room = self.requirements[requirement].requirement.room;
        let has_room = || {
            let mut beside = worker.claimed(Some(of.slot));
            if let (Some(beside), Some(memory)) = (&mut beside, stream) {
                beside.memory = beside.memory.saturating_sub(memory);
            }
            claim(&worker.offer, beside, room).is_some()
        };
        if !slot.queue().is_empty() {
            // Behind what asks for the same it takes over its place; anything else is weighed when the slot is vacant.
            // And frames that turned out to take more than there is must not go on beside each other.
            let before = slot.counted.first().map(|step| self.state.step(*step).requirement);
            let is_same = before.is_some_and(|before| self.requirements[before].requirement.room == room);
            let goes_on = is_same && worker.reserved.is_none() && has_room();
            return if goes_on { Space::Now } else { Space::Later };
        }
        if worker.reserved.is_some_and(|reserved| reserved != requirement) {
            return Space::No;
        }
        if has_room() {
            return Space::Now;
        }
        let space = self.reserved_space(of.worker, requirement);
        // Reserved only for what it may be given then.
        let next = || step.next(|history| self.may_retry(of.worker, step, history));
        let is_lost = || stream.is_none() && (!job.on.is_empty() || next().is_none());
        if space == Space::IfReserved && is_lost() { Space::No } else { space }
    }

    /// The room on a worker for what has none beside others. It waits for a worker that is reserved, one for each
    /// requirement.
    pub(crate) fn reserved_space(&self, id: WorkerId, requirement: RequirementId) -> Space {
        match self.requirements[requirement].reserved {
            None => Space::IfReserved,
            Some(reserved) if reserved == id => Space::Later,
            Some(_) => Space::No,
        }
    }

    /// Lets the worker take nothing else until there is room on it for this requirement. Returns whether it is reserved
    /// now: not where it is reserved already.
    pub(crate) fn reserve(&mut self, id: WorkerId, requirement: RequirementId) -> bool {
        let worker = self.state.worker_mut(id);
        if worker.reserved.is_some() {
            return false;
        }
        worker.reserved = Some(requirement);
        self.requirements[requirement].reserved = Some(id);
        self.state.changed_workers.insert(id);
        true
    }

    /// The worker is there for others again.
    pub(crate) fn unreserve(&mut self, id: WorkerId, requirement: RequirementId) {
        self.requirements[requirement].reserved = None;
        self.state.worker_mut(id).reserved = None;
        self.look_again();
    }

    /// Something was given back that kept steps waiting: every requirement with waiting steps is looked at.
    pub(crate) fn look_again(&mut self) {
        let waiting = self.requirements.all().filter(|id| !self.requirements[*id].ready.is_empty());
        self.indexes.fresh.extend(waiting);
    }
}
