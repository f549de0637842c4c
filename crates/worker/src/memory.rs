//! The memory that scenes and tasks take, as slots and attempts claim it.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use kiln_types::{AttemptId, SessionKey, SlotIndex};

use crate::{hardware::Memory, sizing};

/// Scenes remembered before all are forgotten.
const MOST_KNOWN: usize = 1000;

/// A part of the worker that claims memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Claimant {
    /// A slot, for the scene that its Blender has open.
    Slot(SlotIndex),
    /// A task without a Blender that runs on a slot.
    Task(AttemptId),
    Stream(AttemptId),
}

#[derive(Debug, Default)]
struct Claims {
    /// The most a process held with this scene, without and with persistent data.
    known: HashMap<SessionKey, [Option<u64>; 2]>,
    /// Scenes that ran out of memory with persistent data on.
    lean: HashSet<SessionKey>,
    open: HashMap<Claimant, MemoryClaim>,
}

#[derive(Debug)]
struct MemoryClaim {
    bytes: u64,
    /// The memory is in use by now, and no longer counted as available by the system.
    shown: bool,
}

/// The claims of all slots and attempts of a worker.
#[derive(Debug, Default)]
pub(crate) struct MemoryClaims(Mutex<Claims>);

impl Claims {
    fn need(&self, key: SessionKey, bundle: u64, persistent: bool) -> u64 {
        let known = self.known.get(&key).and_then(|known| known[usize::from(persistent)]);
        known.unwrap_or_else(|| sizing::guess(bundle, persistent))
    }

    /// Returns true if no other scene or task has claimed memory; streams do not count, because they wait for others.
    fn is_first(&self, claimant: Claimant) -> bool {
        self.open.keys().all(|other| *other == claimant || matches!(other, Claimant::Stream(_)))
    }

    fn claimed_beside(&self, claimant: Claimant) -> u64 {
        let beside = self.open.iter().filter(|(other, claim)| **other != claimant && !claim.shown);
        beside.fold(0, |sum, (_, claim)| sum.saturating_add(claim.bytes))
    }

    fn has_room(&self, claimant: Claimant, need: u64, memory: Memory) -> bool {
        let claimed = self.claimed_beside(claimant);
        sizing::room(self.is_first(claimant), memory.available, claimed, need, memory.total)
    }
}

impl MemoryClaims {
    fn claims(&self) -> MutexGuard<'_, Claims> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides whether the slot may open this scene now.
    pub(crate) fn has_room(&self, slot: SlotIndex, key: SessionKey, bundle: u64, memory: Memory) -> bool {
        let (claims, slot) = (self.claims(), Claimant::Slot(slot));
        claims.has_room(slot, claims.need(key, bundle, false), memory)
    }

    /// Decides whether a task without a Blender may take this memory now.
    pub(crate) fn has_room_for_task(&self, attempt: AttemptId, bytes: u64, memory: Memory) -> bool {
        self.claims().has_room(Claimant::Task(attempt), bytes, memory)
    }

    pub(crate) fn claim_for_task(&self, attempt: AttemptId, bytes: u64) {
        self.claims().open.insert(Claimant::Task(attempt), MemoryClaim { bytes, shown: false });
    }

    pub(crate) fn release_task(&self, attempt: AttemptId) {
        self.claims().open.remove(&Claimant::Task(attempt));
    }

    pub(crate) fn claim_for_stream(&self, attempt: AttemptId, bytes: u64) {
        self.claims().open.insert(Claimant::Stream(attempt), MemoryClaim { bytes, shown: false });
    }

    pub(crate) fn release_stream(&self, attempt: AttemptId) {
        self.claims().open.remove(&Claimant::Stream(attempt));
    }

    /// Claims memory for the scene that a slot opens. Returns whether its data may stay in memory between frames.
    pub(crate) fn claim(&self, slot: SlotIndex, key: SessionKey, bundle: u64, memory: Memory) -> bool {
        let (mut claims, slot) = (self.claims(), Claimant::Slot(slot));
        let need = claims.need(key, bundle, true);
        let free = memory.available.saturating_sub(claims.claimed_beside(slot));
        let persistent =
            !claims.lean.contains(&key) && free >= need.saturating_add(sizing::reserve(memory.total));
        let bytes = claims.need(key, bundle, persistent);
        claims.open.insert(slot, MemoryClaim { bytes, shown: false });
        persistent
    }

    /// Notes that a frame of the scene is rendered: its memory is visible now, and known if the process never held more.
    pub(crate) fn rendered(&self, slot: SlotIndex, key: SessionKey, persistent: bool, peak: Option<u64>) {
        let mut claims = self.claims();
        if let Some(claim) = claims.open.get_mut(&Claimant::Slot(slot)) {
            claim.shown = true;
        }
        if let Some(peak) = peak {
            if claims.known.len() >= MOST_KNOWN {
                claims.known.clear();
            }
            claims.known.entry(key).or_default()[usize::from(persistent)] = Some(peak);
        }
    }

    /// Notes that the scene ran out of memory.
    pub(crate) fn note_out_of_memory(&self, key: SessionKey) {
        let mut claims = self.claims();
        if claims.lean.len() >= MOST_KNOWN {
            claims.lean.clear();
        }
        claims.lean.insert(key);
    }

    /// Releases the claim of a slot whose process has ended.
    pub(crate) fn release(&self, slot: SlotIndex) {
        self.claims().open.remove(&Claimant::Slot(slot));
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
        let claims = MemoryClaims::default();
        let memory = Memory { total: 8 * GIB, available: 6 * GIB };
        let bundle = 400 << 20;
        assert!(claims.has_room(A, key(), bundle, memory));
        assert!(!claims.claim(A, key(), bundle, memory), "20 times 400 MiB do not fit");
        assert!(!claims.has_room(B, key(), bundle, memory), "twice 8 times 400 MiB do not fit either");
        claims.rendered(A, key(), false, Some(GIB));
        assert!(claims.has_room(B, key(), bundle, Memory { available: 5 * GIB, ..memory }));
        claims.release(A);
        assert!(
            claims.has_room(B, key(), bundle, Memory { available: 0, ..memory }),
            "the only one always may"
        );
    }

    #[test]
    fn a_scene_that_ran_out_is_held_lean_from_then_on() {
        let claims = MemoryClaims::default();
        let memory = Memory { total: 64 * GIB, available: 60 * GIB };
        assert!(claims.claim(A, key(), 1 << 20, memory));
        claims.note_out_of_memory(key());
        assert!(!claims.claim(A, key(), 1 << 20, memory));
    }

    #[test]
    fn a_stream_keeps_memory_from_others_and_stops_no_scene_that_is_alone() {
        let claims = MemoryClaims::default();
        let memory = Memory { total: 8 * GIB, available: 6 * GIB };
        let [stream, task] = ["1-1", "1-2"].map(|id| id.parse().unwrap());
        claims.claim_for_stream(stream, 5 * GIB);
        assert!(claims.has_room(A, key(), 400 << 20, memory), "what it waits for must not wait for it");
        claims.claim(A, key(), 400 << 20, memory);
        assert!(!claims.has_room_for_task(task, 2 * GIB, Memory { available: 4 * GIB, ..memory }));
        claims.release_stream(stream);
        claims.release(A);
        claims.claim_for_task(task, 2 * GIB);
        assert!(!claims.has_room(A, key(), 400 << 20, memory), "a task counts as another slot's scene does");
        claims.release_task(task);
        assert!(claims.has_room(A, key(), 400 << 20, memory));
    }
}
