//! The requests to a host, and its answers.

use std::{path::PathBuf, time::Duration};

use kiln_types::{DeviceClass, Failure, FailureCause, SessionSpec};
use serde::{Deserialize, Serialize};

use crate::{LogSink, OutputPlan, PlannedFile, ProgressSink};

/// Something that renders.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Device {
    pub backend: DeviceClass,
    pub name: String,
}

/// The abilities of a Blender on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Capabilities {
    /// By Blender's names: `CYCLES`, `BLENDER_EEVEE`, ...
    pub engines: Vec<String>,
    pub devices: Vec<Device>,
    /// By Blender's names: `OPENIMAGEDENOISE`, `OPTIX`.
    pub denoisers: Vec<String>,
}

impl Capabilities {
    pub fn has(&self, class: DeviceClass) -> bool {
        self.devices.iter().any(|device| device.backend == class)
    }
}

/// The options of a process.
#[derive(Clone)]
pub struct HostOptions {
    /// Scripts inside a .blend may run. This is set for the whole life of the process.
    pub trust: bool,
    /// Threads of Blender where the session does not say; 0 lets Blender decide.
    pub threads: u16,
    /// The GPUs that a session on them uses, by their places among those of its kind that Blender lists; all where
    /// there is none.
    pub gpus: Vec<u16>,
    /// The niceness of the process, from 0 to 19.
    pub nice: u8,
    /// The colour configuration (OCIO) that the process has for its whole life; Blender's own where absent.
    pub ocio: Option<PathBuf>,
    pub log: Option<LogSink>,
    pub progress: Option<ProgressSink>,
    /// The devices that the process shall find instead of the real ones: for tests of a machine that is not there.
    pub devices_override: Option<Vec<Device>>,
    /// The folder of the compiled scripts of Blenders, for later starts; `None` keeps none.
    pub bytecode: Option<PathBuf>,
    /// From the start of the process to its first word.
    pub start_limit: Duration,
    /// For opening a file.
    pub open_limit: Duration,
    /// A process that answers nothing at all for so long, not even to a ping while it renders, is killed.
    pub silence_limit: Duration,
}

impl Default for HostOptions {
    fn default() -> Self {
        Self {
            trust: false,
            threads: 0,
            gpus: Vec::new(),
            nice: 0,
            ocio: None,
            log: None,
            progress: None,
            devices_override: None,
            bytecode: None,
            start_limit: Duration::from_secs(120),
            open_limit: Duration::from_secs(30 * 60),
            silence_limit: Duration::from_secs(10 * 60),
        }
    }
}

/// The reason why no process could be started.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error("Blender cannot be started ({program}): {source}")]
    Spawn { program: PathBuf, source: std::io::Error },
    #[error("the slot's folder cannot be prepared: {0}")]
    Prepare(std::io::Error),
    #[error("Blender was started but did not come up: {0}")]
    NotUp(Failure),
}

impl From<HostError> for Failure {
    fn from(error: HostError) -> Self {
        let log_tail = match &error {
            // The file's fault, not the machine's.
            HostError::NotUp(failure) if failure.cause == FailureCause::BadSetting => return failure.clone(),
            HostError::NotUp(failure) => failure.log_tail.clone(),
            _ => Vec::new(),
        };
        Self { cause: FailureCause::CannotStart, message: error.to_string(), log_tail }
    }
}

/// A request to open a .blend.
#[derive(Debug, Clone)]
pub struct OpenRequest {
    /// The .blend, an absolute path.
    pub blend: PathBuf,
    pub session: SessionSpec,
    /// Paths as the .blend has them, and the absolute paths of those files here.
    pub remap: Vec<(String, PathBuf)>,
    /// Paths as `remap` has them, of files that may be missing: nothing that renders uses them.
    pub unused: Vec<String>,
    /// The job's add-ons, absolute paths: enabled before the file is opened, for the life of the process.
    pub addons: Vec<PathBuf>,
    /// Keep the scene's data between frames where that is exact: faster, and takes memory.
    pub persistent_data: bool,
}

impl OpenRequest {
    /// A .blend whose files all lie where its names lead.
    pub fn new(blend: PathBuf, session: SessionSpec) -> Self {
        Self {
            blend,
            session,
            remap: Vec::new(),
            unused: Vec::new(),
            addons: Vec::new(),
            persistent_data: true,
        }
    }
}

/// The data that the process keeps of a scene between two frames, with the reasons.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct SceneReuse {
    pub how: ReuseMode,
    /// The rules of `persistent.py` that apply to the scene, each with the thing that they found.
    pub reasons: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReuseMode {
    /// Blender's persistent data.
    #[default]
    Kept,
    /// The opened file; each frame has data of its own.
    Dropped,
    /// Nothing: the file is opened again before each frame.
    Reopened,
}

/// A file that is open, with its settings applied.
#[derive(Debug, Clone)]
pub struct OpenedFile {
    /// Notes for a person: each a sentence.
    pub notices: Vec<String>,
    pub plan: OutputPlan,
    pub reuse: SceneReuse,
    /// Seconds that opening took.
    pub seconds: f64,
    /// The most memory the process has held so far, in bytes.
    pub memory: u64,
}

/// A request to bake. The process writes into `tree`, a copy of the bundle, and saves the .blend where it lies.
#[derive(Debug, Clone)]
pub struct BakeRequest {
    /// The folder that is the bundle, writable; caches are written below it and nowhere else.
    pub tree: PathBuf,
    /// The .blend below it, an absolute path.
    pub blend: PathBuf,
    pub session: SessionSpec,
    /// As [`OpenRequest::remap`], with places below `tree`: they are saved as names relative to the .blend.
    pub remap: Vec<(String, PathBuf)>,
    /// As [`OpenRequest::unused`].
    pub unused: Vec<String>,
    /// As [`OpenRequest::addons`].
    pub addons: Vec<PathBuf>,
}

/// Every simulation of the scene is baked, and the file saved, says the host; [`crate::gather`] looks.
#[derive(Debug, Clone)]
pub struct Baked {
    /// Names of what was baked; none where nothing had to be, and then no file has changed.
    pub simulated: Vec<String>,
    /// Notes for a person: each a sentence.
    pub notices: Vec<String>,
    /// Seconds, by the host's clock.
    pub seconds: f64,
    /// The most memory the process has held so far, in bytes.
    pub peak_memory: u64,
}

#[derive(Debug, Clone)]
pub struct RenderRequest {
    pub frame: i32,
    /// A fresh, empty folder below the slot's `out` ([`SlotRoot::fresh_out`]).
    pub out: PathBuf,
    pub time_limit: Option<Duration>,
}

/// A frame was rendered, says the host; [`crate::collect`] looks.
#[derive(Debug, Clone)]
pub struct Rendered {
    /// Named before the frame was rendered.
    pub planned: Vec<PlannedFile>,
    /// Seconds, by the host's clock.
    pub seconds: f64,
    /// The most memory the process has held so far, in bytes.
    pub peak_memory: u64,
    /// Seconds of the host's monotonic clock, which on Linux is that of every process.
    pub started_at: f64,
    pub ended_at: f64,
    /// Notes for a person on this frame.
    pub notices: Vec<String>,
}
