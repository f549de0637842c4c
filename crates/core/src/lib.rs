//! The brain: what runs where, and what became of it. Pure: no I/O, no clock, no randomness.
//!
//! Each event is one function on [`Core`]; what follows from it goes to an [`Outbox`]: pushes to workers, and
//! records of everything that must be on disk before anybody is told. After each batch of events the caller
//! calls [`Core::schedule`], which hands out work.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod accounts;
mod alike;
mod attempt_table;
mod attempts;
mod blame;
mod check;
mod choose;
mod core;
mod device;
mod eligible;
mod error;
mod estimate;
mod explain;
mod give;
mod health;
mod index;
mod index_set;
mod infirmary;
mod job;
mod ledger;
mod memory;
mod message;
mod needs;
mod order;
mod pace;
mod pauses;
mod plan;
mod ready;
mod reserve;
mod restore;
mod schedule;
mod tail;
#[cfg(test)]
mod tests;
mod verbs;
mod view;
mod waiting;
mod watch;
mod worker;
mod workers;

pub use crate::core::{Config, Core};
pub use accounts::{Party, Share};
pub use error::JobError;
pub use explain::{Forecast, Lack, Occupant, Survey, Unmet, Wait};
pub use health::Sickness;
pub use index_set::{BadIndexSet, Generations, IndexSet, TaskSpan};
pub use ledger::Ledger;
pub use message::{
    Assigned, Claim, Finish, GpuSet, HeldAttempt, HeldPhase, Moment, Outbox, Push, Record, RevokeReason,
    StepState, Verdict, WorkerOffer,
};
pub use plan::{
    DeviceOption, Gpus, JobPlan, Label, OpenDevice, PlanError, Requirement, Room, Standing, StepPlan,
};
pub use restore::{RestoredAttempt, RestoredJob, RestoredPhase, RestoredStep, RestoredTrouble};
pub use view::{JobView, LimitView, SickView, StepView, TaskCounts, TaskView, WorkerView};
pub use watch::Slow;
