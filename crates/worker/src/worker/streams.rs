//! Streaming attempts: on the worker and on no slot, until the last file that they need is there.

use kiln_api::{AttemptReport, SlotClaim, StreamAssignment};
use kiln_types::{AttemptId, Failure, SlotIndex};

use super::actor::{WorkerActor, WorkerInput};
use crate::{
    direct::DirectTask,
    event::WorkerEvent,
    inputs::SharedInputs,
    slot::{SlotCommand, SlotTask},
};

impl WorkerActor {
    pub(super) fn stream(&mut self, assignment: StreamAssignment) {
        let StreamAssignment { job, work, memory, task } = assignment;
        if !self.hold(&work, &task, None) {
            return;
        }
        let attempt = task.attempt;
        if self.leaving.is_some() || self.unavailable.is_some() {
            return self.end(attempt, AttemptReport::Returned);
        }
        let (inputs, sender) = (self.inputs_of(&work, &task), self.inputs.clone());
        let shared = SharedInputs::stream(inputs, move |failure| {
            // The worker may have ended.
            let _ = sender.send(WorkerInput::StreamFailed(attempt, failure));
        });
        match self.direct_task(&work, &task, memory, shared) {
            Ok(direct) => {
                self.emit(WorkerEvent::Streaming { job, task: direct.head.name });
                self.context.memory.claim_for_stream(attempt, memory);
                self.streams.insert(attempt, direct);
            }
            Err(failure) => self.failed(attempt, failure, 0.0),
        }
    }

    /// Gives a streaming attempt its slot, behind the tasks that the slot has.
    pub(super) fn place(&mut self, attempt: AttemptId, slot: SlotIndex, claim: &SlotClaim) {
        let Some(mut task) = self.remove_stream(attempt) else {
            // It has ended, and the report is sent again; or it was never here.
            self.attempts.revoke(attempt, false);
            return self.send_reports();
        };
        if self.leaving.is_some() || usize::from(slot.0) >= self.slots.len() {
            return self.end(attempt, AttemptReport::Returned);
        }
        task.memory = claim.memory;
        self.attempts.place(attempt, slot);
        self.command(slot, SlotCommand::Enqueue(vec![SlotTask::Direct(task)]));
    }

    pub(super) fn stream_failed(&mut self, attempt: AttemptId, failure: Failure) {
        // On its slot it tries once more.
        if self.remove_stream(attempt).is_some() {
            self.failed(attempt, failure, 0.0);
        }
    }

    pub(super) fn return_stream(&mut self, attempt: AttemptId) {
        if let Some(task) = self.remove_stream(attempt) {
            self.emit(WorkerEvent::Returned { job: task.head.job(), task: task.head.name });
        }
        self.end(attempt, AttemptReport::Returned);
    }

    pub(super) fn return_streams(&mut self) {
        let attempts: Vec<AttemptId> = self.streams.keys().copied().collect();
        attempts.into_iter().for_each(|attempt| self.return_stream(attempt));
    }

    fn remove_stream(&mut self, attempt: AttemptId) -> Option<DirectTask> {
        self.context.memory.release_stream(attempt);
        self.streams.remove(&attempt)
    }
}
