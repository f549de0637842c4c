//! Workers, and what a person may want of them.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{State, ws::WebSocketUpgrade},
    http::StatusCode,
    response::Response,
};
use kiln_api::{ChangePools, ProblemCode, WorkerList, WorkerView};
use kiln_types::DesiredState;

use super::document::{Conflict, UpgradeRequired};
use crate::{
    app::App,
    connections::Connection,
    links,
    problem::{Answer, Json, Path, ProblemResponse},
    scheduler::{FarmSetting, FarmState, Input, Refusal},
};

/// Workers that are looked at before others have their turn: the list of a large farm holds up nobody.
pub(super) const LOOKED_AT: usize = 500;

/// Every worker that the farm knows, connected or not.
#[utoipa::path(get, path = "/api/v1/workers", tag = "workers",
    responses((status = 200, body = WorkerList)))]
pub(super) async fn list(State(app): State<Arc<App>>) -> Answer<axum::Json<WorkerList>> {
    let all = app.scheduler.look(|farm| farm.workers_by_name()).await?;
    let mut workers = Vec::with_capacity(all.len());
    for some in all.chunks(LOOKED_AT) {
        let some = some.to_vec();
        let views = move |farm: &FarmState| {
            some.into_iter().filter_map(|id| farm.worker_view(id)).collect::<Vec<_>>()
        };
        workers.extend(app.scheduler.look(views).await?);
    }
    Ok(axum::Json(WorkerList { workers }))
}

/// One worker.
#[utoipa::path(get, path = "/api/v1/workers/{name}", tag = "workers", params(("name" = String, Path)),
    responses((status = 200, body = WorkerView)))]
pub(super) async fn get(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Answer<axum::Json<WorkerView>> {
    view(&app, name).await
}

async fn view(app: &App, name: String) -> Answer<axum::Json<WorkerView>> {
    let wanted = name.clone();
    let view = app.scheduler.look(move |farm| farm.worker_view(farm.workers.named(&wanted)?)).await?;
    Ok(axum::Json(view.ok_or(Refusal::NoSuchWorker(name))?))
}

async fn set_desired(app: &App, name: String, desired: DesiredState) -> Answer<axum::Json<WorkerView>> {
    let worker = name.clone();
    app.scheduler.ask(|reply| Input::DesiredState { name: worker, desired, reply }).await?;
    view(app, name).await
}

/// It gets no new work until it is resumed.
#[utoipa::path(post, path = "/api/v1/workers/{name}/pause", tag = "workers", params(("name" = String, Path)),
    responses((status = 200, body = WorkerView)))]
pub(super) async fn pause(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Answer<axum::Json<WorkerView>> {
    set_desired(&app, name, DesiredState::Paused).await
}

/// It works again.
#[utoipa::path(post, path = "/api/v1/workers/{name}/resume", tag = "workers", params(("name" = String, Path)),
    responses((status = 200, body = WorkerView)))]
pub(super) async fn resume(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Answer<axum::Json<WorkerView>> {
    set_desired(&app, name, DesiredState::Active).await
}

/// It finishes what it renders, hands the rest back, and leaves.
#[utoipa::path(post, path = "/api/v1/workers/{name}/drain", tag = "workers", params(("name" = String, Path)),
    responses((status = 200, body = WorkerView), Conflict))]
pub(super) async fn drain(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Answer<axum::Json<WorkerView>> {
    set_desired(&app, name, DesiredState::Draining).await
}

/// It hands everything back at once, and leaves.
#[utoipa::path(post, path = "/api/v1/workers/{name}/stop", tag = "workers", params(("name" = String, Path)),
    responses((status = 200, body = WorkerView), Conflict))]
pub(super) async fn stop(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Answer<axum::Json<WorkerView>> {
    set_desired(&app, name, DesiredState::Stopped).await
}

/// Ends the quarantine of a worker that failed or went down where others deliver: it gets work again.
#[utoipa::path(post, path = "/api/v1/workers/{name}/unquarantine", tag = "workers", params(("name" = String, Path)),
    responses((status = 200, body = WorkerView), Conflict))]
pub(super) async fn unquarantine(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Answer<axum::Json<WorkerView>> {
    let worker = name.clone();
    app.scheduler.ask(|reply| Input::Unquarantine { name: worker, reply }).await?;
    view(&app, name).await
}

/// Starts the machine of a worker that is offline, by wake-on-LAN; when it is up, the worker connects.
#[utoipa::path(post, path = "/api/v1/workers/{name}/wake", tag = "workers", params(("name" = String, Path)),
    responses((status = 200, body = WorkerView), Conflict))]
pub(super) async fn wake(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Answer<axum::Json<WorkerView>> {
    app.waker.wake(name.clone()).await?;
    view(&app, name).await
}

/// Puts it into pools, or takes it out of them: jobs may ask for a pool.
#[utoipa::path(post, path = "/api/v1/workers/{name}/pools", tag = "workers", params(("name" = String, Path)),
    request_body = ChangePools, responses((status = 200, body = WorkerView), Conflict))]
pub(super) async fn pools(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Json(change): Json<ChangePools>,
) -> Answer<axum::Json<WorkerView>> {
    let setting = FarmSetting::Pools { worker: name.clone(), change };
    app.scheduler.ask(|reply| Input::Set { setting, reply }).await?;
    view(&app, name).await
}

/// Forgets a worker that is offline.
#[utoipa::path(delete, path = "/api/v1/workers/{name}", tag = "workers", params(("name" = String, Path)),
    responses((status = 204, description = "It is forgotten"), Conflict))]
pub(super) async fn remove(State(app): State<Arc<App>>, Path(name): Path<String>) -> Answer<StatusCode> {
    app.scheduler.ask(|reply| Input::RemoveWorker { name, reply }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The WebSocket of a worker.
#[utoipa::path(get, path = "/api/v1/worker", tag = "workers",
    responses((status = 101, description = "A WebSocket: JSON text messages, a hello first"), UpgradeRequired))]
pub(super) async fn link(
    State(app): State<Arc<App>>,
    Extension(connection): Extension<Arc<Connection>>,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Answer<Response> {
    let upgrade = upgrade.map_err(|rejection| {
        ProblemResponse::new(ProblemCode::UpgradeRequired, format!("{}.", rejection.body_text()))
    })?;
    let links = app.links.clone();
    Ok(upgrade
        .max_message_size(links::MAX_MESSAGE)
        .max_frame_size(links::MAX_MESSAGE)
        .read_buffer_size(links::READ_BUFFER)
        .on_upgrade(move |socket| {
            links.track_future(async move {
                links::serve(app, socket).await;
                // HTTP is over with the upgrade; the connection is not.
                drop(connection);
            })
        }))
}
