//! Naive schedulers, to compare with.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

use super::{FarmSetup, LATENCY_MS, UPLOAD_MS};

/// A scheduler that serves one frame at a time, first come first served: a vacant slot asks, gets the next frame, renders
/// and delivers it, and asks again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naive {
    /// A slot keeps the scene open between two frames.
    Warm,
    /// A slot starts Blender again for each frame.
    Cold,
}

/// Milliseconds until the farm's one job is delivered.
pub fn naive_ms(farm: &FarmSetup, naive: Naive) -> u64 {
    let shot = &farm.shots[0];
    let mut frames: VecDeque<u64> = shot.work.iter().copied().collect();
    // The time of each slot's next request, its node and place, and whether it has the scene open.
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
