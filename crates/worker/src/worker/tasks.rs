//! The way of a task through the worker: assigned, started, done, delivered, reported.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use kiln_api::{AssignedTask, Assignment, AttemptReport, SlotClaim, StepWork, Up};
use kiln_types::{
    AttemptId, DependencyScope, Failure, FailureCause, SessionKey, SessionSpec, SlotIndex, StepKind, TaskName,
};

use super::actor::{Delivery, WorkerActor, WorkerInput};
use crate::{
    attempts::HeldTask,
    direct::{self, DirectTask},
    event::WorkerEvent,
    inputs::{InputStep, SharedInputs, TaskInputs},
    process::MachineShare,
    slot::{BlenderAction, BlenderTask, FinishedTask, SlotCommand, SlotNotice, SlotTask},
    task::TaskHead,
};

impl WorkerActor {
    pub(super) fn assign(&mut self, assignment: Assignment) {
        let Assignment { slot, job, work, claim, mut tasks } = assignment;
        tasks.retain(|task| self.hold(&work, task, Some(slot)));
        if tasks.is_empty() {
            return;
        }
        let names = tasks.iter().map(|task| name_of(&work, task)).collect();
        self.emit(WorkerEvent::Assigned { job, slot, tasks: names });
        if usize::from(slot.0) >= self.slots.len() || self.leaving.is_some() {
            tasks.iter().for_each(|task| self.end(task.attempt, AttemptReport::Returned));
            return;
        }
        let session = work.session.clone().map(|session| (session.key(), Arc::new(session)));
        if let Some((_, session)) = &session {
            *self.used.entry(session.blender).or_default() += 1;
            if self.last_series != Some(session.blender) {
                self.last_series = Some(session.blender);
                self.folder.remember_series(session.blender);
            }
        }
        let mut queued = Vec::new();
        for task in tasks {
            match self.slot_task(&work, session.as_ref(), &claim, &task) {
                Ok(task) => queued.push(task),
                Err(failure) => self.failed(task.attempt, failure, 0.0),
            }
        }
        self.command(slot, SlotCommand::Enqueue(queued));
    }

    /// Adds an attempt to those that the worker holds. Returns false if it is there already.
    pub(super) fn hold(&mut self, work: &StepWork, task: &AssignedTask, slot: Option<SlotIndex>) -> bool {
        let AssignedTask { attempt, task: id, generation, .. } = *task;
        self.attempts.add(attempt, HeldTask { task: id, generation, name: name_of(work, task) }, slot)
    }

    fn slot_task(
        &self,
        work: &StepWork,
        session: Option<&(SessionKey, Arc<SessionSpec>)>,
        claim: &SlotClaim,
        task: &AssignedTask,
    ) -> Result<SlotTask, Failure> {
        let Some((key, session)) = session else {
            let inputs = SharedInputs::new(self.inputs_of(work, task));
            return self.direct_task(work, task, claim.memory, inputs).map(SlotTask::Direct);
        };
        let action = match (work.kind, task.frame) {
            (StepKind::Bake, _) => BlenderAction::Bake,
            (StepKind::Render, Some(frame)) => BlenderAction::Render(frame),
            _ => return Err(unknown_work(work, task)),
        };
        // A number of threads that this worker was started with comes before the job's.
        let cores = if self.options.threads.is_some() { 0 } else { claim.cores };
        Ok(SlotTask::Blender(BlenderTask {
            head: head_of(work, task),
            action,
            session: session.clone(),
            key: *key,
            refuse_black: work.refuse_black,
            share: MachineShare {
                threads: u16::try_from(cores).unwrap_or(u16::MAX),
                gpus: claim.gpus.clone(),
            },
        }))
    }

    pub(super) fn direct_task(
        &self,
        work: &StepWork,
        task: &AssignedTask,
        memory: u64,
        inputs: SharedInputs,
    ) -> Result<DirectTask, Failure> {
        let run = direct::work_of(work, task).ok_or_else(|| unknown_work(work, task))?;
        Ok(DirectTask { head: head_of(work, task), memory, inputs, work: run })
    }

    pub(super) fn inputs_of(&self, work: &StepWork, task: &AssignedTask) -> TaskInputs {
        let steps = work.inputs.iter().map(|dependency| {
            let frame = task.frame.filter(|_| dependency.scope == DependencyScope::Frame);
            InputStep::new(task.task.job, dependency.step, frame)
        });
        self.fetcher.inputs(&task.attempt.to_string(), steps.collect())
    }

    pub(super) fn notice(&mut self, slot: SlotIndex, notice: SlotNotice) {
        match notice {
            SlotNotice::Started(task) => {
                self.attempts.start(task.attempt);
                self.emit(WorkerEvent::Started { job: task.job(), slot, task: task.name });
                self.send(Up::Started { attempt: task.attempt });
            }
            SlotNotice::Returned(task) => {
                self.emit(WorkerEvent::Returned { job: task.job(), task: task.name });
                self.end(task.attempt, AttemptReport::Returned);
            }
            SlotNotice::Failed { task, failure, seconds } => self.failed(task.attempt, failure, seconds),
            SlotNotice::Closed => {
                self.closed_slots.insert(slot);
                // By now it holds nothing; if it does, by a fault, the farm must not wait for it.
                for attempt in self.attempts.on_slot(slot) {
                    self.end(attempt, AttemptReport::Returned);
                }
            }
        }
    }

    pub(super) fn failed(&mut self, attempt: AttemptId, failure: Failure, seconds: f64) {
        if let Some(HeldTask { task, name, .. }) = self.attempts.get(attempt) {
            self.emit(WorkerEvent::Failed { job: task.job, task: name, failure: failure.clone() });
        }
        self.end(attempt, AttemptReport::Failed { failure, seconds });
    }

    pub(super) fn finished(&mut self, slot: SlotIndex, finished: FinishedTask) {
        let FinishedTask { task, output, seconds, peak: peak_memory, gap } = finished;
        let attempt = task.attempt;
        self.emit(WorkerEvent::Rendered { job: task.job(), slot, task: task.name, seconds, gap });
        let Some(cancel) = self.attempts.deliver(attempt) else { return };
        let (uploads, inputs) = (self.context.uploads.clone(), self.inputs.clone());
        self.tasks.spawn(async move {
            let result = uploads.deliver(output, cancel).await;
            let delivery = Delivery { attempt, seconds, peak_memory, result };
            let _ = inputs.send(WorkerInput::Delivered(Box::new(delivery)));
        });
    }

    pub(super) fn delivered(&mut self, delivery: Delivery) {
        let Delivery { attempt, seconds, peak_memory, result } = delivery;
        self.command_all(|| SlotCommand::Poke);
        match result {
            Some(Ok(files)) => {
                if let Some(HeldTask { task, name, .. }) = self.attempts.get(attempt) {
                    self.emit(WorkerEvent::Delivered { job: task.job, task: name });
                }
                self.end(attempt, AttemptReport::Done { files, seconds, peak_memory });
            }
            Some(Err(failure)) => self.failed(attempt, failure, seconds),
            None => self.end(attempt, AttemptReport::Returned),
        }
    }

    pub(super) fn end(&mut self, attempt: AttemptId, report: AttemptReport) {
        if self.attempts.finish(attempt, report) {
            self.send_reports();
        }
    }

    /// Sends every report that is due.
    pub(super) fn send_reports(&mut self) {
        if self.up.is_some() {
            for up in self.attempts.take_due(Instant::now()) {
                self.send(up);
            }
        }
    }
}

fn name_of(work: &StepWork, task: &AssignedTask) -> TaskName {
    TaskName { kind: work.kind, frame: task.frame }
}

fn head_of(work: &StepWork, task: &AssignedTask) -> TaskHead {
    TaskHead {
        attempt: task.attempt,
        task: task.task,
        name: name_of(work, task),
        time_limit: work.time_limit_s.map(|seconds| Duration::from_secs(seconds.into())),
    }
}

fn unknown_work(work: &StepWork, task: &AssignedTask) -> Failure {
    let message = format!("this worker cannot do {}", name_of(work, task));
    Failure::new(FailureCause::Other, message)
}
