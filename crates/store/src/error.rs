//! The errors of the records.

use std::io;
use std::path::{Path, PathBuf};

use kiln_types::{BundleId, Epoch};

/// An error of opening, reading or writing the records. A write that fails changes nothing.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("another Kiln server already uses {}; stop it, or choose another folder with --data", .0.display())]
    AlreadyRunning(PathBuf),
    #[error(
        "the database in {} was written by a newer Kiln (schema {found}, this one knows {known}); \
         update Kiln, or restore the copy made before the update",
        folder.display()
    )]
    Newer { folder: PathBuf, found: i64, known: i64 },
    #[error("another server has taken over these records (its epoch is {found}, this server's is {own})")]
    Superseded { own: Epoch, found: Epoch },
    #[error("the disk that holds the database is full; free some space and try again")]
    NoSpace,
    #[error("the bundle {0} has expired; send the files again")]
    NoBundle(BundleId),
    #[error("another worker is already named “{0}”; give this one another name")]
    WorkerNameTaken(String),
    #[error("the records are closed, because the server is stopping; try again when it is back")]
    Closed,
    #[error("a stored {what} cannot be read back: {why}; restore the database from a copy")]
    Damaged { what: &'static str, why: String },
    #[error("cannot {doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "the database could not be brought to this version's schema: {0}; the copy made before is untouched"
    )]
    Migrate(#[source] sqlx::migrate::MigrateError),
    #[error("the database did not answer as it should: {0}")]
    Database(#[source] sqlx::Error),
}

/// SQLite's primary result code for a full disk (`SQLITE_FULL`).
const SQLITE_FULL: i64 = 13;

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(|e| e.code()).and_then(|code| code.parse::<i64>().ok());
        // The low byte of an extended result code is its primary one.
        if code.is_some_and(|code| code & 0xff == SQLITE_FULL) {
            Self::NoSpace
        } else {
            Self::Database(error)
        }
    }
}

impl StoreError {
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace,
            _ => Self::Io { doing, path, source },
        }
    }

    pub(crate) fn damaged(what: &'static str, why: impl std::fmt::Display) -> Self {
        Self::Damaged { what, why: why.to_string() }
    }
}
