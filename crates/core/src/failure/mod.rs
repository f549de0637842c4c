//! Failures: the consequences for a task, its worker and its job when an attempt ends without a delivery.

pub(crate) mod classify;
pub(crate) mod common;
pub(crate) mod cooldown;
pub(crate) mod fleet;
pub(crate) mod lease;
pub(crate) mod memory;
pub(crate) mod quarantine;
pub(crate) mod retry;
pub(crate) mod time_limit;
