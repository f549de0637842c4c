//! Which workers are sick or in doubt, and when they are to be looked at.

use std::collections::{BTreeMap, BTreeSet};

use kiln_types::WorkerId;

use crate::{Moment, health::Trial, ready::StepId};

/// Who is to be looked at when.
#[derive(Debug, Default)]
pub(crate) struct Infirmary {
    pub sick: BTreeSet<WorkerId>,
    /// Workers with strikes.
    pub struck: BTreeSet<WorkerId>,
    /// When the pauses of sick workers end.
    pub trials: BTreeSet<(Moment, WorkerId)>,
    /// Sick workers that are to be tried as soon as there is something for them.
    pub due: BTreeSet<WorkerId>,
    /// Workers with several strikes that are not sick: a delivery of another in one of these steps may show that they
    /// are. The same by worker.
    pub doubtful: BTreeSet<(StepId, WorkerId)>,
    doubts: BTreeMap<WorkerId, BTreeSet<StepId>>,
    pub downfalls: u64,
}

impl Infirmary {
    pub fn next_deadline(&self) -> Option<Moment> {
        self.trials.first().map(|(at, _)| *at)
    }

    /// Panics where the worker waits for its trial and nobody will call it. For tests.
    pub fn check(&self, worker: WorkerId, trial: Trial) {
        let timers: Vec<Moment> =
            self.trials.iter().filter(|(_, of)| *of == worker).map(|(at, _)| *at).collect();
        match trial {
            Trial::At(at) => assert_eq!(timers, [at], "worker {worker} waits for its trial"),
            Trial::Due | Trial::Runs(_) => assert!(timers.is_empty(), "worker {worker} waits for no trial"),
        }
        assert_eq!(self.due.contains(&worker), trial == Trial::Due, "worker {worker} is to be tried");
    }

    /// Panics where somebody has a timer, or is to be tried, who is not sick. For tests.
    pub fn check_trials(&self) {
        let waits = self.trials.iter().map(|(_, worker)| worker).chain(&self.due);
        let well: Vec<&WorkerId> = waits.filter(|worker| !self.sick.contains(worker)).collect();
        assert!(well.is_empty(), "{well:?} are to be tried and not sick");
    }

    /// Panics where others are in doubt than there is reason for. For tests.
    pub fn check_doubts(&self, doubts: &BTreeSet<(StepId, WorkerId)>) {
        assert_eq!(self.doubtful, *doubts, "others are in doubt than there is reason for");
        let by_worker = self.doubts.iter().flat_map(|(id, steps)| steps.iter().map(|step| (*step, *id)));
        assert_eq!(by_worker.collect::<BTreeSet<_>>(), *doubts, "others are in doubt by worker than by step");
    }

    /// The worker is in doubt in these steps and in no others.
    pub fn set_doubts(&mut self, worker: WorkerId, steps: BTreeSet<StepId>) {
        for step in self.doubts.remove(&worker).unwrap_or_default() {
            self.doubtful.remove(&(step, worker));
        }
        self.doubtful.extend(steps.iter().map(|step| (*step, worker)));
        if !steps.is_empty() {
            self.doubts.insert(worker, steps);
        }
    }

    /// From now on it stands so with the worker's trial.
    pub fn list(&mut self, worker: WorkerId, trial: Trial) {
        match trial {
            Trial::At(at) => drop(self.trials.insert((at, worker))),
            Trial::Due => drop(self.due.insert(worker)),
            Trial::Runs(_) => {}
        }
    }

    /// So it stood with the worker's trial.
    pub fn unlist(&mut self, worker: WorkerId, trial: Trial) {
        match trial {
            Trial::At(at) => drop(self.trials.remove(&(at, worker))),
            Trial::Due => drop(self.due.remove(&worker)),
            Trial::Runs(_) => {}
        }
    }
}
