//! Jobs, from the submission to the final report. All times are Unix milliseconds.

use std::{collections::BTreeSet, num::NonZeroU32};

use kiln_types::{
    AttemptId, AttemptState, BlenderSeries, BlobHash, BundleId, DeviceChoice, Failure, FrameSet, Generation,
    JobId, JobRequirements, JobScheduling, JobSpec, JobState, Name, Order, OutputSet, Owner, Policy,
    Priority, Project, RelPath, RenderSettings, Save, SlotIndex, StepIndex, StepKind, SuspiciousFrames,
    TaskCounts, TaskIndex, TaskName, TaskState, UploadId,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{JobRetention, UnmetRequirement, WaitReason};

/// The source of a job's files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobSource {
    /// A bundle that the server holds.
    Bundle {
        id: BundleId,
        /// The .blend inside it.
        blend: RelPath,
        /// The folder of the .blend on the artist's machine. A byte that is not Unicode is written as NUL and two
        /// hexadecimal digits.
        #[serde(default)]
        #[schema(max_length = 12288, pattern = r"^([^\u0000]|\u0000[89a-f][0-9a-f])*$")]
        origin: Option<String>,
        /// The name of the .blend there, if the bundle has it under another; written in the same way.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(max_length = 12288, pattern = r"^([^\u0000/]|\u0000[89a-f][0-9a-f])+$")]
        file_name: Option<String>,
    },
    /// A finished upload of one .blend.
    Upload { id: UploadId },
}

/// Submits a job. Only `source` is required; most defaults are the settings of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SubmitJob {
    pub source: JobSource,
    /// The file's name without `.blend` by default.
    #[serde(default)]
    pub name: Option<Name>,
    #[serde(default)]
    pub project: Option<Project>,
    /// The scene's own range by default.
    #[serde(default)]
    pub frames: Option<FrameSet>,
    #[serde(default)]
    pub order: Order,
    /// Seconds that a frame may take.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub frame_time_limit_s: Option<u32>,
    /// Seconds without a sign of progress after which a frame is taken to hang; 60 at least.
    #[serde(default)]
    #[schema(minimum = 60)]
    pub hang_s: Option<u32>,
    /// The owner, as the client states it: with one key for the farm, this is not proven.
    #[serde(default)]
    pub user: Option<Owner>,
    #[serde(default)]
    pub scheduling: JobScheduling,
    #[serde(default)]
    pub requirements: JobRequirements,
    /// The job starts paused, until it is resumed.
    #[serde(default)]
    pub held: bool,
    /// The job pauses after this number of frames of its order, until it is resumed.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub hold_after: Option<u32>,
    /// A frame whose picture is entirely black or transparent fails.
    #[serde(default)]
    pub refuse_black: bool,
    /// The series that wrote the file by default.
    #[serde(default)]
    pub blender: Option<BlenderSeries>,
    /// `auto` by default. A job for a GPU of any backend waits for a worker with one, and all its frames render on the
    /// backend of the first worker that takes one.
    #[serde(default)]
    pub device: Option<DeviceChoice>,
    #[serde(default)]
    pub settings: RenderSettings,
    #[serde(default)]
    pub policy: Policy,
    /// The artist's colour configuration (OCIO) inside the bundle.
    #[serde(default)]
    pub ocio: Option<RelPath>,
    /// Add-ons inside the bundle that are enabled for this job; needs the policy `trust`.
    #[serde(default)]
    pub addons: Vec<RelPath>,
    /// The save of the .blend that was submitted: kept with the job, for the client that fetches its frames.
    #[serde(default)]
    pub save: Option<Save>,
}

impl SubmitJob {
    /// A job with the file's own settings and the defaults of the farm.
    pub fn new(source: JobSource) -> Self {
        Self {
            source,
            name: None,
            project: None,
            frames: None,
            order: Order::default(),
            frame_time_limit_s: None,
            hang_s: None,
            user: None,
            scheduling: JobScheduling::default(),
            requirements: JobRequirements::default(),
            held: false,
            hold_after: None,
            refuse_black: false,
            blender: None,
            device: None,
            settings: RenderSettings::default(),
            policy: Policy::default(),
            ocio: None,
            addons: Vec::new(),
            save: None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StepView {
    pub index: StepIndex,
    pub kind: StepKind,
    /// The steps that it depends on.
    pub after: Vec<StepIndex>,
    pub tasks: TaskCounts,
    /// 0 to 1: tasks that are done, and the progress of those that run.
    pub progress: f64,
    /// The time from which its tasks run, or may run.
    pub started_ms: Option<i64>,
    /// The time at which the last task ended.
    pub ended_ms: Option<i64>,
}

impl StepView {
    /// Seconds from start to end, once the step has ended.
    pub fn seconds(&self) -> Option<f64> {
        let (started, ended) = (self.started_ms?, self.ended_ms?);
        Some((ended - started).max(0) as f64 / 1000.0)
    }
}

/// A worker that cannot take a job, and the parts of the requirement that it does not meet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UnmetView {
    pub worker: String,
    pub missing: Vec<UnmetRequirement>,
}

impl UnmetView {
    /// Workers that are listed for one step, which bounds the answer in a large farm.
    pub const MAX_LISTED: usize = 100;
}

/// The reasons for which a job waits, and the time that it will take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    pub state: JobState,
    /// Over all steps.
    pub counts: TaskCounts,
    /// Steps with tasks that wait and may run.
    pub steps: Vec<StepWait>,
    /// Connected workers that cannot take it; at most a hundred for each step.
    pub unmet: Vec<UnmetView>,
    pub left: Option<TimeLeft>,
}

/// The reasons for which tasks of one step wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StepWait {
    pub step: StepKind,
    /// The number of tasks that wait.
    pub tasks: u32,
    /// The most important first. Empty if the tasks are dispatched at once.
    pub reasons: Vec<WaitReason>,
}

/// The estimated time until a job is completed, from its frames so far and the state of the farm.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TimeLeft {
    /// With every worker that may take part, and quick frames.
    pub soonest_s: f64,
    /// With the slots that the job has.
    pub likely_s: f64,
    /// With the slots that the job has, and slow frames.
    pub latest_s: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobView {
    pub id: JobId,
    pub name: String,
    pub owner: Owner,
    pub project: Project,
    pub state: JobState,
    /// The fault for which the job was stopped, or the reason for which the scheduler paused it.
    pub reason: Option<Failure>,
    pub spec: JobSpec,
    pub created_ms: i64,
    pub started_ms: Option<i64>,
    pub ended_ms: Option<i64>,
    pub steps: Vec<StepView>,
    /// The tasks of the step that makes the frames.
    pub tasks: TaskCounts,
    /// Messages for the person: missing files that are allowed, remapped paths, a video rendered as frames.
    pub notices: Vec<String>,
    /// Workers that run tasks of the job.
    pub workers_busy: u32,
    /// The first reason for which no task runs; present if tasks wait and none is dispatched.
    pub waits_for: Option<WaitReason>,
    /// With `waits_for`: connected workers that cannot take it; at most a hundred for each step.
    pub unmet: Vec<UnmetView>,
    /// Mean render time of the finished frames, in seconds.
    pub mean_frame_s: Option<f64>,
    /// Estimated seconds left, with the slots that the job has.
    pub seconds_left: Option<f64>,
    /// The same as a range.
    #[serde(default)]
    pub left: Option<TimeLeft>,
    /// The retention of its inputs, outputs and logs.
    pub kept: JobRetention,
}

impl JobView {
    /// The step that bakes, if the job has one.
    pub fn bake(&self) -> Option<&StepView> {
        self.steps.iter().find(|step| step.kind == StepKind::Bake)
    }

    /// The same while the frames of the job wait for it.
    pub fn open_bake(&self) -> Option<&StepView> {
        self.bake().filter(|step| !self.state.is_end() && step.tasks.done < step.tasks.total)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobList {
    /// Newest first.
    pub jobs: Vec<JobView>,
    /// Pass it as `before` to get the next page.
    pub next: Option<JobId>,
}

/// Renders frames again that are done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RerenderJob {
    /// All frames by default.
    #[serde(default)]
    pub frames: Option<FrameSet>,
    /// Also bakes the simulations again, and therefore renders every frame again.
    #[serde(default)]
    pub bake: bool,
}

/// Changes the scheduling options of a job. Absent fields stay as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangeJob {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// Workers that may run the job at once; `null` for any number.
    #[serde(
        default,
        deserialize_with = "crate::deserialize_nullable",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<u32>, minimum = 1)]
    pub max_workers: Option<Option<NonZeroU32>>,
    /// Jobs that must be completed before this one starts; replaces the earlier ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<JobId>>, max_items = 64)]
    pub after: Option<BTreeSet<JobId>>,
    /// The earliest start, in Unix milliseconds; `null` for now.
    #[serde(
        default,
        deserialize_with = "crate::deserialize_nullable",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<i64>)]
    pub not_before_ms: Option<Option<i64>>,
}

/// A job of which a request reopened tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ReopenedJob {
    #[serde(flatten)]
    pub job: JobView,
    /// Tasks that run again because their files are needed and were removed.
    pub again: u32,
}

/// Adds frames to a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExtendJob {
    pub frames: FrameSet,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskView {
    pub step: StepIndex,
    pub index: TaskIndex,
    #[serde(flatten)]
    pub name: TaskName,
    pub state: TaskState,
    pub generation: Generation,
    /// Failed attempts of this generation.
    pub failures: u32,
    /// The reason of a failure.
    pub reason: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TasksPage {
    pub tasks: Vec<TaskView>,
    pub next: Option<TaskIndex>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AttemptView {
    pub id: AttemptId,
    pub step: StepIndex,
    pub index: TaskIndex,
    #[serde(flatten)]
    pub name: TaskName,
    pub generation: Generation,
    pub worker: String,
    /// Absent while it streams: it then has a worker and no slot.
    pub slot: Option<SlotIndex>,
    pub state: AttemptState,
    pub opened_ms: i64,
    pub started_ms: Option<i64>,
    pub ended_ms: Option<i64>,
    /// Seconds of rendering alone, by the host's clock.
    pub seconds: Option<f64>,
    /// Bytes.
    pub peak_memory: Option<u64>,
    pub failure: Option<Failure>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AttemptsPage {
    pub attempts: Vec<AttemptView>,
    pub next: Option<AttemptId>,
}

/// The committed files of one task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutputView {
    /// Grows with each commit; pass it as `after` to list later outputs.
    pub sequence: u64,
    pub step: StepIndex,
    pub index: TaskIndex,
    pub frame: i32,
    pub generation: Generation,
    pub files: OutputSet,
    /// The time at which the bytes were removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_ms: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutputsPage {
    pub outputs: Vec<OutputView>,
    /// There are more: pass the last sequence as `after`.
    pub more: bool,
}

/// A committed file of a step, for the tasks that use it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StepFile {
    /// Grows with each commit of the step.
    pub sequence: u64,
    pub index: TaskIndex,
    /// Absent in a step that is not about single frames.
    pub frame: Option<i32>,
    /// The part of its frame, from 0 on; absent in a step that has no parts.
    pub part: Option<u16>,
    pub generation: Generation,
    pub path: RelPath,
    pub hash: BlobHash,
    /// Bytes.
    pub size: u64,
}

/// Committed files of a step, the oldest commit first. Files of a task are committed together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StepFilesPage {
    pub files: Vec<StepFile>,
    /// There are more: pass the last sequence as `after`.
    pub more: bool,
}

/// The part of a worker in a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WorkerShare {
    pub worker: String,
    /// Frames that it delivered first.
    pub frames: u32,
    /// Failed and expired attempts.
    pub errors: u32,
    /// Seconds of rendering, all its slots together.
    pub seconds: f64,
    /// The part of all frames, 0 to 1.
    pub share: f64,
}

/// The final report, of the frames; the times of a bake are those of its step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobReport {
    pub workers: Vec<WorkerShare>,
    /// Seconds from the first start to the last commit.
    pub wall_s: f64,
    /// Seconds of rendering over all workers.
    pub render_s: f64,
    /// The speedup over the job's fastest worker alone, with all its slots at the speed that it had here.
    pub gain: f64,
    #[serde(default)]
    pub suspicious: SuspiciousFrames,
}
