//! The meaning of records: replaying them gives what [`Core::restore_job`](crate::Core::restore_job) needs.
//!
//! A store that keeps rows instead must give the same. The tests and the simulation restart the core from a ledger, which
//! shows that the records are enough.

use std::collections::BTreeMap;

use kiln_types::{
    AttemptId, AttemptState, Generation, JobId, JobState, SlotIndex, StepIndex, TaskId, WorkerId,
};

use crate::{
    IndexSet, JobPlan, Label, Quarantine, Record, RestoredAttempt, RestoredHistory, RestoredJob,
    RestoredPhase, RestoredStep, SchedulingOptions, StepPlan,
};

/// The durable state of a farm, kept in memory.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    jobs: BTreeMap<JobId, LedgerJob>,
    quarantined: BTreeMap<WorkerId, Quarantine>,
}

#[derive(Debug, Clone)]
struct LedgerJob {
    plan: Vec<StepPlan>,
    pinned: Option<Label>,
    hold: Option<IndexSet>,
    options: SchedulingOptions,
    /// Without the histories and attempts of steps, which follow from `attempts`.
    restored: RestoredJob,
    attempts: BTreeMap<AttemptId, LedgerAttempt>,
}

#[derive(Debug, Clone)]
struct LedgerAttempt {
    task: TaskId,
    generation: Generation,
    worker: WorkerId,
    /// `None` while the attempt streams.
    slot: Option<SlotIndex>,
    state: AttemptState,
    /// A failure or loss counts until the task is reset or the attempt is forgiven.
    counts: bool,
    /// The least memory of a machine for the task, where the attempt ran out of it; bytes.
    least_memory: Option<u64>,
}

impl LedgerAttempt {
    fn opened(task: TaskId, generation: Generation, worker: WorkerId, slot: Option<SlotIndex>) -> Self {
        let (state, counts, least_memory) = (AttemptState::Assigned, true, None);
        Self { task, generation, worker, slot, state, counts, least_memory }
    }
}

impl Ledger {
    pub fn add_job(&mut self, plan: &JobPlan) {
        let job = LedgerJob {
            plan: plan.steps().to_vec(),
            pinned: None,
            hold: plan.hold().cloned(),
            options: plan.options().clone(),
            restored: RestoredJob::new(JobState::Queued, plan.steps().len()),
            attempts: BTreeMap::new(),
        };
        self.jobs.insert(plan.id(), job);
    }

    /// Adds a step to a job. Call it before the records that follow from the step are applied.
    pub fn add_step(&mut self, job: JobId, plan: StepPlan) {
        if let Some(job) = self.jobs.get_mut(&job) {
            job.plan.push(plan);
            job.restored.steps.push(RestoredStep::default());
        }
    }

    pub fn remove_job(&mut self, job: JobId) {
        self.jobs.remove(&job);
    }

    pub fn remove_worker(&mut self, worker: WorkerId) {
        self.quarantined.remove(&worker);
    }

    /// The workers that are in quarantine after the last record.
    pub fn quarantined(&self) -> impl Iterator<Item = (WorkerId, &Quarantine)> {
        self.quarantined.iter().map(|(id, quarantine)| (*id, quarantine))
    }

    pub fn job_ids(&self) -> impl Iterator<Item = JobId> {
        self.jobs.keys().copied()
    }

    pub fn options(&self, job: JobId) -> Option<&SchedulingOptions> {
        self.jobs.get(&job).map(|job| &job.options)
    }

    pub fn set_options(&mut self, job: JobId, options: SchedulingOptions) {
        if let Some(job) = self.jobs.get_mut(&job) {
            job.options = options;
        }
    }

    pub fn state(&self, job: JobId) -> Option<JobState> {
        self.jobs.get(&job).map(|job| job.restored.state)
    }

    /// Applies a record. One about a job that is forgotten changes nothing.
    pub fn apply(&mut self, record: &Record) {
        self.try_apply(record);
    }

    fn try_apply(&mut self, record: &Record) -> Option<()> {
        match *record {
            Record::JobState { job, state, .. } => self.jobs.get_mut(&job)?.restored.state = state,
            Record::AttemptOpened { attempt, task, generation, worker, slot } => {
                let opened = LedgerAttempt::opened(task, generation, worker, Some(slot));
                self.jobs.get_mut(&task.job)?.attempts.insert(attempt, opened);
            }
            Record::StreamOpened { attempt, task, generation, worker } => {
                let opened = LedgerAttempt::opened(task, generation, worker, None);
                self.jobs.get_mut(&task.job)?.attempts.insert(attempt, opened);
            }
            Record::StreamPlaced { attempt, task, slot } => self.attempt(task, attempt)?.slot = Some(slot),
            Record::AttemptStarted { attempt, task } => {
                self.attempt(task, attempt)?.state = AttemptState::Running;
            }
            Record::AttemptClosed { attempt, task, state, .. } => self.attempt(task, attempt)?.state = state,
            Record::AttemptResumed { attempt, task, state } => {
                let known = self.attempt(task, attempt)?;
                known.state = state;
                known.counts = true;
            }
            Record::TaskCommitted { task, .. } => {
                self.step(task.job, task.step)?.done.insert(task.index);
            }
            Record::TaskFailed { task, .. } => {
                self.step(task.job, task.step)?.failed.insert(task.index);
            }
            Record::TasksReset { job, step, tasks, generation } => {
                let found = self.step(job, step)?;
                found.done.remove_span(tasks);
                found.failed.remove_span(tasks);
                found.generations.set(tasks, generation);
                for attempt in self.jobs.get_mut(&job)?.attempts.values_mut() {
                    let is_inside = (tasks.first..=tasks.last).contains(&attempt.task.index);
                    attempt.counts &= !(is_inside && attempt.task.step == step);
                }
            }
            Record::CancelledTasks { job, step, ref tasks } => {
                self.step(job, step)?.cancelled.clone_from(tasks);
            }
            Record::HoldLifted { job } => self.jobs.get_mut(&job)?.hold = None,
            Record::JobPinned { job, ref device } => self.jobs.get_mut(&job)?.pinned.clone_from(device),
            Record::StepExtended { job, step, count } => {
                self.jobs.get_mut(&job)?.plan.get_mut(usize::from(step.0))?.count = count;
            }
            Record::AttemptForgiven { attempt, task } => self.attempt(task, attempt)?.counts = false,
            Record::MemoryExceeded { attempt, task, bytes } => {
                self.attempt(task, attempt)?.least_memory = Some(bytes);
            }
            Record::WorkerQuarantine { worker, quarantine: Some(ref quarantine) } => {
                self.quarantined.insert(worker, quarantine.clone());
            }
            Record::WorkerQuarantine { worker, quarantine: None } => self.remove_worker(worker),
            // The step comes by `add_step`.
            Record::StepAdded { .. } | Record::StepState { .. } | Record::WorkerState { .. } => {}
        }
        Some(())
    }

    /// The job after the last record; `None` if there is no such job.
    pub fn restored(&self, id: JobId) -> Option<(JobPlan, RestoredJob)> {
        let job = self.jobs.get(&id)?;
        let mut restored = job.restored.clone();
        for (attempt, known) in &job.attempts {
            let step = restored.steps.get_mut(usize::from(known.task.step.0))?;
            let task = known.task.index;
            let has_ended = [&step.done, &step.failed, &step.cancelled].iter().any(|set| set.contains(task));
            if has_ended || step.generations.get(task) != known.generation {
                continue;
            }
            if known.counts && matches!(known.state, AttemptState::Failed | AttemptState::Expired) {
                let at = step.histories.iter().position(|history| history.task == task);
                let at = at.unwrap_or_else(|| {
                    step.histories.push(RestoredHistory { task, ..RestoredHistory::default() });
                    step.histories.len() - 1
                });
                let history = &mut step.histories[at];
                match known.state {
                    AttemptState::Failed => history.failed_on.push(known.worker),
                    _ => history.lost_on.push(known.worker),
                }
                history.least_memory = history.least_memory.max(known.least_memory);
            }
            let phase = match (known.state, known.slot) {
                (AttemptState::Assigned, None) => RestoredPhase::Streaming,
                (AttemptState::Assigned, Some(slot)) => RestoredPhase::Assigned { slot },
                (AttemptState::Running, Some(slot)) => RestoredPhase::Running { slot },
                (AttemptState::Expired, Some(slot)) if known.counts => RestoredPhase::Expired { slot },
                _ => continue,
            };
            let LedgerAttempt { generation, worker, .. } = *known;
            step.attempts.push(RestoredAttempt { attempt: *attempt, task, generation, worker, phase });
        }
        let mut plan = JobPlan::new(id, job.plan.clone()).ok()?.scheduled(job.options.clone());
        if let Some(label) = &job.pinned {
            plan = plan.pinned(label);
        }
        if let Some(first) = &job.hold {
            plan = plan.held_after(first.clone()).ok()?;
        }
        Some((plan, restored))
    }

    fn step(&mut self, job: JobId, step: StepIndex) -> Option<&mut RestoredStep> {
        self.jobs.get_mut(&job)?.restored.steps.get_mut(usize::from(step.0))
    }

    fn attempt(&mut self, task: TaskId, attempt: AttemptId) -> Option<&mut LedgerAttempt> {
        self.jobs.get_mut(&task.job)?.attempts.get_mut(&attempt)
    }
}
