//! The end of a step, when more slots are free than tasks wait: idle slots take from queues, then begin late frames a
//! second time.

use std::collections::BTreeMap;

use kiln_types::{AttemptId, TaskId, WorkerId};

use crate::{
    Core, Moment, Outbox, RevokeReason,
    claims::claim,
    ids::{SlotRef, StepRef},
    state::{AttemptPhase, JobPhase, Slot},
    tuning::{
        estimate::UNMEASURED_MS,
        speculation::{
            AT_MOST_EVERY_MS, ATTEMPTS_PER_MS, CANDIDATES, GAIN_MS, GAIN_PART, LOOK_EVERY_MS, MAX_REPLACED,
        },
    },
};

impl Core {
    /// Looks at the ends of steps for which a worker is vacant.
    pub(crate) fn speculate(&mut self, now: Moment, out: &mut impl Outbox) {
        self.speculate_at = None;
        let has_vacant =
            |of: &StepRef| !self.requirements[self.state.step(*of).requirement].vacant.is_empty();
        let ending: Vec<StepRef> = self.indexes.ending.iter().copied().filter(has_vacant).collect();
        if ending.is_empty() {
            return;
        }
        let apart = AT_MOST_EVERY_MS + self.state.attempts.len() as u64 / ATTEMPTS_PER_MS;
        if now.since(self.speculated) < apart && self.speculated.0 > 0 {
            self.speculate_at = Some(self.speculated.after(apart));
            return;
        }
        self.speculated = now;
        self.speculate_at = Some(now.after(LOOK_EVERY_MS));
        for of in ending {
            if self.state.job(of.job).phase == JobPhase::Active && !self.preempt_queued(now, of, out) {
                self.begin_again(now, of, out);
            }
        }
    }

    /// Preempts what waits longest in queues, one for each vacant slot. What comes back waits and is dispatched as
    /// anything else. Returns whether there was something to preempt.
    fn preempt_queued(&mut self, now: Moment, of: StepRef, out: &mut impl Outbox) -> bool {
        let step = self.state.step(of);
        if step.tasks.counts().assigned == 0 {
            return false;
        }
        let mut queued: Vec<(u64, AttemptId)> = Vec::new();
        let mut coming = 0;
        for (_, id) in step.tasks.live() {
            match self.state.attempt(id).phase {
                AttemptPhase::Assigned { preempted: true, .. } => coming += 1,
                AttemptPhase::Assigned { preempted: false, .. } => queued.push((self.wait_ms(now, id), id)),
                _ => {}
            }
        }
        queued.retain(|(wait, _)| *wait >= self.config.preempt_ms.max(1));
        queued.sort_unstable_by(|a, b| b.cmp(a));
        let vacant = self.requirements[step.requirement].vacant.iter().map(|(_, id)| self.state.worker(*id));
        let slots: usize = vacant.map(|worker| worker.vacant_slots().count()).sum();
        let taken = queued.iter().map(|(_, id)| *id).filter(|id| self.has_vacant_taker(*id));
        let taken: Vec<AttemptId> = taken.take(slots.saturating_sub(coming)).collect();
        taken.into_iter().for_each(|id| self.preempt(id, out));
        coming > 0 || !queued.is_empty()
    }

    /// Milliseconds until a queued attempt begins, as far as known.
    fn wait_ms(&self, now: Moment, id: AttemptId) -> u64 {
        let attempt = self.state.attempt(id);
        let (slot, step) = (self.state.slot_of(id), self.state.step(attempt.task));
        let frame =
            self.frame_ms(step, attempt.task.index, attempt.worker, Some(slot)).unwrap_or(UNMEASURED_MS);
        let position = slot.queue().iter().position(|queued| *queued == id).unwrap_or(0) as u64;
        // Behind an attempt that closes, even the front waits.
        let closing = if slot.closing().is_empty() { 0 } else { frame };
        let front = slot.queue().front().map(|front| self.state.attempt(*front).phase);
        let before = match front {
            _ if position == 0 => 0,
            // One that is late already will be later still: as much again as it is over.
            Some(AttemptPhase::Running { since, .. }) => {
                frame.abs_diff(now.since(since)) + (position - 1) * frame
            }
            _ => position * frame,
        };
        before + closing
    }

    /// Returns whether the attempt's task would be given to a slot that is vacant for it now.
    fn has_vacant_taker(&self, id: AttemptId) -> bool {
        let task = self.state.attempt(id).task;
        let (job, step) = (self.state.job(task.job), self.state.step(task));
        let history = step.tasks.history(task.index);
        let takes = |worker: WorkerId| {
            self.may_serve(worker, job, step)
                && history.is_none_or(|history| self.may_retry_now(worker, step, history))
        };
        // What keeps the job off more slots keeps it off these: it would come back to where it was, and again. Of its
        // own worker another slot will do: this one has a queue.
        !self.is_kept_back(task.into())
            && self.requirements[step.requirement].vacant.iter().any(|(_, worker)| takes(*worker))
    }

    /// Starts second attempts of tasks that will end late, where they would end earlier. A late frame waits for a
    /// faster slot that is soon free rather than begin on a slow one that is free now.
    fn begin_again(&mut self, now: Moment, of: StepRef, out: &mut impl Outbox) {
        if self.is_kept_back(of) {
            return;
        }
        let late = self.late_tasks(now, of);
        let Some(latest) = late.first().map(|late| late.task) else { return };
        let mut openings = self.openings(now, latest, CANDIDATES + 4 * late.len());
        let mut chosen: Vec<(Late, SlotRef)> = Vec::new();
        for late in late {
            let Some((_, mut opening)) = openings.pop_first() else { break };
            let Some(takes) = self.takes_ms(late.task, &opening) else { continue };
            let ends_in = opening.begins_in + takes;
            let is_worth_it = late.left > ends_in + (ends_in / GAIN_PART).max(GAIN_MS);
            if is_worth_it && self.may_speculate(late.task, opening.slot.worker) {
                if opening.begins_in == 0 {
                    chosen.push((late, opening.slot));
                }
                opening = Opening { begins_in: ends_in, scene: 0, ..opening };
            }
            openings.insert(opening.key(), opening);
        }
        for (late, slot) in chosen {
            // What was dispatched before it may have been the last that was allowed.
            let is_closed = self.state.job(of.job).is_closed_to(slot.worker) || self.is_kept_back(of);
            if is_closed || !self.is_vacant_for(slot, of) {
                continue;
            }
            // Two at a time: the third takes the place of the one that would have been the last.
            if let Some(slower) = late.slower {
                self.revoke(slower, RevokeReason::Stale, out);
                *self.state.step_mut(of).replaced.entry(late.task.index).or_default() += 1;
            }
            self.dispatch(late.task, slot, out);
        }
    }

    /// Returns whether limits or the account's cap keep the job off more slots.
    pub(super) fn is_kept_back(&self, of: StepRef) -> bool {
        self.exhausted_limit(self.state.step(of).requirement).is_some()
            || self.fair_share.is_full(self.state.job(of.job).member)
    }

    fn is_vacant_for(&self, slot: SlotRef, step: StepRef) -> bool {
        let worker = self.state.worker(slot.worker);
        let is_vacant = worker.vacant_slots().any(|(vacant, _)| vacant == slot.slot);
        let room = self.requirements[self.state.step(step).requirement].requirement.room;
        is_vacant && claim(&worker.offer, worker.claimed(Some(slot.slot)), room).is_some()
    }

    fn may_speculate(&self, task: TaskId, worker: WorkerId) -> bool {
        let step = self.state.step(task);
        let attempts = [step.tasks.first_attempt(task.index), step.tasks.second_attempt(task.index)];
        let runs_there = attempts.into_iter().flatten().any(|id| self.state.attempt(id).worker == worker);
        !runs_there && !self.has_cooldown(worker, step.requirement, step.session())
    }

    /// Returns when slots could begin this frame: those of some workers that are vacant now, the best first, and those
    /// that work for its step.
    fn openings(&self, now: Moment, task: TaskId, workers: usize) -> BTreeMap<(u64, SlotRef), Opening> {
        let step = self.state.step(task);
        let vacant = self.requirements[step.requirement].vacant.iter().take(workers).map(|(_, id)| *id);
        let vacant = vacant.flat_map(|worker| {
            let slots = self.state.worker(worker).vacant_slots();
            slots.map(move |(slot, known)| (SlotRef { worker, slot }, known, 0))
        });
        let busy = step.tasks.live().filter_map(|(_, id)| {
            let of = self.state.attempt(id).place()?;
            let worker = self.state.find_worker(of.worker).filter(|worker| worker.takes_work())?;
            let slot = worker.slot(of.slot).filter(|slot| slot.queue().len() == 1)?;
            Some((of, slot, self.ends_in(now, id)?.max(1)))
        });
        let opening = |(of, slot, begins_in): (SlotRef, &Slot, u64)| {
            let frame = self.frame_ms(step, task.index, of.worker, Some(slot))?;
            let scene = if slot.must_open(step.session()) { self.opening_ms(step, of.worker) } else { 0 };
            let opening = Opening { begins_in, scene, frame, slot: of };
            Some((opening.key(), opening))
        };
        vacant.chain(busy).filter_map(opening).collect()
    }

    /// Milliseconds that the frame would take there, with the scene opened if need be.
    fn takes_ms(&self, task: TaskId, opening: &Opening) -> Option<u64> {
        let (step, worker) = (self.state.step(task), opening.slot.worker);
        let slot = self.state.find_slot(opening.slot);
        let frame = self.foretold_ms(step, task.index, worker);
        Some(opening.scene + frame.or_else(|| self.frame_ms(step, task.index, worker, slot))?)
    }

    /// Milliseconds until an attempt that runs or is about to will have left Blender.
    fn ends_in(&self, now: Moment, id: AttemptId) -> Option<u64> {
        let attempt = self.state.attempt(id);
        let (step, slot) = (self.state.step(attempt.task), self.state.slot_of(id));
        let elapsed = match attempt.phase {
            AttemptPhase::Running { since, .. } => now.since(since),
            AttemptPhase::Assigned { .. } => 0,
            _ => return None,
        };
        let opening = if attempt.cold { self.opening_ms(step, attempt.worker) } else { 0 };
        if let Some(frame) = attempt.frame_ms {
            return Some((opening + u64::from(frame.get())).abs_diff(elapsed));
        }
        let frame = self.frame_ms(step, attempt.task.index, attempt.worker, Some(slot))?;
        Some(step.times.left_ms(frame + opening, elapsed))
    }

    /// The live tasks of the step, the latest first.
    fn late_tasks(&self, now: Moment, of: StepRef) -> Vec<Late> {
        let tasks = &self.state.step(of).tasks;
        // What has gone wrong before may go wrong again, and take two workers at a time.
        let sound = tasks.live().filter(|(index, _)| tasks.history(*index).is_none());
        let late = sound.filter_map(|(index, first)| self.late(now, of.task(index), first));
        let mut late: Vec<Late> = late.collect();
        late.sort_unstable_by(|a, b| b.cmp(a));
        late
    }

    /// The task with its first attempt; `None` where an attempt has left Blender, or no third one may replace one.
    fn late(&self, now: Moment, task: TaskId, first: AttemptId) -> Option<Late> {
        let step = self.state.step(task);
        let first_left = self.ends_in(now, first)?;
        let Some(second) = step.tasks.second_attempt(task.index) else {
            return Some(Late { left: first_left, task, slower: None });
        };
        if step.replaced.get(&task.index).is_some_and(|replaced| *replaced >= MAX_REPLACED) {
            return None;
        }
        let second_left = self.ends_in(now, second)?;
        let is_second = second_left < first_left;
        let (left, slower) = if is_second { (second_left, first) } else { (first_left, second) };
        // What its own Blender says may end an attempt; a guess might end the one that is all but done.
        self.state.attempt(slower).frame_ms.map(|_| Late { left, task, slower: Some(slower) })
    }
}

/// A frame that runs, once or twice. The latest is the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Late {
    /// Milliseconds until the first of its attempts has left Blender.
    left: u64,
    task: TaskId,
    /// The other one of two.
    slower: Option<AttemptId>,
}

/// The time at which a slot could begin a frame, and the time that it would take; milliseconds. By its key, the first
/// ends first.
#[derive(Debug, Clone, Copy)]
struct Opening {
    begins_in: u64,
    /// For opening the scene; 0 where it is open.
    scene: u64,
    frame: u64,
    slot: SlotRef,
}

impl Opening {
    fn key(&self) -> (u64, SlotRef) {
        (self.begins_in + self.scene + self.frame, self.slot)
    }
}
