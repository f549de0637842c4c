//! The events of a submission. Each is a line of JSON with `--json`; docs/events.md lists them, and a test compares its examples
//! with these types.

use std::{path::PathBuf, sync::Arc};

use kiln_api::{JobReport, JobView, TaskView, WaitReason};
use kiln_types::{
    BlenderSeries, DeviceClass, FailureCause, FrameSet, JobId, JobState, RelPath, Suspicion,
    SuspiciousFrames, TaskName, paths,
};
use serde::Serialize;

use crate::{Existing, FetchResult};

/// One step of a submission on its way from a .blend to frames on the disk.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum SubmissionEvent {
    /// The .blend is read, and the files that it needs are looked for.
    Reading {
        #[serde(serialize_with = "paths::shown")]
        file: PathBuf,
    },
    /// Files that the scene needs are missing, which ends the submission if they are required.
    Missing {
        files: Vec<MissingFile>,
    },
    /// The files are read and hashed.
    Hashing {
        files_done: usize,
        files: usize,
        bytes_done: u64,
        bytes: u64,
    },
    /// A sentence that a person should read, about the files or about the job.
    Notice {
        text: String,
    },
    /// The device of the job, if it differs from the requested one.
    Device {
        device: DeviceClass,
        #[serde(flatten)]
        reason: DeviceReason,
    },
    /// Frames of an earlier job of the same scene and settings were fetched.
    EarlierFetched {
        job: JobId,
        frames: u32,
    },
    /// A job of an earlier save, or of other settings, still renders into the output folder.
    OtherJob(OtherJob),
    /// The user cancelled such a job.
    OtherJobCancelled {
        job: JobId,
    },
    /// The scene that is about to render.
    Inputs(Box<RenderInputs>),
    /// The frames that are left to render, and the files in the output folder.
    Planned(Box<RenderPlan>),
    /// An open job renders some of these frames already.
    AlreadyRendering {
        job: JobId,
        created_ms: i64,
        state: JobState,
        /// Frames of the submission that it renders.
        frames: u32,
        /// The job of the other frames.
        others: OtherFrames,
        other_frames: u32,
    },
    /// Simulations are not baked. A bake comes first, or they render without motion.
    Unbaked {
        simulations: Vec<String>,
        bakes: bool,
    },
    /// The files are uploaded.
    Uploading {
        bytes_done: u64,
        bytes: u64,
        /// Bytes that the server has.
        bytes_there: u64,
    },
    /// The server has the job.
    Submitted(Box<SubmissionReceipt>),
    /// The output folder could not be saved on this machine, so that a later `kiln jobs fetch` does not know it.
    NotRemembered {
        #[serde(serialize_with = "paths::shown")]
        data: PathBuf,
        reason: String,
    },
    /// The progress of the job, whenever it has changed.
    Progress(Box<JobProgress>),
    /// The simulations are baked.
    Baked {
        seconds: f64,
    },
    /// The job could render on any GPU, and is pinned to this backend now.
    DevicePinned {
        device: DeviceClass,
    },
    /// An attempt at a task failed. It is tried again, unless the cause stops the job.
    AttemptFailed {
        #[serde(flatten)]
        task: TaskName,
        worker: Option<String>,
        cause: FailureCause,
        message: String,
    },
    /// A worker has delivered a frame.
    FrameFinished {
        frame: i32,
        seconds: f64,
        worker: Option<String>,
        suspicious: Vec<Suspicion>,
    },
    /// The files of a frame are in the output folder, or cannot be fetched.
    FrameFetched {
        frame: i32,
        files: Vec<RelPath>,
        /// Bytes over the network.
        bytes: u64,
        result: FetchResult,
        /// Files in the way that were left as they are.
        left: Vec<RelPath>,
        suspicious: Vec<Suspicion>,
    },
    /// The server does not answer. Requests are repeated until it does.
    ServerLost {
        reason: String,
    },
    ServerBack,
    /// The job has ended, and its report cannot be read.
    NoReport {
        reason: String,
    },
    /// The end of a submission that followed its job, or found nothing to render.
    Finished(Box<SubmissionResult>),
    /// The end of `kiln jobs fetch`.
    Fetched(Box<FetchTotals>),
    /// The server has the jobs of all variants.
    VariantsSubmitted {
        variants: Vec<VariantJob>,
    },
    /// The end of a submission of several variants.
    VariantsFinished(VariantsResult),
}

/// An event with the name of its variant. Without variants, and about all of them, there is no name.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VariantEvent {
    #[serde(flatten)]
    pub event: SubmissionEvent,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<Arc<str>>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VariantJob {
    pub variant: Arc<str>,
    /// `None` if nothing was left to render.
    pub job: Option<JobId>,
}

/// The results of all variants.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VariantsResult {
    /// The worst outcome.
    pub outcome: JobOutcome,
    pub variants: Vec<VariantSummary>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VariantSummary {
    pub variant: Arc<str>,
    pub outcome: JobOutcome,
    /// `None` if nothing was left to render.
    pub job: Option<JobId>,
    #[serde(serialize_with = "paths::shown_if_any")]
    pub out: Option<PathBuf>,
    /// Frames that were fetched, and those that were there before.
    pub frames: u32,
    /// The number of tasks that failed.
    pub failed: usize,
    /// The reason why its end is not known, or why its frames were not fetched.
    pub error: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MissingFile {
    /// The .blend that names it.
    #[serde(serialize_with = "paths::shown")]
    pub named_by: PathBuf,
    /// The file and where it was looked for, in words.
    pub file: String,
}

/// The reason why a job does not render on the requested device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum DeviceReason {
    /// The device made the frames that are there.
    MadeEarlierFrames {
        /// The requested device.
        asked: DeviceClass,
    },
    /// The scene is set to GPU: the first worker with one decides on the backend.
    FirstWorkerDecides,
    /// The device is the best backend of this machine.
    BestHere {
        cards: Vec<String>,
        /// The scene requests a GPU, and not the user.
        is_set_by_scene: bool,
    },
    /// The scene is set to GPU, and Blender finds none on this machine.
    NoGpuHere { blender: String },
}

/// A job of the same .blend and output folder that renders something else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OtherJob {
    pub job: JobId,
    pub created_ms: i64,
    pub differs_in: JobDifference,
    pub blend: String,
    #[serde(serialize_with = "paths::shown")]
    pub out: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobDifference {
    /// The scene is the same.
    Settings,
    /// The job is of an earlier save of the .blend.
    Save,
}

/// The scene that is about to render, with the overrides of the user.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RenderInputs {
    /// The name of the .blend, without its ending.
    pub blend: String,
    pub scene: String,
    pub frames: FrameSet,
    /// Pixels at 100 percent.
    pub width: u32,
    pub height: u32,
    pub percent: u32,
    pub camera: Option<String>,
    /// Markers of the timeline switch to other cameras.
    pub has_camera_markers: bool,
    pub engine: String,
    pub samples: Option<u32>,
    pub blender: BlenderSeries,
    pub files: usize,
    pub bytes: u64,
}

/// The frames of a submission that are left to render.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RenderPlan {
    #[serde(serialize_with = "paths::shown")]
    pub out: PathBuf,
    pub existing: Existing,
    /// `None` if every frame is there.
    pub frames: Option<FrameSet>,
    /// Frames that were made from this scene with these settings.
    pub kept: u32,
    /// Frames that are skipped because their files are there.
    pub skipped: u32,
    /// Frames to render that replace those of an earlier save or of other settings.
    pub replaced: u32,
    /// Frames of an earlier save that are not among these; they stay.
    pub older: u32,
    /// The number of skipped files that Kiln did not write and that are empty or cut off; and the first of them.
    pub broken: usize,
    pub first_broken: Vec<RelPath>,
}

/// The job of frames that a running job does not render.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OtherFrames {
    /// There are none.
    None,
    /// The running job: they are added to it.
    Added,
    /// A job of their own.
    Submitted,
}

/// A job that the server has, and the counts of frames that were there before.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SubmissionReceipt {
    pub job: JobView,
    /// The job is new; otherwise one that renders the same continues.
    pub new: bool,
    pub kept: u32,
    pub replaced: u32,
    pub older: u32,
    pub notices: Vec<String>,
}

/// The progress of a job.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct JobProgress {
    /// `None` before the first view of the job.
    pub state: Option<JobState>,
    /// Frames.
    pub done: u32,
    pub failed: u32,
    pub total: u32,
    pub workers_busy: u32,
    pub seconds_left: Option<f64>,
    pub mean_frame_s: Option<f64>,
    /// The reason why nothing of it runs. A paused job has one only if it is held after its first frames.
    pub waits_for: Option<WaitReason>,
    /// The bake before the first frame, until it is done.
    pub baking: Option<Baking>,
    /// The frames that render, if the caller wants to know.
    pub running: Option<RunningFrames>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Baking {
    pub simulations: Vec<String>,
    /// From 0 to 1.
    pub fraction: f32,
}

/// The frames that render now.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunningFrames {
    /// The sum of their progress: 1 is a whole frame.
    pub fractions: f64,
    /// The first one that began.
    pub first: Option<RunningFrame>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunningFrame {
    pub frame: i32,
    /// From 0 to 1.
    pub fraction: f32,
    pub is_estimated: bool,
}

/// The outcome of a submission, which decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobOutcome {
    /// All frames are in their places.
    Done,
    /// The job continues without this caller.
    Detached,
    /// The first frames are in their places, and the others were not rendered.
    Held,
    Cancelled,
    Failed,
}

impl JobOutcome {
    /// Returns the word on the wire and in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Detached => "detached",
            Self::Held => "held",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }
}

/// The reason why a job is no longer followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FollowEnd {
    /// The job has ended.
    Ended,
    /// The job continues without this caller.
    Detached,
    /// The job, which lives inside this caller, was stopped.
    Stopped,
    /// The job, which lives inside this caller, is held after its first frames, and nobody can resume it.
    Held,
}

/// The result of a submission.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SubmissionResult {
    pub outcome: JobOutcome,
    pub end: FollowEnd,
    /// `None` if nothing was left to render.
    pub job: Option<JobView>,
    #[serde(serialize_with = "paths::shown_if_any")]
    pub out: Option<PathBuf>,
    /// Frames whose files were fetched, or were found here.
    pub landed: u32,
    /// Frames that were there before the job.
    pub kept: u32,
    pub skipped: u32,
    pub replaced: u32,
    pub older: u32,
    /// Files that were not replaced.
    pub left: Vec<RelPath>,
    /// The reason why frames were not fetched.
    pub fetch_error: Option<String>,
    pub failed: Vec<TaskView>,
    /// Blender's last lines of the failure that stopped the job, or else of the first frame that failed.
    pub log_tail: Vec<String>,
    pub report: Option<JobReport>,
    pub suspicious: SuspiciousFrames,
    pub notices: Vec<String>,
}

/// The result of a fetch.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FetchTotals {
    pub job: JobId,
    pub state: JobState,
    #[serde(serialize_with = "paths::shown")]
    pub out: PathBuf,
    /// Frames that were fetched.
    pub fetched: u32,
    /// Frames that were there.
    pub there: u32,
    /// Fetched frames that replaced earlier ones.
    pub replaced: u32,
    /// Files that were not replaced.
    pub left: Vec<RelPath>,
    /// Frames that the server no longer has.
    pub gone: Vec<i32>,
    pub suspicious: SuspiciousFrames,
}

impl FetchTotals {
    /// Returns whether everything that the job has made is here.
    pub fn is_whole(&self) -> bool {
        self.left.is_empty() && self.gone.is_empty()
    }
}

#[cfg(test)]
mod tests;
