//! The live state of a farm: jobs with their steps and tasks, workers with their slots, and attempts.
//!
//! There are two kinds of accessor. `job`, `step`, `worker`, `attempt` and `slot` take an id from the state itself, which
//! must exist; `find_job` and its like take one from outside, which may be stale. Accessors ending in `_mut` mark the job
//! for the indexes; `job_quietly` and `step_quietly` are for changes that no index depends on.

mod attempt;
mod cooldowns;
mod first_failures;
mod history;
pub(crate) mod incident;
mod job;
pub(crate) mod order;
mod quarantine;
mod slot;
mod step;
mod streams;
mod tasks;
mod time_limits;
mod waiting;
mod worker;

use std::collections::{BTreeMap, BTreeSet};

use kiln_types::{AttemptId, JobId, TaskId, WorkerId};

#[cfg(test)]
pub(crate) use self::tasks::Tasks;
pub(crate) use self::{
    attempt::{Attempt, AttemptPhase, AttemptTable, ProgressSample},
    cooldowns::{CooldownCause, Cooldowns},
    history::FailureHistory,
    incident::{Incident, IncidentKind, Probe, Quarantined, probe_pause_ms},
    job::{Job, JobEnd, JobPhase},
    quarantine::QuarantineLists,
    slot::Slot,
    step::Step,
    streams::WorkerStreams,
    tasks::{EndedTasks, TaskPlace},
    time_limits::TimeLimits,
    worker::{Match, Presence, Rank, Worker, slot_refs},
};
use crate::{
    ids::{SlotRef, StepRef},
    invariant::broken,
};

#[derive(Debug, Default)]
pub(crate) struct State {
    jobs: BTreeMap<JobId, Job>,
    workers: BTreeMap<WorkerId, Worker>,
    pub attempts: AttemptTable,
    /// Jobs that changed since the indexes were brought up to date.
    pub changed_jobs: BTreeSet<JobId>,
    /// Workers that changed since the indexes were brought up to date.
    pub changed_workers: BTreeSet<WorkerId>,
    /// Workers whose state may have changed since it was last recorded.
    pub unrecorded: BTreeSet<WorkerId>,
    /// Workers with streams, live or waiting for a report.
    streaming: BTreeSet<WorkerId>,
}

impl State {
    pub fn jobs(&self) -> &BTreeMap<JobId, Job> {
        &self.jobs
    }

    pub fn find_job(&self, id: JobId) -> Option<&Job> {
        self.jobs.get(&id)
    }

    pub fn find_job_mut(&mut self, id: JobId) -> Option<&mut Job> {
        let found = self.jobs.get_mut(&id)?;
        self.changed_jobs.insert(id);
        Some(found)
    }

    #[track_caller]
    pub fn job(&self, id: JobId) -> &Job {
        self.jobs.get(&id).unwrap_or_else(|| broken(id, "it is gone"))
    }

    #[track_caller]
    pub fn job_mut(&mut self, id: JobId) -> &mut Job {
        self.changed_jobs.insert(id);
        self.job_quietly(id)
    }

    #[track_caller]
    pub fn job_quietly(&mut self, id: JobId) -> &mut Job {
        self.jobs.get_mut(&id).unwrap_or_else(|| broken(id, "it is gone"))
    }

    pub fn add_job(&mut self, id: JobId, job: Job) {
        self.jobs.insert(id, job);
        self.changed_jobs.insert(id);
    }

    pub fn remove_job(&mut self, id: JobId) -> Option<Job> {
        self.changed_jobs.remove(&id);
        self.jobs.remove(&id)
    }

    pub fn find_step(&self, step: impl Into<StepRef>) -> Option<&Step> {
        let step = step.into();
        self.jobs.get(&step.job)?.steps.get(step.place())
    }

    pub fn find_step_mut(&mut self, step: impl Into<StepRef>) -> Option<&mut Step> {
        let step = step.into();
        self.find_job_mut(step.job)?.steps.get_mut(step.place())
    }

    #[track_caller]
    pub fn step(&self, step: impl Into<StepRef>) -> &Step {
        let step = step.into();
        self.find_step(step).unwrap_or_else(|| broken(step.job, format_args!("it has no step {}", step.step)))
    }

    #[track_caller]
    pub fn step_mut(&mut self, step: impl Into<StepRef>) -> &mut Step {
        let step = step.into();
        self.changed_jobs.insert(step.job);
        self.step_quietly(step)
    }

    #[track_caller]
    pub fn step_quietly(&mut self, step: impl Into<StepRef>) -> &mut Step {
        let step = step.into();
        let missing = || broken(step.job, format_args!("it has no step {}", step.step));
        self.job_quietly(step.job).steps.get_mut(step.place()).unwrap_or_else(missing)
    }

    pub fn find_place(&self, task: TaskId) -> Option<TaskPlace> {
        self.find_step(task)?.tasks.place(task.index)
    }

    /// Changes the history of a task that waits or is live.
    #[track_caller]
    pub fn update_history<T>(&mut self, task: TaskId, update: impl FnOnce(&mut FailureHistory) -> T) -> T {
        self.step_mut(task).tasks.update_history(task.index, update)
    }

    pub fn workers(&self) -> &BTreeMap<WorkerId, Worker> {
        &self.workers
    }

    pub fn find_worker(&self, id: WorkerId) -> Option<&Worker> {
        self.workers.get(&id)
    }

    pub fn find_worker_mut(&mut self, id: WorkerId) -> Option<&mut Worker> {
        self.workers.get_mut(&id)
    }

    #[track_caller]
    pub fn worker(&self, id: WorkerId) -> &Worker {
        self.workers.get(&id).unwrap_or_else(|| broken(None, format_args!("worker {id} is gone")))
    }

    #[track_caller]
    pub fn worker_mut(&mut self, id: WorkerId) -> &mut Worker {
        self.workers.get_mut(&id).unwrap_or_else(|| broken(None, format_args!("worker {id} is gone")))
    }

    pub fn workers_mut(&mut self) -> impl Iterator<Item = (WorkerId, &mut Worker)> {
        self.workers.iter_mut().map(|(id, worker)| (*id, worker))
    }

    pub fn add_worker(&mut self, id: WorkerId, worker: Worker) {
        self.workers.insert(id, worker);
    }

    pub fn remove_worker(&mut self, id: WorkerId) {
        self.workers.remove(&id);
        self.changed_workers.remove(&id);
        self.unrecorded.remove(&id);
        self.streaming.remove(&id);
    }

    pub fn streaming(&self) -> &BTreeSet<WorkerId> {
        &self.streaming
    }

    /// Changes the streams of a worker.
    #[track_caller]
    pub fn update_streams<T>(&mut self, id: WorkerId, update: impl FnOnce(&mut WorkerStreams) -> T) -> T {
        let streams = &mut self.worker_mut(id).streams;
        let answer = update(streams);
        if streams.is_empty() {
            self.streaming.remove(&id);
        } else {
            self.streaming.insert(id);
        }
        answer
    }

    /// Stops waiting for reports of a worker that is gone; returns the worker.
    #[track_caller]
    pub fn forget_reports(&mut self, id: WorkerId) -> &mut Worker {
        self.update_streams(id, WorkerStreams::clear);
        let worker = self.worker_mut(id);
        worker.slots_mut().iter_mut().for_each(|slot| drop(slot.reopen_all()));
        worker
    }

    /// Notes that the worker reports the attempt closed; returns whether a slot or a claim waited for that.
    pub fn reopen(&mut self, id: WorkerId, attempt: AttemptId) -> bool {
        let Some(worker) = self.workers.get_mut(&id) else { return false };
        let slots = worker.slots_mut().iter_mut().filter_map(|slot| slot.reopen(attempt).then_some(()));
        slots.count() > 0 || self.update_streams(id, |streams| streams.reopen(attempt))
    }

    /// Takes a live attempt off its worker, where its slot is still there.
    pub fn detach(&mut self, attempt: &Attempt, id: AttemptId) {
        match attempt.phase.slot() {
            Some(slot) => self.worker_mut(attempt.worker).detach(slot, id),
            None => self.update_streams(attempt.worker, |streams| streams.detach(id)),
        }
    }

    /// Marks the worker for the indexes, and for the record of its state.
    pub fn touch(&mut self, worker: WorkerId) {
        self.unrecorded.insert(worker);
        self.changed_workers.insert(worker);
    }

    pub fn find_slot(&self, slot: SlotRef) -> Option<&Slot> {
        self.workers.get(&slot.worker)?.slot(slot.slot)
    }

    #[track_caller]
    pub fn slot(&self, slot: SlotRef) -> &Slot {
        let missing = || broken(None, format_args!("worker {} has no slot {}", slot.worker, slot.slot));
        self.find_slot(slot).unwrap_or_else(missing)
    }

    #[track_caller]
    pub fn slot_mut(&mut self, slot: SlotRef) -> &mut Slot {
        self.slot_and_attempts(slot).0
    }

    /// The slot of an attempt that has one.
    #[track_caller]
    pub fn slot_of(&self, attempt: AttemptId) -> &Slot {
        let missing = || broken(None, format_args!("attempt {attempt} is on no slot"));
        self.slot(self.attempt(attempt).place().unwrap_or_else(missing))
    }

    /// The slot and the attempts, to change both.
    #[track_caller]
    pub fn slot_and_attempts(&mut self, slot: SlotRef) -> (&mut Slot, &mut AttemptTable) {
        let SlotRef { worker, slot } = slot;
        let missing = || broken(None, format_args!("worker {worker} cannot have a slot {slot}"));
        let found = self.workers.get_mut(&worker).and_then(|known| known.slot_mut(slot));
        (found.unwrap_or_else(missing), &mut self.attempts)
    }

    pub fn find_attempt(&self, id: AttemptId) -> Option<&Attempt> {
        self.attempts.get(&id)
    }

    #[track_caller]
    pub fn attempt(&self, id: AttemptId) -> &Attempt {
        self.attempts.get(&id).unwrap_or_else(|| broken(None, format_args!("attempt {id} is gone")))
    }

    #[track_caller]
    pub fn attempt_mut(&mut self, id: AttemptId) -> &mut Attempt {
        self.attempts.get_mut(id).unwrap_or_else(|| broken(None, format_args!("attempt {id} is gone")))
    }
}
