//! The chunks that a file is made of.

use kiln_types::BlobHash;

use crate::MAX_CHUNK;

/// The name of a piece: its hash, and its length in bytes, from 1 to [`MAX_CHUNK`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Chunk {
    pub hash: BlobHash,
    pub len: u32,
}

impl Chunk {
    /// Of bytes no longer than a chunk may be.
    pub fn of(bytes: &[u8]) -> Self {
        debug_assert!((1..=MAX_CHUNK).contains(&bytes.len()));
        Self { hash: BlobHash::of(bytes), len: bytes.len() as u32 }
    }

    pub(crate) fn fits(&self) -> bool {
        (1..=MAX_CHUNK).contains(&(self.len as usize))
    }
}

/// The chunks of a file, in their order. An empty file has none. A file of one chunk is that chunk: both have
/// the same hash.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recipe {
    pub chunks: Vec<Chunk>,
}

/// Bytes that are no recipe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRecipe {
    #[error("the list of chunks is cut off: {0} bytes are no multiple of {each}", each = Recipe::ENTRY)]
    CutOff(usize),
    #[error("chunk {index} of the list claims {len} bytes; 1 to {MAX_CHUNK} are allowed")]
    Length { index: usize, len: u32 },
}

impl Recipe {
    /// Bytes of one chunk in the written form: its hash, then its length, little endian.
    pub const ENTRY: usize = 36;

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        self.chunks.iter().map(|chunk| u64::from(chunk.len)).sum()
    }

    /// Each chunk with the place in the file where it begins.
    pub fn offsets(&self) -> impl Iterator<Item = (u64, Chunk)> + '_ {
        self.chunks.iter().scan(0, |end, chunk| {
            let start = *end;
            *end += u64::from(chunk.len);
            Some((start, *chunk))
        })
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.chunks.len() * Self::ENTRY);
        for chunk in &self.chunks {
            bytes.extend_from_slice(chunk.hash.as_bytes());
            bytes.extend_from_slice(&chunk.len.to_le_bytes());
        }
        bytes
    }

    /// Takes at most as much memory as the bytes do: the caller who reads them from others bounds them.
    ///
    /// # Errors
    /// [`BadRecipe`] says which entry is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BadRecipe> {
        let (entries, rest) = bytes.as_chunks::<{ Self::ENTRY }>();
        if !rest.is_empty() {
            return Err(BadRecipe::CutOff(bytes.len()));
        }
        let chunks = entries.iter().enumerate().map(|(index, entry)| {
            let [head @ .., a, b, c, d] = entry;
            let chunk =
                Chunk { hash: BlobHash::from_bytes(*head), len: u32::from_le_bytes([*a, *b, *c, *d]) };
            if chunk.fits() { Ok(chunk) } else { Err(BadRecipe::Length { index, len: chunk.len }) }
        });
        Ok(Self { chunks: chunks.collect::<Result<_, _>>()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_is_what_was_written() {
        let recipe = Recipe { chunks: vec![Chunk::of(b"kiln"), Chunk::of(b"fires"), Chunk::of(&[7; 4096])] };
        let bytes = recipe.to_bytes();
        assert_eq!(bytes.len(), 3 * Recipe::ENTRY);
        assert_eq!(Recipe::from_bytes(&bytes), Ok(recipe.clone()));
        assert_eq!(recipe.size(), 4 + 5 + 4096);
        assert_eq!(recipe.offsets().map(|(at, _)| at).collect::<Vec<_>>(), [0, 4, 9]);
        assert_eq!(Recipe::from_bytes(&[]), Ok(Recipe::default()));
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let good = Recipe { chunks: vec![Chunk::of(b"kiln"), Chunk::of(b"fires")] }.to_bytes();
        for len in [0, MAX_CHUNK as u32 + 1, u32::MAX] {
            let mut bytes = good.clone();
            bytes[68..].copy_from_slice(&len.to_le_bytes());
            assert_eq!(Recipe::from_bytes(&bytes), Err(BadRecipe::Length { index: 1, len }));
        }
        for end in (1..good.len()).filter(|end| end % Recipe::ENTRY != 0) {
            assert_eq!(Recipe::from_bytes(&good[..end]), Err(BadRecipe::CutOff(end)));
        }
    }
}
