//! The query parameters of lists, as strict as in the OpenAPI document.

use std::{borrow::Cow, fmt::Display, str::FromStr};

use serde::{Deserialize, Deserializer, de::Error};

/// The largest number of entries in an answer: 1 to `MOST`, by default `USUAL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u32")]
pub(super) struct PageSize<const USUAL: u32, const MOST: u32>(u32);

impl<const USUAL: u32, const MOST: u32> PageSize<USUAL, MOST> {
    pub(super) fn get(self) -> u32 {
        self.0
    }
}

impl<const USUAL: u32, const MOST: u32> Default for PageSize<USUAL, MOST> {
    fn default() -> Self {
        Self(USUAL)
    }
}

impl<const USUAL: u32, const MOST: u32> TryFrom<u32> for PageSize<USUAL, MOST> {
    type Error = String;

    fn try_from(count: u32) -> Result<Self, String> {
        if (1..=MOST).contains(&count) {
            Ok(Self(count))
        } else {
            Err(format!("a page holds 1 to {MOST} entries; further ones are on the next page"))
        }
    }
}

/// Values with commas between them; none if the parameter is absent.
#[derive(Debug)]
pub(super) struct CommaSeparated<T>(pub Vec<T>);

impl<T> Default for CommaSeparated<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: FromStr<Err: Display>> Deserialize<'de> for CommaSeparated<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text: Cow<'de, str> = Deserialize::deserialize(from)?;
        text.split(',').map(str::parse).collect::<Result<_, _>>().map(Self).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Uri;
    use kiln_types::JobState;

    use super::*;

    #[derive(Deserialize)]
    struct Which {
        #[serde(default)]
        limit: PageSize<50, 500>,
        #[serde(default)]
        state: CommaSeparated<JobState>,
    }

    fn read(query: &str) -> Option<(u32, Vec<JobState>)> {
        let uri: Uri = format!("/?{query}").parse().unwrap();
        let which = axum::extract::Query::<Which>::try_from_uri(&uri).ok()?.0;
        Some((which.limit.get(), which.state.0))
    }

    #[test]
    fn what_the_document_does_not_describe_is_refused() {
        assert_eq!(read(""), Some((50, Vec::new())));
        assert_eq!(
            read("limit=500&state=queued,failed"),
            Some((500, vec![JobState::Queued, JobState::Failed]))
        );
        for bad in [
            "limit=0",
            "limit=501",
            "limit=",
            "limit=-1",
            "limit=1&limit=2",
            "state=",
            "state=queued,",
            "state=queued,%20failed",
            "state=Queued",
            "state=queued&state=failed",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
