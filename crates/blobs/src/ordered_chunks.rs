//! The chunks of a file in their turn, although they come in any order, and once for all the places where they belong.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kiln_chunks::{Chunk, Recipe};

use crate::disk::BlobResult;

/// A chunk that comes before its turn, or that has further turns, is kept until the last of them, as far as there is
/// room.
#[derive(Debug)]
pub(crate) struct OrderedChunks {
    recipe: Recipe,
    /// The number of chunks that had their turn, and the position of the next one.
    done: usize,
    at: u64,
    /// Those that have turns before them.
    left: HashMap<Chunk, Left>,
    room: MemoryBudget,
}

#[derive(Debug)]
struct Left {
    turns: usize,
    bytes: Bytes,
}

/// The bytes of a chunk, or the place where they are.
#[derive(Debug)]
enum Bytes {
    NotHere,
    Kept(Kept),
    /// Nobody asks for them here.
    Elsewhere,
}

impl OrderedChunks {
    pub fn new(recipe: Recipe, room: &MemoryBudget) -> Self {
        let mut left: HashMap<Chunk, Left> = HashMap::new();
        for chunk in &recipe.chunks {
            left.entry(*chunk).or_insert(Left { turns: 0, bytes: Bytes::NotHere }).turns += 1;
        }
        Self { recipe, done: 0, at: 0, left, room: room.clone() }
    }

    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// The number of chunks that had their turn.
    pub fn done(&self) -> usize {
        self.done
    }

    pub fn next(&self) -> Option<Chunk> {
        self.recipe.chunks.get(self.done).copied()
    }

    pub fn waits_for(&self, chunk: &Chunk) -> bool {
        self.left.contains_key(chunk)
    }

    /// The turns of this chunk pass by: its bytes are brought where they belong by other means.
    pub fn pass(&mut self, chunk: &Chunk) {
        if let Some(left) = self.left.get_mut(chunk) {
            left.bytes = Bytes::Elsewhere;
        }
    }

    /// Nothing has its turn any more; what was kept goes.
    pub fn abort(&mut self) {
        self.left.clear();
    }

    /// A chunk came, and these are its bytes. `take` gets all whose turn it is now, with their places. Whether every
    /// turn of this chunk was had or will be: not where there is no room to keep it, or its turns pass by.
    pub fn came(
        &mut self,
        chunk: Chunk,
        bytes: &[u8],
        mut take: impl FnMut(u64, &[u8]) -> BlobResult<()>,
    ) -> BlobResult<bool> {
        let Some(left) = self.left.get_mut(&chunk) else { return Ok(false) };
        let mut settled = !matches!(left.bytes, Bytes::Elsewhere);
        if let Bytes::NotHere = left.bytes {
            if self.recipe.chunks.get(self.done) == Some(&chunk) {
                take(self.at, bytes)?;
                self.at += bytes.len() as u64;
                self.done += 1;
                left.turns -= 1;
            }
            if left.turns == 0 {
                self.left.remove(&chunk);
            } else if let Some(kept) = self.room.keep(bytes) {
                left.bytes = Bytes::Kept(kept);
            } else {
                settled = false;
            }
        }
        self.go_on(take)?;
        Ok(settled)
    }

    /// Takes the chunks that follow, as far as they are here.
    fn go_on(&mut self, mut take: impl FnMut(u64, &[u8]) -> BlobResult<()>) -> BlobResult<()> {
        while let Some(chunk) = self.next() {
            let Some(left) = self.left.get_mut(&chunk) else { break };
            match &left.bytes {
                Bytes::NotHere => break,
                Bytes::Kept(kept) => take(self.at, &kept.bytes)?,
                Bytes::Elsewhere => {}
            }
            self.at += u64::from(chunk.len);
            self.done += 1;
            left.turns -= 1;
            if left.turns == 0 {
                self.left.remove(&chunk);
            }
        }
        Ok(())
    }
}

/// Bytes of memory that several share.
#[derive(Debug, Clone)]
pub(crate) struct MemoryBudget(Arc<AtomicUsize>);

impl MemoryBudget {
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(bytes)))
    }

    fn keep(&self, bytes: &[u8]) -> Option<Kept> {
        let take = |left: usize| left.checked_sub(bytes.len());
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
        Some(Kept { bytes: bytes.into(), room: self.clone() })
    }
}

/// Gives its room back.
#[derive(Debug)]
struct Kept {
    bytes: Box<[u8]>,
    room: MemoryBudget,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.room.0.fetch_add(self.bytes.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes_of(kind: u8) -> Vec<u8> {
        vec![kind; 10 + usize::from(kind)]
    }

    proptest! {
        /// `order`: the chunk at each position; `comes`: the order in which they come, some of them twice.
        #[test]
        fn with_room_all_have_their_turns_in_order(
            order in proptest::collection::vec(0_u8..6, 1..20),
            mut comes in Just((0_u8..6).chain(0..6).collect::<Vec<_>>()).prop_shuffle(),
            passed in 0_u8..12,
        ) {
            let recipe = Recipe { chunks: order.iter().map(|kind| Chunk::of(&bytes_of(*kind))).collect() };
            let room = MemoryBudget::new(1000);
            let mut turns = OrderedChunks::new(recipe.clone(), &room);
            turns.pass(&Chunk::of(&bytes_of(passed)));
            let mut had = Vec::new();
            comes.push(0);
            for kind in comes {
                let (bytes, waited) = (bytes_of(kind), turns.waits_for(&Chunk::of(&bytes_of(kind))));
                let settled = turns.came(Chunk::of(&bytes), &bytes, |at, bytes| {
                    had.push((at, Chunk::of(bytes)));
                    Ok(())
                });
                prop_assert_eq!(settled.unwrap(), waited && kind != passed);
            }
            let want: Vec<_> =
                recipe.offsets().filter(|(_, chunk)| *chunk != Chunk::of(&bytes_of(passed))).collect();
            prop_assert_eq!(had, want);
            prop_assert_eq!((turns.done(), turns.next()), (order.len(), None));
            prop_assert_eq!(room.0.load(Ordering::Relaxed), 1000);
        }
    }

    #[test]
    fn aborted_turns_wait_for_nothing_and_keep_nothing() {
        let (first, second) = (bytes_of(1), bytes_of(2));
        let room = MemoryBudget::new(100);
        let recipe = Recipe { chunks: [&first, &second].map(|bytes| Chunk::of(bytes)).to_vec() };
        let mut turns = OrderedChunks::new(recipe, &room);
        assert!(turns.came(Chunk::of(&second), &second, |_, _| Ok(())).unwrap());
        turns.abort();
        assert_eq!(room.0.load(Ordering::Relaxed), 100);
        assert!(!turns.waits_for(&Chunk::of(&first)));
        assert!(!turns.came(Chunk::of(&first), &first, |_, _| Ok(())).unwrap());
        assert_eq!(turns.done(), 0);
    }

    #[test]
    fn without_room_what_comes_too_early_is_not_kept_and_may_come_again() {
        let (first, second) = (bytes_of(1), bytes_of(2));
        let recipe = Recipe { chunks: [&first, &second, &first].map(|bytes| Chunk::of(bytes)).to_vec() };
        let mut turns = OrderedChunks::new(recipe, &MemoryBudget::new(11));
        let mut had = Vec::new();
        let mut came = |bytes: &[u8]| {
            let settled = turns.came(Chunk::of(bytes), bytes, |_, bytes| {
                had.push(bytes[0]);
                Ok(())
            });
            (settled.unwrap(), turns.next())
        };
        assert_eq!(came(&second), (false, Some(Chunk::of(&first))));
        assert_eq!(came(&first), (true, Some(Chunk::of(&second))));
        assert_eq!(came(&second), (true, None));
        assert_eq!(had, [1, 2, 1]);
    }
}
