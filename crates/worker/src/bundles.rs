//! The files of jobs, laid out for Blender to read.

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
use kiln_client::{Client, ClientError, hash_file};
use kiln_types::{BlobHash, Bundle, BundleId, Failure, FailureCause, RelPath};
use tokio::task::spawn_blocking;

use crate::{
    identity, link,
    scratch::ScratchFolder,
    shared::{self, Compared, SharedRoots},
};

/// Files that are fetched at the same time.
const AT_ONCE: usize = 4;
/// Bytes below which a file is fetched whole.
const SMALL: u64 = 64 << 10;

/// A bundle on this worker's disk: one folder that all slots read, files `0444` in folders `0555`, none sharing
/// an inode with the cache. Removed when the last that holds it lets go.
#[derive(Debug)]
pub(crate) struct Laid {
    pub(crate) folder: PathBuf,
    pub(crate) remap: BTreeMap<String, RelPath>,
    /// Names of files that may be missing.
    pub(crate) unused: BTreeSet<String>,
    /// Bytes.
    pub(crate) size: u64,
    /// What the links in it lead to.
    pub(crate) shared: Vec<Compared>,
}

impl Laid {
    pub(crate) fn remapped(&self) -> Vec<(String, PathBuf)> {
        self.remap.iter().map(|(from, to)| (from.clone(), self.folder.join(to.to_path()))).collect()
    }
}

impl Drop for Laid {
    fn drop(&mut self) {
        drop(ScratchFolder::new(std::mem::take(&mut self.folder)));
    }
}

type Place = Arc<tokio::sync::Mutex<Weak<Laid>>>;

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
    places: Mutex<HashMap<(BundleId, RelPath), Place>>,
    counter: std::sync::atomic::AtomicU64,
}

/// A file on this disk with a blob's bytes.
#[derive(Debug)]
struct Source {
    path: PathBuf,
    /// Whether they are still to be held against the hash.
    unchecked: bool,
}

/// Why a bundle is not here.
enum Lack {
    /// The server is away; it may come back.
    Later(String),
    Final(Failure),
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

    /// Lays a bundle out for one of its .blend files, or joins those who do or have done. Waits as long as the server
    /// is away.
    ///
    /// # Errors
    /// `BundleUnavailable` where the server does not have it, `DiskFull` where this disk does not take it.
    pub(crate) async fn lay_out(&self, id: BundleId, blend: &RelPath) -> Result<Arc<Laid>, Failure> {
        let place = {
            let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
            places.retain(|_, place| Arc::strong_count(place) > 1 || held(place));
            places.entry((id, blend.clone())).or_default().clone()
        };
        let mut place = place.lock().await;
        // A shared file may have changed since; then all is compared again.
        if let Some(laid) = place.upgrade()
            && laid.shared.iter().all(Compared::holds)
        {
            return Ok(laid);
        }
        let mut backoff = link::backoff();
        loop {
            match self.try_once(id, blend).await {
                Ok(laid) => {
                    let laid = Arc::new(laid);
                    *place = Arc::downgrade(&laid);
                    return Ok(laid);
                }
                Err(Lack::Final(failure)) => return Err(failure),
                Err(Lack::Later(why)) => {
                    tracing::debug!(%why, bundle = %id, "the job's files cannot be fetched now; trying again");
                    tokio::time::sleep(backoff.failed()).await;
                }
            }
        }
    }

    async fn try_once(&self, id: BundleId, blend: &RelPath) -> Result<Laid, Lack> {
        let bundle = self.client.bundle(id).await.map_err(|error| lack(&error))?;
        let pin = self.cache.pin(bundle.files.iter().map(|file| file.hash));
        let (roots, files) = (self.roots.clone(), bundle.shared.clone());
        let shared = spawn_blocking(move || roots.compare(&files)).await;
        let shared =
            shared.map_err(|error| Lack::Final(unavailable(error.to_string())))?.map_err(Lack::Final)?;
        // Each once, however many places it has.
        let distinct: BTreeMap<BlobHash, u64> =
            bundle.files.iter().map(|file| (file.hash, file.size)).collect();
        self.bring_singles(&distinct).await?;
        let sources = distinct
            .into_iter()
            .map(|(hash, size)| async move { Ok::<_, Lack>((hash, self.source(hash, size).await?)) });
        let sources: HashMap<BlobHash, Source> =
            stream::iter(sources.collect::<Vec<_>>()).buffer_unordered(AT_ONCE).try_collect().await?;
        // Its own name each time: the removal of an earlier one may still be under way.
        let number = self.counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let folder = self.root.join(format!("{}-{number}", &id.to_string()[..16]));
        let (remap, unused) = (bundle.remap.clone(), bundle.unused.clone());
        let laid = Laid { folder, remap, unused, size: bundle.size(), shared };
        let blend = blend.clone();
        let written = spawn_blocking(move || {
            let result = write_tree(&laid.folder, &bundle, &blend, &sources, &laid.shared);
            drop(pin);
            (laid, result)
        });
        match written.await {
            Ok((laid, Ok(()))) => Ok(laid),
            Ok((_, Err(error))) => Err(Lack::Final(error)),
            Err(error) => Err(Lack::Final(unavailable(error.to_string()))),
        }
    }

    /// Fetches those that are one chunk at the server, thousands in a request: sequences have so many. What is not
    /// here afterwards is fetched by itself.
    async fn bring_singles(&self, files: &BTreeMap<BlobHash, u64>) -> Result<(), Lack> {
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
            Err(error) => return Err(lack(&error)),
        }
        let asked: Vec<BlobHash> = wanted.keys().copied().collect();
        if asked.is_empty() {
            return Ok(());
        }
        let frames = self.client.fetch_chunks(asked).await.map_err(|error| lack(&error))?;
        match self.cache.put_singles(wanted, frames).await {
            Ok(_) => Ok(()),
            Err(error @ (BlobError::Frame(_) | BlobError::WrongLength(_))) => {
                tracing::warn!(%error, "a file's chunk is damaged; the whole file is fetched");
                Ok(())
            }
            Err(error) => Err(disk(&error)),
        }
    }

    async fn source(&self, hash: BlobHash, size: u64) -> Result<Source, Lack> {
        if let Some(local) = &self.local
            && local.contains(&hash).await.unwrap_or(false)
        {
            return Ok(Source { path: local.path(&hash), unchecked: true });
        }
        if let Some(path) = self.cache.get(&hash).await.map_err(|error| disk(&error))? {
            return Ok(Source { path, unchecked: false });
        }
        // A small file shares nothing with others.
        let recipe = match size {
            0..SMALL => None,
            _ => self.client.recipe(hash).await.map_err(|error| lack(&error))?,
        };
        let assembled = match recipe {
            Some(recipe) => self.assemble(hash, recipe, size).await?,
            None => false,
        };
        if !assembled {
            let (_, stream) = self.client.get_blob(hash).await.map_err(|error| lack(&error))?;
            self.cache.put_stream(hash, size, stream).await.map_err(|error| disk(&error))?;
        }
        let path = self.cache.get(&hash).await.map_err(|error| disk(&error))?;
        path.map(|path| Source { path, unchecked: false })
            .ok_or_else(|| Lack::Later("the cache lost what it was given".to_owned()))
    }

    /// Whether the file was made of chunks. Where a chunk is not what its hash says, it was not: the server looks at
    /// each when it is asked for the whole file, and then knows.
    async fn assemble(&self, hash: BlobHash, recipe: Recipe, size: u64) -> Result<bool, Lack> {
        let fetch = |lacking| self.client.fetch_chunks(lacking);
        match self.cache.assemble(hash, recipe, size, fetch).await {
            Ok(_) => Ok(true),
            Err(error @ (BlobError::Frame(_) | BlobError::Lacking { .. } | BlobError::Mismatch { .. })) => {
                tracing::warn!(%error, blob = %hash, "a file's chunks are damaged; the whole file is fetched");
                Ok(false)
            }
            Err(error) => Err(disk(&error)),
        }
    }
}

fn held(place: &Place) -> bool {
    // Locked means that somebody is at it.
    place.try_lock().map_or(true, |place| place.strong_count() > 0)
}

fn unavailable(why: String) -> Failure {
    Failure::new(FailureCause::BundleUnavailable, format!("the job's files cannot be brought here: {why}"))
}

fn disk_full() -> Failure {
    Failure::new(
        FailureCause::DiskFull,
        "this worker's disk is full, the job's files do not fit; free some space in its data folder",
    )
}

fn lack(error: &ClientError) -> Lack {
    if error.is_transient() {
        Lack::Later(error.to_string())
    } else {
        Lack::Final(unavailable(error.to_string()))
    }
}

fn disk(error: &BlobError) -> Lack {
    match error {
        BlobError::NoSpace => Lack::Final(disk_full()),
        // The transfer broke or brought other bytes: it can be made again.
        BlobError::Stream(source) => match source.downcast_ref::<ClientError>() {
            Some(error) => lack(error),
            None => Lack::Later(error.to_string()),
        },
        BlobError::Mismatch { .. } | BlobError::Damaged(_) => Lack::Later(error.to_string()),
        _ => Lack::Final(unavailable(error.to_string())),
    }
}

fn write_tree(
    folder: &Path,
    bundle: &Bundle,
    blend: &RelPath,
    sources: &HashMap<BlobHash, Source>,
    shared: &[Compared],
) -> Result<(), Failure> {
    let full = |error: io::Error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => disk_full(),
        _ => unavailable(format!("{}: {error}", folder.display())),
    };
    identity::make(folder).map_err(full)?;
    let place = |path: &RelPath| {
        let path = folder.join(path.to_path());
        path.parent().map_or(Ok(()), identity::make).map_err(full)?;
        Ok::<_, Failure>(path)
    };
    for (file, compared) in bundle.shared.iter().zip(shared) {
        shared::link(&place(&file.path)?, compared).map_err(full)?;
    }
    for file in &bundle.files {
        let path = place(&file.path)?;
        let lost = || unavailable(format!("{} was not fetched", file.path));
        let Source { path: source, unchecked } = sources.get(&file.hash).ok_or_else(lost)?;
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
    for changed in point_libraries(folder, blend, &bundle.remap).map_err(unwritten)? {
        let path = folder.join(changed.to_path());
        fs::set_permissions(path, fs::Permissions::from_mode(0o444)).map_err(full)?;
    }
    lock(folder).map_err(full)
}

fn unwritten(error: RewriteError) -> Failure {
    match &error.fault {
        RewriteFault::Write(source) if source.kind() == io::ErrorKind::StorageFull => disk_full(),
        RewriteFault::Write(source) if source.kind() == io::ErrorKind::QuotaExceeded => disk_full(),
        _ => unavailable(error.to_string()),
    }
}

/// Takes the right to write from a folder and all folders below it.
fn lock(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            lock(&entry.path())?;
        }
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o555))
}

#[cfg(test)]
mod tests {
    use kiln_types::BundleFile;

    use super::*;

    fn bundle_of(path: &str, bytes: &[u8]) -> Bundle {
        let file = BundleFile {
            path: RelPath::new(path).unwrap(),
            hash: BlobHash::of(bytes),
            size: bytes.len() as u64,
        };
        Bundle { files: vec![file], ..Bundle::default() }
    }

    fn source_of(bundle: &Bundle, path: &Path) -> HashMap<BlobHash, Source> {
        HashMap::from([(bundle.files[0].hash, Source { path: path.to_owned(), unchecked: true })])
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
        let laid = folder.join("maps/wood.png");
        assert_eq!(fs::read(&laid).unwrap(), b"scene");
        assert_eq!(laid.metadata().unwrap().permissions().mode() & 0o777, 0o444);
        assert_eq!(folder.join("maps").metadata().unwrap().permissions().mode() & 0o777, 0o555);
        assert_ne!(laid.metadata().unwrap().ino(), source.metadata().unwrap().ino());
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
