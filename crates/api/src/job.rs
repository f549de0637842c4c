//! Jobs, from the request to the closing table. All times are Unix milliseconds.

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

/// Where a job's files come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobSource {
    /// A bundle that the server holds.
    Bundle {
        id: BundleId,
        /// The .blend inside it.
        blend: RelPath,
        /// The folder of the .blend on the artist's machine. A byte that is no Unicode is NUL and two hexadecimal
        /// digits.
        #[serde(default)]
        #[schema(max_length = 12288, pattern = r"^([^\u0000]|\u0000[89a-f][0-9a-f])*$")]
        origin: Option<String>,
        /// The name of the .blend there, where the bundle has it under another; written in the same way.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(max_length = 12288, pattern = r"^([^\u0000/]|\u0000[89a-f][0-9a-f])+$")]
        file_name: Option<String>,
    },
    /// A finished upload of one .blend.
    Upload { id: UploadId },
}

/// Makes a job. Only `source` is needed: all else has defaults, most of them the file's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SubmitJob {
    pub source: JobSource,
    /// The file's name without `.blend`, where absent.
    #[serde(default)]
    pub name: Option<Name>,
    #[serde(default)]
    pub project: Option<Project>,
    /// The scene's own range, where absent.
    #[serde(default)]
    pub frames: Option<FrameSet>,
    #[serde(default)]
    pub order: Order,
    /// Seconds a frame may take.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub frame_time_limit_s: Option<u32>,
    /// Seconds after which a frame whose Blender does nothing and says nothing is taken to hang; 60 at least.
    #[serde(default)]
    #[schema(minimum = 60)]
    pub hang_s: Option<u32>,
    /// Whose it is, as who submits says: with one key for the farm this is a claim, not a proof.
    #[serde(default)]
    pub user: Option<Owner>,
    #[serde(default)]
    pub scheduling: JobScheduling,
    #[serde(default)]
    pub requirements: JobRequirements,
    /// It is paused from the start, until it is resumed.
    #[serde(default)]
    pub held: bool,
    /// It is paused after this number of frames of its order, until it is resumed.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub hold_after: Option<u32>,
    /// A frame whose picture is entirely black or transparent fails.
    #[serde(default)]
    pub refuse_black: bool,
    /// The series that wrote the file, where absent.
    #[serde(default)]
    pub blender: Option<BlenderSeries>,
    /// `auto`, where absent. On a GPU of any backend it waits for a worker with one, and all of it renders on the backend of
    /// the first worker that takes it.
    #[serde(default)]
    pub device: Option<DeviceChoice>,
    #[serde(default)]
    pub settings: RenderSettings,
    #[serde(default)]
    pub policy: Policy,
    /// The artist's colour configuration (OCIO) inside the bundle.
    #[serde(default)]
    pub ocio: Option<RelPath>,
    /// Add-ons inside the bundle, to be switched on for this job; needs the policy `trust`.
    #[serde(default)]
    pub addons: Vec<RelPath>,
    /// Which save of which .blend this is: kept with the job, for whoever fetches its frames.
    #[serde(default)]
    pub save: Option<Save>,
}

impl SubmitJob {
    /// With the file's own settings, and the defaults of the farm.
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
    /// Steps that are done before this one starts.
    pub after: Vec<StepIndex>,
    pub tasks: TaskCounts,
    /// 0 to 1: its tasks that are done, and what Blender says of those that run.
    pub progress: f64,
    /// Since when its tasks run, or may.
    pub started_ms: Option<i64>,
    /// Where every task has ended.
    pub ended_ms: Option<i64>,
}

impl StepView {
    /// Seconds from its start to its end, once it has ended.
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
    /// Workers that are named for one step, so that a page of a large farm stays a page.
    pub const MAX_LISTED: usize = 100;
}

/// The reasons for which a job waits, and the time that it will take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    pub state: JobState,
    /// Over all steps.
    pub counts: TaskCounts,
    /// One entry for each step with tasks that wait and may run.
    pub steps: Vec<StepWait>,
    /// Connected workers that cannot take it, and what each lacks; a hundred at most of each step.
    pub unmet: Vec<UnmetView>,
    pub left: Option<TimeLeft>,
}

/// The reasons for which tasks of one step wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StepWait {
    pub step: StepKind,
    /// The number of tasks that wait.
    pub tasks: u32,
    /// The most telling first. Empty where the tasks are dispatched at once.
    pub reasons: Vec<WaitReason>,
}

/// Seconds until a job is through, from its frames so far and the farm as it is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TimeLeft {
    /// If every worker that may takes part, and frames are among the quicker ones.
    pub soonest_s: f64,
    /// With the slots that it has.
    pub likely_s: f64,
    /// With the slots that it has, and frames among the slower ones.
    pub latest_s: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobView {
    pub id: JobId,
    pub name: String,
    pub owner: Owner,
    pub project: Project,
    pub state: JobState,
    /// Why it failed, where it was stopped by a fault of its own, or why the scheduler paused it.
    pub reason: Option<Failure>,
    pub spec: JobSpec,
    pub created_ms: i64,
    pub started_ms: Option<i64>,
    pub ended_ms: Option<i64>,
    pub steps: Vec<StepView>,
    /// Its frames: the tasks of the step that renders.
    pub tasks: TaskCounts,
    /// What the person should know: files missing and allowed, paths mapped, a film rendered as frames.
    pub notices: Vec<String>,
    /// Workers that render it now.
    pub workers_busy: u32,
    /// The first reason for which nothing of it runs, where tasks wait and none is dispatched.
    pub waits_for: Option<WaitReason>,
    /// With `waits_for`: connected workers and what each lacks; a hundred at most of each step.
    pub unmet: Vec<UnmetView>,
    /// Mean render time of its finished frames, in seconds.
    pub mean_frame_s: Option<f64>,
    /// Estimated seconds left, from the frames so far and the slots at work.
    pub seconds_left: Option<f64>,
    /// The same as a range.
    #[serde(default)]
    pub left: Option<TimeLeft>,
    /// What of it is there, and until when.
    pub kept: JobRetention,
}

impl JobView {
    /// The step that bakes, if the job has one.
    pub fn bake(&self) -> Option<&StepView> {
        self.steps.iter().find(|step| step.kind == StepKind::Bake)
    }

    /// The same as long as the frames of the job wait for it.
    pub fn open_bake(&self) -> Option<&StepView> {
        self.bake().filter(|step| !self.state.is_end() && step.tasks.done < step.tasks.total)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobList {
    /// Newest first.
    pub jobs: Vec<JobView>,
    /// Ask for `before` this to go on.
    pub next: Option<JobId>,
}

/// Renders frames again that are done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RerenderJob {
    /// All, where absent.
    #[serde(default)]
    pub frames: Option<FrameSet>,
    /// Bakes the simulations again too, and therefore renders every frame again.
    #[serde(default)]
    pub bake: bool,
}

/// Lets a job stand otherwise among the others. What is absent stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangeJob {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// Workers that it may be on at once; `null` for as many as there are.
    #[serde(default, deserialize_with = "crate::told", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, minimum = 1)]
    pub max_workers: Option<Option<NonZeroU32>>,
    /// Jobs that must be completed before it starts: these, and no others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<JobId>>, max_items = 64)]
    pub after: Option<BTreeSet<JobId>>,
    /// It does not start earlier, in Unix milliseconds; `null` for now.
    #[serde(default, deserialize_with = "crate::told", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub not_before_ms: Option<Option<i64>>,
}

/// A job after a request that lets tasks run again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ReopenedJob {
    #[serde(flatten)]
    pub job: JobView,
    /// Tasks that run again only because their files are needed and were removed.
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
    /// Why it failed, once it has.
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
    /// Absent as long as it streams: it is on its worker then, and on no slot.
    pub slot: Option<SlotIndex>,
    pub state: AttemptState,
    pub opened_ms: i64,
    pub started_ms: Option<i64>,
    pub ended_ms: Option<i64>,
    /// Seconds the render itself took, by the host's clock.
    pub seconds: Option<f64>,
    /// Bytes, at its peak.
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
    /// Grows with each commit; ask for outputs `after` it.
    pub sequence: u64,
    pub step: StepIndex,
    pub index: TaskIndex,
    pub frame: i32,
    pub generation: Generation,
    pub files: OutputSet,
    /// Since when the bytes are there no more, where they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_ms: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutputsPage {
    pub outputs: Vec<OutputView>,
    /// There is more: ask again after the last sequence.
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
    /// There is more: ask again `after` the last sequence.
    pub more: bool,
}

/// What a worker did for a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WorkerShare {
    pub worker: String,
    /// Frames it delivered first.
    pub frames: u32,
    /// Its failed and lapsed attempts.
    pub errors: u32,
    /// Seconds of rendering, all its slots together.
    pub seconds: f64,
    /// Of all frames, 0 to 1.
    pub share: f64,
}

/// The closing table, of the frames; what a bake took is told with the job's steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobReport {
    pub workers: Vec<WorkerShare>,
    /// Seconds from the first start to the last commit.
    pub wall_s: f64,
    /// Seconds of rendering over all workers.
    pub render_s: f64,
    /// How many times faster than the job's best worker alone, with all its slots and at the pace it had here.
    pub gain: f64,
    /// Frames that are delivered and that somebody should look at.
    #[serde(default)]
    pub suspicious: SuspiciousFrames,
}
