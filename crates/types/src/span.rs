//! Durations that people set, in one form for every option, variable and settings file.

use std::{fmt, ops::RangeInclusive, str::FromStr, time::Duration};

use jiff::{Span, SpanRelativeTo, fmt::friendly::SpanParser};

/// A duration that a person sets, in whole seconds. Reads `90s`, `30m`, `1h30m`, `7d`, `2w` and their combinations; `0`
/// alone needs no unit. Prints as `1h 30m`, which reads as the same. A day has 24 hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TimeSpan {
    seconds: u64,
}
crate::ids::text_serde!(TimeSpan);

/// The reason why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read “{text}” as a duration: {fault}")]
pub struct BadTimeSpan {
    text: String,
    fault: TimeSpanFault,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum TimeSpanFault {
    #[error("write 90s, 30m, 1h30m or 7d")]
    Text,
    /// `7` may mean seconds to one person and days to another.
    #[error("a number needs its unit, as in 90s, 30m, 1h30m or 7d")]
    NoUnit,
    #[error("it is negative")]
    Negative,
    #[error("months and years differ in length; write days, as in 30d")]
    Calendar,
    #[error("write whole seconds")]
    Fraction,
    #[error("it is longer than {}", TimeSpan::MAX)]
    TooLong,
    #[error("it must lie between {} and {}", .0.start(), .0.end())]
    OutOfRange(RangeInclusive<TimeSpan>),
}

impl TimeSpan {
    pub const ZERO: Self = Self { seconds: 0 };
    /// A thousand years: no calculation in milliseconds overflows.
    pub const MAX: Self = Self::from_days(365_000);

    /// Saturates at [`Self::MAX`].
    pub const fn from_secs(seconds: u64) -> Self {
        if seconds > Self::MAX.seconds { Self::MAX } else { Self { seconds } }
    }

    /// Saturates at [`Self::MAX`].
    pub const fn from_days(days: u32) -> Self {
        let days = if days > 365_000 { 365_000 } else { days };
        Self { seconds: days as u64 * 24 * 60 * 60 }
    }

    pub const fn as_secs(self) -> u64 {
        self.seconds
    }

    /// Reads a duration within these bounds; the error of one outside names them.
    pub fn within(text: &str, bounds: RangeInclusive<Self>) -> Result<Self, BadTimeSpan> {
        let span: Self = text.parse()?;
        if bounds.contains(&span) {
            Ok(span)
        } else {
            Err(BadTimeSpan::new(text, TimeSpanFault::OutOfRange(bounds)))
        }
    }
}

impl BadTimeSpan {
    fn new(text: &str, fault: TimeSpanFault) -> Self {
        let text =
            text.chars().take(40).map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c });
        Self { text: text.collect(), fault }
    }
}

impl FromStr for TimeSpan {
    type Err = BadTimeSpan;

    fn from_str(text: &str) -> Result<Self, BadTimeSpan> {
        let trimmed = text.trim();
        if trimmed == "0" {
            return Ok(Self::ZERO);
        }
        let bad = |fault| BadTimeSpan::new(text, fault);
        let is_number = !trimmed.is_empty() && trimmed.bytes().all(|byte| byte.is_ascii_digit());
        let unread = || bad(if is_number { TimeSpanFault::NoUnit } else { TimeSpanFault::Text });
        let span = SpanParser::new().parse_span(trimmed).map_err(|_| unread())?;
        if span.is_negative() {
            return Err(bad(TimeSpanFault::Negative));
        }
        if span.get_years() != 0 || span.get_months() != 0 {
            return Err(bad(TimeSpanFault::Calendar));
        }
        let duration = span.to_duration(SpanRelativeTo::days_are_24_hours());
        let duration = duration.map_err(|_| bad(TimeSpanFault::TooLong))?;
        if duration.subsec_nanos() != 0 {
            return Err(bad(TimeSpanFault::Fraction));
        }
        let seconds = u64::try_from(duration.as_secs()).map_err(|_| bad(TimeSpanFault::Negative))?;
        if seconds > Self::MAX.seconds { Err(bad(TimeSpanFault::TooLong)) } else { Ok(Self { seconds }) }
    }
}

impl fmt::Display for TimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.seconds.cast_signed();
        let span = Span::new()
            .days(seconds / 86_400)
            .hours(seconds / 3600 % 24)
            .minutes(seconds / 60 % 60)
            .seconds(seconds % 60);
        write!(f, "{span:#}")
    }
}

impl From<TimeSpan> for Duration {
    fn from(span: TimeSpan) -> Self {
        Self::from_secs(span.seconds)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        for (text, seconds, back) in [
            ("90s", 90, "1m 30s"),
            ("30m", 1800, "30m"),
            ("1h30m", 5400, "1h 30m"),
            ("1h 30m", 5400, "1h 30m"),
            ("1.5h", 5400, "1h 30m"),
            (" 36 h ", 129_600, "1d 12h"),
            ("7d", 604_800, "7d"),
            ("2w", 1_209_600, "14d"),
            ("2 hours, 5 minutes", 7500, "2h 5m"),
            ("0", 0, "0s"),
            ("0d", 0, "0s"),
            ("365000d", 31_536_000_000, "365000d"),
        ] {
            let span: TimeSpan = text.parse().unwrap();
            assert_eq!((span.as_secs(), span.to_string().as_str()), (seconds, back), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused_with_the_reason() {
        for (text, why) in [
            ("", "write 90s"),
            ("soon", "write 90s"),
            ("5x", "cannot read “5x” as a duration: write 90s, 30m, 1h30m or 7d"),
            ("d", "write 90s"),
            ("é", "write 90s"),
            ("7", "needs its unit"),
            ("99999999999999999999", "needs its unit"),
            ("-5m", "negative"),
            ("5m ago", "negative"),
            ("1mo", "write days"),
            ("1y", "write days"),
            ("1.5s", "whole seconds"),
            ("200ms", "whole seconds"),
            ("365001d", "longer than 365000d"),
            ("99999999999999999999d", "write 90s"),
        ] {
            let error = text.parse::<TimeSpan>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        let bounds = TimeSpan::from_secs(60)..=TimeSpan::from_days(30);
        assert_eq!(TimeSpan::within("7d", bounds.clone()), Ok(TimeSpan::from_days(7)));
        let error = TimeSpan::within("59s", bounds).unwrap_err().to_string();
        assert!(error.contains("between 1m and 30d"), "{error}");
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_as_the_same(seconds in 0..=TimeSpan::MAX.seconds) {
            let span = TimeSpan::from_secs(seconds);
            prop_assert_eq!(span.to_string().parse(), Ok(span));
            let json = serde_json::to_string(&span).unwrap();
            prop_assert_eq!(serde_json::from_str::<TimeSpan>(&json).unwrap(), span);
        }
    }
}
