//! What a worker wishes for itself: when it sleeps, and when it leaves its machine to a person.
//!
//! Facts come in, a reason to rest comes out; what is read from the machine is in [`presence`].

mod person;
pub(crate) mod presence;
mod processes;
mod schedule;

use std::{
    fmt,
    str::FromStr,
    time::{Duration, Instant},
};

use jiff::Zoned;
use kiln_api::Rest;
use serde::Deserialize;

pub(crate) use presence::Facts;
pub use schedule::{BadSleep, Sleep};

/// How long a Blender's window must have been closed: who starts it again is not disturbed in between.
const CLOSED_FOR: Duration = Duration::from_secs(10);
/// How long the machine must have been busy, and then quiet again. A page that loads is no work.
const BUSY_FOR: Duration = Duration::from_secs(20);
const QUIET_FOR: Duration = Duration::from_secs(60);
/// Of the load that is too much, the part below which it is quiet again.
const QUIET_PART: f64 = 0.75;

/// What a worker wishes for itself. By default it wishes to work.
#[derive(Debug, Clone, PartialEq)]
pub struct Wishes {
    /// It takes no work at these times.
    pub sleep: Vec<Sleep>,
    pub yields: Yields,
    /// Nobody is there who has touched nothing for so long.
    pub idle: Duration,
    /// Cores that other programs must keep busy for it to rest; half of the machine's where `None`.
    pub load: Option<f64>,
    /// What becomes of frames that render when it begins to rest.
    pub when_used: WhenUsed,
}

impl Wishes {
    /// Where nobody says how long somebody must have touched nothing.
    pub const IDLE: Duration = Duration::from_secs(5 * 60);
}

impl Default for Wishes {
    fn default() -> Self {
        Self {
            sleep: Vec::new(),
            yields: Yields::No,
            idle: Self::IDLE,
            load: None,
            when_used: WhenUsed::Finish,
        }
    }
}

/// Whether a worker leaves its machine to whoever uses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Yields {
    /// While a person has a graphical session there.
    Auto,
    Yes,
    No,
}

/// What becomes of what renders when a worker begins to rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum WhenUsed {
    /// It ends, at the lowest priority.
    Finish,
    /// It is handed back at once, and nobody is blamed.
    Stop,
}

macro_rules! words {
    ($type:ident: $($word:literal => $value:ident),+) => {
        impl $type {
            /// As they are written.
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

words!(Yields: "auto" => Auto, "yes" => Yes, "no" => No);
words!(WhenUsed: "finish" => Finish, "stop" => Stop);

/// Decides when the worker rests.
#[derive(Debug)]
pub(crate) struct Policy {
    wishes: Wishes,
    /// Cores that others must keep busy.
    load: f64,
    person: Latch,
    blender: Latch,
    busy: Latch,
    /// Somebody uses the machine, as last seen.
    used: bool,
}

impl Policy {
    /// `cores`: the machine's.
    pub(crate) fn new(wishes: Wishes, cores: u32) -> Self {
        let load = wishes.load.unwrap_or(f64::from(cores) / 2.0);
        let (person, blender, busy) = (Latch::default(), Latch::default(), Latch::default());
        Self { wishes, load, person, blender, busy, used: false }
    }

    /// Whether the machine is to be looked at.
    pub(crate) fn watches(&self) -> bool {
        self.wishes.yields != Yields::No
    }

    /// Whether somebody uses the machine, whether the worker leaves it to them or not.
    pub(crate) fn is_used(&self) -> bool {
        self.used
    }

    pub(crate) fn when_used(&self) -> WhenUsed {
        self.wishes.when_used
    }

    pub(crate) fn saw(&mut self, facts: &Facts, now: Instant) {
        let yields = match self.wishes.yields {
            Yields::Auto => facts.desktop,
            Yields::Yes => true,
            Yields::No => false,
        };
        let there = facts.idle.is_some_and(|idle| idle < self.wishes.idle);
        self.used = there || facts.blender;
        self.person.see(yields && there, now, Duration::ZERO, Duration::ZERO);
        self.blender.see(yields && facts.blender, now, Duration::ZERO, CLOSED_FOR);
        if let Some(others) = facts.others {
            let too_much = if self.busy.on { self.load * QUIET_PART } else { self.load };
            self.busy.see(yields && others > too_much, now, BUSY_FOR, QUIET_FOR);
        }
    }

    /// Why it takes no work now, where it does not.
    pub(crate) fn rest(&self, wall: &Zoned) -> Option<Rest> {
        if let schedule::Hour::Asleep { until } = schedule::hour(&self.wishes.sleep, wall) {
            let until_ms = until.map(jiff::Timestamp::as_millisecond);
            return Some(Rest { why: schedule::words(until, wall), until_ms });
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
        Some(Rest { why: why.to_owned(), until_ms: None })
    }
}

/// Follows what it sees only when that has lasted.
#[derive(Debug, Default)]
struct Latch {
    on: bool,
    /// Since when it sees the contrary.
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

    const QUIET: Facts = Facts { desktop: true, idle: None, blender: false, others: Some(0.0) };

    fn wall() -> Zoned {
        "2026-11-20T12:00:00+00:00[UTC]".parse().unwrap()
    }

    /// What is seen at each second, and the seconds at which the worker begins to rest and to work.
    #[track_caller]
    fn check(
        policy: &mut Policy,
        seen: impl Fn(u64) -> Facts,
        seconds: u64,
        changes: &[(u64, Option<&str>)],
    ) {
        let start = Instant::now();
        let mut found = Vec::new();
        let mut last = None;
        for second in 0..seconds {
            policy.saw(&seen(second), start + Duration::from_secs(second));
            let why = policy.rest(&wall()).map(|rest| rest.why);
            if why != last {
                found.push((second, why.clone()));
                last = why;
            }
        }
        let expected: Vec<_> = changes.iter().map(|(at, why)| (*at, why.map(str::to_owned))).collect();
        assert_eq!(found, expected);
    }

    fn policy(yields: Yields) -> Policy {
        Policy::new(Wishes { yields, ..Wishes::default() }, 8)
    }

    #[test]
    fn a_person_is_there_until_nothing_was_touched_for_five_minutes() {
        let touched =
            |second: u64| Facts { idle: Some(Duration::from_secs(second.saturating_sub(10))), ..QUIET };
        let there = Some("somebody is at the machine");
        check(&mut policy(Yields::Yes), touched, 400, &[(0, there), (310, None)]);
        check(&mut policy(Yields::Auto), touched, 400, &[(0, there), (310, None)]);
        check(&mut policy(Yields::No), touched, 400, &[]);
        let headless = |second| Facts { desktop: false, ..touched(second) };
        check(&mut policy(Yields::Auto), headless, 400, &[]);
        check(&mut policy(Yields::Yes), headless, 400, &[(0, there), (310, None)]);
    }

    #[test]
    fn a_machine_is_used_whether_the_worker_leaves_it_or_not() {
        let mut policy = policy(Yields::No);
        assert!(!policy.is_used());
        let mut sees = |facts: Facts| {
            policy.saw(&facts, Instant::now());
            assert_eq!(policy.rest(&wall()), None);
            policy.is_used()
        };
        let touched = |seconds| Facts { idle: Some(Duration::from_secs(seconds)), desktop: false, ..QUIET };
        assert!(sees(touched(299)));
        assert!(!sees(touched(300)));
        assert!(sees(Facts { blender: true, ..QUIET }));
        assert!(!sees(Facts { others: Some(8.0), ..QUIET }), "a busy machine has nobody at it");
    }

    #[test]
    fn a_blender_that_is_started_again_does_not_make_it_flap() {
        let open =
            |second: u64| Facts { blender: (5..20).contains(&second) || (25..30).contains(&second), ..QUIET };
        let why = Some("a Blender is open on its screen");
        check(&mut policy(Yields::Yes), open, 60, &[(5, why), (40, None)]);
    }

    #[test]
    fn a_busy_machine_must_be_so_for_a_while_and_then_be_quiet() {
        let why = Some("the machine is busy with other things");
        let short = |second: u64| Facts { others: Some(if second % 20 < 15 { 8.0 } else { 0.0 }), ..QUIET };
        check(&mut policy(Yields::Yes), short, 200, &[]);
        // Four of eight cores are too much; below three it is quiet.
        let long = |second: u64| {
            let others = match second {
                10..50 => 5.0,
                50..100 => 3.5,
                100..130 => 2.0,
                130..135 => 3.5,
                _ => 2.0,
            };
            Facts { others: Some(others), ..QUIET }
        };
        check(&mut policy(Yields::Yes), long, 300, &[(30, why), (195, None)]);
        let nothing_known = |_| Facts { others: None, ..QUIET };
        check(&mut policy(Yields::Yes), nothing_known, 100, &[]);
    }

    #[test]
    fn a_load_of_ones_own_choice() {
        let mut choosy = Policy::new(Wishes { yields: Yields::Yes, load: Some(1.0), ..Wishes::default() }, 8);
        let why = Some("the machine is busy with other things");
        check(&mut choosy, |_| Facts { others: Some(1.2), ..QUIET }, 30, &[(20, why)]);
    }

    #[test]
    fn sleep_goes_before_everything_and_says_until_when() {
        let sleep = vec!["11:00-13:00".parse().unwrap()];
        let mut policy = Policy::new(Wishes { sleep, yields: Yields::Yes, ..Wishes::default() }, 8);
        policy.saw(&Facts { blender: true, ..QUIET }, Instant::now());
        let rest = policy.rest(&wall()).unwrap();
        assert_eq!(rest.why, "asleep until 13:00");
        assert_eq!(rest.until_ms, Some(wall().timestamp().as_millisecond() + 3_600_000));
    }

    #[test]
    fn words_are_read_as_they_are_written() {
        assert_eq!("auto".parse(), Ok(Yields::Auto));
        assert_eq!(Yields::No.to_string(), "no");
        assert_eq!("maybe".parse::<Yields>(), Err("“maybe” is none of auto, yes, no".to_owned()));
        assert_eq!("stop".parse(), Ok(WhenUsed::Stop));
    }
}
