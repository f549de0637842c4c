//! Typed ids. Numbers serialise as numbers, all others as the text that they print and parse.

use std::{fmt, num::NonZeroU64, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{BadName, Name, pattern::digits_to};

/// A text that is not an id of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("“{text}” is not a {what}")]
pub struct BadId {
    what: &'static str,
    text: String,
}

impl BadId {
    fn new(what: &'static str, text: &str) -> Self {
        Self { what, text: text.chars().take(64).collect() }
    }
}

/// Reads digits alone: the parsers of Rust take a sign, too.
fn parse_digits<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident($int:ty), $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
        #[derive(utoipa::ToSchema)]
        #[serde(transparent)]
        pub struct $name(pub $int);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = BadId;
            fn from_str(s: &str) -> Result<Self, BadId> {
                parse_digits(s).map(Self).ok_or_else(|| BadId::new($what, s))
            }
        }
    };
}

number_id!(
    /// The number of a job, from 1.
    JobId(u64), "job id (a number, as `kiln jobs` prints it)"
);
number_id!(
    /// The position of a step in its job, from 0.
    StepIndex(u16), "step"
);
number_id!(
    /// The position of a task in its step, from 0; not its frame number.
    TaskIndex(u32), "task"
);
number_id!(
    /// The generation of a task, from 0; doing the task again raises it.
    Generation(u32), "generation"
);
number_id!(
    /// An epoch of the scheduler; every start of a server raises it, so that the ids of two epochs differ.
    Epoch(u32), "epoch"
);
number_id!(
    /// The number of a slot of a worker, from 0.
    SlotIndex(u16), "slot"
);
number_id!(
    /// A number in the farm's one sequence of events.
    EventNumber(u64), "event number"
);

/// Serialises a type as the text that it prints and parses.
macro_rules! text_serde {
    ($name:ident) => {
        impl ::serde::Serialize for $name {
            fn serialize<S: ::serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> ::serde::Deserialize<'de> for $name {
            fn deserialize<D: ::serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text: std::borrow::Cow<'de, str> = ::serde::Deserialize::deserialize(d)?;
                text.parse().map_err(::serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use text_serde;

/// The same, with the pattern and an example of its texts for the OpenAPI document.
macro_rules! text_id {
    ($name:ident, $pattern:expr, $example:literal) => {
        $crate::ids::text_serde!($name);
        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::Type::String)
                    .pattern(Some(format!("^{}$", $pattern)))
                    .examples([$example])
                    .into()
            }
        }
        impl utoipa::ToSchema for $name {}
    };
}
pub(crate) use text_id;

/// The id of a task; prints as `job.step.index`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    pub job: JobId,
    pub step: StepIndex,
    pub index: TaskIndex,
}
text_id!(
    TaskId,
    format!(
        "{}\\.{}\\.{}",
        digits_to(u64::MAX),
        digits_to(u64::from(u16::MAX)),
        digits_to(u64::from(u32::MAX))
    ),
    "17.0.42"
);

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.job, self.step, self.index)
    }
}

impl FromStr for TaskId {
    type Err = BadId;
    fn from_str(s: &str) -> Result<Self, BadId> {
        let bad = || BadId::new("task id (job.step.index)", s);
        let mut parts = s.split('.');
        let mut next = || parts.next().ok_or_else(bad);
        let (job, step, index) = (next()?.parse()?, next()?.parse()?, next()?.parse()?);
        if parts.next().is_some() { Err(bad()) } else { Ok(Self { job, step, index }) }
    }
}

/// The id of an attempt; prints as `epoch-counter`. A later attempt has a higher id, over all epochs of the scheduler, so
/// that the late report of an earlier attempt is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId {
    pub epoch: Epoch,
    pub counter: u64,
}
text_id!(AttemptId, format!("{}-{}", digits_to(u64::from(u32::MAX)), digits_to(u64::MAX)), "1-1");

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.counter)
    }
}

impl FromStr for AttemptId {
    type Err = BadId;
    fn from_str(s: &str) -> Result<Self, BadId> {
        let bad = || BadId::new("attempt id (epoch-counter)", s);
        let (epoch, counter) = s.split_once('-').ok_or_else(bad)?;
        Ok(Self { epoch: epoch.parse()?, counter: parse_digits(counter).ok_or_else(bad)? })
    }
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(NonZeroU64);
        text_id!($name, "(?!0{16})[0-9a-f]{16}", "00000000000000aa");

        impl $name {
            /// The lowest id.
            pub const MIN: Self = Self(NonZeroU64::MIN);

            pub const fn new(bits: NonZeroU64) -> Self {
                Self(bits)
            }

            /// `None` for zero, which is no id.
            pub fn from_bits(bits: u64) -> Option<Self> {
                NonZeroU64::new(bits).map(Self)
            }

            pub fn bits(self) -> u64 {
                self.0.get()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl FromStr for $name {
            type Err = BadId;
            fn from_str(s: &str) -> Result<Self, BadId> {
                let bad = || BadId::new($what, s);
                let hex = s.len() == 16 && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
                if !hex {
                    return Err(bad());
                }
                let bits = u64::from_str_radix(s, 16).map_err(|_| bad())?;
                Self::from_bits(bits).ok_or_else(bad)
            }
        }
    };
}

hex_id!(
    /// The permanent id of a worker: drawn at its first start and kept in its data folder. Sixteen hex digits.
    WorkerId, "worker id (16 hex digits)"
);
hex_id!(
    /// The id of a resumable upload in progress. Sixteen hex digits.
    UploadId, "upload id (16 hex digits)"
);

/// The id of a bundle: the hash of its manifest.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(transparent)]
pub struct BundleId(pub crate::BlobHash);

impl fmt::Display for BundleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for BundleId {
    type Err = crate::BadHash;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        s.parse().map(Self)
    }
}

macro_rules! name_id {
    ($(#[$doc:meta])* $name:ident, $default:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
        #[serde(transparent)]
        pub struct $name(pub Name);

        impl Default for $name {
            fn default() -> Self {
                Self(Name::from_static($default))
            }
        }

        impl FromStr for $name {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, BadName> {
                text.parse().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

name_id!(
    /// The user who owns a job or a bundle.
    Owner, "farm"
);
name_id!(
    /// The project that a job belongs to.
    Project, "default"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_print_and_parse() {
        let task: TaskId = "17.0.42".parse().unwrap();
        assert_eq!(task.to_string(), "17.0.42");
        let attempt: AttemptId = "3-127".parse().unwrap();
        assert_eq!(serde_json::to_string(&attempt).unwrap(), "\"3-127\"");
        let worker = WorkerId::from_bits(255).unwrap();
        assert_eq!(worker.to_string().parse::<WorkerId>().unwrap(), worker);
        for bad in ["", "1.2", "1.2.3.4", "a.b.c", "-1.0.0", "+1.0.0", "1.+0.0", "1.0."] {
            assert!(bad.parse::<TaskId>().is_err(), "{bad}");
        }
        assert_eq!(WorkerId::from_bits(0), None, "two workers would be one");
        for bad in ["", "00000000000000000", "0000000000000000", "+000000000000001", "zz"] {
            assert!(bad.parse::<WorkerId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn later_attempts_are_greater_over_epochs() {
        let at = |epoch, counter| AttemptId { epoch: Epoch(epoch), counter };
        assert!(at(2, 0) > at(1, u64::MAX));
    }
}
