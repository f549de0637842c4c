//! Chunks on disk, and the recipes that make blobs of them.

mod announced;
mod growing;
mod index;
mod pack;
mod put;
mod reader;
mod recipes;
mod small;
mod sweep;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::{Stream, stream};
use kiln_types::BlobHash;

pub(crate) use pack::{ChunkKey, PackReader};
pub use put::PutReport;
pub use reader::ChunkReader;
pub(crate) use small::SMALL;
pub(crate) use sweep::Sweep;

use self::announced::AnnouncedBlobs;
use self::index::{ChunkPlace, Index, PackId};
use self::small::SmallBlobs;
use crate::disk::{BlobResult, blocking, remove, sync_folder};
use crate::{BlobError, DiskSpace, Durability};

/// A folder of chunks: `packs/` holds them, `recipes/ab/abcdef...` says which blob is made of which, `drafts/` is
/// for recipes that are being written. Cheap to clone; the folder must belong to this process alone.
///
/// Where each chunk lies is held in memory and read from the packs when the store is opened: nothing on the disk
/// can contradict them. A chunk that was put or asked for is *promised*: its pack has a new time, and a
/// collection lets packs alone that are younger than it is told.
#[derive(Debug, Clone)]
pub struct ChunkStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    packs: PathBuf,
    recipes: PathBuf,
    drafts: PathBuf,
    durability: Durability,
    index: Mutex<Index>,
    awaited: AnnouncedBlobs,
    small: SmallBlobs,
    /// Locked to remove an old recipe, and shared to renew one.
    gate: RwLock<()>,
    /// One collection at a time.
    sweeping: Mutex<()>,
    /// The disk that collections reserve space on.
    space: OnceLock<DiskSpace>,
}

/// Hashes looked up before others get their turn.
const SLICE: usize = 4096;

/// Bytes of frames read at once.
const READ: usize = 1 << 20;

impl ChunkStore {
    /// Opens the store in this folder, making it where there is none. Of packs that an earlier process left half
    /// written, what is whole is kept.
    pub async fn open(root: &Path, durability: Durability) -> BlobResult<Self> {
        let [packs, recipes, drafts] = ["packs", "recipes", "drafts"].map(|name| root.join(name));
        let root = root.to_owned();
        blocking(move || {
            for folder in [&packs, &recipes, &drafts] {
                fs::create_dir_all(folder).map_err(BlobError::io("create", folder))?;
            }
            sync_folder(&root, durability)?;
            for entry in fs::read_dir(&drafts).map_err(BlobError::io("read", &drafts))? {
                remove(&entry.map_err(BlobError::io("read", &drafts))?.path())?;
            }
            let (index, unended) = Index::load(&packs, durability)?;
            let inner = Inner {
                packs,
                recipes,
                drafts,
                durability,
                index: Mutex::new(index),
                awaited: AnnouncedBlobs::default(),
                small: SmallBlobs::new(unended),
                gate: RwLock::default(),
                sweeping: Mutex::default(),
                space: OnceLock::new(),
            };
            Ok(Self { inner: Arc::new(inner) })
        })
        .await
    }

    /// From now on a collection rewrites packs only where that leaves the disk's reserve alone. Only the first call counts.
    pub fn keep_free(&self, space: DiskSpace) {
        let _ = self.inner.space.set(space);
    }

    /// Those of these chunks that are not there. The others are promised.
    pub async fn missing(&self, hashes: Vec<BlobHash>) -> BlobResult<Vec<BlobHash>> {
        let inner = self.inner.clone();
        blocking(move || inner.promise(hashes.iter())).await
    }

    /// The frames of these chunks as they lie here, in this order, head by head: the body of an answer. Nothing
    /// is unpacked, and so nothing is checked: who unpacks a frame checks it.
    ///
    /// # Errors
    /// [`BlobError::Lacking`] before anything is sent; in the stream where the disk fails, or a chunk went
    /// meanwhile.
    pub async fn frames(
        &self,
        hashes: Vec<BlobHash>,
    ) -> BlobResult<impl Stream<Item = BlobResult<Bytes>> + Send + 'static> {
        let inner = self.inner.clone();
        let hashes = blocking(move || {
            let lacking = inner.promise(hashes.iter())?.len();
            if lacking == 0 { Ok(hashes) } else { Err(BlobError::Lacking { count: lacking }) }
        })
        .await?;
        let start = (self.inner.clone(), PackReader::default(), hashes, 0);
        Ok(stream::try_unfold(start, |(inner, mut reader, hashes, at)| async move {
            if at == hashes.len() {
                return Ok(None);
            }
            blocking(move || {
                let (bytes, taken) = inner.read_run(&mut reader, &hashes[at..])?;
                Ok(Some((bytes, (inner, reader, hashes, at + taken))))
            })
            .await
        }))
    }

    pub fn count(&self) -> usize {
        self.inner.index().len()
    }
}

impl Inner {
    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that are not there; the others are promised.
    fn promise<'a>(&self, hashes: impl Iterator<Item = &'a BlobHash>) -> BlobResult<Vec<BlobHash>> {
        let (mut lacking, mut stale) = (Vec::new(), Vec::new());
        let mut hashes = hashes.peekable();
        while hashes.peek().is_some() {
            let mut index = self.index();
            let now = SystemTime::now();
            for hash in hashes.by_ref().take(SLICE) {
                if !index.promise(hash, now, &mut stale) {
                    lacking.push(*hash);
                }
            }
        }
        self.renew_packs(&stale)?;
        Ok(lacking)
    }

    /// Gives the files of packs the time of their promise, for the next start: in memory they are promised already.
    fn renew_packs(&self, stale: &[PackId]) -> BlobResult<()> {
        for pack in stale {
            let path = self.index().path(&self.packs, *pack);
            crate::promise::renew(&path)?;
        }
        Ok(())
    }

    /// The first of these chunks, and those behind it that lie behind it: their frames, and how many they are.
    fn read_run(&self, reader: &mut PackReader, hashes: &[BlobHash]) -> BlobResult<(Bytes, usize)> {
        // A pack that was just rewritten, or ended, is gone between the look and the reading; then it lies elsewhere.
        for _ in 0..3 {
            let (path, first, taken, len) = self.find_run(hashes)?;
            if let Some(bytes) = reader.read(&path, u64::from(first.at), len)? {
                return Ok((bytes.into(), taken));
            }
        }
        Err(BlobError::NotFound(hashes[0]))
    }

    fn find_run(&self, hashes: &[BlobHash]) -> BlobResult<(PathBuf, ChunkPlace, usize, usize)> {
        let index = self.index();
        let first = index.get(&hashes[0]).ok_or(BlobError::NotFound(hashes[0]))?;
        let (mut taken, mut len) = (1, first.len as usize);
        for hash in &hashes[1..] {
            let Some(next) = index.get(hash) else { break };
            let adjoins = next.pack == first.pack && next.at as usize == first.at as usize + len;
            if !adjoins || len + next.len as usize > READ {
                break;
            }
            taken += 1;
            len += next.len as usize;
        }
        Ok((index.path(&self.packs, first.pack), first, taken, len))
    }
}
