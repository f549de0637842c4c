//! The plan of a job: its scheduling options, its steps, the order between them, and what they require of workers.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    num::{NonZeroU16, NonZeroU32},
    ops::Range,
};

use kiln_types::{
    DependencyScope, DependencyStart, JobId, MAX_TASKS, Order, SessionKey, StepDependency, StepIndex,
    TaskIndex,
};

use crate::{IndexSet, Moment, TaskSpan};

/// A property that a worker has and a step may require, as a person would say it: `Blender 3.4`, `device cuda`,
/// `engine CYCLES`. The core only compares the texts.
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

/// The requirement of a step: labels that a worker must offer, room for the claim of a slot, and limits.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    pub labels: BTreeSet<Label>,
    pub room: Room,
    /// The number that a slot holds of each farm-wide limit (licence) while it works.
    pub limits: BTreeMap<String, u32>,
}

/// The room that a slot requires on its worker's machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Room {
    /// At least; 0 for an equal share of the worker's.
    pub cores: u32,
    /// Bytes; 0 where it is not known.
    pub memory: u64,
    /// Bytes that frames were seen to take: they are kept free beside others, but a machine that has less may try a
    /// frame alone.
    pub learned: u64,
    pub gpus: Gpus,
    /// The slot has the machine for itself.
    pub whole: bool,
}

/// The GPUs on which one slot renders a frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Gpus {
    #[default]
    None,
    /// `count` GPUs, each with at least `memory` bytes.
    Some { count: NonZeroU16, memory: u64 },
    /// Every GPU of the worker with at least `memory` bytes; it must have one.
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

/// The plan of a step: tasks of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepPlan {
    /// The number of tasks; 1 to [`MAX_TASKS`].
    pub count: u32,
    /// The number of tasks for each frame, those of the first frame first; `None` where tasks are not about frames.
    pub per_frame: Option<NonZeroU32>,
    /// The dependencies, each on a step before this one.
    pub after: Vec<StepDependency>,
    pub order: Order,
    pub requires: Requirement,
    /// The session that a warm process has open: slots that have it are preferred. `None`: tasks open none and leave the
    /// process's as it is.
    pub session: Option<SessionKey>,
    /// The speed of a worker is learned from the times of these tasks.
    pub measures_speed: bool,
    /// Milliseconds without a sign of progress after which an attempt is taken to hang.
    pub hang_ms: Option<u64>,
    /// The devices to choose from, where the job may render on several.
    pub device: Option<OpenDevice>,
}

/// The devices on which a step may render. Two of them never make the same picture, so the first worker that takes a
/// task of the job pins all steps of it to one label: the best that the worker has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenDevice {
    /// The label that the step requires until the job is pinned: every worker with one of the devices has it.
    pub any: Label,
    /// The session until the job is pinned. No process ever has it open.
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
    /// Requires the device of this label; without one, any of the devices.
    pub(crate) fn set_device(&mut self, label: Option<&Label>) {
        let Some(device) = &self.device else { return };
        let option = label.and_then(|label| device.options.iter().find(|option| option.label == *label));
        for known in device.options.iter().map(|option| &option.label).chain([&device.any]) {
            self.requires.labels.remove(known);
        }
        self.requires.labels.insert(option.map_or(&device.any, |option| &option.label).clone());
        self.session = Some(option.map_or(device.session, |option| option.session));
    }

    /// Returns whether tasks may begin before all that they depend on is done.
    pub(crate) fn may_stream(&self) -> bool {
        self.after.iter().any(|after| after.start == DependencyStart::FirstDone)
    }

    /// The number of frames, where tasks are about frames.
    fn frames(&self) -> Option<u32> {
        self.per_frame.map(|tasks| self.count / tasks)
    }

    /// The tasks of these frames, which are given by their positions. Empty where tasks are not about frames.
    pub(crate) fn tasks_of(&self, frames: &IndexSet) -> IndexSet {
        self.map_spans(frames, |tasks, first, end| first * tasks..end * tasks)
    }

    /// The positions of the frames that have one of these tasks.
    pub(crate) fn frames_of(&self, tasks: &IndexSet) -> IndexSet {
        self.map_spans(tasks, |each, first, end| first / each..end.div_ceil(each))
    }

    /// The positions of the frames that have all their tasks among these.
    pub(crate) fn whole_frames_of(&self, tasks: &IndexSet) -> IndexSet {
        self.map_spans(tasks, |each, first, end| first.div_ceil(each)..end / each)
    }

    /// The union of the ranges that `to` makes of the number of tasks for each frame and the half-open range of each span.
    fn map_spans(&self, set: &IndexSet, to: impl Fn(u32, u32, u32) -> Range<u32>) -> IndexSet {
        let mut all = IndexSet::default();
        let Some(each) = self.per_frame.map(NonZeroU32::get) else { return all };
        for span in set.spans() {
            let range = to(each, span.first.0, span.last.0 + 1);
            if !range.is_empty() {
                all.insert_span(TaskSpan { first: TaskIndex(range.start), last: TaskIndex(range.end - 1) });
            }
        }
        all
    }

    /// Checks that the step may follow these steps of its job.
    pub(crate) fn validate<'a>(
        &self,
        before: impl ExactSizeIterator<Item = &'a StepPlan> + Clone,
    ) -> Result<(), PlanError> {
        if before.len() >= JobPlan::MAX_STEPS {
            return Err(PlanError::TooManySteps);
        }
        let step = StepIndex(before.len() as u16);
        match self.count {
            0 => return Err(PlanError::NoTasks(step)),
            count if count > MAX_TASKS => return Err(PlanError::TooManyTasks(step)),
            _ => {}
        }
        if self.per_frame.is_some_and(|tasks| !self.count.is_multiple_of(tasks.get())) {
            return Err(PlanError::PartOfFrame(step));
        }
        for &StepDependency { step: after, scope, .. } in &self.after {
            let Some(on) = before.clone().nth(usize::from(after.0)) else {
                return Err(PlanError::NotBefore { step, after });
            };
            if scope == DependencyScope::Frame && (self.frames().is_none() || on.frames() != self.frames()) {
                return Err(PlanError::OtherFrames { step, after });
            }
        }
        Ok(())
    }

    /// A step of `count` tasks in sequential order, on any worker.
    pub fn new(count: u32, session: impl Into<Option<SessionKey>>) -> Self {
        Self {
            count,
            per_frame: None,
            after: Vec::new(),
            order: Order::Sequential,
            requires: Requirement::default(),
            session: session.into(),
            measures_speed: true,
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
    /// The most workers that the job may be on at once.
    pub max_workers: Option<u32>,
    /// Jobs that must be completed before this one starts. One that the core does not hold counts as not completed.
    pub after: BTreeSet<JobId>,
    /// The start time.
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

/// A validated job, as the core needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobPlan {
    id: JobId,
    options: SchedulingOptions,
    steps: Vec<StepPlan>,
    pinned: Option<Label>,
    hold: Option<IndexSet>,
}

/// The reason for which steps make no job.
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
    #[error("step {0} does not have the same number of tasks for each frame")]
    PartOfFrame(StepIndex),
    #[error("step {step} waits for the frames of step {after}, but has other frames")]
    OtherFrames { step: StepIndex, after: StepIndex },
    #[error("the job is held after frames that it does not have")]
    NoSuchFrames,
}

impl JobPlan {
    pub const MAX_STEPS: usize = 1024;

    /// # Errors
    /// If there is no step or too many, a step has no task, too many or a part of a frame, or a step waits for one that is
    /// not before it or for frames that it does not have.
    pub fn new(id: JobId, steps: Vec<StepPlan>) -> Result<Self, PlanError> {
        if steps.is_empty() {
            return Err(PlanError::NoSteps);
        }
        steps.iter().enumerate().try_for_each(|(place, step)| step.validate(steps[..place].iter()))?;
        Ok(Self { id, options: SchedulingOptions::default(), steps, pinned: None, hold: None })
    }

    /// Sets the scheduling options; a priority above the highest is the highest.
    pub fn scheduled(mut self, mut options: SchedulingOptions) -> Self {
        options.priority = options.priority.min(SchedulingOptions::MAX_PRIORITY);
        self.options = options;
        self
    }

    /// Pins the job to the device of this label.
    pub fn pinned(mut self, label: &Label) -> Self {
        self.steps.iter_mut().for_each(|step| step.set_device(Some(label)));
        self.pinned = Some(label.clone());
        self
    }

    /// The same job, paused when these frames, by their positions, are rendered.
    ///
    /// # Errors
    /// If no step of the job has one of these frames.
    pub fn held_after(mut self, first: IndexSet) -> Result<Self, PlanError> {
        let frames = self.steps.iter().filter_map(StepPlan::frames).max().unwrap_or(0);
        if !IndexSet::first(frames).contains_all(&first) {
            return Err(PlanError::NoSuchFrames);
        }
        self.hold = Some(first);
        Ok(self)
    }

    pub fn hold(&self) -> Option<&IndexSet> {
        self.hold.as_ref()
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
