//! The worker: one actor that knows its attempts, between the server and its slots.

mod actor;
mod availability;
mod streams;
mod tasks;
mod upkeep;

pub(crate) use actor::{WorkerActor, WorkerInput};
