//! The inputs of the core: requests of people, reports of workers, and time.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
};

use kiln_types::{
    AttemptId, DesiredState, Failure, JobId, JobState, MAX_TASKS, StepIndex, TaskId, TaskIndex, WorkerId,
};

use crate::{
    Account, Core, DependencyEnd, Finish, HeldAttempt, HeldPhase, IndexSet, JobError, JobPlan, JobResult,
    Moment, Outbox, Push, Quarantine, Record, ReportOutcome, SchedulingOptions, Share, StepPlan, TaskSpan,
    WorkerOffer,
    ids::StepRef,
    jobs::{record_reset, reset_ended},
    state::{AttemptPhase, Job, JobEnd, JobPhase, Presence, Slot, Step, Worker, WorkerStreams},
};

/// Requests of people about jobs.
impl Core {
    /// # Errors
    /// If the core holds a job of this id.
    pub fn submit(&mut self, now: Moment, plan: JobPlan, out: &mut impl Outbox) -> JobResult {
        let id = plan.id();
        if self.state.find_job(id).is_some() {
            return Err(JobError::JobExists(id));
        }
        let mut job = self.new_job(plan);
        job.block_tasks();
        out.record(Record::JobState { job: id, state: job.state(), reason: None });
        self.state.add_job(id, job);
        self.indexes.active.insert(id);
        self.release_when_due(now, id);
        Ok(())
    }

    /// Changes the scheduling options of a job, but for its project and user. Dispatched attempts go on.
    ///
    /// # Errors
    /// If there is no such job.
    pub fn set_scheduling(&mut self, now: Moment, id: JobId, options: SchedulingOptions) -> JobResult {
        self.existing_job(id)?;
        self.stop_waiting(id);
        let job = self.state.job_mut(id);
        let (project, user) = (job.options.project.clone(), job.options.user.clone());
        let priority = options.priority.min(SchedulingOptions::MAX_PRIORITY);
        job.options = SchedulingOptions { project, user, priority, ..options };
        job.is_released &= job.has_begun;
        self.release_when_due(now, id);
        self.look_again();
        Ok(())
    }

    /// Pauses the job: attempts that run go on, queued ones are preempted.
    ///
    /// # Errors
    /// If there is no such job, or it has ended.
    pub fn pause_job(&mut self, id: JobId, out: &mut impl Outbox) -> JobResult {
        let job = self.open_job(id)?;
        if job.phase == JobPhase::Active {
            job.phase = JobPhase::Paused;
            out.record(Record::JobState { job: id, state: job.state(), reason: None });
            job.live().into_iter().for_each(|attempt| self.preempt(attempt, out));
        }
        Ok(())
    }

    /// Pauses the job as [`Core::pause_job`] does, for a reason that is shown.
    ///
    /// # Errors
    /// If there is no such job, or it has ended.
    pub fn suspend_job(&mut self, id: JobId, reason: Failure, out: &mut impl Outbox) -> JobResult {
        self.pause_job(id, out)?;
        out.record(Record::JobState { job: id, state: JobState::Paused, reason: Some(reason) });
        Ok(())
    }

    /// Resumes a paused job. This also lifts its hold, unless the job was paused before it reached that.
    ///
    /// # Errors
    /// If there is no such job, or it has ended.
    pub fn resume_job(&mut self, id: JobId, out: &mut impl Outbox) -> JobResult {
        self.open_job(id)?;
        self.lift_hold(id, out);
        let job = self.open_job(id)?;
        if job.phase == JobPhase::Paused {
            job.phase = JobPhase::Active;
            out.record(Record::JobState { job: id, state: job.state(), reason: None });
        }
        Ok(())
    }

    /// Revokes the job's attempts and ends it.
    ///
    /// # Errors
    /// If there is no such job, or it has ended.
    pub fn cancel_job(&mut self, id: JobId, out: &mut impl Outbox) -> JobResult {
        self.open_job(id)?;
        self.end_job(id, JobEnd::Cancelled, None, out);
        Ok(())
    }

    /// Lets failed and cancelled tasks wait again in the generation that they had, without their failures. Returns their
    /// number.
    ///
    /// # Errors
    /// If there is no such job, or it has no such task.
    pub fn retry_failed(&mut self, id: JobId, out: &mut impl Outbox) -> JobResult<u32> {
        let job = self.existing_job(id)?;
        let has_none = |step: &Step| step.tasks.counts().failed + step.tasks.counts().cancelled == 0;
        if job.steps.iter().all(has_none) {
            return Err(JobError::NothingToRetry(id));
        }
        let was_held = job.is_held();
        let mut count = 0;
        let mut changed = BTreeMap::new();
        for (place, step) in job.steps.iter_mut().enumerate() {
            let all = IndexSet::first(step.tasks.count());
            let reset = reset_ended(StepRef::new(id, place), step, &all, out);
            count += reset.len();
            changed.insert(place, reset);
        }
        // Tasks that waited for these to end have run without them; those that wait for them to be done have not begun.
        self.outdate_dependents(id, changed, |after| after.until == DependencyEnd::Ended, out);
        self.wake_held(id, was_held, out);
        self.reopen_job(id, out);
        Ok(count)
    }

    /// Renders these tasks of this step again, or every task of the job, and the tasks that depend on them. Tasks that are
    /// done wait again in a new generation, failed and cancelled ones in the one they had; those that wait or run are not
    /// changed. Returns the number of named tasks that wait again.
    ///
    /// # Errors
    /// If there is no such job, step or task, or none of them has ended.
    pub fn rerender(
        &mut self,
        id: JobId,
        which: Option<(StepIndex, &[TaskIndex])>,
        out: &mut impl Outbox,
    ) -> JobResult<u32> {
        let job = self.existing_job(id)?;
        let was_held = job.is_held();
        let all =
            |(place, step): (usize, &Step)| (StepRef::new(id, place), IndexSet::first(step.tasks.count()));
        let chosen = match which.map(|(step, tasks)| (StepRef { job: id, step }, tasks)) {
            Some((of, tasks)) => vec![(of, named_tasks(job, of, tasks)?)],
            None => job.steps.iter().enumerate().map(all).collect(),
        };
        let mut count = 0;
        let mut changed = BTreeMap::new();
        for (of, tasks) in &chosen {
            let step = &mut job.steps[of.place()];
            let mut reset = step.reset_done(tasks);
            record_reset(*of, step, &reset, out);
            reset.merge(&reset_ended(*of, step, tasks, out));
            count += reset.len();
            changed.insert(of.place(), reset);
        }
        if count == 0 {
            return Err(JobError::NothingToRerender(id));
        }
        self.outdate_dependents(id, changed, |_| true, out);
        self.wake_held(id, was_held, out);
        self.reopen_job(id, out);
        Ok(count)
    }

    /// Adds tasks to the end of a step. If these are frames, every step with tasks for each frame gets its tasks for them.
    /// Steps that depend on a grown one as a whole are done again.
    ///
    /// # Errors
    /// If there is no such job or step, no task or a part of a frame is added, or a step would have too many tasks.
    pub fn extend(&mut self, id: JobId, step: StepIndex, added: u32, out: &mut impl Outbox) -> JobResult {
        let job = self.existing_job(id)?;
        let missing = JobError::NoSuchStep { job: id, step };
        let named = &job.steps.get(usize::from(step.0)).ok_or(missing)?.plan;
        let each = named.per_frame.map_or(1, NonZeroU32::get);
        if added == 0 {
            return Err(JobError::NothingToAdd(id));
        }
        if !added.is_multiple_of(each) {
            return Err(JobError::PartOfFrame(id));
        }
        let is_about_frames = named.per_frame.is_some();
        let mut grown: Vec<(usize, u32)> = Vec::new();
        for (place, known) in job.steps.iter().enumerate() {
            let is_named = place == usize::from(step.0);
            let by = match known.plan.per_frame {
                Some(tasks) if is_about_frames => (added / each).checked_mul(tasks.get()),
                _ if is_named => Some(added),
                _ => continue,
            };
            let count =
                by.and_then(|by| known.tasks.count().checked_add(by)).filter(|count| *count <= MAX_TASKS);
            grown.push((place, count.ok_or(JobError::TooManyTasks(id))?));
        }
        let mut changed = BTreeMap::new();
        for (place, count) in grown {
            let known = &mut job.steps[place];
            let (first, last) = (TaskIndex(known.tasks.count()), TaskIndex(count - 1));
            changed.entry(place).or_insert_with(IndexSet::default).insert_span(TaskSpan { first, last });
            known.grow(count);
            out.record(Record::StepExtended { job: id, step: StepRef::new(id, place).step, count });
        }
        self.outdate_dependents(id, changed, |_| true, out);
        self.reopen_job(id, out);
        Ok(())
    }

    /// Adds a step to the end of the job, which may depend on every step that the job has. A job that has ended is opened
    /// again; a paused one stays paused.
    ///
    /// # Errors
    /// If there is no such job, it was cancelled, the step does not fit it, or the job has ended and no task of the step
    /// could run.
    pub fn add_step(&mut self, id: JobId, plan: StepPlan, out: &mut impl Outbox) -> JobResult<StepIndex> {
        let job = self.existing_job(id)?;
        if job.phase == JobPhase::Ended(JobEnd::Cancelled) {
            return Err(JobError::Cancelled(id));
        }
        plan.validate(job.steps.iter().map(|step| &step.plan))
            .map_err(|error| JobError::BadStep { job: id, error })?;
        let place = job.steps.len();
        self.append_step(id, plan);
        let job = self.state.job(id);
        if job.has_ended() && !job.has_ready_tasks(place) {
            let step = self.state.job_mut(id).steps.pop();
            step.into_iter().for_each(|step| self.release_step(&step));
            return Err(JobError::DependencyFailed(id));
        }
        let step = StepRef::new(id, place).step;
        out.record(Record::StepAdded { job: id, step });
        self.reopen_job(id, out);
        Ok(step)
    }

    /// Drops an ended job from memory. Slots that still run an attempt of it stay closed until that is reported.
    ///
    /// # Errors
    /// If there is no such job, or it has not ended.
    pub fn forget(&mut self, id: JobId) -> JobResult {
        let job = self.existing_job(id)?;
        if !job.has_ended() {
            return Err(JobError::JobNotEnded { job: id, state: job.state() });
        }
        // Its slots return their limits and shares while the job is known.
        let on: Vec<WorkerId> = job.on.keys().copied().collect();
        self.indexes.active.remove(&id);
        on.into_iter().for_each(|worker| self.reindex_worker(worker));
        self.unindex_job(id);
        let Some(job) = self.state.remove_job(id) else { return Ok(()) };
        self.release_job(&job);
        if job.is_completed() {
            self.drop_dependency(id);
        }
        self.state.attempts.remove_all(job.expired());
        Ok(())
    }

    fn open_job(&mut self, id: JobId) -> JobResult<&mut Job> {
        let job = self.existing_job(id)?;
        match job.phase {
            JobPhase::Ended(_) => Err(JobError::JobEnded { job: id, state: job.state() }),
            JobPhase::Active | JobPhase::Paused => Ok(job),
        }
    }
}

/// Requests of people about workers and accounts.
impl Core {
    /// Sets the weight and the cap of a project or a user.
    pub fn set_share(&mut self, account: Account, share: Share) {
        self.fair_share.set(account, share);
        self.look_again();
    }

    /// Sets the desired state of the worker, which may be one that has not joined yet.
    pub fn set_desired_state(&mut self, id: WorkerId, desired: DesiredState, out: &mut impl Outbox) {
        let worker = self.known_worker(id);
        if std::mem::replace(&mut worker.desired, desired) == desired {
            return;
        }
        self.state.touch(id);
        self.push(id, Push::DesiredState(desired), out);
        self.preempt_misplaced(id, out);
        self.record_workers(out);
    }

    /// Ends the quarantine of a worker; returns whether it was quarantined.
    pub fn unquarantine_worker(&mut self, id: WorkerId, out: &mut impl Outbox) -> bool {
        self.clear_incidents(id);
        let was_quarantined = self.end_quarantine(id, out);
        self.record_workers(out);
        was_quarantined
    }

    /// Ends the worker's attempts, which count against no task, and forgets it. Returns whether it was known.
    pub fn forget_worker(&mut self, now: Moment, id: WorkerId, out: &mut impl Outbox) -> bool {
        if self.state.find_worker(id).is_none() {
            return false;
        }
        self.expire_worker(now, id, false, out);
        self.expired_of(id).into_iter().for_each(|expired| self.drop_expired(expired.attempt));
        // This takes it out of every count.
        self.set_offer(id, WorkerOffer::default());
        self.clear_incidents(id);
        self.drop_quarantine(id);
        self.reindex_worker(id);
        self.state.remove_worker(id);
        self.cooldowns.forget(id);
        self.indexes.forget_worker(id);
        true
    }
}

/// Reports of workers.
impl Core {
    /// The worker is connected, for the first time or again. `held`: the attempts that it still has of earlier connections.
    /// Those that are still wanted go on, the others are revoked, and those that it should have and does not are lost.
    pub fn worker_joined(
        &mut self,
        now: Moment,
        id: WorkerId,
        offer: WorkerOffer,
        held: &[HeldAttempt],
        out: &mut impl Outbox,
    ) {
        let until = self.new_lease(now);
        let suspects = self.suspects(id);
        let worker = self.known_worker(id);
        let was_offline = worker.presence == Presence::Offline;
        worker.presence = Presence::Connected { until };
        let desired = worker.desired;
        let live = worker.live().collect();
        worker.slots_mut().iter_mut().for_each(Slot::clear);
        self.state.update_streams(id, WorkerStreams::clear);
        self.set_offer(id, offer);
        if desired != DesiredState::Active {
            out.push(id, Push::DesiredState(desired));
        }
        self.state.touch(id);
        let missing = self.reconcile(now, id, live, held, out);
        let lost: Vec<AttemptId> = missing.intersection(&suspects).copied().collect();
        self.note_loss(now, id, &lost, out);
        if was_offline {
            self.restart_quarantine(now, id);
        }
        for attempt in missing {
            self.attempt_unfinished(attempt, suspects.contains(&attempt), false, out);
        }
        self.sync_time_limits(now, id);
        self.preempt_misplaced(id, out);
    }

    /// The connection is lost. The leases of its attempts go on, so that it may come back.
    pub fn worker_left(&mut self, id: WorkerId, out: &mut impl Outbox) {
        let Some(worker) = self.state.find_worker_mut(id) else { return };
        worker.presence = match worker.presence {
            Presence::Connected { until } if worker.live().next().is_some() => Presence::Away { until },
            Presence::Connected { .. } | Presence::Silent | Presence::Offline => Presence::Offline,
            away @ Presence::Away { .. } => away,
        };
        if worker.presence == Presence::Offline {
            self.state.forget_reports(id);
        }
        self.state.touch(id);
        self.record_workers(out);
    }

    /// The worker's offer has changed. Attempts that it has begun go on.
    pub fn worker_offer_changed(&mut self, id: WorkerId, offer: WorkerOffer, out: &mut impl Outbox) {
        if self.state.find_worker(id).is_some() {
            self.set_offer(id, offer);
            self.state.touch(id);
            self.preempt_misplaced(id, out);
        }
    }

    /// A message of the worker arrived at this time, and the core will read it later: the lease runs from its arrival. A
    /// worker whose lease has expired comes back only by the message itself.
    pub fn renew_lease(&mut self, arrived: Moment, id: WorkerId) {
        let end = arrived.after(self.config.lease_ms);
        if let Some(worker) = self.state.find_worker_mut(id)
            && let Presence::Connected { until } | Presence::Away { until } = &mut worker.presence
        {
            *until = end.max(*until);
        }
    }

    /// A sign of life of the worker arrived at this time: its lease runs from then. Attempts that expired while it was
    /// silent go on, unless their tasks were dispatched elsewhere.
    pub fn heartbeat(&mut self, now: Moment, id: WorkerId, out: &mut impl Outbox) {
        let until = self.new_lease(now);
        let Some(worker) = self.state.find_worker_mut(id) else { return };
        match worker.presence {
            Presence::Connected { .. } => self.renew_lease(now, id),
            // Only a join tells which attempts it holds.
            Presence::Away { .. } | Presence::Offline => {}
            Presence::Silent => {
                worker.presence = Presence::Connected { until };
                self.resume_expired(now, id, out);
                self.state.touch(id);
                self.sync_time_limits(now, id);
                self.preempt_misplaced(id, out);
            }
        }
    }

    /// The slot began this attempt; the one that ran on it before has left Blender. A report of an attempt that the worker
    /// does not hold changes nothing.
    pub fn attempt_started(&mut self, now: Moment, worker: WorkerId, id: AttemptId, out: &mut impl Outbox) {
        let Some(attempt) = self.state.attempts.get_mut(id).filter(|known| known.worker == worker) else {
            return;
        };
        match &mut attempt.phase {
            AttemptPhase::Assigned { .. } => self.begin_attempt(now, id, out),
            // Should its worker turn out to be alive, the attempt is resumed in this phase.
            AttemptPhase::Expired { was, .. } => {
                *was = was.slot().map_or(*was, |slot| HeldPhase::Running { slot });
            }
            AttemptPhase::Streaming { .. }
            | AttemptPhase::Running { .. }
            | AttemptPhase::Delivering { .. } => {}
        }
    }

    /// The attempt left its slot. `Delivered` only once every file is checked and stored: the first delivery of a
    /// generation wins, also that of an expired attempt.
    pub fn attempt_finished(
        &mut self,
        now: Moment,
        worker: WorkerId,
        id: AttemptId,
        finish: Finish,
        out: &mut impl Outbox,
    ) -> ReportOutcome {
        let was_closing = self.state.reopen(worker, id);
        if was_closing {
            self.state.touch(worker);
        }
        let Some(attempt) = self.state.find_attempt(id).filter(|known| known.worker == worker) else {
            return match finish {
                Finish::Delivered if self.was_issued(id) => ReportOutcome::Superseded,
                Finish::Failed(_) | Finish::Returned if was_closing => ReportOutcome::Recorded,
                _ => ReportOutcome::Unknown,
            };
        };
        let is_live = attempt.phase.is_live();
        self.update_cooldown(now, id, &finish);
        match finish {
            Finish::Delivered => return self.deliver(now, id, out),
            Finish::Failed(failure) if is_live => self.attempt_failed(now, id, failure, out),
            Finish::Returned if is_live => self.attempt_unfinished(id, false, false, out),
            Finish::Failed(_) | Finish::Returned => self.drop_expired(id),
        }
        ReportOutcome::Recorded
    }

    /// The attempt made progress: a sample is done, its Blender printed a message, bytes were written.
    pub fn attempt_moved(&mut self, now: Moment, worker: WorkerId, id: AttemptId) {
        if self.has_attempt(worker, id) {
            self.time_limits.note_sign(now, id, true);
        }
    }

    /// The attempt's Blender used the processor, without a sign of progress.
    pub fn attempt_worked(&mut self, now: Moment, worker: WorkerId, id: AttemptId) {
        if self.has_attempt(worker, id) {
            self.time_limits.note_sign(now, id, false);
        }
    }

    /// Learns from the progress of the attempt's frame, 0 to 1, as its Blender reports it.
    pub fn learn_progress(&mut self, now: Moment, worker: WorkerId, id: AttemptId, part: f32) {
        if self.has_attempt(worker, id) {
            self.note_progress(now, id, part);
        }
    }

    /// Learns from the peak memory of a frame that was delivered.
    pub fn learn_memory(&mut self, task: TaskId, worker: WorkerId, bytes: u64) {
        let on = self.state.find_worker(worker).map_or(0, |worker| worker.offer.memory);
        self.note_memory(task.into(), bytes, on);
    }

    fn has_attempt(&self, worker: WorkerId, id: AttemptId) -> bool {
        self.state.find_attempt(id).is_some_and(|known| known.worker == worker)
    }
}

/// Time, and the knowledge of earlier epochs.
impl Core {
    /// The workers whose leases expire by now. If a message of one has arrived and was not read yet, call
    /// [`Core::renew_lease`] before [`Core::tick`]: a worker must not expire because the server was held up.
    pub fn expiring(&self, now: Moment) -> Vec<WorkerId> {
        if now < self.leases_from {
            return Vec::new();
        }
        let expires = |worker: &Worker| worker.presence.lease_end().is_some_and(|end| end <= now);
        self.state.workers().iter().filter(|(_, worker)| expires(worker)).map(|(id, _)| *id).collect()
    }

    /// The workers with an attempt that hangs by now. If a message of one waits to be read, [`Core::postpone_hang`] keeps
    /// [`Core::tick`] from ending the attempt.
    pub fn hanging(&self, now: Moment) -> BTreeSet<WorkerId> {
        self.time_limits.due(now).map(|id| self.state.attempt(id).worker).collect()
    }

    /// Ends no attempt of the worker for a second: a message of it waits to be read.
    pub fn postpone_hang(&mut self, now: Moment, id: WorkerId) {
        let is_on_it = |attempt: &AttemptId| self.state.attempt(*attempt).worker == id;
        let due: Vec<AttemptId> = self.time_limits.due(now).filter(is_on_it).collect();
        due.into_iter().for_each(|attempt| self.time_limits.postpone(now, attempt));
    }

    /// Ends leases, cooldowns and pauses that are over and attempts that hang, and releases jobs whose time has come.
    pub fn tick(&mut self, now: Moment, out: &mut impl Outbox) {
        self.end_cooldowns(now);
        self.release_due(now);
        self.end_hanging(now, out);
        self.end_pauses(now);
        if self.leases_from <= now {
            self.expiring(now).into_iter().for_each(|worker| self.expire_worker(now, worker, true, out));
            let ends = self.state.workers().values().filter_map(|worker| worker.presence.lease_end());
            self.leases_from = ends.min().unwrap_or(Moment(u64::MAX));
        }
        self.record_workers(out);
    }

    /// The time at which [`Core::tick`] or [`Core::schedule`] next has something to do without an input; it may be too
    /// early.
    pub fn next_deadline(&self) -> Option<Moment> {
        let has_leases = self.leases_from.0 < u64::MAX && !self.state.workers().is_empty();
        let deadlines = [
            has_leases.then_some(self.leases_from),
            self.cooldowns.next_deadline(),
            self.indexes.starts.first().map(|(at, _)| *at),
            self.speculate_at,
            self.quarantine.next_deadline(),
            self.time_limits.next_deadline(),
            self.indexes.is_behind.then_some(Moment(0)),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Quarantines a worker that was in quarantine when an earlier epoch ended; its pause begins again.
    pub fn restore_quarantine(&mut self, now: Moment, id: WorkerId, quarantine: Quarantine) {
        self.known_worker(id);
        self.set_quarantine(now, id, quarantine);
    }

    /// Learns from the time of a frame with its scene open, as an earlier epoch measured it. Call it with the oldest first,
    /// before anything is measured.
    pub fn learn_past_time(&mut self, task: TaskId, worker: WorkerId, ms: u64) {
        if self.state.find_place(task).is_some() {
            self.known_worker(worker);
            self.note_time(task, worker, ms, false);
        }
    }

    /// Learns from the peak memory of a frame on a machine that has `on` bytes; 0 if that is not known.
    pub fn learn_peak(&mut self, job: JobId, step: StepIndex, bytes: u64, on: u64) {
        self.note_memory(StepRef { job, step }, bytes, on);
    }
}

/// The set of these tasks, if the step has them all.
fn named_tasks(job: &Job, of: StepRef, tasks: &[TaskIndex]) -> JobResult<IndexSet> {
    let missing = JobError::NoSuchStep { job: of.job, step: of.step };
    let count = job.steps.get(of.place()).ok_or(missing)?.tasks.count();
    match tasks.iter().find(|index| index.0 >= count) {
        Some(&index) => Err(JobError::NoSuchTask { job: of.job, step: of.step, index }),
        None => Ok(tasks.iter().copied().collect()),
    }
}
