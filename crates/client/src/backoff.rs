//! Waits that grow with each failure, and differ between clients.

use std::time::Duration;

/// The waits between tries: the first, doubled with each failure up to the longest. Each is drawn from its upper half, so that
/// clients that lost the same server do not return at once.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// Counts a failure, and returns how long to wait before the next try.
    #[must_use]
    pub fn failed(&mut self) -> Duration {
        let wait = self.wait(rand::random::<f64>());
        self.failures = self.failures.saturating_add(1);
        wait
    }

    /// Starts again with the first wait.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Returns the next wait; `draw` is a random number from 0 to 1.
    fn wait(&self, draw: f64) -> Duration {
        let full = self.first.saturating_mul(2_u32.saturating_pow(self.failures)).min(self.longest);
        full.mul_f64(0.5 + draw / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_the_longest_and_starts_again() {
        let (first, longest) = (Duration::from_millis(200), Duration::from_secs(10));
        let after = |failures| Backoff { first, longest, failures };
        assert_eq!(after(0).wait(1.0), first);
        assert_eq!(after(1).wait(0.0), first);
        assert_eq!(after(2).wait(1.0), first * 4);
        assert_eq!(after(40).wait(1.0), longest);
        let mut backoff = Backoff::new(first, longest);
        for _ in 0..20 {
            let wait = backoff.failed();
            assert!(wait >= first / 2 && wait <= longest);
        }
        backoff.succeeded();
        assert!(backoff.failed() <= first);
    }
}
