//! The farm as a whole: who shares it, what it has only so many of, and its pools of workers.

use std::collections::BTreeSet;

use kiln_types::ShortName;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

/// A user or a project, and how it shares the farm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AccountView {
    pub name: String,
    /// Of two that have work, one of twice the weight gets twice the time.
    pub weight: u32,
    /// Slots that it may hold at once; `null` for as many as there are.
    pub max_slots: Option<u32>,
    /// Slots that it holds now.
    pub slots: u32,
    /// Its jobs that have not ended.
    pub jobs: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserList {
    /// Those who have a job that has not ended, or of whom something was set.
    pub users: Vec<AccountView>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProjectList {
    /// Those that have a job that has not ended, or of which something was set.
    pub projects: Vec<AccountView>,
}

/// How a user or a project shares the farm from now on. What is absent stays as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SetShare {
    /// 1 to 10000; 100 until told otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 10_000)]
    pub weight: Option<u32>,
    /// `null` for as many as there are.
    #[serde(default, deserialize_with = "told", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>)]
    pub max_slots: Option<Option<u32>>,
}

/// Something of which the farm has only so many, such as the licences of an engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LimitView {
    pub name: String,
    pub total: u32,
    pub in_use: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LimitList {
    pub limits: Vec<LimitView>,
}

/// How many there are. Fewer than are in use stops nothing that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SetLimit {
    pub total: u32,
}

/// Puts a worker into pools and takes it out of others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangePools {
    #[serde(default)]
    #[schema(value_type = Vec<ShortName>)]
    pub add: BTreeSet<ShortName>,
    #[serde(default)]
    #[schema(value_type = Vec<ShortName>)]
    pub remove: BTreeSet<ShortName>,
}

/// Tells a field that is `null` from one that is absent.
pub(crate) fn told<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_takes_a_cap_away_and_absence_leaves_it() {
        let read = |text: &str| serde_json::from_str::<SetShare>(text).unwrap();
        assert_eq!(read("{}"), SetShare::default());
        assert_eq!(read(r#"{"max_slots":null}"#).max_slots, Some(None));
        assert_eq!(read(r#"{"max_slots":3}"#).max_slots, Some(Some(3)));
        for share in
            [SetShare::default(), read(r#"{"max_slots":null}"#), read(r#"{"weight":7,"max_slots":0}"#)]
        {
            assert_eq!(read(&serde_json::to_string(&share).unwrap()), share);
        }
    }
}
