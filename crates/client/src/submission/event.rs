//! The reports of a submission. Each event is a line of JSON with `--json`; docs/events.md lists them, and a test
//! holds its examples against these types.

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
    /// Files that the scene needs are not there. Where they are required, that ends the submission.
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
    /// A sentence that a person should read: of the files, or of the job while it renders.
    Notice {
        text: String,
    },
    /// The device of the job, where it is another than was asked for.
    Device {
        device: DeviceClass,
        #[serde(flatten)]
        reason: DeviceReason,
    },
    /// Frames that an earlier job of the same scene and settings had made were still at the farm, and are here now.
    EarlierFetched {
        job: JobId,
        frames: u32,
    },
    /// A job of an earlier save, or of other settings, still renders into the output folder.
    OtherJob(OtherJob),
    /// Such a job was cancelled, because the user said so.
    OtherJobCancelled {
        job: JobId,
    },
    /// The scene that is about to render.
    Inputs(Box<RenderInputs>),
    /// The frames that are left to render, and the files in the output folder.
    Planned(Box<RenderPlan>),
    /// A job that is not finished renders frames of these already.
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
    /// Simulations that nobody has baked: baked before the first frame, or rendered without moving.
    Unbaked {
        simulations: Vec<String>,
        bakes: bool,
    },
    /// Files go to the server.
    Uploading {
        bytes_done: u64,
        bytes: u64,
        /// Need not be sent: the server has them.
        bytes_there: u64,
    },
    /// The server has the job.
    Submitted(Box<SubmissionReceipt>),
    /// The output folder could not be noted on this machine: a later `kiln jobs fetch` does not know it.
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
    /// The job could render on any GPU, and now renders on this backend.
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
    /// The files of a frame are in the output folder, or will not come there.
    FrameFetched {
        frame: i32,
        files: Vec<RelPath>,
        /// Over the network.
        bytes: u64,
        result: FetchResult,
        /// Files that are there, are not the job's, and were left as they are.
        left: Vec<RelPath>,
        suspicious: Vec<Suspicion>,
    },
    /// The server does not answer. It is tried again until it does.
    ServerLost {
        reason: String,
    },
    ServerBack,
    /// The job has ended, and its report cannot be read.
    NoReport {
        reason: String,
    },
    /// The end of a submission that stayed with its job, or found nothing left to render.
    Finished(Box<SubmissionResult>),
    /// The end of a fetch of what a job has made so far.
    Fetched(Box<FetchTotals>),
    /// The jobs of all variants are at the server.
    VariantsSubmitted {
        variants: Vec<VariantJob>,
    },
    /// The end of a submission of several variants.
    VariantsFinished(VariantsResult),
}

/// An event, with the name of the variant that it is about; of a submission without variants, or of all, without one.
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
    /// `None` where nothing was left to render.
    pub job: Option<JobId>,
}

/// The results of all variants.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VariantsResult {
    /// The worst of them.
    pub outcome: JobOutcome,
    pub variants: Vec<VariantSummary>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VariantSummary {
    pub variant: Arc<str>,
    pub outcome: JobOutcome,
    /// `None` where nothing was left to render.
    pub job: Option<JobId>,
    #[serde(serialize_with = "paths::shown_if_any")]
    pub out: Option<PathBuf>,
    /// Frames that came, and those that were there before.
    pub frames: u32,
    /// Tasks that failed.
    pub failed: usize,
    /// The reason why its end is not known, or its frames did not come.
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

/// The reason why a job renders on another device than was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum DeviceReason {
    /// Frames that are there were made by it.
    MadeEarlierFrames {
        /// What the scene, or the user, says.
        asked: DeviceClass,
    },
    /// The scene is set to GPU: the first worker with one decides on the backend.
    FirstWorkerDecides,
    /// The device is the best backend of this machine.
    BestHere {
        cards: Vec<String>,
        /// The scene asks for a GPU, not the user.
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

/// A scene as it is about to render: what was asked for goes over what the file says.
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
    /// `None` where every frame is there.
    pub frames: Option<FrameSet>,
    /// Frames that this scene and these settings already made.
    pub kept: u32,
    /// Frames left out because files of their names are there.
    pub skipped: u32,
    /// Frames to render in whose place those of an earlier save, or of other settings, lie.
    pub replaced: u32,
    /// Frames of an earlier save that were not asked for, and stay.
    pub older: u32,
    /// Files of skipped frames that Kiln did not write, and that are empty or cut off: how many, and the first of them.
    pub broken: usize,
    pub first_broken: Vec<RelPath>,
}

/// The job of frames that a running job does not render.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OtherFrames {
    /// There are none.
    None,
    /// The running job, to which they are added.
    Added,
    /// A job of their own.
    Submitted,
}

/// A job that the server has, and what was there before it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SubmissionReceipt {
    pub job: JobView,
    /// The job was made for this submission; otherwise one that renders the same goes on.
    pub new: bool,
    pub kept: u32,
    pub replaced: u32,
    pub older: u32,
    pub notices: Vec<String>,
}

/// The progress of a job.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct JobProgress {
    /// `None` before its first view has come.
    pub state: Option<JobState>,
    /// Frames.
    pub done: u32,
    pub failed: u32,
    pub total: u32,
    pub workers_busy: u32,
    pub seconds_left: Option<f64>,
    pub mean_frame_s: Option<f64>,
    /// The reason for which nothing of it runs; of a paused job only where it is held after its first frames.
    pub waits_for: Option<WaitReason>,
    /// Simulations that are baked before the first frame; until they are.
    pub baking: Option<Baking>,
    /// The frames in work, where the caller wants to know.
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
    /// The parts of them that are done, together: 1 is a whole frame.
    pub fractions: f64,
    /// The one that began first.
    pub first: Option<RunningFrame>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunningFrame {
    pub frame: i32,
    /// From 0 to 1.
    pub fraction: f32,
    pub is_estimated: bool,
}

/// The end of a submission, as an exit code tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobOutcome {
    /// Every frame that was asked for is in its place.
    Done,
    /// The job goes on without this caller.
    Detached,
    /// The first frames are in their places, and the others were not rendered.
    Held,
    Cancelled,
    Failed,
}

impl JobOutcome {
    /// As it is written on the wire and shown.
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

/// The end of a stay with a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FollowEnd {
    /// The job has ended.
    Ended,
    /// The job goes on without this caller.
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
    /// `None` where nothing was left to render.
    pub job: Option<JobView>,
    #[serde(serialize_with = "paths::shown_if_any")]
    pub out: Option<PathBuf>,
    /// Frames whose files came here, or were here when they were to come.
    pub landed: u32,
    /// Frames that were there before the job.
    pub kept: u32,
    pub skipped: u32,
    pub replaced: u32,
    pub older: u32,
    /// Files that were not replaced.
    pub left: Vec<RelPath>,
    /// The reason why frames did not come here.
    pub fetch_error: Option<String>,
    pub failed: Vec<TaskView>,
    /// Blender's last lines of what stopped the job, or else of its first frame that failed.
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
    /// Frames that came.
    pub fetched: u32,
    /// Frames that were there.
    pub there: u32,
    /// Those among the fetched ones that took the place of earlier ones.
    pub replaced: u32,
    /// Files that were not replaced.
    pub left: Vec<RelPath>,
    /// Frames that the server does not have any more.
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
