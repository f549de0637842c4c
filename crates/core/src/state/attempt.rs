//! Attempts and their phases.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    ops::Deref,
};

use kiln_types::{AttemptId, Epoch, Generation, SlotIndex, TaskId, WorkerId};

use crate::{
    HeldPhase, Moment,
    ids::{SlotRef, StepRef},
};

/// One attempt of a worker at a task.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub task: TaskId,
    pub worker: WorkerId,
    pub generation: Generation,
    pub phase: AttemptPhase,
    /// Milliseconds that the fair-share account was charged at the dispatch.
    pub charged_ms: u32,
    /// The slot had to open the scene first, so that little is learned from the time.
    pub cold: bool,
    /// Milliseconds that the frame takes with its scene open, as predicted by its progress.
    pub frame_ms: Option<NonZeroU32>,
    /// The first progress that Blender reported.
    pub progress: Option<ProgressSample>,
}

impl Attempt {
    /// An attempt that has yet to open the scene.
    pub fn new(task: TaskId, worker: WorkerId, generation: Generation, phase: AttemptPhase) -> Self {
        Self { task, worker, generation, phase, charged_ms: 0, cold: true, frame_ms: None, progress: None }
    }

    /// The slot that the attempt is or was on; `None` if it streams.
    pub fn place(&self) -> Option<SlotRef> {
        self.phase.slot().map(|slot| SlotRef { worker: self.worker, slot })
    }

    pub fn step(&self) -> StepRef {
        self.task.into()
    }
}

/// The progress of a frame at a time, as Blender reports it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProgressSample {
    /// Milliseconds since the frame began with the scene open.
    pub after: NonZeroU32,
    /// The part that is done; above 0 and below 1.
    pub part: f32,
}

/// A million of these may be in flight on a large farm.
const _: () = assert!(size_of::<Attempt>() <= 64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AttemptPhase {
    /// On its worker and on no slot, until all that the task depends on is done. Claims this memory; bytes.
    Streaming { memory: u64 },
    /// In its slot's queue. `preempted`: the worker was asked to return the attempt and has not answered yet.
    Assigned { slot: SlotIndex, preempted: bool },
    /// At the front of its slot's queue.
    Running { slot: SlotIndex, since: Moment },
    /// Out of Blender, with its report to come. The slot is free for the next attempt.
    Delivering { slot: SlotIndex },
    /// Closed with its worker's lease. A delivery still counts while the generation is open. `counted`: as a loss against
    /// the task.
    Expired { counted: bool, was: HeldPhase },
}

impl AttemptPhase {
    /// The phase of an attempt that its worker holds in this one. `memory`: of one that streams.
    pub fn resumed(held: HeldPhase, now: Moment, memory: u64) -> Self {
        match held {
            HeldPhase::Queued { slot } => Self::queued(slot),
            HeldPhase::Running { slot } => Self::Running { slot, since: now },
            HeldPhase::Finished { slot } => Self::Delivering { slot },
            HeldPhase::Streaming => Self::Streaming { memory },
        }
    }

    pub fn queued(slot: SlotIndex) -> Self {
        Self::Assigned { slot, preempted: false }
    }

    /// The same phase on this slot.
    pub fn on(mut self, on: SlotIndex) -> Self {
        match &mut self {
            Self::Assigned { slot, .. } | Self::Running { slot, .. } | Self::Delivering { slot } => {
                *slot = on
            }
            Self::Streaming { .. } | Self::Expired { .. } => {}
        }
        self
    }

    /// Returns whether the attempt waits in a queue and was not preempted.
    pub fn is_queued(self) -> bool {
        matches!(self, Self::Assigned { preempted: false, .. })
    }

    /// The slot that the attempt is or was on; `None` if it streams.
    pub fn slot(self) -> Option<SlotIndex> {
        self.held().slot()
    }

    pub fn is_live(self) -> bool {
        !matches!(self, Self::Expired { .. })
    }

    pub fn is_streaming(self) -> bool {
        matches!(self, Self::Streaming { .. })
    }

    pub fn is_running(self) -> bool {
        matches!(self, Self::Running { .. })
    }

    pub fn has_begun(self) -> bool {
        matches!(self, Self::Running { .. } | Self::Delivering { .. })
    }

    /// The phase in which its worker has it.
    pub fn held(self) -> HeldPhase {
        match self {
            Self::Streaming { .. } => HeldPhase::Streaming,
            Self::Assigned { slot, .. } => HeldPhase::Queued { slot },
            Self::Running { slot, .. } => HeldPhase::Running { slot },
            Self::Delivering { slot } => HeldPhase::Finished { slot },
            Self::Expired { was, .. } => was,
        }
    }
}

/// The attempts by id. Expired ones are also indexed by worker, so that a join does not look at every attempt of the farm.
#[derive(Debug, Default)]
pub(crate) struct AttemptTable {
    all: BTreeMap<AttemptId, Attempt>,
    expired: BTreeSet<(WorkerId, AttemptId)>,
}

impl Deref for AttemptTable {
    type Target = BTreeMap<AttemptId, Attempt>;

    fn deref(&self) -> &Self::Target {
        &self.all
    }
}

impl AttemptTable {
    /// The attempt to change. An expired one becomes live only by [`AttemptTable::resume`].
    pub fn get_mut(&mut self, id: AttemptId) -> Option<&mut Attempt> {
        self.all.get_mut(&id)
    }

    pub fn insert(&mut self, id: AttemptId, attempt: Attempt) {
        let (worker, is_live) = (attempt.worker, attempt.phase.is_live());
        if let Some(old) = self.all.insert(id, attempt).filter(|old| !old.phase.is_live()) {
            self.expired.remove(&(old.worker, id));
        }
        if !is_live {
            self.expired.insert((worker, id));
        }
    }

    pub fn remove(&mut self, id: AttemptId) -> Option<Attempt> {
        let attempt = self.all.remove(&id)?;
        if !attempt.phase.is_live() {
            self.expired.remove(&(attempt.worker, id));
        }
        Some(attempt)
    }

    pub fn remove_all(&mut self, ids: impl IntoIterator<Item = AttemptId>) {
        for id in ids {
            self.remove(id);
        }
    }

    /// Makes an expired attempt live again, in this phase.
    pub fn resume(&mut self, id: AttemptId, phase: AttemptPhase) {
        let Some(attempt) = self.all.get_mut(&id) else { return };
        attempt.phase = phase;
        self.expired.remove(&(attempt.worker, id));
    }

    /// The expired attempts of the worker, in their order.
    pub fn expired_of(&self, worker: WorkerId) -> impl Iterator<Item = (AttemptId, &Attempt)> {
        let first = AttemptId { epoch: Epoch(0), counter: 0 };
        let ids = self.expired.range((worker, first)..).take_while(move |(of, _)| *of == worker);
        ids.filter_map(|(_, id)| Some((*id, self.all.get(id)?)))
    }

    /// Panics if the index of expired attempts is wrong. For tests.
    pub fn check(&self) {
        let expired = self.all.iter().filter(|(_, attempt)| !attempt.phase.is_live());
        let expired: BTreeSet<_> = expired.map(|(id, attempt)| (attempt.worker, *id)).collect();
        assert_eq!(self.expired, expired, "the expired attempts by worker are wrong");
    }
}
