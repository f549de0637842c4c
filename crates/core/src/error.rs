//! The errors of operations on jobs.

use kiln_types::{JobId, JobState, MAX_TASKS, StepIndex, TaskIndex};

use crate::PlanError;

/// The result of an operation on a job.
pub type JobResult<T = ()> = Result<T, JobError>;

/// The reason for which an operation on a job is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    #[error("there is no job {0}; `kiln jobs` lists them")]
    NoSuchJob(JobId),
    #[error("job {0} exists already; give the new one another id")]
    JobExists(JobId),
    #[error("job {job} has ended ({state}); `kiln jobs retry` or `rerender` starts it again")]
    JobEnded { job: JobId, state: JobState },
    #[error("job {job} has not ended ({state}); cancel it first")]
    JobNotEnded { job: JobId, state: JobState },
    #[error("job {0} has no failed or cancelled task; `kiln jobs rerender` renders finished ones again")]
    NothingToRetry(JobId),
    #[error("nothing of job {0} that you named is finished, so there is nothing to render again")]
    NothingToRerender(JobId),
    #[error("job {job} has no step {step}")]
    NoSuchStep { job: JobId, step: StepIndex },
    #[error("step {step} of job {job} has no task {index}")]
    NoSuchTask { job: JobId, step: StepIndex, index: TaskIndex },
    #[error("nothing was added to job {0}; name at least one new task")]
    NothingToAdd(JobId),
    #[error("tasks of job {0} are added frame by frame; add as many as a frame has, or a multiple of that")]
    PartOfFrame(JobId),
    #[error("job {0} would have more than {MAX_TASKS} tasks in a step; make a second job")]
    TooManyTasks(JobId),
    #[error("job {0} was cancelled; `kiln jobs retry` starts it again, and then a step can be added")]
    Cancelled(JobId),
    #[error("a step that the new one of job {0} depends on has failed; `kiln jobs retry` renders it")]
    DependencyFailed(JobId),
    #[error("the new step does not fit job {job}: {error}")]
    BadStep { job: JobId, error: PlanError },
    #[error("the stored state of job {job} contradicts itself: {what}; restore the data from a backup")]
    BadRestore { job: JobId, what: &'static str },
}
