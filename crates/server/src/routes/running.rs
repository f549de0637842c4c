//! The running tasks of one job or of all, which clients that watch a farm request repeatedly.

use axum::extract::State;
use kiln_api::RunningList;
use kiln_types::JobId;
use serde::Deserialize;

use super::{document::NotFound, job_data::PageLimit, jobs::row, workers::AT_ONCE};
use crate::{
    app::AppState,
    problem::{JsonAnswer, Path, Query},
};

/// The running tasks of all jobs, in the order of the workers' names.
#[utoipa::path(get, path = "/api/v1/running", operation_id = "running", tag = "workers",
    responses((status = 200, body = RunningList)))]
pub(super) async fn of_farm(State(app): AppState) -> JsonAnswer<RunningList> {
    let all = app.scheduler.read(|farm| farm.workers_by_name()).await?;
    let mut list = RunningList { count: 0, inside: 0.0, running: Vec::new() };
    for some in all.chunks(AT_ONCE) {
        let some = some.to_vec();
        let more = app.scheduler.read(move |farm| farm.running_on(&some)).await?;
        list.count = list.count.saturating_add(more.count);
        list.inside += more.inside;
        list.running.extend(more.running);
    }
    Ok(axum::Json(list))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct RunningQuery {
    /// At most this number in full; 500 where absent. All of them are counted.
    #[serde(default)]
    #[param(value_type = Option<u32>, required = false, minimum = 1, maximum = 5000)]
    limit: PageLimit,
}

/// The running tasks of a job. The size of the answer does not depend on the size of the farm.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/running", operation_id = "running_of_job", tag = "jobs", params(("id" = JobId, Path), RunningQuery),
    responses((status = 200, body = RunningList), NotFound))]
pub(super) async fn of_job(
    State(app): AppState,
    Path(id): Path<JobId>,
    Query(query): Query<RunningQuery>,
) -> JsonAnswer<RunningList> {
    let most = query.limit.get() as usize;
    let list = match app.scheduler.read(move |farm| farm.running_of(id, most)).await? {
        Some(list) => list,
        None => {
            // The job has ended long ago, or does not exist.
            row(&app, id).await?;
            RunningList { count: 0, inside: 0.0, running: Vec::new() }
        }
    };
    Ok(axum::Json(list))
}
