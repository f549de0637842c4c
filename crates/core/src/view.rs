//! The core as others may look at it.

use std::collections::BTreeMap;

use kiln_types::{
    AttemptId, Generation, JobId, JobState, StepIndex, TaskId, TaskState, WorkerId, WorkerState, WorkerWish,
};

use crate::{Core, Label, Moment, Party, Requirement, StepState, health::Trial, job::Place, worker::Worker};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobView {
    pub id: JobId,
    pub state: JobState,
    /// The device that it is pinned to, of several on which it may render.
    pub pinned: Option<Label>,
    pub steps: Vec<StepView>,
}

impl JobView {
    /// Over all steps.
    pub fn counts(&self) -> TaskCounts {
        self.steps.iter().fold(TaskCounts::default(), |sum, step| sum.plus(step.counts))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepView {
    pub state: StepState,
    pub counts: TaskCounts,
}

/// How many tasks stand where; together they are all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TaskCounts {
    pub waiting: u32,
    /// Handed to a slot that has not begun them.
    pub assigned: u32,
    pub running: u32,
    pub done: u32,
    pub failed: u32,
    pub cancelled: u32,
}

impl TaskCounts {
    pub fn total(self) -> u32 {
        self.waiting + self.assigned + self.running + self.done + self.failed + self.cancelled
    }

    fn plus(self, other: Self) -> Self {
        Self {
            waiting: self.waiting + other.waiting,
            assigned: self.assigned + other.assigned,
            running: self.running + other.running,
            done: self.done + other.done,
            failed: self.failed + other.failed,
            cancelled: self.cancelled + other.cancelled,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskView {
    pub state: TaskState,
    pub generation: Generation,
    /// The open attempt and its worker, where the task is assigned or running.
    pub attempt: Option<(AttemptId, WorkerId)>,
    /// Its second attempt, where it was started again because the first will end late.
    pub twin: Option<(AttemptId, WorkerId)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerView {
    pub id: WorkerId,
    /// Empty for a worker known only from stored attempts.
    pub name: String,
    pub state: WorkerState,
    pub wish: WorkerWish,
    /// As last offered.
    pub slots: u16,
    /// Slots with an attempt that is running or about to.
    pub busy: u16,
    /// Attempts handed to it and not closed.
    pub attempts: u32,
    /// Why it is set aside, where it is.
    pub sick: Option<SickView>,
}

/// A worker that is set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SickView {
    pub why: String,
    /// How often it has been tried in vain.
    pub trials: u32,
    /// When it is tried next; `None` where it may be at any time, or is being tried.
    pub next: Option<Moment>,
}

/// Something of which the farm has only so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitView {
    pub total: u32,
    pub used: u32,
}

impl Core {
    pub fn job(&self, id: JobId) -> Option<JobView> {
        let job = self.jobs.get(&id)?;
        let steps = job.steps.iter().enumerate();
        let steps = steps
            .map(|(index, step)| StepView { state: job.step_state(index), counts: step.counts() })
            .collect();
        Some(JobView { id, state: job.state(), pinned: job.pinned.clone(), steps })
    }

    /// Jobs that the core holds, by id.
    pub fn job_ids(&self) -> impl Iterator<Item = JobId> {
        self.jobs.keys().copied()
    }

    pub fn task(&self, task: TaskId) -> Option<TaskView> {
        let step = self.step(task)?;
        let (state, attempt) = match step.place(task.index)? {
            Place::Waiting => (TaskState::Waiting, None),
            Place::Live(id) => {
                let known = self.attempts.get(&id)?;
                let state = if known.phase.has_begun() { TaskState::Running } else { TaskState::Assigned };
                (state, Some((id, known.worker)))
            }
            Place::Done => (TaskState::Done, None),
            Place::Failed => (TaskState::Failed, None),
            Place::Cancelled => (TaskState::Cancelled, None),
        };
        let twin = step.twins.get(&task.index).copied();
        let twin = twin.and_then(|id| self.attempts.get(&id).map(|known| (id, known.worker)));
        Some(TaskView { state, generation: step.generations.get(task.index), attempt, twin })
    }

    /// Where this attempt belongs, if the core still knows it: open, or closed and able to deliver.
    pub fn attempt_task(&self, attempt: AttemptId) -> Option<(TaskId, Generation, WorkerId)> {
        self.attempts.get(&attempt).map(|known| (known.task, known.generation, known.worker))
    }

    pub fn workers(&self) -> Vec<WorkerView> {
        self.workers.iter().map(|(id, worker)| view(*id, worker)).collect()
    }

    pub fn worker(&self, id: WorkerId) -> Option<WorkerView> {
        self.workers.get(&id).map(|worker| view(id, worker))
    }

    /// Whether the worker gets nothing of the job for now, because it handed such work back or failed to begin it.
    pub fn is_paused_for(&self, worker: WorkerId, job: JobId) -> bool {
        let Some(job) = self.jobs.get(&job) else { return false };
        let mut steps = job.steps.iter().enumerate().filter(|(index, _)| job.could_run(*index));
        steps.any(|(_, step)| {
            let session = self.session_on(worker, job, step);
            session.is_some_and(|session| self.is_held_off(worker, step.need, session))
        })
    }

    /// What a worker must have and have free for tasks of the step.
    pub fn requirement(&self, job: JobId, step: StepIndex) -> Option<&Requirement> {
        self.step_of((job, step)).map(|step| &self.needs[step.need].requirement)
    }

    /// The slots that projects and users with jobs hold now.
    pub fn held_slots(&self) -> BTreeMap<Party, u32> {
        self.accounts.slots()
    }

    /// What there is of each limit, and how many slots count against it now.
    pub fn limits(&self) -> impl Iterator<Item = (&str, LimitView)> {
        self.limits
            .iter()
            .map(|(name, limit)| (name.as_str(), LimitView { total: limit.total, used: limit.used }))
    }

    /// Whether no job has anything left to run: every one has ended, or there is none.
    pub fn is_idle(&self) -> bool {
        self.active.is_empty()
    }
}

fn view(id: WorkerId, worker: &Worker) -> WorkerView {
    WorkerView {
        id,
        name: worker.offer.name.clone(),
        state: worker.state(),
        wish: worker.wish,
        slots: worker.offer.slots,
        busy: worker.slots.iter().filter(|slot| !slot.queue.is_empty()).count() as u16,
        attempts: worker.live().count() as u32,
        sick: worker.sick.as_ref().map(|sick| SickView {
            why: sick.sickness.why.clone(),
            trials: sick.sickness.trials,
            next: match sick.trial {
                Trial::At(at) => Some(at),
                Trial::Due | Trial::Runs(_) => None,
            },
        }),
    }
}
