//! The times at which a worker sleeps, by its local clock.

use std::{fmt, str::FromStr};

use jiff::{
    Timestamp, Zoned,
    civil::{Date, Time, Weekday},
    tz::TimeZone,
};
use serde::Deserialize;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const EVERY_DAY: u8 = 0b111_1111;
const DAY_MINUTES: u16 = 24 * 60;

/// Times of the week: `22:00-08:00`, `mon-fri 09:00-18:00`, `sat,sun`. The days are those on which a time begins; one
/// that ends earlier in the day than it begins ends on the next day.
///
/// The times are the wall's: on the day when the clocks change, a night is an hour longer or shorter, and a time that
/// the clocks leave out comes an hour later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct SleepTime {
    /// A bit a day, Monday's the lowest.
    days: u8,
    /// Minutes of the day.
    from: u16,
    /// Minutes of the day; 24:00 is its end.
    to: u16,
}

/// The error of a text that names no time to sleep.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("“{0}” is no time to sleep; write `22:00-08:00`, `mon-fri 09:00-18:00` or `sat,sun`")]
pub struct SleepTimeError(String);

impl FromStr for SleepTime {
    type Err = SleepTimeError;

    fn from_str(text: &str) -> Result<Self, SleepTimeError> {
        let bad = || SleepTimeError(text.to_owned());
        let words: Vec<&str> = text.split_whitespace().collect();
        let (days, times) = match words[..] {
            [days, times] => (days_of(days).ok_or_else(bad)?, Some(times)),
            [one] if one.contains(':') => (EVERY_DAY, Some(one)),
            [one] => (days_of(one).ok_or_else(bad)?, None),
            _ => return Err(bad()),
        };
        let (from, to) = match times {
            None => (0, DAY_MINUTES),
            Some(times) => {
                let (from, to) = times.split_once('-').ok_or_else(bad)?;
                (minutes(from).ok_or_else(bad)?, minutes(to).ok_or_else(bad)?)
            }
        };
        if from == to || from == DAY_MINUTES {
            return Err(bad());
        }
        Ok(Self { days, from, to })
    }
}

impl TryFrom<String> for SleepTime {
    type Error = SleepTimeError;

    fn try_from(text: String) -> Result<Self, SleepTimeError> {
        text.parse()
    }
}

impl fmt::Display for SleepTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.days != EVERY_DAY {
            let named = DAYS.iter().enumerate().filter(|(day, _)| self.days & (1 << day) != 0);
            let named: Vec<&str> = named.map(|(_, name)| *name).collect();
            write!(f, "{} ", named.join(","))?;
        }
        let clock = |minutes: u16| format!("{:02}:{:02}", minutes / 60, minutes % 60);
        write!(f, "{}-{}", clock(self.from), clock(self.to))
    }
}

/// `mon-fri`, `sat,sun`, `fri-mon`.
fn days_of(text: &str) -> Option<u8> {
    let day = |name: &str| {
        let name = name.to_ascii_lowercase();
        DAYS.iter().position(|day| *day == name)
    };
    let mut days = 0;
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (mut at, last) = (day(first)?, day(last)?);
        days |= 1 << last;
        while at != last {
            days |= 1 << at;
            at = (at + 1) % DAYS.len();
        }
    }
    Some(days)
}

/// Of the day, from `8:00` or `08:00`; `24:00` is its end.
fn minutes(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let digits = |text: &str, most: usize| {
        (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    if !digits(hours, 2) || minutes.len() != 2 || !digits(minutes, 2) {
        return None;
    }
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    let all = hours * 60 + minutes;
    (minutes < 60 && all <= DAY_MINUTES).then_some(all)
}

impl SleepTime {
    /// Returns the start and the end of the time that begins on this day.
    fn on(&self, date: Date, zone: &TimeZone) -> Option<(Timestamp, Timestamp)> {
        if self.days & (1 << day_of(date.weekday())) == 0 {
            return None;
        }
        let end = if self.to > self.from { date } else { date.tomorrow().ok()? };
        Some((moment(date, self.from, zone)?, moment(end, self.to, zone)?))
    }
}

fn day_of(day: Weekday) -> i8 {
    day.to_monday_zero_offset()
}

/// Of a time that is left out when the clocks change, the same time after the change; of one that comes twice, the
/// first.
fn moment(date: Date, minutes: u16, zone: &TimeZone) -> Option<Timestamp> {
    let (date, minutes) = if minutes == DAY_MINUTES { (date.tomorrow().ok()?, 0) } else { (date, minutes) };
    let (hour, minute) = (i8::try_from(minutes / 60).ok()?, i8::try_from(minutes % 60).ok()?);
    let time = date.to_datetime(Time::new(hour, minute, 0, 0).ok()?);
    Some(zone.to_ambiguous_zoned(time).compatible().ok()?.timestamp())
}

/// The state of the schedule at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hour {
    Awake,
    Asleep {
        /// Not known where it sleeps for a week and more.
        until: Option<Timestamp>,
    },
}

/// Looks up a moment in the schedule. Times that touch each other are one, with one end.
pub(crate) fn hour(schedule: &[SleepTime], now: &Zoned) -> Hour {
    let (start, week) = (now.timestamp(), now.timestamp().as_second() + 8 * 24 * 3600);
    let mut until = start;
    while let Some(later) = end_of_those_around(schedule, until, now.time_zone()) {
        until = later;
        if until.as_second() > week {
            return Hour::Asleep { until: None };
        }
    }
    if until == start { Hour::Awake } else { Hour::Asleep { until: Some(until) } }
}

/// The latest end of the times that hold this moment.
fn end_of_those_around(schedule: &[SleepTime], at: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let today = at.to_zoned(zone.clone()).date();
    // None is longer than a day, but for the hour that the clocks may add.
    let dates = [today.yesterday().ok(), Some(today)];
    let spans =
        dates.into_iter().flatten().flat_map(|date| schedule.iter().map(move |sleep| sleep.on(date, zone)));
    spans.flatten().filter(|(from, to)| *from <= at && at < *to).map(|(_, to)| to).max()
}

/// `asleep until 08:00`, `asleep until mon 08:00`.
pub(crate) fn words(until: Option<Timestamp>, now: &Zoned) -> String {
    let Some(until) = until else { return "asleep".to_owned() };
    let soon = until.as_second() - now.timestamp().as_second() < 24 * 3600;
    let until = until.to_zoned(now.time_zone().clone());
    let day = if soon { "" } else { DAYS[usize::from(day_of(until.weekday()).unsigned_abs())] };
    let gap = if soon { "" } else { " " };
    format!("asleep until {day}{gap}{:02}:{:02}", until.hour(), until.minute())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Central Europe, as it needs no database: summer from 2026-03-29 02:00, winter from 2026-10-25 03:00.
    fn zone() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    fn at(text: &str) -> Zoned {
        let time: jiff::civil::DateTime = text.parse().unwrap();
        time.to_zoned(zone()).unwrap()
    }

    #[track_caller]
    fn check(schedule: &[&str], now: &str, expected: Option<&str>) {
        let schedule: Vec<SleepTime> = schedule.iter().map(|text| text.parse().unwrap()).collect();
        let until = expected.map(|text| Hour::Asleep { until: Some(at(text).timestamp()) });
        assert_eq!(hour(&schedule, &at(now)), until.unwrap_or(Hour::Awake), "{now}");
    }

    #[test]
    fn a_night_goes_over_midnight() {
        let night = &["22:00-08:00"];
        check(night, "2026-11-20T21:59:59", None);
        check(night, "2026-11-20T22:00:00", Some("2026-11-21T08:00:00"));
        check(night, "2026-11-21T00:00:00", Some("2026-11-21T08:00:00"));
        check(night, "2026-11-21T07:59:59", Some("2026-11-21T08:00:00"));
        check(night, "2026-11-21T08:00:00", None);
    }

    #[test]
    fn the_days_are_those_on_which_it_begins() {
        let nights = &["fri,sat 20:00-06:00"];
        // 2026-11-20 is a Friday.
        check(nights, "2026-11-20T05:00:00", None);
        check(nights, "2026-11-20T23:00:00", Some("2026-11-21T06:00:00"));
        check(nights, "2026-11-22T05:59:00", Some("2026-11-22T06:00:00"));
        check(nights, "2026-11-22T23:00:00", None);
        check(&["mon-fri 09:00-18:00"], "2026-11-21T12:00:00", None);
        check(&["mon-fri 09:00-18:00"], "2026-11-23T12:00:00", Some("2026-11-23T18:00:00"));
        check(&["sat-mon 09:00-10:00"], "2026-11-23T09:30:00", Some("2026-11-23T10:00:00"));
    }

    #[test]
    fn times_that_touch_are_one_sleep() {
        let week = &["mon-fri 18:00-24:00", "tue-sat 00:00-09:00", "sat,sun"];
        // A Friday evening.
        check(week, "2026-11-20T19:00:00", Some("2026-11-23T00:00:00"));
        check(week, "2026-11-23T18:00:00", Some("2026-11-24T09:00:00"));
        let always: SleepTime = "00:00-24:00".parse().unwrap();
        assert_eq!(hour(&[always], &at("2026-11-20T19:00:00")), Hour::Asleep { until: None });
        assert_eq!(hour(&[], &at("2026-11-20T19:00:00")), Hour::Awake);
    }

    #[test]
    fn a_night_of_changing_clocks_ends_by_the_wall() {
        let hours = |from: &str| {
            let schedule: [SleepTime; 1] = ["22:00-08:00".parse().unwrap()];
            let Hour::Asleep { until: Some(until) } = hour(&schedule, &at(from)) else { panic!() };
            (until.as_second() - at(from).timestamp().as_second()) / 3600
        };
        assert_eq!(hours("2026-03-27T22:00:00"), 10);
        assert_eq!(hours("2026-03-28T22:00:00"), 9, "summer begins");
        assert_eq!(hours("2026-10-24T22:00:00"), 11, "winter begins");
        // 02:30 is left out in spring and comes twice in autumn.
        check(&["01:00-02:30"], "2026-03-29T03:10:00", Some("2026-03-29T03:30:00"));
        let first = at("2026-10-25T02:10:00");
        let second = first.checked_add(jiff::SignedDuration::from_hours(1)).unwrap();
        assert_eq!((second.hour(), second.minute()), (2, 10), "the same time once more");
        let schedule: [SleepTime; 1] = ["01:00-02:30".parse().unwrap()];
        assert!(matches!(hour(&schedule, &first), Hour::Asleep { .. }));
        assert_eq!(hour(&schedule, &second), Hour::Awake, "it has ended at the first 02:30");
    }

    #[test]
    fn what_is_written_is_read_and_what_is_not_is_refused() {
        for (text, shown) in [
            ("22:00-08:00", "22:00-08:00"),
            ("  MON-Wed   9:00-18:30 ", "mon,tue,wed 09:00-18:30"),
            ("sat,sun", "sat,sun 00:00-24:00"),
            ("fri-mon 12:00-24:00", "mon,fri,sat,sun 12:00-24:00"),
        ] {
            let sleep: SleepTime = text.parse().unwrap();
            assert_eq!(sleep.to_string(), shown);
            assert_eq!(shown.parse(), Ok(sleep));
        }
        for text in [
            "",
            "22:00",
            "22-08",
            "8:00-8:00",
            "24:00-08:00",
            "25:00-08:00",
            "08:60-09:00",
            "day 8:00-9:00",
            "-1:00-2:00",
            "mon,, 8:00-9:00",
            "mon 8:00-9:00 tue",
            "008:00-09:00",
            "８:00-9:00",
        ] {
            let error = text.parse::<SleepTime>().unwrap_err().to_string();
            assert!(error.contains("22:00-08:00"), "{text}: {error}");
        }
    }

    #[test]
    fn a_person_reads_until_when() {
        let until = |text| Some(at(text).timestamp());
        let now = at("2026-11-20T19:00:00");
        assert_eq!(words(until("2026-11-21T08:00:00"), &now), "asleep until 08:00");
        assert_eq!(words(until("2026-11-23T08:00:00"), &now), "asleep until mon 08:00");
        assert_eq!(words(None, &now), "asleep");
    }
}
