//! The files of jobs, in folders for Blender to read.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use kiln_api::ProblemCode;
use kiln_blend::{RewriteError, RewriteFault, point_libraries};
use kiln_blobs::{BlobError, Cache};
use kiln_chunks::{MAX_CHUNK, Recipe};
use kiln_client::{Client, hash_file};
use kiln_types::{BlobHash, Bundle, BundleId, Failure, RelPath};
use tokio::task::spawn_blocking;

use crate::{
    scratch::{ScratchFolder, create_folder},
    shared::{self, SharedRoots, VerifiedFile},
    transfer::{TransferError, TransferRetry, not_stored, unavailable},
};

/// Files that are fetched at the same time.
const AT_ONCE: usize = 4;
/// Bytes below which a file is fetched whole.
const SMALL: u64 = 64 << 10;

/// A bundle on this worker's disk: one folder that all slots read, files `0444` in folders `0555`, none sharing
/// an inode with the cache. The folder is removed with the last reference.
#[derive(Debug)]
pub(crate) struct MaterializedBundle {
    pub(crate) folder: PathBuf,
    pub(crate) remap: BTreeMap<String, RelPath>,
    /// Names of files that may be missing.
    pub(crate) unused: BTreeSet<String>,
    /// Bytes.
    pub(crate) size: u64,
    /// The targets of the links in it.
    pub(crate) shared: Vec<VerifiedFile>,
}

impl MaterializedBundle {
    pub(crate) fn remapped(&self) -> Vec<(String, PathBuf)> {
        self.remap.iter().map(|(from, to)| (from.clone(), self.folder.join(to.to_path()))).collect()
    }
}

impl Drop for MaterializedBundle {
    fn drop(&mut self) {
        drop(ScratchFolder::new(std::mem::take(&mut self.folder)));
    }
}

type BundlePlace = Arc<tokio::sync::Mutex<Weak<MaterializedBundle>>>;

/// Brings bundles here, each once however many slots ask.
#[derive(Debug)]
pub(crate) struct Bundles {
    client: Client,
    cache: Cache,
    root: PathBuf,
    /// The blobs of a server on this very disk: read instead of asking over HTTP.
    local: Option<kiln_blobs::BlobStore>,
    roots: SharedRoots,
    /// For each bundle and .blend in it: the libraries are named as that one needs it.
    places: Mutex<HashMap<(BundleId, RelPath), BundlePlace>>,
    counter: std::sync::atomic::AtomicU64,
}

/// A file on this disk with the bytes of a blob.
#[derive(Debug)]
struct LocalCopy {
    path: PathBuf,
    /// Still to be compared with the hash.
    unchecked: bool,
}

impl Bundles {
    pub(crate) fn new(
        client: Client,
        cache: Cache,
        root: PathBuf,
        local: Option<kiln_blobs::BlobStore>,
        roots: SharedRoots,
    ) -> Self {
        Self { client, cache, root, local, roots, places: Mutex::default(), counter: Default::default() }
    }

    /// Brings a bundle here for one of its .blend files, or returns the folder that is there already. Waits for as long
    /// as the server is away.
    pub(crate) async fn materialize(
        &self,
        id: BundleId,
        blend: &RelPath,
    ) -> Result<Arc<MaterializedBundle>, Failure> {
        let place = {
            let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
            places.retain(|_, place| Arc::strong_count(place) > 1 || is_used(place));
            places.entry((id, blend.clone())).or_default().clone()
        };
        let mut place = place.lock().await;
        // A shared file may have changed since; then all is compared again.
        if let Some(materialized) = place.upgrade()
            && materialized.shared.iter().all(VerifiedFile::is_unchanged)
        {
            return Ok(materialized);
        }
        let mut retry = TransferRetry::new();
        let materialized = loop {
            match self.try_once(id, blend).await {
                Ok(materialized) => break Arc::new(materialized),
                Err(error) => retry.wait(error).await?,
            }
        };
        *place = Arc::downgrade(&materialized);
        Ok(materialized)
    }

    async fn try_once(&self, id: BundleId, blend: &RelPath) -> Result<MaterializedBundle, TransferError> {
        let bundle = self.client.bundle(id).await?;
        let pin = self.cache.pin(bundle.files.iter().map(|file| file.hash));
        let (roots, files) = (self.roots.clone(), bundle.shared.clone());
        let shared = spawn_blocking(move || roots.verify(&files)).await??;
        // Each once, however many places it has.
        let distinct: BTreeMap<BlobHash, u64> =
            bundle.files.iter().map(|file| (file.hash, file.size)).collect();
        self.bring_singles(&distinct).await?;
        let sources = distinct.into_iter().map(|(hash, size)| async move {
            Ok::<_, TransferError>((hash, self.source(hash, size).await?))
        });
        let sources: HashMap<BlobHash, LocalCopy> =
            stream::iter(sources.collect::<Vec<_>>()).buffer_unordered(AT_ONCE).try_collect().await?;
        // Its own name each time: the removal of an earlier one may still be under way.
        let number = self.counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let folder = self.root.join(format!("{}-{number}", &id.to_string()[..16]));
        let (remap, unused) = (bundle.remap.clone(), bundle.unused.clone());
        let materialized = MaterializedBundle { folder, remap, unused, size: bundle.size(), shared };
        let blend = blend.clone();
        let written = spawn_blocking(move || {
            let result = write_tree(&materialized.folder, &bundle, &blend, &sources, &materialized.shared);
            drop(pin);
            result.map(|()| materialized)
        });
        Ok(written.await??)
    }

    /// Fetches the files that are one chunk at the server, thousands in a request, as sequences need. A file that is not
    /// here afterwards is fetched by itself.
    async fn bring_singles(&self, files: &BTreeMap<BlobHash, u64>) -> Result<(), TransferError> {
        if self.local.is_some() {
            return Ok(());
        }
        let mut wanted = files.clone();
        wanted.retain(|hash, size| (1..=MAX_CHUNK as u64).contains(size) && !self.cache.contains(hash));
        let asked: Vec<BlobHash> = wanted.keys().copied().collect();
        match self.client.missing_chunks(&asked).await {
            Ok(missing) => {
                for hash in missing {
                    wanted.remove(&hash);
                }
            }
            // It keeps files whole.
            Err(error) if error.code() == Some(ProblemCode::NotFound) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let asked: Vec<BlobHash> = wanted.keys().copied().collect();
        if asked.is_empty() {
            return Ok(());
        }
        let frames = self.client.fetch_chunks(asked).await?;
        match self.cache.put_singles(wanted, frames).await {
            Ok(_) => Ok(()),
            Err(error @ (BlobError::Frame(_) | BlobError::WrongLength(_))) => {
                tracing::warn!(%error, "a file's chunk is damaged; the whole file is fetched");
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn source(&self, hash: BlobHash, size: u64) -> Result<LocalCopy, TransferError> {
        if let Some(local) = &self.local
            && local.contains(&hash).await.unwrap_or(false)
        {
            return Ok(LocalCopy { path: local.path(&hash), unchecked: true });
        }
        if let Some(path) = self.cache.get(&hash).await? {
            return Ok(LocalCopy { path, unchecked: false });
        }
        // A small file shares nothing with others.
        let recipe = match size {
            0..SMALL => None,
            _ => self.client.recipe(hash).await?,
        };
        let assembled = match recipe {
            Some(recipe) => self.assemble(hash, recipe, size).await?,
            None => false,
        };
        if !assembled {
            let (_, stream) = self.client.get_blob(hash).await?;
            self.cache.put_stream(hash, size, stream).await?;
        }
        let path = self.cache.get(&hash).await?;
        path.map(|path| LocalCopy { path, unchecked: false })
            .ok_or_else(|| TransferError::Transient("the cache lost what it was given".to_owned()))
    }

    /// Makes the file of chunks. Returns false if a chunk is not the one that its hash names: the server checks each when
    /// it is asked for the whole file.
    async fn assemble(&self, hash: BlobHash, recipe: Recipe, size: u64) -> Result<bool, TransferError> {
        let fetch = |lacking| self.client.fetch_chunks(lacking);
        match self.cache.assemble(hash, recipe, size, fetch).await {
            Ok(_) => Ok(true),
            Err(error @ (BlobError::Frame(_) | BlobError::Lacking { .. } | BlobError::Mismatch { .. })) => {
                tracing::warn!(%error, blob = %hash, "a file's chunks are damaged; the whole file is fetched");
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn is_used(place: &BundlePlace) -> bool {
    // A locked one is being made.
    place.try_lock().map_or(true, |place| place.strong_count() > 0)
}

fn write_tree(
    folder: &Path,
    bundle: &Bundle,
    blend: &RelPath,
    sources: &HashMap<BlobHash, LocalCopy>,
    shared: &[VerifiedFile],
) -> Result<(), Failure> {
    let full = |error: io::Error| not_stored(&error, format!("{}: {error}", folder.display()));
    create_folder(folder).map_err(full)?;
    let place = |path: &RelPath| {
        let path = folder.join(path.to_path());
        path.parent().map_or(Ok(()), create_folder).map_err(full)?;
        Ok::<_, Failure>(path)
    };
    for (file, verified) in bundle.shared.iter().zip(shared) {
        shared::link(&place(&file.path)?, verified).map_err(full)?;
    }
    for file in &bundle.files {
        let path = place(&file.path)?;
        let lost = || unavailable(format!("{} was not fetched", file.path));
        let LocalCopy { path: source, unchecked } = sources.get(&file.hash).ok_or_else(lost)?;
        // A copy by the kernel, by reference where the disk can: bytes may be shared, a writable inode never is.
        fs::copy(source, &path).map_err(full)?;
        if *unchecked {
            let (hash, _) = hash_file(&path).map_err(|error| unavailable(error.to_string()))?;
            if hash != file.hash {
                return Err(unavailable(format!("{} is damaged on the server's disk", file.path)));
            }
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).map_err(full)?;
    }
    for changed in point_libraries(folder, blend, &bundle.remap).map_err(rewrite_failure)? {
        let path = folder.join(changed.to_path());
        fs::set_permissions(path, fs::Permissions::from_mode(0o444)).map_err(full)?;
    }
    make_read_only(folder).map_err(full)
}

fn rewrite_failure(error: RewriteError) -> Failure {
    match &error.fault {
        RewriteFault::Write(source) => not_stored(source, error.to_string()),
        _ => unavailable(error.to_string()),
    }
}

/// Makes a folder and all folders below it read-only.
fn make_read_only(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            make_read_only(&entry.path())?;
        }
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o555))
}

#[cfg(test)]
mod tests {
    use kiln_types::{BundleFile, FailureCause};

    use super::*;

    fn bundle_of(path: &str, bytes: &[u8]) -> Bundle {
        let file = BundleFile {
            path: RelPath::new(path).unwrap(),
            hash: BlobHash::of(bytes),
            size: bytes.len() as u64,
        };
        Bundle { files: vec![file], ..Bundle::default() }
    }

    fn source_of(bundle: &Bundle, path: &Path) -> HashMap<BlobHash, LocalCopy> {
        HashMap::from([(bundle.files[0].hash, LocalCopy { path: path.to_owned(), unchecked: true })])
    }

    #[test]
    fn a_tree_is_read_only_and_shares_nothing_writable() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("blob");
        fs::write(&source, b"scene").unwrap();
        let folder = dir.path().join("tree");
        let bundle = bundle_of("maps/wood.png", b"scene");
        write_tree(&folder, &bundle, &bundle.files[0].path, &source_of(&bundle, &source), &[]).unwrap();
        let materialized = folder.join("maps/wood.png");
        assert_eq!(fs::read(&materialized).unwrap(), b"scene");
        assert_eq!(materialized.metadata().unwrap().permissions().mode() & 0o777, 0o444);
        assert_eq!(folder.join("maps").metadata().unwrap().permissions().mode() & 0o777, 0o555);
        assert_ne!(materialized.metadata().unwrap().ino(), source.metadata().unwrap().ino());
        kiln_files::remove_folder(&folder).unwrap();
        assert!(!folder.exists());
    }

    #[test]
    fn bytes_that_changed_on_the_servers_disk_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("blob");
        fs::write(&source, b"other").unwrap();
        let bundle = bundle_of("a.blend", b"scene");
        let sources = source_of(&bundle, &source);
        let failure =
            write_tree(&dir.path().join("tree"), &bundle, &bundle.files[0].path, &sources, &[]).unwrap_err();
        assert_eq!(failure.cause, FailureCause::BundleUnavailable);
        assert!(failure.message.contains("a.blend"), "{}", failure.message);
    }
}
