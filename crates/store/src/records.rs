//! The records that readers return. Times are Unix milliseconds.

use std::collections::BTreeSet;

use kiln_types::{
    AccountKind, AttemptId, AttemptState, BundleFile, BundleId, DesiredState, EventNumber, Failure,
    Generation, JobId, JobSpec, JobState, JobSteps, OutputFile, Owner, Project, Quarantine, ShortName,
    SlotIndex, StepIndex, TaskId, TaskIndex, TaskName, TaskState, WorkerId,
};
use serde_json::Value;

/// A job, for lists and pages.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRow {
    pub id: JobId,
    pub spec: JobSpec,
    pub state: JobState,
    pub created_ms: i64,
    pub started_ms: Option<i64>,
    pub ended_ms: Option<i64>,
    /// The fault for which the job was stopped, or the reason for which the scheduler paused it.
    pub reason: Option<Failure>,
    pub plan: JobSteps,
    /// The progress of each step of the plan.
    pub steps: Vec<StepRow>,
    pub notices: Vec<Notice>,
    pub kept: RetentionRow,
}

impl JobRow {
    pub fn name_of(&self, step: StepIndex, task: TaskIndex) -> TaskName {
        self.plan.name_of(&self.spec.frames, step, task).unwrap_or(TaskName::UNKNOWN)
    }
}

/// The retention of a job: its fetched and expired files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetentionRow {
    pub archived_ms: Option<i64>,
    /// The highest sequence of its outputs; 0 without any.
    pub last_seq: u64,
    /// Outputs up to this one have been fetched.
    pub fetched_seq: u64,
    /// The time at which the last of those was reported.
    pub fetched_ms: Option<i64>,
    /// The time at which the inputs expired: the job cannot render again.
    pub inputs_gone_ms: Option<i64>,
    /// Outputs up to this one expired at [`RetentionRow::outputs_gone_ms`].
    pub outputs_gone_seq: u64,
    pub outputs_gone_ms: Option<i64>,
    /// The logs of attempts that had ended by then expired.
    pub logs_gone_ms: Option<i64>,
}

/// A step and its progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepRow {
    pub step: StepIndex,
    /// All its tasks.
    pub count: u32,
    pub done: u32,
    pub failed: u32,
    /// The bundle that it made.
    pub bundle: Option<BundleId>,
    /// The time at which the last task ended.
    pub ended_ms: Option<i64>,
}

/// A message about a job that stays visible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    pub text: String,
    /// The first attempt that reported it.
    pub attempt: Option<AttemptId>,
    pub at_ms: i64,
}

/// A job for the scheduler.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredJob {
    pub row: JobRow,
    /// In the order of the steps.
    pub steps: Vec<StoredStep>,
    /// Attempts that may still deliver, oldest first: the open ones, and those that expired since their task was last
    /// reopened, of tasks that wait in the generation of the attempt.
    pub open: Vec<AttemptRow>,
}

/// The tasks of a step that are not simply waiting in generation 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredStep {
    pub step: StepIndex,
    /// In the order of the indexes; neighbours of the same state and generation are one run.
    pub runs: Vec<TaskRun>,
    /// The spans of the last [`crate::Write::SetCancelledTasks`].
    pub cancelled: Vec<(TaskIndex, TaskIndex)>,
    /// The failure history of open tasks, in the order of the indexes.
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

/// The failure history of a task since it was last reopened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskFaults {
    pub index: TaskIndex,
    /// A worker for each failed attempt, oldest first.
    pub failed_on: Vec<WorkerId>,
    /// A worker for each expired attempt, oldest first.
    pub expired_on: Vec<WorkerId>,
    /// The memory of a machine that the task needs, in bytes, as it ran out of less.
    pub outgrew: Option<u64>,
}

/// An attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct AttemptRow {
    pub id: AttemptId,
    pub task: TaskId,
    pub generation: Generation,
    pub worker: WorkerId,
    /// `None` for an attempt that streams, or that ended without a slot.
    pub slot: Option<SlotIndex>,
    pub state: AttemptState,
    pub opened_ms: i64,
    pub started_ms: Option<i64>,
    pub ended_ms: Option<i64>,
    pub failure: Option<Failure>,
    /// Seconds of rendering.
    pub seconds: Option<f64>,
    /// Bytes.
    pub peak_memory: Option<u64>,
}

/// A task, for lists.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskRow {
    pub step: StepIndex,
    pub index: TaskIndex,
    pub generation: Generation,
    /// `Assigned` and `Running` are those of its open attempt.
    pub state: TaskState,
    /// Failed attempts since the task was last reopened.
    pub failures: u32,
    /// Expired attempts since then.
    pub expired: u32,
    /// The reason of a failure.
    pub reason: Option<Failure>,
    /// The attempt that decides the state of this generation: committed, open, or the last one.
    pub attempt: Option<AttemptRow>,
}

/// A file of a task that is done.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputRow {
    /// Grows with every commit, see [`crate::Store::outputs`].
    pub seq: u64,
    pub task: TaskId,
    pub generation: Generation,
    pub attempt: AttemptId,
    pub frame: i32,
    pub file: OutputFile,
    pub committed_ms: i64,
    /// The file is of the newest generation that is done.
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

/// The part of a worker in a step of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerTotals {
    pub worker: WorkerId,
    /// The last name; `None` for a worker that was removed before names were recorded.
    pub name: Option<String>,
    /// Committed attempts.
    pub frames: u64,
    /// Failed attempts.
    pub errors: u64,
    /// Expired attempts.
    pub expired: u64,
    /// Seconds of rendering of committed attempts.
    pub seconds: f64,
    pub first_start_ms: Option<i64>,
    pub last_end_ms: Option<i64>,
}

/// A worker that was not removed.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerRow {
    pub id: WorkerId,
    pub name: String,
    /// The worker's last description of itself.
    pub info: Value,
    pub desired: DesiredState,
    pub quarantine: Option<Quarantine>,
    pub pools: BTreeSet<ShortName>,
    pub first_seen_ms: i64,
    pub last_seen_ms: i64,
}

/// The share of a user or a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareRow {
    pub kind: AccountKind,
    pub name: String,
    pub weight: u32,
    /// Slots that it may hold at once; `None` for any number.
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

/// The jobs of a list; all by default.
#[derive(Debug, Clone, Default)]
pub struct JobSelection {
    pub owner: Option<Owner>,
    pub project: Option<Project>,
    /// Only archived jobs, or only those that are not.
    pub archived: Option<bool>,
    /// Empty for every state.
    pub states: Vec<JobState>,
}

/// The tasks of a list.
#[derive(Debug, Clone, Default)]
pub struct TaskFilter {
    pub step: StepIndex,
    pub state: Option<TaskState>,
    /// The page begins at this index.
    pub from: TaskIndex,
}

/// The attempts of a list; all of the job by default.
#[derive(Debug, Clone, Default)]
pub struct AttemptSelection {
    pub task: Option<(StepIndex, TaskIndex)>,
    pub worker: Option<WorkerId>,
    /// Empty for every state.
    pub states: Vec<AttemptState>,
    /// The page ends before this attempt.
    pub before: Option<AttemptId>,
}

/// The files of a list.
#[derive(Debug, Clone, Copy)]
pub struct FileFilter {
    pub job: JobId,
    pub step: StepIndex,
    /// The step makes outputs, not other files.
    pub outputs: bool,
    /// The first and the last of the tasks whose files are listed; all if absent.
    pub tasks: Option<(TaskIndex, TaskIndex)>,
    /// The page begins after this sequence.
    pub after_seq: u64,
}
