//! Bundles: manifests that name the blobs of a job's files.

use std::collections::HashSet;

use axum::{
    body::Body,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use kiln_api::BundleCreated;
use kiln_types::{Bundle, BundleId, RelPath};

use super::document::{Conflict, NoSpace, Unprocessable};
use crate::{
    app::{App, AppState},
    bundles::{read_manifest, store},
    problem::{Answer, Json, Path, ProblemResponse},
};

/// Files that are named in an error.
const NAMED: usize = 5;

/// Makes a bundle of blobs that the server has.
#[utoipa::path(post, path = "/api/v1/bundles", tag = "bundles", request_body = Bundle,
    responses((status = 201, body = BundleCreated), Conflict, Unprocessable, NoSpace))]
pub(super) async fn create(
    State(app): AppState,
    Json(bundle): Json<Bundle>,
) -> Answer<(StatusCode, axum::Json<BundleCreated>)> {
    let _hold = app.holds.begin();
    check(&app, &bundle).await?;
    let id = store(&app, &bundle).await?.id;
    Ok((StatusCode::CREATED, axum::Json(BundleCreated { id })))
}

/// Checks that no file occurs twice, and that every blob is here with its size.
async fn check(app: &App, bundle: &Bundle) -> Answer<()> {
    if bundle.files.is_empty() {
        return Err(ProblemResponse::bad("The bundle holds no file."));
    }
    let names = bundle.remap.len() + bundle.unused.len();
    if bundle.files.len() + bundle.shared.len() > Bundle::MAX_FILES || names > Bundle::MAX_FILES {
        return Err(ProblemResponse::unprocessable(format!(
            "A bundle holds at most {} files.",
            Bundle::MAX_FILES
        )));
    }
    let mut names = HashSet::new();
    let mut lacking = Vec::new();
    for file in &bundle.files {
        if !names.insert(&file.path) {
            return Err(ProblemResponse::unprocessable(format!("The bundle holds {} twice.", file.path)));
        }
        match app.blobs.promise(&file.hash).await? {
            Some(size) if size == file.size => {}
            Some(size) => {
                return Err(ProblemResponse::unprocessable(format!(
                    "{} is said to have {} bytes, and the server's blob of that hash has {size}.",
                    file.path, file.size
                )));
            }
            None => lacking.push(file.path.as_str()),
        }
    }
    for file in &bundle.shared {
        if !names.insert(&file.path) {
            return Err(ProblemResponse::unprocessable(format!("The bundle holds {} twice.", file.path)));
        }
    }
    // A path may be a folder of files, or a pattern for files in one (`<UDIM>`).
    let held = bundle.files.iter().map(|file| &file.path).chain(bundle.shared.iter().map(|file| &file.path));
    let folders: HashSet<RelPath> =
        held.flat_map(|path| std::iter::successors(path.parent(), RelPath::parent)).collect();
    let leads = |place: &RelPath| {
        names.contains(place)
            || folders.contains(place)
            || place.parent().is_none_or(|parent| folders.contains(&parent))
    };
    if let Some(place) = bundle.remap.values().find(|place| !leads(place)) {
        return Err(ProblemResponse::unprocessable(format!(
            "The bundle maps a path to {place}, which is not one of its files."
        )));
    }
    if lacking.is_empty() {
        return Ok(());
    }
    let more = lacking.len().saturating_sub(NAMED);
    let tail = if more > 0 { format!(" and {more} more") } else { String::new() };
    let named = lacking[..lacking.len().min(NAMED)].join(", ");
    Err(ProblemResponse::conflict(format!(
        "The server lacks the bytes of {named}{tail}; ask /api/v1/blobs/missing, send them, then make the bundle."
    )))
}

/// The manifest, byte for byte: its hash is the id.
#[utoipa::path(get, path = "/api/v1/bundles/{id}", tag = "bundles",
    params(("id" = BundleId, Path, description = "The hash of the manifest")),
    responses((status = 200, body = Bundle)))]
pub(super) async fn get(State(app): AppState, Path(id): Path<BundleId>) -> Answer<Response> {
    let manifest = read_manifest(&app, id).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from(manifest)).into_response())
}
