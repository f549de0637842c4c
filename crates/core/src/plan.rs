//! The plan of a job: its scheduling options, its steps, the order between them, and what they require of workers.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    num::NonZeroU16,
};

use kiln_types::{JobId, MAX_TASKS, Order, SessionKey, StepIndex};

use crate::Moment;

/// One thing that a worker has and a step may require, as a person would say it: `Blender 3.4`, `device cuda`,
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

/// The requirement of a step: a worker must offer every one of these labels, room for what a slot of it claims, and one
/// of each limit that it counts against.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    pub labels: BTreeSet<Label>,
    pub room: Room,
    /// Farm-wide limits (licences), by name: how many of each a slot holds while it works.
    pub limits: BTreeMap<String, u32>,
}

/// The room that a slot requires on its worker's machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Room {
    /// At least; 0 for an equal share of the worker's.
    pub cores: u32,
    /// Bytes; 0 where it is not known.
    pub memory: u64,
    /// Bytes that frames were seen to take: room is kept for it beside others, but a machine that has less may try
    /// alone.
    pub learned: u64,
    pub gpus: Gpus,
    /// The machine for itself.
    pub whole: bool,
}

/// The GPUs on which one slot renders a frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Gpus {
    #[default]
    None,
    /// `count` GPUs, each with at least `memory` bytes.
    Some { count: NonZeroU16, memory: u64 },
    /// Every GPU of the worker with at least `memory` bytes; at least one.
    All { memory: u64 },
}

impl Requirement {
    /// The labels that the offer lacks; empty where it fits.
    pub fn missing(&self, offer: &BTreeSet<Label>) -> BTreeSet<Label> {
        self.labels.difference(offer).cloned().collect()
    }
}

impl<L: Into<Label>> FromIterator<L> for Requirement {
    fn from_iter<I: IntoIterator<Item = L>>(labels: I) -> Self {
        Self { labels: labels.into_iter().map(Into::into).collect(), ..Self::default() }
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
    /// The session that a warm process has open: slots that have it are preferred.
    pub session: SessionKey,
    /// Milliseconds without a sign of progress after which an attempt is taken to hang.
    pub hang_ms: Option<u64>,
    /// The devices of which the job is pinned to one, where it may render on several.
    pub device: Option<OpenDevice>,
}

/// The devices on which a step may render. Two of them never make the same picture, so the first worker that takes a
/// task of the job pins all steps of it to one label: the best that the worker has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenDevice {
    /// The label that the step requires until then: every worker that has one of the devices has it.
    pub any: Label,
    /// The session until then. No process ever has it open.
    pub session: SessionKey,
    /// The best first.
    pub options: Vec<DeviceOption>,
}

/// A device to which a job may be pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceOption {
    pub label: Label,
    /// The session of the step on this device.
    pub session: SessionKey,
}

impl StepPlan {
    /// Requires the device of this label, or again whichever there is.
    pub(crate) fn set_device(&mut self, label: Option<&Label>) {
        let Some(device) = &self.device else { return };
        let option = label.and_then(|label| device.options.iter().find(|option| option.label == *label));
        for known in device.options.iter().map(|option| &option.label).chain([&device.any]) {
            self.requires.labels.remove(known);
        }
        self.requires.labels.insert(option.map_or(&device.any, |option| &option.label).clone());
        self.session = option.map_or(device.session, |option| option.session);
    }

    /// A step of `count` tasks, in their order, on any worker.
    pub fn new(count: u32, session: SessionKey) -> Self {
        Self {
            count,
            after: Vec::new(),
            order: Order::Sequential,
            requires: Requirement::default(),
            session,
            hang_ms: None,
            device: None,
        }
    }
}

/// The scheduling options of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchedulingOptions {
    /// Higher is earlier; 0 to 100.
    pub priority: u8,
    pub project: String,
    pub user: String,
    /// Workers that it may be on at once.
    pub max_workers: Option<u32>,
    /// Jobs that must be completed before it starts. One that the core does not hold counts as not completed.
    pub after: BTreeSet<JobId>,
    /// It does not start earlier.
    pub not_before: Option<Moment>,
}

impl SchedulingOptions {
    pub const DEFAULT_PRIORITY: u8 = 50;
    pub const MAX_PRIORITY: u8 = 100;
}

impl Default for SchedulingOptions {
    fn default() -> Self {
        Self {
            priority: Self::DEFAULT_PRIORITY,
            project: String::new(),
            user: String::new(),
            max_workers: None,
            after: BTreeSet::new(),
            not_before: None,
        }
    }
}

/// A job as the core needs it. Valid by construction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobPlan {
    id: JobId,
    options: SchedulingOptions,
    steps: Vec<StepPlan>,
    pinned: Option<Label>,
}

/// The reasons for which steps make no job.
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
        Ok(Self { id, options: SchedulingOptions::default(), steps, pinned: None })
    }

    /// The same steps with these scheduling options; a priority above the highest is the highest.
    pub fn scheduled(mut self, mut options: SchedulingOptions) -> Self {
        options.priority = options.priority.min(SchedulingOptions::MAX_PRIORITY);
        self.options = options;
        self
    }

    /// The same job, pinned to the device of this label.
    pub fn pinned(mut self, label: &Label) -> Self {
        self.steps.iter_mut().for_each(|step| step.set_device(Some(label)));
        self.pinned = Some(label.clone());
        self
    }

    pub fn id(&self) -> JobId {
        self.id
    }

    pub fn steps(&self) -> &[StepPlan] {
        &self.steps
    }

    pub fn options(&self) -> &SchedulingOptions {
        &self.options
    }

    pub(crate) fn into_parts(self) -> (SchedulingOptions, Vec<StepPlan>, Option<Label>) {
        (self.options, self.steps, self.pinned)
    }
}
