#![cfg_attr(test, allow(clippy::unwrap_used))]
//! The types that the core and the wire share: ids, frame sets, versions, output sets, job specs.
//!
//! They do no I/O, and know nothing of HTTP, SQLite or Blender's Python.

mod attempt;
pub mod duration;
mod frames;
mod frozen;
mod hash;
mod ids;
mod names;
mod order;
mod output;
mod path;
pub mod paths;
mod pattern;
mod pixels;
mod plural;
mod property;
mod render;
mod reserved;
mod scheduling;
mod span;
mod spec;
mod state;
mod step;
mod version;

pub use attempt::{HeldAttempt, HeldPhase, ReportOutcome, RevokeReason};
pub use frames::{FrameSet, FrameSetError, FrameSpan, MAX_FRAME, MAX_TASKS, MIN_FRAME};
pub use frozen::{Choices, device_word};
pub use hash::{BadHash, BlobHash, BlobHasher};
pub use ids::{
    AttemptId, BadId, BundleId, Epoch, EventNumber, Generation, JobId, Owner, Project, SlotIndex, StepIndex,
    TaskId, TaskIndex, UploadId, WorkerId,
};
pub use names::{BadName, BlenderName, Name, ShortName};
pub use order::{BadOrder, Order};
pub use output::{OutputFile, OutputRole, OutputSet, OutputSetError, PictureFacts, TaskFile};
pub use path::{BadPath, RelPath};
pub use pixels::{Blank, NotFinite, PixelReport, Suspicion, SuspiciousFrames};
pub use plural::count;
pub use property::{Fraction, Properties, PropertyItem, PropertyPath, PropertySetting, PropertyValue};
pub use render::{
    ColorDepth, DeviceChoice, DeviceClass, ExternalFiles, FileFormat, Policy, RenderSettings, Resolution,
    ScriptPolicy, Simulations,
};
pub use scheduling::{AccountKind, BadGpuUse, BadPriority, GpuUse, JobRequirements, JobScheduling, Priority};
pub use span::{BadTimeSpan, TimeSpan};
pub use spec::{Bundle, BundleFile, JobSpec, Save, SessionKey, SessionSpec, SharedFile};
pub use state::{
    ArchivedFilter, AttemptState, BlenderFlavor, DesiredState, Failure, FailureCause, JobState, Quarantine,
    StepKind, TaskCounts, TaskState, WorkerState,
};
pub use step::{
    DependencyEnd, DependencyScope, DependencyStart, JobSteps, ProductKind, StepDependency, StepInput,
    StepSpec, StepsError, TaskName, TaskSpace,
};
pub use version::{BadVersion, BlenderSeries, BlenderVersion};
