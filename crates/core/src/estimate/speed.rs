//! The speed of a worker.

use crate::tuning::estimate::{SPEED_STEP, SPEEDS, TRUSTED_FRAMES};

/// The speed of a worker relative to an average one, learned from its frames.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Speed {
    speed: f32,
    /// The number of frames that it was learned from.
    frames: u32,
    /// A frame of the worker with its scene open was measured.
    is_measured: bool,
}

impl Default for Speed {
    fn default() -> Self {
        Self { speed: 1.0, frames: 0, is_measured: false }
    }
}

impl Speed {
    pub fn get(self) -> f32 {
        self.speed
    }

    /// Milliseconds that this work takes the worker.
    pub fn ms(self, work: f32) -> u64 {
        (work / self.speed) as u64
    }

    /// Returns whether the speed is known better than the frame time of one of the worker's slots.
    pub fn is_trusted(self) -> bool {
        self.frames >= TRUSTED_FRAMES
    }

    pub fn is_measured(self) -> bool {
        self.is_measured
    }

    /// Notes a measured frame. `cold`: it opened its scene.
    pub fn note_frame(&mut self, cold: bool) {
        self.is_measured |= !cold;
    }

    /// Guesses the speed of a worker of which no frame is known, by the time of some work. Returns whether the guess was
    /// taken.
    pub fn guess(&mut self, work: f32, ms: u64) -> bool {
        if self.frames == 0 {
            self.speed = (work / ms.max(1) as f32).clamp(*SPEEDS.start(), *SPEEDS.end());
        }
        self.frames == 0
    }

    /// Learns from a frame that took `ms` where an average worker takes `expected`.
    pub fn learn(&mut self, expected: f32, ms: f32) {
        // Smoothed as a ratio: twice as fast and half as fast are equally far.
        let ratio = (expected / ms / self.speed).clamp(0.05, 20.0);
        self.frames = self.frames.saturating_add(1);
        let part = (1.0 / self.frames as f32).max(SPEED_STEP);
        self.speed = (self.speed * ratio.powf(part)).clamp(*SPEEDS.start(), *SPEEDS.end());
    }
}
