//! The views of the core's state for its callers.

use std::collections::BTreeMap;

use kiln_types::{
    AttemptId, DependencyEnd, DependencyScope, DesiredState, Generation, JobId, JobState, StepIndex, TaskId,
    TaskState, WorkerId, WorkerState,
};

use crate::{
    Account, Core, FarmLimit, IndexSet, Label, Moment, Requirement, StepState, TaskCounts,
    ids::StepRef,
    state::{Probe, TaskPlace, Worker},
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobStatus {
    pub id: JobId,
    pub state: JobState,
    /// The device that the job is pinned to, of several to choose from.
    pub pinned: Option<Label>,
    pub steps: Vec<StepStatus>,
}

impl JobStatus {
    /// Over all steps.
    pub fn counts(&self) -> TaskCounts {
        self.steps.iter().fold(TaskCounts::default(), |sum, step| sum.plus(step.counts))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepStatus {
    pub state: StepState,
    pub counts: TaskCounts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskStatus {
    pub state: TaskState,
    pub generation: Generation,
    /// The open attempt and its worker, where the task is assigned or running, or streams.
    pub attempt: Option<(AttemptId, WorkerId)>,
    /// The speculative attempt.
    pub second: Option<(AttemptId, WorkerId)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerStatus {
    pub id: WorkerId,
    /// Empty for a worker known only from stored attempts.
    pub name: String,
    pub state: WorkerState,
    pub desired: DesiredState,
    /// The slots of the last offer.
    pub slots: u16,
    /// Slots with an attempt that runs or is queued.
    pub busy: u16,
    /// Live attempts.
    pub attempts: u32,
    pub quarantine: Option<QuarantineView>,
}

/// The quarantine of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantineView {
    /// One sentence for a person.
    pub reason: String,
    pub failed_probes: u32,
    /// The earliest time of the next probe; `None` if it is due or runs.
    pub next: Option<Moment>,
}

impl Core {
    pub fn job(&self, id: JobId) -> Option<JobStatus> {
        let job = self.state.find_job(id)?;
        let steps = job.steps.iter().enumerate();
        let steps = steps
            .map(|(place, step)| StepStatus { state: job.step_state(place), counts: step.tasks.counts() })
            .collect();
        Some(JobStatus { id, state: job.state(), pinned: job.pinned.clone(), steps })
    }

    /// The jobs that the core holds, by id.
    pub fn job_ids(&self) -> impl Iterator<Item = JobId> {
        self.state.jobs().keys().copied()
    }

    pub fn task(&self, task: TaskId) -> Option<TaskStatus> {
        let tasks = &self.state.find_step(task)?.tasks;
        let attempt = |id: AttemptId| (id, self.state.attempt(id).worker);
        let state = match tasks.place(task.index)? {
            TaskPlace::Waiting | TaskPlace::Blocked | TaskPlace::Streaming(_) => TaskState::Waiting,
            TaskPlace::Live(id) if self.state.attempt(id).phase.has_begun() => TaskState::Running,
            TaskPlace::Live(_) => TaskState::Assigned,
            TaskPlace::Done => TaskState::Done,
            TaskPlace::Failed => TaskState::Failed,
            TaskPlace::Cancelled => TaskState::Cancelled,
        };
        Some(TaskStatus {
            state,
            generation: tasks.generation(task.index),
            attempt: tasks.any_attempt(task.index).map(attempt),
            second: tasks.second_attempt(task.index).map(attempt),
        })
    }

    /// The task, generation and worker of an attempt that is open, or closed and may still deliver.
    pub fn attempt_task(&self, attempt: AttemptId) -> Option<(TaskId, Generation, WorkerId)> {
        self.state.find_attempt(attempt).map(|known| (known.task, known.generation, known.worker))
    }

    pub fn workers(&self) -> Vec<WorkerStatus> {
        self.state.workers().iter().map(|(id, worker)| worker_status(*id, worker)).collect()
    }

    pub fn worker(&self, id: WorkerId) -> Option<WorkerStatus> {
        self.state.find_worker(id).map(|worker| worker_status(id, worker))
    }

    /// The requirement of the step, with the memory that was learned.
    pub fn requirement(&self, job: JobId, step: StepIndex) -> Option<&Requirement> {
        let step = self.state.find_step(StepRef { job, step })?;
        Some(&self.requirements[step.requirement].requirement)
    }

    /// The tasks of a step that open tasks depend on.
    pub fn tasks_in_use(&self, job: JobId, step: StepIndex) -> IndexSet {
        let mut used = IndexSet::default();
        let Some(job) = self.state.find_job(job) else { return used };
        let Some(made) = job.steps.get(usize::from(step.0)) else { return used };
        for user in &job.steps {
            for after in user.plan.after.iter().filter(|after| after.step == step) {
                let mut open = IndexSet::first(user.tasks.count());
                open.subtract(&user.tasks.reached(DependencyEnd::Ended));
                match after.scope {
                    DependencyScope::Frame => used.merge(&made.plan.tasks_of(&user.plan.frames_of(&open))),
                    DependencyScope::Step if open.is_empty() => {}
                    DependencyScope::Step => return IndexSet::first(made.tasks.count()),
                }
            }
        }
        used
    }

    /// The slots that projects and users with jobs hold now.
    pub fn held_slots(&self) -> BTreeMap<Account, u32> {
        self.fair_share.slots()
    }

    /// The farm-wide limits by name.
    pub fn limits(&self) -> impl Iterator<Item = (&str, FarmLimit)> {
        self.limits.iter().map(|(name, limit)| (name.as_str(), *limit))
    }

    /// Returns whether every job has ended.
    pub fn is_idle(&self) -> bool {
        self.indexes.active.is_empty()
    }
}

fn worker_status(id: WorkerId, worker: &Worker) -> WorkerStatus {
    WorkerStatus {
        id,
        name: worker.offer.name.clone(),
        state: worker.state(),
        desired: worker.desired,
        slots: worker.offer.slots,
        busy: worker.slots().iter().filter(|slot| !slot.queue().is_empty()).count() as u16,
        attempts: worker.live().count() as u32,
        quarantine: worker.quarantined.as_ref().map(|known| QuarantineView {
            reason: known.quarantine.reason.clone(),
            failed_probes: known.quarantine.failed_probes,
            next: match known.probe {
                Probe::NotBefore(at) => Some(at),
                Probe::Due | Probe::Runs(_) => None,
            },
        }),
    }
}
