//! Waiting longer after each failure, and never all at the same moment.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(10);

/// 0.2 s, doubled with each failure up to 10 s; each drawn from the upper half, so that the workers of a farm do
/// not come back in step.
#[derive(Debug, Clone, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    pub(crate) fn failed(&mut self) -> Duration {
        let wait = Self::wait(self.failures, rand::random::<f64>());
        self.failures = self.failures.saturating_add(1);
        wait
    }

    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// `draw` lies in 0 to 1.
    fn wait(failures: u32, draw: f64) -> Duration {
        let full = FIRST.saturating_mul(2_u32.saturating_pow(failures)).min(LONGEST);
        full.mul_f64(0.5 + draw / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_ten_seconds_and_starts_again() {
        assert_eq!(Backoff::wait(0, 1.0), Duration::from_millis(200));
        assert_eq!(Backoff::wait(1, 0.0), Duration::from_millis(200));
        assert_eq!(Backoff::wait(40, 1.0), LONGEST);
        let mut backoff = Backoff::default();
        for _ in 0..20 {
            let wait = backoff.failed();
            assert!(wait >= FIRST / 2 && wait <= LONGEST);
        }
        backoff.succeeded();
        assert!(backoff.failed() <= FIRST);
    }
}
