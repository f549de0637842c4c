//! Stored bundles: a manifest among the blobs, and a row of the records.

use kiln_store::NewBundle;
use kiln_types::{Bundle, BundleId, Owner, Project};

use crate::{
    app::App,
    clock::unix_ms,
    problem::{Answer, ProblemResponse},
};

/// Bytes of a manifest's JSON.
pub(crate) const MAX_MANIFEST: usize = 64 << 20;
/// Bytes by which the records grow for each file of a bundle, at most, with their log.
const FILE_RECORD: u64 = 1 << 10;

/// Stores the manifest of a bundle and records the bundle. Its blobs must be here, and held.
pub(crate) async fn store(app: &App, bundle: &Bundle) -> Answer<NewBundle> {
    let files = bundle.files.len() as u64;
    let _record_room = app.space.reserve(files.saturating_mul(FILE_RECORD))?;
    let manifest = bundle.to_manifest();
    let _room = app.space.reserve(manifest.len() as u64)?;
    let id = BundleId(app.blobs.whole().put_bytes(manifest).await?);
    let mut blobs: Vec<_> = bundle.files.iter().map(|file| file.hash).collect();
    blobs.sort_unstable();
    blobs.dedup();
    app.splitter.add(&blobs);
    let size = bundle.files.iter().fold(0, |sum: u64, file| sum.saturating_add(file.size));
    let new = NewBundle { id, owner: Owner::default(), project: Project::default(), size, blobs };
    app.store.insert_bundle(&new, unix_ms()).await?;
    Ok(new)
}

pub(crate) async fn read(app: &App, id: BundleId) -> Answer<Bundle> {
    let manifest = read_manifest(app, id).await?;
    serde_json::from_slice(&manifest)
        .map_err(|error| ProblemResponse::internal("A stored bundle cannot be read", error))
}

pub(crate) async fn read_manifest(app: &App, id: BundleId) -> Answer<axum::body::Bytes> {
    if app.store.bundle(id).await?.is_none() {
        return Err(ProblemResponse::not_found(format!("There is no bundle {id}.")));
    }
    // A manifest is stored as it is hashed, which may be longer than the JSON that was sent.
    Ok(app.blobs.read(&id.0, 4 * MAX_MANIFEST as u64).await?)
}
