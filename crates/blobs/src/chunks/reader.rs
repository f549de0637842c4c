//! A blob read from its chunks.

use std::collections::VecDeque;
use std::io::{self, Read, Seek, SeekFrom};

use bytes::{Bytes, BytesMut};
use kiln_chunks::{Chunk, Frame, FrameError, FrameHead, Recipe, Unpacker};
use kiln_types::BlobHash;

use super::ChunkStore;
use super::announced::HashedPrefix;
use super::pack::PackReader;
use crate::BlobError;
use crate::disk::BlobResult;

/// Unpacked bytes that are kept for a reader that goes back.
const KEPT: usize = 8 << 20;

/// A blob to read and to seek in. Every chunk is checked by its hash. Where one turns out to be damaged, the blob
/// is removed and the error says so: it must be sent again.
#[derive(Debug)]
pub struct ChunkReader {
    store: ChunkStore,
    hash: BlobHash,
    recipe: Recipe,
    /// The end of each chunk.
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

    /// The hash of the whole blob, of which some was hashed. The other chunks are held against their own hashes only
    /// where `checked`: where the whole is right, so are they.
    pub(super) fn hash_rest(&mut self, hashed: HashedPrefix, checked: bool) -> BlobResult<BlobHash> {
        let HashedPrefix { chunks: mut at, mut hasher } = hashed;
        let hashes: Vec<BlobHash> = self.recipe.chunks.iter().map(|chunk| chunk.hash).collect();
        while at < hashes.len() {
            let (mut run, taken) = self.run(&hashes[at..])?;
            for index in at..at + taken {
                let chunk = self.recipe.chunks[index];
                let frame = self.frame(chunk, &mut run)?;
                let unpacked = if checked {
                    self.unpacker.unpack(&frame)
                } else {
                    self.unpacker.unpack_unchecked(&frame)
                };
                match unpacked {
                    Ok(bytes) => hasher.update(bytes),
                    Err(error) => return Err(self.damaged(chunk.hash, error)),
                };
            }
            at += taken;
        }
        Ok(hasher.hash())
    }

    /// The frames of the first of these, and of those behind it that lie behind it: how many they are.
    fn run(&mut self, hashes: &[BlobHash]) -> BlobResult<(Bytes, usize)> {
        match self.store.inner.read_run(&mut self.packs, hashes) {
            // A damaged pack lost it.
            Err(BlobError::NotFound(hash)) => Err(self.damaged(hash, FrameError::CutOff)),
            run => run,
        }
    }

    /// The frame of this chunk, which is the first that is left of the run.
    fn frame(&mut self, chunk: Chunk, run: &mut Bytes) -> BlobResult<Frame> {
        let head = run.first_chunk().ok_or(FrameError::CutOff).and_then(FrameHead::parse);
        let frame = head.and_then(|head| {
            let mut bytes = run.split_to(run.len().min(FrameHead::LEN + head.stored()));
            Frame::join(head, bytes.split_off(FrameHead::LEN))
        });
        match frame {
            Ok(frame) if frame.chunk() == chunk => Ok(frame),
            // Only a recipe that was not checked yet is wrong here.
            Ok(frame) if frame.chunk().hash == chunk.hash => Err(BlobError::WrongLength(chunk.hash)),
            // Nobody finds two chunks that lie under one key; a hash that was made up may begin as a chunk's does.
            Ok(other) if self.unpacker.unpack(&other).is_ok() => Err(BlobError::NotFound(chunk.hash)),
            Ok(_) => Err(self.damaged(chunk.hash, FrameError::Packed(chunk.hash))),
            Err(error) => Err(self.damaged(chunk.hash, error)),
        }
    }

    fn damaged(&self, chunk: BlobHash, error: FrameError) -> BlobError {
        if let FrameError::Io(source) = error {
            return BlobError::Io { doing: "unpack", path: self.store.inner.packs.clone(), source };
        }
        tracing::warn!(blob = %self.hash, %chunk, %error, "a stored chunk was damaged; its blob is removed");
        let mut index = self.store.inner.index();
        if let Some(place) = index.get(&chunk) {
            index.forget_chunk(&chunk, place);
        }
        drop(index);
        self.store.inner.small.start_new_pack();
        match self.store.inner.remove_recipe(&self.hash) {
            Ok(_) => BlobError::Damaged(self.hash),
            Err(error) => error,
        }
    }

    fn unpacked(&mut self, index: usize) -> BlobResult<Bytes> {
        if let Some((_, bytes)) = self.kept.iter().find(|(kept, _)| *kept == index) {
            return Ok(bytes.clone());
        }
        let chunk = self.recipe.chunks[index];
        let mut run = self.run(&[chunk.hash])?.0;
        let frame = self.frame(chunk, &mut run)?;
        let bytes = match self.unpacker.unpack(&frame) {
            Ok(bytes) => Bytes::copy_from_slice(bytes),
            Err(error) => return Err(self.damaged(chunk.hash, error)),
        };
        self.kept.push_back((index, bytes.clone()));
        while self.kept.len() > 1 && self.kept.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() > KEPT {
            self.kept.pop_front();
        }
        Ok(bytes)
    }

    /// The rest of the chunk at the position; empty at the end.
    pub(crate) fn next_piece(&mut self) -> BlobResult<Bytes> {
        let index = self.ends.partition_point(|end| *end <= self.position);
        let Some(end) = self.ends.get(index).copied() else { return Ok(Bytes::new()) };
        let bytes = self.unpacked(index)?;
        let left = (end - self.position) as usize;
        self.position = end;
        Ok(bytes.slice(bytes.len() - left..))
    }
}

impl ChunkReader {
    /// The next bytes in one piece, at least `want` if there are as many: small chunks are gathered.
    pub(crate) fn next_pieces(&mut self, want: usize) -> BlobResult<Bytes> {
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
