//! What a job asks for: steps, the order between them, and what a worker must offer.

use std::{collections::BTreeSet, fmt};

use kiln_types::{JobId, MAX_TASKS, Order, SessionKey, StepIndex};

/// One thing that a worker has and a step may need, as a person would say it: `Blender 3.4`, `device cuda`,
/// `engine CYCLES`. The core compares the texts and knows nothing of what they mean.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(pub String);

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<&str> for Label {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// What a worker must offer to take a step: every one of these labels.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    pub labels: BTreeSet<Label>,
}

impl Requirement {
    pub fn is_met_by(&self, offer: &BTreeSet<Label>) -> bool {
        self.labels.is_subset(offer)
    }

    /// The labels that the offer lacks; empty where it fits.
    pub fn missing(&self, offer: &BTreeSet<Label>) -> BTreeSet<Label> {
        self.labels.difference(offer).cloned().collect()
    }
}

impl<L: Into<Label>> FromIterator<L> for Requirement {
    fn from_iter<I: IntoIterator<Item = L>>(labels: I) -> Self {
        Self { labels: labels.into_iter().map(Into::into).collect() }
    }
}

/// A stage of a job: `count` tasks of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepPlan {
    /// Tasks; 1 to [`MAX_TASKS`].
    pub count: u32,
    /// Steps that must be done, every task of them, before this one starts. Each is lower than this step.
    pub after: Vec<StepIndex>,
    pub order: Order,
    pub requires: Requirement,
    /// What a warm process holds: slots that have it open are preferred.
    pub session: SessionKey,
}

/// A job as the core needs it. Valid by construction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobPlan {
    id: JobId,
    steps: Vec<StepPlan>,
}

/// Why steps make no job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error("the job has no step; give it at least one")]
    NoSteps,
    #[error("the job has more than {} steps; split it into several jobs", JobPlan::MAX_STEPS)]
    TooManySteps,
    #[error("step {0} has no task; give it at least one")]
    NoTasks(StepIndex),
    #[error("step {0} would have more than {MAX_TASKS} tasks; split it into several jobs")]
    TooManyTasks(StepIndex),
    #[error("step {step} waits for step {after}, which is not before it; order the steps")]
    NotBefore { step: StepIndex, after: StepIndex },
}

impl JobPlan {
    pub const MAX_STEPS: usize = 1024;

    /// # Errors
    /// Where there is no step or too many, a step has no task or too many, or one waits for itself or a later.
    pub fn new(id: JobId, steps: Vec<StepPlan>) -> Result<Self, PlanError> {
        if steps.is_empty() {
            return Err(PlanError::NoSteps);
        }
        if steps.len() > Self::MAX_STEPS {
            return Err(PlanError::TooManySteps);
        }
        for (number, step) in steps.iter().enumerate() {
            // Cannot be cut: the number of steps is checked above.
            let index = StepIndex(number as u16);
            match step.count {
                0 => return Err(PlanError::NoTasks(index)),
                count if count > MAX_TASKS => return Err(PlanError::TooManyTasks(index)),
                _ => {}
            }
            if let Some(&after) = step.after.iter().find(|after| **after >= index) {
                return Err(PlanError::NotBefore { step: index, after });
            }
        }
        Ok(Self { id, steps })
    }

    pub fn id(&self) -> JobId {
        self.id
    }

    pub fn steps(&self) -> &[StepPlan] {
        &self.steps
    }

    pub(crate) fn into_steps(self) -> Vec<StepPlan> {
        self.steps
    }
}
