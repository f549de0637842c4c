//! What a bake made, as a bundle: the job's files, and those of the bake in their place or beside them.

use std::collections::HashSet;

use kiln_store::NewBundle;
use kiln_types::{Bundle, BundleFile, Failure, FailureCause, JobSpec};

use crate::{App, links::misbehaved, problem::ProblemResponse, routes::bundles};

/// Stores the manifest, and records the bundle. No job needs it until the scheduler commits the bake.
///
/// # Errors
/// Where the worker did not send what it reports, or the server cannot read or write.
pub(crate) async fn bundle_of(
    app: &App,
    spec: &JobSpec,
    files: Vec<BundleFile>,
) -> Result<NewBundle, Failure> {
    check(spec, &files)?;
    for file in &files {
        app.must_have(&file.path, &file.hash, file.size).await?;
    }
    let unkept = |fault: ProblemResponse| {
        let why = format!("The server could not keep what the bake made: {}", fault.0.detail);
        Failure::new(FailureCause::Other, why)
    };
    let baked = bundles::read(app, spec.session.bundle).await.map_err(unkept)?.overlaid(files);
    if baked.files.len() > Bundle::MAX_FILES {
        let why = format!("With what the bake made, the bundle holds more than {} files.", Bundle::MAX_FILES);
        return Err(Failure::new(FailureCause::BadOutput, why));
    }
    bundles::record(app, &baked).await.map_err(unkept)
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
