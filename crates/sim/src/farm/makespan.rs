//! The end of a job against the earliest that there could be, on mixed farms.

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{FarmSetup, Naive, Node, Shot, lower_bound_ms, naive_ms};

/// A distribution of the times of a job's frames on one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frames {
    /// All the same.
    Even,
    /// Within a fifth of the middle, each for itself.
    Uneven,
    /// From half the middle to its double, slowly up and down along the animation, each a twentieth beside.
    Drifting,
    /// From half the middle to its double, each for itself: nothing tells how long the next one takes.
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

    /// Milliseconds of each of so many frames.
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

/// A farm of so many workers, of 1 to 4 slots each, the fastest ten times as fast as the slowest, with one job of so
/// many frames a slot. Opening the scene takes as long as half a frame.
pub fn mixed_farm(workers: u32, frames: Frames, a_slot: u32, seed: u64) -> FarmSetup {
    let mut rng = StdRng::seed_from_u64(seed);
    let node = |_| Node::new(rng.random_range(1..=4), rng.random_range(100..=1000));
    let nodes: Vec<Node> = (0..workers).map(node).collect();
    let slots: u32 = nodes.iter().map(|node| u32::from(node.offer.slots)).sum();
    let middle = rng.random_range(20_000..=600_000);
    let work = frames.draw(slots * a_slot, middle, &mut rng);
    FarmSetup { nodes, shots: vec![Shot::new(1, work).opening(middle / 2)], ..FarmSetup::default() }
}

/// The result on one farm. Milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Race {
    pub bound: u64,
    pub kiln: u64,
    /// One frame at a time, first come first served.
    pub warm: u64,
    /// The same, with Blender started again for each frame.
    pub cold: u64,
    pub wasted_percent: u64,
}

impl Race {
    /// # Panics
    /// Where the job does not complete, or beats the bound.
    pub fn run(farm: &FarmSetup) -> Self {
        let bound = lower_bound_ms(farm);
        let story = farm.live();
        assert!(story.completed(), "the job did not complete");
        let kiln = story.took_ms();
        assert!(kiln >= bound, "nothing beats the bound: {kiln} ms against {bound} ms");
        let wasted_percent = story.wasted_percent();
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
    use crate::farm::Told;

    /// Over the bound, on farms of so many workers with 20 frames a slot: the mean and the worst, in percent.
    fn over(frames: Frames, workers: u32, told: Told) -> (f64, f64) {
        let races: Vec<Race> =
            (1..=4).map(|seed| Race::run(&mixed_farm(workers, frames, 20, seed).told(told))).collect();
        let over = |race: &Race| 100.0 * (race.kiln as f64 / race.bound as f64 - 1.0);
        let worst = races.iter().map(over).fold(0.0, f64::max);
        (races.iter().map(over).sum::<f64>() / races.len() as f64, worst)
    }

    #[test]
    fn frames_that_take_about_the_same_end_within_a_twentieth_of_the_bound() {
        for (frames, workers) in
            [(Frames::Even, 1), (Frames::Even, 40), (Frames::Uneven, 4), (Frames::Uneven, 40)]
        {
            let (_, worst) = over(frames, workers, Told::Samples);
            assert!(worst <= 5.0, "{} on {workers} workers: {worst:.1} %", frames.name());
        }
    }

    #[test]
    fn frames_that_drift_end_within_a_twentieth_of_the_bound_on_average() {
        let (mean, worst) = over(Frames::Drifting, 20, Told::Samples);
        assert!(mean <= 5.0 && worst <= 6.0, "{mean:.1} %, {worst:.1} % at worst");
    }

    /// The speeds of most workers are not known yet when the last frame is begun again.
    #[test]
    fn a_frame_is_not_begun_again_for_ever() {
        let race = Race::run(&mixed_farm(100, Frames::Uneven, 5, 10));
        assert!(race.kiln < 2 * race.bound, "{race:?}");
    }

    /// Of a worker that has had one frame, and opened the scene for it, little is known: but not nothing.
    #[test]
    fn a_small_job_on_a_large_farm_ends_before_first_come_first_served() {
        let races: Vec<Race> =
            (1..=4).map(|seed| Race::run(&mixed_farm(50, Frames::Uneven, 2, seed))).collect();
        let sum = |of: fn(&Race) -> f64| races.iter().map(of).sum::<f64>();
        let (kiln, warm) = (
            sum(|race| race.kiln as f64 / race.bound as f64),
            sum(|race| race.warm as f64 / race.bound as f64),
        );
        assert!(kiln < 0.75 * warm, "{races:?}");
    }

    /// An attempt that was all but done was ended for one that was guessed to be sooner, and that one again.
    #[test]
    fn what_is_all_but_done_is_not_ended_for_a_guess() {
        let race = Race::run(&mixed_farm(200, Frames::Uneven, 2, 10));
        assert!(race.kiln < race.warm / 2, "{race:?}");
    }

    #[test]
    fn progress_that_is_no_measure_of_time_is_learned_to_read() {
        let (mean, worst) = over(Frames::Drifting, 50, Told::Adaptive);
        assert!(mean <= 5.0 && worst <= 6.5, "{mean:.1} %, {worst:.1} % at worst");
    }
}
