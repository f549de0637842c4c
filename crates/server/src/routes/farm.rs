//! What concerns the farm as a whole.

use std::{sync::Arc, time::SystemTime};

use axum::extract::State;
use kiln_api::{Collect, Collected};

use super::document::Conflict;
use crate::{
    app::App,
    problem::{Answer, OptionalJson},
};

/// Lets go of what nobody needs any more, at once. The body may be absent.
#[utoipa::path(post, path = "/api/v1/farm/collect", tag = "server", request_body = Option<Collect>,
    responses((status = 200, body = Collected), Conflict))]
pub(super) async fn collect(
    State(app): State<Arc<App>>,
    OptionalJson(request): OptionalJson<Option<Collect>>,
) -> Answer<axum::Json<Collected>> {
    let dry_run = request.unwrap_or_default().dry_run;
    Ok(axum::Json(app.collector.collect(SystemTime::now(), dry_run).await?))
}
