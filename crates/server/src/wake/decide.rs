//! The choice of the sleeping machines that are woken. Pure.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    time::{Duration, Instant},
};

use kiln_core::{Requirement, WorkerOffer};
use kiln_types::{JobId, StepIndex, WorkerId};

/// The time after which a machine that was woken and has not connected is woken again.
const AGAIN: Duration = Duration::from_secs(5 * 60);

/// Tasks of a step that wait for workers.
#[derive(Debug, Clone)]
pub(super) struct UnservedTasks {
    pub job: JobId,
    pub step: StepIndex,
    pub tasks: u32,
    pub requirement: Requirement,
}

/// An offline worker that can be woken and would take work.
#[derive(Debug, Clone)]
pub(super) struct SleepingWorker {
    pub worker: WorkerId,
    /// The last offer before it disconnected.
    pub offer: WorkerOffer,
}

/// Chooses workers to wake; remembers since when tasks wait, and which workers were woken.
#[derive(Debug)]
pub(super) struct Alarm {
    /// The time for which tasks must have waited: short work wakes no machine.
    patience: Duration,
    waits_since: HashMap<(JobId, StepIndex), Instant>,
    woken: HashMap<WorkerId, Instant>,
}

impl Alarm {
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, waits_since: HashMap::new(), woken: HashMap::new() }
    }

    /// Chooses the workers to wake now: enough to have a slot for each task that has waited long enough. Workers that were
    /// woken a short time ago count.
    pub(super) fn choose(
        &mut self,
        waiting: &[UnservedTasks],
        sleeping: &[SleepingWorker],
        now: Instant,
    ) -> Vec<WorkerId> {
        let steps: HashSet<(JobId, StepIndex)> =
            waiting.iter().map(|tasks| (tasks.job, tasks.step)).collect();
        self.waits_since.retain(|step, _| steps.contains(step));
        self.woken.retain(|_, at| now.duration_since(*at) < AGAIN);
        let mut free: Vec<&SleepingWorker> = sleeping.iter().collect();
        free.sort_by_key(|worker| (!self.woken.contains_key(&worker.worker), worker.worker));
        let mut chosen = Vec::new();
        for tasks in waiting {
            let since = *self.waits_since.entry((tasks.job, tasks.step)).or_insert(now);
            if now.duration_since(since) < self.patience {
                continue;
            }
            let mut left = tasks.tasks;
            free.retain(|worker| {
                if left == 0 || !tasks.requirement.is_met_by(&worker.offer) {
                    return true;
                }
                left = left.saturating_sub(worker.offer.slots.into());
                if let Entry::Vacant(place) = self.woken.entry(worker.worker) {
                    place.insert(now);
                    chosen.push(worker.worker);
                }
                false
            });
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use kiln_core::Label;

    use super::*;

    fn waiting(job: u64, tasks: u32, required: &str) -> UnservedTasks {
        let requirement = [required].into_iter().collect();
        UnservedTasks { job: JobId(job), step: StepIndex(0), tasks, requirement }
    }

    fn sleeping(id: u64, slots: u16, labels: &[&str]) -> SleepingWorker {
        let labels = labels.iter().copied().map(Label::from).collect();
        SleepingWorker {
            worker: WorkerId::from_bits(id).unwrap(),
            offer: WorkerOffer { slots, labels, ..WorkerOffer::default() },
        }
    }

    const PATIENCE: Duration = Duration::from_secs(20);

    fn w(id: u64) -> WorkerId {
        WorkerId::from_bits(id).unwrap()
    }

    #[test]
    fn work_that_waits_wakes_as_many_as_it_fills_and_each_once_in_five_minutes() {
        let mut alarm = Alarm::new(PATIENCE);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let all =
            [sleeping(1, 2, &["a"]), sleeping(2, 2, &["b"]), sleeping(3, 2, &["a"]), sleeping(4, 2, &["a"])];
        let work = [waiting(1, 3, "a")];
        assert!(alarm.choose(&work, &all, at(0)).is_empty());
        assert!(alarm.choose(&work, &all, at(19)).is_empty());
        assert_eq!(alarm.choose(&work, &all, at(20)), [w(1), w(3)], "two have room for three tasks");
        assert!(alarm.choose(&work, &all, at(25)).is_empty(), "those were woken a moment ago");
        assert_eq!(alarm.choose(&[waiting(1, 5, "a")], &all, at(30)), [w(4)], "more work wakes more");
        assert!(alarm.choose(&work, &all, at(319)).is_empty());
        assert_eq!(alarm.choose(&work, &all, at(330)), [w(1), w(3)], "they did not connect");
    }

    #[test]
    fn work_that_was_taken_meanwhile_begins_to_wait_again() {
        let mut alarm = Alarm::new(PATIENCE);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let all = [sleeping(1, 1, &["a"])];
        let work = [waiting(1, 1, "a")];
        assert!(alarm.choose(&work, &all, at(0)).is_empty());
        assert!(alarm.choose(&[], &all, at(10)).is_empty());
        assert!(alarm.choose(&work, &all, at(25)).is_empty());
        assert_eq!(alarm.choose(&work, &all, at(45)), [w(1)]);
    }

    #[test]
    fn two_jobs_wake_two_machines() {
        let mut alarm = Alarm::new(Duration::ZERO);
        let all = [sleeping(1, 1, &["a", "b"]), sleeping(2, 1, &["a", "b"]), sleeping(3, 1, &[])];
        let work = [waiting(1, 1, "a"), waiting(2, 1, "b"), waiting(3, 9, "c")];
        assert_eq!(alarm.choose(&work, &all, Instant::now()), [w(1), w(2)]);
    }
}
