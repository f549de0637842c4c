//! The bytes that a decoder reads.

use std::io::{BufReader, Read, Seek, SeekFrom};

use crate::fault::ImageFault;

/// Anything that can be read from and sought in.
pub(crate) trait Bytes: Read + Seek {}
impl<T: Read + Seek> Bytes for T {}

pub(crate) struct PictureSource<'a> {
    pub reader: BufReader<&'a mut dyn Bytes>,
    /// Bytes of the whole file.
    pub len: u64,
    /// The most bytes a decoder may hold at once.
    pub memory: u64,
}

impl<'a> PictureSource<'a> {
    pub fn new(bytes: &'a mut dyn Bytes, memory: u64) -> Result<Self, ImageFault> {
        let len = bytes.seek(SeekFrom::End(0))?;
        if len == 0 {
            return Err(ImageFault::Empty);
        }
        bytes.seek(SeekFrom::Start(0))?;
        Ok(Self { reader: BufReader::with_capacity(64 << 10, bytes), len, memory })
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], ImageFault> {
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    pub fn at<const N: usize>(&mut self, offset: u64) -> Result<[u8; N], ImageFault> {
        self.reader.seek(SeekFrom::Start(offset))?;
        self.array()
    }

    /// The last `N` bytes of the file.
    pub fn tail<const N: usize>(&mut self) -> Result<[u8; N], ImageFault> {
        match self.len.checked_sub(N as u64) {
            Some(offset) => self.at(offset),
            None => Err(ImageFault::Truncated("it is too short to hold a picture".to_owned())),
        }
    }

    pub fn rewind(&mut self) -> Result<(), ImageFault> {
        self.reader.seek(SeekFrom::Start(0))?;
        Ok(())
    }

    pub fn position(&mut self) -> Result<u64, ImageFault> {
        Ok(self.reader.stream_position()?)
    }

    /// `count` bytes of memory, if that is allowed.
    pub fn buffer(&self, count: u64) -> Result<Vec<u8>, ImageFault> {
        match usize::try_from(count) {
            Ok(size) if count <= self.memory => Ok(vec![0; size]),
            _ => Err(ImageFault::too_large(self.memory)),
        }
    }
}
