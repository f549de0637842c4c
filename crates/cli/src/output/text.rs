//! Numbers and paths as people read them.

use std::path::Path;

pub use kiln_types::{
    count,
    duration::{clock, measured},
};

use super::one_line;

/// Returns a path for JSON. Bytes that are not Unicode are replaced, because JSON cannot contain them.
pub fn shown(path: Option<&Path>) -> Option<String> {
    path.map(|path| path.display().to_string())
}

/// Returns a path for a sentence, without control characters.
pub fn path(path: &Path) -> String {
    one_line(&path.display().to_string())
}

/// Returns the local date and minute of Unix milliseconds.
pub fn moment(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(
        |_| "?".to_owned(),
        |at| at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string(),
    )
}
