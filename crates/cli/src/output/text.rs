//! Numbers and paths as people read them.

use std::path::Path;

pub use kiln_types::{
    count,
    duration::{clock, measured},
};

use super::one_line;

/// A path in JSON. What is no Unicode is replaced: JSON cannot hold it.
pub fn shown(path: Option<&Path>) -> Option<String> {
    path.map(|path| path.display().to_string())
}

/// A path in a sentence: no control character of its name reaches the terminal.
pub fn path(path: &Path) -> String {
    one_line(&path.display().to_string())
}

/// Local date and minute of Unix milliseconds.
pub fn moment(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(
        |_| "?".to_owned(),
        |at| at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string(),
    )
}
