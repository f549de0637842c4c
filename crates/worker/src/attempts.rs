//! The attempts that the worker holds, from the assignment until the server has settled the report.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use kiln_api::{AttemptReport, Up};
use kiln_types::{AttemptId, Generation, HeldAttempt, HeldPhase, SlotIndex, StepKind, TaskId, TaskName};
use tokio_util::sync::CancellationToken;

/// A report that stays unsettled for this time, on a connection that lives, is sent again.
const REPEAT_AFTER: Duration = Duration::from_secs(10);
/// Attempts remembered after they were settled, to answer a late revoke.
const REMEMBERED: usize = 512;

/// The task of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeldTask {
    pub(crate) task: TaskId,
    pub(crate) generation: Generation,
    pub(crate) name: TaskName,
}

impl HeldTask {
    /// The task of an attempt that this worker knows only the id of.
    fn unknown() -> Self {
        let task = TaskId { job: Default::default(), step: Default::default(), index: Default::default() };
        let name = TaskName { kind: StepKind::Render, frame: None };
        Self { task, generation: Generation(0), name }
    }
}

#[derive(Debug)]
enum Stage {
    /// Without a slot yet, while files are fetched.
    Streaming,
    Queued(SlotIndex),
    Running(SlotIndex),
    /// On the way to the server: files are checked and uploaded. The token cancels that.
    Delivering(SlotIndex, CancellationToken),
    Finished {
        slot: Option<SlotIndex>,
        report: Box<AttemptReport>,
        sent: Option<Instant>,
    },
}

impl Stage {
    fn slot(&self) -> Option<SlotIndex> {
        match self {
            Self::Streaming => None,
            Self::Queued(slot) | Self::Running(slot) | Self::Delivering(slot, _) => Some(*slot),
            Self::Finished { slot, .. } => *slot,
        }
    }
}

/// The way in which the worker carries out a revoke.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Revocation {
    /// The slot decides.
    InSlot(SlotIndex),
    /// The stream is dropped.
    Stream,
    /// The delivery was cancelled; the attempt counts as returned.
    DeliveryCancelled,
    /// The report exists: send it.
    Report,
}

#[derive(Debug, Default)]
pub(crate) struct HeldAttempts {
    held: BTreeMap<AttemptId, (HeldTask, Stage)>,
    settled: VecDeque<(AttemptId, HeldTask)>,
}

impl HeldAttempts {
    /// Adds an attempt that waits on a slot, or streams without one. Returns false if it is held already.
    pub(crate) fn add(&mut self, attempt: AttemptId, task: HeldTask, slot: Option<SlotIndex>) -> bool {
        if self.held.contains_key(&attempt) {
            return false;
        }
        let stage = slot.map_or(Stage::Streaming, Stage::Queued);
        self.held.insert(attempt, (task, stage));
        true
    }

    pub(crate) fn get(&self, attempt: AttemptId) -> Option<HeldTask> {
        self.held.get(&attempt).map(|(task, _)| *task)
    }

    /// Gives a streaming attempt its slot. Returns false if it does not stream.
    pub(crate) fn place(&mut self, attempt: AttemptId, slot: SlotIndex) -> bool {
        match self.held.get_mut(&attempt) {
            Some((_, stage @ Stage::Streaming)) => {
                *stage = Stage::Queued(slot);
                true
            }
            _ => false,
        }
    }

    pub(crate) fn start(&mut self, attempt: AttemptId) {
        if let Some((_, stage)) = self.held.get_mut(&attempt)
            && let Stage::Queued(slot) = *stage
        {
            *stage = Stage::Running(slot);
        }
    }

    /// Notes that the files of an attempt have left its slot, and returns the token that cancels their delivery.
    pub(crate) fn deliver(&mut self, attempt: AttemptId) -> Option<CancellationToken> {
        let (_, stage) = self.held.get_mut(&attempt)?;
        let (Stage::Queued(slot) | Stage::Running(slot) | Stage::Delivering(slot, _)) = *stage else {
            return None;
        };
        let cancel = CancellationToken::new();
        *stage = Stage::Delivering(slot, cancel.clone());
        Some(cancel)
    }

    /// Records the end of an attempt. Returns false if it had ended before: the first end counts.
    pub(crate) fn finish(&mut self, attempt: AttemptId, report: AttemptReport) -> bool {
        match self.held.get_mut(&attempt) {
            Some((_, Stage::Finished { .. })) | None => false,
            Some((_, stage)) => {
                *stage = Stage::Finished { slot: stage.slot(), report: Box::new(report), sent: None };
                true
            }
        }
    }

    /// `stop`: also if it has begun.
    pub(crate) fn revoke(&mut self, attempt: AttemptId, stop: bool) -> Revocation {
        let Some((_, stage)) = self.held.get_mut(&attempt) else {
            // Every revoke is answered: until then the server holds the slot back. An attempt that is forgotten is
            // reported and settled once more.
            let known = self.settled.iter().rev().find(|(settled, _)| *settled == attempt);
            let task = known.map_or_else(HeldTask::unknown, |(_, task)| *task);
            let report = Box::new(AttemptReport::Returned);
            self.held.insert(attempt, (task, Stage::Finished { slot: None, report, sent: None }));
            return Revocation::Report;
        };
        match stage {
            Stage::Streaming => Revocation::Stream,
            Stage::Delivering(_, cancel) if stop => {
                cancel.cancel();
                Revocation::DeliveryCancelled
            }
            Stage::Queued(slot) | Stage::Running(slot) | Stage::Delivering(slot, _) => {
                Revocation::InSlot(*slot)
            }
            Stage::Finished { sent, .. } => {
                *sent = None;
                Revocation::Report
            }
        }
    }

    pub(crate) fn settle(&mut self, attempt: AttemptId) {
        if let Some((_, Stage::Finished { .. })) = self.held.get(&attempt)
            && let Some((task, _)) = self.held.remove(&attempt)
        {
            if self.settled.len() == REMEMBERED {
                self.settled.pop_front();
            }
            self.settled.push_back((attempt, task));
        }
    }

    /// Forgets that reports were sent: the connection is a new one.
    pub(crate) fn reset_sent(&mut self) {
        for (_, stage) in self.held.values_mut() {
            if let Stage::Finished { sent, .. } = stage {
                *sent = None;
            }
        }
    }

    /// Returns the reports that are due now.
    pub(crate) fn take_due(&mut self, now: Instant) -> Vec<Up> {
        let mut due = Vec::new();
        for (attempt, (held, stage)) in &mut self.held {
            if let Stage::Finished { report, sent, .. } = stage
                && sent.is_none_or(|sent| now.duration_since(sent) >= REPEAT_AFTER)
            {
                *sent = Some(now);
                due.push(Up::Finished {
                    attempt: *attempt,
                    task: held.task,
                    generation: held.generation,
                    report: (**report).clone(),
                });
            }
        }
        due
    }

    /// The attempts that a server is told of when the worker connects.
    pub(crate) fn held(&self) -> Vec<HeldAttempt> {
        let phase = |stage: &Stage| match stage {
            Stage::Streaming | Stage::Finished { slot: None, .. } => HeldPhase::Streaming,
            Stage::Queued(slot) => HeldPhase::Queued { slot: *slot },
            Stage::Running(slot) => HeldPhase::Running { slot: *slot },
            Stage::Delivering(slot, _) | Stage::Finished { slot: Some(slot), .. } => {
                HeldPhase::Finished { slot: *slot }
            }
        };
        let known = self.held.iter().filter(|(_, (held, _))| *held != HeldTask::unknown());
        let held = known.map(|(attempt, (held, stage))| HeldAttempt {
            attempt: *attempt,
            task: held.task,
            generation: held.generation,
            phase: phase(stage),
        });
        held.collect()
    }

    /// The attempts that wait or run on this slot.
    pub(crate) fn on_slot(&self, slot: SlotIndex) -> Vec<AttemptId> {
        let on_slot =
            |stage: &Stage| matches!(stage, Stage::Queued(other) | Stage::Running(other) if *other == slot);
        self.held.iter().filter(|(_, (_, stage))| on_slot(stage)).map(|(attempt, _)| *attempt).collect()
    }

    /// Returns true while a slot has work.
    pub(crate) fn is_busy(&self) -> bool {
        self.held.values().any(|(_, stage)| matches!(stage, Stage::Queued(_) | Stage::Running(_)))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: SlotIndex = SlotIndex(1);

    fn id(counter: u64) -> AttemptId {
        AttemptId { epoch: Default::default(), counter }
    }

    fn task() -> HeldTask {
        let name = TaskName { kind: StepKind::Render, frame: Some(8) };
        HeldTask { task: "1.0.7".parse().unwrap(), generation: Generation(2), name }
    }

    fn table(attempts: u64) -> HeldAttempts {
        let mut table = HeldAttempts::default();
        for counter in 1..=attempts {
            assert!(table.add(id(counter), task(), Some(SLOT)));
        }
        table
    }

    #[test]
    fn a_report_is_repeated_until_it_is_settled() {
        let mut table = table(1);
        assert!(!table.add(id(1), task(), Some(SLOT)), "the same assignment twice is one");
        table.start(id(1));
        assert!(table.is_busy());
        let now = Instant::now();
        assert!(table.take_due(now).is_empty());
        assert!(table.finish(id(1), AttemptReport::Returned));
        assert!(!table.finish(id(1), AttemptReport::Returned));
        assert!(!table.is_busy());
        assert_eq!(table.take_due(now).len(), 1);
        assert!(table.take_due(now).is_empty(), "not at once again");
        assert_eq!(table.take_due(now + REPEAT_AFTER).len(), 1);
        table.reset_sent();
        assert_eq!(table.take_due(now + REPEAT_AFTER).len(), 1, "on a new connection at once");
        table.settle(id(1));
        assert!(table.is_empty() && table.take_due(now + 9 * REPEAT_AFTER).is_empty());
    }

    #[test]
    fn a_server_is_told_the_phase_of_each_attempt() {
        let mut table = table(4);
        table.start(id(2));
        table.deliver(id(3)).unwrap();
        table.finish(id(4), AttemptReport::Returned);
        for counter in [5, 6] {
            table.add(id(counter), task(), None);
        }
        table.finish(id(6), AttemptReport::Returned);
        let phases: Vec<_> = table.held().iter().map(|held| held.phase).collect();
        use HeldPhase::{Finished, Queued, Running, Streaming};
        let slot = SLOT;
        let on_slot = [Queued { slot }, Running { slot }, Finished { slot }, Finished { slot }];
        assert_eq!(phases, [&on_slot[..], &[Streaming, Streaming]].concat(), "the last never had a slot");
        assert_eq!(table.on_slot(SLOT), [id(1), id(2)]);
    }

    #[test]
    fn a_stream_keeps_no_slot_busy_and_is_placed_once() {
        let mut table = HeldAttempts::default();
        table.add(id(1), task(), None);
        assert!(!table.is_busy() && table.on_slot(SLOT).is_empty());
        table.start(id(1));
        assert!(table.deliver(id(1)).is_none(), "it cannot be done before it has a slot");
        assert!(table.place(id(1), SLOT) && table.is_busy());
        assert!(!table.place(id(1), SLOT), "once");
        assert_eq!(table.revoke(id(1), false), Revocation::InSlot(SLOT));
        assert!(!table.place(id(9), SLOT));
    }

    #[test]
    fn every_revoke_has_an_answer() {
        let mut table = table(3);
        let cancel = table.deliver(id(2)).unwrap();
        table.finish(id(3), AttemptReport::Returned);
        table.add(id(4), task(), None);
        let now = Instant::now();
        assert_eq!(table.take_due(now).len(), 1);
        assert_eq!(table.revoke(id(1), true), Revocation::InSlot(SLOT));
        assert_eq!(table.revoke(id(2), false), Revocation::InSlot(SLOT));
        assert!(!cancel.is_cancelled(), "a frame that is done is not preempted");
        assert_eq!(table.revoke(id(2), true), Revocation::DeliveryCancelled);
        assert!(cancel.is_cancelled());
        assert_eq!(table.revoke(id(4), false), Revocation::Stream);
        assert_eq!(table.revoke(id(3), true), Revocation::Report);
        assert_eq!(table.take_due(now).len(), 1);
        table.settle(id(3));
        assert_eq!(table.revoke(id(3), true), Revocation::Report);
        assert_eq!(table.revoke(id(99), true), Revocation::Report);
        let tasks: Vec<_> = table
            .take_due(now)
            .into_iter()
            .map(|up| match up {
                Up::Finished { attempt, task, .. } => (attempt, task.to_string()),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(tasks, [(id(3), "1.0.7".to_owned()), (id(99), "0.0.0".to_owned())]);
        assert!(table.held().iter().all(|held| held.attempt != id(99)));
    }
}
