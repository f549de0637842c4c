//! Values of options that are written in a form of their own.

use std::{collections::BTreeSet, fmt::Display, num::NonZeroU32, str::FromStr};

use clap::builder::{StringValueParser, TypedValueParser};
use jiff::{Timestamp, Zoned, civil};
use kiln_types::{BadName, BadTimeSpan, JobId, ShortName, TimeSpan};

/// Reads a duration between two others.
pub fn between(least: &'static str, most: &'static str) -> impl TypedValueParser<Value = TimeSpan> {
    StringValueParser::new().try_map(move |text| -> Result<TimeSpan, BadTimeSpan> {
        TimeSpan::within(&text, least.parse()?..=most.parse()?)
    })
}

/// Numbers of jobs, separated by commas, or `none`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jobs(pub BTreeSet<JobId>);

impl FromStr for Jobs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(BTreeSet::new()));
        }
        let jobs = text.split(',').map(|job| job.trim().parse::<JobId>());
        jobs.collect::<Result<_, _>>()
            .map(Self)
            .map_err(|_| "write the numbers of jobs, such as 7 or 7,8, or none".to_owned())
    }
}

/// A value, or `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrNone<T>(pub Option<T>);

impl<T: FromStr<Err: Display>> FromStr for OrNone<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(None));
        }
        text.parse().map(|value| Self(Some(value))).map_err(|why| format!("{why}; write a number, or none"))
    }
}

/// `nuke`, or `nuke=2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    pub name: ShortName,
    pub count: NonZeroU32,
}

impl FromStr for Counted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, count) = text.split_once('=').unwrap_or((text, "1"));
        let count = count.parse().map_err(|_| "write NAME, or NAME=N with a number from 1 on".to_owned())?;
        Ok(Self { name: name.parse().map_err(|error: BadName| error.to_string())?, count })
    }
}

/// A time to start, in Unix milliseconds; `None` for at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At(pub Option<i64>);

impl FromStr for At {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "now" {
            return Ok(Self(None));
        }
        moment(text, &Zoned::now()).map(|at| Self(Some(at.as_millisecond()))).ok_or_else(|| {
            "write a time of day such as 22:00, a date such as 2026-12-24, both as in 2026-12-24T18:00, or now"
                .to_owned()
        })
    }
}

/// The moment that is meant; of a time of day the next.
fn moment(text: &str, now: &Zoned) -> Option<Timestamp> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(at);
    }
    let local = |at: civil::DateTime| Some(at.to_zoned(now.time_zone().clone()).ok()?.timestamp());
    if let Ok(at) = text.parse::<civil::DateTime>() {
        return local(at);
    }
    // A bare number is no time of day, whatever ISO 8601 says.
    let time = text.contains(':').then(|| text.parse::<civil::Time>().ok())??;
    let today = local(now.date().to_datetime(time))?;
    if today > now.timestamp() { Some(today) } else { local(now.date().tomorrow().ok()?.to_datetime(time)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_day_is_the_next_one() {
        let now: Zoned = "2026-03-28T21:30:00+01:00[+01:00]".parse().unwrap();
        let at = |text: &str| moment(text, &now).map(|at| at.to_string());
        let is = |text: &str, wanted: &str| assert_eq!(at(text).as_deref(), Some(wanted), "{text}");
        is("22:00", "2026-03-28T21:00:00Z");
        is("21:30", "2026-03-29T20:30:00Z");
        is("06:15", "2026-03-29T05:15:00Z");
        is("2026-12-24", "2026-12-23T23:00:00Z");
        is("2026-12-24 18:00", "2026-12-24T17:00:00Z");
        is("2026-12-24T18:00", "2026-12-24T17:00:00Z");
        is("2026-12-24T18:00Z", "2026-12-24T18:00:00Z");
        for bad in ["", "22", "2200", "25:00", "noon", "2026-13-01", "-1:00"] {
            assert_eq!(at(bad), None, "{bad}");
        }
        assert_eq!("now".parse(), Ok(At(None)));
    }

    #[test]
    fn lists_counts_and_none() {
        assert_eq!("7,8".parse(), Ok(Jobs([JobId(7), JobId(8)].into())));
        assert_eq!("none".parse(), Ok(Jobs(BTreeSet::new())));
        assert_eq!("none".parse::<OrNone<u32>>(), Ok(OrNone(None)));
        assert_eq!("3".parse::<OrNone<u32>>(), Ok(OrNone(Some(3))));
        let counted = |name: &str, count: u32| Counted {
            name: name.parse().unwrap(),
            count: count.try_into().unwrap(),
        };
        assert_eq!("nuke".parse(), Ok(counted("nuke", 1)));
        assert_eq!("nuke=2".parse(), Ok(counted("nuke", 2)));
        assert!("nuke=0".parse::<Counted>().is_err() && "7,x".parse::<Jobs>().is_err());
        assert!("x".parse::<OrNone<u32>>().is_err());
    }
}
