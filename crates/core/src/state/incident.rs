//! Incidents of a worker, and its quarantine.

use kiln_types::{AttemptId, Quarantine, TaskId};

use crate::{
    Moment,
    tuning::quarantine::{FIRST_PROBE_MS, LAST_PROBE_MS},
};

/// A failure or loss on a worker since it last delivered.
#[derive(Debug)]
pub(crate) struct Incident {
    pub attempt: AttemptId,
    pub task: TaskId,
    pub at: Moment,
    pub kind: IncidentKind,
    /// The task has failed or been lost on another worker too, and was not delivered.
    pub shared: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum IncidentKind {
    /// A failure with this message.
    Failed(String),
    /// A loss by its number; several tasks may share one.
    Lost { loss: u64 },
}

/// Milliseconds until the next probe of a worker, which double with each failed one.
pub(crate) fn probe_pause_ms(failed_probes: u32) -> u64 {
    FIRST_PROBE_MS.saturating_mul(1 << failed_probes.min(16)).min(LAST_PROBE_MS)
}

/// A worker in quarantine.
#[derive(Debug)]
pub(crate) struct Quarantined {
    pub quarantine: Quarantine,
    pub probe: Probe,
    /// The attempt of the last probe.
    pub probed_with: Option<AttemptId>,
}

/// The next probe of a quarantined worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    NotBefore(Moment),
    /// The next suitable task is the probe.
    Due,
    Runs(AttemptId),
}
