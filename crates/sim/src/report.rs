//! The counts of a run.

use std::hash::{DefaultHasher, Hash, Hasher};

use kiln_core::{Push, Record};
use kiln_types::WorkerId;

/// The result of a run. Two runs of one seed give equal reports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    pub seed: u64,
    /// Milliseconds on the simulated clock.
    pub took_ms: u64,
    pub events: u64,
    /// A hash of the core's records and pushes in their order: two cores with one policy give the same.
    pub decisions: u64,
    pub jobs: u64,
    pub commits: u64,
    /// Commits of tasks that had to wait for another step.
    pub behind: u64,
    /// Commits of tasks that waited for the same frame of another step.
    pub behind_frames: u64,
    pub losses: u64,
    pub speculations: u64,
    /// Deliveries that came too late to count.
    pub superseded: u64,
    pub preemptions: u64,
    pub server_deaths: u64,
    /// Stalls of the server, most of them longer than a lease.
    pub stalls: u64,
    pub worker_deaths: u64,
    pub lies: u64,
    /// Attempts that a worker returned, unasked.
    pub refusals: u64,
    /// Attempts whose Blender could not be started.
    pub false_starts: u64,
    pub quarantines: u64,
    /// Attempts that count against no task because of their worker.
    pub forgiven: u64,
    /// Attempts that streamed.
    pub streams: u64,
    /// Streams that were placed on a slot.
    pub placed: u64,
    pub displaced: u64,
    /// Messages to streams that a task is done.
    pub arrived: u64,
    /// Steps that were added to jobs.
    pub added: u64,
    /// Steps that were added to a job that had ended.
    pub added_late: u64,
    /// Jobs that were pinned to a device.
    pub pins: u64,
    pub releases: u64,
}

impl Report {
    /// Adds the records and pushes of one batch to the hash.
    pub(crate) fn add_decisions(&mut self, records: &[Record], pushes: &[(WorkerId, Push)]) {
        let mut hasher = DefaultHasher::new();
        (self.decisions, records, pushes).hash(&mut hasher);
        self.decisions = hasher.finish();
    }
}
