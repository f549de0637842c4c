//! Bytes as people write them.

use std::{fmt, str::FromStr};

/// A number of bytes, written like `500M`, `20G` or `2T`; powers of 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let bad = || "write a size such as 500M, 20G or 2T".to_owned();
        let text = s.trim();
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let power =
            match text[digits.len()..].to_ascii_uppercase().trim_end_matches('B').trim_end_matches('I') {
                "" => 0,
                "K" => 1,
                "M" => 2,
                "G" => 3,
                "T" => 4,
                _ => return Err(bad()),
            };
        let number: u64 = digits.trim().parse().map_err(|_| bad())?;
        let bytes = number.checked_mul(1024_u64.pow(power)).ok_or_else(bad)?;
        if bytes == 0 { Err("the size must be more than 0".to_owned()) } else { Ok(Self(bytes)) }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut value, mut unit) = (self.0 as f64, "B");
        for next in ["KiB", "MiB", "GiB", "TiB"] {
            if value < 1024.0 {
                break;
            }
            (value, unit) = (value / 1024.0, next);
        }
        if unit == "B" || value.fract() == 0.0 {
            write!(f, "{value:.0} {unit}")
        } else {
            write!(f, "{value:.1} {unit}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints() {
        assert_eq!("20G".parse(), Ok(ByteSize(20 << 30)));
        assert_eq!("20 GiB".parse(), Ok(ByteSize(20 << 30)));
        assert_eq!("512".parse(), Ok(ByteSize(512)));
        assert_eq!(ByteSize(20 << 30).to_string(), "20 GiB");
        assert_eq!(ByteSize(1536).to_string(), "1.5 KiB");
        for bad in ["", "G", "0", "-1G", "1.5G", "20X", "99999999999T"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
    }
}
