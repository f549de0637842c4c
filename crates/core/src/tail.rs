//! The end of a step, when more slots are free than tasks wait: idle slots take from queues, then start late frames
//! a second time.

use kiln_types::{AttemptId, JobId, SlotIndex, TaskId, WorkerId};

use crate::{
    Core, Moment, Outbox, estimate::UNMEASURED_MS, job::JobPhase, needs::Need, ready::StepId,
    schedule::Given, worker::AttemptPhase,
};

/// Milliseconds between two looks at the tails while nothing tells of a change.
const LOOK_EVERY_MS: u64 = 500;
/// Milliseconds between two looks whatever happens, and attempts out for which a millisecond is added: a look costs as
/// much as is out.
const AT_MOST_EVERY_MS: u64 = 20;
const ATTEMPTS_A_MS: u64 = 50;
/// Vacant workers, the best first, that are asked whether they would end a late frame sooner.
const CANDIDATES: usize = 8;
/// A second attempt must end earlier than the first by this much: at least a fifth of its own time, and milliseconds.
const WORTH: (u64, u64) = (5, 500);
/// What opening a scene is taken to cost, in frames' worth of the step, where a slot must.
const OPENING_FRAMES: u64 = 1;

impl Core {
    /// When a tail should be looked at again although nothing happened: frames get late by themselves.
    pub(crate) fn next_tail(&self) -> Option<Moment> {
        self.tail_again
    }

    pub(crate) fn tail(&mut self, now: Moment, given: &mut Given, out: &mut impl Outbox) {
        self.tail_again = None;
        let tails: Vec<(StepId, Need)> = self
            .indexes
            .tails
            .iter()
            .filter_map(|(job, step)| {
                let need = self.jobs.get(job)?.steps.get(usize::from(step.0))?.need;
                (!self.needs[need].vacant.is_empty()).then_some(((*job, *step), need))
            })
            .collect();
        if tails.is_empty() {
            return;
        }
        let apart = AT_MOST_EVERY_MS + self.attempts.len() as u64 / ATTEMPTS_A_MS;
        if now.since(self.tail_looked) < apart && self.tail_looked.0 > 0 {
            self.tail_again = Some(self.tail_looked.after(apart));
            return;
        }
        self.tail_looked = now;
        self.tail_again = Some(now.after(LOOK_EVERY_MS));
        for (step, need) in tails {
            if !self.steal(now, step, need, out) {
                self.twin(now, step, need, given, out);
            }
        }
    }

    /// Asks back what waits longest in queues, one for each vacant worker. What comes back waits again and is handed
    /// out as anything else. Whether there was something to ask for.
    fn steal(&mut self, now: Moment, (job, step): StepId, need: Need, out: &mut impl Outbox) -> bool {
        let Some(found) = self.jobs.get(&job).filter(|job| job.phase == JobPhase::Active) else {
            return false;
        };
        let Some(found) = found.steps.get(usize::from(step.0)) else { return false };
        if found.queued() == 0 {
            return false;
        }
        let mut queued: Vec<(u64, AttemptId)> = Vec::new();
        let mut coming = 0;
        for id in found.live.values() {
            let Some(attempt) = self.attempts.get(id) else { continue };
            match attempt.phase {
                AttemptPhase::Assigned { recalled: true } => coming += 1,
                AttemptPhase::Assigned { recalled: false } => {
                    let wait = self.wait_of(now, *id);
                    if wait > 0 && wait >= self.config.steal_ms {
                        queued.push((wait, *id));
                    }
                }
                _ => {}
            }
        }
        queued.sort_unstable_by(|a, b| b.cmp(a));
        let takers: usize = self.needs[need]
            .vacant
            .iter()
            .filter_map(|(_, id)| self.workers.get(id))
            .map(|w| w.vacant_slots().count())
            .sum();
        let mut takers = takers.saturating_sub(coming);
        let any = coming > 0 || !queued.is_empty();
        for (_, id) in queued {
            if takers == 0 {
                break;
            }
            if self.someone_else_takes(id, need) {
                takers -= 1;
                self.recall(id, out);
            }
        }
        any
    }

    /// Milliseconds until a queued attempt's turn, as far as known.
    fn wait_of(&self, now: Moment, id: AttemptId) -> u64 {
        let Some(attempt) = self.attempts.get(&id) else { return 0 };
        let slot = self.workers.get(&attempt.worker).and_then(|w| w.slots.get(usize::from(attempt.slot.0)));
        let Some((slot, step)) = slot.zip(self.step(attempt.task)) else { return 0 };
        let frame = self.frame_ms(step, attempt.worker, Some(slot)).unwrap_or(UNMEASURED_MS);
        let position = slot.queue.iter().position(|queued| *queued == id).unwrap_or(0) as u64;
        // Behind an attempt that closes, even the front waits.
        let closing = if slot.closing.is_empty() { 0 } else { frame };
        let front = slot.queue.front().and_then(|front| self.attempts.get(front));
        let before = match front.map(|front| front.phase) {
            _ if position == 0 => 0,
            Some(AttemptPhase::Running { since }) => {
                left_ms(frame, now.since(since)) + (position - 1) * frame
            }
            _ => position * frame,
        };
        before + closing
    }

    /// Whether a vacant worker may take the attempt's task now.
    fn someone_else_takes(&self, id: AttemptId, need: Need) -> bool {
        let Some(attempt) = self.attempts.get(&id) else { return false };
        let Some(step) = self.step(attempt.task) else { return false };
        let trouble = step.troubles.get(&attempt.task.index);
        let session = step.plan.session;
        let takes = |worker: WorkerId| trouble.is_none_or(|trouble| self.may_take(worker, need, trouble));
        self.needs[need].vacant.iter().any(|(_, worker)| {
            *worker != attempt.worker && takes(*worker) && !self.is_held_off(*worker, need, session)
        }) || (self.is_vacant_itself(attempt.worker, attempt.slot) && takes(attempt.worker))
    }

    /// Whether the worker has another slot that does nothing.
    fn is_vacant_itself(&self, worker: WorkerId, but: SlotIndex) -> bool {
        self.workers.get(&worker).is_some_and(|known| known.vacant_slots().any(|(slot, _)| slot != but))
    }

    /// Starts a second attempt of each task that will end late, where it would end earlier.
    fn twin(
        &mut self,
        now: Moment,
        (job, step): StepId,
        need: Need,
        given: &mut Given,
        out: &mut impl Outbox,
    ) {
        let mut late: Vec<(u64, TaskId, WorkerId)> = self.late_frames(now, job, step);
        late.sort_unstable_by(|a, b| b.cmp(a));
        for (left, task, runs_on) in late {
            let Some(found) = self.step(task) else { return };
            let trouble = found.troubles.get(&task.index);
            let session = found.plan.session;
            let capped =
                self.jobs.get(&job).is_some_and(|job| job.is_full() || self.accounts.is_full(job.account));
            if capped || self.lacking_limit(need).is_some() {
                return;
            }
            let vacant = self.needs[need].vacant.iter().map(|(_, id)| *id).take(CANDIDATES);
            let sooner: Vec<WorkerId> = vacant.filter(|id| self.is_worth_it(found, *id, left)).collect();
            if sooner.is_empty() {
                // What ends earlier is worth it even less.
                return;
            }
            let may = |id: &&WorkerId| {
                **id != runs_on
                    && trouble.is_none_or(|trouble| self.may_take(**id, need, trouble))
                    && !self.is_held_off(**id, need, session)
            };
            let Some(worker) = sooner.iter().find(may).copied() else { continue };
            let slots = self.workers.get(&worker).into_iter().flat_map(|known| known.vacant_slots());
            let slot = slots.min_by_key(|(_, slot)| slot.session != Some(session)).map(|(slot, _)| slot);
            if let Some(slot) = slot {
                self.give(task, (worker, slot), given, out);
            }
        }
    }

    /// Whether a fresh start on the worker would end well before the `left` milliseconds are over.
    fn is_worth_it(&self, step: &crate::job::Step, worker: WorkerId, left: u64) -> bool {
        let warm = self.workers.get(&worker).into_iter().flat_map(|known| known.vacant_slots());
        let warm = warm.map(|(_, slot)| slot).find(|slot| slot.session == Some(step.plan.session));
        let Some(frame) = self.frame_ms(step, worker, warm) else { return false };
        let opening = if warm.is_some() { 0 } else { frame * OPENING_FRAMES };
        let here = frame + opening;
        left > here + (here / WORTH.0).max(WORTH.1)
    }

    /// Running tasks of the step without a twin: how long each will take yet, and where it runs.
    fn late_frames(
        &self,
        now: Moment,
        job: JobId,
        step: kiln_types::StepIndex,
    ) -> Vec<(u64, TaskId, WorkerId)> {
        let Some(found) = self.jobs.get(&job).filter(|job| job.phase == JobPhase::Active) else {
            return Vec::new();
        };
        let Some(found) = found.steps.get(usize::from(step.0)) else { return Vec::new() };
        // What has gone wrong before may go wrong again, and take two workers at a time.
        let alone = found
            .live
            .iter()
            .filter(|(task, _)| !found.twins.contains_key(task) && !found.troubles.contains_key(task));
        alone
            .filter_map(|(task, id)| {
                let attempt = self.attempts.get(id)?;
                let slot = self.workers.get(&attempt.worker)?.slots.get(usize::from(attempt.slot.0))?;
                let elapsed = match attempt.phase {
                    AttemptPhase::Running { since } => now.since(since),
                    AttemptPhase::Assigned { .. } => 0,
                    AttemptPhase::Delivering | AttemptPhase::Late { .. } => return None,
                };
                let frame = self.frame_ms(found, attempt.worker, Some(slot))?;
                Some((left_ms(frame, elapsed), TaskId { job, step, index: *task }, attempt.worker))
            })
            .collect()
    }
}

/// What is left of a frame that was taken to last `frame_ms`. One that is late already will be later still: as much
/// again as it is over.
fn left_ms(frame_ms: u64, elapsed_ms: u64) -> u64 {
    frame_ms.saturating_sub(elapsed_ms).max(elapsed_ms.saturating_sub(frame_ms))
}
