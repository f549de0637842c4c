//! The writes of one turn of the scheduler, and the messages that it sends once they are on disk.

use std::collections::HashMap;

use kiln_api::Down;
use kiln_core::{Outbox, Push, Record};
use kiln_store::{TaskProduct, Write};
use kiln_types::{AttemptId, JobId, SlotIndex, WorkerId};

use super::{
    input::{Look, Reply},
    refusal::Refusal,
};
use crate::holds::Hold;

#[derive(Default)]
pub(super) struct Batch {
    pub outbox: CoreOutbox,
    pub writes: Vec<Write>,
    /// In the order in which they are to be answered.
    pub replies: Vec<Look>,
    pub reports: HashMap<AttemptId, PendingReport>,
    /// Of the attempts that a worker says it holds.
    pub held_slots: HashMap<AttemptId, SlotIndex>,
    /// Jobs whose logs go.
    pub deleted: Vec<JobId>,
    /// Of what this turn writes.
    pub holds: Vec<Hold>,
}

/// The part of a worker's report that the core does not need to know.
pub(super) struct PendingReport {
    pub worker: WorkerId,
    /// `None` if it failed.
    pub product: Option<TaskProduct>,
    pub seconds: f64,
    /// Bytes.
    pub peak_memory: u64,
}

/// Collects what the core decides, in order.
#[derive(Default)]
pub(super) struct CoreOutbox {
    pub records: Vec<Record>,
    pub sends: Vec<(WorkerId, Send)>,
    /// All records ever, for tests that judge what became of them.
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
    /// Answers when everything so far is on disk.
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
