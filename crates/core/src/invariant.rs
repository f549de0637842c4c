//! Broken invariants: errors of the core itself.

use std::{fmt, panic::panic_any};

use kiln_types::JobId;

/// The payload of the panic by which the core reports that it contradicts itself. The state is not usable afterwards:
/// the caller drops what the batch has decided and builds the core again from its records.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("broken invariant{}: {what}", job.map(|job| format!(" of job {job}")).unwrap_or_default())]
pub struct BrokenInvariant {
    /// The job that the contradiction concerns.
    pub job: Option<JobId>,
    /// The contradiction; a fragment for a log.
    pub what: String,
}

/// Panics with a [`BrokenInvariant`].
#[cold]
#[track_caller]
pub(crate) fn broken(job: impl Into<Option<JobId>>, what: impl fmt::Display) -> ! {
    let broken = BrokenInvariant { job: job.into(), what: what.to_string() };
    // The panic handler of a test prints only texts.
    #[cfg(test)]
    eprintln!("{broken}");
    panic_any(broken)
}
