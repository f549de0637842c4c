//! The core of the scheduler: jobs, workers and attempts as state machines, and the policy. Pure: no I/O, no clock, no
//! randomness.
//!
//! Each input is one function of [`Core`] (`reactor.rs`). Its decisions go to an [`Outbox`]: pushes to workers, and
//! records of everything that must be on disk before a push is sent. After each batch of inputs the caller calls
//! [`Core::schedule`], which dispatches work.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod attempts;
mod check;
mod claims;
mod core;
mod error;
mod estimate;
mod explain;
mod failure;
mod hold;
mod ids;
mod index_set;
mod invariant;
mod jobs;
mod ledger;
mod message;
mod moment;
mod plan;
mod reactor;
mod reconcile;
mod restore;
mod schedule;
mod state;
#[cfg(test)]
mod tests;
mod tuning;
mod view;

pub use crate::core::{Config, Core};
pub use error::{JobError, JobResult};
pub use estimate::frames::SlowAttempt;
pub use explain::{Explainer, Forecast, MissingResource, Occupant, UnmetStep, WaitCause};
pub use hold::first_in_order;
pub use index_set::{BadIndexSet, Generations, IndexSet, TaskSpan};
pub use invariant::BrokenInvariant;
pub use kiln_types::{
    DependencyEnd, DependencyScope, DependencyStart, HeldAttempt, HeldPhase, Quarantine, ReportOutcome,
    RevokeReason, StepDependency, TaskCounts,
};
pub use ledger::Ledger;
pub use message::{Assigned, Claim, Finish, GpuSet, Outbox, Push, Record, StepState, WorkerOffer};
pub use moment::Moment;
pub use plan::{
    DeviceOption, Gpus, JobPlan, Label, OpenDevice, PlanError, Requirement, Room, SchedulingOptions, StepPlan,
};
pub use restore::{RestoredAttempt, RestoredHistory, RestoredJob, RestoredPhase, RestoredStep};
pub use schedule::fair_share::{Account, Share};
pub use schedule::indexes::FarmLimit;
pub use view::{JobStatus, QuarantineView, StepStatus, TaskStatus, WorkerStatus};
