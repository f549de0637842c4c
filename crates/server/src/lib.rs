//! The server of a farm: clients submit jobs to it, and workers connect to it.
//!
//! [`Server::start`] opens the records and the bytes of a data folder, starts the scheduler, and listens. `scheduler`
//! decides, `links` speaks with workers, `routes` with clients, and `auth` checks every request first.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod app;
mod arrivals;
mod auth;
mod bundles;
mod clock;
mod collector;
mod connections;
mod error;
mod events;
mod holds;
mod inspect;
mod key;
mod links;
mod listen;
mod logs;
mod made;
mod problem;
mod retention;
mod routes;
mod scheduler;
mod space;
mod splitter;
mod start;
mod strict;
mod wake;

pub use error::ServerError;
pub use key::KeyError;
pub use kiln_store::Durability;
pub use retention::{Retention, RetentionPeriod};
pub use routes::openapi_json;
pub use start::{DEFAULT_LISTEN, RunningServer, Server, ServerFile, ServerOptions};
