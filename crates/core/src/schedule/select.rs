//! The choice of a slot's next task: the first step in line among those that fit, and a task of it. A step that has no room
//! on any worker reserves one, which takes no other work until there is room.

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

/// The result of the choice of a step's task for a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Selection {
    Task(TaskId),
    /// No task until there is room; no step behind this one is served before.
    WaitForRoom,
    Nothing,
}

impl Selection {
    pub fn task(self) -> Option<TaskId> {
        if let Self::Task(task) = self { Some(task) } else { None }
    }
}

/// The room on a slot for a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Capacity {
    Now,
    /// There will be room when the present attempts have ended; no step behind this one is served before.
    Later,
    /// There will be room if the worker is reserved.
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
        // Lower priorities that are owed enough go before the highest.
        if levels.len() > 1 && self.owed_ms >= UNMEASURED_MS {
            levels.rotate_left(1);
        }
        let mut tried = 0;
        for priority in levels {
            let members = fitting.iter().flat_map(|id| self.requirements[*id].ready.members(priority));
            let members = members.filter(|member| !self.is_capped(of, *member));
            // A heap, because nearly always the first is taken.
            let mut heads: BinaryHeap<Reverse<ShareRank>> =
                members.map(|member| Reverse(self.fair_share.rank(member))).collect();
            if let Some(found) = self.select_open_scene(of, priority, heads.peek().map(|head| head.0)) {
                return Some(found);
            }
            while let Some(Reverse(head)) = heads.pop() {
                if heads.peek() == Some(&Reverse(head)) {
                    // The member has steps of several requirements.
                    continue;
                }
                let member = head.member;
                let key = QueueKey { priority, member };
                let mut last = None;
                while let Some(step) = self.next_step(&fitting, key, last) {
                    last = Some(step);
                    match self.select_from(of, step) {
                        Selection::Task(task) => return Some(task),
                        Selection::WaitForRoom => return None,
                        Selection::Nothing => {}
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

    /// The step of the member that is next behind `last`, among those with these requirements.
    fn next_step(&self, of: &[RequirementId], key: QueueKey, last: Option<StepRef>) -> Option<StepRef> {
        let steps = of.iter().filter_map(|id| self.requirements[*id].ready.after(key, last));
        steps.min_by_key(|step| ServeOrder::from(*step))
    }

    /// The requirements with waiting steps that the slot's worker fits and limits allow.
    fn fitting(&self, of: SlotRef) -> Vec<RequirementId> {
        let worker = self.state.worker(of.worker);
        let fits = |id: &RequirementId| {
            worker.fits(*id)
                && !self.requirements[*id].ready.is_empty()
                && (self.exhausted_limit(*id).is_none() || self.has_licence(worker, of, *id))
        };
        self.requirements.all().filter(fits).collect()
    }

    /// The next task of the scene that the slot has open, if its member is behind the first by less than a reload.
    fn select_open_scene(&mut self, of: SlotRef, priority: u8, first: Option<ShareRank>) -> Option<TaskId> {
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
        self.select_from(of, step).task()
    }

    /// Chooses the task of this step that the slot can take now.
    pub(crate) fn select_from(&mut self, of: SlotRef, step_ref: StepRef) -> Selection {
        let (job, step) = (self.state.job(step_ref.job), self.state.step(step_ref));
        let (worker, slot) = (self.state.worker(of.worker), self.state.slot(of));
        let requirement = step.requirement;
        let lacks_limit = self.exhausted_limit(requirement).is_some() && !slot.counted.contains(&step_ref);
        if lacks_limit || !self.may_serve(of.worker, job, step) {
            return Selection::Nothing;
        }
        let stream = self.ready_stream_on(of.worker, step_ref);
        let alone = self.next_alone(of.worker, step).filter(|_| stream.is_none());
        if let Some(task) = alone
            && slot.queue().is_empty()
            && worker.is_unclaimed(Some(of.slot))
        {
            return Selection::Task(step_ref.task(task));
        }
        let space = match alone.map(|_| self.reserved_capacity(of.worker, requirement)) {
            Some(Capacity::No) | None => self.capacity_for(of, job, step, stream.map(|(_, memory)| memory)),
            Some(space) => space,
        };
        match space {
            Capacity::Now => {}
            Capacity::Later => return Selection::WaitForRoom,
            Capacity::IfReserved if self.reserve(of.worker, requirement) => return Selection::WaitForRoom,
            Capacity::IfReserved | Capacity::No => return Selection::Nothing,
        }
        if let Some((task, _)) = stream {
            return Selection::Task(task);
        }
        if let Some(task) = step.next(|history| self.may_retry_now(of.worker, step, history)) {
            return Selection::Task(step_ref.task(task));
        }
        if worker.is_unclaimed(None) && worker.reserved == Some(requirement) {
            // The task that it was reserved for has gone, or should go elsewhere.
            self.unreserve(of.worker, requirement);
            self.state.changed_workers.insert(of.worker);
        }
        Selection::Nothing
    }

    /// The room on the slot for a task of the step, beside the claims of the worker's other slots. `stream`: the memory that
    /// a stream of the step releases for the slot.
    pub(crate) fn capacity_for(&self, of: SlotRef, job: &Job, step: &Step, stream: Option<u64>) -> Capacity {
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
            // Behind a task with the same claim it takes that over; any other task waits until the slot is vacant. Frames
            // that turned out to take more than there is must not go on beside each other.
            let before = slot.counted.first().map(|step| self.state.step(*step).requirement);
            let is_same = before.is_some_and(|before| self.requirements[before].requirement.room == room);
            let goes_on = is_same && worker.reserved.is_none() && has_room();
            return if goes_on { Capacity::Now } else { Capacity::Later };
        }
        if worker.reserved.is_some_and(|reserved| reserved != requirement) {
            return Capacity::No;
        }
        if has_room() {
            return Capacity::Now;
        }
        let space = self.reserved_capacity(of.worker, requirement);
        // A worker is reserved only for a task that it may get.
        let next = || step.next(|history| self.may_retry(of.worker, step, history));
        let is_lost = || stream.is_none() && (!job.on.is_empty() || next().is_none());
        if space == Capacity::IfReserved && is_lost() { Capacity::No } else { space }
    }

    /// The room on a worker for a task that has none beside others: it waits for the one worker that is reserved for its
    /// requirement.
    pub(crate) fn reserved_capacity(&self, id: WorkerId, requirement: RequirementId) -> Capacity {
        match self.requirements[requirement].reserved {
            None => Capacity::IfReserved,
            Some(reserved) if reserved == id => Capacity::Later,
            Some(_) => Capacity::No,
        }
    }

    /// Reserves the worker: it takes no other work until there is room for this requirement. Returns false if it is
    /// reserved already.
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

    pub(crate) fn unreserve(&mut self, id: WorkerId, requirement: RequirementId) {
        self.requirements[requirement].reserved = None;
        self.state.worker_mut(id).reserved = None;
        self.look_again();
    }

    /// Marks every requirement with waiting steps to be served: a limit, a share or a worker was released.
    pub(crate) fn look_again(&mut self) {
        let waiting = self.requirements.all().filter(|id| !self.requirements[*id].ready.is_empty());
        self.indexes.fresh.extend(waiting);
    }
}
