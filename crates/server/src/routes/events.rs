//! The changes of the farm, as server-sent events.

use std::{convert::Infallible, time::Duration};

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
    app::AppState,
    problem::{Answer, ProblemResponse, Query},
};

/// The interval of comments by which clients know that the connection is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct EventsQuery {
    /// Only those of this job.
    job: Option<JobId>,
    /// Only those after this number; where neither this nor `Last-Event-ID` is given, from now on.
    since: Option<EventNumber>,
}

/// The changes of the farm as numbered events, without gap or duplicate.
#[utoipa::path(get, path = "/api/v1/events", tag = "events",
    params(EventsQuery, ("Last-Event-ID" = Option<u64>, Header, description = "Resumes after this number")),
    responses((status = 200, body = Event, content_type = "text/event-stream")))]
pub(super) async fn follow(
    State(app): AppState,
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
    let events = app.hub.follow(app.store.clone(), since, which.job).await?;
    // An error ends the stream: the client connects again and resumes.
    let events = events.take_while(|event| std::future::ready(event.is_ok())).filter_map(|event| {
        let message = event.ok().map(|event| {
            Ok(sse::Event::default().id(event.number.to_string()).event(&event.kind).data(&event.json))
        });
        std::future::ready(message)
    });
    let stop = app.stop.clone();
    let events = events.take_until(async move { stop.cancelled().await });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}
