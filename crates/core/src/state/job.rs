//! Jobs, and the dependencies between their steps.

use std::collections::BTreeMap;

use kiln_types::{AttemptId, JobState, StepIndex, TaskIndex, WorkerId};

use super::step::Step;
use crate::{
    DependencyEnd, DependencyScope, DependencyStart, IndexSet, Label, SchedulingOptions, StepDependency,
    StepState, ids::MemberId,
};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum JobPhase {
    #[default]
    Active,
    Paused,
    /// No task waits and none is live.
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
    /// A task has started.
    pub has_begun: bool,
    pub options: SchedulingOptions,
    pub member: MemberId,
    /// The job is counted among the active ones of its account.
    pub is_counted: bool,
    /// The start time has come, and the jobs before this one are completed.
    pub is_released: bool,
    /// The workers on which the job holds slots, each with their number.
    pub on: BTreeMap<WorkerId, u32>,
    pub steps: Vec<Step>,
    /// The device of all steps, once it is chosen of several.
    pub pinned: Option<Label>,
    /// The positions of the frames that render before a person resumes the job; `None` without a hold.
    pub hold: Option<IndexSet>,
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

    /// Returns whether tasks may be dispatched.
    pub fn is_open(&self) -> bool {
        self.phase == JobPhase::Active && self.is_released
    }

    /// Returns whether the job is on as many workers as it may be.
    pub fn is_full(&self) -> bool {
        self.options.max_workers.is_some_and(|most| self.on.len() >= most as usize)
    }

    /// Returns whether the job is full and not on this worker.
    pub fn is_closed_to(&self, worker: WorkerId) -> bool {
        self.is_full() && !self.on.contains_key(&worker)
    }

    /// Returns whether the dependencies of the step on whole steps are met.
    pub fn is_unlocked(&self, step: usize) -> bool {
        let mut whole =
            self.steps[step].plan.after.iter().filter(|after| after.scope == DependencyScope::Step);
        whole.all(|after| self.steps[usize::from(after.step.0)].tasks.have_all_reached(after.until))
    }

    fn frame_dependencies(&self, step: usize) -> impl Iterator<Item = (&Step, DependencyEnd)> {
        let after = self.steps[step].plan.after.iter().filter(|after| after.scope == DependencyScope::Frame);
        after.map(|after| (&self.steps[usize::from(after.step.0)], after.until))
    }

    /// The tasks of the step whose dependencies on the same frame are met and that are not held; `None` for a step without
    /// either.
    pub fn tasks_with_frames(&self, step: usize) -> Option<IndexSet> {
        let ready =
            |(before, end): (&Step, DependencyEnd)| before.plan.whole_frames_of(&before.tasks.reached(end));
        let frames = self.frame_dependencies(step).map(ready).reduce(|all, ready| all.intersection(&ready));
        let ready = frames.map(|frames| self.steps[step].plan.tasks_of(&frames));
        match (ready, self.tasks_before_hold(step)) {
            (Some(ready), Some(first)) => Some(ready.intersection(&first)),
            (ready, first) => ready.or(first),
        }
    }

    /// Blocks the tasks of every step that lack the same frame of an earlier one or are held, and unblocks all others.
    pub fn block_tasks(&mut self) {
        for place in 0..self.steps.len() {
            if let Some(ready) = self.tasks_with_frames(place) {
                let tasks = &mut self.steps[place].tasks;
                let mut lacking = IndexSet::first(tasks.count());
                lacking.subtract(&ready);
                tasks.block(&lacking);
                tasks.unblock(&ready);
            }
        }
    }

    /// Unblocks the tasks of later steps that lacked only the frame of this task, which has ended.
    pub fn unblock_dependents(&mut self, step: StepIndex, task: TaskIndex) {
        if usize::from(step.0) + 1 == self.steps.len() {
            return;
        }
        let task = IndexSet::from_iter([task]);
        let frame = self.steps[usize::from(step.0)].plan.frames_of(&task);
        for place in usize::from(step.0) + 1..self.steps.len() {
            let mut before = self.frame_dependencies(place).peekable();
            if before.peek().is_some()
                && before.all(|(before, end)| before.tasks.have_reached(end, &before.plan.tasks_of(&frame)))
            {
                drop(before);
                let tasks = self.steps[place].plan.tasks_of(&frame);
                self.steps[place].tasks.unblock(&tasks);
            }
        }
    }

    pub fn live(&self) -> Vec<AttemptId> {
        self.steps.iter().flat_map(|step| step.tasks.attempts()).collect()
    }

    /// Closed attempts that may still deliver.
    pub fn expired(&self) -> impl Iterator<Item = AttemptId> {
        let histories = self.steps.iter().flat_map(|step| step.tasks.histories());
        histories.flat_map(|(_, history)| history.expired().iter().copied())
    }

    /// Returns whether tasks of the step lack only a slot, once the job is released.
    pub fn has_ready_tasks(&self, step: usize) -> bool {
        let tasks = &self.steps[step].tasks;
        let any = tasks.waiting_len() > 0 || tasks.streaming().with_frames().next().is_some();
        any && self.is_unlocked(step)
    }

    /// Returns whether a task of the step runs or may run.
    pub fn can_progress(&self, step: usize) -> bool {
        self.steps[step].tasks.live_len() > 0 || self.has_ready_tasks(step)
    }

    /// The tasks of the step that stream and lack only a slot.
    pub fn ready_streams(&self, step: usize) -> impl Iterator<Item = (TaskIndex, AttemptId)> {
        let is_any = self.steps[step].tasks.streaming().len() > 0 && self.is_unlocked(step);
        self.steps[step].tasks.streaming().with_frames().filter(move |_| is_any)
    }

    /// The tasks of the step that may begin to stream: the first task of each dependency is done, but not all of them.
    pub fn streamable(&self, step: usize) -> IndexSet {
        let Step { plan, tasks, .. } = &self.steps[step];
        let is_unlocked = self.is_unlocked(step);
        let mut may = tasks.blocked().clone();
        if !is_unlocked {
            may.merge(&tasks.waiting());
        }
        if let Some(first) = self.tasks_before_hold(step) {
            may = may.intersection(&first);
        }
        for after in &plan.after {
            let before = &self.steps[usize::from(after.step.0)];
            let is_early = after.start == DependencyStart::FirstDone;
            match after.scope {
                DependencyScope::Step => {
                    let has_begun = is_early && !before.tasks.done().is_empty();
                    if !has_begun && !before.tasks.have_all_reached(after.until) {
                        return IndexSet::default();
                    }
                }
                DependencyScope::Frame => {
                    let mut frames = before.plan.whole_frames_of(&before.tasks.reached(after.until));
                    if is_early {
                        frames.merge(&before.plan.frames_of(before.tasks.done()));
                    }
                    may = may.intersection(&plan.tasks_of(&frames));
                }
            }
        }
        may
    }

    pub fn step_state(&self, place: usize) -> StepState {
        let tasks = &self.steps[place].tasks;
        if tasks.are_all_done() {
            StepState::Completed
        } else if (tasks.live_len() > 0 && self.is_unlocked(place)) || self.has_ready_tasks(place) {
            StepState::Open
        } else if tasks.counts().waiting + tasks.live_len() > 0 {
            StepState::Waiting
        } else {
            StepState::Failed
        }
    }

    /// The end of the job; `None` while a task runs or may run.
    pub fn end(&self) -> Option<JobEnd> {
        if (0..self.steps.len()).any(|place| self.can_progress(place)) || self.is_held() {
            None
        } else if self.steps.iter().all(|step| step.tasks.are_all_done()) {
            Some(JobEnd::Completed)
        } else if self.steps.iter().any(|step| step.tasks.counts().failed > 0) {
            Some(JobEnd::Failed)
        } else {
            Some(JobEnd::Cancelled)
        }
    }

    /// The tasks of later steps whose input changes with these tasks, directly or through others. `counts` returns whether
    /// a dependency on the changed tasks themselves matters.
    pub fn dependents(
        &self,
        changed: BTreeMap<usize, IndexSet>,
        counts: impl Fn(&StepDependency) -> bool,
    ) -> BTreeMap<usize, IndexSet> {
        let mut later: BTreeMap<usize, IndexSet> = BTreeMap::new();
        for (place, step) in self.steps.iter().enumerate() {
            let mut tasks = IndexSet::default();
            for after in &step.plan.after {
                let before = usize::from(after.step.0);
                let named = changed.get(&before).filter(|tasks| counts(after) && !tasks.is_empty());
                for inputs in named.into_iter().chain(later.get(&before)) {
                    match after.scope {
                        DependencyScope::Step => tasks = IndexSet::first(step.tasks.count()),
                        DependencyScope::Frame => {
                            let frames = self.steps[before].plan.frames_of(inputs);
                            tasks.merge(&step.plan.tasks_of(&frames));
                        }
                    }
                }
            }
            if !tasks.is_empty() {
                later.insert(place, tasks);
            }
        }
        later
    }
}
