//! The failure history of a task that waits or is live.

use kiln_types::{AttemptId, Failure, WorkerId};

/// The failed and lost attempts of a task since it was last reset. The history is forgotten when the task ends.
#[derive(Debug, Default)]
pub(crate) struct FailureHistory {
    /// The worker of each failed attempt.
    failed_on: Vec<WorkerId>,
    /// The worker of each attempt that was lost while it ran.
    lost_on: Vec<WorkerId>,
    /// The attempts of this epoch among those, which may still be forgiven.
    counted: Vec<(AttemptId, Mishap)>,
    last: Option<Failure>,
    /// The task may exceed the limit of mishaps: workers were the origin, and others were left to try.
    extended: bool,
    /// The least memory of a machine for the task, which ran out of it; bytes.
    least_memory: Option<u64>,
    /// Closed attempts that may still deliver.
    expired: Vec<AttemptId>,
}

/// A failure or loss of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mishap {
    Failed,
    Lost,
}

impl FailureHistory {
    /// The history of a task of an earlier epoch. The task waits, so its limit is taken to be extended.
    pub fn restored(failed_on: Vec<WorkerId>, lost_on: Vec<WorkerId>, least_memory: Option<u64>) -> Self {
        Self { failed_on, lost_on, least_memory, extended: true, ..Self::default() }
    }

    pub fn note_failure(&mut self, attempt: AttemptId, worker: WorkerId, failure: Failure) {
        self.failed_on.push(worker);
        self.counted.push((attempt, Mishap::Failed));
        self.last = Some(failure);
    }

    pub fn note_loss(&mut self, attempt: AttemptId, worker: WorkerId) {
        self.lost_on.push(worker);
        self.counted.push((attempt, Mishap::Lost));
    }

    /// Stops counting the attempt of this worker; returns whether it counted.
    pub fn forgive(&mut self, attempt: AttemptId, worker: WorkerId) -> bool {
        let Some(at) = self.counted.iter().position(|(counted, _)| *counted == attempt) else { return false };
        match self.counted.remove(at).1 {
            Mishap::Failed => remove_one(&mut self.failed_on, worker),
            Mishap::Lost => remove_one(&mut self.lost_on, worker),
        }
        true
    }

    /// Stops counting a lost attempt of an earlier epoch, of which only the worker is known.
    pub fn forgive_restored_loss(&mut self, worker: WorkerId) {
        remove_one(&mut self.lost_on, worker);
    }

    pub fn set_last_failure(&mut self, failure: Failure) {
        self.last = Some(failure);
    }

    pub fn extend_limit(&mut self) {
        self.extended = true;
    }

    pub fn is_extended(&self) -> bool {
        self.extended
    }

    /// Raises the least memory of a machine for the task.
    pub fn require_memory(&mut self, bytes: u64) {
        self.least_memory = self.least_memory.max(Some(bytes));
    }

    pub fn keep_expired(&mut self, attempt: AttemptId) {
        self.expired.push(attempt);
    }

    pub fn drop_expired(&mut self, attempt: AttemptId) {
        self.expired.retain(|known| *known != attempt);
    }

    pub fn is_empty(&self) -> bool {
        !self.has_mishaps() && self.expired.is_empty()
    }

    /// Returns whether a failure or loss counts against the task.
    pub fn has_mishaps(&self) -> bool {
        !(self.failed_on.is_empty() && self.lost_on.is_empty())
    }

    pub fn counts(&self, attempt: AttemptId) -> bool {
        self.counted.iter().any(|(counted, _)| *counted == attempt)
    }

    /// The worker of each mishap.
    pub fn workers(&self) -> impl Iterator<Item = WorkerId> {
        self.failed_on.iter().chain(&self.lost_on).copied()
    }

    pub fn has_mishap_on(&self, worker: WorkerId) -> bool {
        self.workers().any(|of| of == worker)
    }

    pub fn failed_on(&self) -> &[WorkerId] {
        &self.failed_on
    }

    pub fn lost_on(&self) -> &[WorkerId] {
        &self.lost_on
    }

    pub fn last_failure(&self) -> Option<&Failure> {
        self.last.as_ref()
    }

    pub fn least_memory(&self) -> Option<u64> {
        self.least_memory
    }

    pub fn expired(&self) -> &[AttemptId] {
        &self.expired
    }

    /// Panics if the history contradicts itself, or the task should have failed by these limits. For tests.
    pub fn check(&self, name: &str, max_failures: usize, max_losses: usize, is_live: bool) {
        assert!(!self.is_empty(), "{name} has an empty failure history");
        let within = self.failed_on.len() < max_failures && self.lost_on.len() < max_losses;
        // A task with a live attempt does not fail yet.
        assert!(within || self.extended || is_live, "{name} should have failed");
        let counted = |of: Mishap| self.counted.iter().filter(|(_, mishap)| *mishap == of).count();
        let fits =
            counted(Mishap::Failed) <= self.failed_on.len() && counted(Mishap::Lost) <= self.lost_on.len();
        assert!(fits, "{name} can be forgiven more than it has");
    }
}

fn remove_one(list: &mut Vec<WorkerId>, worker: WorkerId) {
    if let Some(at) = list.iter().position(|of| *of == worker) {
        list.remove(at);
    }
}
