//! Which scene takes how much memory, and which slot holds one.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use kiln_types::{SessionKey, SlotIndex};

use crate::{hardware::Memory, sizing};

/// Scenes remembered before all are forgotten.
const MOST_KNOWN: usize = 1000;

#[derive(Debug, Default)]
struct Book {
    /// The most a process held with this scene, without and with persistent data.
    known: HashMap<SessionKey, [Option<u64>; 2]>,
    /// Scenes that ran out of memory with persistent data on.
    lean: HashSet<SessionKey>,
    open: HashMap<SlotIndex, Claim>,
}

#[derive(Debug)]
struct Claim {
    bytes: u64,
    /// Its memory is taken by now, and no longer counted as available by the system.
    shown: bool,
}

/// Shared by the slots of a worker.
#[derive(Debug, Default)]
pub(crate) struct MemoryBook(Mutex<Book>);

impl Book {
    fn need(&self, key: SessionKey, bundle: u64, persistent: bool) -> u64 {
        let known = self.known.get(&key).and_then(|known| known[usize::from(persistent)]);
        known.unwrap_or_else(|| sizing::guess(bundle, persistent))
    }

    fn claimed_beside(&self, slot: SlotIndex) -> u64 {
        let beside = self.open.iter().filter(|(other, claim)| **other != slot && !claim.shown);
        beside.fold(0, |sum, (_, claim)| sum.saturating_add(claim.bytes))
    }
}

impl MemoryBook {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the slot may open this scene now.
    pub(crate) fn room(&self, slot: SlotIndex, key: SessionKey, bundle: u64, memory: Memory) -> bool {
        let book = self.book();
        let first = book.open.keys().all(|other| *other == slot);
        let need = book.need(key, bundle, false);
        sizing::room(first, memory.available, book.claimed_beside(slot), need, memory.total)
    }

    /// The slot opens the scene. Returns whether its data may stay in memory between frames.
    pub(crate) fn claim(&self, slot: SlotIndex, key: SessionKey, bundle: u64, memory: Memory) -> bool {
        let mut book = self.book();
        let need = book.need(key, bundle, true);
        let free = memory.available.saturating_sub(book.claimed_beside(slot));
        let persistent =
            !book.lean.contains(&key) && free >= need.saturating_add(sizing::reserve(memory.total));
        let bytes = book.need(key, bundle, persistent);
        book.open.insert(slot, Claim { bytes, shown: false });
        persistent
    }

    /// A frame of the scene is rendered: what it takes is visible now, and known where the process never held more.
    pub(crate) fn rendered(&self, slot: SlotIndex, key: SessionKey, persistent: bool, peak: Option<u64>) {
        let mut book = self.book();
        if let Some(claim) = book.open.get_mut(&slot) {
            claim.shown = true;
        }
        if let Some(peak) = peak {
            if book.known.len() >= MOST_KNOWN {
                book.known.clear();
            }
            book.known.entry(key).or_default()[usize::from(persistent)] = Some(peak);
        }
    }

    pub(crate) fn ran_out(&self, key: SessionKey) {
        let mut book = self.book();
        if book.lean.len() >= MOST_KNOWN {
            book.lean.clear();
        }
        book.lean.insert(key);
    }

    /// The slot's process is gone.
    pub(crate) fn release(&self, slot: SlotIndex) {
        self.book().open.remove(&slot);
    }
}

#[cfg(test)]
mod tests {
    use kiln_types::BlobHash;

    use super::*;

    const GIB: u64 = 1 << 30;
    const A: SlotIndex = SlotIndex(0);
    const B: SlotIndex = SlotIndex(1);

    fn key() -> SessionKey {
        SessionKey(BlobHash::of(b"scene"))
    }

    #[test]
    fn the_second_slot_waits_for_what_the_first_is_about_to_take() {
        let book = MemoryBook::default();
        let memory = Memory { total: 8 * GIB, available: 6 * GIB };
        let bundle = 400 << 20;
        assert!(book.room(A, key(), bundle, memory));
        assert!(!book.claim(A, key(), bundle, memory), "20 times 400 MiB do not fit");
        assert!(!book.room(B, key(), bundle, memory), "twice 8 times 400 MiB do not fit either");
        book.rendered(A, key(), false, Some(GIB));
        assert!(book.room(B, key(), bundle, Memory { available: 5 * GIB, ..memory }));
        book.release(A);
        assert!(book.room(B, key(), bundle, Memory { available: 0, ..memory }), "the only one always may");
    }

    #[test]
    fn a_scene_that_ran_out_is_held_lean_from_then_on() {
        let book = MemoryBook::default();
        let memory = Memory { total: 64 * GIB, available: 60 * GIB };
        assert!(book.claim(A, key(), 1 << 20, memory));
        book.ran_out(key());
        assert!(!book.claim(A, key(), 1 << 20, memory));
    }
}
