//! The changes that the stream of server-sent events reports.

use kiln_types::{
    AttemptId, AttemptState, DeviceClass, EventNumber, Failure, Generation, JobId, JobScheduling, JobState,
    StepIndex, StepKind, Suspicion, TaskIndex, TaskName, WorkerState,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One change of the farm. Its number is the SSE id: `Last-Event-ID` resumes after it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    pub number: EventNumber,
    /// Unix milliseconds.
    pub at_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
    /// The worker's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    #[serde(flatten)]
    pub change: Change,
}

/// A change. Its tag is also the name of the SSE event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Change {
    JobCreated {
        name: String,
    },
    JobState {
        state: JobState,
        reason: Option<Failure>,
    },
    /// The scheduling options of the job were changed.
    JobChanged {
        scheduling: JobScheduling,
    },
    JobExtended {
        total: u32,
    },
    /// A step was added to the job, which continues.
    StepAdded {
        step: StepIndex,
        step_kind: StepKind,
    },
    JobNotice {
        text: String,
    },
    /// A job for any GPU was pinned to the backend of its first worker; or to `gpu`, any GPU, again: nothing of it was
    /// delivered, and nothing of it runs.
    JobDevice {
        device: DeviceClass,
    },
    JobDeleted,
    JobArchived {
        archived: bool,
    },
    /// A collection removed the files of these kinds.
    JobExpired {
        inputs: bool,
        outputs: bool,
        logs: bool,
    },
    TaskStarted {
        step: StepIndex,
        index: TaskIndex,
        #[serde(flatten)]
        name: TaskName,
        attempt: AttemptId,
    },
    TaskDone {
        step: StepIndex,
        index: TaskIndex,
        #[serde(flatten)]
        name: TaskName,
        generation: Generation,
        attempt: AttemptId,
        /// Seconds of rendering alone.
        seconds: f64,
        /// The number of files in its output set; a bake has none.
        files: u32,
        /// The reasons for which a person should look at the frame.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        suspicious: Vec<Suspicion>,
    },
    /// The task has used up its attempts.
    TaskFailed {
        step: StepIndex,
        index: TaskIndex,
        #[serde(flatten)]
        name: TaskName,
        reason: String,
    },
    /// The task waits again: it is retried or rendered again.
    TaskReopened {
        step: StepIndex,
        index: TaskIndex,
        #[serde(flatten)]
        name: TaskName,
        generation: Generation,
    },
    /// An attempt ended without delivering.
    AttemptEnded {
        step: StepIndex,
        index: TaskIndex,
        #[serde(flatten)]
        name: TaskName,
        attempt: AttemptId,
        state: AttemptState,
        failure: Option<Failure>,
    },
    WorkerState {
        state: WorkerState,
        /// The reason for a quarantine.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    WorkerRemoved,
}
