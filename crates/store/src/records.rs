//! What is read back. Times are unix milliseconds.

use std::collections::BTreeSet;

use kiln_types::{
    AccountKind, AttemptId, AttemptState, BundleFile, BundleId, DesiredState, EventNumber, Failure,
    Generation, JobId, JobSpec, JobState, JobSteps, OutputFile, Owner, Project, Quarantine, ShortName,
    SlotIndex, StepIndex, TaskId, TaskIndex, TaskName, TaskState, WorkerId,
};
use serde_json::Value;

/// A job, as lists and pages show it.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRow {
    pub id: JobId,
    pub spec: JobSpec,
    pub state: JobState,
    pub created_ms: i64,
    pub started_ms: Option<i64>,
    pub ended_ms: Option<i64>,
    /// Why it ended as it did, or why the scheduler paused it, where that was a fault of its own.
    pub reason: Option<Failure>,
    pub plan: JobSteps,
    /// The progress of each step of the plan.
    pub steps: Vec<StepRow>,
    pub notices: Vec<Notice>,
    pub kept: KeptRow,
}

impl JobRow {
    pub fn name_of(&self, step: StepIndex, task: TaskIndex) -> TaskName {
        self.plan.name_of(&self.spec.frames, step, task).unwrap_or(TaskName::UNKNOWN)
    }
}

/// What of a job is still there, and what is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeptRow {
    pub archived_ms: Option<i64>,
    /// The highest sequence of its outputs; 0 where it has none.
    pub last_seq: u64,
    /// Outputs up to this one have been fetched.
    pub fetched_seq: u64,
    /// When the last of those was said to be fetched.
    pub fetched_ms: Option<i64>,
    /// Since when it can render nothing more.
    pub inputs_gone_ms: Option<i64>,
    /// Outputs up to this one are gone, since [`KeptRow::outputs_gone_ms`].
    pub outputs_gone_seq: u64,
    pub outputs_gone_ms: Option<i64>,
    /// The logs of attempts that had ended by then are gone.
    pub logs_gone_ms: Option<i64>,
}

/// A step, with how far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepRow {
    pub step: StepIndex,
    /// Tasks in all.
    pub count: u32,
    pub done: u32,
    pub failed: u32,
    /// The bundle that it made.
    pub bundle: Option<BundleId>,
    /// Where every task has ended.
    pub ended_ms: Option<i64>,
}

/// What was passed over and stays visible on a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    pub text: String,
    /// The first attempt that said so.
    pub attempt: Option<AttemptId>,
    pub at_ms: i64,
}

/// All that the scheduler needs to go on with a job.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredJob {
    pub row: JobRow,
    /// In the order of the steps.
    pub steps: Vec<StoredStep>,
    /// Attempts that may yet deliver, oldest first: those of tasks that wait in the attempt's generation, open
    /// or lapsed since the task was last reopened.
    pub open: Vec<AttemptRow>,
}

/// The tasks of a step that are not simply waiting in generation 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredStep {
    pub step: StepIndex,
    /// In the order of the indexes; neighbours alike in state and generation make one run.
    pub runs: Vec<TaskRun>,
    /// As the last [`crate::Write::SetCancelledTasks`] said.
    pub cancelled: Vec<(TaskIndex, TaskIndex)>,
    /// What tasks that are neither done nor failed nor cancelled remember, in the order of the indexes.
    pub faults: Vec<TaskFaults>,
}

/// Tasks `first..=last`, all in one state of one generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskRun {
    pub first: TaskIndex,
    pub last: TaskIndex,
    pub generation: Generation,
    /// `Done`, `Failed`, or `Waiting` in a generation above 0.
    pub state: TaskState,
}

/// The attempts that count against a task since it last had a clean record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskFaults {
    pub index: TaskIndex,
    /// A worker for each failed attempt, oldest first.
    pub failed_on: Vec<WorkerId>,
    /// A worker for each lapsed lease, oldest first.
    pub expired_on: Vec<WorkerId>,
    /// What the task was found to need of a machine when it ran out of memory; bytes.
    pub outgrew: Option<u64>,
}

/// One run of one task on one worker.
#[derive(Debug, Clone, PartialEq)]
pub struct AttemptRow {
    pub id: AttemptId,
    pub task: TaskId,
    pub generation: Generation,
    pub worker: WorkerId,
    /// `None` for one that streams, or ended before it had a slot.
    pub slot: Option<SlotIndex>,
    pub state: AttemptState,
    pub opened_ms: i64,
    pub started_ms: Option<i64>,
    pub ended_ms: Option<i64>,
    pub failure: Option<Failure>,
    /// Seconds that rendering took.
    pub seconds: Option<f64>,
    /// Bytes.
    pub peak_memory: Option<u64>,
}

/// A task, as lists show it.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskRow {
    pub step: StepIndex,
    pub index: TaskIndex,
    pub generation: Generation,
    /// `Assigned` and `Running` come from its open attempt.
    pub state: TaskState,
    /// Attempts that failed since it was last reopened.
    pub failures: u32,
    /// Leases that lapsed since then.
    pub expired: u32,
    /// Why it failed, where it did.
    pub reason: Option<Failure>,
    /// The attempt that is open, or was the last to say something of this generation.
    pub attempt: Option<AttemptRow>,
}

/// A file of a task that is done.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputRow {
    /// Grows with every commit: read on with [`crate::Store::outputs`] after the highest one seen.
    pub seq: u64,
    pub task: TaskId,
    pub generation: Generation,
    pub attempt: AttemptId,
    pub frame: i32,
    pub file: OutputFile,
    pub committed_ms: i64,
    /// Whether it is of the newest generation that is done.
    pub current: bool,
}

/// A committed file, for the tasks that use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRow {
    /// Grows with every commit of the step.
    pub seq: u64,
    pub index: TaskIndex,
    pub generation: Generation,
    pub file: BundleFile,
}

/// What one worker did for a step of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerTotals {
    pub worker: WorkerId,
    /// Its last name; `None` only where records are older than that.
    pub name: Option<String>,
    /// Attempts committed.
    pub frames: u64,
    /// Attempts failed.
    pub errors: u64,
    /// Leases lapsed.
    pub expired: u64,
    /// Seconds of rendering, of committed attempts.
    pub seconds: f64,
    pub first_start_ms: Option<i64>,
    pub last_end_ms: Option<i64>,
}

/// A worker, known or gone.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerRow {
    pub id: WorkerId,
    pub name: String,
    /// What it said of itself last.
    pub info: Value,
    pub desired: DesiredState,
    pub quarantine: Option<Quarantine>,
    /// The pools that the farm put it in.
    pub pools: BTreeSet<ShortName>,
    pub first_seen_ms: i64,
    pub last_seen_ms: i64,
}

/// How a user or a project shares the farm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareRow {
    pub kind: AccountKind,
    pub name: String,
    pub weight: u32,
    /// Slots that it may hold at once; as many as there are where `None`.
    pub max_slots: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleRow {
    pub id: BundleId,
    pub owner: Owner,
    pub project: Project,
    /// Bytes of all files.
    pub size: u64,
    pub created_ms: i64,
}

/// An event of the farm's one sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredEvent {
    pub number: EventNumber,
    pub at_ms: i64,
    pub job: Option<JobId>,
    pub worker: Option<WorkerId>,
    pub kind: String,
    pub data: Value,
}

/// Which jobs a list shows; the default shows all.
#[derive(Debug, Clone, Default)]
pub struct JobSelection {
    pub owner: Option<Owner>,
    pub project: Option<Project>,
    /// Only archived jobs, or only others.
    pub archived: Option<bool>,
    /// None at all means every state.
    pub states: Vec<JobState>,
}

/// Which tasks of a job a list shows.
#[derive(Debug, Clone, Default)]
pub struct TaskFilter {
    pub step: StepIndex,
    pub state: Option<TaskState>,
    /// The page begins at this index.
    pub from: TaskIndex,
}

/// Which attempts of a job a list shows; the default shows all.
#[derive(Debug, Clone, Default)]
pub struct AttemptSelection {
    pub task: Option<(StepIndex, TaskIndex)>,
    pub worker: Option<WorkerId>,
    /// None at all means every state.
    pub states: Vec<AttemptState>,
    /// The page ends before this attempt.
    pub before: Option<AttemptId>,
}

/// The files of a step that a list shows.
#[derive(Debug, Clone, Copy)]
pub struct FileFilter {
    pub job: JobId,
    pub step: StepIndex,
    /// The step makes outputs; otherwise files of another kind.
    pub outputs: bool,
    /// The first and the last task of those whose files are listed; all if absent.
    pub tasks: Option<(TaskIndex, TaskIndex)>,
    /// The page begins after this sequence.
    pub after_seq: u64,
}
