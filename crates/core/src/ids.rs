//! References to steps, slots, requirements and fair-share accounts.

use std::cmp::Reverse;

use kiln_types::{JobId, SlotIndex, StepIndex, TaskId, TaskIndex, WorkerId};

/// A step of a job. Steps are ordered by age, because jobs are numbered as they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StepRef {
    pub job: JobId,
    pub step: StepIndex,
}

impl StepRef {
    /// The step of this place in its job. A plan has at most [`crate::JobPlan::MAX_STEPS`] steps.
    pub fn new(job: JobId, place: usize) -> Self {
        Self { job, step: StepIndex(place as u16) }
    }

    pub fn place(self) -> usize {
        usize::from(self.step.0)
    }

    pub fn task(self, index: TaskIndex) -> TaskId {
        TaskId { job: self.job, step: self.step, index }
    }
}

impl From<TaskId> for StepRef {
    fn from(task: TaskId) -> Self {
        Self { job: task.job, step: task.step }
    }
}

/// The order in which the steps of one account are served: the oldest job first, and of a job the last step, which uses
/// up what the others make, so that its first frames are there early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ServeOrder {
    job: JobId,
    step: Reverse<StepIndex>,
}

impl From<StepRef> for ServeOrder {
    fn from(step: StepRef) -> Self {
        Self { job: step.job, step: Reverse(step.step) }
    }
}

impl From<ServeOrder> for StepRef {
    fn from(order: ServeOrder) -> Self {
        Self { job: order.job, step: order.step.0 }
    }
}

/// The reference to a slot of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SlotRef {
    pub worker: WorkerId,
    pub slot: SlotIndex,
}

impl SlotRef {
    /// The slot of this place on its worker. A worker has at most [`crate::WorkerOffer::MAX_SLOTS`] slots.
    pub fn new(worker: WorkerId, place: usize) -> Self {
        Self { worker, slot: SlotIndex(place as u16) }
    }
}

/// A requirement, by its place in the table of requirements: steps that require the same share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RequirementId(pub usize);

/// A user of a project, by its place in the table of fair-share accounts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MemberId(pub usize);

/// The key by which a step waits in the queue of its requirement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueueKey {
    pub priority: u8,
    pub member: MemberId,
}
