//! Incidents of a worker, and its quarantine.

use kiln_types::{AttemptId, Quarantine, TaskId};

use crate::{
    Moment,
    tuning::quarantine::{FIRST_PROBE_MS, LAST_PROBE_MS},
};

/// Something that went wrong on a worker, since it last delivered.
#[derive(Debug)]
pub(crate) struct Incident {
    pub attempt: AttemptId,
    pub task: TaskId,
    pub at: Moment,
    pub kind: IncidentKind,
    /// The same task has gone wrong on another worker too, and none has delivered it.
    pub shared: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum IncidentKind {
    /// With the message of the failure.
    Failed(String),
    /// The worker was lost with it; several tasks may share one loss.
    Lost { loss: u64 },
}

/// Milliseconds until the next probe of a worker that failed so many: they double.
pub(crate) fn probe_pause_ms(failed_probes: u32) -> u64 {
    FIRST_PROBE_MS.saturating_mul(1 << failed_probes.min(16)).min(LAST_PROBE_MS)
}

/// A worker in quarantine.
#[derive(Debug)]
pub(crate) struct Quarantined {
    pub quarantine: Quarantine,
    pub probe: Probe,
    /// The attempt that it was last probed with.
    pub probed_with: Option<AttemptId>,
}

/// The next probe of a quarantined worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    NotBefore(Moment),
    /// As soon as there is a task for it.
    Due,
    Runs(AttemptId),
}
