//! A job and its steps: where each task stands, kept as sets of spans so that finished and waiting tasks cost
//! next to nothing.

use std::collections::{BTreeMap, BTreeSet};

use kiln_types::{AttemptId, Failure, JobState, TaskIndex, WorkerId};

use crate::{
    Generations, IndexSet, Label, Standing, StepPlan, StepState, TaskCounts, TaskSpan, accounts::AccountId,
    alike::Firsts, memory::Peak, needs::Need, order::Spot, pace::Pace, ready::Shelf, waiting::Waiting,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobPhase {
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

#[derive(Debug)]
pub(crate) struct Job {
    pub phase: JobPhase,
    /// Whether a task of it ever started.
    pub begun: bool,
    pub standing: Standing,
    pub account: AccountId,
    /// Whether it is counted among its account's jobs.
    pub entered: bool,
    /// What it waits for besides workers is over: its time has come, and the jobs before it are completed.
    pub released: bool,
    /// On which workers it holds slots, and how many.
    pub on: BTreeMap<WorkerId, u32>,
    pub steps: Vec<Step>,
    /// The device of all its steps, where there is one of several to choose and a worker has taken a task of it.
    pub pinned: Option<Label>,
}

impl Job {
    pub fn state(&self) -> JobState {
        match self.phase {
            JobPhase::Active if self.begun => JobState::Running,
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

    /// Whether it is on as many workers as it may be.
    pub fn is_full(&self) -> bool {
        self.standing.max_workers.is_some_and(|most| self.on.len() >= most as usize)
    }

    /// Whether the steps that this one waits for are done.
    pub fn is_unlocked(&self, step: usize) -> bool {
        self.steps[step].plan.after.iter().all(|after| self.steps[usize::from(after.0)].is_complete())
    }

    /// Every attempt that is out.
    pub fn live(&self) -> Vec<AttemptId> {
        self.steps.iter().flat_map(Step::attempts).collect()
    }

    /// Whether tasks of the step wait and only lack a slot, once the job is released.
    pub fn could_run(&self, step: usize) -> bool {
        self.steps[step].waiting_len() > 0 && self.is_unlocked(step)
    }

    pub fn step_state(&self, index: usize) -> StepState {
        let step = &self.steps[index];
        if step.is_complete() {
            StepState::Completed
        } else if step.waiting_len() == 0 && step.live.is_empty() {
            StepState::Failed
        } else if self.is_unlocked(index) {
            StepState::Open
        } else {
            StepState::Waiting
        }
    }

    /// How the job ends now, or None while something runs or may run.
    pub fn end(&self) -> Option<JobEnd> {
        let goes_on = |index: usize| {
            let step = &self.steps[index];
            !step.live.is_empty() || self.could_run(index)
        };
        if (0..self.steps.len()).any(goes_on) {
            None
        } else if self.steps.iter().all(Step::is_complete) {
            Some(JobEnd::Completed)
        } else if self.steps.iter().any(|step| !step.failed.is_empty()) {
            Some(JobEnd::Failed)
        } else {
            Some(JobEnd::Cancelled)
        }
    }

    /// Steps that wait for `step`, directly or through others.
    pub fn dependents(&self, step: usize) -> Vec<usize> {
        let mut found = BTreeSet::from([step]);
        for (index, later) in self.steps.iter().enumerate().skip(step + 1) {
            if later.plan.after.iter().any(|after| found.contains(&usize::from(after.0))) {
                found.insert(index);
            }
        }
        found.remove(&step);
        found.into_iter().collect()
    }
}

/// Every task of a step is in exactly one of `waiting`, `retry`, `live`, `done`, `failed`, `cancelled`.
#[derive(Debug)]
pub(crate) struct Step {
    pub plan: StepPlan,
    pub need: Need,
    /// Tasks that wait and have gone wrong on no worker.
    pub waiting: Waiting,
    /// Tasks that wait and had better not go to a worker on which they went wrong.
    pub retry: BTreeSet<Spot>,
    pub live: BTreeMap<TaskIndex, AttemptId>,
    /// How many of `live` have begun.
    pub running: u32,
    /// Second attempts of tasks that are live, started because the first will end late.
    pub twins: BTreeMap<TaskIndex, AttemptId>,
    /// How often an attempt of a live task was stopped for another one elsewhere.
    pub replaced: BTreeMap<TaskIndex, u8>,
    pub done: IndexSet,
    pub failed: IndexSet,
    pub cancelled: IndexSet,
    pub generations: Generations,
    pub troubles: BTreeMap<TaskIndex, Trouble>,
    /// As last recorded.
    pub state: StepState,
    /// Under which need and where its waiting tasks are on offer.
    pub shelf: Option<(Need, Shelf)>,
    /// How many they were when they were last put there.
    pub offered: u32,
    pub pace: Pace,
    pub peak: Peak,
    /// Workers that have delivered tasks of it in this reign.
    pub delivered_by: BTreeSet<WorkerId>,
    /// What its first tasks failed of, as long as none has been delivered.
    pub firsts: Firsts,
}

/// What went wrong with a task that waits or is live; forgotten when it ends, so that a retry starts clean.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    /// The worker of each failed attempt.
    pub failed_on: Vec<WorkerId>,
    /// Why the last of them failed.
    pub last: Option<Failure>,
    /// It may have more failures than it should: workers were to blame, and others were left.
    pub spared: bool,
    /// The worker of each attempt that lapsed while it ran.
    pub lapsed_on: Vec<WorkerId>,
    /// The attempts of this reign among those, which may yet turn out to be their workers' fault.
    pub counted: Vec<(AttemptId, Fault)>,
    /// It ran out of memory: it needs a machine of at least so many bytes for itself.
    pub outgrew: Option<u64>,
    /// Attempts that are closed and may yet deliver.
    pub late: Vec<AttemptId>,
}

/// How an attempt went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Failed,
    Lapsed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Waiting,
    Live(AttemptId),
    Done,
    Failed,
    Cancelled,
}

impl Step {
    pub fn new(plan: StepPlan, need: Need) -> Self {
        Self {
            need,
            waiting: Waiting::all(plan.order, plan.count),
            retry: BTreeSet::new(),
            live: BTreeMap::new(),
            running: 0,
            twins: BTreeMap::new(),
            replaced: BTreeMap::new(),
            done: IndexSet::new(),
            failed: IndexSet::new(),
            cancelled: IndexSet::new(),
            generations: Generations::default(),
            troubles: BTreeMap::new(),
            state: if plan.after.is_empty() { StepState::Open } else { StepState::Waiting },
            shelf: None,
            offered: 0,
            pace: Pace::default(),
            peak: Peak::default(),
            delivered_by: BTreeSet::new(),
            firsts: Firsts::default(),
            plan,
        }
    }

    /// Live ones and their twins.
    pub fn attempts(&self) -> impl Iterator<Item = AttemptId> {
        self.live.values().chain(self.twins.values()).copied()
    }

    pub fn is_twin(&self, task: TaskIndex, attempt: AttemptId) -> bool {
        self.twins.get(&task) == Some(&attempt)
    }

    pub fn is_complete(&self) -> bool {
        self.done.len() == self.plan.count
    }

    pub fn waiting_len(&self) -> u32 {
        self.waiting.len() + self.retry.len() as u32
    }

    /// How many attempts wait in queues.
    pub fn queued(&self) -> u32 {
        (self.live.len() as u32).saturating_sub(self.running)
    }

    /// None where the step has no such task.
    pub fn place(&self, index: TaskIndex) -> Option<Place> {
        if index.0 >= self.plan.count {
            None
        } else if let Some(attempt) = self.live.get(&index) {
            Some(Place::Live(*attempt))
        } else if self.done.contains(index) {
            Some(Place::Done)
        } else if self.failed.contains(index) {
            Some(Place::Failed)
        } else if self.cancelled.contains(index) {
            Some(Place::Cancelled)
        } else {
            Some(Place::Waiting)
        }
    }

    pub fn put_waiting(&mut self, index: TaskIndex) {
        if self.troubles.get(&index).is_some_and(Trouble::is_blamed) {
            self.retry.insert(self.waiting.spot(index));
        } else {
            self.waiting.insert(index);
        }
    }

    pub fn remove_waiting(&mut self, index: TaskIndex) {
        if !self.retry.remove(&self.waiting.spot(index)) {
            self.waiting.remove(index);
        }
    }

    /// Whether the task is among those that wait; one that is in no place is not.
    pub fn waits(&self, index: TaskIndex) -> bool {
        self.retry.contains(&self.waiting.spot(index)) || self.waiting.set().contains(index)
    }

    /// The next task in the step's order among those that wait; `may` says of a task that has failed whether
    /// it may be taken.
    pub fn next(&self, may: impl Fn(&Trouble) -> bool) -> Option<TaskIndex> {
        // A worker on which everything fails must not make each decision walk all that it has failed.
        const LOOK_AT: usize = 256;
        let allowed = |spot: &&Spot| self.troubles.get(&spot.index).is_none_or(&may);
        let retry = self.retry.iter().take(LOOK_AT).find(allowed).copied();
        let first = self.waiting.first();
        // Where all has failed so far, another task tells more than the same one again.
        let next =
            if self.firsts.all_failed() { first.or(retry) } else { first.into_iter().chain(retry).min() };
        next.map(|spot| spot.index)
    }

    /// More tasks at the end, up to `count`, which wait.
    pub fn grow(&mut self, count: u32) {
        self.waiting.grow(self.plan.order, self.plan.count, count);
        self.plan.count = count;
        // Where they stand may have changed.
        self.retry = self.retry.iter().map(|spot| self.waiting.spot(spot.index)).collect();
    }

    /// Every waiting task becomes cancelled; whether there was one.
    pub fn cancel_waiting(&mut self) -> bool {
        let any = self.waiting_len() > 0;
        self.cancelled.merge(&self.waiting.take());
        self.cancelled.extend(std::mem::take(&mut self.retry).into_iter().map(|spot| spot.index));
        any
    }

    /// Failed and cancelled tasks of `which` wait again; those that did.
    pub fn reopen_lost(&mut self, which: &IndexSet) -> IndexSet {
        let mut lost = self.failed.intersection(which);
        lost.merge(&self.cancelled.intersection(which));
        self.failed.subtract(&lost);
        self.cancelled.subtract(&lost);
        self.firsts.forget();
        self.waiting.merge(&lost);
        lost
    }

    /// Done tasks of `which` wait again, each in its next generation; those that did.
    pub fn reopen_done(&mut self, which: &IndexSet) -> IndexSet {
        let done = self.done.intersection(which);
        if !done.is_empty() {
            self.firsts.close();
        }
        self.done.subtract(&done);
        self.waiting.merge(&done);
        for span in done.spans() {
            self.raise(span);
        }
        done
    }

    pub fn raise(&mut self, span: TaskSpan) {
        for (piece, generation) in self.generations.pieces(span) {
            self.generations.set(piece, kiln_types::Generation(generation.0.saturating_add(1)));
        }
    }

    pub fn counts(&self) -> TaskCounts {
        TaskCounts {
            waiting: self.waiting_len(),
            assigned: self.live.len() as u32 - self.running,
            running: self.running,
            done: self.done.len(),
            failed: self.failed.len(),
            cancelled: self.cancelled.len(),
        }
    }
}

impl Trouble {
    pub fn is_over(&self) -> bool {
        !self.is_blamed() && self.late.is_empty()
    }

    /// Whether anything counts against the task.
    pub fn is_blamed(&self) -> bool {
        !(self.failed_on.is_empty() && self.lapsed_on.is_empty())
    }

    /// Each worker on which it went wrong, as often as it did.
    pub fn workers(&self) -> impl Iterator<Item = WorkerId> {
        self.failed_on.iter().chain(&self.lapsed_on).copied()
    }

    /// Whether it failed on the worker, or took it down.
    pub fn befell(&self, worker: WorkerId) -> bool {
        self.workers().any(|of| of == worker)
    }

    /// The worker's attempt counts no more. Whether it did.
    pub fn forgive(&mut self, attempt: AttemptId, worker: WorkerId) -> bool {
        let Some(at) = self.counted.iter().position(|(counted, _)| *counted == attempt) else { return false };
        let list = match self.counted.remove(at).1 {
            Fault::Failed => &mut self.failed_on,
            Fault::Lapsed => &mut self.lapsed_on,
        };
        if let Some(at) = list.iter().position(|of| *of == worker) {
            list.remove(at);
        }
        true
    }
}
