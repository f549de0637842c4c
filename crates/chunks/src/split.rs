//! Cutting a stream where its content says so.

use std::io::{self, Read};

use fastcdc::v2020::{self, Normalization};
use kiln_types::{BlobHash, BlobHasher};

use crate::{Chunk, MAX_CHUNK, Recipe};

/// The granularity of a split. The places of the cuts are part of the farm's format: other numbers would make other
/// chunks of the same file, and everything would be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grain {
    /// Chunks of 4 to 64 KiB, 16 on average: for what changes in small places.
    Fine,
    /// Chunks of 128 KiB to 2 MiB, 512 KiB on average: for what stays or is replaced as a whole.
    Coarse,
}

impl Grain {
    /// The grain for a file that begins so.
    pub fn of(head: &[u8]) -> Self {
        if head.starts_with(b"BLENDER") { Self::Fine } else { Self::Coarse }
    }

    /// Bytes of a chunk: at least (but for the last one), about, at most.
    const fn sizes(self) -> (usize, usize, usize) {
        match self {
            Self::Fine => (4 << 10, 16 << 10, 64 << 10),
            Self::Coarse => (128 << 10, 512 << 10, MAX_CHUNK),
        }
    }

    /// Bytes held at once: several of the largest chunks, so that little is moved to the front again.
    const fn window(self) -> usize {
        match self {
            Self::Fine => 1 << 20,
            Self::Coarse => 4 * MAX_CHUNK,
        }
    }

    /// The end of the first chunk of these bytes. They must be as many as the largest chunk, or all there are.
    fn cut(self, bytes: &[u8]) -> usize {
        let (min, avg, max) = self.sizes();
        let (strict, loose) = v2020::select_masks(avg, Normalization::Level2);
        v2020::cut(bytes, min, avg, max, strict, loose, strict << 1, loose << 1).1
    }
}

/// The result of splitting a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// Of all its bytes.
    pub hash: BlobHash,
    pub recipe: Recipe,
}

/// Splits a stream and gives each chunk, with its bytes, to `each`. Holds no more than 8 MiB at once, however
/// long the stream is. Without a grain, the first bytes choose it.
///
/// # Errors
/// Where the reader or `each` fails.
pub fn split(
    mut reader: impl Read,
    grain: Option<Grain>,
    mut each: impl FnMut(Chunk, &[u8]) -> io::Result<()>,
) -> io::Result<Split> {
    let mut window = vec![0; Grain::Fine.window()];
    let mut filled = fill(&mut reader, &mut window, 0)?;
    let grain = grain.unwrap_or_else(|| Grain::of(&window[..filled]));
    if filled == window.len() && grain.window() > filled {
        window.resize(grain.window(), 0);
        filled = fill(&mut reader, &mut window, filled)?;
    }
    // One chunk is hashed once.
    if filled < window.len() && (filled == 0 || grain.cut(&window[..filled]) == filled) {
        let bytes = &window[..filled];
        let hash = BlobHash::of(bytes);
        let mut recipe = Recipe::default();
        if filled > 0 {
            recipe.chunks.push(Chunk { hash, len: filled as u32 });
            each(recipe.chunks[0], bytes)?;
        }
        return Ok(Split { hash, recipe });
    }
    let (_, _, max) = grain.sizes();
    let mut whole = BlobHasher::new();
    let mut recipe = Recipe::default();
    let mut fresh = 0;
    loop {
        whole.update(&window[fresh..filled]);
        let ended = filled < window.len();
        let mut start = 0;
        while filled - start >= max || (ended && start < filled) {
            let len = grain.cut(&window[start..filled]);
            let bytes = &window[start..start + len];
            let chunk = Chunk::of(bytes);
            recipe.chunks.push(chunk);
            each(chunk, bytes)?;
            start += len;
        }
        if ended {
            return Ok(Split { hash: whole.hash(), recipe });
        }
        window.copy_within(start..filled, 0);
        fresh = filled - start;
        filled = fill(&mut reader, &mut window, fresh)?;
    }
}

/// Reads until the window is full, or the stream ends; returns up to where it is filled.
fn fill(reader: &mut impl Read, window: &mut [u8], mut filled: usize) -> io::Result<usize> {
    while filled < window.len() {
        match reader.read(&mut window[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    /// Bytes that do not repeat soon.
    fn noise(len: usize, seed: u64) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }

    /// Splits, and holds what comes against what went in.
    fn checked(bytes: &[u8], reader: impl Read, grain: Option<Grain>) -> Recipe {
        let mut joined = Vec::new();
        let mut seen = Vec::new();
        let split = split(reader, grain, |chunk, bytes| {
            assert_eq!(chunk, Chunk::of(bytes));
            joined.extend_from_slice(bytes);
            seen.push(chunk);
            Ok(())
        })
        .unwrap();
        assert!(joined == bytes, "joined again, the chunks are the file");
        assert_eq!(split.hash, BlobHash::of(bytes));
        assert_eq!(split.recipe.chunks, seen);
        assert_eq!(split.recipe.size(), bytes.len() as u64);
        split.recipe
    }

    /// A reader that gives as little or as much as it likes.
    struct Dribble<'a>(&'a [u8], u64);

    impl Read for Dribble<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = self.1.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if self.1 >> 60 == 3 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let many = 1 + (self.1 >> 40) as usize % 100_000;
            let count = many.min(buffer.len());
            self.0.read(&mut buffer[..count])
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn joined_again_the_chunks_are_the_file(
            len in prop_oneof![0_usize..200_000, 900_000_usize..3_000_000, 8_000_000_usize..18_000_000],
            seed: u64,
            fine: bool,
            zeros: bool,
        ) {
            let bytes = if zeros { vec![0; len] } else { noise(len, seed) };
            let grain = if fine { Grain::Fine } else { Grain::Coarse };
            let at_once = checked(&bytes, &bytes[..], Some(grain));
            let in_pieces = checked(&bytes, Dribble(&bytes, seed), Some(grain));
            prop_assert_eq!(&at_once, &in_pieces, "how the bytes arrive does not matter");
            let (min, _, max) = grain.sizes();
            if let Some((last, before)) = at_once.chunks.split_last() {
                prop_assert!(last.len as usize <= max);
                prop_assert!(before.iter().all(|chunk| (min..=max).contains(&(chunk.len as usize))));
            }
        }

        #[test]
        fn an_insertion_changes_few_chunks(at in 0_usize..4_000_000, inserted in 1_usize..5000, seed: u64) {
            let before = noise(4_000_000, seed);
            let mut after = before.clone();
            after.splice(at..at, noise(inserted, !seed));
            let known: HashSet<_> = checked(&before, &before[..], Some(Grain::Fine)).chunks.into_iter().collect();
            let fresh: u64 = checked(&after, &after[..], Some(Grain::Fine))
                .chunks
                .iter()
                .filter(|chunk| !known.contains(chunk))
                .map(|chunk| u64::from(chunk.len))
                .sum();
            prop_assert!(fresh > 0);
            prop_assert!(fresh < 8 * (64 << 10), "{} bytes are new", fresh);
        }
    }

    #[test]
    fn the_first_bytes_choose_the_grain() {
        let mut bytes = noise(1 << 20, 1);
        assert!(checked(&bytes, &bytes[..], None).chunks.len() < 8);
        bytes[..7].copy_from_slice(b"BLENDER");
        assert!(checked(&bytes, &bytes[..], None).chunks.len() > 30);
    }

    #[test]
    fn an_empty_file_has_no_chunk_and_a_small_one_is_its_chunk() {
        assert!(checked(&[], &[][..], None).chunks.is_empty());
        let recipe = checked(b"kiln", &b"kiln"[..], None);
        assert_eq!(recipe.chunks, [Chunk { hash: BlobHash::of(b"kiln"), len: 4 }]);
    }

    #[test]
    fn a_reader_that_fails_is_told() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("the disk is gone"))
            }
        }
        let head = noise(3 << 20, 2);
        let error = split((&head[..]).chain(Broken), None, |_, _| Ok(())).unwrap_err();
        assert_eq!(error.to_string(), "the disk is gone");
    }

    /// If this fails, every farm sends and stores everything once more: cut elsewhere only with a reason.
    #[test]
    fn cuts_are_where_they_always_were() {
        let bytes = noise(6 << 20, 42);
        for (grain, count, digest) in
            [(Grain::Fine, 339, "6a776395f9f4254a"), (Grain::Coarse, 10, "9e319d0a1bbb3fd5")]
        {
            let recipe = checked(&bytes, &bytes[..], Some(grain));
            let found = BlobHash::of(&recipe.to_bytes()).to_string();
            assert_eq!((recipe.chunks.len(), &found[..16]), (count, digest), "{grain:?}");
        }
    }
}
