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
    /// A hash of all that the core recorded and pushed, in its order: two cores with one policy give the same.
    pub decisions: u64,
    pub jobs: u64,
    pub commits: u64,
    /// Commits of tasks that had to wait for another step.
    pub behind: u64,
    /// And of tasks that waited for their own frame of another step.
    pub behind_frames: u64,
    pub losses: u64,
    /// Speculative attempts: second ones of frames that would end late.
    pub speculations: u64,
    /// Deliveries that came too late to count.
    pub superseded: u64,
    /// Attempts asked back for an idle slot or a pause.
    pub preemptions: u64,
    pub server_deaths: u64,
    /// Times in which the server did nothing, most of them longer than a lease.
    pub stalls: u64,
    pub worker_deaths: u64,
    pub lies: u64,
    /// Attempts that a worker returned, unasked.
    pub refusals: u64,
    /// Attempts whose Blender could not be started.
    pub false_starts: u64,
    /// Quarantines of workers, and attempts that count against no task for it.
    pub quarantines: u64,
    pub forgiven: u64,
    /// Attempts that streamed, those that were given a slot, and those that were displaced.
    pub streams: u64,
    pub placed: u64,
    pub displaced: u64,
    /// Tasks of which a stream was told that they are done.
    pub arrived: u64,
    /// Steps that were added to jobs, and those that were added to one that had ended.
    pub added: u64,
    pub added_late: u64,
    /// Jobs that were pinned to a device, and pins that were released.
    pub pins: u64,
    pub releases: u64,
}

impl Report {
    /// Takes note of what one batch records and pushes.
    pub(crate) fn decided(&mut self, records: &[Record], pushes: &[(WorkerId, Push)]) {
        let mut hasher = DefaultHasher::new();
        (self.decisions, records, pushes).hash(&mut hasher);
        self.decisions = hasher.finish();
    }
}
