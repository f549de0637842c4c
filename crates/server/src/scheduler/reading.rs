//! The jobs that are being read back from the records.

use std::{collections::HashMap, sync::Arc};

use kiln_store::{ProductKey, Store, StoreError};
use kiln_types::JobId;
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::task::AbortOnDropHandle;

use super::{
    input::{JobAction, Reply},
    restore::Loaded,
};

/// Jobs that are being read back: of one that ended long ago the core knows nothing any more until somebody wants
/// something of it.
pub(super) struct Loading {
    /// Read by a connection of its own: the loop's short questions do not wait behind a large job.
    store: Store,
    /// One at a time, so that memory holds one.
    turn: Arc<Semaphore>,
    pub jobs: HashMap<JobId, PendingJob>,
    tasks: JoinSet<ReadJob>,
}

/// A job, and what the records have of it: nothing where there is none of that number.
pub(super) type ReadJob = (JobId, Result<Option<Loaded>, String>);

/// The requests and changes that wait until a job is read.
#[derive(Default)]
pub(super) struct PendingJob {
    /// In the order in which it was asked for.
    pub verbs: Vec<(JobAction, Reply<u32>)>,
    /// Its files went meanwhile, at this time.
    pub inputs_gone_ms: Option<i64>,
    /// Tasks whose intermediate files went meanwhile.
    pub without_files: Vec<ProductKey>,
}

impl Loading {
    pub(super) fn new(store: Store) -> Self {
        let (jobs, tasks) = (HashMap::new(), JoinSet::new());
        Self { store, turn: Arc::new(Semaphore::new(1)), jobs, tasks }
    }

    /// The connection by which jobs are read.
    pub(super) fn store(&self) -> Store {
        self.store.clone()
    }

    /// The next job that is read; `None` where none is being read.
    pub(super) async fn next(&mut self) -> Option<ReadJob> {
        self.tasks.join_next().await?.ok()
    }

    /// The same without waiting.
    pub(super) fn try_next(&mut self) -> Option<ReadJob> {
        self.tasks.try_join_next()?.ok()
    }

    pub(super) fn begin(&mut self, job: JobId, verb: JobAction, reply: Reply<u32>) {
        self.jobs.entry(job).or_default().verbs.push((verb, reply));
        let (store, turn) = (self.store.clone(), self.turn.clone());
        let read = async move {
            let _turn = turn.acquire_owned().await;
            match store.stored_job(job).await? {
                Some(stored) => Loaded::read(&store, stored).await.map(Some),
                None => Ok(None),
            }
        };
        // Those who wait get an answer even if it panics.
        let read = AbortOnDropHandle::new(tokio::spawn(read));
        self.tasks.spawn(async move {
            let read = read
                .await
                .unwrap_or_else(|panic| Err(StoreError::Damaged { what: "job", why: panic.to_string() }));
            (job, read.map_err(|error| error.to_string()))
        });
    }
}
