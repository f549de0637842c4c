//! The writes of the scheduler: one variant for each verb of the domain. Times are unix milliseconds, always passed in.

use std::collections::BTreeSet;

use kiln_types::{
    AttemptId, AttemptState, BlobHash, BundleFile, BundleId, DesiredState, Failure, Generation, JobId,
    JobSpec, JobState, OutputSet, Owner, Project, Quarantine, ShortName, SlotIndex, StepIndex, StepSpec,
    TaskId, TaskIndex, WorkerId,
};
use serde_json::Value;

use crate::ShareRow;

/// One durable consequence of a decision. A batch of them is one transaction ([`crate::Store::commit`]).
#[derive(Debug, Clone)]
pub enum Write {
    /// A new job, queued, with its steps. Its id must be above [`crate::Store::last_job`], and its bundle must be
    /// there ([`crate::StoreError::NoBundle`]).
    InsertJob {
        job: JobId,
        spec: Box<JobSpec>,
        steps: Vec<NewStep>,
        at_ms: i64,
    },
    /// Sets the state (pause included) and its reason, or none. The first `Running` sets the start, an end sets the end;
    /// leading back from an end (retry, render again, extend) clears it.
    SetJobState {
        job: JobId,
        state: JobState,
        at_ms: i64,
        reason: Option<Failure>,
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
    /// One step more.
    AddStep {
        job: JobId,
        step: NewStep,
    },
    /// The job stands otherwise among the others: its whole new spec, of which nothing else has changed.
    SetJobSpec {
        job: JobId,
        spec: Box<JobSpec>,
    },
    /// With all its tasks, attempts and outputs, whose rows [`crate::Store::sweep`] removes. Events stay; its bundle goes
    /// with the next [`crate::Store::expire`] that finds it neither needed nor promised.
    DeleteJob {
        job: JobId,
    },
    /// Put away since this time, or taken back out.
    SetJobArchived {
        job: JobId,
        at_ms: Option<i64>,
    },
    /// The person has the outputs up to this sequence. One below what is known, or above what the job has, says
    /// no more than that.
    MarkFetched {
        job: JobId,
        sequence: u64,
        at_ms: i64,
    },

    /// An attempt is dispatched to a slot of a worker, or streams there on no slot.
    OpenAttempt {
        attempt: AttemptId,
        task: TaskId,
        generation: Generation,
        worker: WorkerId,
        slot: Option<SlotIndex>,
        at_ms: i64,
    },
    /// A streaming attempt is dispatched to this slot of its worker.
    PlaceAttempt {
        attempt: AttemptId,
        slot: SlotIndex,
    },
    /// The slot has begun it.
    StartAttempt {
        attempt: AttemptId,
        at_ms: i64,
    },
    /// Ends an attempt that is not its task's result (that is [`Write::CommitTask`]); may come twice. The task
    /// remembers a `Failed` or `Expired` one until it is reopened; one that was opened before that never counts.
    CloseAttempt {
        attempt: AttemptId,
        state: AttemptState,
        at_ms: i64,
        failure: Option<Failure>,
        /// Seconds that the slot spent on it, where they are known.
        seconds: Option<f64>,
    },
    /// A failed or lapsed attempt counts against its task no more: its worker was to blame.
    ExcuseAttempt {
        attempt: AttemptId,
    },
    /// A failed attempt ran out of memory: as long as it counts, its task needs a machine of at least so many bytes.
    OutgrewMemory {
        attempt: AttemptId,
        bytes: u64,
    },
    /// A lapsed attempt goes on, `Assigned` or `Running` again, and its lapse is forgotten.
    ResumeAttempt {
        attempt: AttemptId,
        state: AttemptState,
    },

    /// The task's generation is done: what it made, and its attempt committed.
    CommitTask {
        task: TaskId,
        generation: Generation,
        attempt: AttemptId,
        product: TaskProduct,
        /// Seconds that Blender took for it.
        seconds: f64,
        /// Bytes that Blender used at most.
        peak_memory: Option<u64>,
        at_ms: i64,
    },
    /// The task has failed for good: its attempts are used up, or its failure stopped the job.
    FailTask {
        task: TaskId,
        generation: Generation,
        reason: Failure,
    },
    /// Tasks `first..=last` wait again, in this generation, with a clean record: retried or rendered again.
    ReopenTasks {
        job: JobId,
        step: StepIndex,
        first: TaskIndex,
        last: TaskIndex,
        generation: Generation,
    },
    /// When the last task of the step ended; `None` once one waits again.
    SetStepEnd {
        job: JobId,
        step: StepIndex,
        ended_ms: Option<i64>,
    },
    /// From now on exactly these tasks of the step are cancelled; spans with both ends included.
    SetCancelledTasks {
        job: JobId,
        step: StepIndex,
        spans: Vec<(TaskIndex, TaskIndex)>,
    },

    /// First contact, or a change of what the worker says of itself. The wish of a known worker is kept.
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
    /// `None`: it is in quarantine no longer.
    SetQuarantine {
        worker: WorkerId,
        quarantine: Option<Quarantine>,
    },
    /// The pools that it is in from now on.
    SetWorkerPools {
        worker: WorkerId,
        pools: BTreeSet<ShortName>,
    },
    /// It was heard of at this time.
    TouchWorker {
        worker: WorkerId,
        at_ms: i64,
    },
    /// Its attempts stay, and its name for them.
    DeleteWorker {
        worker: WorkerId,
    },

    /// How a user or a project shares the farm from now on.
    SetShare(ShareRow),
    /// How many there are of something; `None` where it is a limit no more.
    SetLimit {
        name: String,
        total: Option<u32>,
    },

    /// Known to this owner and project already: it waits for a job anew.
    InsertBundle {
        bundle: NewBundle,
        at_ms: i64,
    },

    /// The next event of the farm's one numbered sequence.
    Event(NewEvent),
    /// Forgets events up to and with this number; numbers are never used again.
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
    /// A bundle, recorded with it and named by its step.
    Bundle(NewBundle),
    Files(NewProduct),
}

/// Files of a task that are not the artist's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewProduct {
    pub kind: FileKind,
    /// The position of their frame among those of the job, if their step is about frames.
    pub position: Option<u32>,
    pub files: Vec<BundleFile>,
}

/// The kinds of such files.
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
