//! A plain file, one piece of it in memory.

use std::io::{self, Read, SeekFrom};

use crate::stream::ByteSource;

/// Small: most of a large file is skipped, and what is read stays in the processor's cache.
const PIECE: usize = 64 << 10;

pub(crate) struct PieceBuffer<'a> {
    bytes: &'a mut dyn ByteSource,
    /// The position of `bytes`; `None` after an error.
    position: Option<u64>,
    buffer: Box<[u8]>,
    /// Bytes of the buffer that are a piece of the file.
    filled: usize,
    /// Byte of the file where the piece begins.
    begins: u64,
    /// Byte of the piece that comes next.
    next: usize,
}

impl<'a> PieceBuffer<'a> {
    pub fn new(bytes: &'a mut dyn ByteSource) -> Self {
        let buffer = vec![0; PIECE].into_boxed_slice();
        Self { bytes, position: None, buffer, filled: 0, begins: 0, next: 0 }
    }

    /// Costs nothing before something is read there.
    pub fn seek(&mut self, to: u64) {
        match to.checked_sub(self.begins) {
            Some(next) if next <= self.filled as u64 => self.next = next as usize,
            _ => (self.begins, self.filled, self.next) = (to, 0, 0),
        }
    }

    /// The next bytes, as far as they are in memory.
    pub fn ahead(&self) -> &[u8] {
        &self.buffer[self.next..self.filled]
    }

    /// The first of what is [`ahead`](Self::ahead): goes behind them.
    pub fn advance(&mut self, count: usize) -> &[u8] {
        let from = self.next;
        self.next += count;
        &self.buffer[from..self.next]
    }
}

/// Reads one piece, or more at once where more is wanted.
fn read_at(
    bytes: &mut dyn ByteSource,
    position: &mut Option<u64>,
    at: u64,
    buffer: &mut [u8],
) -> io::Result<usize> {
    if position.take() != Some(at) {
        bytes.seek(SeekFrom::Start(at))?;
    }
    let count = bytes.read(buffer)?;
    *position = Some(at + count as u64);
    Ok(count)
}

impl Read for PieceBuffer<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.next == self.filled {
            (self.begins, self.filled, self.next) = (self.begins + self.filled as u64, 0, 0);
            if buffer.len() >= PIECE {
                let count = read_at(self.bytes, &mut self.position, self.begins, buffer)?;
                self.begins += count as u64;
                return Ok(count);
            }
            self.filled = read_at(self.bytes, &mut self.position, self.begins, &mut self.buffer)?;
        }
        let count = buffer.len().min(self.filled - self.next);
        buffer[..count].copy_from_slice(self.advance(count));
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn every_way_to_read_gives_the_bytes_of_the_place() {
        let file: Vec<u8> = (0..5 * PIECE as u32 + 7).map(|at| (at % 251) as u8).collect();
        let mut bytes = Cursor::new(&file);
        let mut pieces = PieceBuffer::new(&mut bytes);
        let places = [0, 3, PIECE - 2, PIECE, 10, 3 * PIECE + 5, 2 * PIECE, 5 * PIECE, file.len() - 1];
        for at in places {
            for count in [1, 30, PIECE - 1, PIECE, 2 * PIECE] {
                let expected = &file[at..file.len().min(at + count)];
                pieces.seek(at as u64);
                let mut read = vec![0; expected.len()];
                pieces.read_exact(&mut read).unwrap();
                assert!(read == expected, "{count} bytes at {at}");
                // What is in memory now goes on from there.
                let ahead = pieces.ahead().len().min(20);
                let end = at + expected.len();
                assert_eq!(pieces.advance(ahead), &file[end..end + ahead]);
            }
        }
        pieces.seek(file.len() as u64 + 9);
        assert_eq!(pieces.read(&mut [0; 4]).unwrap(), 0);
        pieces.seek(1);
        pieces.read_exact(&mut [0; 4]).unwrap();
        assert_eq!(pieces.advance(1), &file[5..6]);
    }
}
