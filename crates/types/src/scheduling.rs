//! The scheduling options of a job, and its requirements of a worker besides its Blender.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    num::{NonZeroU16, NonZeroU32},
    str::FromStr,
};

use serde::{Deserialize, Serialize};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};

use crate::{JobId, ShortName, pattern::one_to, render::text_enum};

/// A priority from 0 to 100; the higher one is served first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Priority(u8);

impl Priority {
    pub const MAX: Self = Self(100);

    pub fn get(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self(50)
    }
}

/// A number or a text that is not a priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a priority is a number from 0 to {}; higher is earlier", Priority::MAX.0)]
pub struct BadPriority;

impl TryFrom<u8> for Priority {
    type Error = BadPriority;

    fn try_from(number: u8) -> Result<Self, BadPriority> {
        if number <= Self::MAX.0 { Ok(Self(number)) } else { Err(BadPriority) }
    }
}

impl From<Priority> for u8 {
    fn from(priority: Priority) -> Self {
        priority.0
    }
}

impl FromStr for Priority {
    type Err = BadPriority;

    fn from_str(text: &str) -> Result<Self, BadPriority> {
        text.parse::<u8>().map_err(|_| BadPriority)?.try_into()
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl utoipa::PartialSchema for Priority {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::Integer)
            .description(Some("0 to 100; higher is earlier."))
            .minimum(Some(0))
            .maximum(Some(Self::MAX.0))
            .default(Some(Self::default().0.into()))
            .into()
    }
}

impl ToSchema for Priority {}

/// The scheduling options of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct JobScheduling {
    pub priority: Priority,
    /// Jobs that must be completed before it starts.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    #[schema(value_type = Vec<JobId>, max_items = 64)]
    pub after: BTreeSet<JobId>,
    /// The earliest start, in Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before_ms: Option<i64>,
    /// Workers that may run the job at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, minimum = 1)]
    pub max_workers: Option<NonZeroU32>,
}

/// The requirements of each frame of a job of its worker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct JobRequirements {
    /// Cores, and so threads, of each Blender; by default an equal part of the worker's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 1024)]
    pub cores: Option<NonZeroU32>,
    /// Bytes that are reserved for each Blender; more if earlier frames took more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// GPUs of each frame; ignored for a job on the processor.
    pub gpus: GpuUse,
    /// Least memory of each GPU, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_memory: Option<u64>,
    /// Nothing else renders on the same machine.
    #[serde(skip_serializing_if = "is_false")]
    pub whole: bool,
    /// Tags that the worker must have.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    #[schema(value_type = Vec<ShortName>, max_items = 64)]
    pub tags: BTreeSet<ShortName>,
    /// Only workers of this pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<ShortName>,
    /// Limits of the farm (licences) by name, and the units of each that a Blender uses while it renders.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(schema_with = limits_schema)]
    pub limits: BTreeMap<ShortName, NonZeroU32>,
}

fn limits_schema() -> RefOr<Schema> {
    let count =
        ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(u32::MAX as usize));
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .description(Some(
            "Limits of the farm (licences) by name, and how many of each a Blender holds while it renders.",
        ))
        .property_names(Some(ShortName::schema()))
        .additional_properties(Some(count))
        .max_properties(Some(64))
        .into()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes what it has")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// The number of GPUs of a frame. Prints and parses as one text: `1`, `2`, `all`; `each` is `1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GpuUse {
    /// A number for each Blender; with 1, each GPU renders a frame of its own.
    Count(NonZeroU16),
    /// Every GPU of the worker, on one frame.
    All,
}
crate::ids::text_serde!(GpuUse);

impl GpuUse {
    /// The most GPUs of a worker.
    const MOST: u16 = 64;
}

impl Default for GpuUse {
    fn default() -> Self {
        Self::Count(NonZeroU16::MIN)
    }
}

impl fmt::Display for GpuUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => count.fmt(f),
            Self::All => f.pad("all"),
        }
    }
}

/// A text that is not a number of GPUs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "“{0}” is not a number of GPUs; write each (one GPU a frame), all (every GPU on one frame), or a number \
     from 1 to 64"
)]
pub struct BadGpuUse(String);

impl FromStr for GpuUse {
    type Err = BadGpuUse;

    fn from_str(text: &str) -> Result<Self, BadGpuUse> {
        match text {
            "each" => Ok(Self::default()),
            "all" => Ok(Self::All),
            // One text for each number: no sign, no leading zero.
            _ => Some(text)
                .filter(|text| text.starts_with(|first| matches!(first, '1'..='9')))
                .and_then(|text| text.parse().ok())
                .filter(|count: &NonZeroU16| count.get() <= Self::MOST)
                .map(Self::Count)
                .ok_or_else(|| BadGpuUse(text.chars().take(40).collect())),
        }
    }
}

impl utoipa::PartialSchema for GpuUse {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(
                "The GPUs of a frame: `1` (each GPU renders a frame of its own), another number, or `all` GPUs of \
                 the worker.",
            ))
            .pattern(Some(format!("^(all|each|{})$", one_to(u64::from(Self::MOST)))))
            .examples(["1", "2", "all"])
            .into()
    }
}

impl ToSchema for GpuUse {}

text_enum!(
    /// The kinds of fair-share accounts.
    AccountKind {
        User = "user",
        Project = "project",
    }
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_priority_goes_from_0_to_100() {
        assert_eq!("100".parse(), Ok(Priority::MAX));
        assert_eq!(serde_json::from_str::<Priority>("7").unwrap().get(), 7);
        for bad in ["101", "-1", "", "high", "256"] {
            assert_eq!(bad.parse::<Priority>(), Err(BadPriority), "{bad}");
        }
        assert!(serde_json::from_str::<Priority>("101").is_err());
    }

    #[test]
    fn gpus_are_one_text_everywhere() {
        for (text, shown) in [("each", "1"), ("1", "1"), ("64", "64"), ("all", "all")] {
            let gpus: GpuUse = text.parse().unwrap();
            assert_eq!(gpus.to_string(), shown);
            assert_eq!(serde_json::to_string(&gpus).unwrap(), format!("\"{shown}\""));
            assert_eq!(serde_json::from_str::<GpuUse>(&format!("\"{text}\"")).unwrap(), gpus);
        }
        for bad in ["", "0", "65", "-1", "none", "1.5"] {
            assert!(bad.parse::<GpuUse>().is_err(), "{bad}");
        }
    }

    #[test]
    fn jobs_that_were_stored_without_scheduling_options_have_the_defaults() {
        assert_eq!(serde_json::from_str::<JobScheduling>("{}").unwrap(), JobScheduling::default());
        assert_eq!(serde_json::from_str::<JobRequirements>("{}").unwrap(), JobRequirements::default());
        assert_eq!(serde_json::to_string(&JobScheduling::default()).unwrap(), r#"{"priority":50}"#);
    }
}
