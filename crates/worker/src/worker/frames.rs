//! The way of a frame, or of a bake, through the worker: assigned, begun, done, delivered, reported.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use kiln_api::{Assignment, Finish, Up};
use kiln_types::{AttemptId, Failure, SlotIndex, StepKind};

use super::{Input, Worker};
use crate::{
    Happening, What,
    ledger::Entry,
    slot::{Left, Made, Order, Part, Told, Work},
};

impl Worker {
    pub(super) fn assign(&mut self, assignment: Assignment) {
        let Assignment { slot, job, kind, session, frame_time_limit_s, refuse_black, claim, tasks } =
            assignment;
        let key = session.key();
        let session = Arc::new(session);
        let time_limit = frame_time_limit_s.map(|seconds| Duration::from_secs(seconds.into()));
        let claim = claim.unwrap_or_default();
        // Whoever started this worker knows better how many threads it is to have.
        let cores = if self.options.threads.is_some() { 0 } else { claim.cores };
        let part = Part { threads: u16::try_from(cores).unwrap_or(u16::MAX), gpus: claim.gpus };
        let mut works = Vec::new();
        for task in tasks {
            let what = match (kind, task.frame) {
                (StepKind::Bake, _) => What::Bake,
                (StepKind::Render, Some(frame)) => What::Frame(frame),
                (StepKind::Render, None) => {
                    tracing::warn!(task = %task.task, "the server asks for a frame and names none");
                    continue;
                }
            };
            let entry = Entry { task: task.task, generation: task.generation, slot, what };
            if self.ledger.assign(task.attempt, entry) {
                works.push(Work {
                    attempt: task.attempt,
                    task: task.task,
                    what,
                    session: session.clone(),
                    key,
                    time_limit,
                    refuse_black,
                    part: part.clone(),
                });
            }
        }
        if works.is_empty() {
            return;
        }
        let asked = works.iter().map(|work| work.what).collect();
        *self.used.entry(session.blender).or_default() += 1;
        if self.last_series != Some(session.blender) {
            self.last_series = Some(session.blender);
            self.identity.remember_series(session.blender);
        }
        self.happen(Happening::Assigned { job, slot, tasks: asked });
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
                self.happen(Happening::Began { job: work.job(), slot, what: work.what });
                self.send(Up::Started { attempt: work.attempt });
            }
            Told::HandedBack(work) => {
                self.happen(Happening::HandedBack { job: work.job(), slot, what: work.what });
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
            let (job, slot, what) = (entry.task.job, entry.slot, entry.what);
            self.happen(Happening::Failed { job, slot, what, failure: failure.clone() });
        }
        self.end(attempt, Finish::Failed { failure, seconds });
    }

    pub(super) fn made(&mut self, slot: SlotIndex, made: Made) {
        let Made { work, left, seconds, peak, gap } = made;
        let attempt = work.attempt;
        self.happen(Happening::Rendered { job: work.job(), slot, what: work.what, seconds, gap });
        let Some(off) = self.ledger.delivering(attempt) else { return };
        let (outbox, inputs) = (self.shop.outbox.clone(), self.inputs.clone());
        self.tasks.spawn(async move {
            let result = match left {
                Left::Frame(frame) => outbox.deliver(frame, off).await.map(|result| {
                    result.map(|outputs| Finish::Delivered { outputs, seconds, peak_memory: peak })
                }),
                Left::Bake(tree) => outbox
                    .deliver_bake(tree, off)
                    .await
                    .map(|result| result.map(|files| Finish::Baked { files, seconds, peak_memory: peak })),
            };
            let _ = inputs.send(Input::Through { attempt, seconds, result });
        });
    }

    pub(super) fn through(
        &mut self,
        attempt: AttemptId,
        seconds: f64,
        result: Option<Result<Finish, Failure>>,
    ) {
        self.order_all(|| Order::Poke);
        match result {
            Some(Ok(finish)) => {
                if let Some(entry) = self.ledger.entry(attempt) {
                    let (job, slot, what) = (entry.task.job, entry.slot, entry.what);
                    self.happen(Happening::Delivered { job, slot, what });
                }
                self.end(attempt, finish);
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
