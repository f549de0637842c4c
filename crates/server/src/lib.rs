//! The farm's scheduler behind HTTP: a server that clients submit to and workers connect to.
//!
//! [`Server::start`] opens the records and the bytes of a data folder, starts the scheduler, and listens. `scheduler`
//! decides, `links` speaks to workers, `routes` to everyone else, `auth` stands in front of all of them.

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
pub use retention::{Expires, Retention};
pub use routes::openapi_json;
pub use start::{DEFAULT_LISTEN, RunningServer, Server, ServerFile, ServerOptions};
