//! What records mean: replaying them gives what [`Core::restore_job`](crate::Core::restore_job) needs.
//!
//! A store that keeps rows instead must be able to give back the same. The tests and the simulation restart
//! the core from a ledger, which proves that the records are enough.

use std::collections::BTreeMap;

use kiln_types::{AttemptId, AttemptState, Generation, JobId, JobState, SlotIndex, TaskId, WorkerId};

use crate::{
    JobPlan, Label, Record, RestoredAttempt, RestoredJob, RestoredPhase, RestoredStep, RestoredTrouble,
    Sickness, Standing, StepPlan,
};

/// The durable state of a farm, kept in memory.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    jobs: BTreeMap<JobId, LedgerJob>,
    sick: BTreeMap<WorkerId, Sickness>,
}

#[derive(Debug, Clone)]
struct LedgerJob {
    plan: Vec<StepPlan>,
    pinned: Option<Label>,
    standing: Standing,
    state: JobState,
    steps: Vec<RestoredStep>,
    attempts: BTreeMap<AttemptId, LedgerAttempt>,
}

#[derive(Debug, Clone)]
struct LedgerAttempt {
    task: TaskId,
    generation: Generation,
    worker: WorkerId,
    slot: SlotIndex,
    state: AttemptState,
    /// Whether a failure or lapse still counts: not after the task was reopened.
    counts: bool,
    /// What it ran out of memory with is not enough for its task: that needs so many bytes.
    outgrew: Option<u64>,
}

impl Ledger {
    pub fn new() -> Self {
        Self::default()
    }

    /// A job was submitted.
    pub fn add_job(&mut self, plan: &JobPlan) {
        let steps = vec![RestoredStep::default(); plan.steps().len()];
        let plan_steps = plan.steps().to_vec();
        let attempts = BTreeMap::new();
        let (standing, state) = (plan.stands().clone(), JobState::Queued);
        let job = LedgerJob { plan: plan_steps, pinned: None, standing, state, steps, attempts };
        self.jobs.insert(plan.id(), job);
    }

    /// A job was forgotten for good.
    pub fn remove_job(&mut self, job: JobId) {
        self.jobs.remove(&job);
    }

    /// A worker was removed.
    pub fn remove_worker(&mut self, worker: WorkerId) {
        self.sick.remove(&worker);
    }

    /// Workers that were sick after the last record.
    pub fn sick(&self) -> impl Iterator<Item = (WorkerId, &Sickness)> {
        self.sick.iter().map(|(id, sickness)| (*id, sickness))
    }

    pub fn job_ids(&self) -> impl Iterator<Item = JobId> {
        self.jobs.keys().copied()
    }

    pub fn standing(&self, job: JobId) -> Option<&Standing> {
        self.jobs.get(&job).map(|job| &job.standing)
    }

    /// A job stands otherwise from now on.
    pub fn set_standing(&mut self, job: JobId, standing: Standing) {
        if let Some(job) = self.jobs.get_mut(&job) {
            job.standing = standing;
        }
    }

    pub fn state(&self, job: JobId) -> Option<JobState> {
        self.jobs.get(&job).map(|job| job.state)
    }

    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::JobState { job, state, .. } => {
                if let Some(job) = self.jobs.get_mut(job) {
                    job.state = *state;
                }
            }
            Record::AttemptOpened { attempt, task, generation, worker, slot } => {
                if let Some(job) = self.jobs.get_mut(&task.job) {
                    let (task, generation, worker, slot) = (*task, *generation, *worker, *slot);
                    let state = AttemptState::Assigned;
                    let (counts, outgrew) = (true, None);
                    let opened = LedgerAttempt { task, generation, worker, slot, state, counts, outgrew };
                    job.attempts.insert(*attempt, opened);
                }
            }
            Record::AttemptStarted { attempt, task } => {
                self.set_attempt(*task, *attempt, AttemptState::Running);
            }
            Record::AttemptClosed { attempt, task, state, .. } => self.set_attempt(*task, *attempt, *state),
            Record::AttemptResumed { attempt, task, state } => {
                self.set_attempt(*task, *attempt, *state);
                self.set_counts(*task, *attempt, true);
            }
            Record::TaskCommitted { task, .. } => {
                if let Some(step) = self.step(task.job, task.step.0) {
                    step.done.insert(task.index);
                }
            }
            Record::TaskFailed { task, .. } => {
                if let Some(step) = self.step(task.job, task.step.0) {
                    step.failed.insert(task.index);
                }
            }
            Record::TasksReopened { job, step, tasks, generation } => {
                if let Some(found) = self.step(*job, step.0) {
                    found.done.remove_span(*tasks);
                    found.failed.remove_span(*tasks);
                    found.generations.set(*tasks, *generation);
                }
                let attempts = self.jobs.get_mut(job).map(|job| &mut job.attempts);
                for attempt in attempts.into_iter().flat_map(BTreeMap::values_mut) {
                    let inside = (tasks.first..=tasks.last).contains(&attempt.task.index);
                    if attempt.task.step == *step && inside {
                        attempt.counts = false;
                    }
                }
            }
            Record::CancelledTasks { job, step, tasks } => {
                if let Some(step) = self.step(*job, step.0) {
                    step.cancelled = tasks.clone();
                }
            }
            Record::JobPinned { job, device } => {
                if let Some(job) = self.jobs.get_mut(job) {
                    job.pinned.clone_from(device);
                }
            }
            Record::StepExtended { job, step, count } => {
                if let Some(found) = self.jobs.get_mut(job)
                    && let Some(step) = found.plan.get_mut(usize::from(step.0))
                {
                    step.count = *count;
                }
            }
            Record::AttemptExcused { attempt, task } => self.set_counts(*task, *attempt, false),
            Record::AttemptOutgrew { attempt, task, bytes } => {
                let job = self.jobs.get_mut(&task.job);
                if let Some(known) = job.and_then(|job| job.attempts.get_mut(attempt)) {
                    known.outgrew = Some(*bytes);
                }
            }
            Record::WorkerHealth { worker, sickness } => match sickness {
                Some(sickness) => drop(self.sick.insert(*worker, sickness.clone())),
                None => drop(self.sick.remove(worker)),
            },
            Record::StepState { .. } | Record::WorkerState { .. } => {}
        }
    }

    /// The job as it stood after the last record; None where there is no such job.
    pub fn restored(&self, id: JobId) -> Option<(JobPlan, RestoredJob)> {
        let job = self.jobs.get(&id)?;
        let mut steps = job.steps.clone();
        for (attempt, known) in &job.attempts {
            let step = steps.get_mut(usize::from(known.task.step.0))?;
            let task = known.task.index;
            let ended =
                step.done.contains(task) || step.failed.contains(task) || step.cancelled.contains(task);
            if ended || step.generations.get(task) != known.generation {
                continue;
            }
            if known.counts && matches!(known.state, AttemptState::Failed | AttemptState::Lapsed) {
                let at = step.troubles.iter().position(|trouble| trouble.task == task).unwrap_or_else(|| {
                    step.troubles.push(RestoredTrouble { task, ..RestoredTrouble::default() });
                    step.troubles.len() - 1
                });
                let trouble = &mut step.troubles[at];
                match known.state {
                    AttemptState::Failed => trouble.failed_on.push(known.worker),
                    _ => trouble.lapsed_on.push(known.worker),
                }
                trouble.outgrew = trouble.outgrew.max(known.outgrew);
            }
            let phase = match known.state {
                AttemptState::Assigned => RestoredPhase::Assigned,
                AttemptState::Running => RestoredPhase::Running,
                AttemptState::Lapsed if known.counts => RestoredPhase::Lapsed,
                _ => continue,
            };
            let (generation, worker, slot) = (known.generation, known.worker, known.slot);
            step.attempts.push(RestoredAttempt { attempt: *attempt, task, generation, worker, slot, phase });
        }
        let mut plan = JobPlan::new(id, job.plan.clone()).ok()?.standing(job.standing.clone());
        if let Some(label) = &job.pinned {
            plan = plan.pinned(label);
        }
        Some((plan, RestoredJob { state: job.state, steps }))
    }

    fn step(&mut self, job: JobId, step: u16) -> Option<&mut RestoredStep> {
        self.jobs.get_mut(&job)?.steps.get_mut(usize::from(step))
    }

    fn set_counts(&mut self, task: TaskId, attempt: AttemptId, counts: bool) {
        let job = self.jobs.get_mut(&task.job);
        if let Some(known) = job.and_then(|job| job.attempts.get_mut(&attempt)) {
            known.counts = counts;
        }
    }

    fn set_attempt(&mut self, task: TaskId, attempt: AttemptId, state: AttemptState) {
        if let Some(job) = self.jobs.get_mut(&task.job)
            && let Some(known) = job.attempts.get_mut(&attempt)
        {
            known.state = state;
        }
    }
}
