//! Chunks one after another, each behind a head that says what it is: on the wire and in packs.

use std::io::{self, Read, Write};

use bytes::{Buf, Bytes, BytesMut};
use kiln_types::BlobHash;

use crate::{Chunk, MAX_CHUNK};

/// The coding of a chunk's bytes in its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    Raw,
    Zstd,
}

/// The head before the bytes of a chunk: its hash (32 bytes), its length (4 bytes, little endian), and how
/// many bytes are stored of it (4 bytes, little endian; the highest bit is set where they are packed).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHead {
    chunk: Chunk,
    coding: Coding,
    stored: u32,
}

/// A chunk on the wire and in a pack. Its bytes are those of its hash only once it was
/// unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    head: FrameHead,
    stored: Bytes,
}

/// The reason why bytes are no frame, or a frame no chunk.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a chunk claims {0} bytes; 1 to {MAX_CHUNK} are allowed")]
    Length(u32),
    #[error("a chunk of {len} bytes claims to be stored in {stored}")]
    Stored { len: u32, stored: u32 },
    #[error("the bytes end in the middle of a chunk; send it again")]
    CutOff,
    #[error("chunk {0} is damaged: its bytes cannot be unpacked; send it again")]
    Packed(BlobHash),
    #[error("chunk {expected} is damaged: its bytes are {found}; send it again")]
    Mismatch { expected: BlobHash, found: BlobHash },
    #[error(transparent)]
    Io(#[from] io::Error),
}

const PACKED: u32 = 1 << 31;

impl FrameHead {
    /// Bytes.
    pub const LEN: usize = 40;

    /// # Errors
    /// [`FrameError::Length`] and [`FrameError::Stored`]: what a head says is bounded before anything is
    /// allocated for it.
    pub fn parse(bytes: &[u8; Self::LEN]) -> Result<Self, FrameError> {
        let [hash @ .., l0, l1, l2, l3, s0, s1, s2, s3] = *bytes;
        let chunk = Chunk { hash: BlobHash::from_bytes(hash), len: u32::from_le_bytes([l0, l1, l2, l3]) };
        let stored = u32::from_le_bytes([s0, s1, s2, s3]);
        let (coding, stored) =
            if stored & PACKED == 0 { (Coding::Raw, stored) } else { (Coding::Zstd, stored & !PACKED) };
        if !chunk.fits() {
            return Err(FrameError::Length(chunk.len));
        }
        let right = match coding {
            Coding::Raw => stored == chunk.len,
            Coding::Zstd => (1..chunk.len).contains(&stored),
        };
        if !right {
            return Err(FrameError::Stored { len: chunk.len, stored });
        }
        Ok(Self { chunk, coding, stored })
    }

    /// `stored`: bytes behind the head, at most as many as the chunk has.
    pub(crate) fn new(chunk: Chunk, coding: Coding, stored: usize) -> Self {
        Self { chunk, coding, stored: stored as u32 }
    }

    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let flag = match self.coding {
            Coding::Raw => 0,
            Coding::Zstd => PACKED,
        };
        let mut bytes = [0; Self::LEN];
        bytes[..32].copy_from_slice(self.chunk.hash.as_bytes());
        bytes[32..36].copy_from_slice(&self.chunk.len.to_le_bytes());
        bytes[36..].copy_from_slice(&(self.stored | flag).to_le_bytes());
        bytes
    }

    pub fn chunk(&self) -> Chunk {
        self.chunk
    }

    pub fn coding(&self) -> Coding {
        self.coding
    }

    /// Bytes behind the head.
    pub fn stored(&self) -> usize {
        self.stored as usize
    }
}

impl Frame {
    /// `stored` are fewer bytes than the chunk has where they are packed, and the chunk itself where not.
    pub(crate) fn new(chunk: Chunk, coding: Coding, stored: Bytes) -> Self {
        Self { head: FrameHead::new(chunk, coding, stored.len()), stored }
    }

    /// Puts a head and the bytes behind it together.
    ///
    /// # Errors
    /// [`FrameError::CutOff`] where they are not as many as the head says.
    pub fn join(head: FrameHead, stored: Bytes) -> Result<Self, FrameError> {
        if stored.len() == head.stored() { Ok(Self { head, stored }) } else { Err(FrameError::CutOff) }
    }

    pub fn head(&self) -> FrameHead {
        self.head
    }

    pub fn chunk(&self) -> Chunk {
        self.head.chunk
    }

    /// The bytes behind the head.
    pub fn stored(&self) -> &Bytes {
        &self.stored
    }

    /// Bytes with the head.
    #[expect(clippy::len_without_is_empty, reason = "a frame has a head at least")]
    pub fn len(&self) -> usize {
        FrameHead::LEN + self.stored.len()
    }

    pub fn write_to(&self, writer: &mut impl Write) -> io::Result<()> {
        writer.write_all(&self.head.to_bytes())?;
        writer.write_all(&self.stored)
    }

    /// The next frame, or nothing where the bytes end before it.
    ///
    /// # Errors
    /// [`FrameError`]
    pub fn read_from(reader: &mut impl Read) -> Result<Option<Self>, FrameError> {
        let mut head = [0; FrameHead::LEN];
        match read_up_to(reader, &mut head)? {
            0 => return Ok(None),
            FrameHead::LEN => {}
            _ => return Err(FrameError::CutOff),
        }
        let head = FrameHead::parse(&head)?;
        let mut stored = vec![0; head.stored()];
        if read_up_to(reader, &mut stored)? < stored.len() {
            return Err(FrameError::CutOff);
        }
        Ok(Some(Self { head, stored: stored.into() }))
    }
}

fn read_up_to(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Finds the frames in bytes that arrive in pieces: push a piece, then take frames until there is none. Holds
/// one piece and one frame at most.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    bytes: BytesMut,
    /// Of the frame whose bytes have not all arrived.
    head: Option<FrameHead>,
}

impl FrameDecoder {
    pub fn push(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
    }

    /// The next frame that is whole. After an error nothing sensible follows.
    ///
    /// # Errors
    /// [`FrameError::Length`], [`FrameError::Stored`]
    pub fn take(&mut self) -> Result<Option<Frame>, FrameError> {
        let head = match self.head {
            Some(head) => head,
            None => {
                let Some(head) = self.bytes.first_chunk() else { return Ok(None) };
                let head = FrameHead::parse(head)?;
                self.bytes.advance(FrameHead::LEN);
                self.bytes.reserve(head.stored().saturating_sub(self.bytes.len()));
                *self.head.insert(head)
            }
        };
        if self.bytes.len() < head.stored() {
            return Ok(None);
        }
        self.head = None;
        Ok(Some(Frame { head, stored: self.bytes.split_to(head.stored()).freeze() }))
    }

    /// After the last piece.
    ///
    /// # Errors
    /// [`FrameError::CutOff`] where it ended in the middle of a frame.
    pub fn finish(self) -> Result<(), FrameError> {
        if self.head.is_none() && self.bytes.is_empty() { Ok(()) } else { Err(FrameError::CutOff) }
    }
}
