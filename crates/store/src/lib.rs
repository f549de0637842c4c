//! Durable records in SQLite: jobs, tasks, attempts, outputs, workers, bundles, and the numbered events.
//!
//! All writes go through one connection, one transaction after the other. The scheduler alone changes the state of jobs,
//! tasks, attempts and workers: it commits batches of [`Write`]s, each batch one transaction, and expires what is due.
//! Requests add bundles; the collector removes the rows of deleted jobs, the file lists of removed bundles, and old events.
//! Readers have connections of their own and never wait for a writer. Work that grows with the farm is done by a reader, or
//! in small transactions, so that no batch waits for it. The caller passes all times and ids.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod bulk;
mod bundles;
mod commit;
mod delete;
mod due;
mod error;
mod expire;
mod needed;
mod open;
#[cfg(test)]
mod plan_tests;
mod read_farm;
mod read_jobs;
mod read_tasks;
mod records;
mod share;
mod sql;
mod write;

use std::fs::File;
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use kiln_types::Epoch;
use sqlx::{SqliteConnection, SqlitePool};
use tokio::sync::{Mutex, Notify};

pub use due::{Due, ProductKey};
pub use error::StoreError;
pub use expire::{Expired, Expiry};
pub use kiln_files::Durability;
pub use open::ReadPool;
pub use records::{
    AttemptRow, AttemptSelection, BundleRow, FileFilter, FileRow, JobRow, JobSelection, Notice, OutputRow,
    RetentionRow, ShareRow, StepRow, StoredEvent, StoredJob, StoredStep, TaskFaults, TaskFilter, TaskRow,
    TaskRun, WorkerRow, WorkerTotals,
};
pub use write::{FileKind, NewBundle, NewEvent, NewProduct, NewStep, TaskProduct, Write};

/// The records of one data folder; cheap to clone. The folder stays locked until the last clone is dropped. A clone reads by
/// one pool of connections, see [`Store::reading_by`].
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
    readers: SqlitePool,
}

#[derive(Debug)]
struct Inner {
    /// `None` once closed.
    writer: Mutex<Option<SqliteConnection>>,
    pools: open::Pools,
    /// Notified when a job is deleted, so that its rows are removed.
    deleted: Notify,
    epoch: AtomicU32,
    /// The last field: the connections are dropped before the lock.
    _lock: File,
}

impl Store {
    /// The epoch of the scheduler.
    pub fn epoch(&self) -> Epoch {
        Epoch(self.inner.epoch.load(Ordering::Acquire))
    }
}
