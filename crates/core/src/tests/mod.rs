//! Scenarios. Each drives the core as the server would, keeps the workers' attempts, replays the records into a ledger,
//! and checks every invariant after each step.

mod bounds;
mod classify;
mod cooldowns;
mod device;
mod explain;
mod farm;
mod frames;
mod health;
mod hold;
mod jobs;
mod order;
mod random;
mod schedule;
mod sets;
mod streams;
mod tasks;
mod watch;
mod workers;

use farm::{Farm, job, steps, task, w};
