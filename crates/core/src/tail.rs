//! The end of a step, when more slots are free than tasks wait: idle slots take from queues, then start late frames
//! a second time.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
};

use kiln_types::{AttemptId, AttemptState, JobId, TaskId, TaskIndex, WorkerId};

use crate::{
    Core, Moment, Outbox, RevokeReason,
    estimate::UNMEASURED_MS,
    give::{Given, Seat},
    job::{Job, JobPhase, Step},
    needs::{self, Need},
    ready::StepId,
    worker::{AttemptPhase, Slot},
};

/// Milliseconds between two looks at the tails while nothing tells of a change.
const LOOK_EVERY_MS: u64 = 500;
/// Milliseconds between two looks whatever happens, and attempts out for which a millisecond is added: a look costs as
/// much as is out.
const AT_MOST_EVERY_MS: u64 = 20;
const ATTEMPTS_A_MS: u64 = 50;
/// Vacant workers that are asked at least whether they would end a late frame sooner.
const CANDIDATES: usize = 64;
/// Attempts of a task that are stopped for another one. Where nobody knows how fast workers are, each looks faster
/// than the one that runs, and a frame that is begun again for ever never ends.
const REPLACED: u8 = 3;
/// A second attempt must end earlier than the first by this much: at least a tenth of its own time, and milliseconds.
const WORTH: (u64, u64) = (10, 500);

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
        let frame =
            self.frame_ms(step, attempt.task.index, attempt.worker, Some(slot)).unwrap_or(UNMEASURED_MS);
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

    /// Whether the attempt's task would be handed to a slot that is vacant for it now.
    fn someone_else_takes(&self, id: AttemptId, need: Need) -> bool {
        let Some(attempt) = self.attempts.get(&id) else { return false };
        let Some((job, step)) = self.jobs.get(&attempt.task.job).zip(self.step(attempt.task)) else {
            return false;
        };
        // What keeps the job off more slots keeps it off these: it would come back to where it was, and again.
        if self.lacking_limit(need).is_some() || self.accounts.is_full(job.account) {
            return false;
        }
        let trouble = step.troubles.get(&attempt.task.index);
        let takes = |worker: WorkerId| {
            self.may_serve(worker, job, step)
                && trouble.is_none_or(|trouble| self.has_place_for(worker, need, trouble))
        };
        // Of its own worker another slot: this one has a queue.
        self.needs[need].vacant.iter().any(|(_, worker)| takes(*worker))
    }

    /// Starts second attempts of tasks that will end late, where they would end earlier. A late frame waits for a
    /// faster slot that is soon free rather than begin on a slow one that is free now.
    fn twin(
        &mut self,
        now: Moment,
        (job, step): StepId,
        need: Need,
        given: &mut Given,
        out: &mut impl Outbox,
    ) {
        let capped = |job: &Job| self.accounts.is_full(job.account);
        if self.lacking_limit(need).is_some() || self.jobs.get(&job).is_none_or(capped) {
            return;
        }
        let late = self.late_frames(now, job, step);
        let Some(latest) = late.first().map(|late| late.task) else { return };
        let mut turns = self.turns(now, latest, need, CANDIDATES + 4 * late.len());
        let mut chosen: Vec<(Late, Seat)> = Vec::new();
        for late in late {
            let Some(Reverse(turn)) = turns.pop() else { break };
            let Some(takes) = self.takes_ms(late.task, &turn) else { continue };
            let ends_in = turn.begins_in + takes;
            let worth = late.left > ends_in + (ends_in / WORTH.0).max(WORTH.1);
            if !worth || !self.may_twin(late.task, turn.seat.0, need) {
                turns.push(Reverse(turn));
                continue;
            }
            if turn.begins_in == 0 {
                chosen.push((late, turn.seat));
            }
            turns.push(Reverse(Turn { begins_in: ends_in, opening: 0, ..turn }));
        }
        for (late, seat) in chosen {
            // What was given before it may have been the last that was allowed.
            let capped = self.jobs.get(&job).is_none_or(|job| {
                job.is_full() && !job.on.contains_key(&seat.0) || self.accounts.is_full(job.account)
            });
            let room = self.needs[need].requirement.room;
            let fits = self.workers.get(&seat.0).is_some_and(|known| {
                let vacant = known.vacant_slots().any(|(slot, _)| slot == seat.1);
                vacant && needs::claim(known, &known.claims(Some(seat.1)), room).is_some()
            });
            if fits && !capped && self.lacking_limit(need).is_none() {
                // Two at a time: the third goes in the place of the one that would have been the last.
                if let Some(slower) = late.slower {
                    self.revoke(slower, RevokeReason::Stale, AttemptState::Superseded, out);
                    if let Some(step) = self.step_mut(late.task) {
                        *step.replaced.entry(late.task.index).or_default() += 1;
                    }
                }
                self.give(late.task, seat, given, out);
            }
        }
    }

    fn may_twin(&self, task: TaskId, worker: WorkerId, need: Need) -> bool {
        let held_off = |step: &Step| self.is_held_off(worker, need, step.plan.session);
        !self.runs_on(task, worker) && self.step(task).is_some_and(|step| !held_off(step))
    }

    /// When slots could begin this frame: those of some workers that are vacant now, the best first, and those that
    /// work for its step.
    fn turns(&self, now: Moment, task: TaskId, need: Need, workers: usize) -> BinaryHeap<Reverse<Turn>> {
        let Some(found) = self.step(task) else { return BinaryHeap::new() };
        let session = Some(found.plan.session);
        let vacant = self.needs[need].vacant.iter().take(workers);
        let vacant = vacant.filter_map(|(_, id)| self.workers.get_key_value(id));
        let vacant = vacant
            .flat_map(|(id, worker)| worker.vacant_slots().map(move |(slot, place)| ((*id, slot), place, 0)));
        let busy = found.live.values().filter_map(|id| {
            let attempt = self.attempts.get(id)?;
            let worker = self.workers.get(&attempt.worker).filter(|worker| worker.takes_work())?;
            let place = worker.slots.get(usize::from(attempt.slot.0)).filter(|slot| slot.queue.len() == 1)?;
            Some(((attempt.worker, attempt.slot), place, self.ends_in(now, *id)?.max(1)))
        });
        let turn = |(seat, place, begins_in): (Seat, &Slot, u64)| {
            let frame = self.frame_ms(found, task.index, seat.0, Some(place))?;
            let opening = if place.session == session { 0 } else { self.opening_ms(found, seat.0) };
            Some(Reverse(Turn { begins_in, opening, frame, seat }))
        };
        vacant.chain(busy).filter_map(turn).collect()
    }

    /// Milliseconds that the frame would take there, with the scene opened if need be.
    fn takes_ms(&self, task: TaskId, turn: &Turn) -> Option<u64> {
        let (step, worker) = (self.step(task)?, turn.seat.0);
        let slot = self.workers.get(&worker)?.slots.get(usize::from(turn.seat.1.0));
        let frame = self.foretold_ms(step, task.index, worker);
        Some(turn.opening + frame.or_else(|| self.frame_ms(step, task.index, worker, slot))?)
    }

    /// Milliseconds until an attempt that runs or is about to will have left Blender.
    fn ends_in(&self, now: Moment, id: AttemptId) -> Option<u64> {
        let attempt = self.attempts.get(&id)?;
        let step = self.step(attempt.task)?;
        let slot = self.workers.get(&attempt.worker)?.slots.get(usize::from(attempt.slot.0))?;
        let elapsed = match attempt.phase {
            AttemptPhase::Running { since } => now.since(since),
            AttemptPhase::Assigned { .. } => 0,
            AttemptPhase::Delivering | AttemptPhase::Late { .. } => return None,
        };
        let opening = if attempt.cold { self.opening_ms(step, attempt.worker) } else { 0 };
        if let Some(frame) = attempt.frame_ms {
            return Some((opening + u64::from(frame.get())).abs_diff(elapsed));
        }
        let frame = self.frame_ms(step, attempt.task.index, attempt.worker, Some(slot))?;
        Some(Self::left_ms(step, frame + opening, elapsed))
    }

    /// Running tasks of the step, and in how many milliseconds they will have left Blender.
    fn late_frames(&self, now: Moment, job: JobId, step: kiln_types::StepIndex) -> Vec<Late> {
        let Some(found) = self.jobs.get(&job).filter(|job| job.phase == JobPhase::Active) else {
            return Vec::new();
        };
        let Some(found) = found.steps.get(usize::from(step.0)) else { return Vec::new() };
        // What has gone wrong before may go wrong again, and take two workers at a time.
        let sound = found.live.iter().filter(|(task, _)| !found.troubles.contains_key(task));
        let late = |(index, id): (&TaskIndex, &AttemptId)| {
            let (left, other) = (self.ends_in(now, *id)?, found.twins.get(index));
            let (left, slower) = match other.map(|other| Some((self.ends_in(now, *other)?, *other))) {
                None => (left, None),
                Some(_) if found.replaced.get(index).is_some_and(|times| *times >= REPLACED) => return None,
                Some(Some((lefts, _))) if lefts < left => (lefts, Some(*id)),
                Some(Some((_, other))) => (left, Some(other)),
                // It has left Blender.
                Some(None) => return None,
            };
            // What its own Blender says may end an attempt; a guess might end the one that is all but done.
            let foretold = |id| self.attempts.get(&id).is_some_and(|attempt| attempt.frame_ms.is_some());
            if !slower.is_none_or(foretold) {
                return None;
            }
            Some(Late { left, task: TaskId { job, step, index: *index }, slower })
        };
        let mut late: Vec<Late> = sound.filter_map(late).collect();
        late.sort_unstable_by(|a, b| b.cmp(a));
        late
    }

    fn runs_on(&self, task: TaskId, worker: WorkerId) -> bool {
        let step = self.step(task);
        let attempts = step.map(|step| [step.live.get(&task.index), step.twins.get(&task.index)]);
        let mut attempts = attempts.into_iter().flatten().flatten();
        attempts.any(|id| self.attempts.get(id).is_some_and(|attempt| attempt.worker == worker))
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

/// When a slot could begin a frame, and how long that would take it; milliseconds. The least ends first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Turn {
    begins_in: u64,
    /// Of the scene; 0 where it is open.
    opening: u64,
    frame: u64,
    seat: Seat,
}

impl Ord for Turn {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |turn: &Self| (turn.begins_in + turn.opening + turn.frame, turn.seat);
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What is left of a frame that was taken to last `frame_ms`. One that is late already will be later still: as much
/// again as it is over.
fn left_ms(frame_ms: u64, elapsed_ms: u64) -> u64 {
    frame_ms.saturating_sub(elapsed_ms).max(elapsed_ms.saturating_sub(frame_ms))
}
