//! A job as it stood when an earlier reign ended.

use kiln_types::{AttemptId, Generation, JobState, SlotIndex, StepIndex, TaskId, TaskIndex, WorkerId};

use crate::{
    Core, Generations, HeldPhase, IndexSet, JobError, JobPlan, Moment, WorkerOffer,
    core::step_index,
    job::{Job, JobEnd, JobPhase, Place, Step, Trouble},
    worker::{Attempt, AttemptPhase, Presence},
};

/// What the store knows of a job besides its plan. Start from [`RestoredJob::new`] and fill the steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoredJob {
    pub state: JobState,
    /// One for each step of the plan.
    pub steps: Vec<RestoredStep>,
}

/// Tasks that are in none of `done`, `failed` and `cancelled` and have no open attempt wait.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoredStep {
    /// Tasks whose present generation is committed.
    pub done: IndexSet,
    pub failed: IndexSet,
    /// As the last [`crate::Record::CancelledTasks`] said.
    pub cancelled: IndexSet,
    /// Only those above 0 need be set.
    pub generations: Generations,
    /// Tasks that failed or lapsed since they were last opened.
    pub troubles: Vec<RestoredTrouble>,
    /// Open attempts, and lapsed ones that count in `troubles`: those may yet deliver.
    pub attempts: Vec<RestoredAttempt>,
}

/// What went wrong with a task that has not been committed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoredTrouble {
    pub task: TaskIndex,
    /// Failed attempts since the task was last reopened, each with its worker.
    pub failed_on: Vec<WorkerId>,
    /// Lapsed attempts since then, each with its worker.
    pub lapsed_on: Vec<WorkerId>,
    /// The most bytes that a [`crate::Record::AttemptOutgrew`] of those that failed has named.
    pub outgrew: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestoredAttempt {
    pub attempt: AttemptId,
    pub task: TaskIndex,
    pub generation: Generation,
    pub worker: WorkerId,
    pub slot: SlotIndex,
    pub phase: RestoredPhase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestoredPhase {
    Assigned,
    Running,
    Lapsed,
}

impl RestoredJob {
    pub fn new(state: JobState, steps: usize) -> Self {
        Self { state, steps: vec![RestoredStep::default(); steps] }
    }
}

impl Core {
    /// Takes up a job of an earlier reign. Workers of its open attempts have one lease's time to come back.
    /// An open attempt whose task is not open any more is left out; its worker is told when it joins.
    ///
    /// # Errors
    /// Where the core holds a job of this id, or what was stored contradicts itself.
    pub fn restore_job(&mut self, now: Moment, plan: JobPlan, restored: RestoredJob) -> Result<(), JobError> {
        let id = plan.id();
        if self.jobs.contains_key(&id) {
            return Err(JobError::JobExists(id));
        }
        let bad = |what| JobError::BadRestore { job: id, what };
        if restored.steps.len() != plan.steps().len() {
            return Err(bad("it has another number of steps"));
        }
        let phase = match restored.state {
            JobState::Queued | JobState::Running => JobPhase::Active,
            JobState::Paused => JobPhase::Paused,
            JobState::Completed => JobPhase::Ended(JobEnd::Completed),
            JobState::Failed => JobPhase::Ended(JobEnd::Failed),
            JobState::Cancelled => JobPhase::Ended(JobEnd::Cancelled),
        };
        let has_ended = matches!(phase, JobPhase::Ended(_));
        let (done, live) = (
            |step: &RestoredStep| !step.done.is_empty(),
            |step: &RestoredStep| {
                step.attempts.iter().any(|attempt| attempt.phase != RestoredPhase::Assigned)
            },
        );
        let begun = match restored.state {
            JobState::Queued => false,
            JobState::Running => true,
            _ => restored.steps.iter().any(|step| done(step) || live(step) || !step.failed.is_empty()),
        };
        let mut job = self.job_of(plan);
        let mut attempts = match self.fill(&mut job, restored.steps, has_ended) {
            Ok(attempts) => attempts,
            Err(what) => {
                self.let_go_of(&job);
                return Err(bad(what));
            }
        };
        // What has begun waits for nothing any more.
        (job.phase, job.begun, job.released) = (phase, begun, begun);
        for index in 0..job.steps.len() {
            job.steps[index].state = job.step_state(index);
        }
        self.jobs.insert(id, job);
        self.indexes.changed.insert(id);
        self.release_when_due(now, id);
        if !has_ended {
            self.active.insert(id);
            self.unsettled.insert(id);
        }
        // Later ones last: of two that ran on one slot, the earlier has left it.
        attempts.sort_by_key(|(_, attempt)| attempt.attempt);
        for (step, attempt) in attempts {
            self.restore_attempt(now, TaskId { job: id, step, index: attempt.task }, attempt);
        }
        Ok(())
    }

    /// Sets the steps' sets; returns the attempts.
    fn fill(
        &self,
        job: &mut Job,
        stored: Vec<RestoredStep>,
        has_ended: bool,
    ) -> Result<Vec<(StepIndex, RestoredAttempt)>, &'static str> {
        let mut attempts = Vec::new();
        for (index, (step, stored)) in job.steps.iter_mut().zip(stored).enumerate() {
            let ours = stored.fill(step, has_ended)?;
            attempts.extend(ours.into_iter().map(|attempt| (step_index(index), attempt)));
        }
        if attempts.iter().any(|(_, attempt)| attempt.attempt.epoch >= self.epoch) {
            return Err("an attempt is of this reign or a later one");
        }
        Ok(attempts)
    }

    fn restore_attempt(&mut self, now: Moment, task: TaskId, stored: RestoredAttempt) {
        let lease = Presence::Away { until: self.renewed(now) };
        let RestoredAttempt { attempt: id, worker, generation, slot, .. } = stored;
        let Some(found) = self.step_mut(task) else { return };
        if found.generations.get(task.index) != generation || slot.0 >= WorkerOffer::MAX_SLOTS {
            return;
        }
        let phase = match stored.phase {
            RestoredPhase::Lapsed => AttemptPhase::Late { counted: true, was: HeldPhase::Running },
            RestoredPhase::Running => AttemptPhase::Running { since: now },
            RestoredPhase::Assigned => AttemptPhase::Assigned { recalled: false },
        };
        if !phase.is_live() && found.plan.device.is_some() {
            // The job may have been pinned to another device since: of that the records say nothing.
            return;
        }
        match found.place(task.index) {
            Some(Place::Waiting) => {}
            Some(Place::Live(_)) if !phase.is_live() || !found.twins.contains_key(&task.index) => {}
            _ => return,
        }
        if phase.is_live() && found.live.contains_key(&task.index) {
            found.twins.insert(task.index, id);
        } else if phase.is_live() {
            found.remove_waiting(task.index);
            found.live.insert(task.index, id);
            found.running += u32::from(phase.has_begun());
        } else {
            found.troubles.entry(task.index).or_default().late.push(id);
        }
        let attempt = Attempt {
            task,
            worker,
            generation,
            slot,
            phase,
            charged_ms: 0,
            cold: true,
            frame_ms: None,
            told: None,
        };
        self.attempts.insert(id, attempt);
        self.touch(worker);
        self.know(worker);
        let Some(known) = self.workers.get_mut(&worker).filter(|_| phase.is_live()) else { return };
        if matches!(known.presence, Presence::Offline | Presence::Silent) {
            known.presence = lease;
        }
        let Some(slot) = known.slot_mut(slot) else { return };
        if !phase.has_begun() {
            slot.queue.push_back(id);
            return;
        }
        slot.runs(id, &mut self.attempts);
        self.watch_slots(now, worker);
    }
}

impl RestoredStep {
    /// Sets the step's sets; returns the attempts.
    fn fill(self, step: &mut Step, has_ended: bool) -> Result<Vec<RestoredAttempt>, &'static str> {
        let ended = [&self.done, &self.failed, &self.cancelled];
        let count: u64 = ended.iter().map(|set| u64::from(set.len())).sum();
        let mut all = IndexSet::new();
        for set in ended {
            all.merge(set);
        }
        if u64::from(all.len()) != count {
            return Err("a task is in two states at once");
        }
        let outside = |index: TaskIndex| index.0 >= step.plan.count;
        if all.highest().is_some_and(outside)
            || self.troubles.iter().any(|trouble| outside(trouble.task))
            || self.attempts.iter().any(|attempt| outside(attempt.task))
        {
            return Err("a task is beyond the end of its step");
        }
        if !self.done.is_empty() || self.generations != Generations::default() {
            step.firsts.close();
        }
        step.waiting.subtract(&all);
        step.done = self.done;
        step.failed = self.failed;
        step.cancelled = self.cancelled;
        step.generations = self.generations;
        for stored in self.troubles {
            let RestoredTrouble { task, failed_on, lapsed_on, outgrew } = stored;
            if !has_ended && step.place(task) == Some(Place::Waiting) {
                step.waiting.remove(task);
                // It waits, so it was spared whatever it has failed.
                let trouble = Trouble { failed_on, spared: true, lapsed_on, outgrew, ..Trouble::default() };
                if !trouble.is_over() {
                    step.troubles.insert(task, trouble);
                }
                step.put_waiting(task);
            }
        }
        if has_ended {
            step.cancel_waiting();
        }
        Ok(self.attempts)
    }
}
