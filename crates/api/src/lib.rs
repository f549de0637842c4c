#![cfg_attr(test, allow(clippy::unwrap_used))]
//! The wire of Kiln: every message of the HTTP API and of the worker's WebSocket.
//!
//! The server's OpenAPI document is made from these types. Unknown fields are tolerated when reading, so that
//! neighbouring versions understand each other; core types never appear here.

mod event;
mod farm;
mod files;
mod job;
mod kept;
mod link;
mod problem;
mod waiting;
mod worker;

pub use event::{Change, Event};
pub(crate) use farm::told;
pub use farm::{AccountView, ChangePools, LimitList, LimitView, ProjectList, SetLimit, SetShare, UserList};
pub use files::{
    BINARY, BundleCreated, CHUNKS_AT_ONCE, HASHES_AT_ONCE, MAX_FRAMES, MAX_RECIPE, MissingAnswer,
    MissingQuery, UploadCreate, UploadFinished, UploadView,
};
pub use job::{
    AttemptView, AttemptsPage, ChangeJob, Explanation, ExtendJob, JobList, JobReport, JobSource, JobView,
    OutputView, OutputsPage, ReopenedJob, RerenderJob, StepFile, StepFilesPage, StepView, StepWait,
    SubmitJob, TaskView, TasksPage, TimeLeft, UnmetView, WorkerShare,
};
pub use kept::{Collect, Collected, Fetched, JobRetention, Kept};
pub use link::{
    AssignedTask, Assignment, AttemptReport, BlenderOffer, DeviceOffer, Down, Hello, Machine, Offered,
    SlotClaim, StepWork, StreamAssignment, Unavailability, Up, Welcome,
};
pub use problem::{Problem, ProblemCode};
pub use waiting::{RelativePriority, SlotHolder, UnmetRequirement, WaitReason};
pub use worker::{Info, Me, RunningList, RunningTask, RunningView, WorkerList, WorkerQuarantine, WorkerView};

/// Where every route but the public ones begins.
pub const PREFIX: &str = "/api/v1";

/// The number of the worker protocol; a server speaks its own and the one before.
pub const PROTOCOL: u32 = 2;

/// The oldest worker protocol that this build still speaks.
pub const OLDEST_PROTOCOL: u32 = 2;

/// The build, as `kiln --version` prints it.
pub const BUILD: &str = env!("CARGO_PKG_VERSION");

/// Names the byte position of an upload's part, in requests and answers.
pub const UPLOAD_OFFSET: &str = "upload-offset";

/// The media type of RFC 9457.
pub const PROBLEM_JSON: &str = "application/problem+json";
