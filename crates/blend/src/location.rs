//! The locations of names of files in an unpacked .blend: a name is written to the place from which it was read.

use std::ops::Range;

/// Bytes of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ByteRange {
    pub at: u64,
    pub len: usize,
}

impl ByteRange {
    /// A part of a struct that begins at `base`.
    pub fn within(base: u64, part: Range<usize>) -> Self {
        Self { at: base + part.start as u64, len: part.len() }
    }
}

/// The location of one name.
#[derive(Debug, Clone)]
pub(crate) enum PathLocation {
    /// Characters within a struct.
    Field(ByteRange),
    /// A block of its own.
    Block(NameBlock),
    /// A strip of the sequencer: the first `shared` bytes of its names are in a folder, once for all of them.
    Strip { folder: ByteRange, shared: usize, element: ByteRange },
}

#[derive(Debug, Clone)]
pub(crate) struct NameBlock {
    /// The begin of its head, and the bytes after the head.
    pub head: u64,
    pub data: ByteRange,
    /// Numbers elsewhere that tell its length too.
    pub counts: Vec<ByteRange>,
}
