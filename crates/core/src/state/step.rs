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
    pub may_stream: bool,
    /// The state that was last recorded.
    pub state: StepState,
    /// The queue that the step is in.
    pub queued: Option<(RequirementId, QueueKey)>,
    /// The number of waiting tasks when the step was last indexed.
    pub offered: u32,
    pub times: FrameTimes,
    pub memory: MemoryUse,
    /// Workers that have delivered tasks of the step in this epoch.
    pub delivered_by: BTreeSet<WorkerId>,
    pub first_failures: FirstFailures,
    /// The number of attempts of each task that were replaced by one elsewhere.
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

    /// The next waiting task in the step's order; `may` returns whether one with mishaps may be taken.
    pub fn next(&self, may: impl Fn(&FailureHistory) -> bool) -> Option<TaskIndex> {
        // If every attempt has failed so far, another task shows more than the same one again.
        self.tasks.next(self.first_failures.have_all_failed(), may)
    }

    /// Adds waiting tasks at the end, up to `count`.
    pub fn grow(&mut self, count: u32) {
        self.plan.count = count;
        self.tasks.grow(count);
    }

    /// See [`Tasks::reset_ended`].
    pub fn reset_ended(&mut self, which: &IndexSet) -> IndexSet {
        self.first_failures.forget();
        self.tasks.reset_ended(which)
    }

    /// See [`Tasks::reset_done`].
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

    /// The session of the step, once its device is chosen.
    pub fn session(&self) -> Option<SessionKey> {
        self.plan.session
    }
}
