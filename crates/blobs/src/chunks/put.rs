//! Frames that arrive, into packs.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::Stream;
use kiln_chunks::{Chunk, Frame, Packer, Unpacker};
use kiln_types::BlobHash;

use super::index::{PackId, pack_path};
use super::pack::{PACK_LIMIT, PackReader, PackWriter};
use super::{ChunkStore, Inner};
use crate::disk::{BlobResult, blocking, pour_frames};
use crate::{BlobError, StreamError};

/// The result of putting frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PutReport {
    /// Chunks that are stored now.
    pub stored: u64,
    /// Chunks that were there.
    pub known: u64,
    /// Bytes of the frames that are stored now.
    pub bytes: u64,
}

impl ChunkStore {
    /// Stores a stream of frames, each checked by its hash; those that are there are promised. Once this
    /// returns, all are safe. Where the stream breaks or holds a damaged frame, what came before is kept.
    ///
    /// # Errors
    /// [`BlobError::Frame`], [`BlobError::Stream`]; [`BlobError::NoSpace`]: what this request did not finish is
    /// removed.
    pub async fn put<S, E>(&self, stream: S) -> BlobResult<PutReport>
    where
        S: Stream<Item = std::result::Result<Bytes, E>> + Send,
        E: Into<StreamError>,
    {
        let filling = Some(Filling::new(self.inner.clone()));
        let putting = Putting { filling, unpacker: Unpacker::new(), packs: PackReader::default() };
        let (mut putting, broken) = pour_frames(stream, putting, Putting::take).await?;
        let put = blocking(move || putting.finish()).await?;
        broken.map_or(Ok(put), Err)
    }
}

/// An upload of chunks in one request. If it is dropped, the chunks that have arrived are kept.
struct Putting {
    filling: Option<Filling>,
    unpacker: Unpacker,
    packs: PackReader,
}

impl Putting {
    fn take(&mut self, frames: Vec<Frame>) -> BlobResult<()> {
        let taken = self.take_frames(&frames);
        match taken {
            Err(BlobError::Frame(_)) => drop(self.finish()?),
            // The room is given back before anybody hears of it.
            Err(_) => self.filling = None,
            Ok(()) => {}
        }
        taken
    }

    fn take_frames(&mut self, frames: &[Frame]) -> BlobResult<()> {
        let Some(filling) = &mut self.filling else { return Ok(()) };
        for frame in frames {
            if !filling.knows(frame.chunk())? {
                let bytes = self.unpacker.unpack(frame)?;
                filling.push(frame)?;
                filling.inner.awaited.came(&filling.inner, &mut self.packs, frame.chunk(), bytes);
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> BlobResult<PutReport> {
        self.filling.take().map_or(Ok(PutReport::default()), Filling::finish)
    }
}

impl Drop for Putting {
    fn drop(&mut self) {
        let Some(filling) = self.filling.take().filter(|filling| filling.writer.is_some()) else { return };
        let finish = move || {
            if let Err(error) = filling.finish() {
                tracing::warn!(%error, "chunks of a request that broke off could not be kept");
            }
        };
        // Nobody waits for it; the disk must not hold up who drops it.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(finish)),
            Err(_) => finish(),
        }
    }
}

/// Fills packs, one after another.
pub(super) struct Filling {
    inner: Arc<Inner>,
    writer: Option<(PackId, PackWriter)>,
    /// In the pack that is being written.
    fresh: HashSet<BlobHash>,
    put: PutReport,
}

impl Filling {
    pub fn new(inner: Arc<Inner>) -> Self {
        Self { inner, writer: None, fresh: HashSet::new(), put: PutReport::default() }
    }

    /// Returns true if the chunk is there; then it is promised.
    fn knows(&mut self, chunk: Chunk) -> BlobResult<bool> {
        let mut stale = Vec::new();
        let known = self.fresh.contains(&chunk.hash)
            || self.inner.index().promise(&chunk.hash, SystemTime::now(), &mut stale);
        for pack in stale {
            let path = self.inner.index().path(&self.inner.packs, pack);
            crate::promise::renew(&path)?;
        }
        self.put.known += u64::from(known);
        Ok(known)
    }

    fn push(&mut self, frame: &Frame) -> BlobResult<()> {
        if let Some((id, writer)) = self.writer.take_if(|(_, writer)| writer.len() >= PACK_LIMIT) {
            self.close(id, writer)?;
        }
        let writer = match &mut self.writer {
            Some((_, writer)) => writer,
            none => {
                let id = self.inner.index().reserve();
                &mut none.insert((id, PackWriter::create(pack_path(&self.inner.packs, id))?)).1
            }
        };
        writer.push(frame)?;
        self.fresh.insert(frame.chunk().hash);
        self.put.stored += 1;
        self.put.bytes += frame.len() as u64;
        Ok(())
    }

    /// Packs a chunk, unless it is there.
    pub fn add(&mut self, packer: &mut Packer, chunk: Chunk, bytes: &[u8]) -> BlobResult<()> {
        if self.knows(chunk)? { Ok(()) } else { self.push(&packer.pack(chunk, bytes)) }
    }

    fn close(&mut self, id: PackId, writer: PackWriter) -> BlobResult<()> {
        let heads = writer.finish(self.inner.durability)?;
        self.inner.index().insert_now(id, &heads);
        self.fresh.clear();
        Ok(())
    }

    pub fn finish(mut self) -> BlobResult<PutReport> {
        if let Some((id, writer)) = self.writer.take() {
            self.close(id, writer)?;
        }
        Ok(self.put)
    }
}
