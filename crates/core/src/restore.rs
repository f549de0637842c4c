//! A job as it stood when an earlier reign ended.

use kiln_types::{AttemptId, Generation, JobState, SlotIndex, TaskIndex, WorkerId};

use crate::{Generations, IndexSet};

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
    /// Open attempts, and lapsed ones of tasks that are still open: those may yet deliver.
    pub attempts: Vec<RestoredAttempt>,
}

/// What went wrong with a task that has not been committed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoredTrouble {
    pub task: TaskIndex,
    /// Failed attempts since the task was last reopened, each with its worker.
    pub failed_on: Vec<WorkerId>,
    /// Lapsed attempts since then.
    pub lapses: u8,
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
