//! The rate at which the farm finishes frames.

use std::collections::VecDeque;

/// Milliseconds that are counted together.
const BUCKET: i64 = 5_000;
/// Milliseconds that are kept.
pub const SPAN: i64 = 300_000;
/// Milliseconds over which the rate is taken.
const WINDOW: i64 = 60_000;
/// Milliseconds below which a rate means nothing.
const LEAST: i64 = 5_000;

/// Frames of the last minutes. All times are Unix milliseconds of this machine.
pub struct Rate {
    /// The start of the count.
    since: i64,
    /// Number of a bucket and its frames, the oldest first.
    buckets: VecDeque<(i64, u32)>,
    /// The least difference between this machine's clock and the time of an event on its arrival: the difference of the clocks
    /// and the shortest delay.
    ahead: Option<i64>,
}

impl Rate {
    pub fn new(since: i64) -> Self {
        Self { since, buckets: VecDeque::new(), ahead: None }
    }

    /// Adds frames that were done earlier: everything between `since` and now.
    pub fn read_history(&mut self, since: i64, done: impl IntoIterator<Item = i64>) {
        self.since = self.since.min(since);
        for at in done {
            self.add(at);
        }
    }

    /// Adds a frame that was done `at` by the server's clock, and was reported `now`.
    pub fn add_frame(&mut self, at: i64, now: i64) {
        let ahead = now - at;
        let ahead = *self.ahead.insert(self.ahead.map_or(ahead, |least| least.min(ahead)));
        self.add(at + ahead);
        self.forget(now);
    }

    /// Returns the frames per minute over the last minute, or since the start of the count; `None` at its beginning.
    pub fn per_minute(&self, now: i64) -> Option<f64> {
        let start = (bucket(now - WINDOW) * BUCKET).max(self.since);
        let counted = now - start;
        if counted < LEAST {
            return None;
        }
        let frames: u32 =
            self.buckets.iter().filter(|(at, _)| *at >= bucket(start)).map(|(_, count)| count).sum();
        Some(f64::from(frames) * 60_000.0 / counted as f64)
    }

    /// Returns the frames of the last `bars` intervals of equal length, the oldest first; `None` before the count.
    pub fn history(&self, now: i64, bars: u16) -> Vec<Option<u32>> {
        let bars = i64::from(bars.max(1));
        let each = (SPAN / BUCKET / bars).max(1);
        let last = bucket(now);
        let stretch = |bar: i64| {
            let end = last - (bars - 1 - bar) * each;
            let of_it = self.buckets.iter().filter(|(at, _)| (end - each + 1..=end).contains(at));
            (end >= bucket(self.since)).then(|| of_it.map(|(_, count)| count).sum())
        };
        (0..bars).map(stretch).collect()
    }

    fn add(&mut self, at: i64) {
        let at = bucket(at);
        match self.buckets.iter_mut().rev().find(|(known, _)| *known <= at) {
            Some((known, count)) if *known == at => *count = count.saturating_add(1),
            _ => {
                let place = self.buckets.partition_point(|(known, _)| *known < at);
                self.buckets.insert(place, (at, 1));
            }
        }
    }

    fn forget(&mut self, now: i64) {
        while self.buckets.front().is_some_and(|(at, _)| *at < bucket(now - SPAN)) {
            self.buckets.pop_front();
        }
    }
}

fn bucket(at: i64) -> i64 {
    at.div_euclid(BUCKET)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_farm_has_a_steady_rate() {
        let mut rate = Rate::new(0);
        assert_eq!(rate.per_minute(4_000), None, "too early to tell");
        for at in (500..=600_000).step_by(500) {
            rate.add_frame(at, at);
        }
        let found = rate.per_minute(600_000).unwrap();
        assert!((119.0..=121.0).contains(&found), "{found}");
        assert_eq!(rate.history(600_000, 4)[1..3], [Some(150), Some(150)]);
        assert!(rate.buckets.len() <= 61, "what is old is forgotten");
    }

    #[test]
    fn a_rate_falls_when_nothing_comes_any_more() {
        let mut rate = Rate::new(0);
        rate.add_frame(10_000, 10_000);
        assert!(rate.per_minute(20_000).unwrap() > rate.per_minute(60_000).unwrap());
        assert_eq!(rate.per_minute(200_000), Some(0.0));
    }

    #[test]
    fn another_clock_at_the_server_changes_nothing() {
        let mut rate = Rate::new(1_000_000);
        for at in (1_000_000..1_060_000).step_by(1_000) {
            rate.add_frame(at - 86_400_000, at + 20);
        }
        let found = rate.per_minute(1_060_000).unwrap();
        assert!((58.0..=62.0).contains(&found), "{found}");
    }

    #[test]
    fn what_nobody_counted_is_not_nothing() {
        let mut rate = Rate::new(290_000);
        assert_eq!(rate.history(300_000, 5), [None, None, None, None, Some(0)]);
        rate.read_history(0, [10_000, 250_000]);
        assert_eq!(rate.history(299_999, 5), [Some(1), Some(0), Some(0), Some(0), Some(1)]);
    }
}
