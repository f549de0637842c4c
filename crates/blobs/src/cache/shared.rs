//! The chunks of the files of a cache: beside a file, the list of its chunks.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use kiln_chunks::{Chunk, Recipe};
use kiln_types::BlobHash;

use crate::BlobError;
use crate::chunks::ChunkKey;
use crate::disk::BlobResult;

/// Chunks that are known by their place, at most: 35 MB of memory. Those of older files are fetched again.
const MAX_KNOWN: usize = 900_000;

/// The places of chunks in cached files. May name places that are gone: chunks are checked when they are read.
#[derive(Debug, Default)]
pub(super) struct SharedChunks {
    places: HashMap<ChunkKey, Place>,
    /// By [`Place::file`]; nothing where the file is gone.
    files: Vec<Option<BlobHash>>,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    file: u32,
    at: u64,
}

impl SharedChunks {
    /// The file that came last counts: it stays longest.
    pub fn insert(&mut self, file: BlobHash, recipe: &Recipe) {
        if recipe.chunks.len() > MAX_KNOWN {
            return;
        }
        self.remove(&file);
        if self.places.len() + recipe.chunks.len() > MAX_KNOWN {
            self.tidy(MAX_KNOWN - recipe.chunks.len());
        }
        let slot = self.files.len() as u32;
        self.files.push(Some(file));
        for (at, chunk) in recipe.offsets() {
            self.places.insert(ChunkKey::from(&chunk.hash), Place { file: slot, at });
        }
    }

    pub fn remove(&mut self, file: &BlobHash) {
        for slot in &mut self.files {
            slot.take_if(|there| there == file);
        }
    }

    /// Forgets what lies in files that are gone, and then the oldest files, until no more than `most` are left.
    fn tidy(&mut self, most: usize) {
        let mut counts = vec![0_usize; self.files.len()];
        for place in self.places.values() {
            counts[place.file as usize] += 1;
        }
        let mut left: usize =
            counts.iter().zip(&self.files).filter(|(_, file)| file.is_some()).map(|(n, _)| n).sum();
        for (file, count) in self.files.iter_mut().zip(counts) {
            if left <= most {
                break;
            }
            if file.take().is_some() {
                left -= count;
            }
        }
        let mut kept = Vec::new();
        let drained = self.files.drain(..);
        let moved: Vec<_> = drained
            .map(|file| {
                kept.push(Some(file?));
                Some(kept.len() as u32 - 1)
            })
            .collect();
        self.files = kept;
        self.places.retain(|_, place| match moved[place.file as usize] {
            Some(slot) => {
                place.file = slot;
                true
            }
            None => false,
        });
    }

    /// The file that should hold this chunk, and where.
    pub fn find(&self, chunk: &Chunk) -> Option<(BlobHash, u64)> {
        let place = self.places.get(&ChunkKey::from(&chunk.hash))?;
        self.files[place.file as usize].map(|file| (file, place.at))
    }
}

pub(super) fn list_path(file: &Path) -> PathBuf {
    file.with_extension("chunks")
}

/// Writes the list of a file's chunks beside it. After a loss of power it may be damaged, and is then no list: nothing is
/// flushed for it, and its draft lies where the store removes what a killed process left.
pub(super) fn write_list(file: &Path, draft: &Path, recipe: &Recipe) -> BlobResult<()> {
    let mut bytes = recipe.to_bytes();
    bytes.extend_from_slice(blake3::hash(&bytes).as_bytes());
    fs::write(draft, bytes).map_err(BlobError::io("write", draft))?;
    let list = list_path(file);
    fs::rename(draft, &list).map_err(BlobError::io("write", &list))
}

/// The list of the chunks of a file of `len` bytes; nothing where there is none, or one that is not right.
pub(super) fn read_list(file: &Path, len: u64) -> Option<Recipe> {
    let bytes = fs::read(list_path(file)).ok()?;
    let (list, hash) = bytes.split_last_chunk::<32>()?;
    if blake3::hash(list).as_bytes() != hash {
        return None;
    }
    Recipe::from_bytes(list).ok().filter(|recipe| recipe.size() == len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(from: u32, count: u32) -> Recipe {
        Recipe {
            chunks: (from..from + count)
                .map(|n| Chunk { hash: BlobHash::of(&n.to_le_bytes()), len: 9 })
                .collect(),
        }
    }

    #[test]
    fn the_file_that_came_last_counts_and_one_that_went_does_not() {
        let mut shared = SharedChunks::default();
        let [a, b] = [b"a", b"b"].map(|name| BlobHash::of(name));
        shared.insert(a, &recipe(0, 3));
        shared.insert(b, &recipe(2, 3));
        let find = |shared: &SharedChunks, n: u32| shared.find(&recipe(n, 1).chunks[0]);
        assert_eq!(
            [0, 1, 2, 4, 5].map(|n| find(&shared, n)),
            [Some((a, 0)), Some((a, 9)), Some((b, 0)), Some((b, 18)), None]
        );
        shared.remove(&b);
        assert_eq!([1, 2].map(|n| find(&shared, n)), [Some((a, 9)), None]);
    }

    #[test]
    fn the_index_is_bounded_and_the_oldest_file_goes_first() {
        let mut shared = SharedChunks::default();
        let names: Vec<_> = (0..5_u32).map(|n| BlobHash::of(&[n as u8])).collect();
        let each = MAX_KNOWN as u32 * 2 / 5;
        for (n, name) in names.iter().enumerate() {
            if n == 2 {
                shared.remove(&names[1]);
            }
            shared.insert(*name, &recipe(n as u32 * each, each));
            assert!(shared.places.len() <= MAX_KNOWN);
        }
        let first = |n: u32| shared.find(&recipe(n * each, 1).chunks[0]).map(|(file, _)| file);
        assert_eq!([0, 1, 2, 3, 4].map(first), [None, None, None, Some(names[3]), Some(names[4])]);
    }
}
