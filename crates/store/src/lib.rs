//! Durable records in SQLite: jobs, tasks, attempts, outputs, workers, bundles, and the numbered events.
//!
//! One writer (the brain) hands over batches of [`Write`]s, each batch one transaction; readers have
//! connections of their own and are never held up by it. Nothing here takes the time or draws an id.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod error;
mod records;
mod write;

use std::path::Path;

use kiln_types::{BlobHash, BundleId, Epoch, EventNumber, JobId, RelPath, WorkerId};

pub use error::StoreError;
pub use records::{
    AttemptFilter, AttemptRow, BundleRow, Event, JobFilter, JobRow, Notice, OutputRow, StepKind, StepRow,
    StoredJob, StoredStep, TaskFaults, TaskFilter, TaskRow, TaskRun, WorkerRow, WorkerShare,
};
pub use write::{NewEvent, NewStep, Write};

/// How sure a write must be before it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// On the disk: survives the loss of power.
    Durable,
    /// With the operating system: for the throw-away server inside a `kiln render`.
    Ephemeral,
}

/// The records of one data folder; cheap to clone. The folder stays locked until the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Store {}

impl Store {
    pub async fn open(folder: &Path, durability: Durability) -> Result<(Self, Epoch), StoreError> {
        todo!("{folder:?} {durability:?}")
    }
    pub fn epoch(&self) -> Epoch {
        todo!()
    }
    pub async fn commit(&self, batch: Vec<Write>) -> Result<Vec<Event>, StoreError> {
        todo!("{batch:?}")
    }
    pub async fn last_job(&self) -> Result<JobId, StoreError> {
        todo!()
    }
    pub async fn unfinished_jobs(&self) -> Result<Vec<StoredJob>, StoreError> {
        todo!()
    }
    pub async fn stored_job(&self, job: JobId) -> Result<Option<StoredJob>, StoreError> {
        todo!("{job}")
    }
    pub async fn job(&self, job: JobId) -> Result<Option<JobRow>, StoreError> {
        todo!("{job}")
    }
    pub async fn jobs(
        &self,
        filter: &JobFilter,
        limit: u32,
        before: Option<JobId>,
    ) -> Result<Vec<JobRow>, StoreError> {
        todo!("{filter:?}{limit}{before:?}")
    }
    pub async fn tasks(
        &self,
        job: JobId,
        filter: &TaskFilter,
        limit: u32,
    ) -> Result<Vec<TaskRow>, StoreError> {
        todo!("{job}{filter:?}{limit}")
    }
    pub async fn attempts(
        &self,
        job: JobId,
        filter: &AttemptFilter,
        limit: u32,
    ) -> Result<Vec<AttemptRow>, StoreError> {
        todo!("{job}{filter:?}{limit}")
    }
    pub async fn outputs(
        &self,
        job: JobId,
        after_seq: u64,
        limit: u32,
    ) -> Result<Vec<OutputRow>, StoreError> {
        todo!("{job}{after_seq}{limit}")
    }
    pub async fn output_by_path(&self, job: JobId, path: &RelPath) -> Result<Option<OutputRow>, StoreError> {
        todo!("{job}{path}")
    }
    pub async fn outputs_of_frame(&self, job: JobId, frame: i32) -> Result<Vec<OutputRow>, StoreError> {
        todo!("{job}{frame}")
    }
    pub async fn job_report(&self, job: JobId) -> Result<Vec<WorkerShare>, StoreError> {
        todo!("{job}")
    }
    pub async fn workers(&self) -> Result<Vec<WorkerRow>, StoreError> {
        todo!()
    }
    pub async fn worker(&self, worker: WorkerId) -> Result<Option<WorkerRow>, StoreError> {
        todo!("{worker}")
    }
    pub async fn events_after(
        &self,
        after: EventNumber,
        limit: u32,
        job: Option<JobId>,
    ) -> Result<Vec<Event>, StoreError> {
        todo!("{after}{limit}{job:?}")
    }
    pub async fn last_event(&self) -> Result<EventNumber, StoreError> {
        todo!()
    }
    pub async fn bundle(&self, bundle: BundleId) -> Result<Option<BundleRow>, StoreError> {
        todo!("{bundle}")
    }
    pub async fn referenced_blobs(&self) -> Result<Vec<BlobHash>, StoreError> {
        todo!()
    }
}
