//! skeleton: bodies follow
#![allow(unused)]
use crate::*;
use kiln_types::*;

/// The farm's live state, and every rule by which it changes.
#[derive(Debug)]
pub struct Core {
    config: Config,
}

/// What may be tuned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Milliseconds without a heartbeat after which a worker's attempts lapse.
    pub lease_ms: u64,
    /// Milliseconds of work that a slot keeps queued, by its own measured frame time.
    pub ahead_ms: u64,
    /// The most attempts queued on one slot behind the one that runs.
    pub max_queue: u16,
    /// A queued attempt whose turn is nearer than this is not taken from its slot for an idle one.
    pub steal_ms: u64,
    /// Failed attempts after which a task fails.
    pub max_failures: u8,
    /// Lapsed attempts after which a task fails.
    pub max_lapses: u8,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lease_ms: 30_000,
            ahead_ms: 1_000,
            max_queue: 16,
            steal_ms: 250,
            max_failures: 3,
            max_lapses: 3,
        }
    }
}

impl Core {
    /// `epoch` must be higher than that of every attempt ever given out.
    pub fn new(epoch: Epoch, config: Config) -> Self {
        todo!()
    }
    pub fn restore_job(&mut self, now: Moment, plan: JobPlan, restored: RestoredJob) -> Result<(), JobError> {
        todo!()
    }
    pub fn submit(&mut self, now: Moment, plan: JobPlan, out: &mut impl Outbox) -> Result<(), JobError> {
        todo!()
    }
    pub fn pause_job(&mut self, now: Moment, job: JobId, out: &mut impl Outbox) -> Result<(), JobError> {
        todo!()
    }
    pub fn resume_job(&mut self, now: Moment, job: JobId, out: &mut impl Outbox) -> Result<(), JobError> {
        todo!()
    }
    pub fn cancel_job(&mut self, now: Moment, job: JobId, out: &mut impl Outbox) -> Result<(), JobError> {
        todo!()
    }
    /// Failed and cancelled tasks wait again; returns how many.
    pub fn retry_failed(&mut self, now: Moment, job: JobId, out: &mut impl Outbox) -> Result<u32, JobError> {
        todo!()
    }
    /// Renders these tasks of this step again, or the whole job; returns how many.
    pub fn rerender(
        &mut self,
        now: Moment,
        job: JobId,
        which: Option<(StepIndex, &[TaskIndex])>,
        out: &mut impl Outbox,
    ) -> Result<u32, JobError> {
        todo!()
    }
    pub fn extend(
        &mut self,
        now: Moment,
        job: JobId,
        step: StepIndex,
        added: u32,
        out: &mut impl Outbox,
    ) -> Result<(), JobError> {
        todo!()
    }
    /// Drops an ended job from memory.
    pub fn forget(&mut self, job: JobId) -> Result<(), JobError> {
        todo!()
    }

    pub fn worker_joined(
        &mut self,
        now: Moment,
        worker: WorkerId,
        offer: WorkerOffer,
        held: &[HeldAttempt],
        out: &mut impl Outbox,
    ) {
        todo!()
    }
    pub fn worker_left(&mut self, now: Moment, worker: WorkerId, out: &mut impl Outbox) {
        todo!()
    }
    pub fn worker_offer_changed(
        &mut self,
        now: Moment,
        worker: WorkerId,
        offer: WorkerOffer,
        out: &mut impl Outbox,
    ) {
        todo!()
    }
    pub fn heartbeat(&mut self, now: Moment, worker: WorkerId, out: &mut impl Outbox) {
        todo!()
    }
    pub fn set_wish(&mut self, now: Moment, worker: WorkerId, wish: WorkerWish, out: &mut impl Outbox) {
        todo!()
    }
    /// Its attempts lapse without blame, and it is gone; whether there was such a worker.
    pub fn forget_worker(&mut self, now: Moment, worker: WorkerId, out: &mut impl Outbox) -> bool {
        todo!()
    }

    pub fn attempt_started(
        &mut self,
        now: Moment,
        worker: WorkerId,
        attempt: AttemptId,
        out: &mut impl Outbox,
    ) {
        todo!()
    }
    pub fn attempt_finished(
        &mut self,
        now: Moment,
        worker: WorkerId,
        attempt: AttemptId,
        finish: Finish,
        out: &mut impl Outbox,
    ) -> Verdict {
        todo!()
    }

    /// Lapses leases that have run out.
    pub fn tick(&mut self, now: Moment, out: &mut impl Outbox) {
        todo!()
    }
    /// Hands out work; call it after each batch of inputs.
    pub fn schedule(&mut self, now: Moment, out: &mut impl Outbox) {
        todo!()
    }
    /// When [`Core::tick`] next has something to do.
    pub fn next_deadline(&self) -> Option<Moment> {
        todo!()
    }
    pub fn sanity_check(&self) {
        todo!()
    }
}
