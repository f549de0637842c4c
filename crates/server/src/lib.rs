//! The farm's scheduler behind HTTP: a server that clients submit to and workers connect to.
//!
//! [`Server::start`] opens the records and the bytes of a data folder, starts the scheduler, and listens. `scheduler`
//! decides, `links` speaks to workers, `routes` to everyone else, `auth` stands in front of all of them.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod arrivals;
mod auth;
mod bakes;
mod clock;
mod collector;
mod connections;
mod events;
mod holds;
mod inspect;
mod key;
mod links;
mod listen;
mod logs;
mod problem;
mod retention;
mod routes;
mod scheduler;
mod space;
mod splitter;
mod start;
mod strict;
mod wake;

use std::sync::Arc;

use kiln_blobs::{Blobs, Uploads};
use kiln_store::Store;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use key::KeyError;
pub use kiln_store::Durability;
pub use retention::{Expires, Retention};
pub use routes::openapi_json;
pub use start::{DEFAULT_LISTEN, RunningServer, Server, ServerError, ServerFile, ServerOptions};

/// What every request may use.
struct App {
    store: Store,
    blobs: Blobs,
    uploads: Uploads,
    scheduler: scheduler::SchedulerHandle,
    hub: Arc<events::Hub>,
    logs: logs::Logs,
    holds: holds::Holds,
    collector: Arc<collector::Collector>,
    space: space::DiskSpace,
    waker: Arc<wake::Waker>,
    splitter: splitter::Splitter,
    heartbeat_ms: u64,
    /// Ends connections that would never end by themselves.
    stop: CancellationToken,
    /// The workers' connections.
    links: TaskTracker,
}
