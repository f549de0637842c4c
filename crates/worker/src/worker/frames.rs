//! The way of a task through the worker: assigned, begun, done, delivered, reported.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use kiln_api::{AssignedTask, Assignment, AttemptReport, Up};
use kiln_types::{AttemptId, Failure, SlotIndex};

use super::{Input, Worker};
use crate::{
    Happening, TaskKind,
    ledger::Entry,
    slot::{Made, Order, Part, Told, Work},
};

impl Worker {
    pub(super) fn assign(&mut self, assignment: Assignment) {
        let Assignment { slot, job, work: common, claim, tasks } = assignment;
        let Some(session) = common.session else {
            tracing::warn!(%job, step = %common.kind, "tasks without a session are not known here");
            return self.refuse(&tasks);
        };
        let key = session.key();
        let session = Arc::new(session);
        let time_limit = common.time_limit_s.map(|seconds| Duration::from_secs(seconds.into()));
        // Whoever started this worker knows better how many threads it is to have.
        let cores = if self.options.threads.is_some() { 0 } else { claim.cores };
        let part = Part { threads: u16::try_from(cores).unwrap_or(u16::MAX), gpus: claim.gpus };
        let mut works = Vec::new();
        for task in tasks {
            let Some(kind) = TaskKind::new(common.kind, task.frame) else {
                tracing::warn!(task = %task.task, "the server asks for a frame and names none");
                continue;
            };
            let entry = Entry { task: task.task, generation: task.generation, slot, kind };
            if self.ledger.assign(task.attempt, entry) {
                works.push(Work {
                    attempt: task.attempt,
                    task: task.task,
                    kind,
                    session: session.clone(),
                    key,
                    time_limit,
                    refuse_black: common.refuse_black,
                    part: part.clone(),
                });
            }
        }
        if works.is_empty() {
            return;
        }
        let asked = works.iter().map(|work| work.kind).collect();
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
                self.ledger.finish(work.attempt, AttemptReport::Returned);
            }
            self.report();
        }
    }

    /// Returns tasks that this worker does not take.
    pub(super) fn refuse(&mut self, tasks: &[AssignedTask]) {
        for AssignedTask { attempt, task, generation, .. } in tasks.iter().cloned() {
            self.send(Up::Finished { attempt, task, generation, report: AttemptReport::Returned });
        }
    }

    pub(super) fn told(&mut self, slot: SlotIndex, told: Told) {
        match told {
            Told::Began(work) => {
                self.ledger.began(work.attempt);
                self.happen(Happening::Began { job: work.job(), slot, task: work.kind });
                self.send(Up::Started { attempt: work.attempt });
            }
            Told::HandedBack(work) => {
                self.happen(Happening::HandedBack { job: work.job(), slot, task: work.kind });
                self.end(work.attempt, AttemptReport::Returned);
            }
            Told::Failed { work, failure, seconds } => {
                self.failed(work.attempt, failure, seconds);
            }
            Told::Closed => {
                self.closed_slots.insert(slot);
                // By now it holds nothing; if it does, by a fault, the farm must not wait for it.
                for attempt in self.ledger.of_slot(slot) {
                    self.end(attempt, AttemptReport::Returned);
                }
            }
        }
    }

    pub(super) fn failed(&mut self, attempt: AttemptId, failure: Failure, seconds: f64) {
        if let Some(entry) = self.ledger.entry(attempt) {
            let (job, slot, task) = (entry.task.job, entry.slot, entry.kind);
            self.happen(Happening::Failed { job, slot, task, failure: failure.clone() });
        }
        self.end(attempt, AttemptReport::Failed { failure, seconds });
    }

    pub(super) fn made(&mut self, slot: SlotIndex, made: Made) {
        let Made { work, left, seconds, peak, gap } = made;
        let attempt = work.attempt;
        self.happen(Happening::Rendered { job: work.job(), slot, task: work.kind, seconds, gap });
        let Some(off) = self.ledger.delivering(attempt) else { return };
        let (outbox, inputs) = (self.shop.outbox.clone(), self.inputs.clone());
        self.tasks.spawn(async move {
            let done = |files| AttemptReport::Done { files, seconds, peak_memory: peak };
            let result = outbox.deliver(left, off).await.map(|result| result.map(done));
            let _ = inputs.send(Input::Through { attempt, seconds, result });
        });
    }

    pub(super) fn through(
        &mut self,
        attempt: AttemptId,
        seconds: f64,
        result: Option<Result<AttemptReport, Failure>>,
    ) {
        self.order_all(|| Order::Poke);
        match result {
            Some(Ok(finish)) => {
                if let Some(entry) = self.ledger.entry(attempt) {
                    let (job, slot, task) = (entry.task.job, entry.slot, entry.kind);
                    self.happen(Happening::Delivered { job, slot, task });
                }
                self.end(attempt, finish);
            }
            Some(Err(failure)) => self.failed(attempt, failure, seconds),
            None => self.end(attempt, AttemptReport::Returned),
        }
    }

    pub(super) fn end(&mut self, attempt: AttemptId, finish: AttemptReport) {
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
