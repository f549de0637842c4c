//! The settings and the state of the core.

use std::collections::BTreeMap;

use kiln_types::{AttemptId, Epoch, JobId, WorkerId};

use crate::{
    JobError, JobResult, Moment, Outbox, Push,
    schedule::{
        fair_share::FairShare,
        indexes::{FarmLimit, Indexes},
        requirements::Requirements,
    },
    state::{Cooldowns, Job, QuarantineLists, State, TimeLimits},
};

/// The settings of a farm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Milliseconds without a sign of life after which a worker's lease expires.
    pub lease_ms: u64,
    /// Milliseconds of work that a slot keeps queued, by its own measured frame time.
    pub ahead_ms: u64,
    /// The most attempts queued on one slot behind the one that runs.
    pub max_queue: u16,
    /// A queued attempt whose turn is nearer than this many milliseconds is not preempted for an idle slot.
    pub preempt_ms: u64,
    /// Failed attempts after which a task fails.
    pub max_failures: u8,
    /// Lost attempts after which a task fails.
    pub max_losses: u8,
    /// An attempt hangs whose Blender does nothing for this many milliseconds, unless its step sets another time.
    pub hang_ms: u64,
    /// An attempt hangs whose Blender works for this many milliseconds without a sign of progress.
    pub stall_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lease_ms: 30_000,
            ahead_ms: 20_000,
            max_queue: 256,
            preempt_ms: 250,
            max_failures: 3,
            max_losses: 3,
            hang_ms: 15 * 60_000,
            stall_ms: 24 * 60 * 60_000,
        }
    }
}

impl Config {
    /// The number of frames of `frame_ms` milliseconds that a slot should have queued behind the one that runs.
    pub(crate) fn queue_depth(&self, frame_ms: u64) -> usize {
        let most = usize::from(self.max_queue.max(1));
        usize::try_from(self.ahead_ms.div_ceil(frame_ms.max(1))).unwrap_or(most).clamp(1, most)
    }
}

/// The farm's live state, and every rule by which it changes. It takes inputs in the order in which they happen, then
/// [`Core::schedule`].
///
/// At a start, call [`Core::new`] with a new epoch and [`Core::restore_job`] for each job that has not ended, then let
/// workers join. Leases of restored attempts begin again, so workers have that long to come back.
///
/// # Panics
/// With [`crate::BrokenInvariant`] if the core contradicts itself. It cannot be used afterwards.
#[derive(Debug)]
pub struct Core {
    pub(crate) config: Config,
    pub(crate) epoch: Epoch,
    /// The counter of the next attempt's id.
    pub(crate) next_attempt: u64,
    pub(crate) state: State,
    pub(crate) requirements: Requirements,
    pub(crate) fair_share: FairShare,
    pub(crate) limits: BTreeMap<String, FarmLimit>,
    pub(crate) indexes: Indexes,
    /// Milliseconds of work that lower priorities are owed.
    pub(crate) owed_ms: u64,
    /// The time of the last look at the ends of steps.
    pub(crate) speculated: Moment,
    /// The time of the next one.
    pub(crate) speculate_at: Option<Moment>,
    /// No lease expires before this.
    pub(crate) leases_from: Moment,
    pub(crate) cooldowns: Cooldowns,
    pub(crate) quarantine: QuarantineLists,
    pub(crate) time_limits: TimeLimits,
}

impl Core {
    /// A core without jobs and workers. `epoch` must be higher than that of every attempt ever dispatched.
    pub fn new(epoch: Epoch, config: Config) -> Self {
        Self {
            config,
            epoch,
            next_attempt: 1,
            state: State::default(),
            requirements: Requirements::default(),
            fair_share: FairShare::default(),
            limits: BTreeMap::new(),
            indexes: Indexes::default(),
            owed_ms: 0,
            speculated: Moment(0),
            speculate_at: None,
            leases_from: Moment(u64::MAX),
            cooldowns: Cooldowns::default(),
            quarantine: QuarantineLists::default(),
            time_limits: TimeLimits::default(),
        }
    }

    /// Sends a message to a worker that is connected. Another one is told when it joins.
    pub(crate) fn push(&self, to: WorkerId, push: Push, out: &mut impl Outbox) {
        if self.state.find_worker(to).is_some_and(|worker| worker.presence.is_connected()) {
            out.push(to, push);
        }
    }

    /// The end of a lease that begins now.
    pub(crate) fn new_lease(&mut self, now: Moment) -> Moment {
        let end = now.after(self.config.lease_ms);
        self.leases_from = self.leases_from.min(end);
        end
    }

    /// Returns whether the core has dispatched this attempt, in this epoch or an earlier one.
    pub(crate) fn was_issued(&self, attempt: AttemptId) -> bool {
        attempt.counter > 0 && attempt < AttemptId { epoch: self.epoch, counter: self.next_attempt }
    }

    pub(crate) fn existing_job(&mut self, id: JobId) -> JobResult<&mut Job> {
        self.state.find_job_mut(id).ok_or(JobError::NoSuchJob(id))
    }
}
