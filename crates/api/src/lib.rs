#![cfg_attr(test, allow(clippy::unwrap_used))]
//! The messages of the HTTP API and of the worker's WebSocket.
//!
//! The server's OpenAPI document is generated from these types. Readers ignore unknown fields, so that neighbouring
//! versions understand each other. Core types never appear here.

mod event;
mod farm;
mod files;
mod job;
mod link;
mod problem;
mod retention;
mod waiting;
mod worker;

pub use event::{Change, Event};
pub(crate) use farm::deserialize_nullable;
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
pub use link::{
    AssignedTask, Assignment, AttemptReport, BlenderOffer, DeviceOffer, Down, Hello, Machine, MachineOffer,
    SlotClaim, StepWork, StreamAssignment, Unavailability, Up, Welcome,
};
pub use problem::{Problem, ProblemCode};
pub use retention::{Collect, Collected, Fetched, JobRetention, RetentionState};
pub use waiting::{RelativePriority, SlotHolder, UnmetRequirement, WaitReason};
pub use worker::{Info, Me, RunningList, RunningTask, RunningView, WorkerList, WorkerQuarantine, WorkerView};

/// The prefix of every route but the public ones.
pub const PREFIX: &str = "/api/v1";

/// The number of the worker protocol.
pub const PROTOCOL: u32 = 2;

/// The oldest worker protocol that this build speaks.
pub const OLDEST_PROTOCOL: u32 = 2;

/// The build, as `kiln --version` prints it.
pub const BUILD: &str = env!("CARGO_PKG_VERSION");

/// The header with the byte position of an upload's part, in requests and answers.
pub const UPLOAD_OFFSET: &str = "upload-offset";

/// The media type of RFC 9457.
pub const PROBLEM_JSON: &str = "application/problem+json";
