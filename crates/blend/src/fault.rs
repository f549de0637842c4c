//! Errors of reading a .blend.

use std::path::{Path, PathBuf};

use kiln_types::BlenderVersion;

/// A .blend that cannot be used, and why.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be used: {fault}", path.display())]
pub struct BlendError {
    pub path: PathBuf,
    #[source]
    pub fault: BlendFault,
}

/// The reason why a file cannot be read as a .blend.
#[derive(Debug, thiserror::Error)]
pub enum BlendFault {
    #[error("it does not exist")]
    NotFound,
    #[error("it is a folder; name the .blend inside it")]
    Folder,
    #[error("it is not a regular file")]
    NotAFile,
    #[error("it cannot be read: {0}")]
    Unreadable(#[source] std::io::Error),
    #[error("it is empty")]
    Empty,
    #[error("it is not a .blend file")]
    NotABlend,
    #[error(
        "it was written by Blender {0}, and files from before 2.50 cannot be read; save it again with a newer one"
    )]
    TooOld(BlenderVersion),
    #[error("it has a file format newer than this Kiln knows; update Kiln")]
    TooNew,
    /// The file ends before its end mark.
    #[error("it is cut off: {what} at byte {at} is not all there; save or copy it again")]
    Truncated { what: String, at: u64 },
    #[error("it is damaged at byte {at}: {what}")]
    Damaged { what: String, at: u64 },
    /// The file's own description of its fields makes no sense.
    #[error("it is damaged: {0}")]
    Dna(String),
    /// Reading it would take more than the limits allow.
    #[error("it unpacks to more than {0} MiB, which no scene of its size does")]
    Bomb(u64),
    #[error("it changed while it was read; try again")]
    Changed,
    #[error("it holds more {0} than can be read")]
    TooMany(&'static str),
}

impl BlendFault {
    pub(crate) fn at(self, path: &Path) -> BlendError {
        BlendError { path: path.to_owned(), fault: self }
    }

    pub(crate) fn dna(why: impl Into<String>) -> Self {
        Self::Dna(why.into())
    }
}
