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
    /// The request is none that `openapi.json` describes.
    BadRequest,
    /// The request is well formed, and asks for what cannot be: no schema can say so.
    Unprocessable,
    /// The path is there, and does not take this method.
    MethodNotAllowed,
    /// The path is a WebSocket's.
    UpgradeRequired,
    /// The range lies beyond the bytes.
    RangeNotSatisfiable,
    /// The server has as many connections as it takes, or has begun again from its records: the same request may do later.
    Busy,
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
    pub const ALL: [Self; 18] = [
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::BadRequest,
        Self::Unprocessable,
        Self::MethodNotAllowed,
        Self::UpgradeRequired,
        Self::RangeNotSatisfiable,
        Self::Busy,
        Self::Conflict,
        Self::Gone,
        Self::OffsetMismatch,
        Self::HashMismatch,
        Self::NotABlend,
        Self::TooLarge,
        Self::NoSpace,
        Self::Version,
        Self::Internal,
    ];

    /// The code as it is written in JSON.
    pub fn name(self) -> String {
        let name = serde_json::to_value(self).ok();
        name.and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
    }

    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest | Self::Version => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Conflict | Self::OffsetMismatch => 409,
            Self::Gone => 410,
            Self::TooLarge => 413,
            Self::RangeNotSatisfiable => 416,
            Self::HashMismatch | Self::NotABlend | Self::Unprocessable => 422,
            Self::UpgradeRequired => 426,
            Self::Internal => 500,
            Self::Busy => 503,
            Self::NoSpace => 507,
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Self::Unauthorized => "A key is needed",
            Self::Forbidden => "Not from there",
            Self::NotFound => "No such thing",
            Self::BadRequest => "The request is not understood",
            Self::Unprocessable => "The request cannot be met",
            Self::MethodNotAllowed => "Not this method",
            Self::UpgradeRequired => "A WebSocket",
            Self::RangeNotSatisfiable => "Not in range",
            Self::Busy => "The server is busy",
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
        Self {
            kind: format!("about:kiln/{}", code.name()),
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
    fn every_code_is_listed_once() {
        let mut names: Vec<String> = ProblemCode::ALL.iter().map(|code| code.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ProblemCode::ALL.len());
        // What the document lists is what the type has.
        let json = serde_json::to_value(<ProblemCode as utoipa::PartialSchema>::schema()).unwrap();
        assert_eq!(json["enum"].as_array().map(Vec::len), Some(names.len()), "{json}");
    }

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
