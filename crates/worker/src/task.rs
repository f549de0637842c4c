//! The tasks of slots.

use std::time::Duration;

use kiln_types::{AttemptId, JobId, TaskId, TaskName};

/// The part of a task that is the same for all kinds of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TaskHead {
    pub(crate) attempt: AttemptId,
    pub(crate) task: TaskId,
    pub(crate) name: TaskName,
    pub(crate) time_limit: Option<Duration>,
}

impl TaskHead {
    pub(crate) fn job(&self) -> JobId {
        self.task.job
    }
}
