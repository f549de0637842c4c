//! The errors between a client and its server.

use std::{io, path::PathBuf};

use kiln_api::{Problem, ProblemCode};
use kiln_types::BlobHash;

/// An error of a request. It prints as one sentence: what happened and what to do next.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("the server {url} cannot be reached ({why}); check that it runs and that the address is right")]
    Unreachable { url: String, why: String },
    #[error("“{url}” is not the address of a server ({why}); write it like http://192.168.1.20:8765")]
    BadUrl { url: String, why: String },
    #[error(
        "the server {url} does not accept this key; pass the one in its farm.key with --key-file or KILN_KEY"
    )]
    WrongKey { url: String },
    /// A refusal of the server, with its message.
    #[error("{0}")]
    Problem(Box<Problem>),
    #[error("{0}")]
    OtherVersion(String),
    #[error("{url} answers, but is not a Kiln server; check the address")]
    NotKiln { url: String },
    /// An answer that broke off, or that this version does not understand.
    #[error("the server {url} gave an answer that cannot be used ({why}); try again")]
    Broken { url: String, why: String },
    /// The server closed or refused the connection of a worker.
    #[error("the server {url} closed the connection: {why}")]
    Closed { url: String, why: String },
    #[error(
        "the bytes of blob {hash} were damaged on the way; try again, and check the network if it happens again"
    )]
    Damaged { hash: BlobHash },
    #[error("{} changed while it was being sent; save it, then run the command again", path.display())]
    Changed { path: PathBuf },
    #[error("{} cannot be {doing} ({source}); check the path and its permissions", path.display())]
    File { path: PathBuf, doing: &'static str, source: io::Error },
}

impl ClientError {
    /// Returns whether the same request may succeed a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } | Self::Closed { .. } | Self::Damaged { .. } => {
                true
            }
            Self::Problem(problem) => matches!(problem.code, ProblemCode::Internal | ProblemCode::Busy),
            _ => false,
        }
    }

    /// Returns the code of a refusal of the server.
    pub fn code(&self) -> Option<ProblemCode> {
        match self {
            Self::Problem(problem) => Some(problem.code),
            Self::WrongKey { .. } => Some(ProblemCode::Unauthorized),
            _ => None,
        }
    }

    pub(crate) fn file(path: impl Into<PathBuf>, doing: &'static str, source: io::Error) -> Self {
        Self::File { path: path.into(), doing, source }
    }
}

/// Returns the innermost cause: “connection refused” without the layers around it.
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}
