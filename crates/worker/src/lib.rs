//! A node that renders.
//!
//! [`Worker::start`] takes a folder of its own below the data folder, starts its Blenders and connects to the
//! server, all at once. From then on three kinds of actors work beside each other: one for each slot, which holds
//! a warm Blender and renders what it is assigned; the outbox, which checks and uploads what has left Blender
//! while the next frame renders; and the worker, which knows what it holds and speaks with the server. A server
//! that is away stops none of it: frames go on, and reports are repeated until they are settled.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod bundles;
mod gpus;
mod happening;
mod hardware;
mod identity;
mod ledger;
mod link;
mod memory;
mod offers;
mod options;
mod outbox;
mod running;
mod scratch;
mod seat;
mod shared;
mod sizing;
mod slot;
mod tree;
mod wishes;
mod worker;

pub use happening::{Happening, TaskKind};
pub use options::{DEFAULT_CACHE_BYTES, WorkerError, WorkerExit, WorkerOptions};
pub use running::{RunningWorker, Worker};
pub use wishes::{BadSleep, Sleep, WhenUsed, Wishes, Yields};
