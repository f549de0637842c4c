//! Limits how often progress is reported.

use std::time::{Duration, Instant};

/// The time between two reports of progress.
const PAUSE: Duration = Duration::from_millis(250);

#[derive(Debug, Default)]
pub(crate) struct Throttle {
    reported: Option<Instant>,
}

impl Throttle {
    /// Returns whether to report a step: the first, the last, and those a while after the one before.
    pub fn is_due(&mut self, is_last: bool) -> bool {
        let is_due = is_last || self.reported.is_none_or(|reported| reported.elapsed() >= PAUSE);
        if is_due {
            self.reported = Some(Instant::now());
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_the_last_step_are_reported_whenever_they_come() {
        let mut throttle = Throttle::default();
        assert!(throttle.is_due(false));
        assert!(throttle.is_due(true));
        throttle.reported = Instant::now().checked_sub(PAUSE);
        assert!(throttle.is_due(false));
        throttle.reported = Some(Instant::now() + PAUSE);
        assert!(!throttle.is_due(false));
    }
}
