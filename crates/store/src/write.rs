//! What the brain may have written: one variant a domain verb. Times are unix milliseconds, always passed in.

use kiln_types::{
    AttemptId, AttemptState, BlobHash, BundleId, Failure, Generation, JobId, JobSpec, JobState, Order,
    OutputSet, Owner, Project, SlotIndex, StepIndex, TaskId, WorkerId, WorkerWish,
};
use serde_json::Value;

use crate::StepKind;

/// One durable consequence of a decision. A batch of them is one transaction ([`crate::Store::commit`]).
#[derive(Debug, Clone)]
pub enum Write {
    /// A new job, queued, with its steps. Its id must be above [`crate::Store::last_job`].
    InsertJob {
        job: JobId,
        spec: Box<JobSpec>,
        steps: Vec<NewStep>,
        at_ms: i64,
    },
    /// Sets the state. The first `Running` sets the start, an end sets the end and the reason; leading back
    /// from an end (retry, render again, extend) clears both.
    SetJobState {
        job: JobId,
        state: JobState,
        at_ms: i64,
        reason: Option<Failure>,
    },
    /// The wish to pause, kept apart from the state: a job paused while it runs is still paused after a restart.
    SetJobPaused {
        job: JobId,
        paused: bool,
    },
    /// What was passed over and must stay visible on the job. The same text is kept once.
    AddNotice {
        job: JobId,
        text: String,
        attempt: Option<AttemptId>,
        at_ms: i64,
    },
    /// Frames added to a step: the whole new spec, and how many tasks the step has now.
    ExtendStep {
        job: JobId,
        step: StepIndex,
        spec: Box<JobSpec>,
        count: u32,
    },
    /// With all its tasks, attempts and outputs. Events and bundles stay.
    DeleteJob {
        job: JobId,
    },

    /// Handed to a slot.
    OpenAttempt {
        attempt: AttemptId,
        task: TaskId,
        generation: Generation,
        worker: WorkerId,
        slot: SlotIndex,
        at_ms: i64,
    },
    /// The slot has begun it.
    StartAttempt {
        attempt: AttemptId,
        at_ms: i64,
    },
    /// Ends an attempt that is not its task's result (that is [`Write::CommitTask`]).
    CloseAttempt {
        attempt: AttemptId,
        state: AttemptState,
        at_ms: i64,
        failure: Option<Failure>,
        /// Whether the task remembers it: a `Failed` one among its failures, a `Lapsed` one among its lapses.
        counts: bool,
        /// Seconds that the slot spent on it, where they are known.
        seconds: Option<f64>,
    },

    /// The task's generation is done: its outputs, and its attempt committed.
    CommitTask {
        task: TaskId,
        generation: Generation,
        attempt: AttemptId,
        /// The frame that the outputs belong to.
        frame: i32,
        outputs: OutputSet,
        /// Seconds that rendering took.
        seconds: f64,
        /// Bytes that Blender used at most.
        peak_memory: Option<u64>,
        at_ms: i64,
    },
    /// The task has failed for good: its attempts are used up.
    FailTask {
        task: TaskId,
        generation: Generation,
    },
    /// The task waits again with a clean record: retried in the same generation, or rendered again in a
    /// higher one.
    ReopenTask {
        task: TaskId,
        generation: Generation,
    },
    /// The task alone is cancelled; of a cancelled job, whatever is not done counts as cancelled anyway.
    CancelTask {
        task: TaskId,
        generation: Generation,
    },

    /// First contact, or a change of what the worker says of itself. The wish of a known worker is kept.
    UpsertWorker {
        worker: WorkerId,
        name: String,
        info: Value,
        at_ms: i64,
    },
    SetWorkerWish {
        worker: WorkerId,
        wish: WorkerWish,
    },
    /// It was heard of at this time.
    TouchWorker {
        worker: WorkerId,
        at_ms: i64,
    },
    /// Its attempts stay.
    DeleteWorker {
        worker: WorkerId,
    },

    /// The manifest is the blob that the id names. Known to this owner and project already: nothing happens.
    InsertBundle {
        bundle: BundleId,
        owner: Owner,
        project: Project,
        /// Bytes of all files.
        size: u64,
        /// The blobs of its files.
        blobs: Vec<BlobHash>,
        at_ms: i64,
    },

    /// The next event of the farm's one numbered sequence.
    Event(NewEvent),
    /// Forgets events up to and with this number; numbers are never used again.
    TrimEvents {
        up_to: kiln_types::EventNumber,
    },
}

/// A step of a new job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewStep {
    pub step: StepIndex,
    pub kind: StepKind,
    /// How many tasks it has.
    pub count: u32,
    /// The steps that must be complete before it begins.
    pub after: Vec<StepIndex>,
    pub order: Order,
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
