//! The indexes that make decisions quick.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use kiln_types::{JobId, SessionKey, WorkerId};

use crate::{
    Assigned, Moment,
    ids::{RequirementId, SlotRef, StepRef},
};

/// The indexes of a turn, and the work that earlier turns have left.
#[derive(Debug, Default)]
pub(crate) struct Indexes {
    /// Jobs that have not ended.
    pub active: BTreeSet<JobId>,
    /// Jobs that may have ended and were not settled yet.
    pub unsettled: BTreeSet<JobId>,
    /// Requirements to be served, because more tasks wait, or a limit has room.
    pub fresh: BTreeSet<RequirementId>,
    /// Tasks that were dispatched in this turn and not sent yet.
    pub dispatched: Vec<Dispatched>,
    /// Slots whose queues may be short.
    pub refill: BTreeSet<SlotRef>,
    /// Workers that changed and were not served yet.
    pub unserved: VecDeque<WorkerId>,
    /// The last turn left slots, workers or requirements for the next one.
    pub is_behind: bool,
    /// Steps that came into a queue since the last turn.
    pub arrived: BTreeSet<StepRef>,
    /// The vacant slots that have the session open.
    pub warm: BTreeMap<SessionKey, BTreeSet<SlotRef>>,
    /// The workers that have had the session's files, as long as a job has the session.
    pub had: BTreeMap<SessionKey, BTreeSet<WorkerId>>,
    /// The number of steps that may have each session open.
    pub sessions: BTreeMap<SessionKey, u32>,
    /// Steps with tasks that may begin to stream.
    pub streamable: BTreeSet<StepRef>,
    /// Steps with live tasks and no waiting ones.
    pub ending: BTreeSet<StepRef>,
    /// The jobs that wait for the completion of a job.
    pub dependents: BTreeMap<JobId, BTreeSet<JobId>>,
    /// Jobs that waited for one that is completed.
    pub released: BTreeSet<JobId>,
    /// The times at which jobs that wait for one are due.
    pub starts: BTreeSet<(Moment, JobId)>,
}

/// A task that was dispatched to a slot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dispatched {
    pub of: SlotRef,
    pub assigned: Assigned,
    /// The attempt streamed on the worker before.
    pub is_stream: bool,
}

impl Indexes {
    /// Counts one more step that may have the session open.
    pub fn hold_session(&mut self, session: SessionKey) {
        *self.sessions.entry(session).or_default() += 1;
    }

    /// Counts one step less that may have the session open, and forgets the session with the last one.
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

/// A farm-wide limit, and the number that slots hold now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FarmLimit {
    pub total: u32,
    pub used: u32,
}
