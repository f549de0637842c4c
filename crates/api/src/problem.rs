//! Errors as RFC 9457 problem details.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What went wrong, for programs. The HTTP status of each is fixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemCode {
    /// No key, or a wrong one.
    Unauthorized,
    /// The key is right but the Host or Origin is not one that this server answers to.
    Forbidden,
    NotFound,
    /// The request does not parse, or names what cannot be.
    BadRequest,
    /// The thing is in a state that does not allow this.
    Conflict,
    /// It was there, and its time is over.
    Gone,
    /// An upload's part begins at another offset than the server stands at.
    OffsetMismatch,
    /// The bytes do not have the hash that was named.
    HashMismatch,
    /// The bytes are no whole .blend.
    NotABlend,
    TooLarge,
    /// The server's disk is full.
    NoSpace,
    /// The server speaks another version of the protocol.
    Version,
    Internal,
}

impl ProblemCode {
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest | Self::Version => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Conflict | Self::OffsetMismatch => 409,
            Self::Gone => 410,
            Self::TooLarge => 413,
            Self::HashMismatch | Self::NotABlend => 422,
            Self::Internal => 500,
            Self::NoSpace => 507,
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Self::Unauthorized => "A key is needed",
            Self::Forbidden => "Not from there",
            Self::NotFound => "No such thing",
            Self::BadRequest => "The request is not understood",
            Self::Conflict => "Not possible now",
            Self::Gone => "Not kept any more",
            Self::OffsetMismatch => "The upload stands elsewhere",
            Self::HashMismatch => "The bytes do not match their hash",
            Self::NotABlend => "Not a .blend",
            Self::TooLarge => "Too large",
            Self::NoSpace => "The disk is full",
            Self::Version => "Another version",
            Self::Internal => "The server failed",
        }
    }
}

/// An error of the API (RFC 9457, `application/problem+json`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[error("{detail}")]
pub struct Problem {
    /// `about:kiln/` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    /// One sentence for a person: what happened, and what to do next.
    pub detail: String,
    pub code: ProblemCode,
    /// With `offset-mismatch`: where the upload stands, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
}

impl Problem {
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        let name =
            serde_json::to_value(code).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
        Self {
            kind: format!("about:kiln/{name}"),
            title: code.title().to_owned(),
            status: code.status(),
            detail: detail.into(),
            code,
            offset: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_reads_as_rfc_9457() {
        let json = serde_json::to_value(Problem::new(ProblemCode::NotFound, "There is no job 7.")).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "type": "about:kiln/not-found", "title": "No such thing", "status": 404,
                "detail": "There is no job 7.", "code": "not-found"
            })
        );
    }
}
