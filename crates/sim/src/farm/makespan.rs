//! The makespan of a job on mixed farms, compared with the lower bound and with naive schedulers.

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{FarmSetup, Naive, Node, Shot, lower_bound_ms, naive_ms};

/// The distribution of a job's frame times on one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frames {
    Even,
    /// Independent times within a fifth of the middle.
    Uneven,
    /// From half the middle to its double, slowly up and down along the animation, with a twentieth of noise.
    Drifting,
    /// Independent times from half the middle to its double.
    Scattered,
}

impl Frames {
    pub const ALL: [Self; 4] = [Self::Even, Self::Uneven, Self::Drifting, Self::Scattered];

    pub fn name(self) -> &'static str {
        match self {
            Self::Even => "even",
            Self::Uneven => "uneven (0.8 to 1.2)",
            Self::Drifting => "drifting (0.5 to 2)",
            Self::Scattered => "scattered (0.5 to 2)",
        }
    }

    /// Draws the milliseconds of each frame.
    fn draw(self, count: u32, middle: u64, rng: &mut StdRng) -> Vec<u64> {
        // Half of the frames are quicker than the middle, half are slower, by as much on a scale of ratios.
        let spread = |at: u64| if at < 1000 { middle * (500 + at / 2) / 1000 } else { middle * at / 1000 };
        let waves = rng.random_range(1..=4u64);
        let mut draw = |index: u64| match self {
            Self::Even => middle,
            Self::Uneven => middle * rng.random_range(800..=1200) / 1000,
            Self::Drifting => {
                // A triangle between 0 and 2000.
                let phase = index * waves * 4000 / u64::from(count) % 4000;
                let at = if phase < 2000 { phase } else { 4000 - phase };
                spread(at) * rng.random_range(950..=1050) / 1000
            }
            Self::Scattered => spread(rng.random_range(0..=2000)),
        };
        (0..u64::from(count)).map(&mut draw).collect()
    }
}

/// Draws a farm of workers with 1 to 4 slots each and speeds from 1 to 10, with one job of `a_slot` frames for each slot.
/// Opening the scene takes as long as half a frame.
pub fn mixed_farm(workers: u32, frames: Frames, a_slot: u32, seed: u64) -> FarmSetup {
    let mut rng = StdRng::seed_from_u64(seed);
    let node = |_| Node::new(rng.random_range(1..=4), rng.random_range(100..=1000));
    let nodes: Vec<Node> = (0..workers).map(node).collect();
    let slots: u32 = nodes.iter().map(|node| u32::from(node.offer.slots)).sum();
    let middle = rng.random_range(20_000..=600_000);
    let work = frames.draw(slots * a_slot, middle, &mut rng);
    FarmSetup { nodes, shots: vec![Shot::new(1, work).opening(middle / 2)], ..FarmSetup::default() }
}

/// The makespans of one farm's job; milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Makespans {
    pub bound: u64,
    pub kiln: u64,
    /// The makespan with [`Naive::Warm`].
    pub warm: u64,
    /// The makespan with [`Naive::Cold`].
    pub cold: u64,
    pub wasted_percent: u64,
}

impl Makespans {
    /// # Panics
    /// If the job does not complete, or beats the bound.
    pub fn measure(farm: &FarmSetup) -> Self {
        let bound = lower_bound_ms(farm);
        let timeline = farm.run();
        assert!(timeline.completed(), "the job did not complete");
        let kiln = timeline.took_ms();
        assert!(kiln >= bound, "nothing beats the bound: {kiln} ms against {bound} ms");
        let wasted_percent = timeline.wasted_percent();
        Self {
            bound,
            kiln,
            warm: naive_ms(farm, Naive::Warm),
            cold: naive_ms(farm, Naive::Cold),
            wasted_percent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::farm::ProgressKind;

    /// The mean and the worst time over the bound, in percent, on farms with 20 frames a slot.
    fn over(frames: Frames, workers: u32, progress: ProgressKind) -> (f64, f64) {
        let all: Vec<Makespans> = (1..=4)
            .map(|seed| Makespans::measure(&mixed_farm(workers, frames, 20, seed).with_progress(progress)))
            .collect();
        let over = |times: &Makespans| 100.0 * (times.kiln as f64 / times.bound as f64 - 1.0);
        let worst = all.iter().map(over).fold(0.0, f64::max);
        (all.iter().map(over).sum::<f64>() / all.len() as f64, worst)
    }

    #[test]
    fn frames_that_take_about_the_same_end_within_a_twentieth_of_the_bound() {
        for (frames, workers) in
            [(Frames::Even, 1), (Frames::Even, 40), (Frames::Uneven, 4), (Frames::Uneven, 40)]
        {
            let (_, worst) = over(frames, workers, ProgressKind::Samples);
            assert!(worst <= 5.0, "{} on {workers} workers: {worst:.1} %", frames.name());
        }
    }

    #[test]
    fn frames_that_drift_end_within_a_twentieth_of_the_bound_on_average() {
        let (mean, worst) = over(Frames::Drifting, 20, ProgressKind::Samples);
        assert!(mean <= 5.0 && worst <= 6.0, "{mean:.1} %, {worst:.1} % at worst");
    }

    /// The speeds of most workers are not known yet when the last frame is begun again.
    #[test]
    fn a_frame_is_not_begun_again_without_end() {
        let times = Makespans::measure(&mixed_farm(100, Frames::Uneven, 5, 10));
        assert!(times.kiln < 2 * times.bound, "{times:?}");
    }

    /// Little is known of a worker that has had one frame and opened the scene for it, but not nothing.
    #[test]
    fn a_small_job_on_a_large_farm_ends_before_first_come_first_served() {
        let all: Vec<Makespans> =
            (1..=4).map(|seed| Makespans::measure(&mixed_farm(50, Frames::Uneven, 2, seed))).collect();
        let sum = |of: fn(&Makespans) -> f64| all.iter().map(of).sum::<f64>();
        let (kiln, warm) = (
            sum(|times| times.kiln as f64 / times.bound as f64),
            sum(|times| times.warm as f64 / times.bound as f64),
        );
        assert!(kiln < 0.75 * warm, "{all:?}");
    }

    /// An attempt that was nearly done was once replaced by one that was guessed to be sooner, and that one again.
    #[test]
    fn an_attempt_that_is_nearly_done_is_not_replaced_by_a_guess() {
        let times = Makespans::measure(&mixed_farm(200, Frames::Uneven, 2, 10));
        assert!(times.kiln < times.warm / 2, "{times:?}");
    }

    #[test]
    fn the_meaning_of_adaptive_progress_is_learned() {
        let (mean, worst) = over(Frames::Drifting, 50, ProgressKind::Adaptive);
        assert!(mean <= 5.0 && worst <= 6.5, "{mean:.1} %, {worst:.1} % at worst");
    }
}
