//! A store of blobs with a limit: what was used longest ago goes first.

mod assemble;
mod shared;
mod singles;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::Stream;
use kiln_chunks::Chunk;
use kiln_types::BlobHash;

use self::shared::SharedChunks;
use crate::disk::{BlobResult, blocking, remove};
use crate::ordered_chunks::MemoryBudget;
use crate::{BlobStore, Durability, PutMode, StreamError};

/// Bytes in memory of chunks that occur in several places, or came too early, of all files that are being made of them.
const KEPT: usize = 64 << 20;

/// The size of a cache, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheUsage {
    pub used: u64,
    pub max: u64,
    /// Held by pins. Above `max`, the cache stays over its limit until a blob is put after they are dropped.
    pub pinned: u64,
}

/// A worker's cache of blobs; cheap to clone. The order of use survives a restart as the files' times. A file that
/// was assembled has a list of its chunks beside it, so that the next one may take some from there.
#[derive(Debug, Clone)]
pub struct Cache {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: BlobStore,
    max: u64,
    index: Mutex<Index>,
    /// Of files that are being made of chunks.
    room: MemoryBudget,
}

#[derive(Debug, Default)]
struct Index {
    entries: HashMap<BlobHash, Entry>,
    /// By the time of the last use, as a count of uses.
    order: BTreeMap<u64, BlobHash>,
    /// The number of pins of a blob, also of blobs that are not there yet.
    pins: HashMap<BlobHash, u32>,
    used: u64,
    clock: u64,
    /// The chunks of the files, as far as they are known.
    shared: SharedChunks,
}

#[derive(Debug)]
struct Entry {
    size: u64,
    last_use: u64,
}

/// Keeps blobs in the cache until it is dropped.
#[derive(Debug)]
#[must_use = "the blobs may leave the cache as soon as this is dropped"]
pub struct Pin {
    inner: Arc<Inner>,
    hashes: Vec<BlobHash>,
}

impl Cache {
    /// Opens the cache in this folder, which must belong to this process alone. Its blobs are durable, because
    /// after a loss of power a name must not stand for other bytes.
    pub async fn open(root: &Path, max_bytes: u64) -> BlobResult<Self> {
        let store = BlobStore::open(root, Durability::Durable).await?;
        let walked = store.clone();
        let index = blocking(move || {
            let mut found = walked.walk()?;
            let used_at = |meta: &std::fs::Metadata| meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            found.sort_by_key(|(_, meta)| used_at(meta));
            let mut index = Index::default();
            for (hash, meta) in found {
                index.insert(hash, meta.len());
                if let Some(recipe) = shared::read_list(&walked.path(&hash), meta.len()) {
                    index.shared.insert(hash, &recipe);
                }
            }
            Ok(index)
        })
        .await?;
        let (index, room) = (Mutex::new(index), MemoryBudget::new(KEPT));
        let cache = Self { inner: Arc::new(Inner { store, max: max_bytes, index, room }) };
        cache.make_room().await?;
        Ok(cache)
    }

    /// Keeps these in the cache, those that are there and those that come, until the pin is dropped. Pin first,
    /// then look what is missing.
    pub fn pin(&self, hashes: impl IntoIterator<Item = BlobHash>) -> Pin {
        let hashes: Vec<_> = hashes.into_iter().collect();
        let mut index = self.inner.lock();
        for hash in &hashes {
            *index.pins.entry(*hash).or_default() += 1;
        }
        drop(index);
        Pin { inner: self.inner.clone(), hashes }
    }

    /// The blob should be there; counts as no use.
    pub fn contains(&self, hash: &BlobHash) -> bool {
        self.inner.lock().entries.contains_key(hash)
    }

    /// The path of the blob, if it is there; counts as a use. The file must not be written to, and stays only
    /// while it is pinned.
    pub async fn get(&self, hash: &BlobHash) -> BlobResult<Option<PathBuf>> {
        if !self.inner.lock().touch(hash) {
            return Ok(None);
        }
        let (inner, hash) = (self.inner.clone(), *hash);
        blocking(move || {
            let path = inner.store.path(&hash);
            // Removed by other hands: then it is not there.
            let Ok(file) = File::open(&path) else {
                inner.drop_file(&mut inner.lock(), &hash)?;
                return Ok(None);
            };
            // Only the order after a restart hangs on this.
            let _ = file.set_modified(SystemTime::now());
            Ok(Some(path))
        })
        .await
    }

    /// Stores a stream of at most `limit` bytes and returns its length, then removes the files used longest ago
    /// ago and is not pinned, until the cache is within its limit. Above it because of pins, it says so in the
    /// log and in [`Cache::usage`].
    pub async fn put_stream<S, E>(&self, expected: BlobHash, limit: u64, stream: S) -> BlobResult<u64>
    where
        S: Stream<Item = std::result::Result<Bytes, E>> + Send,
        E: Into<StreamError>,
    {
        let (hash, len) = self.inner.store.put_stream(Some(expected), limit, stream).await?;
        self.added(hash, len).await?;
        Ok(len)
    }

    /// Moves or copies a file in; else as [`Cache::put_stream`].
    pub async fn put_file(&self, path: &Path, take: PutMode) -> BlobResult<(BlobHash, u64)> {
        let (hash, len) = self.inner.store.put_file(path, take).await?;
        self.added(hash, len).await?;
        Ok((hash, len))
    }

    async fn added(&self, hash: BlobHash, len: u64) -> BlobResult<()> {
        self.inner.lock().insert(hash, len);
        self.make_room().await
    }

    pub fn usage(&self) -> CacheUsage {
        let index = self.inner.lock();
        let pinned = index.pins.keys().filter_map(|hash| index.entries.get(hash)).map(|e| e.size).sum();
        CacheUsage { used: index.used, max: self.inner.max, pinned }
    }

    async fn make_room(&self) -> BlobResult<()> {
        let inner = self.inner.clone();
        blocking(move || inner.make_room()).await
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The files are removed under the lock, so that nobody is given one that is just going.
    fn make_room(&self) -> BlobResult<()> {
        let mut index = self.lock();
        while index.used > self.max {
            let oldest = index.order.values().find(|hash| !index.pins.contains_key(hash)).copied();
            let Some(hash) = oldest else {
                tracing::warn!(
                    used = index.used,
                    max = self.max,
                    "the cache is over its limit, because running jobs need all of it"
                );
                break;
            };
            self.drop_file(&mut index, &hash)?;
        }
        Ok(())
    }

    fn drop_file(&self, index: &mut Index, hash: &BlobHash) -> BlobResult<()> {
        let path = self.store.path(hash);
        remove(&shared::list_path(&path))?;
        remove(&path)?;
        index.remove(hash);
        index.shared.remove(hash);
        Ok(())
    }
}

impl Index {
    fn insert(&mut self, hash: BlobHash, size: u64) {
        self.remove(&hash);
        self.clock += 1;
        self.entries.insert(hash, Entry { size, last_use: self.clock });
        self.order.insert(self.clock, hash);
        self.used += size;
    }

    /// The file that should hold this chunk, and where: also one that is this chunk.
    fn find(&self, chunk: &Chunk) -> Option<(BlobHash, u64)> {
        let alone = || self.entries.contains_key(&chunk.hash).then_some((chunk.hash, 0));
        self.shared.find(chunk).or_else(alone)
    }

    /// Returns true if the blob is there.
    fn touch(&mut self, hash: &BlobHash) -> bool {
        let Some(entry) = self.entries.get_mut(hash) else { return false };
        self.clock += 1;
        self.order.remove(&entry.last_use);
        self.order.insert(self.clock, *hash);
        entry.last_use = self.clock;
        true
    }

    fn remove(&mut self, hash: &BlobHash) {
        if let Some(entry) = self.entries.remove(hash) {
            self.order.remove(&entry.last_use);
            self.used -= entry.size;
        }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut index = self.inner.lock();
        for hash in &self.hashes {
            if let Some(count) = index.pins.get_mut(hash) {
                *count -= 1;
                if *count == 0 {
                    index.pins.remove(hash);
                }
            }
        }
    }
}
