//! Jobs: lists, views and commands.

use std::collections::BTreeSet;

use axum::{extract::State, http::StatusCode};
use kiln_api::{
    ChangeJob, Explanation, ExtendJob, Fetched, JobList, JobView, ReopenedJob, RerenderJob, StepView,
};
use kiln_store::{JobRow, JobSelection, StepRow};
use kiln_types::{ArchivedFilter, JobId, JobState, Name, Owner, Project, StepSpec, TaskCounts};
use serde::Deserialize;

use super::{
    document::{Conflict, NotFound, Unprocessable},
    page::{CommaSeparated, PageSize},
};
use crate::{
    app::{App, AppState},
    problem::{Answer, Json, JsonAnswer, OptionalJson, Path, ProblemResponse, Query},
    retention::job_retention,
    scheduler::{Input, JobCommand, LiveJobView},
};

/// Dependencies, tags or limits of one job.
pub(super) const MAX_LISTED: usize = 64;

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct JobsQuery {
    /// Only those in this state; several, with commas between.
    #[serde(default)]
    #[param(value_type = Option<Vec<JobState>>, required = false, style = Form, explode = false, min_items = 1)]
    state: CommaSeparated<JobState>,
    /// Only those of this user.
    #[param(value_type = Option<Name>)]
    user: Option<Owner>,
    /// Only those of this project.
    #[param(value_type = Option<Name>)]
    project: Option<Project>,
    /// At most this number; 50 where absent.
    #[serde(default)]
    #[param(value_type = Option<u32>, required = false, minimum = 1, maximum = 500)]
    limit: PageSize<50, 500>,
    /// Only older ones than this.
    before: Option<JobId>,
    /// `only` for those that are archived, `all` for both; where absent, only those that are not.
    #[serde(default)]
    #[param(inline, required = false)]
    archived: ArchivedFilter,
}

/// Jobs, newest first.
#[utoipa::path(get, path = "/api/v1/jobs", tag = "jobs", params(JobsQuery),
    responses((status = 200, body = JobList)))]
pub(super) async fn list(State(app): AppState, Query(which): Query<JobsQuery>) -> JsonAnswer<JobList> {
    let archived = match which.archived {
        ArchivedFilter::No => Some(false),
        ArchivedFilter::Only => Some(true),
        ArchivedFilter::All => None,
    };
    let filter = JobSelection { owner: which.user, project: which.project, archived, states: which.state.0 };
    let limit = which.limit.get();
    let rows = app.store.jobs(&filter, limit, which.before).await?;
    let next = (rows.len() == limit as usize).then(|| rows.last().map(|row| row.id)).flatten();
    let ids: Vec<JobId> = rows.iter().map(|row| row.id).collect();
    let live = app.scheduler.read(move |farm| farm.job_views(&ids)).await?;
    let jobs = rows.into_iter().zip(live).map(|(row, live)| shown(&app, row, live)).collect();
    Ok(axum::Json(JobList { jobs, next }))
}

/// One job.
#[utoipa::path(get, path = "/api/v1/jobs/{id}", tag = "jobs", params(("id" = JobId, Path)),
    responses((status = 200, body = JobView)))]
pub(super) async fn get(State(app): AppState, Path(id): Path<JobId>) -> JsonAnswer<JobView> {
    view(&app, id).await.map(axum::Json)
}

/// The reasons for which a job waits, and the time that it will take.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/explain", tag = "jobs", params(("id" = JobId, Path)),
    responses((status = 200, body = Explanation)))]
pub(super) async fn explain(State(app): AppState, Path(id): Path<JobId>) -> JsonAnswer<Explanation> {
    let live = app.scheduler.read(move |farm| farm.explanation(id)).await?;
    let explanation = match live {
        Some(explanation) => explanation,
        None => {
            let row = row(&app, id).await?;
            let (state, counts) = (row.state, TaskCounts::default());
            Explanation { state, counts, steps: Vec::new(), unmet: Vec::new(), left: None }
        }
    };
    Ok(axum::Json(explanation))
}

/// Returns a job with its live state.
pub(super) async fn view(app: &App, id: JobId) -> Answer<JobView> {
    let live = app.scheduler.read(move |farm| farm.job_view(id)).await?;
    let row = row(app, id).await?;
    let frames_step = row.plan.frames_step();
    let known = live.is_some();
    let mut view = shown(app, row, live);
    if !known {
        let shares = app.store.job_report(id, frames_step).await?;
        let (seconds, frames) =
            shares.iter().fold((0.0, 0), |(s, n), share| (s + share.seconds, n + share.frames));
        view.mean_frame_s = (frames > 0).then(|| seconds / frames as f64);
    }
    Ok(view)
}

pub(super) async fn row(app: &App, id: JobId) -> Answer<JobRow> {
    let row = app.store.job(id).await?;
    row.ok_or_else(|| ProblemResponse::not_found(format!("There is no job {id}; `kiln jobs` lists them.")))
}

fn shown(app: &App, row: JobRow, live: Option<LiveJobView>) -> JobView {
    let ended = row.state.is_end();
    // The scheduler may be a moment ahead of the row that was read.
    let live = live.filter(|live| live.state.is_end() == ended);
    let mut steps: Vec<StepView> = Vec::new();
    for (step, (_, spec)) in row.steps.iter().zip(row.plan.iter()) {
        let known = live.as_ref().and_then(|live| live.steps.get(usize::from(step.step.0)));
        let (tasks, inside) =
            known.map_or_else(|| (stored(step, ended), 0.0), |known| (known.tasks, known.inside));
        // A step may begin when the steps on which it depends have ended.
        let before: Option<Vec<i64>> =
            spec.after.iter().map(|after| steps.get(usize::from(after.step.0))?.ended_ms).collect();
        steps.push(StepView {
            index: step.step,
            kind: spec.kind,
            after: spec.after.iter().map(|after| after.step).collect(),
            tasks,
            progress: ((f64::from(tasks.done) + inside) / f64::from(tasks.total.max(1))).min(1.0),
            started_ms: before.and_then(|before| before.into_iter().max().or(row.started_ms)),
            ended_ms: step.ended_ms,
        });
    }
    let frames = steps.get(usize::from(row.plan.frames_step().0));
    let tasks = frames.map_or_else(TaskCounts::default, |frames| frames.tasks);
    let live = live.unwrap_or(LiveJobView {
        state: row.state,
        steps: Vec::new(),
        workers_busy: 0,
        waits_for: None,
        unmet: Vec::new(),
        mean_frame_s: None,
        left: None,
    });
    JobView {
        id: row.id,
        name: row.spec.name.clone(),
        owner: row.spec.owner.clone(),
        project: row.spec.project.clone(),
        state: row.state,
        reason: row.reason,
        spec: row.spec,
        created_ms: row.created_ms,
        started_ms: row.started_ms,
        ended_ms: row.ended_ms,
        steps,
        tasks,
        notices: row.notices.into_iter().map(|notice| notice.text).collect(),
        workers_busy: live.workers_busy,
        waits_for: live.waits_for,
        unmet: live.unmet,
        mean_frame_s: live.mean_frame_s,
        seconds_left: live.left.map(|left| left.likely_s),
        left: live.left,
        kept: job_retention(app.collector.retention.as_ref(), &row.kept, row.ended_ms),
    }
}

/// Of a job that the scheduler does not hold: nothing of it runs, and of an ended one nothing waits.
fn stored(step: &StepRow, ended: bool) -> TaskCounts {
    let rest = step.count.saturating_sub(step.done + step.failed);
    let (waiting, cancelled) = if ended { (0, rest) } else { (rest, 0) };
    TaskCounts {
        total: step.count,
        done: step.done,
        failed: step.failed,
        waiting,
        cancelled,
        ..TaskCounts::default()
    }
}

async fn command(app: &App, job: JobId, command: JobCommand) -> JsonAnswer<JobView> {
    reopen(app, job, command).await.map(|axum::Json(reopened)| axum::Json(reopened.job))
}

/// Runs a command that may let tasks run again.
async fn reopen(app: &App, job: JobId, command: JobCommand) -> JsonAnswer<ReopenedJob> {
    let again = app.scheduler.ask(|reply| Input::Job { job, command, reply }).await?;
    Ok(axum::Json(ReopenedJob { job: view(app, job).await?, again }))
}

/// Pauses a job: no further task starts until it is resumed.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/pause", tag = "jobs", params(("id" = JobId, Path)),
    responses((status = 200, body = JobView), Conflict))]
pub(super) async fn pause(State(app): AppState, Path(id): Path<JobId>) -> JsonAnswer<JobView> {
    command(&app, id, JobCommand::Pause).await
}

/// Resumes a job.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/resume", tag = "jobs", params(("id" = JobId, Path)),
    responses((status = 200, body = JobView), Conflict))]
pub(super) async fn resume(State(app): AppState, Path(id): Path<JobId>) -> JsonAnswer<JobView> {
    command(&app, id, JobCommand::Resume).await
}

/// Cancels a job: running tasks are stopped, finished frames stay.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/cancel", tag = "jobs", params(("id" = JobId, Path)),
    responses((status = 200, body = JobView), Conflict))]
pub(super) async fn cancel(State(app): AppState, Path(id): Path<JobId>) -> JsonAnswer<JobView> {
    command(&app, id, JobCommand::Cancel).await
}

/// Retries the failed and cancelled frames of a job.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/retry", tag = "jobs", params(("id" = JobId, Path)),
    responses((status = 200, body = ReopenedJob), Conflict))]
pub(super) async fn retry(State(app): AppState, Path(id): Path<JobId>) -> JsonAnswer<ReopenedJob> {
    reopen(&app, id, JobCommand::Retry).await
}

/// Renders finished frames again: those of the body, or all without one. Simulations are baked again only on request.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/rerender", tag = "jobs", params(("id" = JobId, Path)),
    request_body = Option<RerenderJob>, responses((status = 200, body = ReopenedJob), Conflict, Unprocessable))]
pub(super) async fn rerender(
    State(app): AppState,
    Path(id): Path<JobId>,
    OptionalJson(request): OptionalJson<Option<RerenderJob>>,
) -> JsonAnswer<ReopenedJob> {
    let RerenderJob { frames, bake } = request.unwrap_or_default();
    match (frames, bake) {
        (frames, false) => reopen(&app, id, JobCommand::Rerender(frames)).await,
        (None, true) => reopen(&app, id, JobCommand::Rebake).await,
        (Some(_), true) => {
            Err(ProblemResponse::unprocessable("A new bake renders every frame again; leave the frames out."))
        }
    }
}

/// Changes the scheduling options of a job.
#[utoipa::path(patch, path = "/api/v1/jobs/{id}", tag = "jobs", params(("id" = JobId, Path)),
    request_body = ChangeJob, responses((status = 200, body = JobView), Conflict, Unprocessable))]
pub(super) async fn change(
    State(app): AppState,
    Path(id): Path<JobId>,
    Json(change): Json<ChangeJob>,
) -> JsonAnswer<JobView> {
    if let Some(after) = &change.after {
        check_after(after)?;
    }
    command(&app, id, JobCommand::Change(change)).await
}

/// Adds frames to a job.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/extend", tag = "jobs", params(("id" = JobId, Path)),
    request_body = ExtendJob, responses((status = 200, body = ReopenedJob), Conflict, Unprocessable))]
pub(super) async fn extend(
    State(app): AppState,
    Path(id): Path<JobId>,
    Json(request): Json<ExtendJob>,
) -> JsonAnswer<ReopenedJob> {
    reopen(&app, id, JobCommand::Extend(request.frames)).await
}

/// Adds a step, which may depend on every existing step; a job that has ended continues with it. Steps of the kinds that
/// belong to a submission cannot be added.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/steps", tag = "jobs", params(("id" = JobId, Path)),
    request_body = StepSpec, responses((status = 201, body = ReopenedJob), NotFound, Conflict, Unprocessable))]
pub(super) async fn add_step(
    State(app): AppState,
    Path(id): Path<JobId>,
    Json(step): Json<StepSpec>,
) -> Answer<(StatusCode, axum::Json<ReopenedJob>)> {
    let reopened = reopen(&app, id, JobCommand::AddStep(Box::new(step))).await?;
    Ok((StatusCode::CREATED, reopened))
}

/// Archives a job that has ended: lists no longer show it, its frames stay until it is deleted, and the next collection
/// removes its input files and logs.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/archive", tag = "jobs", params(("id" = JobId, Path)),
    responses((status = 200, body = JobView), Conflict))]
pub(super) async fn archive(State(app): AppState, Path(id): Path<JobId>) -> JsonAnswer<JobView> {
    command(&app, id, JobCommand::Archive(true)).await
}

/// Takes a job out of the archive. Files that were removed stay removed.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/unarchive", tag = "jobs", params(("id" = JobId, Path)),
    responses((status = 200, body = JobView)))]
pub(super) async fn unarchive(State(app): AppState, Path(id): Path<JobId>) -> JsonAnswer<JobView> {
    command(&app, id, JobCommand::Archive(false)).await
}

/// Notes which outputs the client has fetched: only fetched outputs expire.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/fetched", tag = "jobs", params(("id" = JobId, Path)),
    request_body = Fetched, responses((status = 204, description = "It is noted")))]
pub(super) async fn fetched(
    State(app): AppState,
    Path(job): Path<JobId>,
    Json(Fetched { sequence }): Json<Fetched>,
) -> Answer<StatusCode> {
    row(&app, job).await?;
    app.scheduler.ask(|reply| Input::Fetched { job, sequence, reply }).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct DeleteQuery {
    /// Cancels the job first if it has not ended.
    #[serde(default)]
    #[param(required = false)]
    force: bool,
}

/// Deletes a job that has ended: its tasks, attempts, outputs and logs.
#[utoipa::path(delete, path = "/api/v1/jobs/{id}", tag = "jobs", params(("id" = JobId, Path), DeleteQuery),
    responses((status = 204, description = "It is gone"), Conflict))]
pub(super) async fn delete(
    State(app): AppState,
    Path(id): Path<JobId>,
    Query(DeleteQuery { force }): Query<DeleteQuery>,
) -> Answer<StatusCode> {
    app.scheduler.ask(|reply| Input::Job { job: id, command: JobCommand::Delete { force }, reply }).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) fn check_after(after: &BTreeSet<JobId>) -> Answer<()> {
    if after.len() > MAX_LISTED {
        return Err(ProblemResponse::bad(format!("A job waits for at most {MAX_LISTED} others.")));
    }
    Ok(())
}
