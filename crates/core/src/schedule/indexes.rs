//! The indexes by which decisions are quick.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use kiln_types::{JobId, SessionKey, WorkerId};

use crate::{
    Assigned, Moment,
    ids::{RequirementId, SlotRef, StepRef},
};

/// The indexes that a turn looks things up in, and what is left of the turns before it.
#[derive(Debug, Default)]
pub(crate) struct Indexes {
    /// Jobs that have not ended.
    pub active: BTreeSet<JobId>,
    /// Jobs that may have ended, and nobody has looked yet.
    pub unsettled: BTreeSet<JobId>,
    /// Requirements of which vacant workers are to be looked at again, because more waits or a limit has room.
    pub fresh: BTreeSet<RequirementId>,
    /// Tasks that were dispatched in this turn and are not sent yet.
    pub dispatched: Vec<Dispatched>,
    /// Slots whose queues ran low, and that the turn did not come to yet.
    pub refill: BTreeSet<SlotRef>,
    /// Workers that changed and that the last turn did not come to.
    pub unserved: VecDeque<WorkerId>,
    /// The last turn left slots or requirements for the next.
    pub is_behind: bool,
    /// Steps that came into a queue since the last turn.
    pub arrived: BTreeSet<StepRef>,
    /// Slots that have the session open and do nothing.
    pub warm: BTreeMap<SessionKey, BTreeSet<SlotRef>>,
    /// Workers that have had the session's files, as long as a job has it.
    pub had: BTreeMap<SessionKey, BTreeSet<WorkerId>>,
    /// The number of steps that may have each session open.
    pub sessions: BTreeMap<SessionKey, u32>,
    /// Steps of which tasks may begin to stream, and nobody has looked yet or no worker had memory.
    pub streamable: BTreeSet<StepRef>,
    /// Steps of which nothing waits and something is out.
    pub ending: BTreeSet<StepRef>,
    /// Jobs that wait for one of these to be completed.
    pub dependents: BTreeMap<JobId, BTreeSet<JobId>>,
    /// Jobs of which one that they waited for is completed.
    pub released: BTreeSet<JobId>,
    /// The times at which jobs that wait for one are due.
    pub starts: BTreeSet<(Moment, JobId)>,
}

/// A task that was dispatched to a slot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dispatched {
    pub of: SlotRef,
    pub assigned: Assigned,
    /// It streamed on the worker before.
    pub is_stream: bool,
}

impl Indexes {
    /// One more step may have it open.
    pub fn hold_session(&mut self, session: SessionKey) {
        *self.sessions.entry(session).or_default() += 1;
    }

    /// One step less may have it open. Where none may, the workers that have had it are forgotten.
    pub fn release_session(&mut self, session: SessionKey) {
        let Some(steps) = self.sessions.get_mut(&session) else { return };
        *steps -= 1;
        if *steps == 0 {
            self.sessions.remove(&session);
            self.had.remove(&session);
        }
    }

    pub fn set_warm(&mut self, session: SessionKey, slot: SlotRef, is_warm: bool) {
        if is_warm {
            self.warm.entry(session).or_default().insert(slot);
        } else if self.warm.get_mut(&session).is_some_and(|slots| slots.remove(&slot) && slots.is_empty()) {
            self.warm.remove(&session);
        }
    }

    pub fn forget_worker(&mut self, id: WorkerId) {
        self.warm.retain(|_, slots| {
            slots.retain(|slot| slot.worker != id);
            !slots.is_empty()
        });
        for workers in self.had.values_mut() {
            workers.remove(&id);
        }
    }
}

/// A farm-wide limit, and how much of it slots hold now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FarmLimit {
    pub total: u32,
    pub used: u32,
}
