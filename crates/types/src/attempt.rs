//! The attempts of a worker in the messages between it and the scheduler.

use serde::{Deserialize, Serialize};

use crate::{AttemptId, Generation, SlotIndex, TaskId};

/// An attempt that a worker says it holds when it connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldAttempt {
    pub attempt: AttemptId,
    pub task: TaskId,
    pub generation: Generation,
    #[serde(flatten)]
    pub phase: HeldPhase,
}

/// The stage of such an attempt, and its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "phase")]
pub enum HeldPhase {
    Queued {
        slot: SlotIndex,
    },
    Running {
        slot: SlotIndex,
    },
    /// The attempt has left the slot; its report follows.
    Finished {
        slot: SlotIndex,
    },
    /// The attempt streams and has no slot, or its report follows.
    Streaming,
}

impl HeldPhase {
    pub fn slot(self) -> Option<SlotIndex> {
        match self {
            Self::Queued { slot } | Self::Running { slot } | Self::Finished { slot } => Some(slot),
            Self::Streaming => None,
        }
    }
}

/// The reason for which an attempt is revoked. The worker answers each with a report that closes the attempt, normally
/// that it is returned, even if it does not know the attempt: until then the slot gets no new work. A report that
/// was already sent counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RevokeReason {
    /// The job was cancelled, stopped or deleted: stop it, running or not.
    Cancelled,
    /// A request: another slot is idle, a higher priority waits, or the job or the worker is paused. Return it if it
    /// has not begun; if it has, go on and ignore this.
    Preempted,
    /// The scheduler does not know it, it expired and runs elsewhere, or its task is done or renders again: stop it.
    Stale,
    /// Stop: the attempt takes too long or hangs, and counts as failed already.
    TimedOut,
    /// Stop: the attempt streams, and its memory or its worker is needed for other work. Not a failure.
    Displaced,
}

/// The outcome of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReportOutcome {
    /// The files became those of the task.
    Committed,
    /// The task has its files already (perhaps from this very attempt, reported twice), is rendered again, or is
    /// gone: drop the files.
    Superseded,
    /// A failure or a returned attempt was recorded.
    Recorded,
    /// No such attempt was dispatched to this worker. Nothing changed.
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Epoch, JobId, StepIndex, TaskIndex};

    #[test]
    fn an_attempt_that_streams_has_no_slot_on_the_wire() {
        let attempt = AttemptId { epoch: Epoch(2), counter: 7 };
        let task = TaskId { job: JobId(1), step: StepIndex(0), index: TaskIndex(3) };
        let held = |phase| HeldAttempt { attempt, task, generation: Generation(0), phase };
        for (held, says) in [
            (held(HeldPhase::Queued { slot: SlotIndex(1) }), r#""phase":"queued","slot":1}"#),
            (held(HeldPhase::Streaming), r#""phase":"streaming"}"#),
        ] {
            let text = serde_json::to_string(&held).unwrap();
            assert!(text.ends_with(says), "{text}");
            assert_eq!(serde_json::from_str::<HeldAttempt>(&text).unwrap(), held);
        }
    }
}
