//! The availability of a worker: its schedule, and whether its machine is used otherwise.
//!
//! Observations come in, a reason to be unavailable comes out; the machine is read in `activity`.

mod activity;
mod processes;
mod schedule;
mod user;

use std::{
    fmt,
    str::FromStr,
    time::{Duration, Instant},
};

use jiff::Zoned;
use kiln_api::Unavailability;
use serde::Deserialize;

pub(crate) use activity::{ActivityMonitor, MachineUse, held_memory, watch_machine};
pub use schedule::{SleepTime, SleepTimeError};

/// The time that a Blender's window must have been closed: an artist who starts it again is not disturbed in between.
const CLOSED_FOR: Duration = Duration::from_secs(10);
/// The times that the machine must have been busy, and then quiet again. A page that loads is no work.
const BUSY_FOR: Duration = Duration::from_secs(20);
const QUIET_FOR: Duration = Duration::from_secs(60);
/// Of the load that is too much, the part below which it is quiet again.
const QUIET_PART: f64 = 0.75;

/// The options of a worker's availability. By default it is always available.
#[derive(Debug, Clone, PartialEq)]
pub struct AvailabilityOptions {
    /// The times without work.
    pub sleep: Vec<SleepTime>,
    pub yields: YieldMode,
    /// The time without a key or mouse event after which nobody is there.
    pub idle: Duration,
    /// Cores that other programs must keep busy for it to be unavailable; half of the machine's if `None`.
    pub load: Option<f64>,
    pub on_unavailable: OnUnavailable,
}

impl AvailabilityOptions {
    /// The default of `idle`.
    pub const IDLE: Duration = Duration::from_secs(5 * 60);
}

impl Default for AvailabilityOptions {
    fn default() -> Self {
        Self {
            sleep: Vec::new(),
            yields: YieldMode::No,
            idle: Self::IDLE,
            load: None,
            on_unavailable: OnUnavailable::Finish,
        }
    }
}

/// The condition under which a worker leaves its machine to the person who uses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum YieldMode {
    /// While a person has a graphical session there.
    Auto,
    Yes,
    No,
}

/// The treatment of running tasks when a worker becomes unavailable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum OnUnavailable {
    /// Let them end, at the lowest priority.
    Finish,
    /// Return them at once, which counts against nothing.
    Stop,
}

macro_rules! words {
    ($type:ident: $($word:literal => $value:ident),+) => {
        impl $type {
            /// The words for them in settings.
            pub const WORDS: &[&str] = &[$($word),+];
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$value => $word),+ })
            }
        }

        impl FromStr for $type {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$value),)+
                    _ => Err(format!("“{text}” is none of {}", Self::WORDS.join(", "))),
                }
            }
        }

        impl TryFrom<String> for $type {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }
    };
}

words!(YieldMode: "auto" => Auto, "yes" => Yes, "no" => No);
words!(OnUnavailable: "finish" => Finish, "stop" => Stop);

/// Decides when the worker is available.
#[derive(Debug)]
pub(crate) struct Availability {
    options: AvailabilityOptions,
    /// Cores that others must keep busy.
    load: f64,
    person: Latch,
    blender: Latch,
    busy: Latch,
    /// Somebody uses the machine, as last seen.
    used: bool,
}

impl Availability {
    /// `cores`: the machine's.
    pub(crate) fn new(options: AvailabilityOptions, cores: u32) -> Self {
        let load = options.load.unwrap_or(f64::from(cores) / 2.0);
        let (person, blender, busy) = (Latch::default(), Latch::default(), Latch::default());
        Self { options, load, person, blender, busy, used: false }
    }

    /// Returns true if the machine must be watched.
    pub(crate) fn watches(&self) -> bool {
        self.options.yields != YieldMode::No
    }

    /// Returns true while somebody uses the machine, also if the worker does not yield it.
    pub(crate) fn is_used(&self) -> bool {
        self.used
    }

    pub(crate) fn on_unavailable(&self) -> OnUnavailable {
        self.options.on_unavailable
    }

    pub(crate) fn see(&mut self, seen: &MachineUse, now: Instant) {
        let yields = match self.options.yields {
            YieldMode::Auto => seen.desktop,
            YieldMode::Yes => true,
            YieldMode::No => false,
        };
        let there = seen.idle.is_some_and(|idle| idle < self.options.idle);
        self.used = there || seen.blender;
        self.person.see(yields && there, now, Duration::ZERO, Duration::ZERO);
        self.blender.see(yields && seen.blender, now, Duration::ZERO, CLOSED_FOR);
        if let Some(others) = seen.others {
            let too_much = if self.busy.on { self.load * QUIET_PART } else { self.load };
            self.busy.see(yields && others > too_much, now, BUSY_FOR, QUIET_FOR);
        }
    }

    /// Returns the reason for which it takes no work now.
    pub(crate) fn unavailable(&self, wall: &Zoned) -> Option<Unavailability> {
        if let schedule::Hour::Asleep { until } = schedule::hour(&self.options.sleep, wall) {
            let until_ms = until.map(jiff::Timestamp::as_millisecond);
            return Some(Unavailability { why: schedule::words(until, wall), until_ms });
        }
        let why = if self.person.on {
            "somebody is at the machine"
        } else if self.blender.on {
            "a Blender is open on its screen"
        } else if self.busy.on {
            "the machine is busy with other things"
        } else {
            return None;
        };
        Some(Unavailability { why: why.to_owned(), until_ms: None })
    }
}

/// A switch that follows its input only when that has lasted.
#[derive(Debug, Default)]
struct Latch {
    on: bool,
    /// The time since which the input has been the contrary.
    contrary: Option<Instant>,
}

impl Latch {
    fn see(&mut self, wanted: bool, now: Instant, rise: Duration, fall: Duration) {
        if wanted == self.on {
            self.contrary = None;
            return;
        }
        let since = *self.contrary.get_or_insert(now);
        if now.duration_since(since) >= if wanted { rise } else { fall } {
            *self = Self { on: wanted, contrary: None };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: MachineUse = MachineUse { desktop: true, idle: None, blender: false, others: Some(0.0) };

    fn wall() -> Zoned {
        "2026-11-20T12:00:00+00:00[UTC]".parse().unwrap()
    }

    /// Compares the seconds at which the worker becomes unavailable and available, from the observations of each second.
    #[track_caller]
    fn check(
        policy: &mut Availability,
        seen: impl Fn(u64) -> MachineUse,
        seconds: u64,
        changes: &[(u64, Option<&str>)],
    ) {
        let start = Instant::now();
        let mut found = Vec::new();
        let mut last = None;
        for second in 0..seconds {
            policy.see(&seen(second), start + Duration::from_secs(second));
            let why = policy.unavailable(&wall()).map(|reason| reason.why);
            if why != last {
                found.push((second, why.clone()));
                last = why;
            }
        }
        let expected: Vec<_> = changes.iter().map(|(at, why)| (*at, why.map(str::to_owned))).collect();
        assert_eq!(found, expected);
    }

    fn policy(yields: YieldMode) -> Availability {
        Availability::new(AvailabilityOptions { yields, ..AvailabilityOptions::default() }, 8)
    }

    #[test]
    fn a_person_is_there_until_nothing_was_touched_for_five_minutes() {
        let touched =
            |second: u64| MachineUse { idle: Some(Duration::from_secs(second.saturating_sub(10))), ..QUIET };
        let there = Some("somebody is at the machine");
        check(&mut policy(YieldMode::Yes), touched, 400, &[(0, there), (310, None)]);
        check(&mut policy(YieldMode::Auto), touched, 400, &[(0, there), (310, None)]);
        check(&mut policy(YieldMode::No), touched, 400, &[]);
        let headless = |second| MachineUse { desktop: false, ..touched(second) };
        check(&mut policy(YieldMode::Auto), headless, 400, &[]);
        check(&mut policy(YieldMode::Yes), headless, 400, &[(0, there), (310, None)]);
    }

    #[test]
    fn a_machine_is_used_also_if_the_worker_does_not_yield_it() {
        let mut policy = policy(YieldMode::No);
        assert!(!policy.is_used());
        let mut sees = |seen: MachineUse| {
            policy.see(&seen, Instant::now());
            assert_eq!(policy.unavailable(&wall()), None);
            policy.is_used()
        };
        let touched =
            |seconds| MachineUse { idle: Some(Duration::from_secs(seconds)), desktop: false, ..QUIET };
        assert!(sees(touched(299)));
        assert!(!sees(touched(300)));
        assert!(sees(MachineUse { blender: true, ..QUIET }));
        assert!(!sees(MachineUse { others: Some(8.0), ..QUIET }), "a busy machine has nobody at it");
    }

    #[test]
    fn a_blender_that_is_started_again_does_not_make_it_flap() {
        let open = |second: u64| MachineUse {
            blender: (5..20).contains(&second) || (25..30).contains(&second),
            ..QUIET
        };
        let why = Some("a Blender is open on its screen");
        check(&mut policy(YieldMode::Yes), open, 60, &[(5, why), (40, None)]);
    }

    #[test]
    fn a_busy_machine_must_be_so_for_a_while_and_then_be_quiet() {
        let why = Some("the machine is busy with other things");
        let short =
            |second: u64| MachineUse { others: Some(if second % 20 < 15 { 8.0 } else { 0.0 }), ..QUIET };
        check(&mut policy(YieldMode::Yes), short, 200, &[]);
        // Four of eight cores are too much; below three it is quiet.
        let long = |second: u64| {
            let others = match second {
                10..50 => 5.0,
                50..100 => 3.5,
                100..130 => 2.0,
                130..135 => 3.5,
                _ => 2.0,
            };
            MachineUse { others: Some(others), ..QUIET }
        };
        check(&mut policy(YieldMode::Yes), long, 300, &[(30, why), (195, None)]);
        let nothing_known = |_| MachineUse { others: None, ..QUIET };
        check(&mut policy(YieldMode::Yes), nothing_known, 100, &[]);
    }

    #[test]
    fn a_load_of_ones_own_choice() {
        let mut choosy = Availability::new(
            AvailabilityOptions { yields: YieldMode::Yes, load: Some(1.0), ..AvailabilityOptions::default() },
            8,
        );
        let why = Some("the machine is busy with other things");
        check(&mut choosy, |_| MachineUse { others: Some(1.2), ..QUIET }, 30, &[(20, why)]);
    }

    #[test]
    fn sleep_goes_before_everything_and_says_until_when() {
        let sleep = vec!["11:00-13:00".parse().unwrap()];
        let mut policy = Availability::new(
            AvailabilityOptions { sleep, yields: YieldMode::Yes, ..AvailabilityOptions::default() },
            8,
        );
        policy.see(&MachineUse { blender: true, ..QUIET }, Instant::now());
        let reason = policy.unavailable(&wall()).unwrap();
        assert_eq!(reason.why, "asleep until 13:00");
        assert_eq!(reason.until_ms, Some(wall().timestamp().as_millisecond() + 3_600_000));
    }

    #[test]
    fn words_are_read_as_they_are_written() {
        assert_eq!("auto".parse(), Ok(YieldMode::Auto));
        assert_eq!(YieldMode::No.to_string(), "no");
        assert_eq!("maybe".parse::<YieldMode>(), Err("“maybe” is none of auto, yes, no".to_owned()));
        assert_eq!("stop".parse(), Ok(OnUnavailable::Stop));
    }
}
