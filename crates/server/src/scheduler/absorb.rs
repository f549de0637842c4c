//! The records of the core, as writes and events.

use std::sync::Arc;

use kiln_api::Change;
use kiln_core::{Label, Record, StepState};
use kiln_store::{NewStep, TaskProduct, Write};
use kiln_types::{
    AttemptId, AttemptState, DeviceClass, Generation, JobId, JobSpec, SlotIndex, StepIndex, TaskId,
    TaskIndex, WorkerId, WorkerState,
};

use super::{
    actor::Scheduler,
    plan::backend_of,
    roster::{LiveAttempt, Started},
};
use crate::{clock::unix_ms, events::new_event};

/// Events for single tasks that one decision makes at most. A client that follows a job with more tasks reads its counts
/// again when the state of the job changes.
const MAX_TASK_EVENTS: usize = 1000;

impl Scheduler {
    /// Turns the records of the core into writes of the store. Called after each input, so that writes keep the order of the
    /// decisions.
    pub(super) fn absorb(&mut self) {
        if self.batch.outbox.records.is_empty() {
            return;
        }
        let at_ms = unix_ms();
        let mut records = std::mem::take(&mut self.batch.outbox.records);
        for record in records.drain(..) {
            self.absorb_one(record, at_ms);
        }
        self.batch.outbox.records = records;
    }

    fn absorb_one(&mut self, record: Record, at_ms: i64) {
        match record {
            Record::JobState { job, state, reason } => {
                let now = self.farm.clock.now();
                if let Some(live) = self.farm.jobs.get_mut(&job) {
                    live.ended = state.is_end().then_some(now);
                    live.ended_ms = state.is_end().then_some(at_ms);
                }
                let text = reason.as_ref().map(ToString::to_string);
                tracing::info!(%job, %state, reason = text, "job state changed");
                self.write(Write::SetJobState { job, state, at_ms, reason: reason.clone() });
                self.event(at_ms, Some(job), None, &Change::JobState { state, reason });
            }
            Record::StepState { job, step, state } => {
                let ended = matches!(state, StepState::Completed | StepState::Failed);
                self.write(Write::SetStepEnd { job, step, ended_ms: ended.then_some(at_ms) });
            }
            Record::AttemptOpened { attempt, task, generation, worker, slot } => {
                self.open_attempt(attempt, task, generation, (worker, Some(slot)), at_ms);
            }
            Record::StreamOpened { attempt, task, generation, worker } => {
                self.open_attempt(attempt, task, generation, (worker, None), at_ms);
            }
            Record::StreamPlaced { attempt, slot, .. } => {
                if let Some(live) = self.farm.attempts.get_mut(attempt) {
                    live.slot = Some(slot);
                }
                self.write(Write::PlaceAttempt { attempt, slot });
            }
            Record::AttemptStarted { attempt, task } => {
                let started = Started { moment: self.farm.clock.now(), at_ms };
                let worker = self.farm.attempts.start(attempt, started).map(|live| live.worker);
                self.write(Write::StartAttempt { attempt, at_ms });
                let name = self.farm.name_of_task(task);
                let TaskId { job, step, index } = task;
                let change = Change::TaskStarted { step, index, name, attempt };
                self.event(at_ms, Some(job), worker, &change);
            }
            Record::AttemptClosed { attempt, task, state, failure } => {
                let worker = self.farm.attempts.remove(attempt).map(|live| live.worker);
                // The commit of the task writes the attempt, too.
                if state == AttemptState::Committed {
                    return;
                }
                let seconds = self.batch.reports.get(&attempt).map(|report| report.seconds);
                self.write(Write::CloseAttempt { attempt, state, at_ms, failure: failure.clone(), seconds });
                let name = self.farm.name_of_task(task);
                let TaskId { job, step, index } = task;
                let change = Change::AttemptEnded { step, index, name, attempt, state, failure };
                self.event(at_ms, Some(job), worker, &change);
            }
            Record::AttemptForgiven { attempt, .. } => self.write(Write::ExcuseAttempt { attempt }),
            Record::MemoryExceeded { attempt, bytes, .. } => {
                self.write(Write::OutgrewMemory { attempt, bytes });
            }
            Record::AttemptResumed { attempt, task, state } => {
                self.resume_attempt(attempt, task, state, at_ms);
            }
            Record::TaskCommitted { task, generation, attempt } => {
                self.commit_task(task, generation, attempt, at_ms);
            }
            Record::TaskFailed { task, generation, reason } => {
                let name = self.farm.name_of_task(task);
                let TaskId { job, step, index } = task;
                let change = Change::TaskFailed { step, index, name, reason: reason.message.clone() };
                self.write(Write::FailTask { task, generation, reason });
                self.event(at_ms, Some(job), None, &change);
            }
            Record::TasksReset { job, step, tasks, generation } => {
                let (first, last) = (tasks.first, tasks.last);
                self.write(Write::ReopenTasks { job, step, first, last, generation });
                if let Some(live) = self.farm.jobs.get_mut(&job)
                    && let Some(without_files) = live.without_files.get_mut(&step)
                {
                    without_files.remove_span(tasks);
                }
                for index in tasks.iter().take(MAX_TASK_EVENTS) {
                    let name = self.farm.name_of_task(TaskId { job, step, index });
                    let change = Change::TaskReopened { step, index, name, generation };
                    self.event(at_ms, Some(job), None, &change);
                }
            }
            Record::CancelledTasks { job, step, tasks } => {
                let spans = tasks.spans().map(|span| (span.first, span.last)).collect();
                self.write(Write::SetCancelledTasks { job, step, spans });
            }
            Record::HoldLifted { job } => self.lift_hold(job),
            Record::JobPinned { job, device } => self.pin_job(job, device.as_ref(), at_ms),
            Record::StepExtended { job, step, count } => self.extend_step(job, step, count, at_ms),
            Record::WorkerQuarantine { worker, quarantine } => {
                let name = self.farm.name_of(worker);
                match &quarantine {
                    Some(known) => tracing::warn!(worker = name, why = known.reason, "worker quarantined"),
                    None => tracing::info!(worker = name, "worker unquarantined"),
                }
                self.write(Write::SetQuarantine { worker, quarantine });
            }
            Record::StepAdded { job, step } => self.add_step(job, step, at_ms),
            Record::WorkerState { worker, state } => {
                let quarantine = self.farm.core.worker(worker).and_then(|view| view.quarantine);
                let why = quarantine.filter(|_| state == WorkerState::Quarantined).map(|known| known.reason);
                self.event(at_ms, None, Some(worker), &Change::WorkerState { state, why });
            }
        }
    }

    /// Opens an attempt on a slot of a worker, or without a slot if it streams.
    fn open_attempt(
        &mut self,
        attempt: AttemptId,
        task: TaskId,
        generation: Generation,
        (worker, slot): (WorkerId, Option<SlotIndex>),
        at_ms: i64,
    ) {
        self.farm.attempts.insert(attempt, LiveAttempt { task, worker, slot, started: None, fraction: None });
        self.write(Write::OpenAttempt { attempt, task, generation, worker, slot, at_ms });
    }

    fn add_step(&mut self, job: JobId, step: StepIndex, at_ms: i64) {
        let Some(live) = self.farm.jobs.get(&job) else { return };
        let Some(spec) = live.steps.get(step) else { return };
        let (step_kind, count) = (spec.kind, spec.tasks(&live.spec.frames));
        tracing::info!(%job, %step, kind = %step_kind, "step added");
        let new = NewStep { step, spec: spec.clone(), count };
        self.write(Write::AddStep { job, step: new });
        self.event(at_ms, Some(job), None, &Change::StepAdded { step, step_kind });
    }

    fn resume_attempt(&mut self, attempt: AttemptId, task: TaskId, state: AttemptState, at_ms: i64) {
        let Some((_, _, worker)) = self.farm.core.attempt_task(attempt) else { return };
        let started =
            (state == AttemptState::Running).then(|| Started { moment: self.farm.clock.now(), at_ms });
        let slot = self.batch.held_slots.get(&attempt).copied();
        let live = LiveAttempt { task, worker, slot, started, fraction: None };
        self.farm.attempts.insert(attempt, live);
        self.write(Write::ResumeAttempt { attempt, state });
        if state == AttemptState::Running {
            let name = self.farm.name_of_task(task);
            let TaskId { job, step, index } = task;
            let change = Change::TaskStarted { step, index, name, attempt };
            self.event(at_ms, Some(job), Some(worker), &change);
        }
    }

    fn commit_task(&mut self, task: TaskId, generation: Generation, attempt: AttemptId, at_ms: i64) {
        let name = self.farm.name_of_task(task);
        // The core commits only while the report of the attempt is applied.
        let Some(report) = self.batch.reports.remove(&attempt) else {
            tracing::error!(%attempt, %task, "task committed without a report");
            return;
        };
        let TaskId { job, step, index } = task;
        let seconds = report.seconds;
        let peak_memory = Some(report.peak_memory);
        self.farm.core.learn_memory(task, report.worker, report.peak_memory);
        // Every attempt that the core commits was validated, and has a product.
        let Some(product) = report.product else { return };
        let (mut files, mut suspicious) = (0, Vec::new());
        if let Some(live) = self.farm.jobs.get_mut(&job) {
            match &product {
                TaskProduct::Outputs { files: outputs, .. } => {
                    (files, suspicious) = (outputs.files().len(), outputs.suspicions());
                    live.paths.insert_all(task, outputs);
                }
                TaskProduct::Bundle(bundle) => {
                    live.bundles.insert(step, bundle.id);
                }
                TaskProduct::Files(product) => {
                    files = product.files.len();
                    live.note_files_stored(task);
                }
            }
            if step == live.steps.frames_step() {
                live.seconds += seconds;
                live.finished += 1;
            }
        }
        let files = u32::try_from(files).unwrap_or(u32::MAX);
        self.write(Write::CommitTask { task, generation, attempt, product, seconds, peak_memory, at_ms });
        let change = Change::TaskDone { step, index, name, generation, attempt, seconds, files, suspicious };
        self.event(at_ms, Some(job), Some(report.worker), &change);
    }

    /// Sets the device on which the whole job renders; without a label, any GPU again.
    fn pin_job(&mut self, job: JobId, label: Option<&Label>, at_ms: i64) {
        let Some(live) = self.farm.jobs.get_mut(&job) else { return };
        let spec = Arc::make_mut(&mut live.spec);
        let backend = label.and_then(|label| backend_of(spec.session.blender, label));
        let device = backend.unwrap_or(DeviceClass::Gpu);
        spec.session.device = device;
        let spec = Box::new(spec.clone());
        tracing::info!(%job, %device, "job device chosen");
        self.write(Write::SetJobSpec { job, spec });
        self.event(at_ms, Some(job), None, &Change::JobDevice { device });
    }

    fn lift_hold(&mut self, job: JobId) {
        let Some(live) = self.farm.jobs.get_mut(&job) else { return };
        let spec = Arc::make_mut(&mut live.spec);
        spec.hold = None;
        let spec = Box::new(spec.clone());
        tracing::info!(%job, "hold lifted");
        self.write(Write::SetJobSpec { job, spec });
    }

    fn extend_step(&mut self, job: JobId, step: StepIndex, count: u32, at_ms: i64) {
        let Some(spec) = self.farm.jobs.get(&job).map(|live| live.spec.clone()) else { return };
        self.write(Write::ExtendStep { job, step, spec: Box::new(JobSpec::clone(&spec)), count });
        self.event(at_ms, Some(job), None, &Change::JobExtended { total: count });
    }

    pub(super) fn write(&mut self, write: Write) {
        self.batch.writes.push(write);
    }

    pub(super) fn event(
        &mut self,
        at_ms: i64,
        job: Option<JobId>,
        worker: Option<WorkerId>,
        change: &Change,
    ) {
        let worker = worker.map(|id| (id, self.farm.name_of(id)));
        self.batch.writes.push(Write::Event(new_event(at_ms, job, worker, change)));
    }

    /// Returns the positions of frames in the step that renders; an `Err` is a frame that the job does not have.
    pub(super) fn positions(
        spec: &Arc<JobSpec>,
        frames: &kiln_types::FrameSet,
    ) -> Result<Vec<TaskIndex>, i32> {
        frames.iter().map(|frame| spec.frames.index_of(frame).map(TaskIndex).ok_or(frame)).collect()
    }
}
