//! The name of a blob: the BLAKE3 hash of its bytes.

use std::{fmt, io, str::FromStr};

/// A BLAKE3 hash of 256 bits. Prints as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobHash([u8; 32]);
crate::ids::text_id!(
    BlobHash,
    "[0-9a-f]{64}",
    "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
);

/// A text that is not 64 lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a hash: 64 lower-case hex digits are expected")]
pub struct BadHash;

impl BlobHash {
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
    /// Hashes bytes in memory; [`BlobHasher`] hashes streams.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

/// Hashes a stream that comes in pieces of any size.
///
/// BLAKE3 hashes many blocks of 1 KiB at once, but only those of a subtree that begins where its length divides the
/// place in the stream. Pieces of odd lengths leave it few: they are gathered into runs first, which is four times as
/// fast for pieces of 15,000 bytes, and as fast for large ones.
#[derive(Debug, Clone, Default)]
pub struct BlobHasher {
    /// The state after all whole runs.
    runs: blake3::Hasher,
    /// The bytes behind the last whole run.
    rest: Vec<u8>,
}

impl BlobHasher {
    const RUN: usize = 64 << 10;

    pub fn new() -> Self {
        Self::default()
    }

    pub fn update(&mut self, mut bytes: &[u8]) {
        if !self.rest.is_empty() {
            let (first, behind) = bytes.split_at(bytes.len().min(Self::RUN - self.rest.len()));
            self.rest.extend_from_slice(first);
            if self.rest.len() < Self::RUN {
                return;
            }
            self.runs.update(&self.rest);
            self.rest.clear();
            bytes = behind;
        }
        let (runs, rest) = bytes.split_at(bytes.len() - bytes.len() % Self::RUN);
        self.runs.update(runs);
        self.rest.extend_from_slice(rest);
    }

    /// The number of bytes so far.
    pub fn count(&self) -> u64 {
        self.runs.count() + self.rest.len() as u64
    }

    /// The hash of the bytes so far.
    pub fn hash(&self) -> BlobHash {
        BlobHash(*self.runs.clone().update(&self.rest).finalize().as_bytes())
    }
}

impl io::Write for BlobHasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Display for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..6].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for BlobHash {
    type Err = BadHash;
    fn from_str(s: &str) -> Result<Self, BadHash> {
        if s.len() != 64 {
            return Err(BadHash);
        }
        let digit = |c: u8| match c {
            b'0'..=b'9' => Ok(c - b'0'),
            b'a'..=b'f' => Ok(c - b'a' + 10),
            _ => Err(BadHash),
        };
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(s.as_bytes().chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_stream_in_pieces_has_the_hash_of_its_bytes(
            pieces in proptest::collection::vec(0..3 * BlobHasher::RUN, 0..8),
        ) {
            let all: Vec<u8> = (0..pieces.iter().sum()).map(|at: usize| (at * at / 7) as u8).collect();
            let (mut hasher, mut at) = (BlobHasher::new(), 0);
            for piece in pieces {
                hasher.update(&all[at..at + piece]);
                at += piece;
                prop_assert_eq!(hasher.count(), at as u64);
                prop_assert_eq!(hasher.hash(), BlobHash::of(&all[..at]));
            }
        }
    }

    #[test]
    fn prints_and_parses() {
        let hash = BlobHash::of(b"kiln");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert_eq!(hash.to_string().to_uppercase().parse::<BlobHash>(), Err(BadHash));
        assert!("é".repeat(32).parse::<BlobHash>().is_err());
    }
}
