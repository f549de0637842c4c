//! Resumable uploads of one whole .blend, for simple clients such as curl.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use kiln_api::{ProblemCode, UPLOAD_OFFSET, UploadCreate, UploadFinished, UploadView};
use kiln_blobs::{BlobError, UploadOutcome};
use kiln_types::UploadId;

use super::{
    blobs::MAX_BLOB,
    body::{number, patient, room, roomy},
    document::{Conflict, NoSpace, Unprocessable},
};
use crate::{
    app::AppState,
    inspect,
    problem::{Answer, Json, JsonAnswer, Path, ProblemResponse},
};

/// Begins an upload.
#[utoipa::path(post, path = "/api/v1/uploads", tag = "uploads", request_body = UploadCreate,
    responses((status = 201, body = UploadView), NoSpace))]
pub(super) async fn create(
    State(app): AppState,
    Json(create): Json<UploadCreate>,
) -> Answer<(StatusCode, axum::Json<UploadView>)> {
    if create.size.is_some_and(|size| size > MAX_BLOB) {
        return Err(ProblemResponse::bad(format!("An upload has at most {MAX_BLOB} bytes.")));
    }
    // Only a check: the requests that bring the bytes reserve the room.
    drop(app.space.reserve(create.size.unwrap_or(0))?);
    let id = app.uploads.create(&create.name, create.size).await?;
    Ok((StatusCode::CREATED, axum::Json(UploadView { id, offset: 0 })))
}

/// The number of bytes that an upload has, which is also in the header `Upload-Offset`.
#[utoipa::path(get, path = "/api/v1/uploads/{id}", tag = "uploads", params(("id" = UploadId, Path)),
    responses((status = 200, body = UploadView, headers(("Upload-Offset" = u64, description = "Bytes that are there")))))]
pub(super) async fn get(State(app): AppState, Path(id): Path<UploadId>) -> Answer<Response> {
    let offset = app.uploads.offset(id).await?;
    Ok(at(id, offset))
}

fn at(id: UploadId, offset: u64) -> Response {
    ([(UPLOAD_OFFSET, offset.to_string())], axum::Json(UploadView { id, offset })).into_response()
}

/// Adds bytes at `Upload-Offset`, which must be the number of bytes that the upload has.
#[utoipa::path(patch, path = "/api/v1/uploads/{id}", tag = "uploads",
    params(("id" = UploadId, Path), ("Upload-Offset" = u64, Header, description = "The position of the first of these bytes")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = UploadView, headers(("Upload-Offset" = u64, description = "Bytes that are there"))), Conflict, NoSpace))]
pub(super) async fn append(
    State(app): AppState,
    Path(id): Path<UploadId>,
    headers: HeaderMap,
    body: Body,
) -> Answer<Response> {
    let offset = headers.get(UPLOAD_OFFSET).and_then(number);
    let offset = offset.ok_or_else(|| {
        ProblemResponse::bad(
            "The header Upload-Offset must say at which byte this part begins; the first begins at 0.",
        )
    })?;
    let mut room = room(&app, &headers)?;
    let body = roomy(patient(body), &mut room);
    let offset = app.uploads.append(id, offset, body).await?;
    Ok(at(id, offset))
}

/// Finishes an upload: its bytes must be a whole .blend, or they are removed.
#[utoipa::path(post, path = "/api/v1/uploads/{id}/finish", tag = "uploads", params(("id" = UploadId, Path)),
    responses((status = 200, body = UploadFinished), Conflict, Unprocessable, NoSpace))]
pub(super) async fn finish(State(app): AppState, Path(id): Path<UploadId>) -> JsonAnswer<UploadFinished> {
    let info = app.uploads.info(id).await?;
    let _hold = app.holds.begin();
    // Finishing again gives the same answer: the first one may have been lost.
    let (hash, size) = match app.uploads.finish(id, inspect::check).await? {
        UploadOutcome::Stored(hash, size) => (hash, size),
        UploadOutcome::Refused(why) => {
            let why = format!("“{}” is not a whole .blend: {why}", info.name);
            return Err(ProblemResponse::new(ProblemCode::NotABlend, why));
        }
    };
    if app.blobs.promise(&hash).await?.is_none() {
        return Err(BlobError::NotFound(hash).into());
    }
    Ok(axum::Json(UploadFinished { hash, size }))
}

/// Aborts an upload and removes its bytes.
#[utoipa::path(delete, path = "/api/v1/uploads/{id}", tag = "uploads", params(("id" = UploadId, Path)),
    responses((status = 204, description = "It is gone"), Conflict))]
pub(super) async fn delete(State(app): AppState, Path(id): Path<UploadId>) -> Answer<StatusCode> {
    app.uploads.abort(id).await?;
    Ok(StatusCode::NO_CONTENT)
}
