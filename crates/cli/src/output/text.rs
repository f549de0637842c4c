//! Numbers and paths as people read them.

use std::path::Path;

pub use kiln_types::duration::{clock, measured};

use super::one_line;

/// A path in JSON. What is no Unicode is replaced: JSON cannot hold it.
pub fn shown(path: Option<&Path>) -> Option<String> {
    path.map(|path| path.display().to_string())
}

/// A path in a sentence: no control character of its name reaches the terminal.
pub fn path(path: &Path) -> String {
    one_line(&path.display().to_string())
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
    fn one_is_singular() {
        assert_eq!([1u32, 2].map(|number| count(number, "frame")), ["1 frame", "2 frames"]);
    }
}
