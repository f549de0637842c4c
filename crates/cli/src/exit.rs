//! Exit codes, and errors that end a command.

use kiln_api::{ProblemCode, UnmetRequirement, WaitReason};
use kiln_client::{
    ClientError, FetchError, PrepareError,
    submission::{JobOutcome, SubmissionError},
};

/// The exit codes. `kiln help exit-codes` prints [`EXIT_CODES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    BadInput = 2,
    NoServer = 3,
    Cancelled = 4,
    Held = 5,
    Interrupted = 130,
}

pub const EXIT_CODES: &str = "\
Exit codes of kiln:
    0  done: all frames are in their places
    1  failed: the job failed, or its frames could not be written
    2  bad input: the command line, the .blend, the frames, the folder, or a job or worker that does not exist
    3  no server: it cannot be reached, refuses the key, or is of another version; or a server cannot start
    4  cancelled: the job was cancelled
    5  held: the first frames of --hold-after are in their places, and the others were not rendered
  130  interrupted: a signal ended this command; a job on a farm continues

`kiln render`, `kiln submit --wait` and `kiln jobs wait` end with the code of their job.";

/// An error that ends a command: one sentence for a person, and the exit code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct CommandError {
    pub exit: Exit,
    pub message: String,
}

pub type Outcome<T = ()> = Result<T, CommandError>;

impl CommandError {
    pub fn bad_input(message: impl Into<String>) -> Self {
        Self { exit: Exit::BadInput, message: message.into() }
    }

    pub fn failed(message: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, message: message.into() }
    }

    pub fn no_server(message: impl Into<String>) -> Self {
        Self { exit: Exit::NoServer, message: message.into() }
    }
}

impl From<ClientError> for CommandError {
    fn from(error: ClientError) -> Self {
        let exit = match &error {
            ClientError::Problem(problem) => match problem.code {
                ProblemCode::NotFound
                | ProblemCode::BadRequest
                | ProblemCode::Unprocessable
                | ProblemCode::NotABlend
                | ProblemCode::TooLarge => Exit::BadInput,
                ProblemCode::Unauthorized | ProblemCode::Forbidden | ProblemCode::Version => Exit::NoServer,
                _ => Exit::Failed,
            },
            ClientError::BadUrl { .. } | ClientError::File { .. } => Exit::BadInput,
            ClientError::Damaged { .. } | ClientError::Changed { .. } => Exit::Failed,
            _ => Exit::NoServer,
        };
        Self { exit, message: error.to_string() }
    }
}

impl From<SubmissionError> for CommandError {
    fn from(error: SubmissionError) -> Self {
        match error {
            SubmissionError::Client(error)
            | SubmissionError::Prepare(PrepareError::Client(error))
            | SubmissionError::Fetch(FetchError::Client(error)) => error.into(),
            SubmissionError::NothingHere(reason) => {
                let (waits, without) = match reason {
                    WaitReason::NoWorkerFits { missing, .. } if !missing.is_empty() => {
                        let denoises =
                            missing.iter().any(|part| matches!(part, UnmetRequirement::Denoiser { .. }));
                        let missing: Vec<String> = missing.iter().map(ToString::to_string).collect();
                        let without = if denoises {
                            ", on a farm, or without (--set cycles.use_denoising=false)"
                        } else {
                            ", or on a farm"
                        };
                        (format!("Nothing here has {}.", missing.join(" or ")), without)
                    }
                    other => (other.to_string(), ", or on a farm"),
                };
                Self::failed(format!("{waits} Render with another Blender (--blender-version){without}."))
            }
            SubmissionError::Prepare(_)
            | SubmissionError::Existing(_)
            | SubmissionError::Variant(_)
            | SubmissionError::Folder { .. }
            | SubmissionError::Manifest { .. }
            | SubmissionError::GpusOnCpu
            | SubmissionError::NoDevice { .. } => Self::bad_input(error.to_string()),
            SubmissionError::Fetch(_)
            | SubmissionError::Devices(_)
            | SubmissionError::Deleted(_)
            | SubmissionError::FrameGone { .. }
            | SubmissionError::BrokenOff { .. } => Self::failed(error.to_string()),
        }
    }
}

impl From<JobOutcome> for Exit {
    fn from(outcome: JobOutcome) -> Self {
        match outcome {
            JobOutcome::Done => Self::Done,
            JobOutcome::Failed => Self::Failed,
            JobOutcome::Cancelled => Self::Cancelled,
            JobOutcome::Held => Self::Held,
            JobOutcome::Detached => Self::Interrupted,
        }
    }
}
