//! Blobs whose chunks are on their way: hashed as they come, so that making them reads little again.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kiln_chunks::{Chunk, Frame, Recipe, Unpacker};
use kiln_types::BlobHash;

use super::Inner;
use super::pack::PackReader;
use crate::BlobError;
use crate::disk::Result;

/// Blobs at a time; the one that was announced first goes first.
const BLOBS: usize = 8;
/// Chunks of one that is awaited: a .blend of a gigabyte has so many.
const CHUNKS: usize = 1 << 16;
/// Bytes kept of a blob that came before those in front of them: requests run beside each other.
const EARLY: usize = 16 << 20;
/// A blob of which nothing came for so long is not awaited any more.
const FORGOTTEN: Duration = Duration::from_mins(2);

/// Recipes that were put before their chunks were there. Nothing hangs on them: without, the chunks are read again
/// when the recipe is put once more.
#[derive(Debug, Default)]
pub(super) struct Awaited {
    coming: Mutex<Vec<Arc<Mutex<Coming>>>>,
}

/// How much of a blob has been hashed.
#[derive(Debug, Clone, Default)]
pub(super) struct Hashed {
    pub chunks: usize,
    pub hasher: blake3::Hasher,
}

#[derive(Debug)]
struct Coming {
    blob: BlobHash,
    recipe: Recipe,
    members: HashSet<BlobHash>,
    hashed: Hashed,
    /// Checked chunks that came before their turn.
    early: HashMap<BlobHash, Box<[u8]>>,
    early_bytes: usize,
    touched: Instant,
}

impl Awaited {
    pub fn announce(&self, blob: BlobHash, recipe: Recipe) {
        if !(2..=CHUNKS).contains(&recipe.chunks.len()) {
            return;
        }
        let mut all = self.lock();
        all.retain(|coming| {
            let coming = lock(coming);
            coming.touched.elapsed() < FORGOTTEN && (coming.blob != blob || coming.recipe == recipe)
        });
        if all.iter().any(|coming| lock(coming).blob == blob) {
            // After a break: what was hashed still counts.
            return;
        }
        if all.len() == BLOBS {
            all.remove(0);
        }
        all.push(Arc::new(Mutex::new(Coming::new(blob, recipe))));
    }

    /// What was hashed of this blob; it is awaited no more.
    pub fn take(&self, blob: &BlobHash, recipe: &Recipe) -> Hashed {
        let mut all = self.lock();
        let Some(at) = all.iter().position(|coming| lock(coming).blob == *blob) else {
            return Hashed::default();
        };
        let coming = all.remove(at);
        drop(all);
        let mut coming = lock(&coming);
        if coming.recipe == *recipe { mem::take(&mut coming.hashed) } else { Hashed::default() }
    }

    /// A chunk came, and these are its bytes.
    pub fn came(&self, inner: &Inner, packs: &mut PackReader, chunk: Chunk, bytes: &[u8]) {
        let all = self.lock().clone();
        for coming in all {
            lock(&coming).came(inner, packs, chunk, bytes);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Mutex<Coming>>>> {
        self.coming.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock(coming: &Mutex<Coming>) -> MutexGuard<'_, Coming> {
    coming.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Coming {
    fn new(blob: BlobHash, recipe: Recipe) -> Self {
        Self {
            blob,
            members: recipe.chunks.iter().map(|chunk| chunk.hash).collect(),
            recipe,
            hashed: Hashed::default(),
            early: HashMap::new(),
            early_bytes: 0,
            touched: Instant::now(),
        }
    }

    fn next(&self) -> Option<Chunk> {
        self.recipe.chunks.get(self.hashed.chunks).copied()
    }

    fn came(&mut self, inner: &Inner, packs: &mut PackReader, chunk: Chunk, bytes: &[u8]) {
        if !self.members.contains(&chunk.hash) {
            return;
        }
        self.touched = Instant::now();
        if self.next() == Some(chunk) {
            self.hash(bytes);
        } else if self.early_bytes + bytes.len() <= EARLY && !self.early.contains_key(&chunk.hash) {
            self.early_bytes += bytes.len();
            // A part of what arrived would hold the whole of it.
            self.early.insert(chunk.hash, bytes.into());
        }
        if let Err(error) = self.go_on(inner, packs) {
            // The recipe tells it when it is put.
            tracing::debug!(blob = %self.blob, %error, "a blob cannot be hashed while it comes");
            self.members.clear();
        }
    }

    /// Hashes what follows, as far as it came early or is stored.
    fn go_on(&mut self, inner: &Inner, packs: &mut PackReader) -> Result<()> {
        while let Some(next) = self.next() {
            if let Some(bytes) = self.early.remove(&next.hash) {
                self.early_bytes -= bytes.len();
                if bytes.len() != next.len as usize {
                    return Err(BlobError::WrongLength(next.hash));
                }
                self.hash(&bytes);
            } else if inner.index().get(&next.hash).is_some() {
                self.read(inner, packs, next)?;
            } else {
                break;
            }
        }
        Ok(())
    }

    fn hash(&mut self, bytes: &[u8]) {
        self.hashed.hasher.update(bytes);
        self.hashed.chunks += 1;
    }

    fn read(&mut self, inner: &Inner, packs: &mut PackReader, chunk: Chunk) -> Result<()> {
        let (frame, _) = inner.read_run(packs, &[chunk.hash])?;
        let frame = Frame::read_from(&mut &frame[..])?.filter(|frame| frame.chunk() == chunk);
        let frame = frame.ok_or(BlobError::NotFound(chunk.hash))?;
        self.hash(Unpacker::new().unpack(&frame)?);
        Ok(())
    }
}
