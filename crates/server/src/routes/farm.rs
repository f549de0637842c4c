//! Commands for the farm as a whole.

use std::time::SystemTime;

use axum::extract::State;
use kiln_api::{Collect, Collected};

use super::document::Conflict;
use crate::{
    app::AppState,
    problem::{JsonAnswer, OptionalJson},
};

/// Removes everything that has expired, at once. The body may be absent.
#[utoipa::path(post, path = "/api/v1/farm/collect", tag = "server", request_body = Option<Collect>,
    responses((status = 200, body = Collected), Conflict))]
pub(super) async fn collect(
    State(app): AppState,
    OptionalJson(request): OptionalJson<Option<Collect>>,
) -> JsonAnswer<Collected> {
    let dry_run = request.unwrap_or_default().dry_run;
    Ok(axum::Json(app.collector.collect(SystemTime::now(), dry_run).await?))
}
