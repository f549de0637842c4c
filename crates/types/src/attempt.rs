//! The attempts of a worker, as the scheduler and the worker tell each other of them.

use serde::{Deserialize, Serialize};

use crate::{AttemptId, Generation, SlotIndex, TaskId};

/// An attempt that a worker says it holds when it connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldAttempt {
    pub attempt: AttemptId,
    pub task: TaskId,
    pub generation: Generation,
    pub slot: SlotIndex,
    pub phase: HeldPhase,
}

/// The stage that such an attempt has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeldPhase {
    Queued,
    Running,
    /// It has left the slot; its report follows.
    Finished,
}

/// The reason for which an attempt is revoked. The worker answers each with a report that closes the attempt, normally
/// that it is returned, also where it does not know the attempt: until then the slot gets no new work. A report that
/// was already on its way counts.
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
    /// It takes too long or hangs: stop it. It counts as failed already.
    TimedOut,
}

/// The outcome of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReportOutcome {
    /// Its files are the task's.
    Committed,
    /// The task has its files already (perhaps from this very attempt, reported twice), is rendered again, or is
    /// gone: drop the files.
    Superseded,
    /// A failure or a return was recorded.
    Recorded,
    /// No such attempt was dispatched to this worker. Nothing changed.
    Unknown,
}
