//! Jobs: lists, pages, verbs.

use std::{collections::BTreeSet, sync::Arc};

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
    app::App,
    problem::{Answer, Json, OptionalJson, Path, ProblemResponse, Query, store_fault},
    retention::kept,
    scheduler::{Input, JobAction, LiveJobView},
};

/// Jobs that one waits for, tags or limits that it names; of each.
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
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Query(which): Query<JobsQuery>,
) -> Answer<axum::Json<JobList>> {
    let archived = match which.archived {
        ArchivedFilter::No => Some(false),
        ArchivedFilter::Only => Some(true),
        ArchivedFilter::All => None,
    };
    let filter = JobSelection { owner: which.user, project: which.project, archived, states: which.state.0 };
    let limit = which.limit.get();
    let rows = app.store.jobs(&filter, limit, which.before).await.map_err(store_fault)?;
    let next = (rows.len() == limit as usize).then(|| rows.last().map(|row| row.id)).flatten();
    let ids: Vec<JobId> = rows.iter().map(|row| row.id).collect();
    let live = app.scheduler.look(move |farm| farm.job_views(&ids)).await?;
    let jobs = rows.into_iter().zip(live).map(|(row, live)| shown(&app, row, live)).collect();
    Ok(axum::Json(JobList { jobs, next }))
}

/// One job.
#[utoipa::path(get, path = "/api/v1/jobs/{id}", tag = "jobs", params(("id" = JobId, Path)),
    responses((status = 200, body = JobView)))]
pub(super) async fn get(State(app): State<Arc<App>>, Path(id): Path<JobId>) -> Answer<axum::Json<JobView>> {
    view(&app, id).await.map(axum::Json)
}

/// The reasons for which it waits, and the time that it will take.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/explain", tag = "jobs", params(("id" = JobId, Path)),
    responses((status = 200, body = Explanation)))]
pub(super) async fn explain(
    State(app): State<Arc<App>>,
    Path(id): Path<JobId>,
) -> Answer<axum::Json<Explanation>> {
    let live = app.scheduler.look(move |farm| farm.explanation(id)).await?;
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

/// The job as it is on disk and in the scheduler.
pub(super) async fn view(app: &App, id: JobId) -> Answer<JobView> {
    let live = app.scheduler.look(move |farm| farm.job_view(id)).await?;
    let row = row(app, id).await?;
    let frames_step = row.plan.frames_step();
    let known = live.is_some();
    let mut view = shown(app, row, live);
    if !known {
        let shares = app.store.job_report(id, frames_step).await.map_err(store_fault)?;
        let (seconds, frames) =
            shares.iter().fold((0.0, 0), |(s, n), share| (s + share.seconds, n + share.frames));
        view.mean_frame_s = (frames > 0).then(|| seconds / frames as f64);
    }
    Ok(view)
}

pub(super) async fn row(app: &App, id: JobId) -> Answer<JobRow> {
    let row = app.store.job(id).await.map_err(store_fault)?;
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
        // A step may begin when those before it have ended.
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
        kept: kept(app.collector.retention.as_ref(), &row.kept, row.ended_ms),
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

async fn verb(app: &App, job: JobId, verb: JobAction) -> Answer<axum::Json<JobView>> {
    reopen(app, job, verb).await.map(|axum::Json(reopened)| axum::Json(reopened.job))
}

/// Does what may let tasks run again.
async fn reopen(app: &App, job: JobId, verb: JobAction) -> Answer<axum::Json<ReopenedJob>> {
    let again = app.scheduler.ask(|reply| Input::Job { job, verb, reply }).await?;
    Ok(axum::Json(ReopenedJob { job: view(app, job).await?, again }))
}

/// Nothing new of it starts until it is resumed.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/pause", tag = "jobs", params(("id" = JobId, Path)),
    responses((status = 200, body = JobView), Conflict))]
pub(super) async fn pause(State(app): State<Arc<App>>, Path(id): Path<JobId>) -> Answer<axum::Json<JobView>> {
    verb(&app, id, JobAction::Pause).await
}

/// It goes on.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/resume", tag = "jobs", params(("id" = JobId, Path)),
    responses((status = 200, body = JobView), Conflict))]
pub(super) async fn resume(
    State(app): State<Arc<App>>,
    Path(id): Path<JobId>,
) -> Answer<axum::Json<JobView>> {
    verb(&app, id, JobAction::Resume).await
}

/// It ends; what renders is stopped, what is done stays.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/cancel", tag = "jobs", params(("id" = JobId, Path)),
    responses((status = 200, body = JobView), Conflict))]
pub(super) async fn cancel(
    State(app): State<Arc<App>>,
    Path(id): Path<JobId>,
) -> Answer<axum::Json<JobView>> {
    verb(&app, id, JobAction::Cancel).await
}

/// Its failed and cancelled frames try again.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/retry", tag = "jobs", params(("id" = JobId, Path)),
    responses((status = 200, body = ReopenedJob), Conflict))]
pub(super) async fn retry(
    State(app): State<Arc<App>>,
    Path(id): Path<JobId>,
) -> Answer<axum::Json<ReopenedJob>> {
    reopen(&app, id, JobAction::Retry).await
}

/// Renders frames again that are done. The body may be absent: then all of them. Simulations stay as they were
/// baked, unless that is asked for.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/rerender", tag = "jobs", params(("id" = JobId, Path)),
    request_body = Option<RerenderJob>, responses((status = 200, body = ReopenedJob), Conflict, Unprocessable))]
pub(super) async fn rerender(
    State(app): State<Arc<App>>,
    Path(id): Path<JobId>,
    OptionalJson(request): OptionalJson<Option<RerenderJob>>,
) -> Answer<axum::Json<ReopenedJob>> {
    let RerenderJob { frames, bake } = request.unwrap_or_default();
    match (frames, bake) {
        (frames, false) => reopen(&app, id, JobAction::Rerender(frames)).await,
        (None, true) => reopen(&app, id, JobAction::Rebake).await,
        (Some(_), true) => {
            Err(ProblemResponse::unprocessable("A new bake renders every frame again; leave the frames out."))
        }
    }
}

/// Lets it stand otherwise among the others.
#[utoipa::path(patch, path = "/api/v1/jobs/{id}", tag = "jobs", params(("id" = JobId, Path)),
    request_body = ChangeJob, responses((status = 200, body = JobView), Conflict, Unprocessable))]
pub(super) async fn change(
    State(app): State<Arc<App>>,
    Path(id): Path<JobId>,
    Json(change): Json<ChangeJob>,
) -> Answer<axum::Json<JobView>> {
    if let Some(after) = &change.after {
        check_after(after)?;
    }
    verb(&app, id, JobAction::Change(change)).await
}

/// Adds frames.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/extend", tag = "jobs", params(("id" = JobId, Path)),
    request_body = ExtendJob, responses((status = 200, body = ReopenedJob), Conflict, Unprocessable))]
pub(super) async fn extend(
    State(app): State<Arc<App>>,
    Path(id): Path<JobId>,
    Json(request): Json<ExtendJob>,
) -> Answer<axum::Json<ReopenedJob>> {
    reopen(&app, id, JobAction::Extend(request.frames)).await
}

/// Adds a step, which may depend on every step that is there. A job that has ended goes on with it. Kinds of steps that a
/// job is submitted with cannot be added.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/steps", tag = "jobs", params(("id" = JobId, Path)),
    request_body = StepSpec, responses((status = 201, body = ReopenedJob), NotFound, Conflict, Unprocessable))]
pub(super) async fn add_step(
    State(app): State<Arc<App>>,
    Path(id): Path<JobId>,
    Json(step): Json<StepSpec>,
) -> Answer<(StatusCode, axum::Json<ReopenedJob>)> {
    let reopened = reopen(&app, id, JobAction::AddStep(Box::new(step))).await?;
    Ok((StatusCode::CREATED, reopened))
}

/// Puts a job that has ended away: lists show it no more, its frames stay until it is deleted, and its files and
/// logs go with the next collection.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/archive", tag = "jobs", params(("id" = JobId, Path)),
    responses((status = 200, body = JobView), Conflict))]
pub(super) async fn archive(
    State(app): State<Arc<App>>,
    Path(id): Path<JobId>,
) -> Answer<axum::Json<JobView>> {
    verb(&app, id, JobAction::Archive(true)).await
}

/// Takes it back out. What has gone has gone.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/unarchive", tag = "jobs", params(("id" = JobId, Path)),
    responses((status = 200, body = JobView)))]
pub(super) async fn unarchive(
    State(app): State<Arc<App>>,
    Path(id): Path<JobId>,
) -> Answer<axum::Json<JobView>> {
    verb(&app, id, JobAction::Archive(false)).await
}

/// Says which outputs are on the disk of who asked for them: only what was fetched is ever let go of.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/fetched", tag = "jobs", params(("id" = JobId, Path)),
    request_body = Fetched, responses((status = 204, description = "It is noted")))]
pub(super) async fn fetched(
    State(app): State<Arc<App>>,
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
    /// Cancels it first, where it has not ended.
    #[serde(default)]
    #[param(required = false)]
    force: bool,
}

/// Deletes a job that has ended: its tasks, attempts, outputs and logs.
#[utoipa::path(delete, path = "/api/v1/jobs/{id}", tag = "jobs", params(("id" = JobId, Path), DeleteQuery),
    responses((status = 204, description = "It is gone"), Conflict))]
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    Path(id): Path<JobId>,
    Query(DeleteQuery { force }): Query<DeleteQuery>,
) -> Answer<StatusCode> {
    app.scheduler.ask(|reply| Input::Job { job: id, verb: JobAction::Delete { force }, reply }).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) fn check_after(after: &BTreeSet<JobId>) -> Answer<()> {
    if after.len() > MAX_LISTED {
        return Err(ProblemResponse::bad(format!("A job waits for at most {MAX_LISTED} others.")));
    }
    Ok(())
}
