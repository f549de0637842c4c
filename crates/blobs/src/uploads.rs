//! Resumable uploads of whole files, for senders that know nothing of chunks.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::Stream;
use kiln_files::{Access, remove_drafts, write_atomically};
use kiln_types::{BlobHash, BlobHasher, UploadId};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::disk::{BlobResult, blocking, length, pour, remove};
use crate::store::hash_file;
use crate::{BlobError, BlobStore, Durability, StreamError};

/// Bytes after which the received part of a long request is made safe.
const CHECKPOINT: u64 = 64 << 20;

/// The state of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadInfo {
    pub id: UploadId,
    /// The file's name, as the sender gave it.
    pub name: String,
    /// Bytes announced, where they were.
    pub size: Option<u64>,
    /// Bytes that are safe.
    pub offset: u64,
    /// The blob, once finished.
    pub finished: Option<BlobHash>,
}

/// The result of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UploadOutcome {
    /// A blob of this length.
    Stored(BlobHash, u64),
    /// Nothing: this was found wrong with it, and it is gone.
    Refused(String),
}

/// The uploads in progress of a server; cheap to clone. They survive its restart: `uploads/<id>.part` holds the
/// bytes, `<id>.json` how many of them are safe.
#[derive(Debug, Clone)]
pub struct Uploads {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    blobs: BlobStore,
    limit: u64,
    /// The uploads; the holder of one's lock may change it.
    all: StdMutex<HashMap<UploadId, Arc<Mutex<Upload>>>>,
}

/// An upload; also the text beside its bytes.
#[derive(Debug, Serialize, Deserialize)]
struct Upload {
    name: String,
    size: Option<u64>,
    /// Bytes that are on the disk.
    offset: u64,
    #[serde(default)]
    finished: Option<BlobHash>,
    /// Hash of the first `offset` bytes, where this process has seen them all.
    #[serde(skip)]
    hasher: Option<Box<BlobHasher>>,
    /// A request broke off without saying how far it came: the file's own length says it.
    #[serde(skip)]
    dirty: bool,
    #[serde(skip)]
    gone: bool,
}

impl Uploads {
    /// Opens the uploads in `root/uploads`, which must lie on the same disk as the blobs to be cheap. `limit`:
    /// bytes of one upload at most.
    pub async fn open(root: &Path, blobs: BlobStore, limit: u64) -> BlobResult<Self> {
        let folder = root.join("uploads");
        blocking(move || {
            fs::create_dir_all(&folder).map_err(BlobError::io("create", &folder))?;
            let all = StdMutex::new(load(&folder)?);
            Ok(Self { inner: Arc::new(Inner { folder, blobs, limit, all }) })
        })
        .await
    }

    /// A new, empty upload. The name is only kept, never used as a path.
    ///
    /// # Errors
    /// [`BlobError::TooLarge`] where the size announced is above the limit, [`BlobError::BadName`],
    /// [`BlobError::NoSpace`], or where the disk fails.
    pub async fn create(&self, name: &str, size: Option<u64>) -> BlobResult<UploadId> {
        if size.is_some_and(|size| size > self.inner.limit) {
            return Err(BlobError::TooLarge { limit: self.inner.limit });
        }
        if name.is_empty() || name.len() > 1024 || name.contains('\0') {
            return Err(BlobError::BadName(name.chars().take(64).flat_map(char::escape_default).collect()));
        }
        let upload = Upload {
            name: name.to_owned(),
            size,
            offset: 0,
            finished: None,
            hasher: Some(Box::default()),
            dirty: false,
            gone: false,
        };
        let id = UploadId::new(rand::random());
        let uploads = self.clone();
        blocking(move || {
            let part = uploads.inner.part(id);
            File::create_new(&part).map_err(BlobError::io("create", &part))?;
            if let Err(error) = uploads.inner.record(id, &upload) {
                // Nothing is left behind; what cannot be removed goes when the uploads are next opened.
                let _ = remove(&part);
                return Err(error);
            }
            uploads.inner.lock().insert(id, Arc::new(Mutex::new(upload)));
            Ok(id)
        })
        .await
    }

    /// Adds bytes at `offset`, which must be the length so far, and returns the length then. Those
    /// bytes are on the disk. Where the stream breaks, what had arrived is kept: ask for the offset and go on.
    ///
    /// # Errors
    /// [`BlobError::WrongOffset`] gives the right one; [`BlobError::Busy`] while another request writes;
    /// [`BlobError::NoUpload`], [`BlobError::BeyondSize`], [`BlobError::TooLarge`], [`BlobError::NoSpace`],
    /// [`BlobError::Stream`].
    pub async fn append<S, E>(&self, id: UploadId, offset: u64, stream: S) -> BlobResult<u64>
    where
        S: Stream<Item = std::result::Result<Bytes, E>> + Send,
        E: Into<StreamError>,
    {
        let upload = self.take(id)?;
        let inner = self.inner.clone();
        let appending = blocking(move || Appending::begin(inner, id, upload, offset)).await?;
        let (mut appending, broken) = pour(stream, appending, Appending::write).await?;
        let length = blocking(move || {
            appending.checkpoint()?;
            Ok(appending.upload.offset)
        })
        .await?;
        broken.map_or(Ok(length), Err)
    }

    /// The length of the upload: bytes that are safe.
    pub async fn offset(&self, id: UploadId) -> BlobResult<u64> {
        Ok(self.info(id).await?.offset)
    }

    /// # Errors
    /// [`BlobError::NoUpload`]; [`BlobError::Busy`] while a request writes to it.
    pub async fn info(&self, id: UploadId) -> BlobResult<UploadInfo> {
        let mut upload = self.take(id)?;
        let inner = self.inner.clone();
        blocking(move || {
            inner.settle(id, &mut upload)?;
            let (name, size) = (upload.name.clone(), upload.size);
            Ok(UploadInfo { id, name, size, offset: upload.offset, finished: upload.finished })
        })
        .await
    }

    /// Makes a blob of the upload, once `check` has read the file and has nothing against it. Until then nobody else can
    /// see its bytes, or be told that they are there: where it is refused, only the upload goes. Once done, asking again
    /// gives the same answer, until the upload is aborted or expires; what has become of the blob since is not asked.
    ///
    /// # Errors
    /// [`BlobError::Incomplete`] where less than announced has arrived; [`BlobError::NoUpload`],
    /// [`BlobError::Busy`], [`BlobError::NoSpace`], or where the disk fails.
    pub async fn finish(
        &self,
        id: UploadId,
        check: impl FnOnce(File) -> std::result::Result<(), String> + Send + 'static,
    ) -> BlobResult<UploadOutcome> {
        let mut upload = self.take(id)?;
        let inner = self.inner.clone();
        blocking(move || {
            inner.settle(id, &mut upload)?;
            let have = upload.offset;
            if let Some(want) = upload.size.filter(|want| *want != have) {
                return Err(BlobError::Incomplete { have, want });
            }
            let part = inner.part(id);
            let hash = match upload.finished {
                Some(hash) => hash,
                None => {
                    // What an earlier process wrote behind the safe bytes is no part of it.
                    let cut = File::options().write(true).open(&part).and_then(|file| file.set_len(have));
                    cut.map_err(BlobError::io("cut", &part))?;
                    let file = File::open(&part).map_err(BlobError::io("open", &part))?;
                    if let Err(why) = check(file) {
                        inner.forget(id, &mut upload)?;
                        return Ok(UploadOutcome::Refused(why));
                    }
                    match &upload.hasher {
                        Some(hasher) => hasher.hash(),
                        None => hash_file(&part)?.0,
                    }
                }
            };
            // Written first: if the process dies in between, the next `finish` goes on from here.
            let before = upload.finished.replace(hash);
            if let Err(error) = inner.record(id, &upload) {
                upload.finished = before;
                return Err(error);
            }
            if length(&part)?.is_some() {
                inner.blobs.adopt(&part, hash, have)?;
            }
            Ok(UploadOutcome::Stored(hash, have))
        })
        .await
    }

    /// Forgets the upload and its bytes.
    ///
    /// # Errors
    /// [`BlobError::NoUpload`], [`BlobError::Busy`], or where the disk fails.
    pub async fn abort(&self, id: UploadId) -> BlobResult<()> {
        let mut upload = self.take(id)?;
        let inner = self.inner.clone();
        blocking(move || inner.forget(id, &mut upload)).await
    }

    /// Forgets every upload that nothing has happened to since this time, and returns how many.
    pub async fn expire(&self, older_than: SystemTime) -> BlobResult<usize> {
        let inner = self.inner.clone();
        blocking(move || {
            let old = inner.old(older_than)?;
            let count = old.len();
            for (id, mut upload) in old {
                inner.forget(id, &mut upload)?;
            }
            Ok(count)
        })
        .await
    }

    /// The number of uploads that [`Uploads::expire`] would forget.
    pub async fn expirable(&self, older_than: SystemTime) -> BlobResult<usize> {
        let inner = self.inner.clone();
        blocking(move || Ok(inner.old(older_than)?.len())).await
    }

    /// The blobs of finished uploads, but those that nothing has happened to since this time.
    pub async fn finished(&self, since: SystemTime) -> BlobResult<Vec<BlobHash>> {
        let inner = self.inner.clone();
        blocking(move || {
            let all: Vec<_> = inner.lock().keys().copied().collect();
            let mut finished = Vec::new();
            for id in all {
                // The disk knows: a request that comes meanwhile must not find the upload in other hands.
                let upload = read(&inner.state(id))?;
                if inner.changed(id)?.is_some_and(|at| at >= since) {
                    finished.extend(upload.and_then(|upload| upload.finished));
                }
            }
            Ok(finished)
        })
        .await
    }

    fn take(&self, id: UploadId) -> BlobResult<OwnedMutexGuard<Upload>> {
        let upload = self.inner.lock().get(&id).cloned().ok_or(BlobError::NoUpload(id))?;
        let upload = upload.try_lock_owned().map_err(|_| BlobError::Busy)?;
        if upload.gone { Err(BlobError::NoUpload(id)) } else { Ok(upload) }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, HashMap<UploadId, Arc<Mutex<Upload>>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn part(&self, id: UploadId) -> PathBuf {
        self.folder.join(format!("{id}.part"))
    }

    fn state(&self, id: UploadId) -> PathBuf {
        self.folder.join(format!("{id}.json"))
    }

    /// Makes what the upload says of itself safe.
    fn record(&self, id: UploadId, upload: &Upload) -> BlobResult<()> {
        let path = self.state(id);
        let write =
            || write_atomically(&path, &serde_json::to_vec(upload)?, Access::Usual, self.blobs.durability());
        write().map_err(BlobError::io("write", &path))
    }

    /// After a request that broke off: all that it wrote is there, because this process wrote it.
    fn settle(&self, id: UploadId, upload: &mut Upload) -> BlobResult<()> {
        if !upload.dirty || upload.finished.is_some() {
            return Ok(());
        }
        let part = self.part(id);
        let file = File::open(&part).map_err(BlobError::io("open", &part))?;
        if self.blobs.durability() == Durability::Durable {
            file.sync_data().map_err(BlobError::io("write", &part))?;
        }
        upload.offset = file.metadata().map_err(BlobError::io("look at", &part))?.len();
        upload.hasher = None;
        self.record(id, upload)?;
        upload.dirty = false;
        Ok(())
    }

    /// Those that nothing has happened to since this time. One that is being written to is not old.
    fn old(&self, older_than: SystemTime) -> BlobResult<Vec<(UploadId, OwnedMutexGuard<Upload>)>> {
        let all: Vec<_> = self.lock().iter().map(|(id, upload)| (*id, upload.clone())).collect();
        let mut old = Vec::new();
        for (id, upload) in all {
            let is_old = || Ok::<_, BlobError>(self.changed(id)?.is_some_and(|at| at < older_than));
            // A request that comes meanwhile must not find a young one in other hands.
            if !is_old()? {
                continue;
            }
            let Ok(upload) = upload.try_lock_owned() else { continue };
            if !upload.gone && is_old()? {
                old.push((id, upload));
            }
        }
        Ok(old)
    }

    /// The time of the last change; `None` if it is gone.
    fn changed(&self, id: UploadId) -> BlobResult<Option<SystemTime>> {
        let path = self.state(id);
        match fs::metadata(&path).and_then(|meta| meta.modified()) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            done => done.map(Some).map_err(BlobError::io("look at", &path)),
        }
    }

    fn forget(&self, id: UploadId, upload: &mut Upload) -> BlobResult<()> {
        upload.gone = true;
        self.lock().remove(&id);
        remove(&self.part(id))?;
        remove(&self.state(id))?;
        Ok(())
    }
}

/// One request that adds bytes. Goes from thread to thread with them, and the lock with it: a request that is
/// dropped in the middle unlocks the upload only when its last write has ended.
struct Appending {
    inner: Arc<Inner>,
    id: UploadId,
    upload: OwnedMutexGuard<Upload>,
    file: File,
    /// Written behind the safe bytes.
    unsafe_bytes: u64,
}

impl Appending {
    fn begin(
        inner: Arc<Inner>,
        id: UploadId,
        mut upload: OwnedMutexGuard<Upload>,
        offset: u64,
    ) -> BlobResult<Self> {
        inner.settle(id, &mut upload)?;
        if upload.offset != offset || upload.finished.is_some() {
            return Err(BlobError::WrongOffset { right: upload.offset });
        }
        let part = inner.part(id);
        let open = || {
            let mut file = File::options().write(true).open(&part)?;
            // What lies behind was never acknowledged.
            file.set_len(offset)?;
            file.seek(SeekFrom::Start(offset))?;
            Ok(file)
        };
        let file = open().map_err(BlobError::io("open", &part))?;
        Ok(Self { inner, id, upload, file, unsafe_bytes: 0 })
    }

    fn write(&mut self, bytes: &[u8]) -> BlobResult<()> {
        let after = self.upload.offset + self.unsafe_bytes + bytes.len() as u64;
        if let Some(want) = self.upload.size.filter(|want| after > *want) {
            return Err(BlobError::BeyondSize { want });
        }
        if after > self.inner.limit {
            return Err(BlobError::TooLarge { limit: self.inner.limit });
        }
        self.upload.dirty = true;
        self.file.write_all(bytes).map_err(BlobError::io("write", &self.inner.part(self.id)))?;
        if let Some(hasher) = &mut self.upload.hasher {
            hasher.update(bytes);
        }
        self.unsafe_bytes += bytes.len() as u64;
        if self.unsafe_bytes >= CHECKPOINT { self.checkpoint() } else { Ok(()) }
    }

    fn checkpoint(&mut self) -> BlobResult<()> {
        if self.inner.blobs.durability() == Durability::Durable {
            self.file.sync_data().map_err(BlobError::io("write", &self.inner.part(self.id)))?;
        }
        self.upload.offset += std::mem::take(&mut self.unsafe_bytes);
        self.inner.record(self.id, &self.upload)?;
        self.upload.dirty = false;
        Ok(())
    }
}

/// Reads the state of an upload; `None` if it is gone.
fn read(state: &Path) -> BlobResult<Option<Upload>> {
    match fs::read(state) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(BlobError::io("read", state)(error)),
        Ok(text) => Ok(serde_json::from_slice(&text).ok()),
    }
}

/// Reads what is there, and removes what belongs to nothing.
fn load(folder: &Path) -> BlobResult<HashMap<UploadId, Arc<Mutex<Upload>>>> {
    let mut all = HashMap::new();
    let mut parts = Vec::new();
    remove_drafts(folder).map_err(BlobError::io("tidy", folder))?;
    for entry in fs::read_dir(folder).map_err(BlobError::io("read", folder))? {
        let path = entry.map_err(BlobError::io("read", folder))?.path();
        let id = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        let (Some(id), Some(kind)) = (id, path.extension().and_then(|kind| kind.to_str())) else { continue };
        match kind {
            "part" => parts.push((id, path)),
            // The draft of a record, as 0.1.0 named it.
            "new" => drop(remove(&path)?),
            "json" => {
                let text = fs::read(&path).map_err(BlobError::io("read", &path))?;
                match serde_json::from_slice::<Upload>(&text) {
                    Ok(upload) => drop(all.insert(id, Arc::new(Mutex::new(upload)))),
                    Err(error) => {
                        tracing::warn!(upload = %id, %error, "an upload's record cannot be read; it is dropped");
                        remove(&path)?;
                    }
                }
            }
            _ => {}
        }
    }
    for (id, path) in parts {
        if !all.contains_key(&id) {
            remove(&path)?;
        }
    }
    Ok(all)
}
