//! Spans of time and shares, in a few characters.

use kiln_api::TimeLeft;

/// `40 s`, `5 min`, `3.2 h`, `12 d`.
pub fn span(seconds: f64) -> String {
    let unit = Unit::of(seconds);
    format!("{} {}", unit.number(seconds), unit.name)
}

/// `4–9 min`; `5 min` where both ends are the same.
pub fn range(left: TimeLeft) -> String {
    let unit = Unit::of(left.latest_s);
    let (low, high) = (unit.number(left.soonest_s), unit.number(left.latest_s));
    if low == high { format!("{high} {}", unit.name) } else { format!("{low}–{high} {}", unit.name) }
}

/// `63%`, and never 100 before the end.
pub fn percent(part: f64) -> String {
    /// What a part loses in 32 bits.
    const ROUNDING: f64 = 1e-4;
    let part = if part.is_finite() { part.clamp(0.0, 1.0) } else { 0.0 };
    format!("{:.0}%", (part * 100.0 + ROUNDING).floor())
}

/// How long ago: `now`, `12 s`, `5 min`.
pub fn ago(then_ms: i64, now_ms: i64) -> String {
    let seconds = now_ms.saturating_sub(then_ms) as f64 / 1000.0;
    if seconds < 5.0 { "now".to_owned() } else { span(seconds) }
}

struct Unit {
    name: &'static str,
    seconds: f64,
    /// Below so many of them a tenth is said too.
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
    fn times_are_short() {
        assert_eq!(
            [0.2, 40.4, 99.6, 600.0, 12_000.0, 1e6].map(span),
            ["0 s", "40 s", "2 min", "10 min", "3.3 h", "12 d"]
        );
        let left = |soonest_s, latest_s| range(TimeLeft { soonest_s, likely_s: latest_s, latest_s });
        assert_eq!(left(240.0, 540.0), "4–9 min");
        assert_eq!(left(41.0, 41.2), "41 s");
        assert_eq!(left(3600.0, 10_800.0), "1.0–3.0 h");
        assert_eq!(left(f64::NAN, f64::INFINITY), "0.0 d");
        assert_eq!(ago(0, 4_000), "now");
        assert_eq!(ago(5_000, 0), "now", "a clock that is ahead");
        assert_eq!(ago(0, 60_000), "60 s");
    }

    #[test]
    fn what_has_not_ended_is_not_whole() {
        assert_eq!(
            [0.0, 0.119, 0.9999, 1.0, 7.0, -1.0, f64::NAN].map(percent),
            ["0%", "11%", "99%", "100%", "100%", "0%", "0%"]
        );
    }
}
