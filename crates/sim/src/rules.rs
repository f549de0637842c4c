//! The checks of limits, caps, claims and the starts of jobs.

use std::collections::{BTreeMap, BTreeSet};

use kiln_core::{
    Account, Claim, HeldAttempt, HeldPhase, JobPlan, Moment, Record, Requirement, SchedulingOptions, Share,
    StepPlan, WorkerOffer,
};
use kiln_types::{AttemptId, AttemptState, JobId, JobState, SlotIndex, StepIndex, TaskId, WorkerId};

type SlotRef = (WorkerId, SlotIndex);

#[derive(Debug, Default)]
pub struct Rules {
    offers: BTreeMap<WorkerId, WorkerOffer>,
    limits: BTreeMap<String, u32>,
    caps: BTreeMap<Account, u32>,
    jobs: BTreeMap<JobId, (SchedulingOptions, Vec<Requirement>)>,
    completed: BTreeSet<JobId>,
    slots: BTreeMap<SlotRef, Work>,
    attempts: BTreeMap<AttemptId, (SlotRef, TaskId)>,
    /// Attempts that have left Blender and hold nothing, even if they are resumed after their lease expired.
    rendered: BTreeSet<AttemptId>,
    /// The memory of each stream, until its worker reports it.
    streams: BTreeMap<(WorkerId, AttemptId), u64>,
}

/// The queued and running attempts of a slot, with its claim.
#[derive(Debug, Default)]
struct Work {
    attempts: BTreeMap<AttemptId, (JobId, StepIndex)>,
    claim: Claim,
    /// The worker was told the claim since the slot was last idle.
    was_told: bool,
    running: Option<AttemptId>,
}

impl Work {
    fn remove(&mut self, attempt: AttemptId) {
        self.attempts.remove(&attempt);
        if self.attempts.is_empty() {
            (self.claim, self.was_told) = (Claim::default(), false);
        }
    }
}

impl Rules {
    pub fn new(
        offers: impl IntoIterator<Item = (WorkerId, WorkerOffer)>,
        limits: &BTreeMap<String, u32>,
        shares: &[(Account, Share)],
    ) -> Self {
        let caps = shares.iter().filter_map(|(account, share)| Some((account.clone(), share.max_slots?)));
        let (offers, limits, caps) = (offers.into_iter().collect(), limits.clone(), caps.collect());
        Self { offers, limits, caps, ..Self::default() }
    }

    pub fn submitted(&mut self, plan: &JobPlan) {
        let requires = plan.steps().iter().map(|step| step.requires.clone()).collect();
        self.jobs.insert(plan.id(), (plan.options().clone(), requires));
    }

    pub fn step_added(&mut self, job: JobId, step: &StepPlan) {
        if let Some((_, requires)) = self.jobs.get_mut(&job) {
            requires.push(step.requires.clone());
        }
    }

    /// Notes that the worker holds these attempts and no others.
    pub fn rejoined(&mut self, worker: WorkerId, held: &[HeldAttempt]) {
        let streaming = held.iter().filter(|held| held.phase == HeldPhase::Streaming);
        let streaming: BTreeSet<AttemptId> = streaming.map(|held| held.attempt).collect();
        self.streams.retain(|(of, attempt), _| *of != worker || streaming.contains(attempt));
        // One that was placed streams again, if its worker was not told.
        streaming.into_iter().for_each(|attempt| self.leaves(attempt));
    }

    /// Notes that the worker is told to stream with this claim.
    pub fn streams(&mut self, worker: WorkerId, attempt: AttemptId, claim: Claim) {
        assert_eq!(claim, Claim::memory(claim.memory), "{attempt} streams and claims more than memory");
        self.streams.insert((worker, attempt), claim.memory);
        self.check_claims(worker);
    }

    pub fn stream_ended(&mut self, worker: WorkerId, attempt: AttemptId) {
        self.streams.remove(&(worker, attempt));
    }

    pub fn set_options(&mut self, job: JobId, options: SchedulingOptions) {
        if let Some((known, _)) = self.jobs.get_mut(&job) {
            *known = options;
        }
    }

    /// Notes that the attempt has left Blender, as its worker says when it joins.
    pub fn rendered(&mut self, attempt: AttemptId) {
        self.rendered.insert(attempt);
        self.leaves(attempt);
    }

    /// Forgets the claims but for GPUs: a server that starts again guesses the others by the requirements of steps.
    pub fn server_died(&mut self) {
        for work in self.slots.values_mut() {
            work.claim = Claim { gpus: work.claim.gpus, ..Claim::default() };
        }
        self.streams.values_mut().for_each(|memory| *memory = 0);
    }

    pub fn record(&mut self, now: Moment, record: &Record) {
        match record {
            Record::AttemptOpened { attempt, task, worker, slot, .. } => {
                self.check_dispatch(now, *task, (*worker, *slot));
                self.place(*attempt, (*worker, *slot), *task);
            }
            Record::StreamOpened { task, .. } => self.check_start(now, *task),
            Record::StreamPlaced { attempt, task, slot } => {
                let at = self.streams.keys().find(|(_, of)| of == attempt).copied();
                if let Some((worker, _)) = at {
                    self.streams.remove(&(worker, *attempt));
                    self.check_dispatch(now, *task, (worker, *slot));
                    self.place(*attempt, (worker, *slot), *task);
                }
            }
            Record::AttemptStarted { attempt, .. } => self.runs(*attempt),
            Record::AttemptResumed { attempt, state, .. } => {
                if let Some((of, task)) = self.attempts.get(attempt).copied() {
                    self.place(*attempt, of, task);
                }
                if *state == AttemptState::Running {
                    self.runs(*attempt);
                }
            }
            Record::AttemptClosed { attempt, .. } => self.leaves(*attempt),
            Record::JobState { job, state: JobState::Completed, .. } => drop(self.completed.insert(*job)),
            _ => {}
        }
    }

    fn place(&mut self, attempt: AttemptId, of: SlotRef, task: TaskId) {
        self.attempts.insert(attempt, (of, task));
        if self.rendered.contains(&attempt) {
            return;
        }
        self.slots.entry(of).or_default().attempts.insert(attempt, (task.job, task.step));
    }

    /// Notes that the attempt runs; the one that ran on its slot before has left it.
    fn runs(&mut self, attempt: AttemptId) {
        let Some((of, _)) = self.attempts.get(&attempt).copied() else { return };
        if self.rendered.contains(&attempt) {
            return;
        }
        let work = self.slots.entry(of).or_default();
        if let Some(before) = work.running.replace(attempt).filter(|before| *before != attempt) {
            work.remove(before);
            self.rendered.insert(before);
        }
    }

    fn leaves(&mut self, attempt: AttemptId) {
        let Some((of, _)) = self.attempts.get(&attempt).copied() else { return };
        let work = self.slots.entry(of).or_default();
        work.remove(attempt);
        work.running.take_if(|running| *running == attempt);
    }

    /// Checks that the job of the task may start.
    fn check_start(&self, now: Moment, task: TaskId) {
        let Some((options, _)) = self.jobs.get(&task.job) else { panic!("{task} of no job") };
        let early = options.not_before.is_some_and(|at| at > now);
        assert!(!early, "job {} was to begin later", task.job);
        for before in &options.after {
            assert!(self.completed.contains(before), "job {} waits for job {before}", task.job);
        }
    }

    /// Checks that the dispatch keeps every bound. One may be exceeded already, because a worker came back with an attempt
    /// whose task had gone to another; then it must not be exceeded further.
    fn check_dispatch(&self, now: Moment, task: TaskId, of: SlotRef) {
        self.check_start(now, task);
        let (options, requires) = &self.jobs[&task.job];
        let work = |of: &SlotRef| self.slots.get(of).into_iter().flat_map(|work| work.attempts.values());
        let here: BTreeSet<JobId> = work(&of).map(|(job, _)| *job).collect();
        let busy = || self.slots.iter().filter(|(_, work)| !work.attempts.is_empty());

        if let Some(most) = options.max_workers {
            let is_ours = |work: &Work| work.attempts.values().any(|(job, _)| *job == task.job);
            let mut on: BTreeSet<WorkerId> =
                busy().filter(|(_, work)| is_ours(work)).map(|((worker, _), _)| *worker).collect();
            let more = on.insert(of.0);
            assert!(!more || on.len() <= most as usize, "job {} is on more than {most} workers", task.job);
        }
        for (account, most) in &self.caps {
            let ours = |job: &JobId| self.jobs.get(job).is_some_and(|(options, _)| is_of(options, account));
            if ours(&task.job) && !here.iter().any(ours) {
                let held = busy().filter(|(_, work)| work.attempts.values().any(|(job, _)| ours(job)));
                assert!(held.count() < *most as usize, "{account:?} holds more than {most} slots");
            }
        }
        let asks = |(job, step): &(JobId, StepIndex), name: &String| -> u32 {
            let requires = self.jobs.get(job).and_then(|(_, steps)| steps.get(usize::from(step.0)));
            requires.and_then(|requires| requires.limits.get(name)).copied().unwrap_or(0)
        };
        let step = (task.job, task.step);
        for (name, count) in &requires[usize::from(task.step.0)].limits {
            let counted = |work: &Work| {
                let steps: BTreeSet<_> = work.attempts.values().collect();
                steps.into_iter().map(|step| asks(step, name)).sum::<u32>()
            };
            let used: u32 = busy().map(|(_, work)| counted(work)).sum();
            let more = work(&of).all(|known| *known != step);
            let total = self.limits.get(name).copied().unwrap_or(0);
            assert!(!more || used + count <= total, "{used} + {count} of {total} {name} would be used");
        }
    }

    /// Notes that the slot was told its claim.
    pub fn claims(&mut self, of: SlotRef, claim: Claim) {
        let work = self.slots.entry(of).or_default();
        work.claim = claim;
        // A larger claim is told to a busy slot as it is.
        if std::mem::replace(&mut work.was_told, true) {
            return;
        }
        self.check_claims(of.0);
    }

    /// Checks that the claims of slots and streams fit the machine.
    fn check_claims(&self, worker: WorkerId) {
        let Some(offer) = self.offers.get(&worker) else { return };
        let mine = self.slots.range((worker, SlotIndex(0))..=(worker, SlotIndex(u16::MAX)));
        let streams = self.streams.iter().filter(|((of, _), _)| *of == worker);
        let mut sum = Claim::memory(streams.map(|(_, memory)| memory).sum());
        for (_, work) in mine.filter(|(_, work)| !work.attempts.is_empty()) {
            sum.cores += work.claim.cores;
            sum.memory += work.claim.memory;
            assert_eq!(sum.gpus.0 & work.claim.gpus.0, 0, "a GPU of {} is claimed twice", worker);
            sum.gpus.0 |= work.claim.gpus.0;
        }
        let (cores, memory) = (offer.cores, offer.memory);
        assert!(cores == 0 || sum.cores <= cores, "{} cores of {cores} are claimed on {}", sum.cores, worker);
        assert!(
            memory == 0 || sum.memory <= memory,
            "{} bytes of {memory} are claimed on {}",
            sum.memory,
            worker
        );
    }
}

fn is_of(options: &SchedulingOptions, account: &Account) -> bool {
    match account {
        Account::Project(name) => options.project == *name,
        Account::User(name) => options.user == *name,
    }
}
