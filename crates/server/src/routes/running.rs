//! What runs now, of one job and of all: what somebody who looks on asks for again and again.

use std::sync::Arc;

use axum::extract::State;
use kiln_api::RunningList;
use kiln_types::JobId;
use serde::Deserialize;

use super::{document::NotFound, jobs::row, page::PageSize, workers::LOOKED_AT};
use crate::{
    app::App,
    problem::{Answer, Path, Query},
};

/// What runs of all jobs now, by the names of workers.
#[utoipa::path(get, path = "/api/v1/running", operation_id = "running", tag = "workers",
    responses((status = 200, body = RunningList)))]
pub(super) async fn of_farm(State(app): State<Arc<App>>) -> Answer<axum::Json<RunningList>> {
    let all = app.scheduler.look(|farm| farm.workers_by_name()).await?;
    let mut list = RunningList { count: 0, inside: 0.0, running: Vec::new() };
    for some in all.chunks(LOOKED_AT) {
        let some = some.to_vec();
        let more = app.scheduler.look(move |farm| farm.running_on(&some)).await?;
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
    limit: PageSize<500, 5000>,
}

/// What runs of a job now. The size of the answer does not depend on the size of the farm.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/running", operation_id = "running_of_job", tag = "jobs", params(("id" = JobId, Path), RunningQuery),
    responses((status = 200, body = RunningList), NotFound))]
pub(super) async fn of_job(
    State(app): State<Arc<App>>,
    Path(id): Path<JobId>,
    Query(how_many): Query<RunningQuery>,
) -> Answer<axum::Json<RunningList>> {
    let most = how_many.limit.get() as usize;
    let list = match app.scheduler.look(move |farm| farm.running_of(id, most)).await? {
        Some(list) => list,
        None => {
            // It has ended long ago, or never was.
            row(&app, id).await?;
            RunningList { count: 0, inside: 0.0, running: Vec::new() }
        }
    };
    Ok(axum::Json(list))
}
