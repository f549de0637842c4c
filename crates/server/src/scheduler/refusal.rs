//! The reasons for which the scheduler does not do what a request asks for.

use kiln_core::{JobError, PlanError, Share};
use kiln_types::{FrameSet, FrameSetError, JobId, StepKind, StepsError, duration::in_words};

/// The reason for which the scheduler does not carry out a request. `routes/refusals.rs` makes a problem of each, and says
/// what to do next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(transparent)]
    Job(#[from] JobError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Frames(#[from] FrameSetError),
    #[error("{error} of job {job}")]
    BadStep { job: JobId, error: StepsError },
    #[error("a step of kind {0} cannot be added to a job")]
    FixedStep(StepKind),
    #[error("frame {frame} is not among the frames of job {job} ({frames})")]
    NoSuchFrame { job: JobId, frame: i32, frames: FrameSet },
    #[error("job {0} has nothing to bake")]
    NothingToBake(JobId),
    #[error("the simulations of job {0} are not baked")]
    NotBaked(JobId),
    #[error("the files of job {job} were removed {} after it ended", in_words(*after_ms as f64 / 1000.0))]
    FilesRemoved { job: JobId, after_ms: i64 },
    #[error("the files of this job are no longer on the server")]
    FilesMissing,
    #[error("job {0} is archived")]
    Archived(JobId),
    #[error("job {0} has not ended")]
    ArchivedTooEarly(JobId),
    #[error("job {0} has not ended")]
    DeletedTooEarly(JobId),
    #[error("job {0} has begun and can no longer wait")]
    HasBegun(JobId),
    #[error("job {0} cannot wait for itself")]
    WaitsForItself(JobId),
    #[error("job {other} waits for job {job} already: neither would ever start")]
    WaitsInCircle { job: JobId, other: JobId },
    #[error("there is no job {0} to wait for")]
    NoJobToWaitFor(JobId),

    #[error("shares of {0} users and projects are set already")]
    TooManyShares(usize),
    #[error("a weight lies between 1 and {}", Share::MAX_WEIGHT)]
    BadWeight,
    #[error("the farm has {0} limits already")]
    TooManyLimits(usize),
    #[error("the farm has no limit “{}”", shown(.0))]
    NoSuchLimit(String),
    /// A job requires it.
    #[error("the farm has no limit “{}”", shown(.0))]
    RequiresNoSuchLimit(String),
    #[error("a frame would take {count} of the limit {name}, of which the farm has {total}")]
    RequiresMoreThanLimit { name: String, count: u32, total: u32 },
    #[error("job {job} needs the limit {name} and would wait without end")]
    LimitInUse { job: JobId, name: String },
    #[error("a worker is in at most {0} pools")]
    TooManyPools(usize),

    #[error("there is no worker named “{}”", shown(.0))]
    NoSuchWorker(String),
    #[error("the worker {0} is offline already")]
    WorkerOffline(String),
    #[error("the worker {0} is connected")]
    WorkerConnected(String),
    #[error("the worker {0} is awake already")]
    WorkerAwake(String),
    #[error("the network cards of {0} are not known")]
    NoNetworkCards(String),
    #[error("the worker {0} is not quarantined")]
    NotQuarantined(String),

    /// The batch of the request was dropped with a broken invariant.
    #[error("the scheduler was restarted and has not done this")]
    BatchDropped,
    #[error("the server is stopping and has not done this")]
    Stopping,
    /// The records or the network failed. The cause goes to the log, not to the caller.
    #[error("{what}: {error}")]
    Failed { what: &'static str, error: String },
}

impl Refusal {
    pub(crate) fn failed(what: &'static str, error: impl std::fmt::Display) -> Self {
        Self::Failed { what, error: error.to_string() }
    }
}

/// Shortens and escapes a name that a user entered.
fn shown(name: &str) -> String {
    name.chars().take(80).flat_map(char::escape_default).collect()
}
