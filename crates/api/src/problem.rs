//! Errors as RFC 9457 problem details.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The kind of a problem, for programs. Each has one HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemCode {
    /// No key, or a wrong one.
    Unauthorized,
    /// The key is right, but the server does not answer to this Host or Origin.
    Forbidden,
    NotFound,
    /// The request does not match `openapi.json`.
    BadRequest,
    /// The request matches `openapi.json`, and cannot be met.
    Unprocessable,
    /// The path exists, but not with this method.
    MethodNotAllowed,
    /// The path takes WebSocket connections only.
    UpgradeRequired,
    /// The range begins behind the last byte.
    RangeNotSatisfiable,
    /// The server has too many connections, or has just restarted its scheduler: the same request may succeed later.
    Busy,
    /// The state of the object does not allow this.
    Conflict,
    /// The object existed, and has expired.
    Gone,
    /// An upload's part does not begin at the offset of the upload.
    OffsetMismatch,
    /// The bytes do not have the hash in the request.
    HashMismatch,
    /// The bytes are not a complete .blend.
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
        self.status_and_title().0
    }

    pub fn title(self) -> &'static str {
        self.status_and_title().1
    }

    fn status_and_title(self) -> (u16, &'static str) {
        match self {
            Self::Unauthorized => (401, "A key is needed"),
            Self::Forbidden => (403, "Not from there"),
            Self::NotFound => (404, "No such thing"),
            Self::BadRequest => (400, "The request is not understood"),
            Self::Unprocessable => (422, "The request cannot be met"),
            Self::MethodNotAllowed => (405, "Not this method"),
            Self::UpgradeRequired => (426, "A WebSocket"),
            Self::RangeNotSatisfiable => (416, "Not in range"),
            Self::Busy => (503, "The server is busy"),
            Self::Conflict => (409, "Not possible now"),
            Self::Gone => (410, "Not kept any more"),
            Self::OffsetMismatch => (409, "The upload is at another offset"),
            Self::HashMismatch => (422, "The bytes do not match their hash"),
            Self::NotABlend => (422, "Not a .blend"),
            Self::TooLarge => (413, "Too large"),
            Self::NoSpace => (507, "The disk is full"),
            Self::Version => (400, "Another version"),
            Self::Internal => (500, "The server failed"),
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
    /// With `offset-mismatch`: the offset of the upload, in bytes.
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
