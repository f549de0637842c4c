//! Who is in the farm and what is handed out, each found by what is asked for.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Deref,
};

use kiln_types::{AttemptId, Epoch, JobId, WorkerId};

use super::farm::{Known, LiveAttempt, Started};

/// All workers that the records know. No two have one name.
#[derive(Default)]
pub(crate) struct Workers {
    all: HashMap<WorkerId, Known>,
    names: HashMap<String, WorkerId>,
}

impl Deref for Workers {
    type Target = HashMap<WorkerId, Known>;

    fn deref(&self) -> &Self::Target {
        &self.all
    }
}

impl Workers {
    pub(crate) fn named(&self, name: &str) -> Option<WorkerId> {
        self.names.get(name).copied()
    }

    /// The name stays as it is; [`Workers::insert`] gives another.
    pub(super) fn get_mut(&mut self, id: WorkerId) -> Option<&mut Known> {
        self.all.get_mut(&id)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (WorkerId, &mut Known)> {
        self.all.iter_mut().map(|(id, known)| (*id, known))
    }

    pub(super) fn insert(&mut self, id: WorkerId, known: Known) -> Option<Known> {
        let old = self.remove(id);
        self.names.insert(known.name.clone(), id);
        self.all.insert(id, known);
        old
    }

    pub(super) fn remove(&mut self, id: WorkerId) -> Option<Known> {
        let old = self.all.remove(&id)?;
        self.names.remove(&old.name);
        Some(old)
    }
}

/// Before all others.
const FIRST: AttemptId = AttemptId { epoch: Epoch(0), counter: 0 };

/// What is handed out and has not ended.
#[derive(Default)]
pub(crate) struct Attempts {
    all: HashMap<AttemptId, LiveAttempt>,
    by_worker: BTreeSet<(WorkerId, AttemptId)>,
    /// Those that run: what waits in queues is a hundred times as many.
    running: BTreeSet<(JobId, AttemptId)>,
}

impl Attempts {
    pub(super) fn get_mut(&mut self, id: AttemptId) -> Option<&mut LiveAttempt> {
        self.all.get_mut(&id)
    }

    pub(super) fn insert(&mut self, id: AttemptId, live: LiveAttempt) {
        self.remove(id);
        self.by_worker.insert((live.worker, id));
        if live.started.is_some() {
            self.running.insert((live.task.job, id));
        }
        self.all.insert(id, live);
    }

    /// It runs now. What it is, where it is known.
    pub(super) fn start(&mut self, id: AttemptId, started: Started) -> Option<&LiveAttempt> {
        let live = self.all.get_mut(&id)?;
        live.started = Some(started);
        self.running.insert((live.task.job, id));
        Some(live)
    }

    pub(super) fn remove(&mut self, id: AttemptId) -> Option<LiveAttempt> {
        let live = self.all.remove(&id)?;
        self.by_worker.remove(&(live.worker, id));
        self.running.remove(&(live.task.job, id));
        Some(live)
    }

    pub(super) fn remove_job(&mut self, job: JobId) {
        let of_job = self.all.iter().filter(|(_, live)| live.task.job == job);
        let ids: Vec<AttemptId> = of_job.map(|(id, _)| *id).collect();
        for id in ids {
            self.remove(id);
        }
    }

    /// In their order.
    pub(super) fn of_worker(&self, worker: WorkerId) -> impl Iterator<Item = (AttemptId, &LiveAttempt)> {
        let ids = self.by_worker.range((worker, FIRST)..).take_while(move |(of, _)| *of == worker);
        ids.filter_map(|(_, id)| Some((*id, self.all.get(id)?)))
    }

    /// In their order.
    pub(super) fn running(&self, job: JobId) -> impl Iterator<Item = (AttemptId, &LiveAttempt)> {
        let ids = self.running.range((job, FIRST)..).take_while(move |(of, _)| *of == job);
        ids.filter_map(|(_, id)| Some((*id, self.all.get(id)?)))
    }
}
