//! The steps of a job.

use std::collections::{BTreeMap, BTreeSet};

use kiln_types::{AttemptId, SessionKey, TaskIndex, WorkerId};

use super::{first_failures::FirstFailures, history::FailureHistory, tasks::Tasks};
use crate::{
    IndexSet, StepPlan, StepState,
    estimate::{frame_times::FrameTimes, memory_use::MemoryUse},
    ids::{QueueKey, RequirementId, StepRef},
};

#[derive(Debug)]
pub(crate) struct Step {
    pub plan: StepPlan,
    pub tasks: Tasks,
    pub requirement: RequirementId,
    /// As the plan says.
    pub may_stream: bool,
    /// As last recorded.
    pub state: StepState,
    /// The queue in which it waits for workers.
    pub queued: Option<(RequirementId, QueueKey)>,
    /// The number of its waiting tasks when it was last put there.
    pub offered: u32,
    pub times: FrameTimes,
    pub memory: MemoryUse,
    /// Workers that have delivered tasks of it in this epoch.
    pub delivered_by: BTreeSet<WorkerId>,
    pub first_failures: FirstFailures,
    /// The number of attempts of a task that were stopped for another one elsewhere.
    pub replaced: BTreeMap<TaskIndex, u8>,
}

impl Step {
    pub fn new(of: StepRef, plan: StepPlan, requirement: RequirementId) -> Self {
        Self {
            tasks: Tasks::new(of, plan.order, plan.count),
            requirement,
            may_stream: plan.may_stream(),
            state: if plan.after.is_empty() { StepState::Open } else { StepState::Waiting },
            queued: None,
            offered: 0,
            times: FrameTimes::default(),
            memory: MemoryUse::default(),
            delivered_by: BTreeSet::new(),
            first_failures: FirstFailures::default(),
            replaced: BTreeMap::new(),
            plan,
        }
    }

    /// The next task in the step's order among those that wait; `may` says of one with mishaps whether it may be taken.
    pub fn next(&self, may: impl Fn(&FailureHistory) -> bool) -> Option<TaskIndex> {
        // Where all has failed so far, another task tells more than the same one again.
        self.tasks.next(self.first_failures.have_all_failed(), may)
    }

    /// Adds waiting tasks at the end, up to `count`.
    pub fn grow(&mut self, count: u32) {
        self.plan.count = count;
        self.tasks.grow(count);
    }

    /// Failed and cancelled tasks of `which` wait again, with a clean slate; returns those that do.
    pub fn reset_ended(&mut self, which: &IndexSet) -> IndexSet {
        self.first_failures.forget();
        self.tasks.reset_ended(which)
    }

    /// Done tasks of `which` wait again, in their next generation; returns those that do.
    pub fn reset_done(&mut self, which: &IndexSet) -> IndexSet {
        let reset = self.tasks.reset_done(which);
        if !reset.is_empty() {
            self.first_failures.close();
        }
        reset
    }

    /// See [`Tasks::outdate`].
    pub fn outdate(&mut self, which: &IndexSet, begun: &IndexSet) -> (IndexSet, Vec<AttemptId>) {
        let (reset, expired) = self.tasks.outdate(which, begun);
        if !reset.is_empty() {
            self.first_failures.close();
        }
        (reset, expired)
    }

    /// The session that a worker has open for the step, once its device is chosen; `None` where it opens nothing.
    pub fn session(&self) -> Option<SessionKey> {
        self.plan.session
    }
}
