//! The files that workers report. Those of a bake become a bundle: the job's files, with the baked ones in their place or
//! beside them.

use std::collections::HashSet;

use kiln_store::NewBundle;
use kiln_types::{BlobHash, Bundle, BundleFile, Failure, FailureCause, JobSpec, RelPath};

use crate::{app::App, bundles, problem::ProblemResponse, scheduler::misbehaved};

/// Stores the bundle that a bake made. No job needs it until the scheduler commits the bake.
pub(crate) async fn bundle_of(
    app: &App,
    spec: &JobSpec,
    files: Vec<BundleFile>,
) -> Result<NewBundle, Failure> {
    check(spec, &files)?;
    for file in &files {
        app.must_have(&file.path, &file.hash, file.size).await?;
    }
    let not_stored = |fault: ProblemResponse| {
        let why = format!("The server could not keep what the bake made: {}", fault.0.detail);
        Failure::new(FailureCause::Other, why)
    };
    let baked = bundles::read(app, spec.session.bundle).await.map_err(not_stored)?.overlaid(files);
    if baked.files.len() > Bundle::MAX_FILES {
        let why = format!("With what the bake made, the bundle holds more than {} files.", Bundle::MAX_FILES);
        return Err(Failure::new(FailureCause::BadOutput, why));
    }
    bundles::store(app, &baked).await.map_err(not_stored)
}

fn check(spec: &JobSpec, files: &[BundleFile]) -> Result<(), Failure> {
    let mut names = HashSet::new();
    if let Some(file) = files.iter().find(|file| !names.insert(&file.path)) {
        return Err(misbehaved(format!("The bake reported {} twice.", file.path)));
    }
    if !names.contains(&spec.session.blend) {
        return Err(misbehaved(format!("The bake came back without {}.", spec.session.blend)));
    }
    Ok(())
}

impl App {
    /// Checks that a file that a worker reported is here, with this size.
    pub(crate) async fn must_have(&self, path: &RelPath, hash: &BlobHash, size: u64) -> Result<(), Failure> {
        let why = match self.blobs.promise(hash).await {
            Ok(Some(found)) if found == size => return Ok(()),
            Ok(Some(found)) => {
                format!("The worker reported {path} with {size} bytes, and the server holds {found}.")
            }
            Ok(None) => format!("The worker reported {path} without having sent it."),
            Err(error) => format!("The server could not check {path}: {error}."),
        };
        Err(Failure::new(FailureCause::BadOutput, why))
    }
}
