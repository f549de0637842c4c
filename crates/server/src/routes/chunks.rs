//! Chunks of files: uploads of missing ones, and downloads by workers.

use std::io;

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::{Stream, StreamExt};
use kiln_api::{BINARY, CHUNKS_AT_ONCE, HASHES_AT_ONCE, MAX_FRAMES, ProblemCode};
use kiln_blobs::{BlobError, ChunkStore};
use kiln_chunks::Recipe;
use kiln_types::BlobHash;

use super::{
    blobs::MAX_BLOB,
    body::{length, patient, room, roomy},
    document::{Conflict, NoSpace, NotFound, Unprocessable},
};
use crate::{
    app::{App, AppState},
    problem::{Answer, Path, ProblemResponse, Raw},
};

/// Returns which of these chunks the server lacks, in the order of the request. The server promises to keep the others for
/// as long as an upload may take. Hashes are 32 bytes each.
#[utoipa::path(post, path = "/api/v1/chunks/missing", tag = "chunks",
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "Hashes, at most 65,536"),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"), NotFound, Unprocessable))]
pub(super) async fn missing(State(app): AppState, Raw(body): Raw) -> Answer<Response> {
    let hashes = parse_hashes(&body, HASHES_AT_ONCE)?;
    let _hold = app.holds.begin();
    let missing = chunks(&app)?.missing(hashes).await?;
    let missing: Vec<u8> = missing.iter().flat_map(|hash| *hash.as_bytes()).collect();
    Ok(binary(missing.into()))
}

/// Stores chunks. A frame is the chunk's hash (32 bytes), its length and the bytes that follow (4 bytes each, little
/// endian; the highest bit of the second is set if zstd has compressed them), then those bytes. Whole frames are kept even
/// if the request breaks off.
#[utoipa::path(post, path = "/api/v1/chunks", tag = "chunks",
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "Frames, at most 64 MiB"),
    responses((status = 204, description = "They are on the server's disk"), NotFound, Unprocessable, NoSpace))]
pub(super) async fn put(State(app): AppState, headers: HeaderMap, body: Body) -> Answer<StatusCode> {
    let announced = length(&headers);
    if announced.is_some_and(|bytes| bytes > MAX_FRAMES as u64) {
        return Err(too_large());
    }
    let mut room = room(&app, &headers)?;
    let _hold = app.holds.begin();
    let stored = chunks(&app)?.put(roomy(bounded(patient(body)), &mut room)).await;
    stored.map_err(|error| match error {
        BlobError::Stream(why) if is_too_large(why.as_ref()) => too_large(),
        error => error.into(),
    })?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes a blob of stored chunks, whose bytes must have its hash. The recipe is, for each chunk in the order of the file, its
/// hash (32 bytes) and its length (4 bytes, little endian).
#[utoipa::path(put, path = "/api/v1/blobs/{hash}/chunks", tag = "chunks",
    params(("hash" = BlobHash, Path, description = "BLAKE3 of the bytes, 64 hex digits")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "A recipe, at most 64 MiB"),
    responses((status = 204, description = "The blob is there"), Conflict, Unprocessable, NoSpace))]
pub(super) async fn put_recipe(
    State(app): AppState,
    Path(hash): Path<BlobHash>,
    Raw(body): Raw,
) -> Answer<StatusCode> {
    let recipe = Recipe::from_bytes(&body)
        .map_err(|error| ProblemResponse::unprocessable(format!("This is not a recipe: {error}.")))?;
    let _room = app.space.reserve(body.len() as u64)?;
    let _hold = app.holds.begin();
    chunks(&app)?.put_recipe(hash, recipe, MAX_BLOB).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The recipe of a blob.
#[utoipa::path(get, path = "/api/v1/blobs/{hash}/chunks", tag = "chunks",
    params(("hash" = BlobHash, Path, description = "BLAKE3 of the bytes, 64 hex digits")),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 204, description = "The blob is kept whole: fetch its bytes")))]
pub(super) async fn recipe(State(app): AppState, Path(hash): Path<BlobHash>) -> Answer<Response> {
    if let Some(chunks) = app.blobs.chunks()
        && let Some(recipe) = chunks.recipe(&hash).await?
    {
        return Ok(binary(recipe.to_bytes().into()));
    }
    match app.blobs.size(&hash).await? {
        Some(_) => Ok(StatusCode::NO_CONTENT.into_response()),
        None => Err(ProblemResponse::not_found(format!("There is no blob {hash}."))),
    }
}

/// Chunks as frames, in this order.
#[utoipa::path(post, path = "/api/v1/chunks/fetch", tag = "chunks",
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "Hashes, at most 4,096"),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"), NotFound, Unprocessable))]
pub(super) async fn fetch(State(app): AppState, Raw(body): Raw) -> Answer<Response> {
    let hashes = parse_hashes(&body, CHUNKS_AT_ONCE)?;
    let frames = chunks(&app)?.frames(hashes).await.map_err(|error| match error {
        BlobError::Lacking { count } => ProblemResponse::not_found(format!(
            "{count} of these chunks are not there; ask for the blob's recipe again."
        )),
        error => error.into(),
    })?;
    Ok(binary(Body::from_stream(frames)))
}

fn chunks(app: &App) -> Answer<&ChunkStore> {
    app.blobs.chunks().ok_or_else(|| {
        ProblemResponse::not_found(
            "This server keeps files whole; send and fetch them by /api/v1/blobs/{hash}.",
        )
    })
}

fn parse_hashes(body: &[u8], most: usize) -> Answer<Vec<BlobHash>> {
    let (hashes, rest) = body.as_chunks::<32>();
    if !rest.is_empty() {
        return Err(ProblemResponse::unprocessable(format!(
            "{} bytes are not a list of hashes of 32 bytes each.",
            body.len()
        )));
    }
    if hashes.len() > most {
        return Err(ProblemResponse::unprocessable(format!(
            "At most {most} hashes can be asked for at once."
        )));
    }
    Ok(hashes.iter().map(|hash| BlobHash::from_bytes(*hash)).collect())
}

fn binary(body: Body) -> Response {
    ([(header::CONTENT_TYPE, BINARY)], body).into_response()
}

/// Ends with an error if the body is larger than allowed.
fn bounded(
    body: impl Stream<Item = io::Result<Bytes>> + Send,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let mut left = MAX_FRAMES;
    body.map(move |piece| {
        let piece = piece?;
        left = left.checked_sub(piece.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        Ok(piece)
    })
}

fn is_too_large(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::FileTooLarge)
}

fn too_large() -> ProblemResponse {
    let most = MAX_FRAMES >> 20;
    ProblemResponse::new(
        ProblemCode::TooLarge,
        format!("A request brings at most {most} MiB of chunks; send them in several."),
    )
}
