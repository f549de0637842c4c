//! The times of a step's frames and of opening their scene, and their change along the animation.

use std::collections::BTreeMap;

use kiln_types::TaskIndex;

use crate::tuning::estimate::{KNOWN_FRAMES, LATEST, PIECES};

/// The work of a step's frames, which is their time on a worker of speed 1; milliseconds.
#[derive(Debug, Clone, Default)]
pub(crate) struct FrameTimes {
    /// Smoothed.
    mean: f32,
    /// The distance of frames from the mean, smoothed.
    spread: f32,
    frames: u32,
    /// Only frames that opened their scene were measured.
    cold: bool,
    /// The time that opening the scene adds, smoothed.
    opening: Option<f32>,
    /// The mean of the first frames, which opened their scene.
    first: Option<f32>,
    /// The part of the expected time by which the longest of the last frames took longer.
    excess: f32,
    /// The latest frames, in a ring.
    latest: [f32; LATEST],
    curve: Curve,
    /// The recent errors of the mean and of the curve, as ratios above 1.
    off: Option<(f32, f32)>,
    /// The exponent by which the part of the time that is over gives the part that is reported done, smoothed.
    bend: Option<f32>,
}

impl FrameTimes {
    pub fn measured(&mut self, task: TaskIndex, work: f32, cold: bool) {
        if cold && self.frames > 0 && !self.cold {
            let opening = (work - self.at(task).unwrap_or(self.mean)).max(0.0);
            self.opening = Some(self.opening.map_or(opening, |known| known + (opening - known) / 4.0));
            return;
        }
        if self.cold && !cold {
            *self = Self { first: Some(self.mean), ..Self::default() };
        }
        self.cold = cold;
        self.spread =
            if self.frames == 0 { 0.0 } else { self.spread + ((work - self.mean).abs() - self.spread) / 8.0 };
        if let Some(expected) = self.at(task) {
            // Forgotten slowly: one late frame in many shows how late another may be.
            let excess = work / expected.max(1.0) - 1.0;
            self.excess = excess.clamp(self.excess * 0.98, 4.0);
        }
        if let Some(near) = self.curve.at(task) {
            let ratio = |guess: f32| (work / guess.max(1.0)).max(guess / work.max(1.0)).clamp(1.0, 10.0);
            let now = (ratio(self.mean), ratio(near));
            let (mean, curve) = self.off.unwrap_or(now);
            self.off = Some((mean + (now.0 - mean) / 16.0, curve + (now.1 - curve) / 16.0));
        }
        self.latest[self.frames as usize % LATEST] = work;
        self.mean = if self.frames == 0 { work } else { self.mean + (work - self.mean) / 8.0 };
        self.frames = self.frames.saturating_add(1);
        self.curve.measured(task, work);
    }

    /// The mean of the frames to come, in milliseconds at speed 1, and the part of it by which that may be off, at least a
    /// tenth.
    pub fn expected(&self) -> Option<(f32, f64)> {
        let mean = self.mean()?;
        if self.cold {
            return Some((mean, 1.0));
        }
        let spread = f64::from(self.spread.max(mean / 10.0) / mean.max(1.0));
        Some((
            mean,
            0.1 + 2.0 * spread / f64::from(self.frames.min(64)).sqrt() + 1.0 / f64::from(self.frames),
        ))
    }

    /// Learns from the part of a frame that was reported done when a part of its time was over; both above 0 and below 1.
    pub fn progressed(&mut self, done: f32, time: f32) {
        if 0.0 < time && time < 1.0 {
            let bend = (done.ln() / time.ln()).clamp(0.5, 5.0);
            self.bend = Some(self.bend.map_or(bend, |known| known + (bend - known) / 8.0));
        }
    }

    /// The part of a frame's time that is over when this part is reported done. With adaptive sampling, the first samples
    /// take most of the time.
    pub fn time_at(&self, done: f32) -> f32 {
        done.powf(1.0 / self.bend.unwrap_or(1.0))
    }

    /// The median of the latest frames, at speed 1, and the number of these.
    pub fn median(&self) -> Option<(f32, usize)> {
        let known = LATEST.min(self.frames as usize);
        let mut latest = self.latest;
        let latest = latest.get_mut(..known).filter(|latest| !latest.is_empty())?;
        latest.sort_unstable_by(f32::total_cmp);
        Some((latest[known / 2], known))
    }

    /// Milliseconds at speed 1.
    pub fn mean(&self) -> Option<f32> {
        (self.frames > 0).then_some(self.mean)
    }

    /// The time of this frame, by its neighbours if those have predicted better than the mean.
    pub fn at(&self, task: TaskIndex) -> Option<f32> {
        let by_curve = self.off.is_some_and(|(mean, curve)| curve < mean);
        let near = if by_curve { self.curve.at(task) } else { None };
        near.or_else(|| self.mean())
    }

    /// The time that opening the scene adds; the mean of the frames if it was not measured.
    pub fn opening(&self) -> Option<f32> {
        self.measured_opening().or_else(|| self.mean())
    }

    fn measured_opening(&self) -> Option<f32> {
        self.opening.or_else(|| Some((self.first? - self.mean).max(0.0)))
    }

    /// The time of opening the scene and of this part of the frame, if both are known.
    pub fn with_opening(&self, task: TaskIndex, part: f32) -> Option<f32> {
        let opening = self.measured_opening().filter(|_| self.is_known())?;
        Some(opening + self.at(task)? * part)
    }

    /// The time of the longest frames, as a multiple of the usual one.
    pub fn longest(&self) -> f32 {
        1.0 + self.excess
    }

    /// Milliseconds until the end of a frame that has run for `elapsed`, where `frame` is the usual time.
    pub fn left_ms(&self, frame: u64, elapsed: u64) -> u64 {
        if elapsed < frame {
            return frame - elapsed;
        }
        // It may be one of the longest frames. If it is later than those, as much again is expected.
        let longest = (frame as f32 * self.longest()) as u64;
        (longest.saturating_sub(elapsed) / 2).max(elapsed.saturating_sub(longest)).max(1)
    }

    /// Returns whether the work of frames is known well enough to learn a worker's speed from it.
    pub fn is_known(&self) -> bool {
        self.frames >= KNOWN_FRAMES && !self.cold
    }
}

/// The work along the animation, in at most [`PIECES`] pieces.
#[derive(Debug, Clone, Default)]
struct Curve {
    /// The binary logarithm of a piece's length in frames.
    shift: u32,
    /// The mean of the frames measured in each piece, and their number.
    pieces: BTreeMap<u32, (f32, u32)>,
}

impl Curve {
    fn measured(&mut self, task: TaskIndex, work: f32) {
        let (mean, frames) = self.pieces.entry(task.0 >> self.shift).or_insert((work, 0));
        *frames = frames.saturating_add(1);
        *mean += (work - *mean) / *frames as f32;
        if self.pieces.len() > PIECES {
            self.shift += 1;
            for (piece, (mean, frames)) in std::mem::take(&mut self.pieces) {
                let (merged, all) = self.pieces.entry(piece >> 1).or_insert((mean, 0));
                *all = all.saturating_add(frames);
                *merged += (mean - *merged) * frames as f32 / *all as f32;
            }
        }
    }

    /// The mean of the nearest pieces, two on each side, the nearer the weightier.
    fn at(&self, task: TaskIndex) -> Option<f32> {
        let here = task.0 >> self.shift;
        let near = self.pieces.range(..=here).rev().take(2).chain(self.pieces.range(here + 1..).take(2));
        let (sum, weights) = near.fold((0.0, 0.0), |(sum, weights), (piece, (mean, _))| {
            let weight = 1.0 / (1.0 + piece.abs_diff(here) as f32);
            (sum + mean * weight, weights + weight)
        });
        (weights > 0.0).then(|| sum / weights)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_part_done_is_learned() {
        let mut times = FrameTimes::default();
        assert!((times.time_at(0.25) - 0.25).abs() < 1e-6, "straight until something else is known");
        // A quarter is said to be done when half of the time is over.
        for _ in 0..4 {
            times.progressed(0.25, 0.5);
        }
        assert!((times.time_at(0.25) - 0.5).abs() < 1e-3);
        assert!((times.time_at(1.0) - 1.0).abs() < 1e-6);
        // A clock that went back, and a frame that ended before it was heard of.
        times.progressed(0.25, 1.5);
        times.progressed(0.25, 0.0);
        assert!((times.time_at(0.25) - 0.5).abs() < 1e-3);
    }
}
