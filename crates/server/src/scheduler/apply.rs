//! The effect of each input.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use kiln_api::{Change, Down, Hello, Up, Welcome};
use kiln_core::{Core, Finish, JobError, StepState};
use kiln_store::{FileKind, NewProduct, NewStep, TaskProduct, Write};
use kiln_types::{
    AttemptId, DesiredState, Failure, FailureCause, JobId, JobSpec, JobState, JobSteps, OutputSet,
    ProductKind, StepIndex, StepInput, StepKind, StepSpec, TaskFile, TaskId, TaskIndex, WorkerId,
};

use super::{
    actor::Scheduler,
    batch::PendingReport,
    farm::LiveJob,
    input::{CheckedReport, Input, JobCommand, MadeFiles, misbehaved},
    plan::{plan_of, scheduling_of, step_plan},
    refusal::Refusal,
    worker::{KnownWorker, LinkHandle, WorkerInfo, shorten},
};
use crate::clock::unix_ms;

/// Different notices that a job keeps.
const MAX_NOTICES: usize = 200;
/// Characters of one notice.
const MAX_NOTICE: usize = 1000;

impl Scheduler {
    pub(super) fn apply(&mut self, input: Input) {
        match input {
            Input::Job { job, command, reply } => {
                let answer = self.command(job, command);
                self.absorb();
                self.batch.answer(reply, answer);
            }
            Input::Join { hello, link, waiting } => {
                drop(waiting);
                self.join(*hello, link);
            }
            Input::Up { worker, link, up, waiting } => {
                drop(waiting);
                if self.is_current(worker, link) {
                    self.apply_message(worker, up);
                }
            }
            Input::Finished { worker, link, attempt, report, hold, waiting } => {
                drop(waiting);
                self.batch.holds.push(hold);
                if self.is_current(worker, link) {
                    self.finish_attempt(worker, attempt, report);
                }
            }
            Input::Disconnected { worker, link } => {
                self.arrivals.disconnect(worker);
                if self.is_current(worker, link) {
                    self.disconnect(worker);
                }
            }
            Input::DesiredState { name, desired, reply } => {
                let answer = self.set_desired(&name, desired);
                self.batch.answer(reply, answer);
            }
            Input::Unquarantine { name, reply } => {
                let answer = self.unquarantine(&name);
                self.batch.answer(reply, answer);
            }
            Input::RemoveWorker { name, reply } => {
                let answer = self.remove_worker(&name);
                self.batch.answer(reply, answer);
            }
            Input::Fetched { job, sequence, reply } => {
                self.write(Write::MarkFetched { job, sequence, at_ms: unix_ms() });
                self.batch.answer(reply, Ok(()));
            }
            Input::Set { setting, reply } => {
                let answer = self.apply_setting(setting);
                self.batch.answer(reply, answer);
            }
            // Applied by `take`.
            Input::Submit { .. } | Input::Expire { .. } => {}
            Input::Read(read) => self.batch.replies.push(read),
            #[cfg(test)]
            Input::Panic(panic) => panic(),
        }
        self.absorb();
    }

    /// Creates a job; `completed` are those of its dependencies that the core has forgotten.
    pub(super) fn submit(
        &mut self,
        spec: JobSpec,
        notices: Vec<String>,
        held: bool,
        completed: &BTreeSet<JobId>,
    ) -> Result<JobId, Refusal> {
        let job = JobId(self.farm.last_job.0 + 1);
        let spec = Arc::new(spec);
        self.farm.check_limits(&spec)?;
        let scheduling = scheduling_of(&spec, &self.farm.clock, completed);
        let steps = JobSteps::of_frames(!spec.bake.is_empty(), spec.order);
        let plan = plan_of(job, &spec, &steps, scheduling)?;
        let at_ms = unix_ms();
        self.farm.last_job = job;
        let new = |(step, of): (StepIndex, &StepSpec)| NewStep {
            step,
            spec: of.clone(),
            count: of.tasks(&spec.frames),
        };
        let new_steps = steps.iter().map(new).collect();
        self.farm.jobs.insert(job, LiveJob::new(spec.clone(), steps));
        self.write(Write::InsertJob { job, spec: Box::new(JobSpec::clone(&spec)), steps: new_steps, at_ms });
        self.event(at_ms, Some(job), None, &Change::JobCreated { name: spec.name.clone() });
        self.add_notices(job, notices, None);
        let now = self.farm.clock.now();
        let (core, out) = (&mut self.farm.core, &mut self.batch.outbox);
        core.submit(now, plan, out)?;
        if held {
            core.pause_job(job, out)?;
        }
        self.absorb();
        tracing::info!(%job, name = %spec.name, frames = %spec.frames, "job submitted");
        Ok(job)
    }

    fn command(&mut self, job: JobId, command: JobCommand) -> Result<u32, Refusal> {
        let live = self.farm.jobs.get_mut(&job).ok_or(JobError::NoSuchJob(job))?;
        let reopens = matches!(
            command,
            JobCommand::Retry
                | JobCommand::Rerender(_)
                | JobCommand::Rebake
                | JobCommand::Extend(_)
                | JobCommand::AddStep(_)
        );
        if reopens {
            check_inputs(job, live)?;
        }
        let (core, out) = (&mut self.farm.core, &mut self.batch.outbox);
        match command {
            JobCommand::Pause => core.pause_job(job, out)?,
            JobCommand::Resume => core.resume_job(job, out)?,
            JobCommand::Cancel => core.cancel_job(job, out)?,
            JobCommand::Retry => {
                core.retry_failed(job, out)?;
            }
            JobCommand::Rerender(frames) => {
                check_baked(core, job, &live.steps)?;
                let frames = frames.as_ref().unwrap_or(&live.spec.frames);
                let indexes = Self::positions(&live.spec, frames).map_err(|frame| Refusal::NoSuchFrame {
                    job,
                    frame,
                    frames: live.spec.frames.clone(),
                })?;
                core.rerender(job, Some((live.steps.frames_step(), &indexes)), out)?;
            }
            JobCommand::Rebake => {
                let bake = live.steps.of_kind(StepKind::Bake).ok_or(Refusal::NothingToBake(job))?;
                core.rerender(job, Some((bake, &[TaskIndex(0)])), out)?;
            }
            JobCommand::Extend(frames) => {
                check_baked(core, job, &live.steps)?;
                let longer = live.spec.frames.extended(&frames)?;
                let added = longer.len() - live.spec.frames.len();
                core.extend(job, live.steps.frames_step(), added, out)?;
                live.spec = Arc::new(JobSpec { frames: longer, ..JobSpec::clone(&live.spec) });
            }
            JobCommand::AddStep(step) => {
                if !can_be_added(step.kind) {
                    return Err(Refusal::FixedStep(step.kind));
                }
                let plan = step_plan(job, &live.spec, &step);
                let steps = live.steps.with(*step).map_err(|error| Refusal::BadStep { job, error })?;
                core.add_step(job, plan, out)?;
                live.steps = steps;
            }
            // Applied by `apply_command`.
            JobCommand::Change(_) => {}
            JobCommand::Archive(archived) => self.archive(job, archived)?,
            JobCommand::Delete { force } => self.delete(job, force)?,
        }
        if reopens { self.remake_files(job) } else { Ok(0) }
    }

    /// Resets the tasks whose files were removed and are needed now. Returns their number.
    fn remake_files(&mut self, job: JobId) -> Result<u32, Refusal> {
        // Tasks that the command itself resets are not counted.
        self.absorb();
        let Some(live) = self.farm.jobs.get(&job) else { return Ok(0) };
        let mut again = 0;
        // The last step first: its tasks may need files of earlier steps.
        for (step, without_files) in live.without_files.iter().rev() {
            let needed = self.farm.core.tasks_in_use(job, *step).intersection(without_files);
            let tasks: Vec<TaskIndex> = needed.iter().collect();
            if !tasks.is_empty() {
                again += self.farm.core.rerender(job, Some((*step, &tasks)), &mut self.batch.outbox)?;
            }
        }
        if again > 0 {
            let text = format!("{again} tasks run again: their files are needed, and were removed.");
            self.add_notices(job, vec![text], None);
        }
        Ok(again)
    }

    fn archive(&mut self, job: JobId, archived: bool) -> Result<(), Refusal> {
        let live = self.farm.jobs.get_mut(&job).ok_or(JobError::NoSuchJob(job))?;
        if archived && live.ended_ms.is_none() {
            return Err(Refusal::ArchivedTooEarly(job));
        }
        if live.archived == archived {
            return Ok(());
        }
        live.archived = archived;
        let at_ms = unix_ms();
        self.write(Write::SetJobArchived { job, at_ms: archived.then_some(at_ms) });
        self.event(at_ms, Some(job), None, &Change::JobArchived { archived });
        Ok(())
    }

    fn delete(&mut self, job: JobId, force: bool) -> Result<(), Refusal> {
        let ended = self.farm.core.job(job).is_some_and(|view| view.state.is_end());
        if !ended && !force {
            return Err(Refusal::DeletedTooEarly(job));
        }
        if !ended {
            self.farm.core.cancel_job(job, &mut self.batch.outbox)?;
        }
        self.absorb();
        if self.farm.core.job(job).is_some_and(|view| view.state == JobState::Completed) {
            self.drop_dependency(job);
        }
        self.farm.core.forget(job)?;
        self.farm.jobs.remove(&job);
        self.farm.attempts.remove_job(job);
        self.write(Write::DeleteJob { job });
        self.event(unix_ms(), Some(job), None, &Change::JobDeleted);
        self.batch.deleted.push(job);
        Ok(())
    }

    fn is_current(&self, worker: WorkerId, link: u64) -> bool {
        let known = self.farm.workers.get(&worker);
        known.and_then(|known| known.link.as_ref()).is_some_and(|current| current.number == link)
    }

    fn join(&mut self, mut hello: Hello, link: LinkHandle) {
        let now = self.farm.clock.now();
        let at_ms = unix_ms();
        let worker = hello.id;
        let name = self.farm.workers.free_name(worker, &hello.name);
        let held = std::mem::take(&mut hello.held);
        let info = WorkerInfo::of(hello);
        let slots = info.slots;
        let known = self.farm.workers.get(&worker);
        let desired = known.map_or(DesiredState::Active, |known| known.desired);
        let pools = known.map(|known| known.pools.clone()).unwrap_or_default();
        let stored_info = serde_json::to_value(&info).unwrap_or_default();
        let new =
            KnownWorker { name: name.clone(), info, desired, pools, last_seen_ms: at_ms, link: Some(link) };
        let offer = new.offer();
        let old = self.farm.workers.insert(worker, new);
        if let Some(old) = old.and_then(|old| old.link) {
            old.end.cancel();
        }
        tracing::info!(%worker, %name, slots, held = held.len(), "worker connected");
        self.write(Write::UpsertWorker { worker, name: name.clone(), info: stored_info, at_ms });
        let welcome = Welcome {
            name,
            build: kiln_api::BUILD.to_owned(),
            protocol: kiln_api::PROTOCOL,
            epoch: self.farm.epoch,
            heartbeat_ms: self.farm.heartbeat_ms,
            desired,
        };
        // The welcome goes before everything that the core pushes.
        self.batch.outbox.send(worker, Down::Welcome(welcome));
        self.batch.held_slots.extend(held.iter().filter_map(|held| Some((held.attempt, held.phase.slot()?))));
        // Before the join, or the worker would be sent the state that it announced itself when it left.
        self.farm.core.set_desired_state(worker, desired, &mut self.batch.outbox);
        self.farm.core.worker_joined(now, worker, offer, &held, &mut self.batch.outbox);
    }

    fn apply_message(&mut self, worker: WorkerId, up: Up) {
        let now = self.farm.clock.now();
        let out = &mut self.batch.outbox;
        match up {
            // The link makes inputs of their own of these.
            Up::Hello(_) | Up::Finished { .. } => {}
            Up::Offer { blenders, unavailable } => {
                let Some(known) = self.farm.workers.get_mut(worker) else { return };
                known.info.blenders = blenders;
                known.info.unavailable = unavailable.map(shorten);
                let (name, offer) = (known.name.clone(), known.offer());
                let info = serde_json::to_value(&known.info).unwrap_or_default();
                self.farm.core.worker_offer_changed(worker, offer, out);
                self.write(Write::UpsertWorker { worker, name, info, at_ms: unix_ms() });
            }
            Up::Started { attempt } => self.farm.core.attempt_started(now, worker, attempt, out),
            Up::Progress { attempt, fraction } => {
                self.farm.core.attempt_moved(now, worker, attempt);
                self.farm.core.learn_progress(now, worker, attempt, fraction);
                if let Some(live) = self.farm.attempts.get_mut(attempt).filter(|live| live.worker == worker) {
                    live.fraction = fraction.is_finite().then(|| fraction.clamp(0.0, 1.0));
                }
            }
            Up::Alive { attempt, moved: true } => self.farm.core.attempt_moved(now, worker, attempt),
            Up::Alive { attempt, moved: false } => self.farm.core.attempt_worked(now, worker, attempt),
            Up::Log { attempt, text } => {
                if let Some((task, _, owner)) = self.farm.core.attempt_task(attempt)
                    && owner == worker
                {
                    self.logs.append(task.job, attempt, text);
                }
            }
            Up::Notices { job, texts } => {
                let attempt = self.farm.attempts.of_worker(worker).find(|(_, live)| live.task.job == job);
                if let Some(attempt) = attempt.map(|(id, _)| id) {
                    self.add_notices(job, texts, Some(attempt));
                }
            }
            Up::Heartbeat => {
                let heard = self.arrivals.silent_since(worker, now).unwrap_or(now);
                self.farm.core.heartbeat(heard, worker, out);
                if let Some(known) = self.farm.workers.get_mut(worker) {
                    known.last_seen_ms = unix_ms();
                }
            }
            // Not stored: when the worker comes back, it works again.
            Up::Draining => self.farm.core.set_desired_state(worker, DesiredState::Draining, out),
        }
    }

    fn finish_attempt(&mut self, worker: WorkerId, attempt: AttemptId, report: CheckedReport) {
        let now = self.farm.clock.now();
        let seconds = |seconds: f64| if seconds.is_finite() { seconds.clamp(0.0, 1e9) } else { 0.0 };
        let pending =
            |product, s, peak_memory| PendingReport { worker, product, seconds: seconds(s), peak_memory };
        let (finish, report) = match report {
            CheckedReport::Returned => (Finish::Returned, None),
            // The attempt became known after its link had looked for it: at worst, it runs again.
            CheckedReport::Done { made: MadeFiles::Unknown, .. }
                if self.farm.product_of(worker, attempt).is_some() =>
            {
                (Finish::Returned, None)
            }
            CheckedReport::Done { made, seconds, peak_memory } => {
                match self.validate_finish(worker, attempt, made) {
                    Ok(product) => (Finish::Delivered, Some(pending(product, seconds, peak_memory))),
                    Err(failure) => (Finish::Failed(failure), Some(pending(None, seconds, 0))),
                }
            }
            CheckedReport::Failed { failure, seconds } => {
                (Finish::Failed(failure), Some(pending(None, seconds, 0)))
            }
        };
        if let Some(report) = report {
            self.batch.reports.insert(attempt, report);
        }
        let outcome = self.farm.core.attempt_finished(now, worker, attempt, finish, &mut self.batch.outbox);
        // Absorbed at once: one attempt may be reported twice in a turn.
        self.absorb();
        self.batch.reports.remove(&attempt);
        self.batch.outbox.send(worker, Down::Settled { attempt, outcome });
    }

    /// Returns the product of the task; `None` if the worker has no such attempt. Fails if the step does not make such files,
    /// or if one has the path of another frame's file.
    fn validate_finish(
        &self,
        worker: WorkerId,
        attempt: AttemptId,
        made: MadeFiles,
    ) -> Result<Option<TaskProduct>, Failure> {
        let Some((task, _, _)) = self.farm.core.attempt_task(attempt).filter(|known| known.2 == worker)
        else {
            return Ok(None);
        };
        let Some(live) = self.farm.jobs.get(&task.job) else { return Ok(None) };
        let Some(step) = live.steps.get(task.step) else { return Ok(None) };
        let frame = |task| self.farm.name_of_task(task).frame.unwrap_or_default();
        match (step.product, made) {
            (ProductKind::Output, MadeFiles::Files(files))
                if files.iter().any(|file| file.picture.is_some()) =>
            {
                let files = OutputSet::try_from(files)
                    .map_err(|error| misbehaved(format!("The worker's report is not right: {error}.")))?;
                let Some((path, other)) = live.paths.find_conflict(task, &files) else {
                    return Ok(Some(TaskProduct::Outputs { frame: frame(task), files }));
                };
                let why = format!(
                    "Frame {} wrote {path}, which frame {} of this job has delivered already; the output path must hold the frame number.",
                    frame(task),
                    frame(other),
                );
                Err(Failure::new(FailureCause::SamePath, why))
            }
            (ProductKind::Bundle, MadeFiles::Bundle(bundle)) => Ok(Some(TaskProduct::Bundle(bundle))),
            (ProductKind::Intermediate, MadeFiles::Files(files)) => {
                new_product(FileKind::Intermediate, step, task, files).map(Some)
            }
            (ProductKind::Preview, MadeFiles::Files(files)) => {
                new_product(FileKind::Preview, step, task, files).map(Some)
            }
            _ => Err(misbehaved(format!(
                "The worker reported files that step {} of the job does not make.",
                step.kind
            ))),
        }
    }

    fn add_notices(&mut self, job: JobId, texts: Vec<String>, attempt: Option<AttemptId>) {
        let at_ms = unix_ms();
        for text in texts {
            let text: String = text.chars().filter(|c| !c.is_control()).take(MAX_NOTICE).collect();
            let Some(live) = self.farm.jobs.get_mut(&job) else { return };
            if text.is_empty() || live.notices.len() >= MAX_NOTICES || !live.notices.insert(text.clone()) {
                continue;
            }
            self.event(at_ms, Some(job), None, &Change::JobNotice { text: text.clone() });
            self.write(Write::AddNotice { job, text, attempt, at_ms });
        }
    }

    fn disconnect(&mut self, worker: WorkerId) {
        let at_ms = unix_ms();
        let Some(known) = self.farm.workers.get_mut(worker) else { return };
        known.link = None;
        known.last_seen_ms = at_ms;
        let leaves = match known.desired {
            DesiredState::Stopped => true,
            DesiredState::Draining => self.farm.core.worker(worker).is_none_or(|view| view.attempts == 0),
            DesiredState::Active | DesiredState::Paused => false,
        };
        tracing::info!(%worker, name = %known.name, "worker disconnected");
        if leaves {
            // The desired state is reached. A worker that is started again is to work.
            known.desired = DesiredState::Active;
            self.write(Write::SetDesiredState { worker, desired: DesiredState::Active });
        }
        self.write(Write::TouchWorker { worker, at_ms });
        let now = self.farm.clock.now();
        if let Some(heard) = self.arrivals.silent_since(worker, now) {
            self.farm.core.renew_lease(heard, worker);
        }
        self.farm.core.worker_left(worker, &mut self.batch.outbox);
    }

    fn set_desired(&mut self, name: &str, desired: DesiredState) -> Result<(), Refusal> {
        let (worker, known) = self.find_worker(name)?;
        if known.link.is_none() && matches!(desired, DesiredState::Draining | DesiredState::Stopped) {
            return Err(Refusal::WorkerOffline(name.to_owned()));
        }
        known.desired = desired;
        self.write(Write::SetDesiredState { worker, desired });
        self.farm.core.set_desired_state(worker, desired, &mut self.batch.outbox);
        Ok(())
    }

    pub(super) fn find_worker(&mut self, name: &str) -> Result<(WorkerId, &mut KnownWorker), Refusal> {
        let no_such_worker = || Refusal::NoSuchWorker(name.to_owned());
        let worker = self.farm.workers.by_name(name).ok_or_else(no_such_worker)?;
        Ok((worker, self.farm.workers.get_mut(worker).ok_or_else(no_such_worker)?))
    }

    fn unquarantine(&mut self, name: &str) -> Result<(), Refusal> {
        let (worker, _) = self.find_worker(name)?;
        if !self.farm.core.unquarantine_worker(worker, &mut self.batch.outbox) {
            return Err(Refusal::NotQuarantined(name.to_owned()));
        }
        Ok(())
    }

    fn remove_worker(&mut self, name: &str) -> Result<(), Refusal> {
        let (worker, known) = self.find_worker(name)?;
        if known.link.is_some() {
            return Err(Refusal::WorkerConnected(name.to_owned()));
        }
        let now = self.farm.clock.now();
        self.farm.core.forget_worker(now, worker, &mut self.batch.outbox);
        self.absorb();
        self.event(unix_ms(), None, Some(worker), &Change::WorkerRemoved);
        self.write(Write::DeleteWorker { worker });
        self.farm.workers.remove(worker);
        Ok(())
    }
}

fn new_product(
    kind: FileKind,
    step: &StepSpec,
    task: TaskId,
    files: Vec<TaskFile>,
) -> Result<TaskProduct, Failure> {
    let mut paths = HashSet::new();
    if let Some(twice) = files.iter().find(|file| !paths.insert(&file.path)) {
        return Err(misbehaved(format!("The worker reported {} twice.", twice.path)));
    }
    if files.is_empty() {
        return Err(misbehaved(format!("The worker reported no files of the {}.", step.kind)));
    }
    let position = step.space.per_frame().map(|parts| task.index.0 / u32::from(parts.get()));
    Ok(TaskProduct::Files(NewProduct { kind, position, files: files.into_iter().map(Into::into).collect() }))
}

/// Refuses commands to render frames of an ended job whose bundle was not baked.
fn check_baked(core: &Core, job: JobId, steps: &JobSteps) -> Result<(), Refusal> {
    let Some(StepInput::Step(bake)) = steps.get(steps.frames_step()).map(|step| step.opens) else {
        return Ok(());
    };
    let Some(view) = core.job(job).filter(|view| view.state.is_end()) else { return Ok(()) };
    let is_baked = view.steps.get(usize::from(bake.0)).is_some_and(|step| step.state == StepState::Completed);
    if is_baked { Ok(()) } else { Err(Refusal::NotBaked(job)) }
}

/// Returns whether steps of this kind can be added to a job; the others are part of its submission.
fn can_be_added(kind: StepKind) -> bool {
    match kind {
        StepKind::Bake | StepKind::Render => false,
        #[cfg(debug_assertions)]
        StepKind::Test => true,
    }
}

/// Refuses to render a job that is archived or whose input files were removed.
fn check_inputs(job: JobId, live: &LiveJob) -> Result<(), Refusal> {
    if let Some(gone) = live.inputs_gone_ms {
        let after_ms = gone.saturating_sub(live.ended_ms.unwrap_or(gone));
        return Err(Refusal::FilesRemoved { job, after_ms });
    }
    if live.archived { Err(Refusal::Archived(job)) } else { Ok(()) }
}
