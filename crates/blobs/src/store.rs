//! Blobs: whole bytes, each under the hash of itself.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use bytes::Bytes;
use futures_util::{Stream, stream};
use kiln_types::{BlobHash, BlobHasher};

use crate::disk::{
    BlobResult, Draft, blocking, length, make_safe, move_in, pour, remove, sharded, sync_folder, walk,
};
use crate::{BlobError, Durability, StreamError};

/// The way in which a file is put into a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutMode {
    /// The file stays.
    Copy,
    /// The file is moved. Nobody may have it open for writing.
    Move,
}

/// A folder of blobs: `blobs/ab/abcdef...`, and `tmp/` for what is being written. Cheap to clone. A blob that
/// is there is whole: it got its name after its bytes were checked and, in a durable store, on the disk.
#[derive(Debug, Clone)]
pub struct BlobStore {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) blobs: PathBuf,
    tmp: PathBuf,
    durability: Durability,
    /// Locked to remove an old blob, and shared to renew one.
    pub(crate) gate: RwLock<()>,
}

impl BlobStore {
    /// Opens the store in this folder, making it where there is none. What an earlier process left half
    /// written is removed: the folder must belong to this process alone.
    pub async fn open(root: &Path, durability: Durability) -> BlobResult<Self> {
        let (blobs, tmp) = (root.join("blobs"), root.join("tmp"));
        let root = root.to_owned();
        blocking(move || {
            for folder in [&blobs, &tmp] {
                fs::create_dir_all(folder).map_err(BlobError::io("create", folder))?;
            }
            for entry in fs::read_dir(&tmp).map_err(BlobError::io("read", &tmp))? {
                let path = entry.map_err(BlobError::io("read", &tmp))?.path();
                remove(&path)?;
            }
            sync_folder(&root, durability)?;
            Ok(Self { inner: Arc::new(Inner { blobs, tmp, durability, gate: RwLock::default() }) })
        })
        .await
    }

    /// Looks into a store that belongs to another, without touching it: for reading only. Where there is no
    /// store, there is no blob.
    pub fn peek(root: &Path) -> Self {
        let (blobs, tmp) = (root.join("blobs"), root.join("tmp"));
        let inner = Inner { blobs, tmp, durability: Durability::Ephemeral, gate: RwLock::default() };
        Self { inner: Arc::new(inner) }
    }

    /// Stores a stream of at most `limit` bytes and returns its hash and length. Where `expected` is there
    /// already, the stream is only checked. The blob is promised from then on, see [`BlobStore::promise`].
    ///
    /// # Errors
    /// [`BlobError::Mismatch`], [`BlobError::TooLarge`], [`BlobError::NoSpace`], [`BlobError::Stream`]; nothing
    /// is left of it then.
    pub async fn put_stream<S, E>(
        &self,
        expected: Option<BlobHash>,
        limit: u64,
        stream: S,
    ) -> BlobResult<(BlobHash, u64)>
    where
        S: Stream<Item = std::result::Result<Bytes, E>> + Send,
        E: Into<StreamError>,
    {
        if let Some(hash) = expected
            && let Some(stored) = self.promise(&hash).await?
        {
            let checked = check(hash, stored, limit, stream).await;
            if let Err(BlobError::Damaged(_)) = checked {
                self.delete(&hash).await?;
            }
            return checked;
        }
        // The file is made together with its first write: small blobs cost one trip to another thread less.
        let tmp = self.draft_path();
        let (draft, broken) = pour(stream, None::<Draft>, move |draft, bytes| {
            let draft = match draft {
                Some(draft) => draft,
                None => draft.insert(Draft::create(tmp.clone())?),
            };
            if draft.len() + bytes.len() as u64 > limit {
                return Err(BlobError::TooLarge { limit });
            }
            draft.write(bytes)
        })
        .await?;
        if let Some(error) = broken {
            blocking(move || {
                drop(draft);
                Ok(())
            })
            .await?;
            return Err(error);
        }
        let store = self.clone();
        blocking(move || {
            let draft = match draft {
                Some(draft) => draft,
                None => Draft::create(store.draft_path())?,
            };
            let (hash, len) = draft.hash();
            if let Some(expected) = expected.filter(|expected| *expected != hash) {
                return Err(BlobError::Mismatch { expected, found: hash });
            }
            store.keep(draft)?;
            Ok((hash, len))
        })
        .await
    }

    /// Gives what was written its name, unless the blob is there. Blocks.
    pub(crate) fn keep(&self, draft: Draft) -> BlobResult<()> {
        let (hash, len) = draft.hash();
        let path = self.path(&hash);
        if self.claim(&path, len)? { Ok(()) } else { draft.keep(&path, self.inner.durability) }
    }

    /// # Errors
    /// [`BlobError::NoSpace`], or where the disk fails.
    pub async fn put_bytes(&self, bytes: impl Into<Bytes>) -> BlobResult<BlobHash> {
        let bytes = bytes.into();
        let one = stream::iter([Ok::<_, StreamError>(bytes)]);
        Ok(self.put_stream(None, u64::MAX, one).await?.0)
    }

    /// Stores a file and returns its hash and length. A file to move is copied where it lies on another disk,
    /// and then removed.
    ///
    /// # Errors
    /// [`BlobError::NoSpace`], or where the file cannot be read or moved; the file is there still then.
    pub async fn put_file(&self, path: &Path, take: PutMode) -> BlobResult<(BlobHash, u64)> {
        let path = path.to_owned();
        let store = self.clone();
        blocking(move || match take {
            PutMode::Copy => store.copy_in(&path),
            PutMode::Move => {
                let (hash, len) = hash_file(&path)?;
                store.adopt(&path, hash, len)?;
                Ok((hash, len))
            }
        })
        .await
    }

    /// Moves in a file whose hash is known. Blocks.
    pub(crate) fn adopt(&self, from: &Path, hash: BlobHash, len: u64) -> BlobResult<()> {
        let to = self.path(&hash);
        if self.claim(&to, len)? {
            remove(from)?;
            return Ok(());
        }
        let file = File::open(from).map_err(BlobError::io("open", from))?;
        make_safe(&file, from, self.inner.durability)?;
        match move_in(from, &to, self.inner.durability) {
            Err(BlobError::Io { source, .. }) if source.kind() == io::ErrorKind::CrossesDevices => {
                self.copy_in(from)?;
                remove(from)?;
                Ok(())
            }
            done => done,
        }
    }

    fn copy_in(&self, from: &Path) -> BlobResult<(BlobHash, u64)> {
        let mut draft = Draft::create(self.draft_path())?;
        read_pieces(from, |bytes| draft.write(bytes))?;
        let (hash, len) = draft.hash();
        self.keep(draft)?;
        Ok((hash, len))
    }

    pub async fn contains(&self, hash: &BlobHash) -> BlobResult<bool> {
        Ok(self.size(hash).await?.is_some())
    }

    /// Bytes, if the blob is there.
    pub async fn size(&self, hash: &BlobHash) -> BlobResult<Option<u64>> {
        let path = self.path(hash);
        blocking(move || length(&path)).await
    }

    /// The blob to read, and its length. It can be read to its end also where it is deleted meanwhile.
    ///
    /// # Errors
    /// [`BlobError::NotFound`], or where the disk fails.
    pub async fn open_blob(&self, hash: &BlobHash) -> BlobResult<(tokio::fs::File, u64)> {
        let (store, hash) = (self.clone(), *hash);
        let (file, len) = blocking(move || store.open_file(&hash)).await?;
        Ok((tokio::fs::File::from_std(file), len))
    }

    pub(crate) fn open_file(&self, hash: &BlobHash) -> BlobResult<(File, u64)> {
        let path = self.path(hash);
        let file = File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => BlobError::NotFound(*hash),
            _ => BlobError::io("open", &path)(error),
        })?;
        let len = file.metadata().map_err(BlobError::io("look at", &path))?.len();
        Ok((file, len))
    }

    /// The whole of a small blob.
    ///
    /// # Errors
    /// [`BlobError::NotFound`], [`BlobError::TooLarge`] above `limit` bytes, or where the disk fails.
    pub async fn read(&self, hash: &BlobHash, limit: u64) -> BlobResult<Bytes> {
        let (file, len) = self.open_blob(hash).await?;
        if len > limit {
            return Err(BlobError::TooLarge { limit });
        }
        let path = self.path(hash);
        let mut file = file.into_std().await;
        blocking(move || {
            let mut bytes = Vec::with_capacity(len as usize);
            file.read_to_end(&mut bytes).map_err(BlobError::io("read", &path))?;
            Ok(bytes.into())
        })
        .await
    }

    /// The path of the blob, if it is there. The file must not be written to.
    pub fn path(&self, hash: &BlobHash) -> PathBuf {
        sharded(&self.inner.blobs, hash)
    }

    /// Returns true if it was there.
    pub async fn delete(&self, hash: &BlobHash) -> BlobResult<bool> {
        let path = self.path(hash);
        blocking(move || remove(&path)).await
    }

    /// Every blob with its length, in no order. Files with other names are passed over.
    pub async fn list(&self) -> BlobResult<Vec<(BlobHash, u64)>> {
        let store = self.clone();
        let all = blocking(move || store.walk()).await?;
        Ok(all.into_iter().map(|(hash, meta)| (hash, meta.len())).collect())
    }

    pub(crate) fn walk(&self) -> BlobResult<Vec<(BlobHash, fs::Metadata)>> {
        walk(&self.inner.blobs)
    }

    /// Reads the blob again and returns its length. A damaged one is left where it is.
    ///
    /// # Errors
    /// [`BlobError::NotFound`], [`BlobError::Mismatch`], or where the disk fails.
    pub async fn verify(&self, hash: &BlobHash) -> BlobResult<u64> {
        let (expected, path) = (*hash, self.path(hash));
        blocking(move || {
            if length(&path)?.is_none() {
                return Err(BlobError::NotFound(expected));
            }
            let (found, len) = hash_file(&path)?;
            if found == expected { Ok(len) } else { Err(BlobError::Mismatch { expected, found }) }
        })
        .await
    }

    pub(crate) fn draft_path(&self) -> PathBuf {
        self.inner.tmp.join(format!("{:032x}", rand::random::<u128>()))
    }

    pub(crate) fn durability(&self) -> Durability {
        self.inner.durability
    }
}

/// For a blob of `stored` bytes that is there: reads the stream to its end, so that a wrong one is still told.
pub(crate) async fn check<S, E>(
    expected: BlobHash,
    stored: u64,
    limit: u64,
    stream: S,
) -> BlobResult<(BlobHash, u64)>
where
    S: Stream<Item = std::result::Result<Bytes, E>> + Send,
    E: Into<StreamError>,
{
    let (hasher, broken) = pour(stream, BlobHasher::new(), move |hasher, bytes| {
        hasher.update(bytes);
        if hasher.count() > limit { Err(BlobError::TooLarge { limit }) } else { Ok(()) }
    })
    .await?;
    if let Some(error) = broken {
        return Err(error);
    }
    let (found, len) = (hasher.hash(), hasher.count());
    if found != expected {
        return Err(BlobError::Mismatch { expected, found });
    }
    if len == stored { Ok((expected, len)) } else { Err(BlobError::Damaged(expected)) }
}

/// Blocks.
pub(crate) fn hash_file(path: &Path) -> BlobResult<(BlobHash, u64)> {
    let mut hasher = BlobHasher::new();
    read_pieces(path, |bytes| {
        hasher.update(bytes);
        Ok(())
    })?;
    Ok((hasher.hash(), hasher.count()))
}

fn read_pieces(path: &Path, mut take: impl FnMut(&[u8]) -> BlobResult<()>) -> BlobResult<()> {
    let mut file = File::open(path).map_err(BlobError::io("open", path))?;
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => take(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(BlobError::io("read", path)(error)),
        }
    }
}
