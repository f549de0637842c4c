//! Bounds that no scheduler can beat, even one that knows every frame beforehand.

use super::{FarmSetup, Node};

/// A lower bound for the time of the farm's one job, with all slots present from the start; milliseconds. The bound is the
/// least time T at which each of these conditions holds:
/// - frames are whole: with k(slot) the number of the smallest frames that a slot can end in T after it has opened the
///   scene, the sum of k over all slots is at least the number of frames;
/// - work is conserved: the work of all slots in T after they have opened the scene is at least that of all frames,
///   where a slot that can end k frames does at most the work of the k longest;
/// - the longest frame ends in T on the fastest slot after that has opened the scene.
///
/// A slot that renders opens the scene at least once, so the bound has one opening a slot. Messages and uploads take no
/// time.
///
/// # Panics
/// If the farm does not have exactly one job.
pub fn lower_bound_ms(farm: &FarmSetup) -> u64 {
    let [shot] = &farm.shots[..] else { panic!("the bound is that of one job") };
    let mut frames = shot.work.clone();
    frames.sort_unstable();
    // The work of the smallest k frames, by k.
    let mut sums = vec![0u64];
    for work in &frames {
        sums.push(sums[sums.len() - 1] + work);
    }
    let (all, longest) = (sums[frames.len()], frames[frames.len() - 1]);
    let enough = |ms: u64| {
        let (mut count, mut work, mut fits) = (0, 0.0, false);
        for node in &farm.nodes {
            let done = (ms * node.speed) as f64 / 100.0 - shot.opening as f64;
            let slots = usize::from(node.offer.slots);
            let most = sums.partition_point(|sum| *sum as f64 <= done).saturating_sub(1);
            count += slots * most;
            work += slots as f64 * done.min((all - sums[frames.len() - most]) as f64);
            fits |= done >= longest as f64;
        }
        count >= frames.len() && work >= all as f64 && fits
    };
    let slowest = farm.nodes.iter().map(|node: &Node| node.speed).min().unwrap_or(1);
    let mut high = (all + shot.opening) * 100 / slowest + 1;
    let mut low = 0;
    while low < high {
        let middle = u64::midpoint(low, high);
        if enough(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::farm::Shot;

    fn bound(nodes: &[(u16, u64)], shot: Shot) -> u64 {
        let nodes = nodes.iter().map(|(slots, speed)| Node::new(*slots, *speed)).collect();
        lower_bound_ms(&FarmSetup { nodes, shots: vec![shot], ..FarmSetup::default() })
    }

    #[test]
    fn frames_are_whole() {
        // 2.5 frames a slot are three rounds.
        assert_eq!(bound(&[(4, 100)], Shot::even(1, 10, 1000)), 3000);
        // The slow slot ends one frame while the fast one ends ten.
        assert_eq!(bound(&[(1, 1000), (1, 100)], Shot::even(1, 11, 1000)), 1000);
        assert_eq!(bound(&[(1, 1000), (1, 100)], Shot::even(1, 10, 1000)), 1000);
        assert_eq!(bound(&[(1, 1000), (1, 100)], Shot::even(1, 9, 1000)), 900);
    }

    #[test]
    fn work_is_conserved_and_the_longest_frame_runs_on_the_fastest_slot() {
        assert_eq!(bound(&[(2, 100)], Shot::new(1, vec![1000, 2000, 3000])), 3000);
        assert_eq!(bound(&[(1, 200), (2, 100)], Shot::new(1, vec![8000, 100, 100])), 4000);
    }

    #[test]
    fn each_slot_opens_the_scene_once() {
        assert_eq!(bound(&[(1, 100)], Shot::even(1, 10, 1000).opening(500)), 10_500);
        assert_eq!(bound(&[(2, 200)], Shot::even(1, 10, 1000).opening(500)), 2750);
    }
}
