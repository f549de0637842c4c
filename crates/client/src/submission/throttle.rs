//! Progress that is reported often enough to move a bar.

use std::time::{Duration, Instant};

/// The time between two reports of progress.
const PAUSE: Duration = Duration::from_millis(250);

#[derive(Debug, Default)]
pub(crate) struct Throttle {
    told: Option<Instant>,
}

impl Throttle {
    /// Returns whether the step is to be told: the first, the last, and those a while after the one before.
    pub fn is_due(&mut self, is_last: bool) -> bool {
        let is_due = is_last || self.told.is_none_or(|told| told.elapsed() >= PAUSE);
        if is_due {
            self.told = Some(Instant::now());
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_the_last_step_are_told_whenever_they_come() {
        let mut throttle = Throttle::default();
        assert!(throttle.is_due(false));
        assert!(throttle.is_due(true));
        throttle.told = Instant::now().checked_sub(PAUSE);
        assert!(throttle.is_due(false));
        throttle.told = Some(Instant::now() + PAUSE);
        assert!(!throttle.is_due(false));
    }
}
