//! The shares of users and projects, and the limits of the farm.

use axum::{extract::State, http::StatusCode};
use kiln_api::{AccountView, LimitList, LimitView, ProjectList, SetLimit, SetShare, UserList};
use kiln_types::{AccountKind, Name, ShortName};

use super::document::Conflict;
use crate::{
    app::{App, AppState},
    problem::{Answer, Json, JsonAnswer, Path, ProblemResponse},
    scheduler::{FarmSetting, Input, account},
};

/// The users that have jobs, or a share.
#[utoipa::path(get, path = "/api/v1/users", tag = "server",
    responses((status = 200, body = UserList)))]
pub(super) async fn users(State(app): AppState) -> JsonAnswer<UserList> {
    let users = app.scheduler.read(|farm| farm.accounts(AccountKind::User)).await?;
    Ok(axum::Json(UserList { users }))
}

/// Sets the share of a user, who need not have jobs yet.
#[utoipa::path(put, path = "/api/v1/users/{name}", tag = "server", params(("name" = Name, Path)),
    request_body = SetShare, responses((status = 200, body = AccountView), Conflict))]
pub(super) async fn set_user(
    State(app): AppState,
    Path(name): Path<String>,
    Json(share): Json<SetShare>,
) -> JsonAnswer<AccountView> {
    set(&app, AccountKind::User, name.parse()?, share).await
}

/// The projects that have jobs, or a share.
#[utoipa::path(get, path = "/api/v1/projects", tag = "server",
    responses((status = 200, body = ProjectList)))]
pub(super) async fn projects(State(app): AppState) -> JsonAnswer<ProjectList> {
    let projects = app.scheduler.read(|farm| farm.accounts(AccountKind::Project)).await?;
    Ok(axum::Json(ProjectList { projects }))
}

/// Sets the share of a project, which need not have jobs yet.
#[utoipa::path(put, path = "/api/v1/projects/{name}", tag = "server", params(("name" = Name, Path)),
    request_body = SetShare, responses((status = 200, body = AccountView), Conflict))]
pub(super) async fn set_project(
    State(app): AppState,
    Path(name): Path<String>,
    Json(share): Json<SetShare>,
) -> JsonAnswer<AccountView> {
    set(&app, AccountKind::Project, name.parse()?, share).await
}

async fn set(app: &App, kind: AccountKind, name: Name, share: SetShare) -> JsonAnswer<AccountView> {
    let setting = FarmSetting::Share { account: account(kind, name.to_string()), share };
    app.scheduler.ask(|reply| Input::Set { setting, reply }).await?;
    let view =
        app.scheduler.read(move |farm| farm.accounts(kind).into_iter().find(|account| account.name == *name));
    view.await?
        .map(axum::Json)
        .ok_or_else(|| ProblemResponse::internal("The share was set and cannot be found", kind))
}

/// The limits of the farm, such as numbers of licences.
#[utoipa::path(get, path = "/api/v1/limits", tag = "server",
    responses((status = 200, body = LimitList)))]
pub(super) async fn limits(State(app): AppState) -> JsonAnswer<LimitList> {
    let limits = app.scheduler.read(|farm| farm.limit_views()).await?;
    Ok(axum::Json(LimitList { limits }))
}

/// Sets the total of a limit; creates the limit if it does not exist.
#[utoipa::path(put, path = "/api/v1/limits/{name}", tag = "server", params(("name" = ShortName, Path)),
    request_body = SetLimit, responses((status = 200, body = LimitView), Conflict))]
pub(super) async fn set_limit(
    State(app): AppState,
    Path(name): Path<String>,
    Json(SetLimit { total }): Json<SetLimit>,
) -> JsonAnswer<LimitView> {
    let name: ShortName = name.parse()?;
    let setting = FarmSetting::Limit { name: name.to_string(), total: Some(total) };
    app.scheduler.ask(|reply| Input::Set { setting, reply }).await?;
    let view =
        app.scheduler.read(move |farm| farm.limit_views().into_iter().find(|limit| limit.name == *name));
    view.await?
        .map(axum::Json)
        .ok_or_else(|| ProblemResponse::conflict("The limit was removed at the same time."))
}

/// Removes a limit that no job needs.
#[utoipa::path(delete, path = "/api/v1/limits/{name}", tag = "server", params(("name" = String, Path)),
    responses((status = 204, description = "It is gone"), Conflict))]
pub(super) async fn remove_limit(State(app): AppState, Path(name): Path<String>) -> Answer<StatusCode> {
    let setting = FarmSetting::Limit { name, total: None };
    app.scheduler.ask(|reply| Input::Set { setting, reply }).await?;
    Ok(StatusCode::NO_CONTENT)
}
