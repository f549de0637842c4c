//! Files of one chunk each, many at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use kiln_chunks::{Frame, Unpacker};
use kiln_types::BlobHash;

use super::{Cache, Inner};
use crate::disk::{BlobResult, Draft, blocking, keep_all, pour_frames};
use crate::{BlobError, StreamError};

/// Files that are made safe at once: as many are open at the same time.
const AT_ONCE: usize = 128;

impl Cache {
    /// Stores blobs that are one chunk each, from their frames, in any order; `wanted` says how long each is. Each
    /// is checked by its hash. Else as [`Cache::put_stream`]. Returns how many there are now of those.
    ///
    /// # Errors
    /// [`BlobError::Frame`], [`BlobError::WrongLength`], [`BlobError::NoSpace`], [`BlobError::Stream`]; what came
    /// before is kept.
    pub async fn put_singles<S, E>(&self, wanted: BTreeMap<BlobHash, u64>, frames: S) -> BlobResult<usize>
    where
        S: Stream<Item = std::result::Result<Bytes, E>> + Send,
        E: Into<StreamError>,
    {
        let inner = self.inner.clone();
        let unpacker = Unpacker::new();
        let putting = Putting { inner, wanted, unpacker, drafts: Vec::new(), count: 0 };
        let (mut putting, broken) = pour_frames(frames, putting, Putting::take).await?;
        let count = blocking(move || {
            putting.keep()?;
            Ok(putting.count)
        })
        .await?;
        self.make_room().await?;
        broken.map_or(Ok(count), Err)
    }
}

struct Putting {
    inner: Arc<Inner>,
    wanted: BTreeMap<BlobHash, u64>,
    unpacker: Unpacker,
    /// Whole, but not safe yet.
    drafts: Vec<(Draft, BlobHash)>,
    count: usize,
}

impl Putting {
    fn take(&mut self, frames: Vec<Frame>) -> BlobResult<()> {
        let taken = self.take_frames(&frames);
        if let Err(BlobError::Frame(_) | BlobError::WrongLength(_)) = taken {
            self.keep()?;
        }
        taken
    }

    fn take_frames(&mut self, frames: &[Frame]) -> BlobResult<()> {
        for frame in frames {
            let chunk = frame.chunk();
            // One that nobody asked for, or that came twice.
            let Some(size) = self.wanted.remove(&chunk.hash) else { continue };
            if size != u64::from(chunk.len) {
                return Err(BlobError::WrongLength(chunk.hash));
            }
            let bytes = self.unpacker.unpack(frame)?;
            let mut draft = Draft::create(self.inner.store.draft_path())?;
            draft.write_checked(bytes)?;
            self.drafts.push((draft, chunk.hash));
            if self.drafts.len() == AT_ONCE {
                self.keep()?;
            }
        }
        Ok(())
    }

    fn keep(&mut self) -> BlobResult<()> {
        let drafts = std::mem::take(&mut self.drafts);
        let kept: Vec<_> = drafts.iter().map(|(draft, hash)| (*hash, draft.len())).collect();
        let named = drafts.into_iter().map(|(draft, hash)| (draft, self.inner.store.path(&hash)));
        keep_all(named.collect(), self.inner.store.durability())?;
        let mut index = self.inner.lock();
        self.count += kept.len();
        for (hash, len) in kept {
            index.insert(hash, len);
        }
        Ok(())
    }
}
