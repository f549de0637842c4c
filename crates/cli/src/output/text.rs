//! Numbers and paths as people read them.

use std::path::Path;

use super::one_line;

/// A path in JSON. What is no Unicode is replaced: JSON cannot hold it.
pub fn shown(path: Option<&Path>) -> Option<String> {
    path.map(|path| path.display().to_string())
}

/// A path in a sentence: no control character of its name reaches the terminal.
pub fn path(path: &Path) -> String {
    one_line(&path.display().to_string())
}

/// `0:07`, `12:30`, `3:05:00`.
pub fn clock(seconds: f64) -> String {
    let whole = if seconds.is_finite() && seconds > 0.0 { seconds.round() as u64 } else { 0 };
    let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// `0.35 s`, `12.4 s`, `3:05 min`.
pub fn seconds(value: f64) -> String {
    match value {
        v if v < 10.0 => format!("{v:.2} s"),
        v if v < 120.0 => format!("{v:.1} s"),
        v => format!("{} min", clock(v)),
    }
}

/// A task in a sentence: `frame 12`; without a frame it is `the bake`.
pub fn task(frame: Option<i32>) -> String {
    frame.map_or_else(|| "the bake".to_owned(), |frame| format!("frame {frame}"))
}

/// `1 frame`, `2 frames`.
pub fn count(number: impl Into<u64>, what: &str) -> String {
    let number = number.into();
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// Local date and minute of Unix milliseconds.
pub fn moment(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(
        |_| "?".to_owned(),
        |at| at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(clock(7.4), "0:07");
        assert_eq!(clock(11_100.0), "3:05:00");
        assert_eq!(clock(f64::NAN), "0:00");
        assert_eq!(seconds(0.351), "0.35 s");
        assert_eq!(count(1u32, "frame"), "1 frame");
    }
}
