//! The end of a step, when there are more vacant slots than waiting tasks: idle slots take tasks from queues, then late
//! frames get speculative attempts.

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
    /// Preempts queued attempts or starts speculative ones, for the ending steps that a vacant worker fits.
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
                self.start_speculative_attempts(now, of, out);
            }
        }
    }

    /// Preempts the attempts that would wait longest in queues, one for each vacant slot. Returns whether any is queued or
    /// on its way back.
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

    /// Milliseconds until a queued attempt begins, as far as they are known.
    fn wait_ms(&self, now: Moment, id: AttemptId) -> u64 {
        let attempt = self.state.attempt(id);
        let (slot, step) = (self.state.slot_of(id), self.state.step(attempt.task));
        let frame =
            self.frame_ms(step, attempt.task.index, attempt.worker, Some(slot)).unwrap_or(UNMEASURED_MS);
        let position = slot.queue().iter().position(|queued| *queued == id).unwrap_or(0) as u64;
        // Behind an attempt that is being closed, even the front waits.
        let closing = if slot.closing().is_empty() { 0 } else { frame };
        let front = slot.queue().front().map(|front| self.state.attempt(*front).phase);
        let before = match front {
            _ if position == 0 => 0,
            // One that is late is expected to take as much longer again.
            Some(AttemptPhase::Running { since, .. }) => {
                frame.abs_diff(now.since(since)) + (position - 1) * frame
            }
            _ => position * frame,
        };
        before + closing
    }

    /// Returns whether a vacant worker would get the attempt's task now.
    fn has_vacant_taker(&self, id: AttemptId) -> bool {
        let task = self.state.attempt(id).task;
        let (job, step) = (self.state.job(task.job), self.state.step(task));
        let history = step.tasks.history(task.index);
        let takes = |worker: WorkerId| {
            self.may_serve(worker, job, step)
                && history.is_none_or(|history| self.may_retry_now(worker, step, history))
        };
        // A job that is kept off more slots would get the task back where it was, again and again. Another slot of the
        // attempt's own worker will do: this one has a queue.
        !self.is_kept_back(task.into())
            && self.requirements[step.requirement].vacant.iter().any(|(_, worker)| takes(*worker))
    }

    /// Starts speculative attempts of late tasks that would end earlier. A late frame waits for a faster slot that is soon
    /// vacant rather than begin on a slow one that is vacant now.
    fn start_speculative_attempts(&mut self, now: Moment, of: StepRef, out: &mut impl Outbox) {
        if self.is_kept_back(of) {
            return;
        }
        let late = self.late_tasks(now, of);
        let Some(latest) = late.first().map(|late| late.task) else { return };
        let mut candidates = self.candidates(now, latest, CANDIDATES + 4 * late.len());
        let mut chosen: Vec<(LateTask, SlotRef)> = Vec::new();
        for late in late {
            let Some((_, mut candidate)) = candidates.pop_first() else { break };
            let Some(takes) = self.duration_ms(late.task, &candidate) else { continue };
            let ends_in = candidate.begins_in + takes;
            let is_worth_it = late.left > ends_in + (ends_in / GAIN_PART).max(GAIN_MS);
            if is_worth_it && self.may_speculate(late.task, candidate.slot.worker) {
                if candidate.begins_in == 0 {
                    chosen.push((late, candidate.slot));
                }
                candidate = Candidate { begins_in: ends_in, scene: 0, ..candidate };
            }
            candidates.insert(candidate.key(), candidate);
        }
        for (late, slot) in chosen {
            // An earlier dispatch may have reached a cap or a limit.
            let is_closed = self.state.job(of.job).is_closed_to(slot.worker) || self.is_kept_back(of);
            if is_closed || !self.is_vacant_for(slot, of) {
                continue;
            }
            // Two at a time: a third attempt replaces the one that would have ended last.
            if let Some(slower) = late.slower {
                self.revoke(slower, RevokeReason::Stale, out);
                *self.state.step_mut(of).replaced.entry(late.task.index).or_default() += 1;
            }
            self.dispatch(late.task, slot, out);
        }
    }

    /// Returns whether a limit or a cap keeps the job off more slots.
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

    /// The slots that could begin this frame: vacant ones of the best workers, and those that work for its step.
    fn candidates(&self, now: Moment, task: TaskId, workers: usize) -> BTreeMap<(u64, SlotRef), Candidate> {
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
        let candidate = |(of, slot, begins_in): (SlotRef, &Slot, u64)| {
            let frame = self.frame_ms(step, task.index, of.worker, Some(slot))?;
            let scene = if slot.must_open(step.session()) { self.opening_ms(step, of.worker) } else { 0 };
            let candidate = Candidate { begins_in, scene, frame, slot: of };
            Some((candidate.key(), candidate))
        };
        vacant.chain(busy).filter_map(candidate).collect()
    }

    /// Milliseconds that the frame would take on the slot, with the opening of the scene.
    fn duration_ms(&self, task: TaskId, on: &Candidate) -> Option<u64> {
        let (step, worker) = (self.state.step(task), on.slot.worker);
        let slot = self.state.find_slot(on.slot);
        let frame = self.predicted_ms(step, task.index, worker);
        Some(on.scene + frame.or_else(|| self.frame_ms(step, task.index, worker, slot))?)
    }

    /// Milliseconds until an attempt that runs or is next will have left Blender.
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
    fn late_tasks(&self, now: Moment, of: StepRef) -> Vec<LateTask> {
        let tasks = &self.state.step(of).tasks;
        // A task with mishaps may take a worker down: not two at a time.
        let sound = tasks.live().filter(|(index, _)| tasks.history(*index).is_none());
        let late = sound.filter_map(|(index, first)| self.find_late(now, of.task(index), first));
        let mut late: Vec<LateTask> = late.collect();
        late.sort_unstable_by(|a, b| b.cmp(a));
        late
    }

    /// The task with the time that is left; `None` if an attempt has left Blender, or none may be replaced by a third one.
    fn find_late(&self, now: Moment, task: TaskId, first: AttemptId) -> Option<LateTask> {
        let step = self.state.step(task);
        let first_left = self.ends_in(now, first)?;
        let Some(second) = step.tasks.second_attempt(task.index) else {
            return Some(LateTask { left: first_left, task, slower: None });
        };
        if step.replaced.get(&task.index).is_some_and(|replaced| *replaced >= MAX_REPLACED) {
            return None;
        }
        let second_left = self.ends_in(now, second)?;
        let is_second = second_left < first_left;
        let (left, slower) = if is_second { (second_left, first) } else { (first_left, second) };
        // Only an attempt with reported progress may be replaced: a guess could end one that is nearly done.
        self.state.attempt(slower).frame_ms.map(|_| LateTask { left, task, slower: Some(slower) })
    }
}

/// A frame that runs, once or twice. The order is that of the time that is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct LateTask {
    /// Milliseconds until the first of its attempts has left Blender.
    left: u64,
    task: TaskId,
    /// The one of two attempts that ends last.
    slower: Option<AttemptId>,
}

/// A slot that could begin a frame. The order of keys is that of the frame's end. Times are milliseconds.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    begins_in: u64,
    /// The time of opening the scene; 0 if it is open.
    scene: u64,
    frame: u64,
    slot: SlotRef,
}

impl Candidate {
    fn key(&self) -> (u64, SlotRef) {
        (self.begins_in + self.scene + self.frame, self.slot)
    }
}
