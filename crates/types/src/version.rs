//! Blender's versions.

use std::{fmt, str::FromStr};

use crate::pattern::digits_to;

/// A version of Blender, `major.minor.patch`, as `blender --version` prints it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlenderVersion {
    pub major: u16,
    pub minor: u16,
    pub patch: u16,
}
crate::ids::text_id!(BlenderVersion, pattern(), "4.5.3");

/// A series of Blender, `major.minor`. A job is pinned to one: its patch releases render the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlenderSeries {
    pub major: u16,
    pub minor: u16,
}
crate::ids::text_id!(BlenderSeries, pattern(), "4.5");

/// Returns the pattern of both: a series may have a patch number, which is ignored.
fn pattern() -> String {
    let number = digits_to(u64::from(u16::MAX));
    format!("{number}\\.{number}(\\.{number})?")
}

/// A text that is not a version of Blender.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("“{0}” is not a Blender version; write it like 4.5 or 4.5.3")]
pub struct BadVersion(String);

impl BlenderVersion {
    pub fn series(self) -> BlenderSeries {
        BlenderSeries { major: self.major, minor: self.minor }
    }

    /// Reads the number in a .blend header: 304 is 3.4, 279 is 2.79, 405 is 4.5.
    pub fn from_file_number(number: u16) -> Self {
        Self { major: number / 100, minor: number % 100, patch: 0 }
    }
}

impl fmt::Display for BlenderVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl fmt::Display for BlenderSeries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Parses `a.b` or `a.b.c`, digits only.
fn parse_parts(s: &str) -> Result<(u16, u16, Option<u16>), BadVersion> {
    let bad = || BadVersion(s.chars().take(32).collect());
    let mut numbers = s.split('.').map(|part| {
        let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if digits { part.parse::<u16>().map_err(|_| bad()) } else { Err(bad()) }
    });
    let major = numbers.next().ok_or_else(bad)??;
    let minor = numbers.next().ok_or_else(bad)??;
    let patch = numbers.next().transpose()?;
    if numbers.next().is_some() { Err(bad()) } else { Ok((major, minor, patch)) }
}

impl FromStr for BlenderVersion {
    type Err = BadVersion;
    fn from_str(s: &str) -> Result<Self, BadVersion> {
        let (major, minor, patch) = parse_parts(s)?;
        Ok(Self { major, minor, patch: patch.unwrap_or(0) })
    }
}

impl FromStr for BlenderSeries {
    type Err = BadVersion;
    fn from_str(s: &str) -> Result<Self, BadVersion> {
        let (major, minor, _) = parse_parts(s)?;
        Ok(Self { major, minor })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses() {
        let version: BlenderVersion = "4.5.3".parse().unwrap();
        assert_eq!(version.series().to_string(), "4.5");
        assert_eq!("5.0".parse::<BlenderVersion>().unwrap().to_string(), "5.0.0");
        assert_eq!(BlenderVersion::from_file_number(304).series().to_string(), "3.4");
        assert_eq!(BlenderVersion::from_file_number(279).series().to_string(), "2.79");
        for bad in ["", "4", "4.", "4.x", "1.2.3.4", "+4.2", "99999.1"] {
            assert!(bad.parse::<BlenderSeries>().is_err(), "{bad}");
        }
    }
}
