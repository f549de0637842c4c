//! Estimates of the memory of a step's frames.

use std::num::NonZeroU64;

use crate::Room;

/// The memory of a step's frames, as far as it is known; bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct MemoryUse {
    /// The most that a frame took, or that was too little for one of several at once.
    most: u64,
    /// The smallest machine on which a frame succeeded.
    fits_on: Option<NonZeroU64>,
    /// The largest machine that a frame had for itself and that was too small.
    too_small: u64,
}

impl MemoryUse {
    /// Learns from a frame that took `bytes` on a machine with `on` bytes, 0 if that is not known. Returns whether the
    /// estimate has changed.
    pub fn note_frame(&mut self, bytes: u64, on: u64) -> bool {
        // No machine has more; a worker that says so is not believed.
        let bytes = bytes.min(1 << 50);
        let fits_on = self.fits_on.into_iter().chain(NonZeroU64::new(on)).min();
        let known = Self { most: self.most.max(bytes), fits_on, ..*self };
        std::mem::replace(self, known) != known
    }

    /// Learns from a frame that ran out of memory on a machine with `bytes`, where `frames` of the step ran. `alone`: the
    /// machine did nothing else.
    pub fn note_too_small(&mut self, bytes: u64, alone: bool, frames: u64) {
        if alone {
            self.too_small = self.too_small.max(bytes);
        } else if frames > 1 {
            self.most = self.most.max(bytes / frames + 1);
        }
    }

    /// Raises the memory of `room` to the estimate. `has_larger` returns whether there is a machine with more memory.
    pub fn widen(&self, room: &mut Room, has_larger: impl Fn(u64) -> bool) {
        // A tenth more than the most so far, in steps of an eighth of a power of two: requirements stay few.
        let grain = (self.most.next_power_of_two() / 8).max(1);
        room.learned = (self.most + self.most / 10).div_ceil(grain).saturating_mul(grain);
        // One heavy frame must not keep the others from machines on which frames succeeded, nor from the largest.
        let fits_on_it = self.fits_on.is_some_and(|fits_on| fits_on.get() <= self.too_small);
        if self.too_small > 0 && !fits_on_it && has_larger(self.too_small) {
            room.memory = room.memory.max(self.too_small + 1);
        }
    }
}
