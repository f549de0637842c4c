//! Reactions to what a worker reports of an attempt.

use kiln_types::{AttemptId, AttemptState, Failure, WorkerId};

use crate::{
    Core, Finish, HeldPhase, Moment, Outbox, Record, RevokeReason, Verdict,
    job::Place,
    pauses::Why,
    worker::{AttemptPhase, Worker},
};

impl Core {
    /// The slot began this attempt; whatever ran on the slot before has left Blender. Reports of attempts that
    /// the worker does not hold change nothing.
    pub fn attempt_started(
        &mut self,
        now: Moment,
        worker: WorkerId,
        attempt: AttemptId,
        out: &mut impl Outbox,
    ) {
        let Some(found) = self.attempts.get_mut(&attempt) else { return };
        if found.worker != worker {
            return;
        }
        match &mut found.phase {
            AttemptPhase::Assigned { .. } => {}
            // Should its worker turn out to be alive, it goes on as what it is.
            AttemptPhase::Late { was, .. } => return *was = HeldPhase::Running,
            AttemptPhase::Running { .. } | AttemptPhase::Delivering => return,
        }
        found.phase = AttemptPhase::Running { since: now };
        let (task, slot) = (found.task, found.slot);
        let Some(session) = self.step_mut(task).map(|step| {
            step.running += u32::from(!step.is_twin(task.index, attempt));
            step.plan.session
        }) else {
            return;
        };
        self.touch(worker);
        out.record(Record::AttemptStarted { attempt, task });
        self.takes_again(worker, session, Why::Refused);
        self.begin(task.job, out);
        let Some(slot) = self.workers.get_mut(&worker).and_then(|worker| worker.slot_mut(slot)) else {
            return;
        };
        slot.detach(attempt);
        let mut left = None;
        if let Some(front) = slot.queue.front().copied()
            && let Some(before) = self.attempts.get_mut(&front)
            && let AttemptPhase::Running { since } = before.phase
        {
            before.phase = AttemptPhase::Delivering;
            slot.queue.pop_front();
            slot.delivering.push(front);
            self.watch.end(front);
            slot.measured(now.since(since));
            left = Some((before.task, now.since(since), before.cold, before.told));
        }
        slot.queue.push_front(attempt);
        if slot.session.is_none() {
            slot.set_session(session);
        }
        self.watch_over(now, attempt);
        if let Some((task, ms, cold, told)) = left {
            self.learn_time(task, worker, ms, cold, told);
        }
    }

    /// The attempt left its slot, and this is how. `Delivered` only once every file is checked and stored: the
    /// first for a generation wins, also from an attempt that had lapsed.
    pub fn attempt_finished(
        &mut self,
        now: Moment,
        worker: WorkerId,
        attempt: AttemptId,
        finish: Finish,
        out: &mut impl Outbox,
    ) -> Verdict {
        let was_closing = self.reported(worker, attempt);
        let found = self.attempts.get(&attempt).filter(|found| found.worker == worker);
        let Some(found) = found else {
            return match finish {
                Finish::Delivered if self.was_issued(attempt) => Verdict::Superseded,
                Finish::Failed(_) | Finish::HandedBack if was_closing => Verdict::Recorded,
                _ => Verdict::Unknown,
            };
        };
        let live = found.phase.is_live();
        let unasked = found.phase == (AttemptPhase::Assigned { recalled: false });
        if let Some((session, first)) =
            self.step(found.task).map(|step| (step.plan.session, step.firsts.is_open()))
        {
            match &finish {
                // Where nothing has been delivered yet, others had better say whether it is the worker or the scene.
                Finish::Failed(failure) if first || failure.cause.blames_worker() => {
                    self.hold_off(now, worker, session, Why::Faulty);
                }
                Finish::Delivered | Finish::Failed(_) => self.takes_again(worker, session, Why::Faulty),
                Finish::HandedBack if unasked && self.is_to_work(worker) => {
                    self.hold_off(now, worker, session, Why::Refused);
                }
                Finish::HandedBack => {}
            }
        }
        match finish {
            Finish::Delivered => {
                self.measure(now, attempt);
                self.deliver(now, attempt, out)
            }
            Finish::Failed(failure) if live => {
                self.fail(now, attempt, failure, out);
                Verdict::Recorded
            }
            Finish::HandedBack if live => {
                self.lose(attempt, false, false, out);
                Verdict::Recorded
            }
            // Its task has gone its own way since.
            Finish::Failed(_) | Finish::HandedBack => {
                self.drop_late(attempt);
                Verdict::Recorded
            }
        }
    }

    /// Whether the farm and itself want it to work: one that drains or rests hands back rightly.
    fn is_to_work(&self, worker: WorkerId) -> bool {
        self.workers.get(&worker).is_some_and(Worker::is_to_work)
    }

    /// The attempt is off the worker's slots; whether one was waiting for that.
    fn reported(&mut self, worker: WorkerId, attempt: AttemptId) -> bool {
        let Some(known) = self.workers.get_mut(&worker) else { return false };
        let mut was_closing = false;
        for slot in &mut known.slots {
            if let Some(at) = slot.closing.iter().position(|id| *id == attempt) {
                slot.closing.remove(at);
                was_closing = true;
            }
        }
        if was_closing {
            self.touch(worker);
        }
        was_closing
    }

    fn was_issued(&self, attempt: AttemptId) -> bool {
        let fresh = attempt.epoch == self.epoch && attempt.counter < self.next_attempt;
        attempt.counter > 0 && (fresh || attempt.epoch < self.epoch)
    }

    fn measure(&mut self, now: Moment, attempt: AttemptId) {
        if let Some(found) = self.attempts.get(&attempt)
            && let AttemptPhase::Running { since } = found.phase
            && let Some(worker) = self.workers.get_mut(&found.worker)
            && let Some(slot) = worker.slots.get_mut(usize::from(found.slot.0))
        {
            slot.measured(now.since(since));
            let (task, worker, cold, told) = (found.task, found.worker, found.cold, found.told);
            self.learn_time(task, worker, now.since(since), cold, told);
        }
    }

    fn deliver(&mut self, now: Moment, id: AttemptId, out: &mut impl Outbox) -> Verdict {
        let Some(found) = self.attempts.get(&id) else { return Verdict::Unknown };
        let task = found.task;
        let place = self.open_place(found);
        // A live attempt's task is live: only a late one can come to a closed task.
        let live = found.phase.is_live();
        let attempt = if live { self.detach(id) } else { self.drop_late(id) };
        let (Some(place), Some(attempt)) = (place, attempt) else {
            let state = AttemptState::Superseded;
            out.record(Record::AttemptClosed { attempt: id, task, state, failure: None });
            return Verdict::Superseded;
        };
        debug_assert!(!matches!(place, Place::Done));
        // Its twin, or whoever took over from one that was late.
        while let Some(other) = self.step(task).and_then(|step| step.live.get(&task.index)).copied() {
            self.revoke(other, RevokeReason::Stale, AttemptState::Superseded, out);
        }
        let state = AttemptState::Committed;
        out.record(Record::AttemptClosed { attempt: id, task, state, failure: None });
        let generation = attempt.generation;
        out.record(Record::TaskCommitted { task, generation, attempt: id });
        if let Some(step) = self.step_mut(task) {
            step.remove_waiting(task.index);
            step.done.insert(task.index);
            step.replaced.remove(&task.index);
            let trouble = step.troubles.remove(&task.index).unwrap_or_default();
            for late in &trouble.late {
                self.attempts.remove(late);
            }
            self.was_no_fault_of(task, &trouble);
        }
        self.begin(task.job, out);
        self.delivered_on(now, attempt.worker, (task.job, task.step), out);
        self.settle(task.job, out);
        Verdict::Committed
    }

    fn fail(&mut self, now: Moment, id: AttemptId, failure: Failure, out: &mut impl Outbox) {
        if let Some(attempt) = self.detach(id) {
            self.failed(now, id, &attempt, failure, out);
        }
    }
}
