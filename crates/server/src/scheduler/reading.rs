//! The jobs that are being read from the records.

use std::{collections::HashMap, sync::Arc};

use kiln_store::{ProductKey, Store, StoreError};
use kiln_types::JobId;
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::task::AbortOnDropHandle;

use super::{
    input::{JobCommand, Reply},
    restore::LoadedJob,
};

/// The jobs that are being read: the core has forgotten a job that ended long ago, until a command concerns it.
pub(super) struct Loading {
    /// With a connection of its own: the short queries of the loop do not wait behind a large job.
    store: Store,
    /// Admits one read at a time, so that memory holds one job.
    turn: Arc<Semaphore>,
    pub jobs: HashMap<JobId, PendingJob>,
    tasks: JoinSet<ReadJob>,
}

/// A job and its records; `None` if there is no such job.
pub(super) type ReadJob = (JobId, Result<Option<LoadedJob>, String>);

/// The commands and changes that wait until a job is read.
#[derive(Default)]
pub(super) struct PendingJob {
    pub commands: Vec<(JobCommand, Reply<u32>)>,
    /// The time at which its files were removed meanwhile.
    pub inputs_gone_ms: Option<i64>,
    /// The intermediate files that were removed meanwhile.
    pub without_files: Vec<ProductKey>,
}

impl Loading {
    pub(super) fn new(store: Store) -> Self {
        let (jobs, tasks) = (HashMap::new(), JoinSet::new());
        Self { store, turn: Arc::new(Semaphore::new(1)), jobs, tasks }
    }

    pub(super) fn store(&self) -> Store {
        self.store.clone()
    }

    /// Waits for the next job that was read; `None` if none is being read.
    pub(super) async fn next(&mut self) -> Option<ReadJob> {
        self.tasks.join_next().await?.ok()
    }

    /// Returns the next job that was read, without waiting.
    pub(super) fn try_next(&mut self) -> Option<ReadJob> {
        self.tasks.try_join_next()?.ok()
    }

    pub(super) fn begin(&mut self, job: JobId, command: JobCommand, reply: Reply<u32>) {
        self.jobs.entry(job).or_default().commands.push((command, reply));
        let (store, turn) = (self.store.clone(), self.turn.clone());
        let read = async move {
            let _turn = turn.acquire_owned().await;
            match store.stored_job(job).await? {
                Some(stored) => LoadedJob::read(&store, stored).await.map(Some),
                None => Ok(None),
            }
        };
        // The commands are answered even if the read panics.
        let read = AbortOnDropHandle::new(tokio::spawn(read));
        self.tasks.spawn(async move {
            let read = read
                .await
                .unwrap_or_else(|panic| Err(StoreError::Damaged { what: "job", why: panic.to_string() }));
            (job, read.map_err(|error| error.to_string()))
        });
    }
}
