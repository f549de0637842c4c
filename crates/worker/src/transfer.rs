//! Errors of transfers from the server, sorted by what the worker does next.

use std::{io, time::Duration};

use kiln_blobs::BlobError;
use kiln_client::{Backoff, ClientError};
use kiln_types::{Failure, FailureCause};
use tokio::task::JoinError;

use crate::scratch::{disk_full, write_failure};

/// The waits of a worker for a server that is away.
pub(crate) fn backoff() -> Backoff {
    Backoff::new(Duration::from_millis(200), Duration::from_secs(10))
}

/// The reason for which a transfer did not succeed.
#[derive(Debug)]
pub(crate) enum TransferError {
    /// The server is away, or bytes were damaged on the way: try again.
    Transient(String),
    Permanent(Failure),
}

pub(crate) fn unavailable(why: String) -> Failure {
    Failure::new(FailureCause::BundleUnavailable, format!("the job's files cannot be brought here: {why}"))
}

/// The failure of a write to the disk; `why` describes it unless the disk is full.
pub(crate) fn not_stored(error: &io::Error, why: String) -> Failure {
    write_failure(error, || unavailable(why))
}

impl From<ClientError> for TransferError {
    fn from(error: ClientError) -> Self {
        if error.is_transient() {
            Self::Transient(error.to_string())
        } else {
            Self::Permanent(unavailable(error.to_string()))
        }
    }
}

impl From<BlobError> for TransferError {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::NoSpace | BlobError::Reserved { .. } => Self::Permanent(disk_full()),
            BlobError::Stream(source) => match source.downcast::<ClientError>() {
                Ok(error) => (*error).into(),
                Err(error) => Self::Transient(error.to_string()),
            },
            BlobError::Mismatch { .. } | BlobError::Damaged(_) => Self::Transient(error.to_string()),
            _ => Self::Permanent(unavailable(error.to_string())),
        }
    }
}

impl From<Failure> for TransferError {
    fn from(failure: Failure) -> Self {
        Self::Permanent(failure)
    }
}

impl From<JoinError> for TransferError {
    fn from(error: JoinError) -> Self {
        Self::Permanent(unavailable(error.to_string()))
    }
}

impl From<io::Error> for TransferError {
    fn from(error: io::Error) -> Self {
        Self::Permanent(not_stored(&error, error.to_string()))
    }
}

/// The waits between the tries of one transfer.
#[derive(Debug)]
pub(crate) struct TransferRetry(Backoff);

impl TransferRetry {
    pub(crate) fn new() -> Self {
        Self(backoff())
    }

    /// Waits before the next try.
    ///
    /// # Errors
    /// If the error is permanent.
    pub(crate) async fn wait(&mut self, error: TransferError) -> Result<(), Failure> {
        match error {
            TransferError::Permanent(failure) => Err(failure),
            TransferError::Transient(error) => {
                tracing::debug!(%error, "transfer failed; trying again");
                tokio::time::sleep(self.0.failed()).await;
                Ok(())
            }
        }
    }
}
