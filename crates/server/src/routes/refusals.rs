//! The problems that callers see for errors of the scheduler and of the collector.

use kiln_api::{Problem, ProblemCode};
use kiln_core::JobError;

use crate::{
    collector::CollectError,
    problem::{ProblemResponse, sentence},
    scheduler::Refusal,
};

impl From<Refusal> for ProblemResponse {
    fn from(refusal: Refusal) -> Self {
        let problem = problem_of(&refusal);
        if problem.code == ProblemCode::Internal {
            tracing::error!(error = %refusal, "request failed");
        }
        Self(Box::new(problem))
    }
}

impl From<CollectError> for ProblemResponse {
    fn from(error: CollectError) -> Self {
        match error {
            CollectError::KeepsNothing => Self::conflict(sentence(&error)),
            CollectError::Scheduler(refusal) => refusal.into(),
            CollectError::Records(error) => error.into(),
            CollectError::Blobs(error) => error.into(),
            CollectError::Logs(error) => Self::internal("The logs could not be read", error),
        }
    }
}

/// Returns the problem of a refusal: its code, and a sentence with what happened and what to do next.
fn problem_of(refusal: &Refusal) -> Problem {
    use ProblemCode::{BadRequest, Busy, Conflict, Internal, NotFound, Unprocessable};
    let (code, next) = match refusal {
        Refusal::Job(JobError::JobExists(_) | JobError::BadRestore { .. }) => {
            return internal("the job cannot be restored");
        }
        Refusal::Failed { what, .. } => return internal(what),
        Refusal::Stopping => (Internal, "send it again when the server is back".to_owned()),
        Refusal::Job(error) => (code_of(error), String::new()),
        Refusal::Plan(_) | Refusal::Frames(_) | Refusal::BadStep { .. } | Refusal::FixedStep(_) => {
            (Unprocessable, String::new())
        }
        Refusal::NoSuchFrame { .. } | Refusal::RequiresMoreThanLimit { .. } => (Unprocessable, String::new()),
        Refusal::NoJobToWaitFor(_) => (Unprocessable, "`kiln jobs` lists them".to_owned()),
        Refusal::RequiresNoSuchLimit(_) => (Unprocessable, LIMITS.to_owned()),
        Refusal::NoSuchLimit(_) => (NotFound, LIMITS.to_owned()),
        Refusal::NoSuchWorker(_) => (NotFound, "`kiln workers` lists them".to_owned()),
        Refusal::BadWeight => (BadRequest, String::new()),
        Refusal::BatchDropped => (Busy, "try again".to_owned()),
        Refusal::NotBaked(job) => {
            (Conflict, format!("`kiln jobs retry {job}` bakes them, and renders its frames"))
        }
        Refusal::FilesRemoved { .. } => (Conflict, "submit it again".to_owned()),
        Refusal::FilesMissing => (Conflict, "send them again, then make the job".to_owned()),
        Refusal::Archived(job) => {
            (Conflict, format!("take it out with `kiln jobs unarchive {job}`, then try again"))
        }
        Refusal::ArchivedTooEarly(_) => (Conflict, "let it end or cancel it, then archive it".to_owned()),
        Refusal::DeletedTooEarly(_) => (Conflict, "cancel it first, then delete it".to_owned()),
        Refusal::HasBegun(job) => (Conflict, format!("`kiln jobs pause {job}` holds it back")),
        Refusal::LimitInUse { .. } => (Conflict, "let it end or cancel it, then remove the limit".to_owned()),
        Refusal::WorkerConnected(_) => (Conflict, "stop or drain it first, then remove it".to_owned()),
        Refusal::NoNetworkCards(_) => (Conflict, "it reports them when it connects".to_owned()),
        Refusal::NothingToBake(_)
        | Refusal::WaitsForItself(_)
        | Refusal::WaitsInCircle { .. }
        | Refusal::TooManyShares(_)
        | Refusal::TooManyLimits(_)
        | Refusal::TooManyPools(_)
        | Refusal::WorkerOffline(_)
        | Refusal::WorkerAwake(_)
        | Refusal::NotQuarantined(_) => (Conflict, String::new()),
    };
    let detail = if next.is_empty() { sentence(refusal) } else { sentence(&format!("{refusal}; {next}")) };
    Problem::new(code, detail)
}

const LIMITS: &str = "`kiln limits` lists them, `kiln limits set NAME N` makes one";

/// Returns the code of an error of a job, whose text says what to do next.
fn code_of(error: &JobError) -> ProblemCode {
    match error {
        JobError::NoSuchJob(_) => ProblemCode::NotFound,
        JobError::NoSuchStep { .. } | JobError::NoSuchTask { .. } | JobError::TooManyTasks(_) => {
            ProblemCode::Unprocessable
        }
        JobError::JobExists(_) | JobError::BadRestore { .. } => ProblemCode::Internal,
        JobError::BadStep { .. } => ProblemCode::Unprocessable,
        JobError::JobEnded { .. }
        | JobError::Cancelled(_)
        | JobError::DependencyFailed(_)
        | JobError::JobNotEnded { .. }
        | JobError::NothingToRetry(_)
        | JobError::NothingToRerender(_)
        | JobError::NothingToAdd(_)
        | JobError::PartOfFrame(_) => ProblemCode::Conflict,
    }
}

fn internal(what: &str) -> Problem {
    Problem::new(ProblemCode::Internal, sentence(&format!("{what}; the server's log says more")))
}

#[cfg(test)]
mod tests {
    use kiln_core::PlanError;
    use kiln_types::{JobId, StepIndex, StepKind, StepsError};

    use super::*;

    const JOB: JobId = JobId(7);

    /// One of each variant, with the status and the text of its problem.
    fn table() -> Vec<(Refusal, u16, &'static str)> {
        let name = || "oak".to_owned();
        let no_frames = "".parse::<kiln_types::FrameSet>().unwrap_err();
        vec![
            (JobError::NoSuchJob(JOB).into(), 404, "There is no job 7; `kiln jobs` lists them."),
            (JobError::NoSuchStep { job: JOB, step: StepIndex(3) }.into(), 422, "Job 7 has no step 3."),
            (
                JobError::NothingToRetry(JOB).into(),
                409,
                "Job 7 has no failed or cancelled task; `kiln jobs rerender` renders finished ones again.",
            ),
            (
                JobError::BadRestore { job: JOB, what: "a secret" }.into(),
                500,
                "The job cannot be restored; the server's log says more.",
            ),
            (PlanError::NoSteps.into(), 422, "The job has no step; give it at least one."),
            (no_frames.into(), 422, "The frame range is empty; write it like 1-250 or 1-10,20,30-40x2."),
            (
                Refusal::NoSuchFrame { job: JOB, frame: 9, frames: "1-3".parse().unwrap() },
                422,
                "Frame 9 is not among the frames of job 7 (1-3).",
            ),
            (
                Refusal::BadStep {
                    job: JOB,
                    error: StepsError::NotBefore { step: StepIndex(1), needs: StepIndex(2) },
                },
                422,
                "Step 1 needs step 2, which is not before it or does not make that of job 7.",
            ),
            (Refusal::FixedStep(StepKind::Bake), 422, "A step of kind bake cannot be added to a job."),
            (Refusal::NothingToBake(JOB), 409, "Job 7 has nothing to bake."),
            (
                Refusal::NotBaked(JOB),
                409,
                "The simulations of job 7 are not baked; `kiln jobs retry 7` bakes them, and renders its frames.",
            ),
            (
                Refusal::FilesRemoved { job: JOB, after_ms: 8 * 86_400_000 },
                409,
                "The files of job 7 were removed 8 days after it ended; submit it again.",
            ),
            (
                Refusal::FilesMissing,
                409,
                "The files of this job are no longer on the server; send them again, then make the job.",
            ),
            (
                Refusal::Archived(JOB),
                409,
                "Job 7 is archived; take it out with `kiln jobs unarchive 7`, then try again.",
            ),
            (
                Refusal::ArchivedTooEarly(JOB),
                409,
                "Job 7 has not ended; let it end or cancel it, then archive it.",
            ),
            (Refusal::DeletedTooEarly(JOB), 409, "Job 7 has not ended; cancel it first, then delete it."),
            (
                Refusal::HasBegun(JOB),
                409,
                "Job 7 has begun and can no longer wait; `kiln jobs pause 7` holds it back.",
            ),
            (Refusal::WaitsForItself(JOB), 409, "Job 7 cannot wait for itself."),
            (
                Refusal::WaitsInCircle { job: JOB, other: JobId(9) },
                409,
                "Job 9 waits for job 7 already: neither would ever start.",
            ),
            (Refusal::NoJobToWaitFor(JOB), 422, "There is no job 7 to wait for; `kiln jobs` lists them."),
            (Refusal::TooManyShares(10), 409, "Shares of 10 users and projects are set already."),
            (Refusal::BadWeight, 400, "A weight lies between 1 and 10000."),
            (Refusal::TooManyLimits(10), 409, "The farm has 10 limits already."),
            (
                Refusal::NoSuchLimit("a\u{7}".to_owned()),
                404,
                "The farm has no limit “a\\u{7}”; `kiln limits` lists them, `kiln limits set NAME N` makes one.",
            ),
            (
                Refusal::RequiresNoSuchLimit(name()),
                422,
                "The farm has no limit “oak”; `kiln limits` lists them, `kiln limits set NAME N` makes one.",
            ),
            (
                Refusal::RequiresMoreThanLimit { name: name(), count: 3, total: 2 },
                422,
                "A frame would take 3 of the limit oak, of which the farm has 2.",
            ),
            (
                Refusal::LimitInUse { job: JOB, name: name() },
                409,
                "Job 7 needs the limit oak and would wait without end; let it end or cancel it, then remove the limit.",
            ),
            (Refusal::TooManyPools(64), 409, "A worker is in at most 64 pools."),
            (
                Refusal::NoSuchWorker(name()),
                404,
                "There is no worker named “oak”; `kiln workers` lists them.",
            ),
            (Refusal::WorkerOffline(name()), 409, "The worker oak is offline already."),
            (
                Refusal::WorkerConnected(name()),
                409,
                "The worker oak is connected; stop or drain it first, then remove it.",
            ),
            (Refusal::WorkerAwake(name()), 409, "The worker oak is awake already."),
            (
                Refusal::NoNetworkCards(name()),
                409,
                "The network cards of oak are not known; it reports them when it connects.",
            ),
            (Refusal::NotQuarantined(name()), 409, "The worker oak is not quarantined."),
            (Refusal::BatchDropped, 503, "The scheduler was restarted and has not done this; try again."),
            (
                Refusal::Stopping,
                500,
                "The server is stopping and has not done this; send it again when the server is back.",
            ),
            (
                Refusal::failed("the records could not be read", "a secret"),
                500,
                "The records could not be read; the server's log says more.",
            ),
        ]
    }

    #[test]
    fn every_refusal_is_a_problem_and_every_error_a_fragment() {
        let mut variants = std::collections::BTreeSet::new();
        for (refusal, status, detail) in table() {
            let problem = problem_of(&refusal);
            assert_eq!((problem.status, problem.detail.as_str()), (status, detail), "{refusal:?}");
            assert!(ProblemCode::ALL.contains(&problem.code), "{:?}", problem.code);
            let text = refusal.to_string();
            assert!(!text.ends_with('.') && !text.starts_with(char::is_uppercase), "{text}");
            let name: String = format!("{refusal:?}").chars().take_while(|c| c.is_alphanumeric()).collect();
            variants.insert(name);
        }
        let source = include_str!("../scheduler/refusal.rs");
        let body = source.split("enum Refusal {").nth(1).unwrap().split("\n}").next().unwrap();
        let starts = |line: &&str| line.starts_with("    ") && line[4..].starts_with(char::is_uppercase);
        assert_eq!(variants.len(), body.lines().filter(starts).count(), "one of each: {variants:?}");
    }

    #[test]
    fn a_caller_who_may_try_again_is_told_when() {
        use axum::{http::header, response::IntoResponse as _};
        let response = ProblemResponse::from(Refusal::BatchDropped).into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "5");
        let stopping = ProblemResponse::from(Refusal::Stopping).into_response();
        assert!(stopping.headers().get(header::RETRY_AFTER).is_none(), "this server no longer answers");
    }
}
