//! The jobs.

use std::collections::{BTreeMap, BTreeSet};

use kiln_types::{AttemptId, JobState, WorkerId};

use super::step::Step;
use crate::{Label, SchedulingOptions, StepState, ids::MemberId};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum JobPhase {
    #[default]
    Active,
    Paused,
    /// Nothing of it waits and nothing of it is live.
    Ended(JobEnd),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobEnd {
    Completed,
    Failed,
    Cancelled,
}

#[derive(Debug, Default)]
pub(crate) struct Job {
    pub phase: JobPhase,
    /// A task of it has started.
    pub has_begun: bool,
    pub options: SchedulingOptions,
    pub member: MemberId,
    /// It is counted among its account's jobs.
    pub is_counted: bool,
    /// It waits for nothing but workers: its time has come, and the jobs before it are completed.
    pub is_released: bool,
    /// The workers on which it holds slots, and how many.
    pub on: BTreeMap<WorkerId, u32>,
    pub steps: Vec<Step>,
    /// The device of all its steps, where there is one of several to choose and a worker has taken a task of it.
    pub pinned: Option<Label>,
}

impl Job {
    pub fn state(&self) -> JobState {
        match self.phase {
            JobPhase::Active if self.has_begun => JobState::Running,
            JobPhase::Active => JobState::Queued,
            JobPhase::Paused => JobState::Paused,
            JobPhase::Ended(JobEnd::Completed) => JobState::Completed,
            JobPhase::Ended(JobEnd::Failed) => JobState::Failed,
            JobPhase::Ended(JobEnd::Cancelled) => JobState::Cancelled,
        }
    }

    pub fn has_ended(&self) -> bool {
        matches!(self.phase, JobPhase::Ended(_))
    }

    pub fn is_completed(&self) -> bool {
        self.phase == JobPhase::Ended(JobEnd::Completed)
    }

    /// Returns whether its tasks may be dispatched.
    pub fn is_open(&self) -> bool {
        self.phase == JobPhase::Active && self.is_released
    }

    /// Returns whether it is on as many workers as it may be.
    pub fn is_full(&self) -> bool {
        self.options.max_workers.is_some_and(|most| self.on.len() >= most as usize)
    }

    /// Returns whether the job is on its most workers, and this is none of them.
    pub fn is_closed_to(&self, worker: WorkerId) -> bool {
        self.is_full() && !self.on.contains_key(&worker)
    }

    /// Returns whether the steps that this one waits for are done.
    pub fn is_unlocked(&self, step: usize) -> bool {
        self.steps[step].plan.after.iter().all(|after| self.steps[usize::from(after.0)].tasks.are_all_done())
    }

    pub fn live(&self) -> Vec<AttemptId> {
        self.steps.iter().flat_map(|step| step.tasks.attempts()).collect()
    }

    /// Closed attempts that may yet deliver.
    pub fn expired(&self) -> impl Iterator<Item = AttemptId> {
        let histories = self.steps.iter().flat_map(|step| step.tasks.histories());
        histories.flat_map(|(_, history)| history.expired().iter().copied())
    }

    /// Returns whether tasks of the step wait and lack only a slot, once the job is released.
    pub fn could_run(&self, step: usize) -> bool {
        self.steps[step].tasks.waiting_len() > 0 && self.is_unlocked(step)
    }

    pub fn step_state(&self, place: usize) -> StepState {
        let tasks = &self.steps[place].tasks;
        if tasks.are_all_done() {
            StepState::Completed
        } else if tasks.waiting_len() == 0 && tasks.live_len() == 0 {
            StepState::Failed
        } else if self.is_unlocked(place) {
            StepState::Open
        } else {
            StepState::Waiting
        }
    }

    /// Returns how the job ends now; `None` while something runs or may run.
    pub fn end(&self) -> Option<JobEnd> {
        let goes_on = |place: usize| self.steps[place].tasks.live_len() > 0 || self.could_run(place);
        if (0..self.steps.len()).any(goes_on) {
            None
        } else if self.steps.iter().all(|step| step.tasks.are_all_done()) {
            Some(JobEnd::Completed)
        } else if self.steps.iter().any(|step| step.tasks.counts().failed > 0) {
            Some(JobEnd::Failed)
        } else {
            Some(JobEnd::Cancelled)
        }
    }

    /// Steps that wait for this one, directly or through others.
    pub fn dependents(&self, step: usize) -> Vec<usize> {
        let mut found = BTreeSet::from([step]);
        for (place, later) in self.steps.iter().enumerate().skip(step + 1) {
            if later.plan.after.iter().any(|after| found.contains(&usize::from(after.0))) {
                found.insert(place);
            }
        }
        found.remove(&step);
        found.into_iter().collect()
    }
}
