//! The bytes of a .blend, unpacked as they are read.

use std::{
    fmt,
    io::{self, BufReader, Read, Seek, SeekFrom},
};

use flate2::bufread::MultiGzDecoder;
use serde::{Deserialize, Serialize};

use crate::{fault::BlendFault, frames::FramedReader, pieces::PieceBuffer};

/// The compression of a .blend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

/// The limits of reading a .blend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimits {
    /// A packed file may unpack to this many bytes...
    pub unpacked: u64,
    /// ...or to this many times its own size, if that is more.
    pub ratio: u64,
    /// Bytes of scenes and their settings held at once.
    pub memory: usize,
}

impl Default for ReadLimits {
    fn default() -> Self {
        Self { unpacked: 1 << 30, ratio: 256, memory: 64 << 20 }
    }
}

pub(crate) trait ByteSource: Read + Seek {}
impl<T: Read + Seek> ByteSource for T {}

type Packed<'a> = BufReader<&'a mut dyn ByteSource>;

enum Kind<'a> {
    Plain(PieceBuffer<'a>),
    Gzip(Box<MultiGzDecoder<Packed<'a>>>),
    Zstd(Box<zstd::Decoder<'static, Packed<'a>>>),
    Frames(FramedReader<'a>),
}

impl Kind<'_> {
    /// The number of the next bytes that are in memory.
    fn ahead(&self) -> usize {
        match self {
            Self::Plain(pieces) => pieces.ahead().len(),
            Self::Frames(frames) => frames.ahead().len(),
            Self::Gzip(_) | Self::Zstd(_) => 0,
        }
    }

    /// The first of these.
    fn advance(&mut self, count: usize) -> &[u8] {
        match self {
            Self::Plain(pieces) => pieces.advance(count),
            Self::Frames(frames) => frames.advance(count),
            Self::Gzip(_) | Self::Zstd(_) => &[],
        }
    }
}

/// Reads forward, and jumps where that is cheap.
pub(crate) struct BlendStream<'a> {
    kind: Kind<'a>,
    /// Unpacked bytes so far.
    position: u64,
    /// The most that may come; its length where it is known.
    limit: u64,
    known_len: bool,
    /// Taken bytes that were not in one piece.
    gathered: Vec<u8>,
    pub compression: Compression,
}

/// Packed bytes read at once.
const BUFFER: usize = 64 << 10;
/// Windows of Blender's own files are 8 MiB at most; a decoder takes this much memory.
const WINDOW_LOG: u32 = 27;
/// The most that is set aside for bytes that may not be there.
const STEP: u64 = 1 << 20;

impl<'a> BlendStream<'a> {
    pub fn new(bytes: &'a mut dyn ByteSource, limits: &ReadLimits) -> Result<Self, BlendFault> {
        let read = BlendFault::Unreadable;
        let len = bytes.seek(SeekFrom::End(0)).map_err(read)?;
        if len == 0 {
            return Err(BlendFault::Empty);
        }
        bytes.seek(SeekFrom::Start(0)).map_err(read)?;
        let mut magic = Vec::new();
        bytes.take(4).read_to_end(&mut magic).map_err(read)?;
        let compression = match magic.as_slice() {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd] => Compression::Zstd,
            _ => Compression::None,
        };
        let most = limits.unpacked.max(len.saturating_mul(limits.ratio));
        let bytes = if compression == Compression::Zstd {
            match FramedReader::open(bytes, len).map_err(read)? {
                Ok(frames) if frames.len() > most => return Err(BlendFault::Bomb(most >> 20)),
                Ok(frames) => {
                    let (limit, kind) = (frames.len(), Kind::Frames(frames));
                    return Ok(Self {
                        kind,
                        position: 0,
                        limit,
                        known_len: true,
                        gathered: Vec::new(),
                        compression,
                    });
                }
                Err(bytes) => bytes,
            }
        } else {
            bytes
        };
        bytes.seek(SeekFrom::Start(0)).map_err(read)?;
        let known_len = compression == Compression::None;
        let (kind, limit) = match compression {
            Compression::None => (Kind::Plain(PieceBuffer::new(bytes)), len),
            Compression::Gzip => {
                (Kind::Gzip(Box::new(MultiGzDecoder::new(BufReader::with_capacity(BUFFER, bytes)))), most)
            }
            Compression::Zstd => {
                let reader = BufReader::with_capacity(BUFFER, bytes);
                let mut decoder = zstd::Decoder::with_buffer(reader).map_err(read)?;
                decoder.window_log_max(WINDOW_LOG).map_err(read)?;
                (Kind::Zstd(Box::new(decoder)), most)
            }
        };
        Ok(Self { kind, position: 0, limit, known_len, gathered: Vec::new(), compression })
    }

    /// The unpacked length, where any place can be reached without unpacking what lies before it.
    pub fn len(&self) -> Option<u64> {
        self.known_len.then_some(self.limit)
    }

    /// From its first byte again.
    pub fn restart(mut self, limits: &ReadLimits) -> Result<Self, BlendFault> {
        let bytes = match self.kind {
            Kind::Plain(_) | Kind::Frames(_) => {
                self.seek(0);
                return Ok(self);
            }
            Kind::Gzip(reader) => reader.into_inner().into_inner(),
            Kind::Zstd(reader) => reader.finish().into_inner(),
        };
        Self::new(bytes, limits)
    }

    /// Goes to a byte of a file whose length is known; all others stay where they are.
    pub fn seek(&mut self, to: u64) {
        match &mut self.kind {
            Kind::Plain(pieces) => pieces.seek(to),
            Kind::Frames(frames) => frames.seek(to),
            Kind::Gzip(_) | Kind::Zstd(_) => return,
        }
        self.position = to;
    }

    pub fn position(&self) -> u64 {
        self.position
    }

    /// The fault for bytes that are not there or cannot be unpacked; `what` began at `at`.
    fn fault(&self, error: io::Error, what: &dyn fmt::Display, at: u64) -> BlendFault {
        let what = what.to_string();
        match error.kind() {
            io::ErrorKind::UnexpectedEof => BlendFault::Truncated { what, at },
            // A system's own error has a number; what an unpacker finds has none.
            _ if error.raw_os_error().is_some() => BlendFault::Unreadable(error),
            _ => BlendFault::Damaged { what: format!("{what} cannot be unpacked"), at },
        }
    }

    fn check(&self, count: u64, what: &dyn fmt::Display, at: u64) -> Result<(), BlendFault> {
        let fits = self.position.checked_add(count).is_some_and(|end| end <= self.limit);
        match (fits, self.known_len) {
            (true, _) => Ok(()),
            (false, true) => Err(BlendFault::Truncated { what: what.to_string(), at }),
            (false, _) => Err(BlendFault::Bomb(self.limit >> 20)),
        }
    }

    fn reader(&mut self) -> &mut dyn Read {
        match &mut self.kind {
            Kind::Plain(reader) => reader,
            Kind::Gzip(reader) => reader,
            Kind::Zstd(reader) => reader,
            Kind::Frames(reader) => reader,
        }
    }

    /// The next bytes, where they lie: nothing is copied but what lies in two pieces.
    #[inline]
    pub fn take(&mut self, count: u64, what: &dyn fmt::Display, at: u64) -> Result<&[u8], BlendFault> {
        if self.kind.ahead() as u64 >= count {
            self.position += count;
            return Ok(self.kind.advance(count as usize));
        }
        self.gather(count, what, at)
    }

    /// The next bytes, copied together. Memory is taken as they arrive: a length that lies costs nothing.
    #[cold]
    fn gather(&mut self, count: u64, what: &dyn fmt::Display, at: u64) -> Result<&[u8], BlendFault> {
        self.check(count, what, at)?;
        let mut gathered = std::mem::take(&mut self.gathered);
        gathered.clear();
        let end = self.position + count;
        while self.position < end {
            let begin = gathered.len();
            gathered.resize(begin + (end - self.position).min(STEP) as usize, 0);
            self.read_exact(&mut gathered[begin..], what, at)?;
        }
        self.gathered = gathered;
        Ok(&self.gathered)
    }

    pub fn read_exact(
        &mut self,
        buffer: &mut [u8],
        what: &dyn fmt::Display,
        at: u64,
    ) -> Result<(), BlendFault> {
        self.check(buffer.len() as u64, what, at)?;
        self.reader().read_exact(buffer).map_err(|error| self.fault(error, what, at))?;
        self.position += buffer.len() as u64;
        Ok(())
    }

    /// As many of the bytes wanted as there are.
    pub fn read_up_to(&mut self, buffer: &mut [u8]) -> Result<usize, BlendFault> {
        let mut count = 0;
        while count < buffer.len() {
            match self.reader().read(&mut buffer[count..]) {
                Ok(0) => break,
                Ok(more) => count += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(self.fault(error, &"its beginning", 0)),
            }
        }
        self.position += count as u64;
        Ok(count)
    }

    pub fn skip(&mut self, count: u64, what: &dyn fmt::Display, at: u64) -> Result<(), BlendFault> {
        self.check(count, what, at)?;
        if self.known_len {
            self.seek(self.position + count);
            return Ok(());
        }
        match io::copy(&mut self.reader().take(count), &mut io::sink()) {
            Ok(copied) if copied == count => {}
            Ok(_) => return Err(BlendFault::Truncated { what: what.to_string(), at }),
            Err(error) => return Err(self.fault(error, what, at)),
        }
        self.position += count;
        Ok(())
    }

    /// Reads the next bytes, at most to the end of the file; none at its end.
    pub fn chunk(&mut self, buffer: &mut [u8]) -> Result<usize, BlendFault> {
        let (at, what) = (self.position, &"what lies");
        loop {
            match self.reader().read(buffer) {
                Ok(count) => {
                    if !self.known_len {
                        self.check(count as u64, what, at)?;
                    }
                    self.position += count as u64;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.fault(error, what, at)),
            }
        }
    }

    /// After the end mark: a packed file must still end well, or its last part is not all there.
    pub fn finish(&mut self) -> Result<(), BlendFault> {
        if self.known_len {
            return Ok(());
        }
        let (at, left) = (self.position, self.limit - self.position.min(self.limit));
        match io::copy(&mut self.reader().take(left.saturating_add(1)), &mut io::sink()) {
            Ok(copied) if copied > left => Err(BlendFault::Bomb(self.limit >> 20)),
            Ok(_) => Ok(()),
            Err(error) => Err(self.fault(error, &"its end", at)),
        }
    }

    /// All bytes of a file that can only be read forward, where they take no more than `most`. `None` for all others,
    /// and for one that is broken: reading it as it lies tells where. Before anything else is read; what follows
    /// begins with [`restart`](Self::restart).
    pub fn unpack_small(&mut self, most: u64) -> Option<Vec<u8>> {
        if self.known_len {
            return None;
        }
        let most = most.min(self.limit);
        let mut unpacked = Vec::new();
        self.reader().take(most + 1).read_to_end(&mut unpacked).ok()?;
        (unpacked.len() as u64 <= most).then_some(unpacked)
    }
}
