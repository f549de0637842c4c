//! Stalls of the server: messages that arrive meanwhile wait, and no worker may expire because of that.

use kiln_core::{Config, Moment};
use kiln_types::{WorkerId, WorkerState};
use rand::RngExt;

use crate::world::{SimEvent, World};

impl World {
    /// Stalls the server for some time, while leases run on.
    pub fn stall_server(&mut self) {
        if self.server.core.is_none() {
            return;
        }
        self.checker.report.stalls += 1;
        let wait = self.about(45_000);
        self.stalled_until = self.now + wait;
        self.later(wait, SimEvent::CatchUp);
    }

    /// Gives an event to the server, behind those that wait.
    pub fn enqueue(&mut self, event: SimEvent) {
        if self.stalled_until > self.now || !self.backlog.is_empty() {
            self.backlog.push_back(event);
        } else {
            self.take(event);
        }
    }

    fn take(&mut self, event: SimEvent) {
        match event {
            SimEvent::ToServer { worker, connection, up } => self.receive(worker, connection, up),
            SimEvent::Lost { worker, connection } => {
                let id = self.workers[worker].id;
                let heard = self.heard.get(&id).copied();
                if self.server.connections.get(&id) == Some(&connection) {
                    self.server.connections.remove(&id);
                    self.batch(None, |core, _, out| {
                        if let Some((_, at)) = heard {
                            core.renew_lease(Moment(at), id);
                        }
                        core.worker_left(id, out);
                    });
                }
                if heard.is_some_and(|(newest, _)| newest <= connection) {
                    self.heard.remove(&id);
                }
            }
            _ => unreachable!("only events of connections wait"),
        }
    }

    /// Reads some of the messages that wait, and then checks leases.
    pub fn catch_up(&mut self) {
        if self.stalled_until > self.now {
            return;
        }
        for _ in 0..self.rng.random_range(1..8) {
            if let Some(event) = self.backlog.pop_front() {
                self.take(event);
            }
        }
        self.tick();
        if !self.backlog.is_empty() {
            self.later(50, SimEvent::CatchUp);
        }
    }

    /// Ticks as the server does: messages that have arrived and wait renew leases first.
    pub fn tick(&mut self) {
        let heard = self.heard.clone();
        let mut here: Vec<WorkerId> = Vec::new();
        self.batch(None, |core, now, out| {
            let alive = core.workers().into_iter().filter(|worker| worker.state != WorkerState::Offline);
            here.extend(alive.map(|worker| worker.id));
            for id in core.expiring(now) {
                if let Some((_, at)) = heard.get(&id) {
                    core.renew_lease(Moment(*at), id);
                }
            }
            core.tick(now, out);
        });
        let Some(core) = &self.server.core else { return };
        let lease = Config::default().lease_ms;
        for id in here {
            let silent = heard.get(&id).is_none_or(|(_, at)| self.now - at >= lease);
            let has_expired = core.worker(id).is_none_or(|worker| worker.state == WorkerState::Offline);
            assert!(silent || !has_expired, "worker {id} has expired within a lease of its last message");
        }
    }
}
