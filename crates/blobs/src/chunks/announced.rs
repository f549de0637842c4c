//! Blobs whose chunks are on their way: hashed as they come, so that making them reads little again.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kiln_chunks::{Chunk, Frame, Recipe, Unpacker};
use kiln_types::{BlobHash, BlobHasher};

use super::Inner;
use super::pack::PackReader;
use crate::BlobError;
use crate::disk::BlobResult;
use crate::ordered_chunks::{MemoryBudget, OrderedChunks};

/// Blobs at a time; the one that was announced first goes first.
const BLOBS: usize = 8;
/// Chunks of one announced blob: a .blend of a gigabyte has as many.
const CHUNKS: usize = 1 << 16;
/// Bytes kept of all of them, of chunks that came before those in front of them, since requests run beside each
/// other, and of those that come again in the same blob.
const KEPT: usize = 64 << 20;
/// A blob of which nothing came for so long is not awaited any more.
const FORGOTTEN: Duration = Duration::from_mins(2);

/// Recipes that were put before their chunks were there. Nothing hangs on them: without, the chunks are read again
/// when the recipe is put once more.
#[derive(Debug)]
pub(super) struct AnnouncedBlobs {
    coming: Mutex<Vec<Arc<Mutex<AnnouncedBlob>>>>,
    room: MemoryBudget,
}

/// The progress of hashing a blob.
#[derive(Debug, Clone, Default)]
pub(super) struct HashedPrefix {
    pub chunks: usize,
    pub hasher: BlobHasher,
}

#[derive(Debug)]
struct AnnouncedBlob {
    blob: BlobHash,
    turns: OrderedChunks,
    /// The hash of the chunks so far.
    hasher: BlobHasher,
    touched: Instant,
}

impl Default for AnnouncedBlobs {
    fn default() -> Self {
        Self { coming: Mutex::default(), room: MemoryBudget::new(KEPT) }
    }
}

impl AnnouncedBlobs {
    pub fn announce(&self, blob: BlobHash, recipe: Recipe) {
        if !(2..=CHUNKS).contains(&recipe.chunks.len()) {
            return;
        }
        let mut all = self.lock();
        all.retain(|coming| {
            let coming = lock(coming);
            coming.touched.elapsed() < FORGOTTEN && (coming.blob != blob || *coming.turns.recipe() == recipe)
        });
        if all.iter().any(|coming| lock(coming).blob == blob) {
            // After a break: what was hashed still counts.
            return;
        }
        if all.len() == BLOBS {
            all.remove(0);
        }
        let turns = OrderedChunks::new(recipe, &self.room);
        let coming = AnnouncedBlob { blob, turns, hasher: BlobHasher::new(), touched: Instant::now() };
        all.push(Arc::new(Mutex::new(coming)));
    }

    /// Removes the blob, and returns the hash of its beginning.
    pub fn take(&self, blob: &BlobHash, recipe: &Recipe) -> HashedPrefix {
        let mut all = self.lock();
        let Some(at) = all.iter().position(|coming| lock(coming).blob == *blob) else {
            return HashedPrefix::default();
        };
        let coming = all.remove(at);
        drop(all);
        let mut coming = lock(&coming);
        if coming.turns.recipe() != recipe {
            return HashedPrefix::default();
        }
        HashedPrefix { chunks: coming.turns.done(), hasher: mem::take(&mut coming.hasher) }
    }

    /// A chunk came, and these are its bytes.
    pub fn came(&self, inner: &Inner, packs: &mut PackReader, chunk: Chunk, bytes: &[u8]) {
        let all = self.lock().clone();
        for coming in all {
            lock(&coming).came(inner, packs, chunk, bytes);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Mutex<AnnouncedBlob>>>> {
        self.coming.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock(coming: &Mutex<AnnouncedBlob>) -> MutexGuard<'_, AnnouncedBlob> {
    coming.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AnnouncedBlob {
    fn came(&mut self, inner: &Inner, packs: &mut PackReader, chunk: Chunk, bytes: &[u8]) {
        if !self.turns.waits_for(&chunk) {
            return;
        }
        self.touched = Instant::now();
        if let Err(error) = self.hash(chunk, bytes).and_then(|()| self.go_on(inner, packs)) {
            // The recipe tells it when it is put.
            tracing::debug!(blob = %self.blob, %error, "a blob cannot be hashed while it comes");
            self.turns.abort();
        }
    }

    fn hash(&mut self, chunk: Chunk, bytes: &[u8]) -> BlobResult<()> {
        let hasher = &mut self.hasher;
        self.turns.came(chunk, bytes, |_, bytes| {
            hasher.update(bytes);
            Ok(())
        })?;
        Ok(())
    }

    /// Hashes what follows and was not kept, as far as it is stored.
    fn go_on(&mut self, inner: &Inner, packs: &mut PackReader) -> BlobResult<()> {
        while let Some(next) = self.turns.next().filter(|next| inner.index().get(&next.hash).is_some()) {
            let (frame, _) = inner.read_run(packs, &[next.hash])?;
            let frame = Frame::read_from(&mut &frame[..])?.filter(|frame| frame.chunk() == next);
            let frame = frame.ok_or(BlobError::NotFound(next.hash))?;
            self.hash(next, Unpacker::new().unpack(&frame)?)?;
        }
        Ok(())
    }
}
