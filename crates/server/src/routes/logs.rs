//! The output of Blender, also of running attempts.

use std::io;

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use kiln_api::ProblemCode;
use kiln_store::{AttemptRow, AttemptSelection, JobRow};
use kiln_types::{AttemptId, JobId};
use serde::Deserialize;
use tokio_util::io::ReaderStream;

use super::{document::Gone, job_data::position, jobs::row};
use crate::{
    app::{App, AppState},
    clock::ago,
    problem::{Answer, Path, ProblemResponse, Query},
};

/// Attempts in one answer; with more, the newest ones.
const MAX_ATTEMPTS: u32 = 500;

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct LogsQuery {
    /// Only the attempts of this frame.
    frame: Option<i32>,
    /// Only this attempt.
    attempt: Option<AttemptId>,
}

/// The logs of a job's attempts, oldest first, each below a line that names it.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/logs", tag = "jobs", params(("id" = JobId, Path), LogsQuery),
    responses((status = 200, body = String, content_type = "text/plain"), Gone))]
pub(super) async fn of_job(
    State(app): AppState,
    Path(id): Path<JobId>,
    Query(which): Query<LogsQuery>,
) -> Answer<Response> {
    let job = row(&app, id).await?;
    if let Some(attempt) = which.attempt {
        return one(&app, &job, attempt).await;
    }
    let task = match which.frame {
        Some(frame) => Some((job.plan.frames_step(), position(&job.spec.frames, id, frame)?)),
        None => None,
    };
    let filter = AttemptSelection { task, ..AttemptSelection::default() };
    let mut attempts = app.store.attempts(id, &filter, MAX_ATTEMPTS).await?;
    attempts.reverse();
    if let (Some(at_ms), true) = (job.kept.logs_gone_ms, !attempts.is_empty())
        && attempts.iter().all(|attempt| gone(&job, attempt).is_some())
    {
        return Err(logs_gone(id, at_ms));
    }
    app.logs.flush().await;
    let names = app.store.worker_names(attempts.iter().map(|attempt| attempt.worker)).await?;
    let heads: Vec<(String, AttemptRow)> = attempts
        .into_iter()
        .map(|attempt| {
            let task = job.name_of(attempt.task.step, attempt.task.index);
            let worker = names.get(&attempt.worker).cloned().unwrap_or_else(|| attempt.worker.to_string());
            (format!("== {task}, attempt {}, {worker}, {} ==\n", attempt.id, attempt.state), attempt)
        })
        .collect();
    let pieces = stream::iter(heads).then(move |(head, attempt)| {
        let path = app.logs.path(id, attempt.id);
        async move {
            let head = stream::iter([Ok::<_, io::Error>(Bytes::from(head))]);
            let body = match tokio::fs::File::open(path).await {
                Ok(file) => ReaderStream::new(file).left_stream(),
                // The attempt has printed nothing.
                Err(_) => stream::empty().right_stream(),
            };
            Ok::<_, io::Error>(head.chain(body))
        }
    });
    Ok(text(Body::from_stream(pieces.try_flatten())))
}

/// The log of one attempt.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/attempts/{attempt}/log", tag = "jobs",
    params(("id" = JobId, Path), ("attempt" = AttemptId, Path, description = "As epoch-counter")),
    responses((status = 200, body = String, content_type = "text/plain"), Gone))]
pub(super) async fn of_attempt(
    State(app): AppState,
    Path((id, attempt)): Path<(JobId, AttemptId)>,
) -> Answer<Response> {
    let job = row(&app, id).await?;
    one(&app, &job, attempt).await
}

async fn one(app: &App, job: &JobRow, attempt: AttemptId) -> Answer<Response> {
    let known = app.store.attempt(attempt).await?;
    let none = || ProblemResponse::not_found(format!("Job {} has no attempt {attempt}.", job.id));
    let known = known.filter(|known| known.task.job == job.id).ok_or_else(none)?;
    app.logs.flush().await;
    let body = match tokio::fs::File::open(app.logs.path(job.id, attempt)).await {
        Ok(file) => Body::from_stream(ReaderStream::new(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match gone(job, &known) {
            Some(at_ms) => return Err(logs_gone(job.id, at_ms)),
            None => Body::empty(),
        },
        Err(error) => return Err(ProblemResponse::internal("The log could not be read", error)),
    };
    Ok(text(body))
}

/// Returns the time at which the log of the attempt was removed.
fn gone(job: &JobRow, attempt: &AttemptRow) -> Option<i64> {
    let at_ms = job.kept.logs_gone_ms?;
    attempt.ended_ms.is_some_and(|ended| ended <= at_ms).then_some(at_ms)
}

fn logs_gone(job: JobId, at_ms: i64) -> ProblemResponse {
    ProblemResponse::new(
        ProblemCode::Gone,
        format!("The logs of job {job} were removed {}; its report stays.", ago(at_ms)),
    )
}

fn text(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response()
}
