//! Holds: a job renders the first frames of its order, and goes on when a person resumes it.
//!
//! While a job has a hold, the tasks of its other frames are blocked. When nothing of the first frames is left to do, the
//! job is paused: it is *held*. Resuming it lifts the hold for good.

use kiln_types::{JobId, Order, TaskIndex};

use crate::{
    Core, IndexSet, Outbox, Record,
    state::{Job, JobPhase, order::FrameOrder},
};

/// Returns the first `count` frames of an order of `frames`, by their positions.
pub fn first_in_order(order: Order, frames: u32, count: u32) -> IndexSet {
    let order = FrameOrder::new(order, frames);
    let mut left = IndexSet::first(frames);
    let mut first = IndexSet::default();
    let mut from = order.start();
    while first.len() < count {
        let Some(next) = order.first_in(&left, from) else { break };
        left.remove(next.index);
        first.insert(next.index);
        from = next;
    }
    first
}

impl Job {
    /// The tasks of the step that may be dispatched before the hold; `None` where no hold blocks any.
    pub fn tasks_before_hold(&self, step: usize) -> Option<IndexSet> {
        let plan = &self.steps[step].plan;
        let first = self.hold.as_ref().filter(|_| plan.per_frame.is_some())?;
        Some(plan.tasks_of(first))
    }

    /// Returns whether nothing of the first frames is left to do, and others are blocked.
    pub fn is_held(&self) -> bool {
        self.held_step().is_some()
    }

    /// The first step with tasks that the hold blocks, where the job is held.
    pub fn held_step(&self) -> Option<usize> {
        self.hold.as_ref().filter(|_| !self.has_ended())?;
        let holds_back = |place: usize| {
            let first = self.tasks_before_hold(place).filter(|_| self.is_unlocked(place));
            first.is_some_and(|first| {
                let mut later = self.steps[place].tasks.blocked().clone();
                later.subtract(&first);
                !later.is_empty()
            })
        };
        let mut places = 0..self.steps.len();
        let goes_on = places.clone().any(|place| self.can_progress(place));
        places.find(|place| !goes_on && holds_back(*place))
    }

    fn lift_hold(&mut self) {
        self.hold = None;
        for step in &mut self.steps {
            let all = IndexSet::first(step.tasks.count());
            step.tasks.unblock(&all);
        }
        self.block_tasks();
    }
}

impl Core {
    /// Pauses the job where it has reached its hold.
    pub(crate) fn pause_held(&mut self, id: JobId, out: &mut impl Outbox) {
        if self.state.job(id).phase == JobPhase::Active && self.state.job(id).is_held() {
            let job = self.state.job_mut(id);
            job.phase = JobPhase::Paused;
            out.record(Record::JobState { job: id, state: job.state(), reason: None });
        }
    }

    /// Lifts the hold of a job that is held or active. That of a job that was paused before it was reached stays.
    pub(crate) fn lift_hold(&mut self, id: JobId, out: &mut impl Outbox) {
        let job = self.state.job(id);
        if job.hold.is_some() && (job.phase == JobPhase::Active || job.is_held()) {
            self.state.job_mut(id).lift_hold();
            out.record(Record::HoldLifted { job: id });
            self.record_steps(id, out);
        }
    }

    /// Activates a job that was held, where tasks of its first frames wait again.
    pub(crate) fn wake_held(&mut self, id: JobId, was_held: bool, out: &mut impl Outbox) {
        if was_held && !self.state.job(id).is_held() {
            let job = self.state.job_mut(id);
            job.phase = JobPhase::Active;
            out.record(Record::JobState { job: id, state: job.state(), reason: None });
        }
    }

    /// Checks that no task beyond the first frames of a held job waits, runs or is done.
    pub(crate) fn check_hold(&self, id: JobId, job: &Job) {
        for (place, step) in job.steps.iter().enumerate() {
            let Some(first) = job.tasks_before_hold(place) else { continue };
            let mut begun = step.tasks.waiting();
            begun.merge(step.tasks.done());
            begun.extend((0..step.tasks.count()).map(TaskIndex).filter(|task| step.tasks.is_live(*task)));
            begun.subtract(&first);
            assert!(
                begun.is_empty() || job.has_ended(),
                "job {id} has a hold, and {begun:?} of step {place} are beyond it"
            );
        }
        let is_settled = !self.indexes.unsettled.contains(&id);
        let is_active = job.phase == JobPhase::Active && is_settled;
        assert!(!is_active || !job.is_held(), "job {id} is held and not paused");
    }
}
