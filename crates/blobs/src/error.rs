//! Errors of storing and reading bytes.

use std::io;
use std::path::{Path, PathBuf};

use kiln_chunks::FrameError;
use kiln_types::{BlobHash, UploadId};

/// An error of whatever the bytes come from.
pub type StreamError = Box<dyn std::error::Error + Send + Sync>;

/// The reason why bytes could not be stored or read. A put that fails leaves nothing behind.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    #[error(
        "the bytes that arrived are not the ones announced (announced {expected}, found {found}); send them again"
    )]
    Mismatch { expected: BlobHash, found: BlobHash },
    #[error("more than the {limit} bytes allowed arrived")]
    TooLarge { limit: u64 },
    #[error("the disk is full; free some space and try again")]
    NoSpace,
    #[error("the disk is full ({} MiB left); free some space and try again", free >> 20)]
    Reserved { free: u64 },
    #[error("there is no blob {0}")]
    NotFound(BlobHash),
    #[error("the stored blob {0} was damaged and has been removed; send it again")]
    Damaged(BlobHash),
    #[error("there is no upload {0}; it was finished, aborted or has expired")]
    NoUpload(UploadId),
    #[error("the upload has {right} bytes; continue from there")]
    WrongOffset { right: u64 },
    #[error("another request writes to this upload; wait until it ends")]
    Busy,
    #[error("the upload has {have} of {want} bytes; send the rest before finishing it")]
    Incomplete { have: u64, want: u64 },
    #[error("the upload was announced with {want} bytes and more arrived")]
    BeyondSize { want: u64 },
    #[error(
        "“{0}” cannot be the name of an upload: 1 to 1,024 bytes without control characters are expected"
    )]
    BadName(String),
    #[error("{count} chunks of it are not there; send them first")]
    Lacking { count: usize },
    #[error("the list of chunks gives chunk {0} a wrong length; make the list again")]
    WrongLength(BlobHash),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the bytes stopped arriving: {0}")]
    Stream(#[source] StreamError),
    #[error("cannot {doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
}

impl BlobError {
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace,
            _ => Self::Io { doing, path, source },
        }
    }
}
