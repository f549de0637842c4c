//! The way of a frame through the worker: assigned, begun, rendered, delivered, reported.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use kiln_api::{Assignment, Finish, Up};
use kiln_types::{AttemptId, Failure, OutputSet, SlotIndex};

use super::{Input, Worker};
use crate::{
    Happening,
    ledger::Entry,
    slot::{Made, Order, Told, Work},
};

impl Worker {
    pub(super) fn assign(&mut self, assignment: Assignment) {
        let Assignment { slot, session, frame_time_limit_s, tasks, .. } = assignment;
        let key = session.key();
        let session = Arc::new(session);
        let time_limit = frame_time_limit_s.map(|seconds| Duration::from_secs(seconds.into()));
        let mut works = Vec::new();
        for task in tasks {
            let entry = Entry {
                task: task.task,
                generation: task.generation,
                slot,
                frame: task.frame.unwrap_or_default(),
            };
            if self.ledger.assign(task.attempt, entry) {
                works.push(Work {
                    attempt: task.attempt,
                    task: task.task,
                    frame: task.frame.unwrap_or_default(),
                    session: session.clone(),
                    key,
                    time_limit,
                });
            }
        }
        let Some(first) = works.first() else { return };
        let (job, frames) = (first.job(), works.iter().map(|work| work.frame).collect());
        *self.used.entry(session.blender).or_default() += 1;
        if self.last_series != Some(session.blender) {
            self.last_series = Some(session.blender);
            self.identity.remember_series(session.blender);
        }
        self.happen(Happening::Assigned { job, slot, frames });
        if usize::from(slot.0) < self.slots.len() && self.leaving.is_none() {
            self.order(slot, Order::Enqueue(works));
        } else {
            // No such slot, or none any more.
            for work in works {
                self.ledger.finish(work.attempt, Finish::HandedBack);
            }
            self.report();
        }
    }

    pub(super) fn told(&mut self, slot: SlotIndex, told: Told) {
        match told {
            Told::Began(work) => {
                self.ledger.began(work.attempt);
                self.happen(Happening::Began { job: work.job(), slot, frame: work.frame });
                self.send(Up::Started { attempt: work.attempt });
            }
            Told::HandedBack(work) => {
                self.happen(Happening::HandedBack { job: work.job(), slot, frame: work.frame });
                self.end(work.attempt, Finish::HandedBack);
            }
            Told::Failed { work, failure, seconds } => {
                self.failed(work.attempt, failure, seconds);
            }
            Told::Closed => {
                self.closed_slots.insert(slot);
                // By now it holds nothing; if it does, by a fault, the farm must not wait for it.
                for attempt in self.ledger.of_slot(slot) {
                    self.end(attempt, Finish::HandedBack);
                }
            }
        }
    }

    pub(super) fn failed(&mut self, attempt: AttemptId, failure: Failure, seconds: f64) {
        if let Some(entry) = self.ledger.entry(attempt) {
            let (job, slot, frame) = (entry.task.job, entry.slot, entry.frame);
            self.happen(Happening::Failed { job, slot, frame, failure: failure.clone() });
        }
        self.end(attempt, Finish::Failed { failure, seconds });
    }

    pub(super) fn made(&mut self, slot: SlotIndex, made: Made) {
        let Made { work, frame, seconds, peak, gap } = made;
        let attempt = work.attempt;
        self.happen(Happening::Rendered { job: work.job(), slot, frame: work.frame, seconds, gap });
        let Some(off) = self.ledger.delivering(attempt) else { return };
        let (outbox, inputs) = (self.shop.outbox.clone(), self.inputs.clone());
        self.tasks.spawn(async move {
            let result = outbox.deliver(frame, off).await;
            let _ = inputs.send(Input::Through { attempt, seconds, peak, result });
        });
    }

    pub(super) fn through(
        &mut self,
        attempt: AttemptId,
        seconds: f64,
        peak: u64,
        result: Option<Result<OutputSet, Failure>>,
    ) {
        self.order_all(|| Order::Poke);
        match result {
            Some(Ok(outputs)) => {
                if let Some(entry) = self.ledger.entry(attempt) {
                    let (job, slot, frame) = (entry.task.job, entry.slot, entry.frame);
                    self.happen(Happening::Delivered { job, slot, frame });
                }
                self.end(attempt, Finish::Delivered { outputs, seconds, peak_memory: peak });
            }
            Some(Err(failure)) => self.failed(attempt, failure, seconds),
            None => self.end(attempt, Finish::HandedBack),
        }
    }

    pub(super) fn end(&mut self, attempt: AttemptId, finish: Finish) {
        if self.ledger.finish(attempt, finish) {
            self.report();
        }
    }

    /// Sends every report that is due.
    pub(super) fn report(&mut self) {
        if self.up.is_some() {
            for up in self.ledger.due(Instant::now()) {
                self.send(up);
            }
        }
    }
}
