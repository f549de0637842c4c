//! The restoring of jobs of an earlier epoch.

use kiln_types::{AttemptId, Generation, JobId, JobState, SlotIndex, TaskId, TaskIndex, WorkerId};

use crate::{
    Core, Generations, HeldPhase, IndexSet, JobError, JobPlan, Moment, WorkerOffer,
    ids::{SlotRef, StepRef},
    state::{Attempt, AttemptPhase, EndedTasks, FailureHistory, Job, JobEnd, JobPhase, Presence, TaskPlace},
};

/// The stored state of a job besides its plan. Start from [`RestoredJob::new`] and fill the steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoredJob {
    pub state: JobState,
    /// One for each step of the plan.
    pub steps: Vec<RestoredStep>,
}

/// The stored state of a step. Tasks that are in none of `done`, `failed` and `cancelled` wait or have an open attempt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoredStep {
    /// Tasks whose present generation is committed.
    pub done: IndexSet,
    pub failed: IndexSet,
    /// The tasks of the last [`crate::Record::CancelledTasks`].
    pub cancelled: IndexSet,
    /// Only those above 0 need be set.
    pub generations: Generations,
    /// Tasks that failed or were lost since they were last reset.
    pub histories: Vec<RestoredHistory>,
    /// Open attempts, and expired ones that count in `histories` and may still deliver.
    pub attempts: Vec<RestoredAttempt>,
}

/// The failure history of a task that has not been committed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoredHistory {
    pub task: TaskIndex,
    /// The worker of each failed attempt since the task was last reset.
    pub failed_on: Vec<WorkerId>,
    /// The worker of each lost attempt since then.
    pub lost_on: Vec<WorkerId>,
    /// The most bytes of a [`crate::Record::MemoryExceeded`] of the failed attempts.
    pub least_memory: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestoredAttempt {
    pub attempt: AttemptId,
    pub task: TaskIndex,
    pub generation: Generation,
    pub worker: WorkerId,
    pub phase: RestoredPhase,
}

/// The phase of a stored attempt. One streams that was opened by [`crate::Record::StreamOpened`] and never placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestoredPhase {
    Streaming,
    Assigned { slot: SlotIndex },
    Running { slot: SlotIndex },
    Expired { slot: SlotIndex },
}

impl RestoredJob {
    pub fn new(state: JobState, steps: usize) -> Self {
        Self { state, steps: vec![RestoredStep::default(); steps] }
    }

    fn phase(&self) -> JobPhase {
        match self.state {
            JobState::Queued | JobState::Running => JobPhase::Active,
            JobState::Paused => JobPhase::Paused,
            JobState::Completed => JobPhase::Ended(JobEnd::Completed),
            JobState::Failed => JobPhase::Ended(JobEnd::Failed),
            JobState::Cancelled => JobPhase::Ended(JobEnd::Cancelled),
        }
    }

    /// Returns whether a task ever started.
    fn has_begun(&self) -> bool {
        let has_started = |attempt: &RestoredAttempt| {
            matches!(attempt.phase, RestoredPhase::Running { .. } | RestoredPhase::Expired { .. })
        };
        let has_begun = |step: &RestoredStep| {
            !(step.done.is_empty() && step.failed.is_empty()) || step.attempts.iter().any(has_started)
        };
        match self.state {
            JobState::Queued => false,
            JobState::Running => true,
            _ => self.steps.iter().any(has_begun),
        }
    }
}

impl Core {
    /// Takes up a job of an earlier epoch. Workers of its open attempts have one lease's time to come back. An open
    /// attempt whose task is no longer open is left out; its worker is told when it joins.
    ///
    /// # Errors
    /// If the core holds a job of this id, or what was stored contradicts itself.
    pub fn restore_job(&mut self, now: Moment, plan: JobPlan, restored: RestoredJob) -> Result<(), JobError> {
        let id = plan.id();
        if self.state.find_job(id).is_some() {
            return Err(JobError::JobExists(id));
        }
        let bad = |what| JobError::BadRestore { job: id, what };
        if restored.steps.len() != plan.steps().len() {
            return Err(bad("it has another number of steps"));
        }
        let (phase, has_begun) = (restored.phase(), restored.has_begun());
        let mut job = self.new_job(plan);
        // A job that has begun no longer waits for its start.
        (job.phase, job.has_begun, job.is_released) = (phase, has_begun, has_begun);
        let filled = self.restore_steps(id, &mut job, restored.steps).inspect_err(|_| self.release_job(&job));
        let mut attempts = filled.map_err(bad)?;
        job.block_tasks();
        for place in 0..job.steps.len() {
            job.steps[place].state = job.step_state(place);
        }
        let has_ended = job.has_ended();
        self.state.add_job(id, job);
        self.release_when_due(now, id);
        if !has_ended {
            self.indexes.active.insert(id);
            self.indexes.unsettled.insert(id);
        }
        // Of two that ran on one slot, the earlier one has left it.
        attempts.sort_by_key(|(_, attempt)| attempt.attempt);
        for (task, attempt) in attempts {
            self.restore_attempt(now, task, attempt);
        }
        Ok(())
    }

    /// Sets the tasks of the steps; returns the attempts.
    fn restore_steps(
        &self,
        id: JobId,
        job: &mut Job,
        stored: Vec<RestoredStep>,
    ) -> Result<Vec<(TaskId, RestoredAttempt)>, &'static str> {
        let has_ended = job.has_ended();
        let mut all = Vec::new();
        for (place, (step, stored)) in job.steps.iter_mut().zip(stored).enumerate() {
            let RestoredStep { done, failed, cancelled, generations, histories, attempts } = stored;
            let with_history = histories.iter().map(|history| history.task);
            let mut named = with_history.chain(attempts.iter().map(|attempt| attempt.task));
            if named.any(|task| task.0 >= step.tasks.count()) {
                return Err("a task is beyond the end of its step");
            }
            if !done.is_empty() || generations != Generations::default() {
                step.first_failures.close();
            }
            step.tasks.restore(EndedTasks { done, failed, cancelled, generations })?;
            for RestoredHistory { task, failed_on, lost_on, least_memory } in histories {
                if !has_ended && step.tasks.place(task) == Some(TaskPlace::Waiting) {
                    let history = FailureHistory::restored(failed_on, lost_on, least_memory);
                    step.tasks.update_history(task, |known| *known = history);
                }
            }
            if has_ended {
                step.tasks.cancel_waiting();
            }
            let of = StepRef::new(id, place);
            all.extend(attempts.into_iter().map(|attempt| (of.task(attempt.task), attempt)));
        }
        if all.iter().any(|(_, attempt)| attempt.attempt.epoch >= self.epoch) {
            return Err("an attempt is of this epoch or a later one");
        }
        Ok(all)
    }

    fn restore_attempt(&mut self, now: Moment, task: TaskId, stored: RestoredAttempt) {
        let lease = Presence::Away { until: self.new_lease(now) };
        let RestoredAttempt { attempt: id, worker, generation, .. } = stored;
        let memory = self.stream_memory(worker, task.into());
        let step = self.state.step_mut(task);
        let phase = match stored.phase {
            RestoredPhase::Expired { slot } => {
                AttemptPhase::Expired { counted: true, was: HeldPhase::Running { slot } }
            }
            RestoredPhase::Running { slot } => AttemptPhase::Running { slot, since: now },
            RestoredPhase::Assigned { slot } => AttemptPhase::queued(slot),
            RestoredPhase::Streaming => AttemptPhase::Streaming { memory },
        };
        if step.tasks.generation(task.index) != generation
            || phase.slot().is_some_and(|slot| slot.0 >= WorkerOffer::MAX_SLOTS)
        {
            return;
        }
        let is_live = phase.is_live();
        if !is_live && step.plan.device.is_some() {
            // The job may have been pinned to another device since; the records do not tell.
            return;
        }
        let tasks = &mut step.tasks;
        match tasks.place(task.index) {
            Some(TaskPlace::Waiting | TaskPlace::Live(_)) if !is_live => {
                tasks.update_history(task.index, |history| history.keep_expired(id));
            }
            Some(TaskPlace::Waiting | TaskPlace::Blocked) if phase.is_streaming() => {
                tasks.stream(task.index, id)
            }
            Some(TaskPlace::Waiting) => tasks.dispatch(task.index, id),
            Some(TaskPlace::Live(_))
                if !phase.is_streaming() && tasks.second_attempt(task.index).is_none() =>
            {
                tasks.speculate(task.index, id);
            }
            _ => return,
        }
        if is_live && !phase.is_streaming() {
            tasks.set_begun(task.index, id, phase.has_begun());
        }
        self.state.attempts.insert(id, Attempt::new(task, worker, generation, phase));
        self.state.touch(worker);
        let known = self.known_worker(worker);
        if !is_live {
            return;
        }
        if matches!(known.presence, Presence::Offline | Presence::Silent) {
            known.presence = lease;
        }
        let Some(slot) = phase.slot() else {
            return self.state.update_streams(worker, |streams| streams.open(id, memory));
        };
        let (slot, attempts) = self.state.slot_and_attempts(SlotRef { worker, slot });
        if phase.has_begun() {
            slot.run(id, attempts);
            self.sync_time_limits(now, worker);
        } else {
            slot.push(id);
        }
    }
}
