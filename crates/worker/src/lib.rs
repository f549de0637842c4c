//! A node that renders.
//!
//! [`RunningWorker::start`] takes a folder of its own below the data folder, starts its Blenders and connects to the
//! server, all at once. From then on three kinds of actors work beside each other: one for each slot, which holds
//! a warm Blender and does its tasks; the upload queue, which checks and uploads files while the next task runs;
//! and the worker, which knows its attempts and talks to the server. A server that is away stops none of it: tasks
//! go on, and reports are repeated until they are settled.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod attempts;
mod availability;
mod bake_tree;
mod bundles;
mod direct;
mod event;
mod folder;
mod gpus;
mod hardware;
mod inputs;
mod link;
mod memory;
mod monitor;
mod offers;
mod options;
mod output;
mod process;
mod running;
mod scratch;
mod shared;
mod sink;
mod sizing;
mod slot;
mod task;
mod transfer;
mod upload;
mod worker;

pub use availability::{AvailabilityOptions, OnUnavailable, SleepTime, SleepTimeError, YieldMode};
pub use event::WorkerEvent;
pub use options::{DEFAULT_CACHE_BYTES, WorkerError, WorkerExit, WorkerOptions};
pub use running::RunningWorker;
