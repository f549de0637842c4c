//! The simulated server: the core, its disk and its connections.

use std::collections::BTreeMap;

use kiln_core::{Account, Config, Core, JobPlan, Ledger, Moment, Outbox, Push, Record, Share};
use kiln_types::{DesiredState, Epoch, WorkerId};

/// The decisions of one batch.
#[derive(Debug, Default)]
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

/// The state that survives the death of the server.
#[derive(Debug, Default)]
pub struct Disk {
    pub ledger: Ledger,
    pub desired: BTreeMap<WorkerId, DesiredState>,
    pub limits: BTreeMap<String, u32>,
    pub shares: Vec<(Account, Share)>,
    pub epoch: u32,
}

#[derive(Debug, Default)]
pub struct SimServer {
    pub disk: Disk,
    /// `None` while the server is down.
    pub core: Option<Core>,
    /// The newest connection of each worker.
    pub connections: BTreeMap<WorkerId, u64>,
}

impl SimServer {
    /// Builds the core from the disk.
    pub fn start(&mut self, now: Moment) {
        self.disk.epoch += 1;
        let mut core = Core::new(Epoch(self.disk.epoch), Config::default());
        for (name, total) in &self.disk.limits {
            core.set_limit(name, *total);
        }
        for (account, share) in &self.disk.shares {
            core.set_share(account.clone(), *share);
        }
        for id in self.disk.ledger.job_ids() {
            let stored = self.disk.ledger.restored(id).expect("the ledger holds what it lists");
            core.restore_job(now, stored.0, stored.1).expect("the stored state is consistent");
        }
        for (worker, quarantine) in self.disk.ledger.quarantined() {
            core.restore_quarantine(now, worker, quarantine.clone());
        }
        let mut said = Decisions::default();
        for (worker, desired) in &self.disk.desired {
            core.set_desired_state(*worker, *desired, &mut said);
        }
        self.core = Some(core);
        self.connections.clear();
    }

    pub fn die(&mut self) {
        self.core = None;
        self.connections.clear();
    }

    /// Writes the transaction of a batch.
    pub fn write(&mut self, submitted: Option<&JobPlan>, records: &[Record]) {
        if let Some(plan) = submitted {
            self.disk.ledger.add_job(plan);
        }
        for record in records {
            self.disk.ledger.apply(record);
        }
    }
}
