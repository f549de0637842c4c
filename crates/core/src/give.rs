//! Handing out: what a task that is given to a slot changes, and how its worker is told.

use kiln_types::{AttemptId, JobId, SlotIndex, TaskId, TaskIndex, WorkerId};

use crate::{
    Assigned, Core, Outbox, Push, Record,
    estimate::UNMEASURED_MS,
    needs::{self, Need},
    ready::StepId,
    worker::{Attempt, AttemptPhase},
};

/// One part in so many of the time goes to lower priorities, so that nothing starves.
const TRICKLE: u64 = 20;

/// A slot of a worker.
pub(crate) type Seat = (WorkerId, SlotIndex);
/// What was handed out in this turn and is not sent yet.
pub(crate) type Given = Vec<(WorkerId, SlotIndex, Assigned)>;

impl Core {
    /// Opens an attempt of the task on this slot.
    pub(crate) fn give(&mut self, task: TaskId, seat: Seat, given: &mut Given, out: &mut impl Outbox) {
        let TaskId { job, step, index } = task;
        let (worker, slot) = seat;
        let attempt = AttemptId { epoch: self.epoch, counter: self.next_attempt };
        let asked = self.step(task).map(|step| step.need);
        self.pin_device(job, worker, out);
        let Some(found) = self.step(task) else { return };
        let (need, session, generation) = (found.need, found.plan.session, found.generations.get(index));
        let place = self.slot(seat);
        let cold = place.is_none_or(|slot| slot.session != Some(session));
        let frame_ms = self.frame_ms(found, index, worker, place).unwrap_or(UNMEASURED_MS);
        self.next_attempt += 1;
        if let Some(step) = self.step_mut(task) {
            step.remove_waiting(index);
            let first = !step.live.contains_key(&index);
            if first {
                step.live.insert(index, attempt)
            } else {
                step.twins.insert(index, attempt)
            };
        }
        self.pay(job, frame_ms);
        let phase = AttemptPhase::Assigned { recalled: false };
        let charged_ms = u32::try_from(frame_ms).unwrap_or(u32::MAX);
        self.attempts.insert(
            attempt,
            Attempt { task, worker, generation, slot, phase, charged_ms, cold, frame_ms: None, told: None },
        );
        let room = self.room_of(task, need);
        if let Some(known) = self.workers.get_mut(&worker) {
            let claim = needs::claim(known, &known.claims(Some(slot)), room);
            let kept_for = |reserved: &mut Need| *reserved == need || Some(*reserved) == asked;
            if let Some(reserved) = known.reserved.take_if(kept_for) {
                self.needs[reserved].reserved = None;
            }
            if let Some(place) = known.slot_mut(slot) {
                if place.queue.is_empty() {
                    place.claim = claim.unwrap_or_default();
                    place.claim_guessed = false;
                }
                let left = place.session.filter(|open| *open != session);
                place.queue.push_back(attempt);
                place.set_session(session);
                place.last = Some((job, step));
                if let Some(left) = left
                    && let Some(warm) = self.indexes.warm.get_mut(&left)
                {
                    warm.remove(&(worker, slot));
                    if warm.is_empty() {
                        self.indexes.warm.remove(&left);
                    }
                }
            }
        }
        self.indexes.had.entry(session).or_default().insert(worker);
        self.touch(worker);
        self.reindex_worker(worker);
        self.file(job);
        out.record(Record::AttemptOpened { attempt, task, generation, worker, slot });
        given.push((worker, slot, Assigned { attempt, task, generation }));
    }

    /// The account of the job advances; a part of it is owed to those whom its priority passes by.
    fn pay(&mut self, job: JobId, ms: u64) {
        let Some(job) = self.jobs.get(&job) else { return };
        let (account, priority) = (job.account, job.standing.priority);
        self.accounts.charge(account, i64::try_from(ms).unwrap_or(i64::MAX));
        let others = self.needs.all().flat_map(|need| self.needs[need].ready.priorities());
        let (below, above) = others.fold((false, false), |(below, above), other| {
            (below || other < priority, above || other > priority)
        });
        if above {
            self.owed_ms = self.owed_ms.saturating_sub(ms);
        } else if below {
            self.owed_ms = self.owed_ms.saturating_add(ms / TRICKLE);
        }
    }

    /// What was handed out, one message for neighbouring tasks of one step on one slot, in the order of the frames.
    pub(crate) fn send(&self, given: Given, out: &mut impl Outbox) {
        let mut given = given;
        // Of equal places, in the order in which they were handed out.
        given.sort_by_key(|(worker, slot, _)| (*worker, *slot));
        let same = |a: &(WorkerId, SlotIndex, Assigned), b: &(WorkerId, SlotIndex, Assigned)| {
            (a.0, a.1, a.2.task.job, a.2.task.step) == (b.0, b.1, b.2.task.job, b.2.task.step)
        };
        for tasks in given.chunk_by(same) {
            let Some((worker, slot, _)) = tasks.first().copied() else { continue };
            let claim = self.slot((worker, slot)).map(|slot| slot.claim).unwrap_or_default();
            let tasks = tasks.iter().map(|(_, _, assigned)| *assigned).collect();
            self.push(worker, Push::Assign { slot, claim, tasks }, out);
        }
    }
}

pub(crate) fn task_of((job, step): StepId, index: TaskIndex) -> TaskId {
    TaskId { job, step, index }
}
