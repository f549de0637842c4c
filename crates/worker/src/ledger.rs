//! What the worker holds: every attempt from its assignment until the server has settled it.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use kiln_api::{AttemptReport, Up};
use kiln_types::{AttemptId, Generation, HeldAttempt, HeldPhase, SlotIndex, TaskId};
use tokio_util::sync::CancellationToken;

use crate::TaskKind;

/// A report that stays unsettled so long, on a connection that lives, is sent again.
const REPEAT_AFTER: Duration = Duration::from_secs(10);
/// Attempts remembered after they were settled, to answer a late revoke.
const REMEMBERED: usize = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) task: TaskId,
    pub(crate) generation: Generation,
    pub(crate) slot: SlotIndex,
    pub(crate) kind: TaskKind,
}

#[derive(Debug)]
enum Stage {
    Queued,
    Running,
    /// Rendered; checked and uploaded now. The token calls that off.
    Delivering(CancellationToken),
    Finished {
        finish: Box<AttemptReport>,
        sent: Option<Instant>,
    },
}

/// What a revoke asks the worker to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Revoked {
    /// Tell the slot.
    InSlot(SlotIndex),
    /// It was on its way to the server; that is called off, and it counts as handed back.
    CalledOff,
    /// Its report is made, or is made now: send it.
    Report,
}

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    entries: BTreeMap<AttemptId, (Entry, Stage)>,
    settled: VecDeque<(AttemptId, Entry)>,
}

impl Ledger {
    /// Returns false where the attempt is held already.
    pub(crate) fn assign(&mut self, attempt: AttemptId, entry: Entry) -> bool {
        if self.entries.contains_key(&attempt) {
            return false;
        }
        self.entries.insert(attempt, (entry, Stage::Queued));
        true
    }

    pub(crate) fn entry(&self, attempt: AttemptId) -> Option<Entry> {
        self.entries.get(&attempt).map(|(entry, _)| *entry)
    }

    pub(crate) fn began(&mut self, attempt: AttemptId) {
        if let Some((_, stage @ Stage::Queued)) = self.entries.get_mut(&attempt) {
            *stage = Stage::Running;
        }
    }

    /// The frame has left its slot for the outbox.
    pub(crate) fn delivering(&mut self, attempt: AttemptId) -> Option<CancellationToken> {
        let (_, stage) = self.entries.get_mut(&attempt)?;
        if matches!(stage, Stage::Finished { .. }) {
            return None;
        }
        let off = CancellationToken::new();
        *stage = Stage::Delivering(off.clone());
        Some(off)
    }

    /// Writes down how an attempt ended; the first end counts. Returns whether this was the first.
    pub(crate) fn finish(&mut self, attempt: AttemptId, finish: AttemptReport) -> bool {
        match self.entries.get_mut(&attempt) {
            Some((_, Stage::Finished { .. })) | None => false,
            Some((_, stage)) => {
                *stage = Stage::Finished { finish: Box::new(finish), sent: None };
                true
            }
        }
    }

    /// `stop` says that it is to be given up even where it has begun.
    pub(crate) fn revoke(&mut self, attempt: AttemptId, stop: bool) -> Revoked {
        let Some((entry, stage)) = self.entries.get_mut(&attempt) else {
            // Every revoke is answered: until then the server holds the slot back. What is not known any more is
            // reported once again, and settled once again.
            let known = self.settled.iter().rev().find(|(settled, _)| *settled == attempt);
            let entry = known.map_or_else(nobody, |(_, entry)| *entry);
            let finish = Box::new(AttemptReport::Returned);
            self.entries.insert(attempt, (entry, Stage::Finished { finish, sent: None }));
            return Revoked::Report;
        };
        match stage {
            Stage::Queued | Stage::Running => Revoked::InSlot(entry.slot),
            Stage::Delivering(off) if stop => {
                off.cancel();
                Revoked::CalledOff
            }
            Stage::Delivering(_) => Revoked::InSlot(entry.slot),
            Stage::Finished { sent, .. } => {
                *sent = None;
                Revoked::Report
            }
        }
    }

    pub(crate) fn settle(&mut self, attempt: AttemptId) {
        if let Some((_, Stage::Finished { .. })) = self.entries.get(&attempt)
            && let Some((entry, _)) = self.entries.remove(&attempt)
        {
            if self.settled.len() == REMEMBERED {
                self.settled.pop_front();
            }
            self.settled.push_back((attempt, entry));
        }
    }

    /// Forgets what was sent: the connection is a new one.
    pub(crate) fn unsent(&mut self) {
        for (_, stage) in self.entries.values_mut() {
            if let Stage::Finished { sent, .. } = stage {
                *sent = None;
            }
        }
    }

    /// Reports that are due now.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<Up> {
        let mut due = Vec::new();
        for (attempt, (entry, stage)) in &mut self.entries {
            if let Stage::Finished { finish, sent } = stage
                && sent.is_none_or(|sent| now.duration_since(sent) >= REPEAT_AFTER)
            {
                *sent = Some(now);
                due.push(Up::Finished {
                    attempt: *attempt,
                    task: entry.task,
                    generation: entry.generation,
                    report: (**finish).clone(),
                });
            }
        }
        due
    }

    /// What a server that is met again is told.
    pub(crate) fn held(&self) -> Vec<HeldAttempt> {
        let phase = |slot: SlotIndex, stage: &Stage| match stage {
            Stage::Queued => HeldPhase::Queued { slot },
            Stage::Running => HeldPhase::Running { slot },
            Stage::Delivering(_) | Stage::Finished { .. } => HeldPhase::Finished { slot },
        };
        self.entries
            .iter()
            .filter(|(_, (entry, _))| *entry != nobody())
            .map(|(attempt, (entry, stage))| HeldAttempt {
                attempt: *attempt,
                task: entry.task,
                generation: entry.generation,
                phase: phase(entry.slot, stage),
            })
            .collect()
    }

    /// Attempts in the hands of this slot.
    pub(crate) fn of_slot(&self, slot: SlotIndex) -> Vec<AttemptId> {
        let in_slot = |(entry, stage): &(Entry, Stage)| {
            entry.slot == slot && matches!(stage, Stage::Queued | Stage::Running)
        };
        self.entries.iter().filter(|(_, held)| in_slot(held)).map(|(attempt, _)| *attempt).collect()
    }

    /// Whether a slot has work.
    pub(crate) fn is_busy(&self) -> bool {
        self.entries.values().any(|(_, stage)| matches!(stage, Stage::Queued | Stage::Running))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// Stands for an attempt of which only the id is known.
fn nobody() -> Entry {
    let task = TaskId { job: Default::default(), step: Default::default(), index: Default::default() };
    Entry { task, generation: Generation(0), slot: SlotIndex(0), kind: TaskKind::Frame(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(counter: u64) -> AttemptId {
        AttemptId { epoch: Default::default(), counter }
    }

    fn entry() -> Entry {
        Entry {
            task: "1.0.7".parse().unwrap(),
            generation: Generation(2),
            slot: SlotIndex(1),
            kind: TaskKind::Frame(8),
        }
    }

    #[test]
    fn a_report_is_repeated_until_it_is_settled() {
        let mut ledger = Ledger::default();
        assert!(ledger.assign(id(1), entry()));
        assert!(!ledger.assign(id(1), entry()), "twice the same assignment is one");
        ledger.began(id(1));
        assert!(ledger.is_busy());
        let now = Instant::now();
        assert!(ledger.due(now).is_empty());
        assert!(ledger.finish(id(1), AttemptReport::Returned));
        assert!(!ledger.finish(id(1), AttemptReport::Returned));
        assert!(!ledger.is_busy());
        assert_eq!(ledger.due(now).len(), 1);
        assert!(ledger.due(now).is_empty(), "not at once again");
        assert_eq!(ledger.due(now + REPEAT_AFTER).len(), 1);
        ledger.unsent();
        assert_eq!(ledger.due(now + REPEAT_AFTER).len(), 1, "on a new connection at once");
        ledger.settle(id(1));
        assert!(ledger.is_empty() && ledger.due(now + 9 * REPEAT_AFTER).is_empty());
    }

    #[test]
    fn what_is_held_is_presented_by_its_stage() {
        let mut ledger = Ledger::default();
        for counter in 1..=4 {
            ledger.assign(id(counter), entry());
        }
        ledger.began(id(2));
        ledger.delivering(id(3)).unwrap();
        ledger.finish(id(4), AttemptReport::Returned);
        let states: Vec<_> = ledger.held().iter().map(|held| held.phase).collect();
        use HeldPhase::{Finished, Queued, Running};
        let slot = SlotIndex(1);
        assert_eq!(states, [Queued { slot }, Running { slot }, Finished { slot }, Finished { slot }]);
        assert_eq!(ledger.of_slot(SlotIndex(1)), [id(1), id(2)]);
    }

    #[test]
    fn every_revoke_has_an_answer() {
        let mut ledger = Ledger::default();
        for counter in 1..=3 {
            ledger.assign(id(counter), entry());
        }
        let off = ledger.delivering(id(2)).unwrap();
        ledger.finish(id(3), AttemptReport::Returned);
        let now = Instant::now();
        assert_eq!(ledger.due(now).len(), 1);
        assert_eq!(ledger.revoke(id(1), true), Revoked::InSlot(SlotIndex(1)));
        assert_eq!(ledger.revoke(id(2), false), Revoked::InSlot(SlotIndex(1)));
        assert!(!off.is_cancelled(), "a frame that is done is not stolen");
        assert_eq!(ledger.revoke(id(2), true), Revoked::CalledOff);
        assert!(off.is_cancelled());
        assert_eq!(ledger.revoke(id(3), true), Revoked::Report);
        assert_eq!(ledger.due(now).len(), 1);
        ledger.settle(id(3));
        assert_eq!(ledger.revoke(id(3), true), Revoked::Report);
        assert_eq!(ledger.revoke(id(99), true), Revoked::Report);
        let tasks: Vec<_> = ledger
            .due(now)
            .into_iter()
            .map(|up| match up {
                Up::Finished { attempt, task, .. } => (attempt, task.to_string()),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(tasks, [(id(3), "1.0.7".to_owned()), (id(99), "0.0.0".to_owned())]);
        assert!(ledger.held().iter().all(|held| held.attempt != id(99)));
    }
}
