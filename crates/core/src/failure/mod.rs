//! Failures: the consequences of an attempt without a delivery for its task, its worker and its job.

pub(crate) mod classify;
pub(crate) mod common;
pub(crate) mod cooldown;
pub(crate) mod fleet;
pub(crate) mod lease;
pub(crate) mod memory;
pub(crate) mod quarantine;
pub(crate) mod retry;
pub(crate) mod time_limit;
