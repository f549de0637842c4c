//! The parts of a server that requests share.

use std::sync::Arc;

use axum::extract::State;
use kiln_blobs::{Blobs, Uploads};
use kiln_store::Store;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    collector::Collector, events::Hub, holds::Holds, logs::Logs, scheduler::SchedulerHandle,
    space::DiskSpace, splitter::Splitter, wake::Waker,
};

pub(crate) type AppState = State<Arc<App>>;

pub(crate) struct App {
    pub store: Store,
    pub blobs: Blobs,
    pub uploads: Uploads,
    pub scheduler: SchedulerHandle,
    pub hub: Arc<Hub>,
    pub logs: Logs,
    pub holds: Holds,
    pub collector: Arc<Collector>,
    pub space: DiskSpace,
    pub waker: Arc<Waker>,
    pub splitter: Splitter,
    pub heartbeat_ms: u64,
    /// Cancelled to end connections that do not end by themselves.
    pub stop: CancellationToken,
    /// The connections of workers.
    pub links: TaskTracker,
}
