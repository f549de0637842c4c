//! Ages and percentages, in a few characters.

use kiln_types::duration::rough;

/// Returns a percentage, such as `63%`, that is never 100 before the end.
pub fn percent(part: f64) -> String {
    /// The rounding error of a part in 32 bits.
    const ROUNDING: f64 = 1e-4;
    let part = if part.is_finite() { part.clamp(0.0, 1.0) } else { 0.0 };
    format!("{:.0}%", (part * 100.0 + ROUNDING).floor())
}

/// Returns the time since then: `now`, `12 s`, `5 min`.
pub fn ago(then_ms: i64, now_ms: i64) -> String {
    let seconds = now_ms.saturating_sub(then_ms) as f64 / 1000.0;
    if seconds < 5.0 { "now".to_owned() } else { rough(seconds) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short() {
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
