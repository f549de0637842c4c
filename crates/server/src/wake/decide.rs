//! Which sleeping machines are worth waking. Pure.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use kiln_core::{Requirement, WorkerOffer};
use kiln_types::{JobId, StepIndex, WorkerId};

/// How long a machine that was called may take to come; then it is called again.
const AGAIN: Duration = Duration::from_secs(5 * 60);

/// Tasks of a step that no worker has taken.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub job: JobId,
    pub step: StepIndex,
    pub tasks: u32,
    pub requirement: Requirement,
}

/// A worker that is gone, may be woken, and would work.
#[derive(Debug, Clone)]
pub(super) struct Sleeper {
    pub worker: WorkerId,
    /// As it said when it was here.
    pub offer: WorkerOffer,
}

/// Remembers since when work waits, and who was called.
#[derive(Debug)]
pub(super) struct Alarm {
    /// How long work must have waited: what is done in a moment wakes nobody.
    patience: Duration,
    waits_since: HashMap<(JobId, StepIndex), Instant>,
    called: HashMap<WorkerId, Instant>,
}

impl Alarm {
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, waits_since: HashMap::new(), called: HashMap::new() }
    }

    /// Whom to call now: as many as have slots for what has waited long enough, counting those who are on their way.
    pub(super) fn due(&mut self, waiting: &[Waiting], sleepers: &[Sleeper], now: Instant) -> Vec<WorkerId> {
        let there: HashSet<(JobId, StepIndex)> = waiting.iter().map(|one| (one.job, one.step)).collect();
        self.waits_since.retain(|of, _| there.contains(of));
        self.called.retain(|_, at| now.duration_since(*at) < AGAIN);
        let mut free: Vec<&Sleeper> = sleepers.iter().collect();
        free.sort_by_key(|sleeper| (!self.called.contains_key(&sleeper.worker), sleeper.worker));
        let mut due = Vec::new();
        for one in waiting {
            let since = *self.waits_since.entry((one.job, one.step)).or_insert(now);
            if now.duration_since(since) < self.patience {
                continue;
            }
            let mut left = one.tasks;
            free.retain(|sleeper| {
                if left == 0 || !one.requirement.is_met_by(&sleeper.offer) {
                    return true;
                }
                left = left.saturating_sub(sleeper.offer.slots.into());
                if let std::collections::hash_map::Entry::Vacant(place) = self.called.entry(sleeper.worker) {
                    place.insert(now);
                    due.push(sleeper.worker);
                }
                false
            });
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use kiln_core::Label;

    use super::*;

    fn waiting(job: u64, tasks: u32, required: &str) -> Waiting {
        Waiting { job: JobId(job), step: StepIndex(0), tasks, requirement: [required].into_iter().collect() }
    }

    fn sleeper(id: u64, slots: u16, labels: &[&str]) -> Sleeper {
        let labels = labels.iter().copied().map(Label::from).collect();
        Sleeper {
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
            [sleeper(1, 2, &["a"]), sleeper(2, 2, &["b"]), sleeper(3, 2, &["a"]), sleeper(4, 2, &["a"])];
        let work = [waiting(1, 3, "a")];
        assert!(alarm.due(&work, &all, at(0)).is_empty());
        assert!(alarm.due(&work, &all, at(19)).is_empty());
        assert_eq!(alarm.due(&work, &all, at(20)), [w(1), w(3)], "two have room for three tasks");
        assert!(alarm.due(&work, &all, at(25)).is_empty(), "those are on their way");
        assert_eq!(alarm.due(&[waiting(1, 5, "a")], &all, at(30)), [w(4)], "more work wakes more");
        assert!(alarm.due(&work, &all, at(319)).is_empty());
        assert_eq!(alarm.due(&work, &all, at(330)), [w(1), w(3)], "who did not come is called again");
    }

    #[test]
    fn work_that_was_taken_meanwhile_begins_to_wait_anew() {
        let mut alarm = Alarm::new(PATIENCE);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let all = [sleeper(1, 1, &["a"])];
        let work = [waiting(1, 1, "a")];
        assert!(alarm.due(&work, &all, at(0)).is_empty());
        assert!(alarm.due(&[], &all, at(10)).is_empty());
        assert!(alarm.due(&work, &all, at(25)).is_empty());
        assert_eq!(alarm.due(&work, &all, at(45)), [w(1)]);
    }

    #[test]
    fn two_jobs_do_not_count_on_the_same_machine() {
        let mut alarm = Alarm::new(Duration::ZERO);
        let all = [sleeper(1, 1, &["a", "b"]), sleeper(2, 1, &["a", "b"]), sleeper(3, 1, &[])];
        let work = [waiting(1, 1, "a"), waiting(2, 1, "b"), waiting(3, 9, "c")];
        assert_eq!(alarm.due(&work, &all, Instant::now()), [w(1), w(2)]);
    }
}
