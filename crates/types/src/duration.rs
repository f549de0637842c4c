//! Texts for measured and estimated times. Durations that people set are [`crate::TimeSpan`].

/// Returns a time to the second: `0:07`, `12:30`, `3:05:00`.
pub fn clock(seconds: f64) -> String {
    let whole = if seconds.is_finite() && seconds > 0.0 { seconds.round() as u64 } else { 0 };
    let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// Returns a time that was measured, to about three digits: `0.35 s`, `12.4 s`, `3:05 min`, `3:05:00 h`.
pub fn measured(seconds: f64) -> String {
    match seconds {
        v if v < 10.0 => format!("{v:.2} s"),
        v if v < 120.0 => format!("{v:.1} s"),
        v if v < 3599.5 => format!("{} min", clock(v)),
        v => format!("{} h", clock(v)),
    }
}

/// Returns a time in one unit, in few characters: `40 s`, `5 min`, `3.2 h`, `12 d`.
pub fn rough(seconds: f64) -> String {
    let unit = Unit::of(seconds);
    format!("{} {}", unit.number(seconds), unit.name)
}

/// Returns a range of times in the same form: `4–9 min`; `5 min` if both ends are the same.
pub fn rough_range(soonest_s: f64, latest_s: f64) -> String {
    let unit = Unit::of(latest_s);
    let (low, high) = (unit.number(soonest_s), unit.number(latest_s));
    if low == high { format!("{high} {}", unit.name) } else { format!("{low}–{high} {}", unit.name) }
}

/// Returns a time in the largest unit that is full at least once: `1 day`, `3 hours`, `0 seconds`.
pub fn in_words(seconds: f64) -> String {
    let units = [("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1)];
    // Saturates; NaN becomes 0.
    let whole = seconds as u64;
    let (unit, size) = units.into_iter().find(|(_, size)| whole >= *size).unwrap_or(("second", 1));
    let count = whole / size;
    crate::count(count, unit)
}

struct Unit {
    name: &'static str,
    seconds: f64,
    /// Smaller numbers have a digit behind the point.
    tenths: f64,
}

impl Unit {
    fn of(seconds: f64) -> Self {
        const UNITS: [Unit; 4] = [
            Unit { name: "s", seconds: 1.0, tenths: 0.0 },
            Unit { name: "min", seconds: 60.0, tenths: 0.0 },
            Unit { name: "h", seconds: 3600.0, tenths: 10.0 },
            Unit { name: "d", seconds: 86_400.0, tenths: 10.0 },
        ];
        let [s, min, h, d] = UNITS;
        match seconds {
            v if v < 99.5 => s,
            v if v < 99.5 * 60.0 => min,
            v if v < 47.5 * 3600.0 => h,
            _ => d,
        }
    }

    fn number(&self, seconds: f64) -> String {
        let value = if seconds.is_finite() { (seconds / self.seconds).clamp(0.0, 9999.0) } else { 0.0 };
        if value < self.tenths { format!("{value:.1}") } else { format!("{value:.0}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measured_times_name_the_unit_that_they_are_in() {
        assert_eq!([7.4, 750.0, 11_100.0, f64::NAN].map(clock), ["0:07", "12:30", "3:05:00", "0:00"]);
        assert_eq!(
            [0.351, 12.44, 185.0, 3599.4, 11_100.0].map(measured),
            ["0.35 s", "12.4 s", "3:05 min", "59:59 min", "3:05:00 h"]
        );
    }

    #[test]
    fn times_in_words_are_of_one_unit() {
        assert_eq!(
            [8.0 * 86_400.0, 90_000.0, 7_200.0, 61.0, 1.9, -5.0].map(in_words),
            ["8 days", "1 day", "2 hours", "1 minute", "1 second", "0 seconds"]
        );
    }

    #[test]
    fn rough_times_are_short() {
        assert_eq!(
            [0.2, 40.4, 99.6, 600.0, 12_000.0, 1e6].map(rough),
            ["0 s", "40 s", "2 min", "10 min", "3.3 h", "12 d"]
        );
        assert_eq!(rough_range(240.0, 540.0), "4–9 min");
        assert_eq!(rough_range(41.0, 41.2), "41 s");
        assert_eq!(rough_range(3600.0, 10_800.0), "1.0–3.0 h");
        assert_eq!(rough_range(f64::NAN, f64::INFINITY), "0.0 d");
    }
}
