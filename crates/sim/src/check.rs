//! The checker: watches the records and pushes of the core from outside.

use std::collections::{BTreeMap, BTreeSet};

use kiln_core::{
    Account, Claim, Core, DependencyEnd, DependencyScope, DependencyStart, Finish, HeldAttempt, HeldPhase,
    IndexSet, JobPlan, Moment, Push, Record, ReportOutcome, SchedulingOptions, Share, StepDependency,
    StepPlan, WorkerOffer,
};
use kiln_types::{
    AttemptId, AttemptState, FailureCause, Generation, JobId, JobState, SessionKey, SlotIndex, StepIndex,
    TaskId, TaskIndex, TaskState, WorkerId,
};

use crate::{Report, devices::Devices, rules::Rules, worker::SimWorker};

#[derive(Debug, Default)]
pub struct Checker {
    rules: Rules,
    pub devices: Devices,
    attempts: BTreeMap<AttemptId, Known>,
    commits: BTreeMap<(TaskId, Generation), AttemptId>,
    /// The number of open attempts of each task.
    open: BTreeMap<TaskId, u8>,
    /// Commits that were acknowledged to a worker.
    acknowledged: BTreeSet<(TaskId, Generation)>,
    /// Failures and losses of a task since it was last opened.
    mishaps: BTreeMap<TaskId, Mishaps>,
    /// The frames before the hold of each job that has one.
    holds: BTreeMap<JobId, IndexSet>,
    steps: BTreeMap<JobId, Vec<StepKnown>>,
    /// Jobs with tasks that have failed early, which must end.
    stopping: BTreeSet<JobId>,
    quarantined: BTreeSet<WorkerId>,
    /// Expired attempts that no longer count.
    forgiven: BTreeSet<AttemptId>,
    pub report: Report,
    /// Assignments that a worker was sent while it refused everything.
    pub refusals: BTreeMap<(WorkerId, Option<SessionKey>), usize>,
}

/// The state of a step after the last record.
#[derive(Debug)]
struct StepKnown {
    count: u32,
    /// 1 if tasks are not about frames.
    per_frame: u32,
    is_about_frames: bool,
    after: Vec<StepDependency>,
    /// Tasks whose present generation is committed.
    done: BTreeSet<TaskIndex>,
    failed: BTreeSet<TaskIndex>,
    cancelled: BTreeSet<TaskIndex>,
    /// The number of times that tasks of each frame were added, or reset after they were done.
    remade: BTreeMap<u32, u64>,
    /// The number of times that tasks of each frame were reset after they had failed or were cancelled.
    retried: BTreeMap<u32, u64>,
}

impl From<&StepPlan> for StepKnown {
    fn from(step: &StepPlan) -> Self {
        Self {
            count: step.count,
            per_frame: step.per_frame.map_or(1, std::num::NonZeroU32::get),
            is_about_frames: step.per_frame.is_some(),
            after: step.after.clone(),
            done: BTreeSet::new(),
            failed: BTreeSet::new(),
            cancelled: BTreeSet::new(),
            remade: BTreeMap::new(),
            retried: BTreeMap::new(),
        }
    }
}

impl StepKnown {
    /// The number of changes to these frames, and whether all their tasks have reached this end.
    fn reached(&self, frames: std::ops::Range<u32>, end: DependencyEnd) -> (u64, bool) {
        let tasks = (frames.start * self.per_frame..frames.end * self.per_frame).map(TaskIndex);
        let has_ended = |task: &TaskIndex| self.failed.contains(task) || self.cancelled.contains(task);
        let reached =
            |task: TaskIndex| self.done.contains(&task) || end == DependencyEnd::Ended && has_ended(&task);
        let sum =
            |times: &BTreeMap<u32, u64>| times.range(frames.clone()).map(|(_, times)| times).sum::<u64>();
        let retried = if end == DependencyEnd::Ended { sum(&self.retried) } else { 0 };
        (sum(&self.remade) + retried, tasks.into_iter().all(reached))
    }

    fn has_first(&self, frames: std::ops::Range<u32>) -> bool {
        let tasks = TaskIndex(frames.start * self.per_frame)..TaskIndex(frames.end * self.per_frame);
        self.done.range(tasks).next().is_some()
    }

    fn remake(&mut self, task: TaskIndex) {
        *self.remade.entry(task.0 / self.per_frame).or_default() += 1;
    }

    fn retry(&mut self, task: TaskIndex) {
        *self.retried.entry(task.0 / self.per_frame).or_default() += 1;
    }
}

#[derive(Debug)]
struct Known {
    task: TaskId,
    generation: Generation,
    worker: WorkerId,
    /// `None` while the attempt streams.
    slot: Option<SlotIndex>,
    state: AttemptState,
    /// The number of changes to the task's inputs before the attempt was opened.
    inputs: u64,
    /// The attempt failed by a fault of its worker.
    is_worker_failure: bool,
}

impl Known {
    fn new(
        task: TaskId,
        generation: Generation,
        worker: WorkerId,
        slot: Option<SlotIndex>,
        inputs: u64,
    ) -> Self {
        let state = AttemptState::Assigned;
        Self { task, generation, worker, slot, state, inputs, is_worker_failure: false }
    }
}

#[derive(Debug, Default)]
struct Mishaps {
    failures: u32,
    losses: u32,
    stops_job: bool,
}

impl Checker {
    pub fn new(
        offers: impl IntoIterator<Item = (WorkerId, WorkerOffer)>,
        limits: &BTreeMap<String, u32>,
        shares: &[(Account, Share)],
    ) -> Self {
        let offers: Vec<(WorkerId, WorkerOffer)> = offers.into_iter().collect();
        let devices = Devices::new(offers.iter().cloned());
        Self { rules: Rules::new(offers, limits, shares), devices, ..Self::default() }
    }

    pub fn submitted(&mut self, plan: &JobPlan) {
        self.rules.submitted(plan);
        self.devices.submitted(plan);
        self.holds.extend(plan.hold().map(|hold| (plan.id(), hold.clone())));
        self.steps.insert(plan.id(), plan.steps().iter().map(StepKnown::from).collect());
    }

    pub fn step_added(&mut self, job: JobId, step: &StepPlan) {
        self.report.added += 1;
        self.rules.step_added(job, step);
        self.steps.get_mut(&job).expect("only what was submitted grows").push(step.into());
    }

    pub fn rejoined(&mut self, worker: WorkerId, held: &[HeldAttempt]) {
        self.rules.rejoined(worker, held);
        for held in held.iter().filter(|held| matches!(held.phase, HeldPhase::Finished { .. })) {
            self.rules.rendered(held.attempt);
        }
    }

    pub fn server_died(&mut self) {
        self.refusals.clear();
        self.rules.server_died();
    }

    pub fn set_options(&mut self, job: JobId, options: SchedulingOptions) {
        self.rules.set_options(job, options);
    }

    /// The dependencies of a task, each with the step and the frames that it is on.
    fn dependencies(
        &self,
        task: TaskId,
    ) -> impl Iterator<Item = (&StepDependency, &StepKnown, std::ops::Range<u32>)> {
        let steps = &self.steps[&task.job];
        let step = &steps[usize::from(task.step.0)];
        let frame = task.index.0 / step.per_frame;
        step.after.iter().map(move |after| {
            let before = &steps[usize::from(after.step.0)];
            let frames = match after.scope {
                DependencyScope::Step => 0..before.count / before.per_frame,
                DependencyScope::Frame => frame..frame + 1,
            };
            (after, before, frames)
        })
    }

    /// Checks that the task is not held.
    fn check_hold(&self, task: TaskId) {
        let Some(hold) = self.holds.get(&task.job) else { return };
        let step = &self.steps[&task.job][usize::from(task.step.0)];
        let is_first = hold.contains(TaskIndex(task.index.0 / step.per_frame));
        assert!(
            is_first || !step.is_about_frames,
            "{task} is dispatched, and its job is held before that frame"
        );
    }

    /// The number of changes to the inputs of a task, and whether all of them are done.
    fn inputs(&self, task: TaskId) -> (u64, bool) {
        let inputs =
            self.dependencies(task).map(|(after, before, frames)| before.reached(frames, after.until));
        inputs.fold((0, true), |(changes, all), (more, complete)| (changes + more, all && complete))
    }

    /// Returns whether the task may begin to stream: the first task of each dependency is done.
    fn may_stream(&self, task: TaskId) -> bool {
        self.dependencies(task).all(|(after, before, frames)| {
            let has_first = after.start == DependencyStart::FirstDone && before.has_first(frames.clone());
            has_first || before.reached(frames, after.until).1
        })
    }

    fn open(&mut self, attempt: AttemptId, known: Known) {
        let last = self.attempts.last_key_value().map(|(id, _)| *id);
        assert!(last.is_none_or(|last| last < attempt), "{attempt} comes after {last:?}");
        let open = self.open.entry(known.task).or_default();
        assert!(*open < 2, "{} would have three attempts", known.task);
        assert!(*open == 0 || known.slot.is_some(), "{} has an attempt and would stream", known.task);
        self.report.speculations += u64::from(*open);
        *open += 1;
        self.attempts.insert(attempt, known);
    }

    /// The number of tasks of the job's first step for each frame; 1 if the job is not known.
    pub fn tasks_per_frame(&self, job: JobId) -> u32 {
        self.steps.get(&job).map_or(1, |steps| steps[0].per_frame)
    }

    pub fn record(&mut self, now: Moment, record: &Record) {
        self.rules.record(now, record);
        self.devices.record(record);
        match record {
            Record::AttemptOpened { attempt, task, generation, worker, slot } => {
                self.check_hold(*task);
                let (inputs, complete) = self.inputs(*task);
                assert!(complete, "{task} is dispatched before the steps that it waits for are done");
                self.open(*attempt, Known::new(*task, *generation, *worker, Some(*slot), inputs));
            }
            Record::StreamOpened { attempt, task, generation, worker } => {
                self.check_hold(*task);
                let (inputs, complete) = self.inputs(*task);
                assert!(!complete, "{task} streams after all that it waits for is done");
                assert!(
                    self.may_stream(*task),
                    "{task} streams before the first task that it waits for is done"
                );
                self.report.streams += 1;
                self.open(*attempt, Known::new(*task, *generation, *worker, None, inputs));
            }
            Record::StreamPlaced { attempt, task, slot } => {
                let (inputs, complete) = self.inputs(*task);
                let known = self.attempts.get_mut(attempt).expect("only what was opened is placed");
                assert_eq!((known.task, known.state), (*task, AttemptState::Assigned), "{attempt} is placed");
                assert!(
                    complete && known.inputs == inputs,
                    "{task} is placed before all that it waits for is done"
                );
                known.slot = Some(*slot);
                self.report.placed += 1;
            }
            Record::AttemptStarted { attempt, .. } => {
                let known = self.attempts.get_mut(attempt).expect("only what was opened starts");
                assert_eq!(known.state, AttemptState::Assigned, "{attempt} started out of turn");
                assert!(known.slot.is_some(), "{attempt} started on no slot");
                known.state = AttemptState::Running;
            }
            Record::AttemptClosed { attempt, task, state, failure } => {
                let known = self.attempts.get_mut(attempt).expect("only what was opened closes");
                assert_eq!(known.task, *task, "{attempt} changed its task");
                let open = matches!(known.state, AttemptState::Assigned | AttemptState::Running);
                let late = matches!(known.state, AttemptState::Expired | AttemptState::Returned)
                    && matches!(state, AttemptState::Committed | AttemptState::Superseded);
                assert!(open || late, "{attempt} was {} and is closed as {state}", known.state);
                known.state = *state;
                known.is_worker_failure =
                    failure.as_ref().is_some_and(|failure| failure.cause.is_worker_failure());
                if open && let Some(open) = self.open.get_mut(task) {
                    *open -= 1;
                }
                let mishaps = self.mishaps.entry(*task).or_default();
                match state {
                    AttemptState::Failed => {
                        let failure = failure.as_ref().expect("a failed attempt says why");
                        mishaps.failures += 1;
                        mishaps.stops_job |= failure.cause.stops_job();
                    }
                    AttemptState::Expired => {
                        mishaps.losses += 1;
                        self.report.losses += 1;
                    }
                    _ => {}
                }
            }
            Record::AttemptForgiven { attempt, task } => {
                let known = &self.attempts[attempt];
                // A failure by a fault of a worker whose new offer no longer fits is forgiven too.
                let may_be_forgiven = known.is_worker_failure || self.quarantined.contains(&known.worker);
                assert!(may_be_forgiven, "{attempt} is forgiven, and its worker is not quarantined");
                let mishaps = self.mishaps.entry(*task).or_default();
                match known.state {
                    AttemptState::Failed => mishaps.failures -= 1,
                    AttemptState::Expired => {
                        mishaps.losses -= 1;
                        self.forgiven.insert(*attempt);
                    }
                    other => panic!("{attempt} is {other} and is forgiven"),
                }
                self.report.forgiven += 1;
            }
            Record::MemoryExceeded { attempt, task, .. } => {
                let known = &self.attempts[attempt];
                assert_eq!(
                    (known.task, known.state),
                    (*task, AttemptState::Failed),
                    "{attempt} ran out of memory"
                );
            }
            Record::WorkerQuarantine { worker, quarantine } => match quarantine {
                Some(_) if self.quarantined.insert(*worker) => self.report.quarantines += 1,
                Some(known) => assert!(known.failed_probes > 0, "{worker} is put in quarantine twice"),
                None => assert!(self.quarantined.remove(worker), "{worker} was not in quarantine"),
            },
            Record::AttemptResumed { attempt, task, state } => {
                let known = self.attempts.get_mut(attempt).expect("only what was opened goes on");
                if known.state == AttemptState::Expired && !self.forgiven.remove(attempt) {
                    self.mishaps.entry(*task).or_default().losses -= 1;
                }
                let late = matches!(known.state, AttemptState::Expired | AttemptState::Returned);
                assert!(late, "{attempt} was {} and goes on", known.state);
                known.state = *state;
                *self.open.entry(*task).or_default() += 1;
            }
            Record::TaskCommitted { task, generation, attempt } => {
                let before = self.commits.insert((*task, *generation), *attempt);
                assert_eq!(before, None, "generation {generation} of {task} was committed twice");
                let known = &self.attempts[attempt];
                assert_eq!(
                    (known.task, known.generation),
                    (*task, *generation),
                    "{attempt} committed another's"
                );
                assert_eq!(known.state, AttemptState::Committed);
                assert!(known.slot.is_some(), "{attempt} is committed and was on no slot");
                let (inputs, complete) = self.inputs(*task);
                assert!(complete && known.inputs == inputs, "{task} is made from what is out of date");
                self.mishaps.remove(task);
                let step = self.step(task.job, task.step);
                step.done.insert(task.index);
                let on_frame = step.after.iter().any(|after| after.scope == DependencyScope::Frame);
                self.report.behind += u64::from(!step.after.is_empty());
                self.report.behind_frames += u64::from(on_frame);
            }
            Record::TaskFailed { task, reason, .. } => {
                let mishaps = self.mishaps.remove(task).unwrap_or_default();
                self.step(task.job, task.step).failed.insert(task.index);
                let too_large =
                    mishaps.failures > 0 && reason.message.contains("more memory than any worker");
                let lost = mishaps.losses >= 3 && reason.message.starts_with("took ");
                let earned_alone = mishaps.failures >= 3 || lost || mishaps.stops_job || too_large;
                // The first tasks of a job stop it together, as the next record of the job must say.
                let is_common = reason.message.contains(" failed alike on ");
                if !earned_alone {
                    assert!(mishaps.failures > 0 || is_common, "{task} failed with {mishaps:?}: {reason}");
                    self.stopping.insert(task.job);
                }
            }
            Record::TasksReset { job, step, tasks, .. } => {
                let inside = |task: &TaskId| {
                    task.job == *job && task.step == *step && (tasks.first..=tasks.last).contains(&task.index)
                };
                self.mishaps.retain(|task, _| !inside(task));
                let step = self.step(*job, *step);
                for task in tasks.iter() {
                    if step.done.remove(&task) {
                        step.remake(task);
                    }
                    if step.failed.remove(&task) | step.cancelled.remove(&task) {
                        step.retry(task);
                    }
                }
            }
            Record::StepExtended { job, step, count } => {
                let step = self.step(*job, *step);
                let added = std::mem::replace(&mut step.count, *count)..*count;
                added.map(TaskIndex).for_each(|task| step.remake(task));
            }
            Record::CancelledTasks { job, step, tasks } => {
                let step = self.step(*job, *step);
                let before = std::mem::replace(&mut step.cancelled, tasks.iter().collect());
                let back: Vec<TaskIndex> = before.difference(&step.cancelled).copied().collect();
                back.into_iter().for_each(|task| step.retry(task));
            }
            Record::JobState { job, reason, .. } => {
                let alike =
                    reason.as_ref().is_some_and(|reason| reason.message.contains(" failed alike on "));
                assert!(
                    alike || !self.stopping.remove(job),
                    "job {job} goes on without tasks that had attempts left"
                );
                self.stopping.remove(job);
            }
            Record::HoldLifted { job } => {
                assert!(self.holds.remove(job).is_some(), "the hold of job {job} is lifted twice");
            }
            Record::StepState { .. }
            | Record::WorkerState { .. }
            | Record::JobPinned { .. }
            | Record::StepAdded { .. } => {}
        }
    }

    fn step(&mut self, job: JobId, step: StepIndex) -> &mut StepKnown {
        let steps = self.steps.get_mut(&job).expect("only what was submitted is recorded");
        &mut steps[usize::from(step.0)]
    }

    /// Checks a push before it is sent: the slot must not have a revoked attempt.
    pub fn push(&mut self, core: &Core, worker: &SimWorker, push: &Push) {
        let (slot, claim, attempts) = match push {
            Push::Assign { slot, claim, tasks } => {
                (slot, claim, tasks.iter().map(|task| task.attempt).collect())
            }
            Push::Place { attempt, slot, claim } => (slot, claim, vec![*attempt]),
            Push::Stream { claim, task } => return self.streams(worker.id, task.attempt, *claim),
            Push::Arrived { attempt } => {
                assert_eq!(self.attempts[attempt].worker, worker.id, "{attempt} is another worker's");
                return;
            }
            Push::Revoke { .. } | Push::DesiredState(_) => return,
        };
        self.claims((worker.id, *slot), *claim);
        let live = |attempt: AttemptId, task: TaskId| {
            core.task(task).is_some_and(|task| {
                [task.attempt, task.second].into_iter().flatten().any(|open| open == (attempt, worker.id))
            })
        };
        for (_, held) in worker.on_slots().filter(|(on, _)| on == slot) {
            let (attempt, task) = (held.attempt, held.task);
            assert!(live(attempt, task), "{worker:?} still has {attempt} on slot {slot}, and is given more");
        }
        for attempt in attempts {
            let known = &self.attempts[&attempt];
            assert_eq!(
                (known.worker, known.slot),
                (worker.id, Some(*slot)),
                "{attempt} was opened elsewhere"
            );
            let committed = self.commits.contains_key(&(known.task, known.generation));
            assert!(!committed, "{} has its output set already", known.task);
        }
    }

    /// Notes that the worker is told to stream with this claim.
    pub fn streams(&mut self, worker: WorkerId, attempt: AttemptId, claim: Claim) {
        self.rules.streams(worker, attempt, claim);
    }

    /// Notes that the slot is told its claim.
    pub fn claims(&mut self, slot: (WorkerId, SlotIndex), claim: Claim) {
        self.rules.claims(slot, claim);
    }

    /// Counts an assignment to a worker that refuses everything. In the minute and a half that this lasts at most, with
    /// cooldowns of 0.5, 1, 2, 4, 8, 16, 30 and 30 seconds, each slot gets work nine times at most, and each time perhaps a
    /// second message before its first answer arrives.
    pub fn refused(&mut self, worker: WorkerId, session: Option<SessionKey>, slots: usize) {
        let times = self.refusals.entry((worker, session)).or_default();
        *times += 1;
        assert!(*times <= 2 * 9 * slots, "worker {worker} refuses, and is given work again and again");
    }

    pub fn was_opened(&self, attempt: AttemptId) -> bool {
        self.attempts.contains_key(&attempt)
    }

    /// The outcome that a report must have, if that is certain.
    pub fn expected(&self, worker: WorkerId, attempt: AttemptId, finish: &Finish) -> Option<ReportOutcome> {
        let known = self.attempts.get(&attempt).filter(|known| known.worker == worker);
        let Some(known) = known else {
            // A false report. It may have no effect.
            return (!matches!(finish, Finish::Delivered)).then_some(ReportOutcome::Unknown);
        };
        let open = matches!(known.state, AttemptState::Assigned | AttemptState::Running);
        match finish {
            Finish::Delivered if open => Some(ReportOutcome::Committed),
            Finish::Delivered if self.commits.contains_key(&(known.task, known.generation)) => {
                Some(ReportOutcome::Superseded)
            }
            Finish::Failed(_) | Finish::Returned if open => Some(ReportOutcome::Recorded),
            _ => None,
        }
    }

    /// Notes that the worker reports the end of the attempt.
    pub fn reported(&mut self, worker: WorkerId, attempt: AttemptId) {
        self.rules.stream_ended(worker, attempt);
    }

    pub fn answered(&mut self, worker: WorkerId, attempt: AttemptId, outcome: ReportOutcome) {
        if outcome == ReportOutcome::Committed {
            let known = &self.attempts[&attempt];
            assert_eq!(known.worker, worker, "{worker} is told that {attempt} of another was its own");
            self.acknowledged.insert((known.task, known.generation));
        }
    }

    /// Checks that nothing acknowledged is lost.
    pub fn check_durable(&self, core: &Core) {
        assert!(self.stopping.is_empty(), "{:?} should have stopped", self.stopping);
        for (task, generation) in &self.acknowledged {
            let known = core.task(*task).expect("an acknowledged task is known");
            let kept = known.generation > *generation
                || (known.generation == *generation && known.state == TaskState::Done);
            assert!(kept, "generation {generation} of {task} was acknowledged and is lost: {known:?}");
        }
        for id in core.job_ids() {
            let job = core.job(id).expect("a job that is listed is there");
            if job.state == JobState::Completed {
                let counts = job.counts();
                assert_eq!(counts.done, counts.total, "job {id} is completed with open tasks");
            }
        }
    }

    pub fn forget(&mut self, job: JobId) {
        self.commits.retain(|(task, _), _| task.job != job);
        self.acknowledged.retain(|(task, _)| task.job != job);
        self.mishaps.retain(|task, _| task.job != job);
        self.steps.remove(&job);
        self.devices.forget(job);
    }

    pub fn commits(&self) -> usize {
        self.commits.len()
    }
}

/// A cause that stops a job. The simulation draws it rarely.
pub const STOPPER: FailureCause = FailureCause::NoCamera;
