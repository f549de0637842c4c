//! Changes, as the stream of server-sent events tells them.

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

/// What changed. The tag is also the SSE event's name.
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
    /// It stands otherwise among the others.
    JobChanged {
        scheduling: JobScheduling,
    },
    JobExtended {
        total: u32,
    },
    /// A step was added to the job, which goes on.
    StepAdded {
        step: StepIndex,
        step_kind: StepKind,
    },
    JobNotice {
        text: String,
    },
    /// It may render on any GPU, and a worker has decided on which: all of it renders on this backend. `gpu` where that is
    /// open again: nothing of it was ever delivered, and nothing is at work.
    JobDevice {
        device: DeviceClass,
    },
    JobDeleted,
    /// Put away, or taken back out.
    JobArchived {
        archived: bool,
    },
    /// A collection let go of what is named.
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
        /// Seconds the render itself took.
        seconds: f64,
        /// Of its output set; a bake has none.
        files: u32,
        /// Why somebody should look at the frame.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        suspicious: Vec<Suspicion>,
    },
    /// It has used up its attempts.
    TaskFailed {
        step: StepIndex,
        index: TaskIndex,
        #[serde(flatten)]
        name: TaskName,
        reason: String,
    },
    /// Waiting again: retried, rendered again, or given back.
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
        /// Why it is quarantined.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    WorkerRemoved,
}
