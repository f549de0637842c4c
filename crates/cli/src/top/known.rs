//! The workers as they were last read in full. Events report changes of a worker; the frames that it renders change all the
//! time, and are read alone.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use kiln_api::{RunningList, WorkerView};
use kiln_types::WorkerState;

/// The age at which the list is read again: some changes, such as another Blender or pool, come without an event.
const WHOLE: Duration = Duration::from_secs(30);

/// The list of workers, shared by the readings of one screen.
#[derive(Debug, Clone, Default)]
pub struct FarmCache(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    workers: Vec<WorkerView>,
    /// The time when they were read, and the number of changes before.
    read: Option<(Instant, u64)>,
    /// Changes of workers so far.
    changes: u64,
}

impl FarmCache {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a worker changed in something other than the frames that it renders.
    pub fn note_change(&self) {
        self.inner().changes += 1;
    }

    /// Returns the number of changes, to be passed to [`Self::replace`] with what is read now.
    pub fn changes(&self) -> u64 {
        self.inner().changes
    }

    /// Replaces the list by one that was asked for after a number of changes.
    pub fn replace(&self, workers: &[WorkerView], changes: u64) {
        let mut inner = self.inner();
        inner.workers = workers.to_vec();
        inner.read = Some((Instant::now(), changes));
    }

    /// Returns whether the list is up to date, except for running frames.
    pub fn is_current(&self) -> bool {
        let inner = self.inner();
        inner.read.is_some_and(|(at, changes)| changes == inner.changes && at.elapsed() < WHOLE)
    }

    /// Returns the list with the tasks that run now; `None` if a worker that is not in it runs one.
    pub fn running(&self, running: RunningList, now_ms: i64) -> Option<Vec<WorkerView>> {
        let mut inner = self.inner();
        for worker in &mut inner.workers {
            worker.running.clear();
            // A worker that is silent is soon offline, which an event reports.
            if worker.state != WorkerState::Offline {
                worker.last_seen_ms = worker.last_seen_ms.max(now_ms);
            }
        }
        let places: HashMap<String, usize> =
            inner.workers.iter().enumerate().map(|(at, worker)| (worker.name.clone(), at)).collect();
        for run in running.running {
            inner.workers.get_mut(*places.get(&run.worker)?)?.running.push(run.task);
        }
        for worker in &mut inner.workers {
            worker.running.sort_by_key(|run| (run.slot, run.attempt));
        }
        Some(inner.workers.clone())
    }
}

#[cfg(test)]
mod tests {
    use kiln_api::RunningTask;

    use super::{super::fixtures, *};

    #[test]
    fn running_tasks_are_put_to_their_workers_until_something_else_changes() {
        let known = FarmCache::default();
        assert!(!known.is_current());
        let workers = fixtures::farm().workers;
        known.replace(&workers, known.changes());
        assert!(known.is_current());
        let at = |name: &str| workers.iter().position(|worker| worker.name == name).unwrap();
        let run = workers[at("studio")].running[0].clone();
        let list = |worker: &str| RunningList {
            count: 1,
            inside: 0.4,
            running: vec![RunningTask { worker: worker.to_owned(), task: run.clone() }],
        };
        let seen = workers.iter().map(|worker| worker.last_seen_ms).max().unwrap() + 60_000;
        let now = known.running(list("attic"), seen).unwrap();
        assert_eq!(now[at("attic")].running, std::slice::from_ref(&run));
        assert!(now[at("studio")].running.is_empty());
        assert_eq!(now[at("attic")].last_seen_ms, seen);
        assert_eq!(now[at("laptop")].last_seen_ms, workers[at("laptop")].last_seen_ms, "it is offline");
        assert_eq!(known.running(list("a new one"), seen), None);
        // A change while the list is read may not be in it.
        let changes = known.changes();
        known.note_change();
        known.replace(&workers, changes);
        assert!(!known.is_current());
    }
}
