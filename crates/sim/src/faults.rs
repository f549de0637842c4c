//! The faults that are injected, and how they end.

use kiln_core::{Finish, HeldAttempt, HeldPhase, Moment};
use kiln_types::{
    AttemptId, DesiredState, Epoch, Failure, Generation, JobId, SlotIndex, StepIndex, TaskId, TaskIndex,
};
use rand::RngExt;

use crate::{
    check::STOPPER,
    worker::ToServer,
    world::{HEARTBEAT_MS, SimEvent, World},
};

impl World {
    pub fn kill_server(&mut self) {
        self.checker.report.server_deaths += 1;
        self.server.die();
        self.backlog.clear();
        self.heard.clear();
        self.stalled_until = 0;
        self.checker.server_died();
        for worker in 0..self.workers.len() {
            self.disconnect(worker);
        }
        let wait = self.rng.random_range(500..60_000);
        self.later(wait, SimEvent::ServerStarts);
    }

    /// Breaks the connection; the worker connects again later, and the server notices at some time.
    pub fn disconnect(&mut self, worker: usize) {
        let Some(connection) = self.workers[worker].connection.take() else { return };
        let notices = self.rng.random_range(1..40_000);
        self.later(notices, SimEvent::Lost { worker, connection });
        let (life, wait) = (self.workers[worker].life, self.about(10_000));
        let wait = if self.one_in(4) { wait * 8 } else { wait };
        self.later(wait, SimEvent::Connect { worker, life });
    }

    pub fn kill_worker(&mut self, worker: usize) {
        self.checker.report.worker_deaths += 1;
        self.disconnect(worker);
        self.workers[worker].die();
        let wait = self.about(15_000);
        self.later(wait, SimEvent::Restarted { worker });
    }

    pub fn fault(&mut self) {
        let wait = self.about(self.scenario.fault_every_ms);
        self.later(wait, SimEvent::Fault);
        if self.one_in(16) {
            return self.stall_server();
        }
        let worker = self.rng.random_range(0..self.workers.len());
        match self.rng.random_range(0..7) {
            0 if self.workers[worker].alive => self.kill_worker(worker),
            1 => {
                let wait = self.about(30_000);
                self.workers[worker].stalled_until = self.now + wait;
            }
            2 => self.refuse(worker),
            3 => {
                let wait = self.about(60_000);
                self.workers[worker].broken_until = self.now + wait;
            }
            4 => {
                let unavailable = !self.workers[worker].offer.unavailable;
                self.set_unavailable(worker, unavailable);
            }
            _ => self.disconnect(worker),
        }
    }

    fn set_unavailable(&mut self, worker: usize, unavailable: bool) {
        self.workers[worker].offer.unavailable = unavailable;
        self.report_to_server(worker, ToServer::Unavailable(unavailable));
    }

    /// Lets the worker return its queues, and for some time every assignment.
    fn refuse(&mut self, worker: usize) {
        let wait = self.about(60_000);
        self.workers[worker].refuses_until = self.now + wait;
        self.checker.refusals.retain(|(of, _), _| *of != self.workers[worker].id);
        self.refuse_queue(worker);
    }

    pub fn refuse_queue(&mut self, worker: usize) {
        for attempt in self.workers[worker].return_queues() {
            self.checker.report.refusals += 1;
            self.report_end(worker, attempt);
        }
    }

    /// Sends a false report of a worker.
    pub fn lie(&mut self) {
        let wait = self.about(4_000);
        self.later(wait, SimEvent::Lie);
        let worker = self.rng.random_range(0..self.workers.len());
        if self.workers[worker].connection.is_none() {
            return;
        }
        self.checker.report.lies += 1;
        let epoch = Epoch(self.rng.random_range(0..=self.server.disk.epoch + 1));
        let mut attempt = AttemptId { epoch, counter: self.rng.random_range(0..200) };
        // A worker cannot guess an attempt that is not dispatched yet.
        if !self.checker.was_opened(attempt) {
            attempt.counter += 1_000_000;
        }
        // Reports of attempts that it holds are true: the server could not tell the difference.
        let known = &self.workers[worker];
        let is_on_slot = known.on_slots().any(|(_, held)| held.attempt == attempt);
        if is_on_slot || known.uploading.contains_key(&attempt) || known.streams.contains_key(&attempt) {
            return;
        }
        let unsettled = known.unsettled.first_key_value().map(|(id, _)| *id);
        let up = match self.rng.random_range(0..4) {
            0 => ToServer::Started(attempt),
            1 => ToServer::Finished(attempt, Finish::Failed(Failure::new(STOPPER, "a lie"))),
            2 => match unsettled {
                // Repeats a report.
                Some(again) => return self.report_end(worker, again),
                None => ToServer::Finished(attempt, Finish::Returned),
            },
            _ => {
                let mut held = self.workers[worker].held();
                let made_up = HeldAttempt {
                    attempt,
                    task: TaskId {
                        job: JobId(self.rng.random_range(1..4)),
                        step: StepIndex(0),
                        index: TaskIndex(self.rng.random_range(0..10)),
                    },
                    generation: Generation(0),
                    phase: HeldPhase::Running { slot: SlotIndex(self.rng.random_range(0..5)) },
                };
                held.push(made_up);
                self.disconnect(worker);
                self.last_connection += 1;
                self.workers[worker].connection = Some(self.last_connection);
                let connection = self.last_connection;
                self.later(HEARTBEAT_MS, SimEvent::Heartbeat { worker, connection });
                self.report_to_server(worker, ToServer::Hello(held));
                let unsettled: Vec<AttemptId> = self.workers[worker].unsettled.keys().copied().collect();
                return unsettled.into_iter().for_each(|attempt| self.report_end(worker, attempt));
            }
        };
        self.report_to_server(worker, up);
    }

    /// Ends the faults: every worker takes work again.
    pub fn calm_down(&mut self) {
        self.calm = true;
        self.stalled_until = 0;
        self.later(0, SimEvent::CatchUp);
        self.scenario.kills_one_in = 0;
        while self.last_job < u64::from(self.scenario.jobs) {
            let plan = self.make_plan();
            self.later(0, SimEvent::Submit(plan));
        }
        if self.server.core.is_none() {
            self.server.start(Moment(self.now));
        }
        for worker in 0..self.workers.len() {
            self.workers[worker].refuses_until = 0;
            self.workers[worker].broken_until = 0;
            self.set_unavailable(worker, false);
            let id = self.workers[worker].id;
            self.set_desired(id, DesiredState::Active);
        }
        let jobs: Vec<_> = self.server.disk.ledger.job_ids().collect();
        for job in jobs {
            // A job that has ended refuses. One that was paused before its hold is resumed first, and then released.
            for _ in 0..2 {
                let _ = self.batch(None, |core, _, out| core.resume_job(job, out));
            }
            self.drop_dependencies(job);
            if self.scenario.kinds {
                self.add_step(job);
            }
        }
    }
}
