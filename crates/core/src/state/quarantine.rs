//! The lists of quarantined and suspected workers, and the times of probes.

use std::collections::{BTreeMap, BTreeSet};

use kiln_types::WorkerId;

use super::incident::Probe;
use crate::{Moment, ids::StepRef};

#[derive(Debug, Default)]
pub(crate) struct QuarantineLists {
    pub quarantined: BTreeSet<WorkerId>,
    /// Workers with incidents.
    pub with_incidents: BTreeSet<WorkerId>,
    /// The times from which quarantined workers may be probed.
    pub timers: BTreeSet<(Moment, WorkerId)>,
    /// Quarantined workers whose probes are due.
    pub due: BTreeSet<WorkerId>,
    /// Workers with several incidents that are not in quarantine: a delivery of another worker in the step may show that
    /// they are the origin.
    pub suspected: BTreeSet<(StepRef, WorkerId)>,
    /// The steps of `suspected` by worker.
    suspected_in: BTreeMap<WorkerId, BTreeSet<StepRef>>,
    /// The number of losses of workers so far.
    pub losses: u64,
}

impl QuarantineLists {
    pub fn next_deadline(&self) -> Option<Moment> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Sets the steps in which the worker is suspected.
    pub fn set_suspected(&mut self, worker: WorkerId, steps: BTreeSet<StepRef>) {
        for step in self.suspected_in.remove(&worker).unwrap_or_default() {
            self.suspected.remove(&(step, worker));
        }
        self.suspected.extend(steps.iter().map(|step| (*step, worker)));
        if !steps.is_empty() {
            self.suspected_in.insert(worker, steps);
        }
    }

    /// The workers that are suspected in the step.
    pub fn suspects(&self, step: StepRef) -> Vec<WorkerId> {
        let from = (step, WorkerId::MIN);
        self.suspected.range(from..).take_while(|(of, _)| *of == step).map(|(_, worker)| *worker).collect()
    }

    pub fn list(&mut self, worker: WorkerId, probe: Probe) {
        match probe {
            Probe::NotBefore(at) => drop(self.timers.insert((at, worker))),
            Probe::Due => drop(self.due.insert(worker)),
            Probe::Runs(_) => {}
        }
    }

    pub fn unlist(&mut self, worker: WorkerId, probe: Probe) {
        match probe {
            Probe::NotBefore(at) => drop(self.timers.remove(&(at, worker))),
            Probe::Due => drop(self.due.remove(&worker)),
            Probe::Runs(_) => {}
        }
    }

    /// Panics if the probe of a worker is listed wrongly. For tests.
    pub fn check(&self, worker: WorkerId, probe: Probe) {
        let timers = self.timers.iter().filter(|(_, of)| *of == worker).map(|(at, _)| *at);
        let timers: Vec<Moment> = timers.collect();
        let expected = match probe {
            Probe::NotBefore(at) => vec![at],
            Probe::Due | Probe::Runs(_) => Vec::new(),
        };
        assert_eq!(timers, expected, "the timers of worker {worker} are wrong");
        assert_eq!(
            self.due.contains(&worker),
            probe == Probe::Due,
            "worker {worker} is listed wrongly as due"
        );
    }

    /// Panics if a worker is listed for a probe or as suspected without reason. For tests.
    pub fn check_all(&self, suspected: &BTreeSet<(StepRef, WorkerId)>) {
        let listed = self.timers.iter().map(|(_, worker)| worker).chain(&self.due);
        let free: Vec<&WorkerId> = listed.filter(|worker| !self.quarantined.contains(worker)).collect();
        assert!(free.is_empty(), "{free:?} are to be probed and not in quarantine");
        assert_eq!(self.suspected, *suspected, "the suspected workers are wrong");
        let by_worker =
            self.suspected_in.iter().flat_map(|(id, steps)| steps.iter().map(|step| (*step, *id)));
        assert_eq!(by_worker.collect::<BTreeSet<_>>(), *suspected, "suspected workers are listed wrongly");
    }
}
