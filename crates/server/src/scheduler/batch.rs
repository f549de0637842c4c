//! The writes of one turn of the scheduler, and the messages that it sends once they are on disk.

use std::collections::HashMap;

use kiln_api::Down;
use kiln_core::{Outbox, Push, Record};
use kiln_store::{TaskProduct, Write};
use kiln_types::{AttemptId, JobId, SlotIndex, WorkerId};

use super::{
    input::{Reply, StateReader},
    refusal::Refusal,
};
use crate::holds::Hold;

#[derive(Default)]
pub(super) struct Batch {
    pub outbox: CoreOutbox,
    pub writes: Vec<Write>,
    /// Answers and reads, in their order.
    pub replies: Vec<StateReader>,
    pub reports: HashMap<AttemptId, PendingReport>,
    /// The slots of the attempts that a worker reports to hold.
    pub held_slots: HashMap<AttemptId, SlotIndex>,
    /// Jobs whose logs are removed.
    pub deleted: Vec<JobId>,
    /// The holds of the requests that this turn records.
    pub holds: Vec<Hold>,
}

/// The part of a worker's report that the core does not need.
pub(super) struct PendingReport {
    pub worker: WorkerId,
    /// `None` if it failed.
    pub product: Option<TaskProduct>,
    pub seconds: f64,
    /// Bytes.
    pub peak_memory: u64,
}

/// Collects the decisions of the core, in order.
#[derive(Default)]
pub(super) struct CoreOutbox {
    pub records: Vec<Record>,
    pub sends: Vec<(WorkerId, Send)>,
    /// All records so far, which tests compare with the store.
    #[cfg(test)]
    pub seen: Vec<Record>,
}

pub(super) enum Send {
    Push(Push),
    Down(Down),
}

impl Outbox for CoreOutbox {
    fn push(&mut self, to: WorkerId, push: Push) {
        self.sends.push((to, Send::Push(push)));
    }
    fn record(&mut self, record: Record) {
        #[cfg(test)]
        self.seen.push(record.clone());
        self.records.push(record);
    }
}

impl CoreOutbox {
    pub(super) fn send(&mut self, to: WorkerId, down: Down) {
        self.sends.push((to, Send::Down(down)));
    }
}

impl Batch {
    /// Answers a request once everything so far is on disk.
    pub(super) fn answer<T: std::marker::Send + 'static>(
        &mut self,
        reply: Reply<T>,
        answer: Result<T, Refusal>,
    ) {
        self.replies.push(Box::new(move |_| {
            // The request may be gone.
            let _ = reply.send(answer);
        }));
    }
}
