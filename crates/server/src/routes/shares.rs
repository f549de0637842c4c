//! Who shares the farm and how, and what it has only so many of.

use std::sync::Arc;

use axum::{extract::State, http::StatusCode};
use kiln_api::{AccountView, LimitList, LimitView, ProjectList, SetLimit, SetShare, UserList};
use kiln_types::{AccountKind, Name, ShortName};

use super::document::Conflict;
use crate::{
    app::App,
    problem::{Answer, Json, Path, ProblemResponse},
    scheduler::{FarmSetting, Input, account},
};

/// The users who have jobs, or of whom something was set.
#[utoipa::path(get, path = "/api/v1/users", tag = "server",
    responses((status = 200, body = UserList)))]
pub(super) async fn users(State(app): State<Arc<App>>) -> Answer<axum::Json<UserList>> {
    let users = app.scheduler.look(|farm| farm.accounts(AccountKind::User)).await?;
    Ok(axum::Json(UserList { users }))
}

/// How a user shares the farm, whether there is one of that name yet or not.
#[utoipa::path(put, path = "/api/v1/users/{name}", tag = "server", params(("name" = Name, Path)),
    request_body = SetShare, responses((status = 200, body = AccountView), Conflict))]
pub(super) async fn set_user(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Json(share): Json<SetShare>,
) -> Answer<axum::Json<AccountView>> {
    set(&app, AccountKind::User, name.parse()?, share).await
}

/// The projects that have jobs, or of which something was set.
#[utoipa::path(get, path = "/api/v1/projects", tag = "server",
    responses((status = 200, body = ProjectList)))]
pub(super) async fn projects(State(app): State<Arc<App>>) -> Answer<axum::Json<ProjectList>> {
    let projects = app.scheduler.look(|farm| farm.accounts(AccountKind::Project)).await?;
    Ok(axum::Json(ProjectList { projects }))
}

/// How a project shares the farm, whether there is one of that name yet or not.
#[utoipa::path(put, path = "/api/v1/projects/{name}", tag = "server", params(("name" = Name, Path)),
    request_body = SetShare, responses((status = 200, body = AccountView), Conflict))]
pub(super) async fn set_project(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Json(share): Json<SetShare>,
) -> Answer<axum::Json<AccountView>> {
    set(&app, AccountKind::Project, name.parse()?, share).await
}

async fn set(app: &App, kind: AccountKind, name: Name, share: SetShare) -> Answer<axum::Json<AccountView>> {
    let setting = FarmSetting::Share { account: account(kind, name.to_string()), share };
    app.scheduler.ask(|reply| Input::Set { setting, reply }).await?;
    let view =
        app.scheduler.look(move |farm| farm.accounts(kind).into_iter().find(|account| account.name == *name));
    view.await?
        .map(axum::Json)
        .ok_or_else(|| ProblemResponse::internal("The share is set and not there", kind))
}

/// What the farm has only so many of, such as licences.
#[utoipa::path(get, path = "/api/v1/limits", tag = "server",
    responses((status = 200, body = LimitList)))]
pub(super) async fn limits(State(app): State<Arc<App>>) -> Answer<axum::Json<LimitList>> {
    let limits = app.scheduler.look(|farm| farm.limit_views()).await?;
    Ok(axum::Json(LimitList { limits }))
}

/// How many there are; a limit of a new name is made.
#[utoipa::path(put, path = "/api/v1/limits/{name}", tag = "server", params(("name" = ShortName, Path)),
    request_body = SetLimit, responses((status = 200, body = LimitView), Conflict))]
pub(super) async fn set_limit(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Json(SetLimit { total }): Json<SetLimit>,
) -> Answer<axum::Json<LimitView>> {
    let name: ShortName = name.parse()?;
    let setting = FarmSetting::Limit { name: name.to_string(), total: Some(total) };
    app.scheduler.ask(|reply| Input::Set { setting, reply }).await?;
    let view =
        app.scheduler.look(move |farm| farm.limit_views().into_iter().find(|limit| limit.name == *name));
    view.await?
        .map(axum::Json)
        .ok_or_else(|| ProblemResponse::conflict("The limit was removed in this moment."))
}

/// Removes a limit that no job needs.
#[utoipa::path(delete, path = "/api/v1/limits/{name}", tag = "server", params(("name" = String, Path)),
    responses((status = 204, description = "It is gone"), Conflict))]
pub(super) async fn remove_limit(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Answer<StatusCode> {
    let setting = FarmSetting::Limit { name, total: None };
    app.scheduler.ask(|reply| Input::Set { setting, reply }).await?;
    Ok(StatusCode::NO_CONTENT)
}
