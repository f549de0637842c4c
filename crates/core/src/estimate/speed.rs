//! The speed of a worker.

use crate::tuning::estimate::{SPEED_STEP, SPEEDS, TRUSTED_FRAMES};

/// Work that a worker does in the time in which a middling worker does 1, as its frames tell.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Speed {
    speed: f32,
    /// Frames by which it is known.
    frames: u32,
    /// A frame of the worker was measured, so that the speed means something.
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

    /// Returns whether the speed says more than what one of the worker's slots has measured.
    pub fn is_trusted(self) -> bool {
        self.frames >= TRUSTED_FRAMES
    }

    pub fn is_measured(self) -> bool {
        self.is_measured
    }

    /// A frame of the worker, which opened its scene or found it open, was measured.
    pub fn note_frame(&mut self, cold: bool) {
        self.is_measured |= !cold;
    }

    /// Guesses the speed of a worker of which no frame is known: it took so long for so much work. Returns whether it
    /// was taken.
    pub fn guess(&mut self, work: f32, ms: u64) -> bool {
        if self.frames == 0 {
            self.speed = (work / ms.max(1) as f32).clamp(*SPEEDS.start(), *SPEEDS.end());
        }
        self.frames == 0
    }

    /// Learns from a frame that took `ms` where a middling worker takes `expected`.
    pub fn learn(&mut self, expected: f32, ms: f32) {
        // Smoothed as a ratio: twice as fast and half as fast are equally far.
        let ratio = (expected / ms / self.speed).clamp(0.05, 20.0);
        self.frames = self.frames.saturating_add(1);
        let part = (1.0 / self.frames as f32).max(SPEED_STEP);
        self.speed = (self.speed * ratio.powf(part)).clamp(*SPEEDS.start(), *SPEEDS.end());
    }
}
