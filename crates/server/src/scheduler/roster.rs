//! The workers of the farm and the live attempts, with their indexes.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Deref,
};

use kiln_core::Moment;
use kiln_types::{AttemptId, Epoch, JobId, Name, SlotIndex, TaskId, WorkerId};

use super::worker::KnownWorker;

/// The number that is added to the name of the second worker of this name.
const FIRST_NUMBER: u32 = 2;

/// All workers that the records know. No two have one name.
#[derive(Default)]
pub(crate) struct Workers {
    all: HashMap<WorkerId, KnownWorker>,
    names: HashMap<String, WorkerId>,
    /// For each name, a number below which all are taken: a thousand machines of one image join in a thousand steps.
    numbers: HashMap<String, u32>,
}

impl Deref for Workers {
    type Target = HashMap<WorkerId, KnownWorker>;

    fn deref(&self) -> &Self::Target {
        &self.all
    }
}

impl Workers {
    pub(crate) fn by_name(&self, name: &str) -> Option<WorkerId> {
        self.names.get(name).copied()
    }

    /// Returns a worker whose name must not be changed; [`Workers::insert`] changes it.
    pub(super) fn get_mut(&mut self, id: WorkerId) -> Option<&mut KnownWorker> {
        self.all.get_mut(&id)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (WorkerId, &mut KnownWorker)> {
        self.all.iter_mut().map(|(id, known)| (*id, known))
    }

    pub(super) fn insert(&mut self, id: WorkerId, known: KnownWorker) -> Option<KnownWorker> {
        let old = self.remove(id);
        self.names.insert(known.name.clone(), id);
        self.all.insert(id, known);
        old
    }

    pub(super) fn remove(&mut self, id: WorkerId) -> Option<KnownWorker> {
        let old = self.all.remove(&id)?;
        self.names.remove(&old.name);
        if let Some((name, number)) = numbered(&old.name)
            && let Some(next) = self.numbers.get_mut(name)
        {
            *next = number.min(*next);
        }
        Some(old)
    }

    /// Returns the wanted name. If another worker has it, adds a number: the one that this worker has already, or the first
    /// that is free.
    pub(super) fn free_name(&mut self, worker: WorkerId, wanted: &Name) -> String {
        let name = wanted.to_string();
        if self.by_name(&name).is_none_or(|other| other == worker) {
            return name;
        }
        let own = self.all.get(&worker).map(|known| &known.name);
        if let Some(own) = own.filter(|own| numbered(own).is_some_and(|(of, _)| of == name)) {
            return own.clone();
        }
        let next = self.numbers.entry(name.clone()).or_insert(FIRST_NUMBER);
        loop {
            let numbered = format!("{name}-{next}");
            if !self.names.contains_key(&numbered) {
                return numbered;
            }
            *next += 1;
        }
    }
}

/// Splits a name that [`Workers::free_name`] made into the wanted name and the number.
fn numbered(name: &str) -> Option<(&str, u32)> {
    let (name, digits) = name.rsplit_once('-')?;
    let number: u32 = digits.parse().ok().filter(|number| *number >= FIRST_NUMBER)?;
    (number.to_string() == digits).then_some((name, number))
}

/// Sorts before all others.
const FIRST: AttemptId = AttemptId { epoch: Epoch(0), counter: 0 };

pub(crate) struct LiveAttempt {
    pub task: TaskId,
    pub worker: WorkerId,
    /// `None` while it streams.
    pub slot: Option<SlotIndex>,
    pub started: Option<Started>,
    /// The progress that Blender reports.
    pub fraction: Option<f32>,
}

#[derive(Clone, Copy)]
pub(crate) struct Started {
    pub moment: Moment,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// The attempts that were dispatched and have not ended.
#[derive(Default)]
pub(crate) struct LiveAttempts {
    all: HashMap<AttemptId, LiveAttempt>,
    by_worker: BTreeSet<(WorkerId, AttemptId)>,
    /// Only those that run: dispatch queues hold a hundred times as many.
    running: BTreeSet<(JobId, AttemptId)>,
}

impl LiveAttempts {
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

    /// Notes that an attempt runs, and returns it.
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

    pub(super) fn of_worker(&self, worker: WorkerId) -> impl Iterator<Item = (AttemptId, &LiveAttempt)> {
        let ids = self.by_worker.range((worker, FIRST)..).take_while(move |(of, _)| *of == worker);
        ids.filter_map(|(_, id)| Some((*id, self.all.get(id)?)))
    }

    pub(super) fn running(&self, job: JobId) -> impl Iterator<Item = (AttemptId, &LiveAttempt)> {
        let ids = self.running.range((job, FIRST)..).take_while(move |(of, _)| *of == job);
        ids.filter_map(|(_, id)| Some((*id, self.all.get(id)?)))
    }
}

#[cfg(test)]
mod tests {
    use kiln_types::DesiredState;

    use super::*;

    impl Workers {
        fn join(&mut self, id: u64, wanted: &str) -> String {
            let id = WorkerId::from_bits(id).unwrap();
            let name = self.free_name(id, &wanted.parse().unwrap());
            let known = KnownWorker {
                name: name.clone(),
                info: Default::default(),
                desired: DesiredState::Active,
                pools: BTreeSet::new(),
                last_seen_ms: 0,
                link: None,
            };
            self.insert(id, known);
            name
        }

        fn leave(&mut self, id: u64) {
            self.remove(WorkerId::from_bits(id).unwrap()).unwrap();
        }
    }

    #[test]
    fn workers_that_want_one_name_get_numbers_and_keep_them() {
        let mut workers = Workers::default();
        let names: Vec<String> = (1..=4).map(|id| workers.join(id, "node")).collect();
        assert_eq!(names, ["node", "node-2", "node-3", "node-4"]);
        assert_eq!(workers.join(3, "node"), "node-3", "a worker that returns keeps its name");
        assert_eq!(workers.join(5, "node-4"), "node-4-2");
        assert_eq!(workers.join(6, "node-5"), "node-5");
        assert_eq!(workers.join(7, "node"), "node-6", "the one between is taken");
        // Names that become free are used again.
        workers.leave(3);
        workers.leave(2);
        assert_eq!(workers.join(8, "node"), "node-2");
        assert_eq!(workers.join(9, "node"), "node-3");
        assert_eq!(workers.join(10, "node"), "node-7");
        workers.leave(1);
        assert_eq!(workers.join(4, "node"), "node", "the name without a number is free");
        assert_eq!(workers.join(11, "node"), "node-4");
        assert_eq!(workers.join(12, "a/b"), "a/b");
    }

    #[test]
    fn the_number_of_a_name_is_not_searched_from_the_first() {
        let mut workers = Workers::default();
        for id in 1..=1000 {
            workers.join(id, "node");
        }
        assert_eq!(workers.numbers["node"], 1000, "where the next begins to look");
        workers.leave(500);
        assert_eq!(workers.numbers["node"], 500);
    }
}
