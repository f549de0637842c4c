//! Blobs: bytes that are named by their hash.

use std::collections::BTreeMap;

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use kiln_api::{BINARY, MissingAnswer, MissingQuery};
use kiln_types::BlobHash;
use utoipa::{
    IntoResponses,
    openapi::{self, RefOr},
};

use super::{
    body::{RangeHeaders, blob, patient, range_responses, room, roomy, small},
    document::{NoSpace, Unprocessable},
    job_data::outputs_gone,
};
use crate::{
    app::AppState,
    problem::{Answer, Json, JsonAnswer, Path, ProblemResponse},
};

/// Bytes of the largest blob.
pub(crate) const MAX_BLOB: u64 = 1 << 40;

/// Returns which of these blobs the server lacks. The others are promised: they stay for a day, for a job to use them.
#[utoipa::path(post, path = "/api/v1/blobs/missing", tag = "blobs", request_body = MissingQuery,
    responses((status = 200, body = MissingAnswer)))]
pub(super) async fn missing(
    State(app): AppState,
    Json(query): Json<MissingQuery>,
) -> JsonAnswer<MissingAnswer> {
    if query.hashes.len() > MissingQuery::MAX {
        return Err(ProblemResponse::bad(format!(
            "At most {} hashes can be asked for at once.",
            MissingQuery::MAX
        )));
    }
    let _hold = app.holds.begin();
    let mut missing = Vec::new();
    for hash in query.hashes {
        if app.blobs.promise(&hash).await?.is_none() {
            missing.push(hash);
        }
    }
    Ok(axum::Json(MissingAnswer { missing }))
}

/// Stores bytes under their hash. Storing the same bytes again changes nothing.
#[utoipa::path(put, path = "/api/v1/blobs/{hash}", tag = "blobs",
    params(("hash" = BlobHash, Path, description = "BLAKE3 of the bytes, 64 hex digits")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 204, description = "They are on the server's disk"), Unprocessable, NoSpace))]
pub(super) async fn put(
    State(app): AppState,
    Path(hash): Path<BlobHash>,
    headers: HeaderMap,
    body: Body,
) -> Answer<StatusCode> {
    let mut room = room(&app, &headers)?;
    let _hold = app.holds.begin();
    let small = small(&headers, body)
        .await
        .map_err(|error| ProblemResponse::bad(format!("The bytes stopped arriving: {error}.")))?;
    match small {
        Ok(bytes) => app.blobs.put_bytes(hash, bytes).await,
        Err(body) => {
            let body = roomy(patient(body), &mut room);
            app.blobs.put_stream(Some(hash), MAX_BLOB, body).await.map(drop)
        }
    }?;
    Ok(StatusCode::NO_CONTENT)
}

struct Bytes;

impl IntoResponses for Bytes {
    fn responses() -> BTreeMap<String, RefOr<openapi::Response>> {
        range_responses(&[BINARY])
    }
}

/// The bytes, or one range of them, so that an interrupted download can continue.
#[utoipa::path(get, path = "/api/v1/blobs/{hash}", tag = "blobs",
    params(("hash" = BlobHash, Path, description = "BLAKE3 of the bytes, 64 hex digits"), RangeHeaders), responses(Bytes))]
pub(super) async fn get(
    State(app): AppState,
    Path(hash): Path<BlobHash>,
    headers: HeaderMap,
) -> Answer<Response> {
    if app.blobs.size(&hash).await?.is_none() {
        return Err(match app.store.output_gone(&hash).await? {
            Some((job, at_ms)) => outputs_gone(job, at_ms),
            None => ProblemResponse::not_found(format!("There is no blob {hash}.")),
        });
    }
    blob(&app.blobs, &hash, &headers, BINARY).await
}

/// Checks that the server has these bytes, and returns their number.
#[utoipa::path(head, path = "/api/v1/blobs/{hash}", tag = "blobs",
    params(("hash" = BlobHash, Path, description = "BLAKE3 of the bytes, 64 hex digits")),
    responses((status = 200, description = "The server has them; Content-Length is their number")))]
pub(super) async fn head(State(app): AppState, Path(hash): Path<BlobHash>) -> Answer<Response> {
    let size = app.blobs.size(&hash).await?;
    let size = size.ok_or_else(|| ProblemResponse::not_found(format!("There is no blob {hash}.")))?;
    Ok([(axum::http::header::CONTENT_LENGTH, size)].into_response())
}
