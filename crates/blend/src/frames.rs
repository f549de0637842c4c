//! A zstd file in frames that each unpack by themselves, with a table of them at its end: as Blender writes since 3.0.
//! What lies between the blocks of interest is never unpacked.

use std::io::{self, Read, SeekFrom};

use zstd::bulk::Decompressor;

use crate::stream::ByteSource;

/// The most that one frame may unpack to. Blender's have 2 MiB.
const MAX_FRAME: u32 = 16 << 20;
/// Frames of a file: 2 TiB of Blender's.
const MAX_FRAMES: u64 = 1 << 20;

const FOOTER_MAGIC: u32 = 0x8f92_eab1;
const SKIPPABLE_MAGIC: u32 = 0x184d_2a5e;
/// Number of frames, flags, magic.
const FOOTER: u64 = 9;

#[derive(Debug, Clone, Copy)]
struct Frame {
    /// Byte of the file.
    packed_at: u64,
    packed: u32,
    /// Byte of the unpacked whole.
    at: u64,
    unpacked: u32,
}

pub(crate) struct FramedReader<'a> {
    bytes: &'a mut dyn ByteSource,
    table: Vec<Frame>,
    unpacker: Decompressor<'static>,
    /// The index of the frame in `unpacked`.
    present: Option<usize>,
    packed: Vec<u8>,
    unpacked: Vec<u8>,
    position: u64,
    len: u64,
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

/// The table, and how much all of it unpacks to. `None` where there is none, or one that cannot be right: then the
/// file is read from its beginning to its end.
fn read_table(bytes: &mut dyn ByteSource, len: u64) -> io::Result<Option<(Vec<Frame>, u64)>> {
    let Some(footer_at) = len.checked_sub(FOOTER) else { return Ok(None) };
    let mut footer = [0; FOOTER as usize];
    bytes.seek(SeekFrom::Start(footer_at))?;
    bytes.read_exact(&mut footer)?;
    let count = u64::from(number(&footer[..4]));
    // The flag is for checksums, which Blender does not write.
    if number(&footer[5..]) != FOOTER_MAGIC || footer[4] != 0 || count > MAX_FRAMES {
        return Ok(None);
    }
    let size = 8 + 8 * count + FOOTER;
    let Some(table_at) = len.checked_sub(size) else { return Ok(None) };
    let mut raw = vec![0; (size - FOOTER) as usize];
    bytes.seek(SeekFrom::Start(table_at))?;
    bytes.read_exact(&mut raw)?;
    if number(&raw[..4]) != SKIPPABLE_MAGIC || u64::from(number(&raw[4..8])) != size - 8 {
        return Ok(None);
    }
    let (mut packed_at, mut at) = (0, 0);
    let mut table = Vec::with_capacity(count as usize);
    for entry in raw[8..].chunks_exact(8) {
        let (packed, unpacked) = (number(&entry[..4]), number(&entry[4..]));
        if unpacked > MAX_FRAME || packed > 2 * MAX_FRAME {
            return Ok(None);
        }
        table.push(Frame { packed_at, packed, at, unpacked });
        packed_at += u64::from(packed);
        at += u64::from(unpacked);
    }
    Ok((packed_at == table_at).then_some((table, at)))
}

impl<'a> FramedReader<'a> {
    /// Gives the bytes back where they have no table of frames.
    pub fn open(bytes: &'a mut dyn ByteSource, len: u64) -> io::Result<Result<Self, &'a mut dyn ByteSource>> {
        let Some((table, unpacked)) = read_table(bytes, len)? else { return Ok(Err(bytes)) };
        Ok(Ok(Self {
            bytes,
            table,
            unpacker: Decompressor::new()?,
            present: None,
            packed: Vec::new(),
            unpacked: Vec::new(),
            position: 0,
            len: unpacked,
        }))
    }

    /// Unpacked bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn seek(&mut self, position: u64) {
        self.position = position;
    }

    /// The next bytes, as far as they are unpacked.
    pub fn ahead(&self) -> &[u8] {
        let frame = self.present.and_then(|index| self.table.get(index));
        let from = frame.and_then(|frame| self.position.checked_sub(frame.at));
        from.and_then(|from| self.unpacked.get(from as usize..)).unwrap_or_default()
    }

    /// The first of what is [`ahead`](Self::ahead): goes behind them.
    pub fn advance(&mut self, count: usize) -> &[u8] {
        self.position += count as u64;
        let from = self.unpacked.len() - self.ahead().len() - count;
        &self.unpacked[from..from + count]
    }

    fn unpack(&mut self, index: usize) -> io::Result<()> {
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "a frame is not what the table says");
        let frame = self.table.get(index).ok_or_else(damaged)?;
        self.present = None;
        self.packed.resize(frame.packed as usize, 0);
        self.bytes.seek(SeekFrom::Start(frame.packed_at))?;
        self.bytes.read_exact(&mut self.packed)?;
        self.unpacked.resize(frame.unpacked as usize, 0);
        let (packed, unpacked) = (&self.packed, self.unpacked.as_mut_slice());
        let count = self.unpacker.decompress_to_buffer(packed, unpacked).map_err(|_| damaged())?;
        if count != self.unpacked.len() {
            return Err(damaged());
        }
        self.present = Some(index);
        Ok(())
    }
}

impl Read for FramedReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position >= self.len || buffer.is_empty() {
            return Ok(0);
        }
        // The last that begins at or before the position: of empty ones, what follows them.
        let index = self.table.partition_point(|frame| frame.at <= self.position) - 1;
        if self.present != Some(index) {
            self.unpack(index)?;
        }
        let count = self.ahead().len().min(buffer.len());
        buffer[..count].copy_from_slice(self.advance(count));
        Ok(count)
    }
}
