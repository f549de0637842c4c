//! The part of a machine that Kiln takes: slots, memory, spare processes. Pure; the numbers come from [`crate::hardware`].

use std::time::Duration;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Memory that a slot needs when slots are counted, before any scene is known.
const MEMORY_A_SLOT: u64 = 3 * GIB;
/// The memory of a Blender before it opens a file.
const BARE: u64 = 512 * MIB;
/// Frames after which a process is replaced by a fresh one, so that a leak stays small.
pub(crate) const FRAMES_A_PROCESS: u64 = 2000;

/// The number of slots of a worker whose options name none.
///
/// A frame that renders for less than a second keeps one core busy with its sync before and its save after, and
/// all cores only in between: two Blenders overlap the one's sync with the other's render, and two cores are then
/// full. Frames that render long fill all cores by themselves, and a second Blender neither helps nor harms. More
/// than two pay only where many cores leave a single render's threads idle, one for each eight cores, and beyond
/// four the scene's copies in memory cost more than they bring. Each needs memory for a scene of its own. A frame
/// renders best on one GPU: there is a slot for each.
pub(crate) fn slots(cores: u32, available: u64, gpus: u32) -> u16 {
    let wanted = if cores < 2 { 1 } else { (cores / 8).clamp(2, 4) }.max(gpus);
    let fitting = available / MEMORY_A_SLOT;
    u16::try_from(u64::from(wanted).min(fitting).max(1)).unwrap_or(1)
}

/// Threads of each Blender of a worker that gives `offered` cores of its machine to its slots; 0 if it gives all, and
/// Blender decides.
pub(crate) fn threads(offered: u32, machine: u32, slots: u16) -> u16 {
    if offered >= machine {
        return 0;
    }
    u16::try_from((offered / u32::from(slots.max(1))).max(1)).unwrap_or(u16::MAX)
}

/// The memory that is kept free for everything else on the machine.
pub(crate) fn reserve(total: u64) -> u64 {
    (total / 20).max(512 * MIB)
}

/// Estimates the memory of a scene from the bytes of its files: measured scenes of plain geometry took 8 times their file
/// without persistent data and 20 times with it.
pub(crate) fn guess(bundle: u64, persistent: bool) -> u64 {
    BARE.saturating_add(bundle.saturating_mul(if persistent { 20 } else { 8 }))
}

/// Decides whether a scene that needs `need` bytes may be opened beside others. `claimed`: bytes that others are about to
/// take and the system does not show yet. The first scene always may: without it nothing renders.
pub(crate) fn room(first: bool, available: u64, claimed: u64, need: u64, total: u64) -> bool {
    first || available.saturating_sub(claimed) >= need.saturating_add(reserve(total))
}

/// Decides whether a process has rendered enough frames, or holds so much memory that the machine has none left.
pub(crate) fn worn(frames: u64, peak: u64, available: u64, total: u64) -> bool {
    frames >= FRAMES_A_PROCESS || (peak > GIB && available < reserve(total) / 2)
}

/// The state of a worker that decides whether it needs a spare process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SpareNeed {
    /// A spare is there or coming up.
    pub(crate) have: bool,
    /// The time for which the worker has been at work, or without work.
    pub(crate) steady: Duration,
    pub(crate) busy: bool,
    pub(crate) available: u64,
    pub(crate) total: u64,
}

/// Decides whether a spare process is to be started now. A start takes 0.7 s of a core: never in the first seconds of a
/// job, which may be over before the spare is up.
pub(crate) fn want_spare(facts: SpareNeed) -> bool {
    let settled = facts.steady >= Duration::from_secs(if facts.busy { 10 } else { 5 });
    !facts.have && settled && facts.available >= reserve(facts.total) + 2 * GIB
}

/// Decides whether a worker without work for long keeps a spare process, or starts one: not while somebody uses the machine
/// or memory is short. To keep one takes less free memory than to start one.
pub(crate) fn keeps_idle_spare(have: bool, used: bool, available: u64, total: u64) -> bool {
    let free = if have { GIB } else { 2 * GIB };
    !used && available >= reserve(total) + free
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_by_cores_and_memory() {
        for (cores, gib, wanted) in [
            (1, 64, 1),
            (2, 2, 1),
            (2, 6, 2),
            (4, 16, 2),
            (16, 64, 2),
            (24, 64, 3),
            (32, 64, 4),
            (128, 512, 4),
            (128, 7, 2),
            (0, 0, 1),
        ] {
            assert_eq!(slots(cores, gib * GIB, 0), wanted, "{cores} cores, {gib} GiB");
        }
    }

    #[test]
    fn a_slot_for_each_gpu_that_has_memory_for_its_scene() {
        for (cores, gib, gpus, wanted) in
            [(8, 64, 1, 2), (8, 64, 4, 4), (32, 64, 2, 4), (8, 9, 8, 3), (1, 64, 2, 2)]
        {
            assert_eq!(slots(cores, gib * GIB, gpus), wanted, "{cores} cores, {gib} GiB, {gpus} GPUs");
        }
    }

    #[test]
    fn threads_by_what_the_farm_is_given() {
        assert_eq!(threads(16, 16, 2), 0);
        assert_eq!(threads(8, 16, 2), 4);
        assert_eq!(threads(8, 16, 1), 8);
        assert_eq!(threads(2, 16, 4), 1);
    }

    #[test]
    fn a_second_huge_scene_waits_and_the_first_never_does() {
        let need = guess(300 * MIB, false);
        assert!(room(true, 0, 0, need, 4 * GIB));
        assert!(!room(false, 3 * GIB, GIB, need, 4 * GIB));
        assert!(room(false, 8 * GIB, GIB, need, 16 * GIB));
    }

    #[test]
    fn a_process_wears_out() {
        assert!(!worn(1999, 0, 8 * GIB, 16 * GIB));
        assert!(worn(2000, 0, 8 * GIB, 16 * GIB));
        assert!(worn(1, 12 * GIB, 100 * MIB, 16 * GIB));
        assert!(!worn(1, 100 * MIB, 100 * MIB, 16 * GIB));
    }

    #[test]
    fn an_idle_worker_keeps_a_spare_while_its_memory_is_not_needed() {
        for (have, used, gib, kept) in [
            (false, false, 4, true),
            (true, false, 4, true),
            (false, true, 64, false),
            (true, true, 64, false),
            (false, false, 2, false),
            (true, false, 2, true),
            (true, false, 1, false),
        ] {
            assert_eq!(
                keeps_idle_spare(have, used, gib * GIB, 16 * GIB),
                kept,
                "there: {have}, used: {used}, {gib} GiB free"
            );
        }
    }

    #[test]
    fn a_spare_never_costs_a_short_job() {
        let facts = SpareNeed {
            have: false,
            steady: Duration::from_secs(9),
            busy: true,
            available: 8 * GIB,
            total: 16 * GIB,
        };
        assert!(!want_spare(facts));
        assert!(want_spare(SpareNeed { steady: Duration::from_secs(10), ..facts }));
        assert!(want_spare(SpareNeed { busy: false, ..facts }));
        assert!(!want_spare(SpareNeed { busy: false, have: true, ..facts }));
        assert!(!want_spare(SpareNeed { busy: false, available: GIB, ..facts }));
    }
}
