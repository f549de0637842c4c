//! The life of jobs: new, settled, ended, reopened.

use std::collections::BTreeMap;

use kiln_types::{AttemptId, Failure, JobId};

use crate::{
    Core, IndexSet, JobPlan, Outbox, Record, RevokeReason, StepDependency, StepPlan,
    ids::StepRef,
    state::{Job, JobEnd, JobPhase, Step},
};

impl Core {
    /// A new job. Holds its requirements, sessions and account.
    pub(crate) fn new_job(&mut self, plan: JobPlan) -> Job {
        let id = plan.id();
        let hold = plan.hold().cloned();
        let (options, steps, pinned) = plan.into_parts();
        let member = self.fair_share.open(&options.project, &options.user);
        let steps = steps.into_iter().enumerate();
        let steps = steps.map(|(place, plan)| self.new_step(StepRef::new(id, place), plan));
        Job { options, member, steps: steps.collect(), pinned, hold, ..Job::default() }
    }

    fn new_step(&mut self, of: StepRef, plan: StepPlan) -> Step {
        let requirement = self.hold_requirement(&plan.requires);
        plan.all_sessions().for_each(|session| self.indexes.hold_session(session));
        Step::new(of, plan, requirement)
    }

    /// Adds a step that fits the job, on the device of the job.
    pub(crate) fn append_step(&mut self, id: JobId, mut plan: StepPlan) {
        let job = self.state.job(id);
        plan.set_device(job.pinned.as_ref());
        let step = self.new_step(StepRef::new(id, job.steps.len()), plan);
        let job = self.state.job_mut(id);
        job.steps.push(step);
        job.block_tasks();
    }

    /// Releases the requirements, sessions and account of a job that is in no index.
    pub(crate) fn release_job(&mut self, job: &Job) {
        job.steps.iter().for_each(|step| self.release_step(step));
        self.fair_share.close(job.member);
    }

    /// Releases the requirement and the sessions of a step that is in no index.
    pub(crate) fn release_step(&mut self, step: &Step) {
        self.requirements.release(step.requirement);
        step.plan.all_sessions().for_each(|session| self.indexes.release_session(session));
    }

    /// Notes that a task of the job has started.
    pub(crate) fn begin_job(&mut self, id: JobId, out: &mut impl Outbox) {
        let job = self.state.job_quietly(id);
        if !std::mem::replace(&mut job.has_begun, true) && job.phase == JobPhase::Active {
            out.record(Record::JobState { job: id, state: job.state(), reason: None });
        }
    }

    /// Ends the job if no task of it can run, and records the changes of its steps.
    pub(crate) fn settle(&mut self, id: JobId, out: &mut impl Outbox) {
        self.pause_held(id, out);
        let job = self.state.job(id);
        match job.end().filter(|_| !job.has_ended()) {
            Some(end) => self.end_job(id, end, None, out),
            None => self.record_steps(id, out),
        }
    }

    pub(crate) fn record_steps(&mut self, id: JobId, out: &mut impl Outbox) {
        let job = self.state.job_quietly(id);
        for place in 0..job.steps.len() {
            let state = job.step_state(place);
            if std::mem::replace(&mut job.steps[place].state, state) != state {
                out.record(Record::StepState { job: id, step: StepRef::new(id, place).step, state });
            }
        }
    }

    /// Revokes the live attempts of the job, cancels its waiting tasks, and closes it.
    pub(crate) fn end_job(&mut self, id: JobId, end: JobEnd, reason: Option<Failure>, out: &mut impl Outbox) {
        for place in 0..self.state.job(id).steps.len() {
            let of = StepRef::new(id, place);
            let live: Vec<_> = self.state.step(of).tasks.attempts().collect();
            for attempt in live {
                self.revoke(attempt, RevokeReason::Cancelled, out);
            }
            let tasks = &mut self.state.step_mut(of).tasks;
            if tasks.cancel_waiting() {
                let tasks = tasks.cancelled().clone();
                out.record(Record::CancelledTasks { job: id, step: of.step, tasks });
            }
            let expired = tasks.forget_histories();
            self.state.attempts.remove_all(expired);
        }
        self.indexes.active.remove(&id);
        let job = self.state.job_mut(id);
        job.phase = JobPhase::Ended(end);
        let state = job.state();
        self.record_steps(id, out);
        out.record(Record::JobState { job: id, state, reason });
        if end == JobEnd::Completed {
            let dependents = self.indexes.dependents.get(&id).into_iter().flatten();
            self.indexes.released.extend(dependents);
        }
    }

    /// Opens an ended job again, which has tasks that wait.
    pub(crate) fn reopen_job(&mut self, id: JobId, out: &mut impl Outbox) {
        let job = self.state.job_mut(id);
        if job.has_ended() {
            job.phase = JobPhase::Active;
            out.record(Record::JobState { job: id, state: job.state(), reason: None });
            self.indexes.active.insert(id);
        }
        self.settle(id, out);
    }

    /// Resets the tasks that depend on these, whose outputs are made again. `counts`: see [`Job::dependents`].
    pub(crate) fn outdate_dependents(
        &mut self,
        id: JobId,
        changed: BTreeMap<usize, IndexSet>,
        counts: impl Fn(&StepDependency) -> bool,
        out: &mut impl Outbox,
    ) {
        for (place, tasks) in self.state.job(id).dependents(changed, counts) {
            let later = StepRef::new(id, place);
            let known = &self.state.step(later).tasks;
            let is_in = |attempt: &AttemptId| tasks.contains(self.state.attempt(*attempt).task.index);
            let live: Vec<AttemptId> = known.attempts().filter(is_in).collect();
            let gone = live.into_iter().filter_map(|id| self.revoke(id, RevokeReason::Stale, out));
            // A stream has made nothing from the old input that could be delivered.
            let gone = gone.filter(|gone| !gone.phase.is_streaming());
            let mut begun: IndexSet = gone.map(|gone| gone.task.index).collect();
            let step = self.state.step_mut(later);
            reset_ended(later, step, &tasks, out);
            // An expired attempt that ran on the old input may still deliver, and must find its generation closed.
            let with_expired = step.tasks.histories().filter(|(_, history)| !history.expired().is_empty());
            begun.extend(with_expired.map(|(task, _)| task).filter(|task| tasks.contains(*task)));
            let (reset, expired) = step.outdate(&tasks, &begun);
            record_reset(later, step, &reset, out);
            self.state.attempts.remove_all(expired);
        }
        self.state.job_mut(id).block_tasks();
    }
}

/// Lets failed and cancelled tasks among these wait again; returns them.
pub(crate) fn reset_ended(of: StepRef, step: &mut Step, which: &IndexSet, out: &mut impl Outbox) -> IndexSet {
    let cancelled = step.tasks.cancelled().len();
    let reset = step.reset_ended(which);
    if step.tasks.cancelled().len() != cancelled {
        let tasks = step.tasks.cancelled().clone();
        out.record(Record::CancelledTasks { job: of.job, step: of.step, tasks });
    }
    record_reset(of, step, &reset, out);
    reset
}

/// Records that these tasks wait again, each in its present generation.
pub(crate) fn record_reset(of: StepRef, step: &Step, tasks: &IndexSet, out: &mut impl Outbox) {
    for span in tasks.spans() {
        for (tasks, generation) in step.tasks.generations(span) {
            out.record(Record::TasksReset { job: of.job, step: of.step, tasks, generation });
        }
    }
}
