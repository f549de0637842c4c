//! The fair shares, limits and pools of the farm.

use std::collections::BTreeSet;

use kiln_types::ShortName;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

/// A user or a project, its share of the farm and its use of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AccountView {
    pub name: String,
    /// Of two accounts that have work, one of twice the weight gets twice the time.
    pub weight: u32,
    /// Slots that it may hold at once; `null` for any number.
    pub max_slots: Option<u32>,
    /// Slots that it uses now.
    pub slots: u32,
    /// Jobs that have not ended.
    pub jobs: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserList {
    /// Those with a job that has not ended, or with a share that was set.
    pub users: Vec<AccountView>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProjectList {
    /// Those with a job that has not ended, or with a share that was set.
    pub projects: Vec<AccountView>,
}

/// Changes the share of a user or a project. Absent fields stay as they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SetShare {
    /// 1 to 10000; 100 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 10_000)]
    pub weight: Option<u32>,
    /// `null` for any number.
    #[serde(default, deserialize_with = "deserialize_nullable", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>)]
    pub max_slots: Option<Option<u32>>,
}

/// A limited resource of the farm, such as the licences of an engine.
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

/// Sets the total of a limit. A total below the number in use stops nothing that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SetLimit {
    pub total: u32,
}

/// Adds a worker to pools and removes it from others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangePools {
    #[serde(default)]
    #[schema(value_type = Vec<ShortName>)]
    pub add: BTreeSet<ShortName>,
    #[serde(default)]
    #[schema(value_type = Vec<ShortName>)]
    pub remove: BTreeSet<ShortName>,
}

/// Reads a field that is `null` as `Some(None)`, so that an absent one differs from it.
pub(crate) fn deserialize_nullable<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<T>, D::Error> {
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
