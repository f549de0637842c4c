//! A blob read from its chunks.

use std::collections::VecDeque;
use std::io::{self, Read, Seek, SeekFrom};

use bytes::{Bytes, BytesMut};
use kiln_chunks::{Chunk, Frame, FrameError, FrameHead, Recipe, Unpacker};
use kiln_types::BlobHash;

use super::ChunkStore;
use super::pack::PackReader;
use crate::BlobError;
use crate::disk::Result;

/// Unpacked bytes that are kept for a reader that goes back.
const KEPT: usize = 8 << 20;

/// A blob to read and to seek in. Every chunk is checked by its hash. Where one turns out to be damaged, the blob
/// is removed and the error says so: it must be sent again.
#[derive(Debug)]
pub struct ChunkReader {
    store: ChunkStore,
    hash: BlobHash,
    recipe: Recipe,
    /// Where each chunk ends.
    ends: Vec<u64>,
    position: u64,
    packs: PackReader,
    unpacker: Unpacker,
    /// The chunks read last, by their index.
    kept: VecDeque<(usize, Bytes)>,
}

impl ChunkReader {
    pub(super) fn new(store: ChunkStore, hash: BlobHash, recipe: Recipe) -> Self {
        let ends = recipe.offsets().map(|(at, chunk)| at + u64::from(chunk.len)).collect();
        Self {
            store,
            hash,
            recipe,
            ends,
            position: 0,
            packs: PackReader::default(),
            unpacker: Unpacker::new(),
            kept: VecDeque::new(),
        }
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    pub(super) fn into_recipe(self) -> Recipe {
        self.recipe
    }

    /// The blob from its beginning to its end, chunk by chunk.
    pub(super) fn each(&mut self, mut take: impl FnMut(&[u8])) -> Result<()> {
        for index in 0..self.recipe.chunks.len() {
            let chunk = self.recipe.chunks[index];
            let frame = self.frame(chunk)?;
            match self.unpacker.unpack(&frame) {
                Ok(bytes) => take(bytes),
                Err(error) => return Err(self.damaged(chunk, error)),
            }
        }
        Ok(())
    }

    fn frame(&mut self, chunk: Chunk) -> Result<Frame> {
        let bytes = match self.store.inner.read_run(&mut self.packs, &[chunk.hash]) {
            // A damaged pack lost it.
            Err(BlobError::NotFound(_)) => return Err(self.damaged(chunk, FrameError::CutOff)),
            run => run?.0,
        };
        let head = bytes.first_chunk().ok_or(FrameError::CutOff).and_then(FrameHead::parse);
        let frame = head.and_then(|head| Frame::join(head, bytes.slice(FrameHead::LEN..)));
        match frame {
            Ok(frame) if frame.chunk() == chunk => Ok(frame),
            // Only a recipe that was not checked yet is wrong here.
            Ok(frame) if frame.chunk().hash == chunk.hash => Err(BlobError::WrongLength(chunk.hash)),
            // Nobody finds two chunks that lie under one key; a hash that was made up may begin as a chunk's does.
            Ok(other) if self.unpacker.unpack(&other).is_ok() => Err(BlobError::NotFound(chunk.hash)),
            Ok(_) => Err(self.damaged(chunk, FrameError::Packed(chunk.hash))),
            Err(error) => Err(self.damaged(chunk, error)),
        }
    }

    fn damaged(&self, chunk: Chunk, error: FrameError) -> BlobError {
        if let FrameError::Io(source) = error {
            return BlobError::Io { doing: "unpack", path: self.store.inner.packs.clone(), source };
        }
        tracing::warn!(blob = %self.hash, chunk = %chunk.hash, %error, "a stored chunk was damaged; its blob is removed");
        let mut index = self.store.inner.index();
        if let Some(place) = index.get(&chunk.hash) {
            index.forget_chunk(&chunk.hash, place);
        }
        drop(index);
        match self.store.inner.remove_recipe(&self.hash) {
            Ok(_) => BlobError::Damaged(self.hash),
            Err(error) => error,
        }
    }

    fn unpacked(&mut self, index: usize) -> Result<Bytes> {
        if let Some((_, bytes)) = self.kept.iter().find(|(kept, _)| *kept == index) {
            return Ok(bytes.clone());
        }
        let chunk = self.recipe.chunks[index];
        let frame = self.frame(chunk)?;
        let bytes = match self.unpacker.unpack(&frame) {
            Ok(bytes) => Bytes::copy_from_slice(bytes),
            Err(error) => return Err(self.damaged(chunk, error)),
        };
        self.kept.push_back((index, bytes.clone()));
        while self.kept.len() > 1 && self.kept.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() > KEPT {
            self.kept.pop_front();
        }
        Ok(bytes)
    }

    /// What is left of the chunk at the position; empty at the end.
    pub(crate) fn next_piece(&mut self) -> Result<Bytes> {
        let index = self.ends.partition_point(|end| *end <= self.position);
        let Some(end) = self.ends.get(index).copied() else { return Ok(Bytes::new()) };
        let bytes = self.unpacked(index)?;
        let left = (end - self.position) as usize;
        self.position = end;
        Ok(bytes.slice(bytes.len() - left..))
    }
}

impl ChunkReader {
    /// The next bytes in one piece, `want` or somewhat more where there are so many: small chunks are gathered.
    pub(crate) fn next_pieces(&mut self, want: usize) -> Result<Bytes> {
        let first = self.next_piece()?;
        if first.is_empty() || first.len() >= want {
            return Ok(first);
        }
        let mut all = BytesMut::with_capacity(want + want / 4);
        all.extend_from_slice(&first);
        while all.len() < want {
            let next = self.next_piece()?;
            if next.is_empty() {
                break;
            }
            all.extend_from_slice(&next);
        }
        Ok(all.freeze())
    }
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let start = self.position;
        let piece = self.next_piece().map_err(io::Error::other)?;
        let count = piece.len().min(buffer.len());
        buffer[..count].copy_from_slice(&piece[..count]);
        self.position = start + count as u64;
        Ok(count)
    }
}

impl Seek for ChunkReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.size().checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        self.position = to.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
