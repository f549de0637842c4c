//! The writes of the scheduler. Times are Unix milliseconds.

use std::collections::BTreeSet;

use kiln_types::{
    AttemptId, AttemptState, BlobHash, BundleFile, BundleId, DesiredState, Failure, Generation, JobId,
    JobSpec, JobState, OutputSet, Owner, Project, Quarantine, ShortName, SlotIndex, StepIndex, StepSpec,
    TaskId, TaskIndex, WorkerId,
};
use serde_json::Value;

use crate::ShareRow;

/// A durable consequence of a decision. A batch of them is one transaction ([`crate::Store::commit`]).
#[derive(Debug, Clone)]
pub enum Write {
    /// Inserts a queued job with its steps. Its id must be above [`crate::Store::last_job`], and its bundle must exist
    /// ([`crate::StoreError::NoBundle`]).
    InsertJob {
        job: JobId,
        spec: Box<JobSpec>,
        steps: Vec<NewStep>,
        at_ms: i64,
    },
    /// Sets the state of a job and its reason. The first `Running` sets the start of the job, a final state sets the end, and
    /// any other state clears the end.
    SetJobState {
        job: JobId,
        state: JobState,
        at_ms: i64,
        reason: Option<Failure>,
    },
    /// Adds a message that stays visible on the job. The same text is stored once.
    AddNotice {
        job: JobId,
        text: String,
        attempt: Option<AttemptId>,
        at_ms: i64,
    },
    /// Adds frames to a step: the new spec, and the new number of tasks of the step.
    ExtendStep {
        job: JobId,
        step: StepIndex,
        spec: Box<JobSpec>,
        count: u32,
    },
    AddStep {
        job: JobId,
        step: NewStep,
    },
    /// Replaces the spec of a job, of which only the scheduling options and requirements may differ.
    SetJobSpec {
        job: JobId,
        spec: Box<JobSpec>,
    },
    /// Deletes a job. [`crate::Store::sweep`] removes the rows of its tasks, attempts and outputs, and
    /// [`crate::Store::expire`] its bundle, if no other job needs it. Events stay.
    DeleteJob {
        job: JobId,
    },
    /// Archives a job at this time, or ends that.
    SetJobArchived {
        job: JobId,
        at_ms: Option<i64>,
    },
    /// Records that the outputs up to this sequence were fetched. Never lowers the sequence, or raises it above that of the
    /// last output.
    MarkFetched {
        job: JobId,
        sequence: u64,
        at_ms: i64,
    },

    /// Opens an attempt that is dispatched to a slot, or that streams without one.
    OpenAttempt {
        attempt: AttemptId,
        task: TaskId,
        generation: Generation,
        worker: WorkerId,
        slot: Option<SlotIndex>,
        at_ms: i64,
    },
    /// Dispatches a streaming attempt to a slot of its worker.
    PlaceAttempt {
        attempt: AttemptId,
        slot: SlotIndex,
    },
    /// Records that the slot began the attempt.
    StartAttempt {
        attempt: AttemptId,
        at_ms: i64,
    },
    /// Ends an attempt other than by [`Write::CommitTask`]; may come twice. A `Failed` or `Expired` one is in the failure
    /// history of its task until that is reopened, unless it was opened before the last time.
    CloseAttempt {
        attempt: AttemptId,
        state: AttemptState,
        at_ms: i64,
        failure: Option<Failure>,
        /// Seconds that the slot spent on it, if known.
        seconds: Option<f64>,
    },
    /// Removes a failed or expired attempt from the failure history of its task: the origin was the worker.
    ExcuseAttempt {
        attempt: AttemptId,
    },
    /// Records that a failed attempt ran out of memory: while it is in the failure history, its task needs a machine of at
    /// least `bytes`.
    OutgrewMemory {
        attempt: AttemptId,
        bytes: u64,
    },
    /// Makes an expired attempt `Assigned` or `Running` again.
    ResumeAttempt {
        attempt: AttemptId,
        state: AttemptState,
    },

    /// Records the result of a task, and commits its attempt.
    CommitTask {
        task: TaskId,
        generation: Generation,
        attempt: AttemptId,
        product: TaskProduct,
        /// Seconds of Blender.
        seconds: f64,
        /// Peak memory of Blender, in bytes.
        peak_memory: Option<u64>,
        at_ms: i64,
    },
    /// Fails a task: its attempts are used up, or its failure stopped the job.
    FailTask {
        task: TaskId,
        generation: Generation,
        reason: Failure,
    },
    /// Reopens the tasks `first..=last` in this generation, with an empty failure history.
    ReopenTasks {
        job: JobId,
        step: StepIndex,
        first: TaskIndex,
        last: TaskIndex,
        generation: Generation,
    },
    /// Sets the time at which the last task of the step ended, or clears it.
    SetStepEnd {
        job: JobId,
        step: StepIndex,
        ended_ms: Option<i64>,
    },
    /// Replaces the cancelled tasks of the step; spans include both ends.
    SetCancelledTasks {
        job: JobId,
        step: StepIndex,
        spans: Vec<(TaskIndex, TaskIndex)>,
    },

    /// Inserts a worker, or updates its name and info.
    UpsertWorker {
        worker: WorkerId,
        name: String,
        info: Value,
        at_ms: i64,
    },
    SetDesiredState {
        worker: WorkerId,
        desired: DesiredState,
    },
    SetQuarantine {
        worker: WorkerId,
        quarantine: Option<Quarantine>,
    },
    SetWorkerPools {
        worker: WorkerId,
        pools: BTreeSet<ShortName>,
    },
    /// Records the time of a message from the worker.
    TouchWorker {
        worker: WorkerId,
        at_ms: i64,
    },
    /// Removes a worker. Its attempts stay, and its name for them.
    DeleteWorker {
        worker: WorkerId,
    },

    SetShare(ShareRow),
    /// Sets the total of a limit; `None` removes the limit.
    SetLimit {
        name: String,
        total: Option<u32>,
    },

    /// Inserts a bundle. One that the owner and project have already waits for a job from now on.
    InsertBundle {
        bundle: NewBundle,
        at_ms: i64,
    },

    Event(NewEvent),
    /// Removes the events up to and with this number; numbers are never reused.
    TrimEvents {
        up_to: kiln_types::EventNumber,
    },
}

/// A bundle whose manifest is the blob that its id names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBundle {
    pub id: BundleId,
    pub owner: Owner,
    pub project: Project,
    /// Bytes of all files.
    pub size: u64,
    /// The blobs of its files.
    pub blobs: Vec<BlobHash>,
}

/// The result of a task.
#[derive(Debug, Clone)]
pub enum TaskProduct {
    /// The artist's files of a frame.
    Outputs {
        frame: i32,
        files: OutputSet,
    },
    /// A bundle, which is inserted and becomes that of the step.
    Bundle(NewBundle),
    Files(NewProduct),
}

/// Files of a task that are not the artist's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewProduct {
    pub kind: FileKind,
    /// The position of their frame in the job, if their step is about frames.
    pub position: Option<u32>,
    pub files: Vec<BundleFile>,
}

/// The kinds of files that are not the artist's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// Used by later steps.
    Intermediate,
    /// Kept as long as the output of its frame.
    Preview,
}

impl FileKind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Intermediate => "intermediate",
            Self::Preview => "preview",
        }
    }
}

/// A step of a new job, or one that is added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewStep {
    pub step: StepIndex,
    pub spec: StepSpec,
    /// The number of its tasks.
    pub count: u32,
}

/// An event without its number.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    pub at_ms: i64,
    pub job: Option<JobId>,
    pub worker: Option<WorkerId>,
    pub kind: String,
    pub data: Value,
}
