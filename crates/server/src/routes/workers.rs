//! Workers: views and commands.

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
    app::{App, AppState},
    connections::Connection,
    links,
    problem::{Answer, Json, JsonAnswer, Path, ProblemResponse},
    scheduler::{FarmSetting, FarmState, Input, Refusal},
};

/// Workers that one read of the scheduler's state includes, so that the list of a large farm delays no other request.
pub(super) const AT_ONCE: usize = 500;

/// All workers of the farm, connected or not.
#[utoipa::path(get, path = "/api/v1/workers", tag = "workers",
    responses((status = 200, body = WorkerList)))]
pub(super) async fn list(State(app): AppState) -> JsonAnswer<WorkerList> {
    let all = app.scheduler.read(|farm| farm.workers_by_name()).await?;
    let mut workers = Vec::with_capacity(all.len());
    for some in all.chunks(AT_ONCE) {
        let some = some.to_vec();
        let views = move |farm: &FarmState| {
            some.into_iter().filter_map(|id| farm.worker_view(id)).collect::<Vec<_>>()
        };
        workers.extend(app.scheduler.read(views).await?);
    }
    Ok(axum::Json(WorkerList { workers }))
}

/// One worker.
#[utoipa::path(get, path = "/api/v1/workers/{name}", tag = "workers", params(("name" = String, Path)),
    responses((status = 200, body = WorkerView)))]
pub(super) async fn get(State(app): AppState, Path(name): Path<String>) -> JsonAnswer<WorkerView> {
    view(&app, name).await
}

async fn view(app: &App, name: String) -> JsonAnswer<WorkerView> {
    let wanted = name.clone();
    let view = app.scheduler.read(move |farm| farm.worker_view(farm.workers.by_name(&wanted)?)).await?;
    Ok(axum::Json(view.ok_or(Refusal::NoSuchWorker(name))?))
}

async fn set_desired(app: &App, name: String, desired: DesiredState) -> JsonAnswer<WorkerView> {
    let worker = name.clone();
    app.scheduler.ask(|reply| Input::DesiredState { name: worker, desired, reply }).await?;
    view(app, name).await
}

/// Pauses a worker: it gets no new work until it is resumed.
#[utoipa::path(post, path = "/api/v1/workers/{name}/pause", tag = "workers", params(("name" = String, Path)),
    responses((status = 200, body = WorkerView)))]
pub(super) async fn pause(State(app): AppState, Path(name): Path<String>) -> JsonAnswer<WorkerView> {
    set_desired(&app, name, DesiredState::Paused).await
}

/// Resumes a worker.
#[utoipa::path(post, path = "/api/v1/workers/{name}/resume", tag = "workers", params(("name" = String, Path)),
    responses((status = 200, body = WorkerView)))]
pub(super) async fn resume(State(app): AppState, Path(name): Path<String>) -> JsonAnswer<WorkerView> {
    set_desired(&app, name, DesiredState::Active).await
}

/// Drains a worker: it finishes its running tasks, returns the others, and disconnects.
#[utoipa::path(post, path = "/api/v1/workers/{name}/drain", tag = "workers", params(("name" = String, Path)),
    responses((status = 200, body = WorkerView), Conflict))]
pub(super) async fn drain(State(app): AppState, Path(name): Path<String>) -> JsonAnswer<WorkerView> {
    set_desired(&app, name, DesiredState::Draining).await
}

/// Stops a worker: it returns all its tasks at once and disconnects.
#[utoipa::path(post, path = "/api/v1/workers/{name}/stop", tag = "workers", params(("name" = String, Path)),
    responses((status = 200, body = WorkerView), Conflict))]
pub(super) async fn stop(State(app): AppState, Path(name): Path<String>) -> JsonAnswer<WorkerView> {
    set_desired(&app, name, DesiredState::Stopped).await
}

/// Ends the quarantine of a worker: it gets work again.
#[utoipa::path(post, path = "/api/v1/workers/{name}/unquarantine", tag = "workers", params(("name" = String, Path)),
    responses((status = 200, body = WorkerView), Conflict))]
pub(super) async fn unquarantine(State(app): AppState, Path(name): Path<String>) -> JsonAnswer<WorkerView> {
    let worker = name.clone();
    app.scheduler.ask(|reply| Input::Unquarantine { name: worker, reply }).await?;
    view(&app, name).await
}

/// Wakes the machine of an offline worker by wake-on-LAN; once it has started, the worker connects.
#[utoipa::path(post, path = "/api/v1/workers/{name}/wake", tag = "workers", params(("name" = String, Path)),
    responses((status = 200, body = WorkerView), Conflict))]
pub(super) async fn wake(State(app): AppState, Path(name): Path<String>) -> JsonAnswer<WorkerView> {
    app.waker.wake(name.clone()).await?;
    view(&app, name).await
}

/// Puts a worker into pools, or takes it out of them: a job may require a pool.
#[utoipa::path(post, path = "/api/v1/workers/{name}/pools", tag = "workers", params(("name" = String, Path)),
    request_body = ChangePools, responses((status = 200, body = WorkerView), Conflict))]
pub(super) async fn pools(
    State(app): AppState,
    Path(name): Path<String>,
    Json(change): Json<ChangePools>,
) -> JsonAnswer<WorkerView> {
    let setting = FarmSetting::Pools { worker: name.clone(), change };
    app.scheduler.ask(|reply| Input::Set { setting, reply }).await?;
    view(&app, name).await
}

/// Removes an offline worker from the farm.
#[utoipa::path(delete, path = "/api/v1/workers/{name}", tag = "workers", params(("name" = String, Path)),
    responses((status = 204, description = "The worker is removed"), Conflict))]
pub(super) async fn remove(State(app): AppState, Path(name): Path<String>) -> Answer<StatusCode> {
    app.scheduler.ask(|reply| Input::RemoveWorker { name, reply }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The WebSocket of a worker.
#[utoipa::path(get, path = "/api/v1/worker", tag = "workers",
    responses((status = 101, description = "A WebSocket: JSON text messages, a hello first"), UpgradeRequired))]
pub(super) async fn link(
    State(app): AppState,
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
                // The connection counts until the WebSocket ends.
                drop(connection);
            })
        }))
}
