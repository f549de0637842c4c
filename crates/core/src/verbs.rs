//! What a person does to a job.

use std::collections::BTreeMap;

use kiln_types::{AttemptState, JobId, MAX_TASKS, StepIndex, TaskIndex};

use crate::{
    Core, IndexSet, JobError, JobPlan, Moment, Outbox, Record, RevokeReason, Standing,
    core::{record_reopened, step_index},
    job::{Job, JobEnd, JobPhase, Step},
};

impl Core {
    /// # Errors
    /// Where the core holds a job of this id.
    pub fn submit(&mut self, now: Moment, plan: JobPlan, out: &mut impl Outbox) -> Result<(), JobError> {
        let id = plan.id();
        if self.jobs.contains_key(&id) {
            return Err(JobError::JobExists(id));
        }
        let job = self.job_of(plan);
        out.record(Record::JobState { job: id, state: job.state(), reason: None });
        self.jobs.insert(id, job);
        self.active.insert(id);
        self.indexes.changed.insert(id);
        self.release_when_due(now, id);
        Ok(())
    }

    /// The job as it is when it is new.
    pub(crate) fn job_of(&mut self, plan: JobPlan) -> Job {
        let (standing, steps, pinned) = plan.into_parts();
        let account = self.accounts.open(&standing.project, &standing.user);
        let steps = steps.into_iter().map(|step| {
            let need = self.hold_need(&step.requires);
            step.all_sessions().for_each(|session| self.indexes.hold_session(session));
            Step::new(step, need)
        });
        let steps = steps.collect();
        Job {
            phase: JobPhase::Active,
            begun: false,
            standing,
            account,
            entered: false,
            released: false,
            on: BTreeMap::new(),
            steps,
            pinned,
        }
    }

    /// The job stands otherwise among the others from now on; what is handed out stays so. Its project and user are
    /// not changed.
    ///
    /// # Errors
    /// Where there is no such job.
    pub fn set_standing(&mut self, now: Moment, id: JobId, standing: Standing) -> Result<(), JobError> {
        self.job_ref(id)?;
        self.stop_waiting(id);
        let job = self.job_mut(id)?;
        let (project, user) = (job.standing.project.clone(), job.standing.user.clone());
        let priority = standing.priority.min(Standing::MAX_PRIORITY);
        job.standing = Standing { project, user, priority, ..standing };
        job.released &= job.begun;
        self.release_when_due(now, id);
        self.look_again();
        Ok(())
    }

    /// Nothing more of the job starts; what runs, ends. What is queued is asked back. A job that is paused
    /// stays so.
    ///
    /// # Errors
    /// Where there is no such job, or it has ended.
    pub fn pause_job(&mut self, _now: Moment, job: JobId, out: &mut impl Outbox) -> Result<(), JobError> {
        let found = self.open_job(job)?;
        if found.phase == JobPhase::Paused {
            return Ok(());
        }
        found.phase = JobPhase::Paused;
        let live = found.live();
        out.record(Record::JobState { job, state: found.state(), reason: None });
        for attempt in live {
            self.recall(attempt, out);
        }
        Ok(())
    }

    /// A job that is not paused stays as it is.
    ///
    /// # Errors
    /// Where there is no such job, or it has ended.
    pub fn resume_job(&mut self, _now: Moment, job: JobId, out: &mut impl Outbox) -> Result<(), JobError> {
        let found = self.open_job(job)?;
        if found.phase == JobPhase::Paused {
            found.phase = JobPhase::Active;
            out.record(Record::JobState { job, state: found.state(), reason: None });
        }
        Ok(())
    }

    /// Takes back what runs, and ends the job.
    ///
    /// # Errors
    /// Where there is no such job, or it has ended.
    pub fn cancel_job(&mut self, _now: Moment, job: JobId, out: &mut impl Outbox) -> Result<(), JobError> {
        self.open_job(job)?;
        self.end_job(job, JobEnd::Cancelled, None, out);
        Ok(())
    }

    /// Failed tasks, and those that were cancelled before they were done, wait again with a clean slate, in
    /// the generation they had. Returns how many.
    ///
    /// # Errors
    /// Where there is no such job, or no such task in it.
    pub fn retry_failed(&mut self, _now: Moment, job: JobId, out: &mut impl Outbox) -> Result<u32, JobError> {
        let found = self.job_mut(job)?;
        let lost: u32 = found.steps.iter().map(|step| step.failed.len() + step.cancelled.len()).sum();
        if lost == 0 {
            return Err(JobError::NothingToRetry(job));
        }
        for (index, step) in found.steps.iter_mut().enumerate() {
            let all = IndexSet::first(step.plan.count);
            reopen_lost(job, index, step, &all, out);
        }
        self.wake(job, out);
        Ok(lost)
    }

    /// Renders these tasks of this step again, or every task of the job: those that are done in a new
    /// generation, those that failed or were cancelled in the one they had; those that wait or run do so
    /// anyhow. Steps that depend on the step are done again too. Returns how many tasks of those named.
    ///
    /// # Errors
    /// Where there is no such job, step or task, or none of them has ended.
    pub fn rerender(
        &mut self,
        _now: Moment,
        job: JobId,
        which: Option<(StepIndex, &[TaskIndex])>,
        out: &mut impl Outbox,
    ) -> Result<u32, JobError> {
        let found = self.job_mut(job)?;
        let chosen: Vec<(usize, IndexSet)> = match which {
            Some((step, tasks)) => {
                let missing = JobError::NoSuchStep { job, step };
                let count = found.steps.get(usize::from(step.0)).ok_or(missing)?.plan.count;
                if let Some(&index) = tasks.iter().find(|index| index.0 >= count) {
                    return Err(JobError::NoSuchTask { job, step, index });
                }
                vec![(usize::from(step.0), tasks.iter().copied().collect())]
            }
            None => {
                let all = found.steps.iter().enumerate();
                all.map(|(index, step)| (index, IndexSet::first(step.plan.count))).collect()
            }
        };
        let mut reopened = 0;
        for (index, tasks) in &chosen {
            let step = &mut found.steps[*index];
            let done = step.reopen_done(tasks);
            record_reopened(job, *index, step, &done, out);
            reopened += done.len() + reopen_lost(job, *index, step, tasks, out);
        }
        if reopened == 0 {
            return Err(JobError::NothingToRerender(job));
        }
        for (index, _) in chosen {
            self.outdate_dependents(job, index, out);
        }
        self.wake(job, out);
        Ok(reopened)
    }

    /// Adds tasks to the end of a step. Steps that depend on it are done again.
    ///
    /// # Errors
    /// Where there is no such job or step, nothing is added, or the step would have too many tasks.
    pub fn extend(
        &mut self,
        _now: Moment,
        job: JobId,
        step: StepIndex,
        added: u32,
        out: &mut impl Outbox,
    ) -> Result<(), JobError> {
        let found = self.job_mut(job)?;
        let index = usize::from(step.0);
        let grown = found.steps.get_mut(index).ok_or(JobError::NoSuchStep { job, step })?;
        if added == 0 {
            return Err(JobError::NothingToAdd(job));
        }
        let count = grown.plan.count.checked_add(added).filter(|count| *count <= MAX_TASKS);
        let count = count.ok_or(JobError::TooManyTasks(job))?;
        grown.grow(count);
        out.record(Record::StepExtended { job, step, count });
        self.outdate_dependents(job, index, out);
        self.wake(job, out);
        Ok(())
    }

    /// Drops an ended job from memory. Slots that still run something of it stay closed until it is reported.
    ///
    /// # Errors
    /// Where there is no such job, or it has not ended.
    pub fn forget(&mut self, job: JobId) -> Result<(), JobError> {
        let found = self.job_ref(job)?;
        if !found.has_ended() {
            return Err(JobError::JobNotEnded { job, state: found.state() });
        }
        self.forget_job(job);
        Ok(())
    }

    /// To change it: it is filed anew.
    fn job_mut(&mut self, id: JobId) -> Result<&mut Job, JobError> {
        self.indexes.changed.insert(id);
        self.jobs.get_mut(&id).ok_or(JobError::NoSuchJob(id))
    }

    fn open_job(&mut self, job: JobId) -> Result<&mut Job, JobError> {
        let found = self.job_mut(job)?;
        match found.phase {
            JobPhase::Ended(_) => Err(JobError::JobEnded { job, state: found.state() }),
            JobPhase::Active | JobPhase::Paused => Ok(found),
        }
    }

    /// What the steps behind `step` made came from something that is now made anew.
    fn outdate_dependents(&mut self, id: JobId, step: usize, out: &mut impl Outbox) {
        let Some(job) = self.jobs.get(&id) else { return };
        for index in job.dependents(step) {
            let live: Vec<_> = self.jobs[&id].steps[index].attempts().collect();
            let mut stale = IndexSet::new();
            for attempt in live {
                let state = AttemptState::Superseded;
                let gone = self.revoke(attempt, RevokeReason::Stale, state, out);
                stale.extend(gone.map(|gone| gone.task.index));
            }
            let Some(later) = self.jobs.get_mut(&id).and_then(|job| job.steps.get_mut(index)) else {
                continue;
            };
            let all = IndexSet::first(later.plan.count);
            reopen_lost(id, index, later, &all, out);
            // An attempt that ran on the old input may still deliver: its generation must not be open then.
            let late: Vec<_> =
                later.troubles.iter().filter(|(_, t)| !t.late.is_empty()).map(|(i, _)| *i).collect();
            for task in late {
                later.remove_waiting(task);
                stale.insert(task);
            }
            // As if they had been done: the next generation waits.
            later.done.merge(&stale);
            let reopened = later.reopen_done(&all);
            let gone: Vec<_> = stale.iter().filter_map(|task| later.troubles.remove(&task)).collect();
            record_reopened(id, index, later, &reopened, out);
            for late in gone.iter().flat_map(|trouble| &trouble.late) {
                self.attempts.remove(late);
            }
        }
    }

    /// The job has something to do again.
    fn wake(&mut self, id: JobId, out: &mut impl Outbox) {
        self.indexes.changed.insert(id);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if job.has_ended() {
            job.phase = JobPhase::Active;
            self.active.insert(id);
            out.record(Record::JobState { job: id, state: job.state(), reason: None });
        }
        self.settle(id, out);
    }
}

/// Failed and cancelled tasks among these wait again; how many did.
fn reopen_lost(id: JobId, index: usize, step: &mut Step, which: &IndexSet, out: &mut impl Outbox) -> u32 {
    let cancelled = step.cancelled.len();
    let lost = step.reopen_lost(which);
    if step.cancelled.len() != cancelled {
        let tasks = step.cancelled.clone();
        out.record(Record::CancelledTasks { job: id, step: step_index(index), tasks });
    }
    record_reopened(id, index, step, &lost, out);
    lost.len()
}
