//! The header of a .blend and the heads of its blocks.

use std::{
    fmt::{self, Write as _},
    fs::File,
    io::{Read, Seek},
    path::Path,
};

use kiln_types::BlenderVersion;

use crate::{
    dna::Dna,
    fault::{BlendError, BlendFault},
    stream::{BlendStream, Compression, ReadLimits},
};

/// The header of a .blend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peek {
    pub written_by: BlenderVersion,
    pub compression: Compression,
    /// 4 or 8.
    pub pointer_bytes: u8,
    pub big_endian: bool,
}

/// The widths and the byte order of a file's numbers and block heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileEncoding {
    pub pointer: usize,
    pub big_endian: bool,
    /// From 5.0: heads of 32 bytes.
    large_heads: bool,
}

impl FileEncoding {
    pub fn u64(&self, bytes: &[u8]) -> u64 {
        // Numbers and pointers of blocks: millions of them.
        if let Ok(eight) = <[u8; 8]>::try_from(bytes) {
            return if self.big_endian { u64::from_be_bytes(eight) } else { u64::from_le_bytes(eight) };
        }
        if let Ok(four) = <[u8; 4]>::try_from(bytes) {
            return u64::from(if self.big_endian {
                u32::from_be_bytes(four)
            } else {
                u32::from_le_bytes(four)
            });
        }
        let push = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        if self.big_endian { bytes.iter().fold(0, push) } else { bytes.iter().rev().fold(0, push) }
    }

    /// The number in the first two bytes.
    pub fn u16(&self, bytes: &[u8]) -> usize {
        let two = [bytes[0], bytes[1]];
        usize::from(if self.big_endian { u16::from_be_bytes(two) } else { u16::from_le_bytes(two) })
    }

    /// The other way round: the number in `size` bytes, 8 at the most.
    pub fn bytes(&self, number: u64, size: usize) -> Vec<u8> {
        if self.big_endian {
            number.to_be_bytes()[8 - size..].to_vec()
        } else {
            number.to_le_bytes()[..size].to_vec()
        }
    }

    fn head_bytes(&self) -> usize {
        if self.large_heads { 32 } else { 16 + self.pointer }
    }

    /// The head that begins at byte `at` of the file.
    #[inline(always)]
    fn head(&self, bytes: &[u8], at: u64) -> BlockHead {
        let four = |from: usize| self.u64(&bytes[from..from + 4]);
        let eight = |from: usize| self.u64(&bytes[from..from + 8]);
        let (sdna, old, len) = match (self.large_heads, self.pointer) {
            (true, _) => (four(4), eight(8), eight(16)),
            (false, 8) => (four(16), eight(8), four(4)),
            (false, _) => (four(12), four(8), four(4)),
        };
        let code = [bytes[0], bytes[1], bytes[2], bytes[3]];
        let sdna = usize::try_from(sdna).unwrap_or(usize::MAX);
        BlockHead { code, len, old, sdna, at, data: at + self.head_bytes() as u64 }
    }

    /// The bytes of a block's head that hold its length.
    pub fn length_in_head(&self) -> std::ops::Range<u64> {
        if self.large_heads { 16..24 } else { 4..8 }
    }
}

fn parse_header(stream: &mut BlendStream<'_>) -> Result<(Peek, FileEncoding), BlendFault> {
    let mut head = [0; 12];
    let count = stream.read_up_to(&mut head)?;
    if count < 12 {
        let begun = count >= 7 && head.starts_with(b"BLENDER");
        let what = "its header".to_owned();
        return Err(if begun { BlendFault::Truncated { what, at: 0 } } else { BlendFault::NotABlend });
    }
    if !head.starts_with(b"BLENDER") {
        return Err(BlendFault::NotABlend);
    }
    let number = |digits: &[u8]| {
        let text = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
        text.and_then(|text| text.parse::<u16>().ok()).ok_or(BlendFault::NotABlend)
    };
    let endian = |byte| match byte {
        b'v' => Ok(false),
        b'V' => Ok(true),
        _ => Err(BlendFault::NotABlend),
    };
    let (shape, version) = match head[7] {
        byte @ (b'_' | b'-') => {
            let pointer = if byte == b'_' { 4 } else { 8 };
            let shape = FileEncoding { pointer, big_endian: endian(head[8])?, large_heads: false };
            (shape, number(&head[9..12])?)
        }
        _ => {
            // BLENDER17-01v0500
            let mut rest = [0; 5];
            let length = number(&head[7..9])?;
            if head[9] != b'-' {
                return Err(BlendFault::NotABlend);
            }
            if length != 17 || number(&head[10..12])? != 1 {
                return Err(BlendFault::TooNew);
            }
            stream.read_exact(&mut rest, &"its header", 0)?;
            let shape = FileEncoding { pointer: 8, big_endian: endian(rest[0])?, large_heads: true };
            (shape, number(&rest[1..])?)
        }
    };
    let written_by = BlenderVersion::from_file_number(version);
    if version < 250 {
        return Err(BlendFault::TooOld(written_by));
    }
    let compression = stream.compression;
    let pointer_bytes = if shape.pointer == 4 { 4 } else { 8 };
    Ok((Peek { written_by, compression, pointer_bytes, big_endian: shape.big_endian }, shape))
}

/// The head of a block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockHead {
    pub code: [u8; 4],
    /// Bytes that follow.
    pub len: u64,
    /// The address of the data in Blender's memory, to which pointers in the file refer.
    pub old: u64,
    /// Index of the struct in the DNA.
    pub sdna: usize,
    /// Byte of the file, unpacked, where the head begins.
    pub at: u64,
    /// And where what follows it begins.
    pub data: u64,
}

impl BlockHead {
    /// Datablocks have codes of two letters.
    pub fn is_id(&self) -> bool {
        self.code[2..] == [0, 0]
    }
}

/// A block as errors tell of it.
#[derive(Clone, Copy, Default)]
struct BlockName {
    code: [u8; 4],
    /// Byte of the file where its head begins.
    at: u64,
}

/// In a sentence: `the block OB`.
impl fmt::Display for BlockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the block ")?;
        let shown = |byte: &u8| if byte.is_ascii_graphic() { char::from(*byte) } else { '?' };
        self.code.iter().filter(|byte| **byte != 0).map(shown).try_for_each(|letter| f.write_char(letter))
    }
}

/// Goes from block to block.
pub(crate) struct Walker<'a> {
    stream: BlendStream<'a>,
    pub peek: Peek,
    pub shape: FileEncoding,
    /// Bytes of the header.
    begin: u64,
    /// The present block. Its head is not kept: millions of them would be copied.
    place: BlockName,
    /// Bytes of it that have not been read.
    left: u64,
}

impl<'a> Walker<'a> {
    pub fn new(mut stream: BlendStream<'a>) -> Result<Self, BlendFault> {
        let (peek, shape) = parse_header(&mut stream)?;
        let begin = stream.position();
        Ok(Self { stream, peek, shape, begin, place: BlockName::default(), left: 0 })
    }

    /// Before the first block again.
    pub fn restart(self, limits: &ReadLimits) -> Result<Self, BlendFault> {
        let mut stream = self.stream.restart(limits)?;
        stream.skip(self.begin, &"its header", 0)?;
        Ok(Self { stream, left: 0, ..self })
    }

    /// The next block; `None` at the end mark. A call would write the head to memory and read it back in larger words,
    /// for which a processor waits longer than for all else that is done with most blocks.
    #[inline(always)]
    pub fn next(&mut self) -> Result<Option<BlockHead>, BlendFault> {
        if self.left > 0 {
            self.stream.skip(self.left, &self.place, self.place.at)?;
        }
        let at = self.stream.position();
        let size = self.shape.head_bytes() as u64;
        let head = self.shape.head(self.stream.take(size, &"a block head before the end mark", at)?, at);
        self.place = BlockName { code: head.code, at };
        self.left = head.len;
        // Lengths are signed in the file.
        let most = if self.shape.large_heads { i64::MAX as u64 } else { i32::MAX as u64 };
        if head.len > most {
            return Err(BlendFault::Damaged { what: format!("{} has a negative length", self.place), at });
        }
        if &head.code == b"ENDB" {
            self.stream.finish()?;
            return Ok(None);
        }
        Ok(Some(head))
    }

    /// The next bytes of the present block, `most` at the most.
    pub fn payload(&mut self, most: u64) -> Result<&[u8], BlendFault> {
        let wanted = self.left.min(most);
        self.left -= wanted;
        self.stream.take(wanted, &self.place, self.place.at)
    }
}

/// The largest DNA there is has 200 KB.
const MAX_DNA: u64 = 16 << 20;

/// The DNA and the byte where its block begins.
pub(crate) struct DnaLocation {
    /// `None`: the one that is known already.
    pub dna: Option<Dna>,
    pub at: u64,
}

/// The DNA where Blender puts it, right before the end mark, without a walk through all before it. `None` where it is
/// not there, or the file can only be read forward. What it finds is a guess until a walk comes by the same block.
/// Files of one Blender have the same: what is `known` is not parsed again.
pub(crate) fn dna_at_end(
    walker: &mut Walker<'_>,
    known: Option<&Dna>,
) -> Result<Option<DnaLocation>, BlendFault> {
    let Some(len) = walker.stream.len() else { return Ok(None) };
    if let Some(known) = known
        && let Some(at) = known_at_end(walker, len, known)?
    {
        return Ok(Some(DnaLocation { dna: None, at }));
    }
    let begin = walker.begin;
    // With its own head and the end mark. Those of 5.0 have 140 KB.
    for tail in [160 << 10, 2 << 20] {
        let from = len.saturating_sub(tail).max(begin);
        let mut tail = vec![0; (len.max(from) - from) as usize];
        walker.stream.seek(from);
        walker.stream.read_exact(&mut tail, &"its end", from)?;
        let found = dna_in_tail(walker.shape, tail, from)?;
        if found.is_some() || from == begin {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The byte at which the block of this very DNA begins, if it is the last one.
fn known_at_end(walker: &mut Walker<'_>, len: u64, known: &Dna) -> Result<Option<u64>, BlendFault> {
    let (shape, head_size) = (walker.shape, walker.shape.head_bytes() as u64);
    let size = known.bytes().len() as u64;
    let at = len.checked_sub(head_size + size + head_size).filter(|at| *at >= walker.begin);
    let Some(at) = at.filter(|_| known.shape() == shape) else { return Ok(None) };
    let (stream, what) = (&mut walker.stream, &"its end");
    stream.seek(at);
    let head = shape.head(stream.take(head_size, what, at)?, at);
    if &head.code != b"DNA1" || head.len != size {
        return Ok(None);
    }
    for part in known.bytes().chunks(4096) {
        if stream.take(part.len() as u64, what, at)? != part {
            return Ok(None);
        }
    }
    Ok(stream.take(head_size, what, at)?.starts_with(b"ENDB").then_some(at))
}

fn dna_in_tail(shape: FileEncoding, mut tail: Vec<u8>, from: u64) -> Result<Option<DnaLocation>, BlendFault> {
    let head_size = shape.head_bytes();
    let end = tail.len().checked_sub(head_size).filter(|end| tail[*end..].starts_with(b"ENDB"));
    let Some(end) = end else { return Ok(None) };
    let mut search = end;
    while let Some(start) = memchr::memmem::rfind(&tail[..search], b"SDNANAME") {
        let at = start.checked_sub(head_size);
        let head = at.map(|at| shape.head(&tail[at..start], from + at as u64));
        let is_dna = |head: &BlockHead| &head.code == b"DNA1" && head.len == (end - start) as u64;
        if let Some(head) = head.filter(is_dna) {
            tail.truncate(end);
            tail.drain(..start);
            return Ok(Some(DnaLocation { dna: Some(Dna::parse(tail, shape)?), at: head.at }));
        }
        search = start;
    }
    Ok(None)
}

/// Walks to the end mark and reads the DNA on the way.
pub(crate) fn find_dna(walker: &mut Walker<'_>) -> Result<Dna, BlendFault> {
    let mut dna = None;
    while let Some(head) = walker.next()? {
        if &head.code == b"DNA1" && dna.is_none() {
            if head.len > MAX_DNA {
                return Err(BlendFault::dna("the description of its fields is too long"));
            }
            dna = Some(Dna::parse(walker.payload(MAX_DNA)?.to_vec(), walker.shape)?);
        }
    }
    dna.ok_or_else(|| BlendFault::dna("the description of its fields (DNA1) is missing"))
}

/// Opens a regular file: nothing that could hang when it is read.
pub(crate) fn open(path: &Path) -> Result<File, BlendFault> {
    let unreadable = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => BlendFault::NotFound,
        _ => BlendFault::Unreadable(error),
    };
    let kind = std::fs::metadata(path).map_err(unreadable)?.file_type();
    if kind.is_dir() {
        return Err(BlendFault::Folder);
    }
    if !kind.is_file() {
        return Err(BlendFault::NotAFile);
    }
    File::open(path).map_err(unreadable)
}

/// Reads the header alone: quick, and the rest of the file may be broken.
///
/// # Errors
/// Where the file cannot be read or does not begin as a .blend.
pub fn peek(path: &Path) -> Result<Peek, BlendError> {
    open(path).and_then(|mut file| peek_reader(&mut file)).map_err(|fault| fault.at(path))
}

/// [`peek`] of an open file.
pub fn peek_reader<R: Read + Seek>(mut reader: R) -> Result<Peek, BlendFault> {
    let mut stream = BlendStream::new(&mut reader, &ReadLimits::default())?;
    Ok(parse_header(&mut stream)?.0)
}
