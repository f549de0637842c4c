//! The scheduler that every farm has on its first day.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

use super::{FarmSetup, LATENCY_MS, UPLOAD_MS};

/// One frame at a time, first come first served: a free slot asks, gets the next frame, renders and delivers it, and
/// asks again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naive {
    /// It keeps the scene open between two frames.
    Warm,
    /// It starts Blender again for each frame.
    Cold,
}

/// Milliseconds until the farm's one job is delivered.
pub fn naive_ms(farm: &FarmSetup, naive: Naive) -> u64 {
    let shot = &farm.shots[0];
    let mut frames: VecDeque<u64> = shot.work.iter().copied().collect();
    // When each slot asks next, whose it is, and whether it has the scene open.
    let mut free = BinaryHeap::new();
    for (index, node) in farm.nodes.iter().enumerate() {
        (0..node.offer.slots).for_each(|slot| free.push(Reverse((0, index, slot, false))));
    }
    let mut last = 0;
    while let Some(Reverse((at, index, slot, open))) = free.pop() {
        let Some(work) = frames.pop_front() else { break };
        let opening = if open && naive == Naive::Warm { 0 } else { shot.opening };
        let delivered = at + 2 * LATENCY_MS + farm.nodes[index].ms(work + opening) + UPLOAD_MS + LATENCY_MS;
        last = last.max(delivered);
        free.push(Reverse((delivered, index, slot, true)));
    }
    last
}
