//! The ends of attempts: closed, revoked, preempted.

use kiln_types::{AttemptId, AttemptState, WorkerId};

use crate::{
    Core, Outbox, Push, Record, RevokeReason, claims,
    ids::StepRef,
    state::{Attempt, AttemptPhase, TaskPlace},
};

impl Core {
    /// Takes a live attempt off its worker and its task, and returns it. The task then waits, unless it has another
    /// attempt. `None` if the attempt is not live.
    pub(crate) fn close_attempt(&mut self, id: AttemptId) -> Option<Attempt> {
        self.state.find_attempt(id).filter(|attempt| attempt.phase.is_live())?;
        let attempt = self.state.attempts.remove(id)?;
        self.state.detach(&attempt, id);
        self.time_limits.end(id);
        self.end_probe(attempt.worker, id);
        self.state.touch(attempt.worker);
        if !attempt.phase.has_begun() {
            // It never ran, and is not charged.
            let member = self.state.job(attempt.task.job).member;
            self.fair_share.charge(member, -i64::from(attempt.charged_ms));
        }
        self.state.step_mut(attempt.task).tasks.close(attempt.task.index, id);
        Some(attempt)
    }

    /// Ends a live attempt that is no longer wanted, and returns it.
    pub(crate) fn revoke(
        &mut self,
        id: AttemptId,
        why: RevokeReason,
        out: &mut impl Outbox,
    ) -> Option<Attempt> {
        let attempt = self.close_attempt(id)?;
        let is_stale = why == RevokeReason::Stale;
        let state = if is_stale { AttemptState::Superseded } else { AttemptState::Revoked };
        self.await_report(id, &attempt);
        out.record(Record::AttemptClosed { attempt: id, task: attempt.task, state, failure: None });
        self.push(attempt.worker, Push::Revoke { attempt: id, why }, out);
        Some(attempt)
    }

    /// Keeps the slot or the memory of a closed attempt from others until its worker reports it. One that has left Blender
    /// has left its slot.
    pub(crate) fn await_report(&mut self, id: AttemptId, attempt: &Attempt) {
        match (attempt.phase, attempt.place()) {
            (AttemptPhase::Streaming { memory }, _) => {
                self.state.update_streams(attempt.worker, |streams| streams.close(id, memory));
            }
            (AttemptPhase::Delivering { .. }, _) | (_, None) => {}
            (_, Some(of)) => self.state.slot_mut(of).close(id),
        }
    }

    /// Asks the worker to return an attempt that has not begun; ends one that streams.
    pub(crate) fn preempt(&mut self, id: AttemptId, out: &mut impl Outbox) {
        let attempt = self.state.attempt_mut(id);
        match &mut attempt.phase {
            AttemptPhase::Streaming { .. } => drop(self.revoke(id, RevokeReason::Displaced, out)),
            AttemptPhase::Assigned { preempted: preempted @ false, .. } => {
                *preempted = true;
                let worker = attempt.worker;
                self.push(worker, Push::Revoke { attempt: id, why: RevokeReason::Preempted }, out);
            }
            _ => {}
        }
    }

    /// The memory that a stream of this step claims on the worker; bytes.
    pub(crate) fn stream_memory(&self, worker: WorkerId, of: StepRef) -> u64 {
        let (Some(worker), Some(step)) = (self.state.find_worker(worker), self.state.find_step(of)) else {
            return 0;
        };
        claims::stream_memory(&worker.offer, self.requirements[step.requirement].requirement.room)
    }

    /// Forgets an expired attempt.
    pub(crate) fn drop_expired(&mut self, id: AttemptId) {
        if let Some(attempt) = self.state.attempts.remove(id) {
            self.state.update_history(attempt.task, |history| history.drop_expired(id));
        }
    }

    /// Returns whether the attempt's generation may still be committed.
    pub(crate) fn may_deliver(&self, attempt: &Attempt) -> bool {
        let tasks = &self.state.step(attempt.task).tasks;
        let place = tasks.place(attempt.task.index);
        matches!(place, Some(TaskPlace::Waiting | TaskPlace::Live(_)))
            && tasks.generation(attempt.task.index) == attempt.generation
    }
}
