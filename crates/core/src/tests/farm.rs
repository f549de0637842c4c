//! A farm for tests.

use std::collections::BTreeMap;

use kiln_types::{
    AttemptId, BlobHash, Epoch, Failure, FailureCause, JobId, JobState, SessionKey, SlotIndex, StepIndex,
    TaskId, TaskIndex, WorkerId,
};

use crate::{
    Assigned, Config, Core, Finish, HeldAttempt, HeldPhase, JobPlan, Ledger, Moment, Outbox, Push, Record,
    ReportOutcome, RevokeReason, StepPlan, TaskCounts, WorkerOffer,
};

/// The worker of this number.
pub fn w(number: u64) -> WorkerId {
    WorkerId::from_bits(number).unwrap()
}

/// A job with one step.
pub fn job(id: u64, count: u32) -> JobPlan {
    steps(id, &[(count, &[])])
}

/// A job of steps, each with its count and the steps it waits for.
pub fn steps(id: u64, steps: &[(u32, &[u16])]) -> JobPlan {
    let plan = |(count, after): &(u32, &[u16])| StepPlan {
        after: after.iter().map(|after| StepIndex(*after).into()).collect(),
        ..StepPlan::new(*count, SessionKey(BlobHash::of(&id.to_be_bytes())))
    };
    JobPlan::new(JobId(id), steps.iter().map(plan).collect()).unwrap()
}

pub fn task(job: u64, index: u32) -> TaskId {
    TaskId { job: JobId(job), step: StepIndex(0), index: TaskIndex(index) }
}

#[derive(Default)]
pub struct Decisions {
    pub pushes: Vec<(WorkerId, Push)>,
    pub records: Vec<Record>,
}

impl Outbox for Decisions {
    fn push(&mut self, to: WorkerId, push: Push) {
        self.pushes.push((to, push));
    }
    fn record(&mut self, record: Record) {
        self.records.push(record);
    }
}

/// An attempt as its worker has it.
#[derive(Clone, Copy)]
pub struct Holding {
    pub worker: WorkerId,
    pub assigned: Assigned,
    pub phase: HeldPhase,
}

impl Holding {
    /// Begins on its slot; what streams has none.
    pub fn run(&mut self) {
        self.phase = self.phase.slot().map_or(self.phase, |slot| HeldPhase::Running { slot });
    }
}

pub struct Farm {
    pub core: Core,
    pub now: Moment,
    pub ledger: Ledger,
    epoch: u32,
    /// The attempts that workers have and have not reported closed.
    pub held: BTreeMap<AttemptId, Holding>,
    /// Revokes since the last look.
    pub revoked: Vec<(WorkerId, AttemptId, RevokeReason)>,
    /// Records since the last look.
    pub records: Vec<Record>,
    /// Streams that were told since the last look that another input is done.
    pub arrived: Vec<AttemptId>,
}

impl Farm {
    pub fn new() -> Self {
        Self {
            core: Core::new(Epoch(1), Config::default()),
            now: Moment(0),
            ledger: Ledger::default(),
            epoch: 1,
            held: BTreeMap::new(),
            revoked: Vec::new(),
            records: Vec::new(),
            arrived: Vec::new(),
        }
    }

    /// Applies one event, delivers its decisions and checks the core.
    pub fn act<T>(&mut self, event: impl FnOnce(&mut Core, Moment, &mut Decisions) -> T) -> T {
        let mut said = Decisions::default();
        let answer = event(&mut self.core, self.now, &mut said);
        self.deliver_decisions(said);
        answer
    }

    /// Applies the records, delivers the pushes and checks the core.
    pub fn deliver_decisions(&mut self, mut said: Decisions) {
        for record in &said.records {
            self.ledger.apply(record);
        }
        self.records.append(&mut said.records);
        for (worker, push) in said.pushes {
            match push {
                Push::Assign { slot, tasks, .. } => {
                    for assigned in tasks {
                        let holding = Holding { worker, assigned, phase: HeldPhase::Queued { slot } };
                        self.held.insert(assigned.attempt, holding);
                    }
                }
                Push::Revoke { attempt, why } => self.revoked.push((worker, attempt, why)),
                Push::DesiredState(_) => {}
                Push::Stream { task: assigned, .. } => {
                    let holding = Holding { worker, assigned, phase: HeldPhase::Streaming };
                    self.held.insert(assigned.attempt, holding);
                }
                Push::Place { attempt, slot, .. } => {
                    if let Some(holding) = self.held.get_mut(&attempt) {
                        holding.phase = HeldPhase::Queued { slot };
                    }
                }
                Push::Arrived { attempt } => self.arrived.push(attempt),
            }
        }
        self.core.sanity_check();
    }

    pub fn submit(&mut self, plan: JobPlan) {
        self.ledger.add_job(&plan);
        self.act(|core, now, out| core.submit(now, plan, out)).unwrap();
    }

    pub fn join(&mut self, worker: u64, slots: u16) {
        self.join_with(worker, slots, &[]);
    }

    pub fn join_with(&mut self, worker: u64, slots: u16, labels: &[&str]) {
        let labels = labels.iter().copied().map(Into::into).collect();
        let offer = WorkerOffer { name: format!("w{worker}"), slots, labels, ..WorkerOffer::default() };
        let held = self.holdings(worker);
        self.act(|core, now, out| core.worker_joined(now, w(worker), offer, &held, out));
    }

    pub fn holdings(&self, worker: u64) -> Vec<HeldAttempt> {
        let mine = self.held.values().filter(|holding| holding.worker == w(worker));
        mine.map(|holding| HeldAttempt {
            attempt: holding.assigned.attempt,
            task: holding.assigned.task,
            generation: holding.assigned.generation,
            phase: holding.phase,
        })
        .collect()
    }

    /// The worker's process dies and everything it held with it.
    pub fn crash(&mut self, worker: u64) {
        self.held.retain(|_, holding| holding.worker != w(worker));
        self.leave(worker);
    }

    pub fn leave(&mut self, worker: u64) {
        self.act(|core, _, out| core.worker_left(w(worker), out));
    }

    pub fn schedule(&mut self) {
        self.act(|core, now, out| core.schedule(now, out));
    }

    /// Lets time pass in which only these workers give signs of life.
    pub fn pass(&mut self, ms: u64, alive: &[u64]) {
        let until = self.now.after(ms);
        while self.now < until {
            self.now = self.now.after(5_000).min(until);
            for worker in alive {
                self.act(|core, now, out| core.heartbeat(now, w(*worker), out));
            }
            self.act(|core, now, out| core.tick(now, out));
        }
    }

    /// Task indexes that the slot holds, in its order.
    pub fn queue(&self, worker: u64, slot: u16) -> Vec<u32> {
        let here =
            |holding: &&Holding| (holding.worker, holding.phase.slot()) == (w(worker), Some(SlotIndex(slot)));
        self.held.values().filter(here).map(|holding| holding.assigned.task.index.0).collect()
    }

    /// The attempt by which the worker holds this task.
    pub fn attempt(&self, worker: u64, task: TaskId) -> AttemptId {
        let mine = |holding: &&Holding| holding.worker == w(worker) && holding.assigned.task == task;
        let found = self.held.values().rev().find(mine);
        found.unwrap_or_else(|| panic!("worker {worker} does not hold {task}")).assigned.attempt
    }

    pub fn start(&mut self, worker: u64, task: TaskId) {
        let attempt = self.attempt(worker, task);
        self.held.get_mut(&attempt).unwrap().run();
        self.act(|core, now, out| core.attempt_started(now, w(worker), attempt, out));
    }

    pub fn finish(&mut self, worker: u64, task: TaskId, finish: Finish) -> ReportOutcome {
        let attempt = self.attempt(worker, task);
        self.held.remove(&attempt);
        self.report(worker, attempt, finish)
    }

    pub fn report(&mut self, worker: u64, attempt: AttemptId, finish: Finish) -> ReportOutcome {
        self.act(|core, now, out| core.attempt_finished(now, w(worker), attempt, finish, out))
    }

    pub fn deliver(&mut self, worker: u64, task: TaskId) -> ReportOutcome {
        self.finish(worker, task, Finish::Delivered)
    }

    pub fn fail(&mut self, worker: u64, task: TaskId, cause: FailureCause) -> ReportOutcome {
        self.finish(worker, task, Finish::Failed(Failure::new(cause, "it went wrong")))
    }

    pub fn progress(&mut self, worker: u64, task: TaskId) {
        let attempt = self.attempt(worker, task);
        self.act(|core, now, _| core.attempt_moved(now, w(worker), attempt));
    }

    /// The worker's Blender uses the processor, and shows nothing else.
    pub fn works(&mut self, worker: u64, task: TaskId) {
        let attempt = self.attempt(worker, task);
        self.act(|core, now, _| core.attempt_worked(now, w(worker), attempt));
    }

    /// Starts the first task in the worker's queue and finishes it after `ms`; returns the task.
    pub fn run_next(&mut self, worker: u64, ms: u64, finish: Finish) -> u32 {
        let index = self.queue(worker, 0)[0];
        self.start(worker, task(1, index));
        self.now = self.now.after(ms);
        self.finish(worker, task(1, index), finish);
        self.schedule();
        index
    }

    /// Renders until no worker has an attempt.
    pub fn drain(&mut self) {
        self.schedule();
        while let Some((attempt, holding)) = self.held.pop_first() {
            self.now = self.now.after(100);
            let worker = holding.worker;
            self.act(|core, now, out| core.attempt_started(now, worker, attempt, out));
            self.act(|core, now, out| core.attempt_finished(now, worker, attempt, Finish::Delivered, out));
            self.schedule();
        }
    }

    /// Answers every revoke as a worker does; the preemption of an attempt that has begun is ignored.
    pub fn answer_revokes(&mut self) {
        for (worker, attempt, why) in std::mem::take(&mut self.revoked) {
            let running =
                self.held.get(&attempt).is_some_and(|h| !matches!(h.phase, HeldPhase::Queued { .. }));
            if why == RevokeReason::Preempted && running {
                continue;
            }
            self.held.remove(&attempt);
            self.act(|core, now, out| core.attempt_finished(now, worker, attempt, Finish::Returned, out));
        }
    }

    /// Restarts the server from its records; workers have yet to come back.
    pub fn restart(&mut self) {
        self.epoch += 1;
        self.revoked.clear();
        self.core = Core::new(Epoch(self.epoch), Config::default());
        for id in self.ledger.job_ids().collect::<Vec<_>>() {
            let (plan, restored) = self.ledger.restored(id).unwrap();
            self.core.restore_job(self.now, plan, restored).unwrap();
        }
        for (worker, quarantine) in self.ledger.quarantined() {
            self.core.restore_quarantine(self.now, worker, quarantine.clone());
        }
        self.core.sanity_check();
    }

    pub fn state(&self, job: u64) -> JobState {
        let state = self.core.job(JobId(job)).unwrap().state;
        assert_eq!(self.ledger.state(JobId(job)), Some(state), "the state was not written down");
        state
    }

    pub fn counts(&self, job: u64) -> TaskCounts {
        self.core.job(JobId(job)).unwrap().counts()
    }
}
