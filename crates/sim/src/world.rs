//! The simulated world: its clock, its network, and the events of its workers.

use std::collections::{BTreeMap, VecDeque};

use kiln_core::{
    Account, Core, Finish, JobPlan, Label, Moment, Push, ReportOutcome, RevokeReason, Share, StepPlan,
    WorkerOffer,
};
use kiln_types::{AttemptId, JobId, SessionKey, SlotIndex, StepIndex, WorkerId};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{
    FaultScenario, Report,
    agenda::Agenda,
    check::Checker,
    person::{ANY_GPU, LICENCE, PROJECTS, USERS},
    server::{Decisions, SimServer},
    worker::{Next, SimWorker, ToServer},
};

/// An event of a run. `life` is the one of the worker's process that it is for; `connection` numbers connections.
#[derive(Debug)]
pub enum SimEvent {
    ToServer { worker: usize, connection: u64, up: ToServer },
    ToWorker { worker: usize, connection: u64, down: ToWorker },
    // The worker reads the messages that have come while it was stalled.
    Wakes { worker: usize },
    // The server notices that a connection is lost.
    Lost { worker: usize, connection: u64 },
    Connect { worker: usize, life: u32 },
    Heartbeat { worker: usize, connection: u64 },
    Rendered { worker: usize, life: u32, slot: SlotIndex, attempt: AttemptId },
    Killed { worker: usize, life: u32, slot: SlotIndex, attempt: AttemptId },
    Uploaded { worker: usize, life: u32, attempt: AttemptId },
    // Fails the attempt if it still streams.
    StreamFails { worker: usize, life: u32, attempt: AttemptId },
    Restarted { worker: usize },
    ServerStarts,
    // The server goes on after a stall, and reads some of the messages that have come.
    CatchUp,
    Tick,
    Schedule,
    Fault,
    Lie,
    Act,
    Submit(JobPlan),
    Calm,
}

#[derive(Debug)]
pub enum ToWorker {
    Push(Push),
    Settled(AttemptId),
}

/// The time without faults after which a job is taken never to end.
const PATIENCE_MS: u64 = 12 * 3_600_000;
pub const HEARTBEAT_MS: u64 = 5_000;
const TICK_MS: u64 = 1_000;
pub const GIB: u64 = 1 << 30;

pub struct World {
    pub scenario: FaultScenario,
    pub rng: StdRng,
    pub server: SimServer,
    pub workers: Vec<SimWorker>,
    pub checker: Checker,
    pub last_job: u64,
    pub sessions: BTreeMap<(JobId, StepIndex), SessionKey>,
    pub now: u64,
    agenda: Agenda<SimEvent>,
    pub last_connection: u64,
    /// The arrival of the last message on a connection, each way: messages do not overtake.
    arrivals: BTreeMap<(u64, bool), u64>,
    /// The end of the server's stall.
    pub stalled_until: u64,
    /// The events that have arrived at the server and wait.
    pub backlog: VecDeque<SimEvent>,
    /// The newest connection of each worker by which a message has arrived, and the time of the last one.
    pub heard: BTreeMap<WorkerId, (u64, u64)>,
    pub calm: bool,
    /// The step that is added in this batch.
    pub adding: Option<StepPlan>,
}

/// Draws the offer of a worker; the first one meets every requirement.
fn make_offer(rng: &mut StdRng, index: u16, slots: u16) -> WorkerOffer {
    let slots = rng.random_range(1..=slots);
    let all = index == 0;
    let gpu = all || rng.random_bool(0.4);
    let backends: &[&str] = match index % 3 {
        _ if all => &["optix", "cuda", "hip"],
        0 => &["hip", "cuda"],
        1 => &["cuda"],
        _ => &["optix"],
    };
    let gpus = backends.iter().map(|backend| format!("device {backend}")).chain([ANY_GPU.to_owned()]);
    let labels: Vec<String> = gpus.filter(|_| gpu).chain(["device cpu".to_owned()]).collect();
    // Some do not tell their amounts.
    let tells = all || rng.random_bool(0.7);
    let mut amount = |most: u64| if all { most } else { rng.random_range(1..=most) };
    let (cores, memory) = (amount(16) as u32, amount(16) * GIB);
    let gpus = if gpu { vec![8 * GIB; amount(2) as usize] } else { Vec::new() };
    WorkerOffer {
        name: format!("worker {}", index + 1),
        slots,
        labels: labels.into_iter().map(Label).collect(),
        cores: if tells { cores } else { 0 },
        memory: if tells { memory } else { 0 },
        gpus,
        ..WorkerOffer::default()
    }
}

impl World {
    pub fn new(scenario: FaultScenario, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let workers: Vec<SimWorker> = (0..scenario.workers)
            .map(|index| {
                let id = WorkerId::from_bits(u64::from(index) + 1).expect("counted from 1");
                let offer = make_offer(&mut rng, index, scenario.slots);
                SimWorker { speed: rng.random_range(40..=400), ..SimWorker::new(id, offer) }
            })
            .collect();
        let mut server = SimServer::default();
        server.disk.limits.insert(LICENCE.into(), rng.random_range(2..=3));
        for account in [Account::User(USERS[0].into()), Account::Project(PROJECTS[1].into())] {
            let (weight, capped) = (rng.random_range(50..=300), rng.random_bool(0.5));
            let max_slots = capped.then(|| rng.random_range(1..=3));
            server.disk.shares.push((account, Share { weight, max_slots }));
        }
        let offers = workers.iter().map(|worker| (worker.id, worker.offer.clone()));
        let mut checker = Checker::new(offers, &server.disk.limits, &server.disk.shares);
        checker.report.seed = seed;
        Self {
            scenario,
            rng,
            server,
            workers,
            checker,
            last_job: 0,
            sessions: BTreeMap::new(),
            now: 0,
            agenda: Agenda::default(),
            last_connection: 0,
            arrivals: BTreeMap::new(),
            stalled_until: 0,
            backlog: VecDeque::new(),
            heard: BTreeMap::new(),
            calm: false,
            adding: None,
        }
    }

    pub fn run(mut self) -> Report {
        self.server.start(Moment(0));
        for worker in 0..self.workers.len() {
            let wait = self.rng.random_range(0..20_000);
            self.later(wait, SimEvent::Connect { worker, life: 0 });
        }
        self.later(TICK_MS, SimEvent::Tick);
        self.later(0, SimEvent::Act);
        let wait = self.about(self.scenario.fault_every_ms);
        self.later(wait, SimEvent::Fault);
        if self.scenario.liars {
            self.later(1_000, SimEvent::Lie);
        }
        self.later(self.scenario.faulty_ms, SimEvent::Calm);
        while let Some((at, event)) = self.agenda.pop() {
            assert!(at < self.scenario.faulty_ms + PATIENCE_MS, "a job never ends: {:#?}", self.server.core);
            self.now = at;
            self.checker.report.events += 1;
            self.handle(event);
            if self.calm && self.all_ended() {
                break;
            }
        }
        self.finish()
    }

    fn all_ended(&self) -> bool {
        let all_in = self.last_job >= u64::from(self.scenario.jobs)
            && !self.agenda.iter().any(|event| matches!(event, SimEvent::Submit(_)));
        all_in && self.server.core.as_ref().is_some_and(Core::is_idle)
    }

    fn finish(mut self) -> Report {
        // The state on disk is the state in memory.
        let core = self.server.core.take().expect("it was up when the last job ended");
        self.checker.check_durable(&core);
        self.server.start(Moment(self.now));
        let again = self.server.core.as_ref().expect("it has just started");
        self.checker.check_durable(again);
        for id in core.job_ids() {
            let (before, after) = (core.job(id), again.job(id));
            assert_eq!(before, after, "job {id} differs after a restart");
            assert!(before.is_some_and(|job| job.state.is_end()), "job {id} has not ended");
        }
        let (commits, devices) = (self.checker.commits() as u64, &self.checker.devices);
        Report {
            took_ms: self.now,
            jobs: self.last_job,
            commits,
            pins: devices.pins,
            releases: devices.releases,
            ..self.checker.report
        }
    }

    pub fn later(&mut self, ms: u64, event: SimEvent) {
        self.at(self.now + ms, event);
    }

    fn at(&mut self, at: u64, event: SimEvent) {
        self.agenda.at(at, event);
    }

    /// Draws a time around this many milliseconds.
    pub fn about(&mut self, ms: u64) -> u64 {
        self.rng.random_range(ms / 2..=ms * 3 / 2)
    }

    pub fn one_in(&mut self, many: u32) -> bool {
        many > 0 && self.rng.random_range(0..many) == 0
    }

    fn handle(&mut self, event: SimEvent) {
        match event {
            SimEvent::ToServer { worker, connection, .. } => {
                if self.server.core.is_some() {
                    let heard = self.heard.entry(self.workers[worker].id).or_default();
                    *heard = (heard.0.max(connection), self.now);
                }
                self.enqueue(event);
            }
            SimEvent::ToWorker { worker, connection, down } => {
                self.workers[worker].inbox.push_back((connection, down));
                self.read(worker);
            }
            SimEvent::Wakes { worker } => self.read(worker),
            SimEvent::Lost { .. } => self.enqueue(event),
            SimEvent::CatchUp => self.catch_up(),
            SimEvent::Connect { worker, life } => self.connect(worker, life),
            SimEvent::Heartbeat { worker, connection } => {
                if self.workers[worker].connection == Some(connection) {
                    if let Err(at) = self.check_awake(worker) {
                        return self.at(at, SimEvent::Heartbeat { worker, connection });
                    }
                    self.report_to_server(worker, ToServer::Heartbeat);
                    self.later(HEARTBEAT_MS, SimEvent::Heartbeat { worker, connection });
                }
            }
            SimEvent::Rendered { worker, life, slot, attempt } if self.workers[worker].life == life => {
                match self.check_awake(worker) {
                    Ok(()) => self.rendered(worker, slot, attempt),
                    Err(at) => self.at(at, SimEvent::Rendered { worker, life, slot, attempt }),
                }
            }
            SimEvent::Killed { worker, life, slot, attempt } if self.workers[worker].life == life => {
                let known = &mut self.workers[worker];
                let place = &mut known.slots[usize::from(slot.0)];
                if let Some(assigned) = place.running.take_if(|running| running.attempt == attempt) {
                    place.killing = false;
                    known.unsettled.insert(attempt, (Some(slot), assigned, Finish::Returned));
                    self.report_end(worker, attempt);
                    self.start_next(worker, slot);
                }
            }
            SimEvent::Uploaded { worker, life, attempt } if self.workers[worker].life == life => {
                let known = &mut self.workers[worker];
                if let Some((slot, assigned)) = known.uploading.remove(&attempt) {
                    known.unsettled.insert(attempt, (Some(slot), assigned, Finish::Delivered));
                    self.report_end(worker, attempt);
                }
            }
            SimEvent::StreamFails { worker, life, attempt } if self.workers[worker].life == life => {
                self.fail_stream(worker, attempt);
            }
            SimEvent::Rendered { .. }
            | SimEvent::Killed { .. }
            | SimEvent::Uploaded { .. }
            | SimEvent::StreamFails { .. } => {}
            SimEvent::Restarted { worker } => {
                self.workers[worker].alive = true;
                let life = self.workers[worker].life;
                self.later(500, SimEvent::Connect { worker, life });
            }
            SimEvent::ServerStarts => {
                if self.server.core.is_none() {
                    self.server.start(Moment(self.now));
                    let core = self.server.core.as_ref().expect("it has just started");
                    core.sanity_check();
                    self.checker.check_durable(core);
                }
            }
            SimEvent::Tick => {
                if self.stalled_until <= self.now {
                    self.tick();
                }
                self.later(TICK_MS, SimEvent::Tick);
            }
            SimEvent::Schedule => drop(self.batch(None, |core, now, out| core.schedule(now, out))),
            SimEvent::Fault if !self.calm => self.fault(),
            SimEvent::Lie if !self.calm => self.lie(),
            SimEvent::Act if !self.calm => self.act(),
            SimEvent::Fault | SimEvent::Lie | SimEvent::Act => {}
            SimEvent::Submit(plan) => self.submit(plan),
            SimEvent::Calm => self.calm_down(),
        }
    }

    /// Runs one batch of the server: decide, write, then send. `None` if the server dies between two of these.
    pub fn batch<T>(
        &mut self,
        submitted: Option<&JobPlan>,
        event: impl FnOnce(&mut Core, Moment, &mut Decisions) -> T,
    ) -> Option<T> {
        let mut said = Decisions::default();
        let now = Moment(self.now);
        let core = self.server.core.as_mut()?;
        let answer = event(core, now, &mut said);
        // A batch may have several inputs: work is not always dispatched at once.
        if self.rng.random_bool(0.7) {
            core.schedule(now, &mut said);
        } else {
            self.later(20, SimEvent::Schedule);
        }
        self.server.core.as_ref()?.sanity_check();
        self.checker.report.add_decisions(&said.records, &said.pushes);
        let deadly = if self.calm { 0 } else { self.scenario.server_dies_one_in };
        if self.one_in(deadly) {
            self.kill_server();
            return None;
        }
        submitted.into_iter().for_each(|plan| self.checker.submitted(plan));
        said.records.iter().for_each(|record| self.note_added(record));
        said.records.iter().for_each(|record| self.checker.record(now, record));
        self.server.write(submitted, &said.records);
        said.records.iter().for_each(|record| self.note_sessions(record));
        if self.one_in(deadly) {
            self.kill_server();
            // It is on disk and not sent: a submission is found there.
            return submitted.map(|_| answer);
        }
        for (to, push) in said.pushes {
            let worker = (to.bits() - 1) as usize;
            if let Some(core) = &self.server.core {
                self.checker.push(core, &self.workers[worker], &push);
            }
            let is = |reason| matches!(push, Push::Revoke { why, .. } if why == reason);
            self.checker.report.preemptions += u64::from(is(RevokeReason::Preempted));
            self.checker.report.displaced += u64::from(is(RevokeReason::Displaced));
            self.checker.report.arrived += u64::from(matches!(push, Push::Arrived { .. }));
            self.send_to_worker(worker, ToWorker::Push(push));
        }
        Some(answer)
    }

    pub fn receive(&mut self, worker: usize, connection: u64, up: ToServer) {
        let id = self.workers[worker].id;
        if self.server.core.is_none() {
            return;
        }
        if let ToServer::Hello(held) = up {
            let newest = self.server.connections.get(&id).is_none_or(|known| *known < connection);
            if newest {
                self.server.connections.insert(id, connection);
                let offer = self.workers[worker].offer.clone();
                self.checker.rejoined(id, &held);
                self.batch(None, |core, now, out| core.worker_joined(now, id, offer, &held, out));
            }
            return;
        }
        if self.server.connections.get(&id) != Some(&connection) {
            return;
        }
        match up {
            ToServer::Heartbeat => {
                let arrived = self.heard.get(&id).map_or(self.now, |heard| heard.1);
                self.batch(None, |core, _, out| core.heartbeat(Moment(arrived), id, out));
            }
            ToServer::Started(attempt) => {
                self.batch(None, |core, now, out| core.attempt_started(now, id, attempt, out));
            }
            ToServer::Finished(attempt, finish) => {
                let expected = self.checker.expected(id, attempt, &finish);
                self.checker.reported(id, attempt);
                let said = finish.clone();
                let peak = self.one_in(3).then(|| self.rng.random_range(0..12 * GIB));
                let outcome = self.batch(None, |core, now, out| {
                    if let Some((task, ..)) = core.attempt_task(attempt).filter(|_| peak.is_some()) {
                        core.learn_memory(task, id, peak.unwrap_or(0));
                    }
                    core.attempt_finished(now, id, attempt, finish, out)
                });
                if let Some(outcome) = outcome {
                    // A false report of an attempt that is being closed opens its slot, and has no other effect.
                    let may = expected.is_none_or(|e| {
                        e == outcome || (e, outcome) == (ReportOutcome::Unknown, ReportOutcome::Recorded)
                    });
                    assert!(may, "{attempt} reported {said:?} and was answered {outcome:?}");
                    self.checker.report.superseded += u64::from(outcome == ReportOutcome::Superseded);
                    self.checker.answered(id, attempt, outcome);
                    self.send_to_worker(worker, ToWorker::Settled(attempt));
                }
            }
            ToServer::Unavailable(unavailable) => {
                let offer = WorkerOffer { unavailable, ..self.workers[worker].offer.clone() };
                self.batch(None, |core, _, out| core.worker_offer_changed(id, offer, out));
            }
            ToServer::Hello(_) | ToServer::Progress(..) => {}
        }
    }

    /// Reads the worker's messages in their order, unless the worker is stalled.
    fn read(&mut self, worker: usize) {
        if let Err(at) = self.check_awake(worker) {
            return self.at(at, SimEvent::Wakes { worker });
        }
        while let Some((connection, down)) = self.workers[worker].inbox.pop_front() {
            self.handle_push(worker, connection, down);
        }
    }

    fn handle_push(&mut self, worker: usize, connection: u64, down: ToWorker) {
        let known = &mut self.workers[worker];
        if known.connection != Some(connection) {
            return;
        }
        match down {
            ToWorker::Settled(attempt) => drop(known.unsettled.remove(&attempt)),
            ToWorker::Push(Push::DesiredState(_)) => {}
            ToWorker::Push(Push::Stream { task, .. }) => self.stream(worker, task),
            ToWorker::Push(Push::Place { attempt, slot, .. }) => self.place(worker, attempt, slot),
            ToWorker::Push(Push::Arrived { .. }) => {}
            ToWorker::Push(Push::Assign { slot, tasks, .. }) => {
                let session = tasks
                    .first()
                    .and_then(|first| self.sessions.get(&(first.task.job, first.task.step)).copied());
                known.slots[usize::from(slot.0)].queue.extend(tasks);
                if known.refuses_until > self.now {
                    let (known, slots) = (&self.workers[worker], self.workers[worker].slots.len());
                    self.checker.refused(known.id, session, slots);
                    return self.refuse_queue(worker);
                }
                self.start_next(worker, slot);
            }
            ToWorker::Push(Push::Revoke { attempt, why }) => match known.revoke(attempt, why) {
                Next::Nothing => {}
                Next::Report(attempt) => self.report_end(worker, attempt),
                Next::Kill(slot) => {
                    let wait = self.rng.random_range(1..3_000);
                    let life = self.workers[worker].life;
                    self.later(wait, SimEvent::Killed { worker, life, slot, attempt });
                }
            },
        }
    }

    pub fn report_end(&mut self, worker: usize, attempt: AttemptId) {
        let known = self.workers[worker].unsettled.get(&attempt);
        let finish = known.map_or(Finish::Returned, |(_, _, finish)| finish.clone());
        self.report_to_server(worker, ToServer::Finished(attempt, finish));
    }

    fn connect(&mut self, worker: usize, life: u32) {
        let known = &self.workers[worker];
        if known.life != life || !known.alive || known.connection.is_some() {
            return;
        }
        if self.server.core.is_none() {
            return self.later(2_000, SimEvent::Connect { worker, life });
        }
        self.last_connection += 1;
        let connection = self.last_connection;
        self.workers[worker].connection = Some(connection);
        let held = self.workers[worker].held();
        self.report_to_server(worker, ToServer::Hello(held));
        let unsettled: Vec<AttemptId> = self.workers[worker].unsettled.keys().copied().collect();
        for attempt in unsettled {
            self.report_end(worker, attempt);
        }
        self.later(HEARTBEAT_MS, SimEvent::Heartbeat { worker, connection });
    }

    /// Checks that the worker is not stalled; the error is the end of the stall.
    fn check_awake(&self, worker: usize) -> Result<(), u64> {
        let until = self.workers[worker].stalled_until;
        if until > self.now { Err(until) } else { Ok(()) }
    }

    pub fn report_to_server(&mut self, worker: usize, up: ToServer) {
        if let Some(connection) = self.workers[worker].connection {
            let at = self.arrival(connection, true);
            self.at(at, SimEvent::ToServer { worker, connection, up });
        }
    }

    fn send_to_worker(&mut self, worker: usize, down: ToWorker) {
        let id = self.workers[worker].id;
        if let Some(connection) = self.server.connections.get(&id).copied() {
            let at = self.arrival(connection, false);
            self.at(at, SimEvent::ToWorker { worker, connection, down });
        }
    }

    fn arrival(&mut self, connection: u64, up: bool) -> u64 {
        let at = self.now + self.rng.random_range(1..150);
        let last = self.arrivals.entry((connection, up)).or_default();
        *last = at.max(*last);
        *last
    }
}
