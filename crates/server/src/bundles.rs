//! Bundles as they are stored: a manifest among the blobs, and a row of the records.

use kiln_store::NewBundle;
use kiln_types::{Bundle, BundleId, Owner, Project};

use crate::{
    app::App,
    clock::unix_ms,
    problem::{Answer, ProblemResponse, blob_fault, store_fault},
};

/// Bytes of a manifest's JSON.
pub(crate) const MAX_MANIFEST: usize = 64 << 20;
/// Bytes that the records grow by for each file of a bundle, at most, with their log: what the reserve is not meant for.
const FILE_RECORD: u64 = 1 << 10;

/// Makes a bundle whose blobs are all there, and held.
pub(crate) async fn store(app: &App, bundle: &Bundle) -> Answer<BundleId> {
    Ok(record(app, bundle).await?.id)
}

/// The same, for who commits more of it later: its list of files, which may be long, is in the records by then.
pub(crate) async fn record(app: &App, bundle: &Bundle) -> Answer<NewBundle> {
    let files = bundle.files.len() as u64;
    let _room = app.space.reserve(files.saturating_mul(FILE_RECORD)).map_err(blob_fault)?;
    let bundle = keep(app, bundle).await?;
    app.store.insert_bundle(&bundle, unix_ms()).await.map_err(store_fault)?;
    Ok(bundle)
}

/// Keeps the manifest; what is returned is for the records, which do not know the bundle before.
async fn keep(app: &App, bundle: &Bundle) -> Answer<NewBundle> {
    let manifest = bundle.to_manifest();
    let _room = app.space.reserve(manifest.len() as u64).map_err(blob_fault)?;
    let id = BundleId(app.blobs.whole().put_bytes(manifest).await.map_err(blob_fault)?);
    let mut blobs: Vec<_> = bundle.files.iter().map(|file| file.hash).collect();
    blobs.sort_unstable();
    blobs.dedup();
    app.splitter.add(&blobs);
    let size = bundle.files.iter().fold(0, |sum: u64, file| sum.saturating_add(file.size));
    Ok(NewBundle { id, owner: Owner::default(), project: Project::default(), size, blobs })
}

/// The manifest of a bundle that the records know.
pub(crate) async fn read(app: &App, id: BundleId) -> Answer<Bundle> {
    let manifest = manifest(app, id).await?;
    serde_json::from_slice(&manifest)
        .map_err(|error| ProblemResponse::internal("A stored bundle cannot be read", error))
}

pub(crate) async fn manifest(app: &App, id: BundleId) -> Answer<axum::body::Bytes> {
    if app.store.bundle(id).await.map_err(store_fault)?.is_none() {
        return Err(ProblemResponse::not_found(format!("There is no bundle {id}.")));
    }
    // A manifest is written as it is hashed, which may be longer than it came.
    app.blobs.read(&id.0, 4 * MAX_MANIFEST as u64).await.map_err(blob_fault)
}
