//! The states that a person sees, and the causes of failures.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::render::text_enum;

text_enum!(
    /// The state of a job. The last three are final, until a retry, rerender or extension reopens the job.
    JobState {
        /// No task of it has started.
        Queued = "queued",
        /// At least one task has started.
        Running = "running",
        /// No task starts; running ones continue.
        Paused = "paused",
        /// Every task is done; every file of every output set is stored and checked.
        Completed = "completed",
        /// Every task has ended and at least one failed, or a fault of the job stopped it.
        Failed = "failed",
        Cancelled = "cancelled",
    }
);

impl JobState {
    pub fn is_end(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// The tasks of a step or a job, by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskCounts {
    pub total: u32,
    pub waiting: u32,
    /// Dispatched to a slot that has not begun them.
    pub assigned: u32,
    pub running: u32,
    pub done: u32,
    pub failed: u32,
    pub cancelled: u32,
}

impl TaskCounts {
    pub fn plus(self, other: Self) -> Self {
        Self {
            total: self.total + other.total,
            waiting: self.waiting + other.waiting,
            assigned: self.assigned + other.assigned,
            running: self.running + other.running,
            done: self.done + other.done,
            failed: self.failed + other.failed,
            cancelled: self.cancelled + other.cancelled,
        }
    }
}

text_enum!(
    /// The jobs that a list shows: those that are not archived, those that are, or both.
    ArchivedFilter {
        No = "no",
        Only = "only",
        All = "all",
    }
);

#[expect(clippy::derivable_impls, reason = "the macro takes no attributes of variants")]
impl Default for ArchivedFilter {
    fn default() -> Self {
        Self::No
    }
}

text_enum!(
    /// The way in which a Blender is started.
    BlenderFlavor {
        /// The program `blender`.
        Executable = "executable",
        /// A Python with the `bpy` wheel.
        Module = "module",
    }
);

text_enum!(
    /// The kind of a step of a job.
    StepKind {
        /// One task: bakes the scene's simulations into a new bundle.
        Bake = "bake",
        /// One task a frame.
        Render = "render",
        /// Only in builds for tests: writes files that name their task, or lists those of other steps.
        #[cfg(debug_assertions)]
        Test = "test",
    }
);

text_enum!(
    /// The state of the present generation of a task.
    TaskState {
        Waiting = "waiting",
        /// Dispatched to a slot that has not begun it.
        Assigned = "assigned",
        Running = "running",
        Done = "done",
        Failed = "failed",
        Cancelled = "cancelled",
    }
);

text_enum!(
    /// The state of an attempt.
    AttemptState {
        Assigned = "assigned",
        Running = "running",
        /// The output set became that of the task.
        Committed = "committed",
        /// Another attempt delivered first, or the task was rendered again or cancelled.
        Superseded = "superseded",
        Failed = "failed",
        /// The worker returned it unfinished (drain, pause, lost slot). Not a failure.
        Returned = "returned",
        /// The lease ran out: the worker was silent.
        Expired = "expired",
        /// The scheduler took it back.
        Revoked = "revoked",
    }
);

/// The reason for which a worker is quarantined, and the number of probes that failed since.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Quarantine {
    /// One sentence for a person.
    pub reason: String,
    pub failed_probes: u32,
}

text_enum!(
    /// The state of a worker.
    WorkerState {
        Idle = "idle",
        Rendering = "rendering",
        /// Gets no work until it is resumed; finishes its attempts.
        Paused = "paused",
        /// Gets no work for now, because of its schedule, user activity or load.
        Unavailable = "unavailable",
        /// Gets only probes, because it fails, or goes down, where others deliver.
        Quarantined = "quarantined",
        /// Returns the tasks that it has not begun, finishes the others, then disconnects.
        Draining = "draining",
        Offline = "offline",
    }
);

text_enum!(
    /// The state that a person wants a worker to be in.
    DesiredState { Active = "active", Paused = "paused", Draining = "draining", Stopped = "stopped" }
);

text_enum!(
    /// The cause of a failed attempt.
    FailureCause {
        NoCamera = "no-camera",
        /// The engine is not in this Blender.
        EngineMissing = "engine-missing",
        /// This Blender was built without the denoiser of the scene.
        DenoiserMissing = "denoiser-missing",
        PythonError = "python-error",
        /// Blender died of a signal.
        Crashed = "crashed",
        OutOfMemory = "out-of-memory",
        TimedOut = "timed-out",
        DiskFull = "disk-full",
        /// A texture, library or other file is missing.
        MissingFiles = "missing-files",
        ScriptsBlocked = "scripts-blocked",
        /// A simulation has no bake: background Blender would render it without motion.
        Unbaked = "unbaked",
        /// The requested GPU is missing.
        DeviceMissing = "device-missing",
        /// The .blend cannot be opened.
        CannotOpen = "cannot-open",
        /// A setting names a scene, camera, view layer or format that the file does not have.
        BadSetting = "bad-setting",
        /// A file of the output set is missing, broken, or of another size or format.
        BadOutput = "bad-output",
        /// The picture is entirely black or transparent, which the job refuses.
        BlackFrame = "black-frame",
        /// Two frames of the job write the same file.
        SamePath = "same-path",
        /// Blender could not write the frame.
        CannotWrite = "cannot-write",
        /// The host broke its protocol: a name outside its folder, a link for a file, an endless line.
        HostMisbehaved = "host-misbehaved",
        /// The worker could not bring the job's files onto its disk.
        BundleUnavailable = "bundle-unavailable",
        /// The worker could not start Blender.
        CannotStart = "cannot-start",
        /// Blender can do this as a program, but not as a Python module.
        NeedsProgram = "needs-program",
        Other = "other",
    }
);

impl FailureCause {
    /// Returns whether every attempt on every worker would end the same way, so that the job stops at once.
    pub fn stops_job(self) -> bool {
        matches!(
            self,
            Self::NoCamera
                | Self::MissingFiles
                | Self::ScriptsBlocked
                | Self::Unbaked
                | Self::BadSetting
                | Self::CannotOpen
                | Self::SamePath
        )
    }

    /// Returns whether another attempt most likely ends the same way: the frame gets one more attempt, on another worker, and
    /// none if there is no other worker.
    pub fn repeats(self) -> bool {
        matches!(self, Self::BlackFrame)
    }

    /// Returns whether the fault is the worker's: the same task may well succeed on another one.
    pub fn is_worker_failure(self) -> bool {
        matches!(
            self,
            Self::CannotStart
                | Self::NeedsProgram
                | Self::BundleUnavailable
                | Self::DiskFull
                | Self::DeviceMissing
                | Self::DenoiserMissing
        )
    }
}

/// The reason why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Failure {
    pub cause: FailureCause,
    /// One sentence for a person.
    pub message: String,
    /// The last lines that Blender printed; at most [`Failure::LOG_LINES`].
    #[serde(default)]
    pub log_tail: Vec<String>,
}

impl Failure {
    pub const LOG_LINES: usize = 12;

    pub fn new(cause: FailureCause, message: impl Into<String>) -> Self {
        Self { cause, message: message.into(), log_tail: Vec::new() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.message.fmt(f)
    }
}
