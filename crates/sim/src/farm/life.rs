//! The run of a farm under the real core, with the times of messages and frames.

use std::collections::BTreeMap;

use kiln_core::{Assigned, Claim, Core, Finish, Moment, Push, Record, RevokeReason, WorkerOffer};
use kiln_types::{AttemptId, Failure, FailureCause, JobId, SessionKey, SlotIndex, TaskId, WorkerId};

use super::{FarmSetup, LATENCY_MS, Node, NodeEvent, Run, RunEnd, Shot, Timeline, UPLOAD_MS};
use crate::{
    agenda::Agenda,
    check::Checker,
    server::{Decisions, SimServer},
    worker::{Next, SimWorker, ToServer},
};

const HEARTBEAT_MS: u64 = 10_000;
/// The time from a revoke until Blender is stopped.
const KILL_MS: u64 = 200;
/// The most time until a frame fails, which otherwise is half of the frame's.
const FAILURE_MS: u64 = 2_000;
/// The time until a lost connection is noticed, and between two attempts to connect.
const NOTICE_MS: u64 = 1_000;
/// The time after which a job is taken never to end.
const PATIENCE_MS: u64 = 60 * 24 * 3_600_000;

impl FarmSetup {
    /// Runs the farm to its end.
    ///
    /// # Panics
    /// Where an invariant is broken.
    pub fn run(&self) -> Timeline {
        FarmRun::new(self).run()
    }
}

enum SimEvent {
    ToServer { node: usize, connection: u64, up: ToServer },
    ToWorker { node: usize, connection: u64, push: Push },
    Connect { node: usize, life: u32 },
    // The server notices that a connection is lost.
    Lost { node: usize, connection: u64 },
    Heartbeat { node: usize, connection: u64 },
    // A part of the frame is done, in hundredths.
    Progress { node: usize, slot: SlotIndex, attempt: AttemptId, part: u8 },
    Rendered { node: usize, life: u32, slot: SlotIndex, attempt: AttemptId },
    Killed { node: usize, life: u32, slot: SlotIndex, attempt: AttemptId },
    Uploaded { node: usize, life: u32, attempt: AttemptId },
    Node { node: usize, event: NodeEvent },
    Submit(usize),
    ServerDies { down_ms: u64 },
    ServerStarts,
}

struct FarmRun<'a> {
    farm: &'a FarmSetup,
    shots: BTreeMap<JobId, &'a Shot>,
    server: SimServer,
    checker: Checker,
    machines: Vec<Machine>,
    agenda: Agenda<SimEvent>,
    now: u64,
    last_connection: u64,
    submitted: usize,
    timeline: Timeline,
    /// The place of each running attempt in the timeline.
    going: BTreeMap<AttemptId, usize>,
    /// The failures of running attempts that will fail.
    doomed: BTreeMap<AttemptId, Failure>,
}

struct Machine {
    worker: SimWorker,
    /// The open session and the claim of each slot.
    slots: Vec<(Option<SessionKey>, Claim)>,
    quarantined: bool,
}

impl Machine {
    fn new(index: usize, node: &Node) -> Self {
        let id = WorkerId::from_bits(index as u64 + 1).expect("counted from 1");
        let offer = WorkerOffer { name: format!("node {}", index + 1), ..node.offer.clone() };
        let slots = vec![(None, Claim::default()); usize::from(offer.slots)];
        Self { worker: SimWorker::new(id, offer), slots, quarantined: false }
    }
}

impl<'a> FarmRun<'a> {
    fn new(farm: &'a FarmSetup) -> Self {
        let mut server = SimServer::default();
        server.disk.limits = farm.limits.clone();
        server.disk.shares = farm.shares.clone();
        let machines: Vec<Machine> =
            farm.nodes.iter().enumerate().map(|(index, node)| Machine::new(index, node)).collect();
        let offers = machines.iter().map(|machine| (machine.worker.id, machine.worker.offer.clone()));
        Self {
            farm,
            shots: farm.shots.iter().map(|shot| (shot.id(), shot)).collect(),
            checker: Checker::new(offers, &farm.limits, &farm.shares),
            server,
            machines,
            agenda: Agenda::default(),
            now: 0,
            last_connection: 0,
            submitted: 0,
            timeline: Timeline::default(),
            going: BTreeMap::new(),
            doomed: BTreeMap::new(),
        }
    }

    fn run(mut self) -> Timeline {
        self.server.start(Moment(0));
        for (node, known) in self.farm.nodes.iter().enumerate() {
            // A worker whose first event is a return is away at the start.
            let away = known.events.first().is_some_and(|(_, event)| *event == NodeEvent::Returns);
            if away {
                self.machines[node].worker.die();
            } else {
                self.agenda.at(0, SimEvent::Connect { node, life: 0 });
            }
            known
                .events
                .iter()
                .for_each(|(at, event)| self.agenda.at(*at, SimEvent::Node { node, event: *event }));
        }
        for (index, shot) in self.farm.shots.iter().enumerate() {
            self.agenda.at(shot.at, SimEvent::Submit(index));
        }
        for (at, down_ms) in &self.farm.outages {
            self.agenda.at(*at, SimEvent::ServerDies { down_ms: *down_ms });
        }
        let until = self.farm.until.unwrap_or(PATIENCE_MS);
        loop {
            let next = self.agenda.next().unwrap_or(u64::MAX);
            let due = self.server.core.as_ref().and_then(Core::next_deadline);
            let due = due.map_or(u64::MAX, |due| due.0.max(self.now + 1));
            if due.min(next) >= until {
                assert!(self.farm.until.is_some(), "a job never ends: {:#?}", self.server.core);
                self.now = until;
                break;
            }
            if due < next {
                self.now = due;
                self.batch(|core, now, out| core.tick(now, out));
            } else if let Some((at, event)) = self.agenda.pop() {
                self.now = at;
                self.handle(event);
            }
            let all_in = self.submitted == self.farm.shots.len() && self.farm.until.is_none();
            if all_in && self.server.core.as_ref().is_some_and(Core::is_idle) {
                break;
            }
        }
        for (_, run) in std::mem::take(&mut self.going) {
            (self.timeline.runs[run].ended, self.timeline.runs[run].end) = (self.now, RunEnd::Unfinished);
        }
        if let Some(core) = &self.server.core {
            core.sanity_check();
            self.checker.check_durable(core);
        }
        self.timeline.speculations = self.checker.report.speculations;
        self.timeline
    }

    fn handle(&mut self, event: SimEvent) {
        match event {
            SimEvent::ToServer { node, connection, up } => self.receive(node, connection, up),
            SimEvent::ToWorker { node, connection, push } => {
                if self.machines[node].worker.connection == Some(connection) {
                    self.handle_push(node, push);
                }
            }
            SimEvent::Connect { node, life } => self.connect(node, life),
            SimEvent::Lost { node, connection } => {
                let id = self.machines[node].worker.id;
                if self.server.connections.get(&id) == Some(&connection) {
                    self.server.connections.remove(&id);
                    self.batch(|core, _, out| core.worker_left(id, out));
                }
            }
            SimEvent::Heartbeat { node, connection } => {
                if self.machines[node].worker.connection == Some(connection) {
                    self.report_to_server(node, ToServer::Heartbeat);
                    self.agenda.at(self.now + HEARTBEAT_MS, SimEvent::Heartbeat { node, connection });
                }
            }
            SimEvent::Progress { node, slot, attempt, part } => {
                let place = &self.machines[node].worker.slots[usize::from(slot.0)];
                if place.running.is_some_and(|running| running.attempt == attempt) {
                    self.report_to_server(node, ToServer::Progress(attempt, part));
                }
            }
            SimEvent::Rendered { node, life, slot, attempt } if self.is_alive(node, life) => {
                self.rendered(node, slot, attempt);
            }
            SimEvent::Killed { node, life, slot, attempt } if self.is_alive(node, life) => {
                let place = &mut self.machines[node].worker.slots[usize::from(slot.0)];
                if let Some(assigned) = place.running.take_if(|running| running.attempt == attempt) {
                    place.killing = false;
                    self.machines[node].slots[usize::from(slot.0)].0 = None;
                    self.end_run(attempt, RunEnd::Stopped);
                    self.report(node, slot, assigned, Finish::Returned);
                    self.start_next(node, slot);
                }
            }
            SimEvent::Uploaded { node, life, attempt } if self.is_alive(node, life) => {
                if let Some((slot, assigned)) = self.machines[node].worker.uploading.remove(&attempt) {
                    self.report(node, slot, assigned, Finish::Delivered);
                }
            }
            SimEvent::Rendered { .. } | SimEvent::Killed { .. } | SimEvent::Uploaded { .. } => {}
            SimEvent::Node { node, event } => self.apply(node, event),
            SimEvent::Submit(index) => {
                let plan = &self.farm.shots[index].plan;
                self.checker.submitted(plan);
                self.server.write(Some(plan), &[]);
                self.batch(|core, now, out| core.submit(now, plan.clone(), out).expect("a new id"));
                self.submitted += 1;
            }
            SimEvent::ServerDies { down_ms } => {
                self.server.die();
                self.checker.server_died();
                for node in 0..self.machines.len() {
                    self.disconnect(node);
                }
                self.agenda.at(self.now + down_ms, SimEvent::ServerStarts);
            }
            SimEvent::ServerStarts => {
                self.server.start(Moment(self.now));
                self.batch(|core, now, out| core.tick(now, out));
            }
        }
    }

    fn is_alive(&self, node: usize, life: u32) -> bool {
        self.machines[node].worker.life == life
    }

    fn apply(&mut self, node: usize, event: NodeEvent) {
        match event {
            NodeEvent::Dies => self.kill(node),
            NodeEvent::Returns => {
                let worker = &mut self.machines[node].worker;
                if !worker.alive {
                    worker.alive = true;
                    let life = worker.life;
                    self.agenda.at(self.now, SimEvent::Connect { node, life });
                }
            }
            NodeEvent::Unavailable | NodeEvent::Works => {
                let worker = &mut self.machines[node].worker;
                worker.offer.unavailable = event == NodeEvent::Unavailable;
                if worker.connection.is_some() {
                    let (id, offer) = (worker.id, worker.offer.clone());
                    self.batch(|core, _, out| core.worker_offer_changed(id, offer, out));
                }
            }
            NodeEvent::Breaks | NodeEvent::Recovers => {
                self.machines[node].quarantined = event == NodeEvent::Breaks
            }
        }
    }

    fn kill(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        let lost: Vec<AttemptId> = machine.worker.on_slots().map(|(_, held)| held.attempt).collect();
        machine.slots.iter_mut().for_each(|slot| slot.0 = None);
        self.disconnect(node);
        self.machines[node].worker.die();
        lost.into_iter().for_each(|attempt| self.end_run(attempt, RunEnd::Lost));
    }

    fn disconnect(&mut self, node: usize) {
        let worker = &mut self.machines[node].worker;
        let Some(connection) = worker.connection.take() else { return };
        let life = worker.life;
        self.agenda.at(self.now + NOTICE_MS, SimEvent::Lost { node, connection });
        self.agenda.at(self.now + NOTICE_MS, SimEvent::Connect { node, life });
    }

    fn connect(&mut self, node: usize, life: u32) {
        let worker = &self.machines[node].worker;
        if worker.life != life || !worker.alive || worker.connection.is_some() {
            return;
        }
        if self.server.core.is_none() {
            return self.agenda.at(self.now + NOTICE_MS, SimEvent::Connect { node, life });
        }
        self.last_connection += 1;
        let connection = self.last_connection;
        self.machines[node].worker.connection = Some(connection);
        let held = self.machines[node].worker.held();
        self.report_to_server(node, ToServer::Hello(held));
        let unsettled = self.machines[node].worker.unsettled.clone();
        for (attempt, (_, _, finish)) in unsettled {
            self.report_to_server(node, ToServer::Finished(attempt, finish));
        }
        self.agenda.at(self.now + HEARTBEAT_MS, SimEvent::Heartbeat { node, connection });
    }

    fn report_to_server(&mut self, node: usize, up: ToServer) {
        if let Some(connection) = self.machines[node].worker.connection {
            self.agenda.at(self.now + LATENCY_MS, SimEvent::ToServer { node, connection, up });
        }
    }

    /// Runs one batch of the server: decide, write, then send.
    fn batch<T>(&mut self, event: impl FnOnce(&mut Core, Moment, &mut Decisions) -> T) -> Option<T> {
        let mut said = Decisions::default();
        let now = Moment(self.now);
        let core = self.server.core.as_mut()?;
        let answer = event(core, now, &mut said);
        core.schedule(now, &mut said);
        for record in &said.records {
            self.checker.record(now, record);
            self.note(record);
        }
        self.server.write(None, &said.records);
        for (to, push) in said.pushes {
            let node = (to.bits() - 1) as usize;
            if let Some(core) = &self.server.core {
                self.checker.push(core, &self.machines[node].worker, &push);
            }
            self.timeline.preemptions +=
                u64::from(matches!(push, Push::Revoke { why: RevokeReason::Preempted, .. }));
            if let Some(connection) = self.server.connections.get(&to).copied() {
                self.agenda.at(self.now + LATENCY_MS, SimEvent::ToWorker { node, connection, push });
            }
        }
        Some(answer)
    }

    fn note(&mut self, record: &Record) {
        match record {
            Record::TaskCommitted { task, .. } => drop(self.timeline.commits.insert(*task, self.now)),
            Record::TaskFailed { task, reason, .. } => {
                self.timeline.failed.insert(*task, reason.message.clone());
            }
            Record::JobState { job, state, .. } if state.is_end() => {
                self.timeline.ends.insert(*job, (self.now, *state));
            }
            _ => {}
        }
    }

    fn receive(&mut self, node: usize, connection: u64, up: ToServer) {
        let id = self.machines[node].worker.id;
        if let ToServer::Hello(held) = up {
            if self.server.core.is_some() {
                self.server.connections.insert(id, connection);
                let offer = self.machines[node].worker.offer.clone();
                self.checker.rejoined(id, &held);
                self.batch(|core, now, out| core.worker_joined(now, id, offer, &held, out));
            }
            return;
        }
        if self.server.connections.get(&id) != Some(&connection) {
            return;
        }
        match up {
            ToServer::Hello(_) | ToServer::Unavailable(_) => {}
            ToServer::Heartbeat => drop(self.batch(|core, now, out| core.heartbeat(now, id, out))),
            ToServer::Started(attempt) => {
                self.batch(|core, now, out| core.attempt_started(now, id, attempt, out));
            }
            ToServer::Progress(attempt, hundredths) => {
                let part = f32::from(hundredths) / 100.0;
                self.batch(|core, now, _| {
                    core.attempt_moved(now, id, attempt);
                    core.learn_progress(now, id, attempt, part);
                });
            }
            ToServer::Finished(attempt, finish) => {
                let known = self.server.core.as_ref().and_then(|core| core.attempt_task(attempt));
                let peak = known.filter(|_| finish == Finish::Delivered).map(|(task, ..)| {
                    let shot = self.shots[&task.job];
                    (task, shot.memory.get(task.index.0 as usize).copied().unwrap_or(0))
                });
                let outcome = self.batch(|core, now, out| {
                    if let Some((task, bytes)) = peak.filter(|(_, bytes)| *bytes > 0) {
                        core.learn_memory(task, id, bytes);
                    }
                    core.attempt_finished(now, id, attempt, finish, out)
                });
                if let Some(outcome) = outcome {
                    self.checker.answered(id, attempt, outcome);
                    self.machines[node].worker.unsettled.remove(&attempt);
                }
            }
        }
    }

    fn handle_push(&mut self, node: usize, push: Push) {
        match push {
            // The jobs of these farms have no such steps.
            Push::DesiredState(_) | Push::Stream { .. } | Push::Place { .. } | Push::Arrived { .. } => {}
            Push::Assign { slot, claim, tasks } => {
                let machine = &mut self.machines[node];
                machine.worker.slots[usize::from(slot.0)].queue.extend(tasks);
                machine.slots[usize::from(slot.0)].1 = claim;
                self.start_next(node, slot);
            }
            Push::Revoke { attempt, why } => match self.machines[node].worker.revoke(attempt, why) {
                Next::Nothing => {}
                Next::Report(attempt) => {
                    let known = self.machines[node].worker.unsettled.get(&attempt);
                    let finish = known.map_or(Finish::Returned, |(_, _, finish)| finish.clone());
                    self.report_to_server(node, ToServer::Finished(attempt, finish));
                }
                Next::Kill(slot) => {
                    let life = self.machines[node].worker.life;
                    self.agenda.at(self.now + KILL_MS, SimEvent::Killed { node, life, slot, attempt });
                }
            },
        }
    }

    fn report(&mut self, node: usize, slot: SlotIndex, assigned: Assigned, finish: Finish) {
        let attempt = assigned.attempt;
        self.machines[node].worker.unsettled.insert(attempt, (Some(slot), assigned, finish.clone()));
        self.report_to_server(node, ToServer::Finished(attempt, finish));
    }

    /// Starts the first attempt in the queue of an idle slot.
    fn start_next(&mut self, node: usize, slot: SlotIndex) {
        let machine = &mut self.machines[node];
        let place = &mut machine.worker.slots[usize::from(slot.0)];
        if place.running.is_some() {
            return;
        }
        let Some(next) = place.queue.pop_front() else { return };
        place.running = Some(next);
        let TaskId { job, step, index } = next.task;
        let shot = self.shots[&job];
        let session = shot.plan.steps()[usize::from(step.0)].session;
        let (open, claim) = &mut machine.slots[usize::from(slot.0)];
        let opened = std::mem::replace(open, session) != session;
        let claim = *claim;
        self.report_to_server(node, ToServer::Started(next.attempt));
        let run = Run {
            attempt: next.attempt,
            task: next.task,
            node,
            slot,
            claim,
            began: self.now,
            ended: self.now,
            end: RunEnd::Unfinished,
            opened,
        };
        self.going.insert(next.attempt, self.timeline.runs.len());
        self.timeline.runs.push(run);
        let work = shot.work[(index.0 as usize) % shot.work.len()];
        let ms = self.farm.nodes[node].ms(work + if opened { shot.opening } else { 0 });
        let life = self.machines[node].worker.life;
        let mut wait = ms;
        if let Some(failure) = self.find_failure(node, next.task) {
            self.doomed.insert(next.attempt, failure);
            wait = (ms / 2).min(FAILURE_MS);
        }
        if wait == ms {
            let (opening, frame) =
                (ms - self.farm.nodes[node].ms(work).min(ms), self.farm.nodes[node].ms(work));
            for eighth in 1..8u64 {
                let at = self.now + opening + frame * eighth / 8;
                if let Some(part) = shot.progress.hundredths(index.0, eighth) {
                    self.agenda.at(at, SimEvent::Progress { node, slot, attempt: next.attempt, part });
                }
            }
        }
        if shot.deadly.contains(&index.0) {
            self.agenda.at(self.now + 1_000, SimEvent::Node { node, event: NodeEvent::Dies });
            self.agenda.at(self.now + 20_000, SimEvent::Node { node, event: NodeEvent::Returns });
        }
        self.agenda.at(self.now + wait, SimEvent::Rendered { node, life, slot, attempt: next.attempt });
    }

    /// The failure of a frame that begins now on this machine.
    fn find_failure(&self, node: usize, task: TaskId) -> Option<Failure> {
        let machine = &self.machines[node];
        if machine.quarantined {
            return Some(Failure::new(FailureCause::Crashed, "Blender died of signal 11"));
        }
        if self.shots[&task.job].broken.contains(&task.index.0) {
            return Some(Failure::new(FailureCause::PythonError, "this frame's script divides by zero"));
        }
        let bytes = |task: TaskId| self.shots[&task.job].memory.get(task.index.0 as usize).copied();
        let running = machine.worker.slots.iter().filter_map(|slot| slot.running);
        let taken: u64 = running.filter_map(|running| bytes(running.task)).sum();
        let has = machine.worker.offer.memory;
        let full = has > 0 && taken > has && bytes(task).is_some();
        full.then(|| Failure::new(FailureCause::OutOfMemory, "Blender was killed for its memory"))
    }

    fn rendered(&mut self, node: usize, slot: SlotIndex, attempt: AttemptId) {
        let place = &mut self.machines[node].worker.slots[usize::from(slot.0)];
        if place.killing || place.running.is_none_or(|running| running.attempt != attempt) {
            return;
        }
        let Some(assigned) = place.running else { return };
        let failure = self.doomed.remove(&attempt);
        let machine = &mut self.machines[node];
        machine.worker.slots[usize::from(slot.0)].running = None;
        if let Some(failure) = failure {
            machine.slots[usize::from(slot.0)].0 = None;
            self.end_run(attempt, RunEnd::Failed(failure.cause));
            self.report(node, slot, assigned, Finish::Failed(failure));
        } else {
            // The next frame renders while this one is uploaded.
            machine.worker.uploading.insert(attempt, (slot, assigned));
            let life = machine.worker.life;
            self.end_run(attempt, RunEnd::Rendered);
            self.agenda.at(self.now + UPLOAD_MS, SimEvent::Uploaded { node, life, attempt });
        }
        self.start_next(node, slot);
    }

    fn end_run(&mut self, attempt: AttemptId, end: RunEnd) {
        if let Some(run) = self.going.remove(&attempt) {
            (self.timeline.runs[run].ended, self.timeline.runs[run].end) = (self.now, end);
        }
    }
}
