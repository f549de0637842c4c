//! All changes as server-sent events.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::HeaderMap,
    response::sse::{self, KeepAlive, Sse},
};
use futures_util::{Stream, StreamExt};
use kiln_api::Event;
use kiln_types::{EventNumber, JobId};
use serde::Deserialize;

use super::body::number;
use crate::{
    app::App,
    problem::{Answer, ProblemResponse, Query, store_fault},
};

/// A sign of life, so that nobody takes silence for a broken connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct EventsQuery {
    /// Only those of this job.
    job: Option<JobId>,
    /// Those after this number; from now on where neither this nor `Last-Event-ID` is there.
    since: Option<EventNumber>,
}

/// The changes of the farm, one event each, numbered; none left out, none twice.
#[utoipa::path(get, path = "/api/v1/events", tag = "events",
    params(EventsQuery, ("Last-Event-ID" = Option<u64>, Header, description = "Resumes after this number")),
    responses((status = 200, body = Event, content_type = "text/event-stream")))]
pub(super) async fn follow(
    State(app): State<Arc<App>>,
    Query(which): Query<EventsQuery>,
    headers: HeaderMap,
) -> Answer<Sse<impl Stream<Item = Result<sse::Event, Infallible>> + use<>>> {
    let since = match headers.get("last-event-id") {
        None => which.since,
        Some(id) => {
            let id = number(id).map(EventNumber);
            Some(id.ok_or_else(|| ProblemResponse::bad("Last-Event-ID must be the number of an event."))?)
        }
    };
    let events = app.hub.follow(app.store.clone(), since, which.job).await.map_err(store_fault)?;
    // A listener that is told of an error would only come back; one that sees the end does so too, and resumes.
    let events = events.take_while(|event| std::future::ready(event.is_ok())).filter_map(|event| {
        let told = event.ok().map(|told| {
            Ok(sse::Event::default().id(told.number.to_string()).event(&told.kind).data(&told.json))
        });
        std::future::ready(told)
    });
    let stop = app.stop.clone();
    let events = events.take_until(async move { stop.cancelled().await });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}
