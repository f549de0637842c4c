//! The two clocks: a monotonic one for decisions, and wall-clock time for what people see.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kiln_core::Moment;
use kiln_types::duration::in_words;

/// The monotonic clock of this server, 0 at its start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { start: Instant::now() }
    }

    pub(crate) fn now(&self) -> Moment {
        Moment(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    #[cfg(test)]
    pub(crate) fn advance(&mut self, ms: u64) {
        self.start = self.start.checked_sub(Duration::from_millis(ms)).unwrap();
    }

    /// Converts a moment to wall-clock time; Unix milliseconds.
    pub(crate) fn unix_ms(&self, moment: Moment) -> i64 {
        let now = self.now();
        let until = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        unix_ms().saturating_add(until(moment.since(now))).saturating_sub(until(now.since(moment)))
    }

    pub(crate) fn instant(&self, moment: Moment) -> Instant {
        // Rounded up: woken a millisecond early, the scheduler would spin until the moment comes.
        self.start + Duration::from_millis(moment.0.saturating_add(1))
    }
}

/// Returns the time since a moment in Unix milliseconds, in words.
pub(crate) fn ago(at_ms: i64) -> String {
    format!("{} ago", in_words(unix_ms().saturating_sub(at_ms) as f64 / 1000.0))
}

/// Unix milliseconds.
pub(crate) fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
