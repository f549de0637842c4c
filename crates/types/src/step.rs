//! The steps of a job as data: their tasks, dependencies and products (decision 024).

use std::{fmt, num::NonZeroU16};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{FrameSet, Order, StepIndex, StepKind, TaskIndex};

/// A step of a job. Stored with the job when it is submitted, and never derived again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct StepSpec {
    pub kind: StepKind,
    pub space: TaskSpace,
    pub order: Order,
    /// Dependencies on earlier steps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<StepDependency>,
    pub opens: StepInput,
    /// The step renders pictures: on the device of the job, and with its denoiser.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub renders: bool,
    pub product: ProductKind,
}

/// The tasks of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskSpace {
    One,
    /// One for each frame of the job.
    Frames,
    /// This number of tasks for each frame of the job, in the order of the frames.
    Parts(NonZeroU16),
}

// By hand: the derive does not know `NonZero`.
impl utoipa::PartialSchema for TaskSpace {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        use utoipa::openapi::{ObjectBuilder, OneOfBuilder, Type};
        let parts = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(u16::MAX));
        OneOfBuilder::new()
            .description(Some(
                "The tasks of a step: one, one for each frame, or a number of parts of each frame.",
            ))
            .item(ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["one", "frames"])))
            .item(ObjectBuilder::new().property("parts", parts).required("parts"))
            .into()
    }
}

impl ToSchema for TaskSpace {}

impl TaskSpace {
    /// The tasks of each frame; `None` in a step that is not about single frames.
    pub fn per_frame(self) -> Option<NonZeroU16> {
        match self {
            Self::One => None,
            Self::Frames => Some(NonZeroU16::MIN),
            Self::Parts(parts) => Some(parts),
        }
    }
}

/// A dependency of a step on an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct StepDependency {
    pub step: StepIndex,
    #[serde(default, skip_serializing_if = "is_default")]
    pub scope: DependencyScope,
    #[serde(default, skip_serializing_if = "is_default")]
    pub until: DependencyEnd,
    #[serde(default, skip_serializing_if = "is_default")]
    pub start: DependencyStart,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DependencyScope {
    /// Every task waits for the whole step.
    #[default]
    Step,
    /// A task waits for the tasks of its own frame. Both steps have tasks for the same frames.
    Frame,
}

/// The state that a dependency waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DependencyEnd {
    #[default]
    Done,
    /// Done, failed or cancelled.
    Ended,
}

/// The time at which a task with this dependency may begin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DependencyStart {
    /// The task starts when the dependency is met.
    #[default]
    Met,
    /// The task starts when the first task of the dependency is done. Until all are, the attempt is *streaming*: it has a
    /// worker and no slot.
    FirstDone,
}

impl From<StepIndex> for StepDependency {
    /// Makes a dependency on every task of the step being done.
    fn from(step: StepIndex) -> Self {
        Self { step, scope: DependencyScope::Step, until: DependencyEnd::Done, start: DependencyStart::Met }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The bundle in which the Blender of a step opens the job's .blend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StepInput {
    /// The bundle of the job.
    Job,
    /// A copy of the job's bundle, which the step writes into and no other step uses.
    Copy,
    /// The bundle that this step made.
    Step(StepIndex),
    /// No bundle: the step does not use Blender.
    None,
}

/// The kind of files that a step makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProductKind {
    /// Files of the artist: listed, fetched and counted.
    Output,
    /// A bundle that later steps open, kept as long as the job's inputs.
    Bundle,
    /// Files that later steps use, kept until 24 hours after those steps have used them.
    Intermediate,
    /// Thumbnails, kept as long as the output of their frame.
    Preview,
}

/// The name of a task for a person. Prints as `frame 12`, or `the bake`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskName {
    #[serde(rename = "step_kind")]
    pub kind: StepKind,
    /// Absent in a step that is not about single frames.
    pub frame: Option<i32>,
}

impl TaskName {
    /// The name of a task whose job or step was removed.
    pub const UNKNOWN: Self = Self { kind: StepKind::Render, frame: None };
}

impl fmt::Display for TaskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.kind, self.frame) {
            (StepKind::Render, Some(frame)) => write!(f, "frame {frame}"),
            (kind, Some(frame)) => write!(f, "the {kind} of frame {frame}"),
            (kind, None) => write!(f, "the {kind}"),
        }
    }
}

/// The reasons why steps do not make a job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepsError {
    #[error("no step makes the frames of the job")]
    NoFrames,
    #[error("step {step} needs step {needs}, which is not before it or does not make that")]
    NotBefore { step: StepIndex, needs: StepIndex },
}

/// The steps of a job, in their order. At least one makes its frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSteps {
    steps: Vec<StepSpec>,
    frames_step: StepIndex,
}

impl JobSteps {
    pub fn new(steps: Vec<StepSpec>) -> Result<Self, StepsError> {
        let makes_frames =
            |step: &StepSpec| (step.space, step.product) == (TaskSpace::Frames, ProductKind::Output);
        let frames_step = steps.iter().position(makes_frames).ok_or(StepsError::NoFrames)?;
        for (place, spec) in steps.iter().enumerate() {
            let before = steps.get(..place).unwrap_or_default();
            let has = |needs: StepIndex, is_right: &dyn Fn(&StepSpec) -> bool| {
                let step = step_index(place);
                let found = before.get(usize::from(needs.0)).filter(|found| is_right(found));
                found.map(drop).ok_or(StepsError::NotBefore { step, needs })
            };
            let has_frames = |step: &StepSpec| step.space.per_frame().is_some();
            let reaches = |after: &StepDependency| {
                has(after.step, &|on| {
                    after.scope == DependencyScope::Step || has_frames(spec) && has_frames(on)
                })
            };
            spec.after.iter().try_for_each(reaches)?;
            if let StepInput::Step(made) = spec.opens {
                has(made, &|step| step.product == ProductKind::Bundle)?;
            }
        }
        Ok(Self { steps, frames_step: step_index(frames_step) })
    }

    /// Returns the steps of a job of frames, with or without a bake.
    pub fn of_frames(bakes: bool, order: Order) -> Self {
        let bake = StepSpec {
            kind: StepKind::Bake,
            space: TaskSpace::One,
            order,
            after: Vec::new(),
            opens: StepInput::Copy,
            renders: false,
            product: ProductKind::Bundle,
        };
        let frames_step = StepIndex(u16::from(bakes));
        let first = bakes.then_some(StepIndex(0));
        let render = StepSpec {
            kind: StepKind::Render,
            space: TaskSpace::Frames,
            order,
            after: first.into_iter().map(StepDependency::from).collect(),
            opens: first.map_or(StepInput::Job, StepInput::Step),
            renders: true,
            product: ProductKind::Output,
        };
        Self { steps: bakes.then_some(bake).into_iter().chain([render]).collect(), frames_step }
    }

    /// Returns the steps with this one behind them.
    pub fn with(&self, step: StepSpec) -> Result<Self, StepsError> {
        Self::new(self.steps.iter().cloned().chain([step]).collect())
    }

    pub fn iter(&self) -> impl Iterator<Item = (StepIndex, &StepSpec)> {
        self.steps.iter().enumerate().map(|(place, step)| (step_index(place), step))
    }

    pub fn get(&self, step: StepIndex) -> Option<&StepSpec> {
        self.steps.get(usize::from(step.0))
    }

    /// The step whose tasks are the frames of the job.
    pub fn frames_step(&self) -> StepIndex {
        self.frames_step
    }

    /// The first step of this kind.
    pub fn of_kind(&self, kind: StepKind) -> Option<StepIndex> {
        self.iter().find(|(_, step)| step.kind == kind).map(|(index, _)| index)
    }

    /// The name of a task; `None` if there is no such step.
    pub fn name_of(&self, frames: &FrameSet, step: StepIndex, task: TaskIndex) -> Option<TaskName> {
        let kind = self.get(step)?.kind;
        Some(TaskName { kind, frame: self.frame_of(frames, step, task) })
    }

    /// The frame of a task; `None` in a step that is not about single frames.
    pub fn frame_of(&self, frames: &FrameSet, step: StepIndex, task: TaskIndex) -> Option<i32> {
        match self.get(step)?.space {
            TaskSpace::One => None,
            TaskSpace::Frames => frames.get(task.0),
            TaskSpace::Parts(parts) => frames.get(task.0 / u32::from(parts.get())),
        }
    }

    /// The part of a task; `None` in a step without parts.
    pub fn part_of(&self, step: StepIndex, task: TaskIndex) -> Option<u16> {
        match self.get(step)?.space {
            TaskSpace::One | TaskSpace::Frames => None,
            // Less than a number of 16 bits.
            TaskSpace::Parts(parts) => Some((task.0 % u32::from(parts.get())) as u16),
        }
    }
}

impl StepSpec {
    /// The number of tasks in a job of these frames.
    pub fn tasks(&self, frames: &FrameSet) -> u32 {
        match self.space {
            TaskSpace::One => 1,
            TaskSpace::Frames => frames.len(),
            // More than there may be is refused where the job is planned.
            TaskSpace::Parts(parts) => frames.len().saturating_mul(u32::from(parts.get())),
        }
    }
}

/// A job has far fewer steps than fit (`JobPlan::MAX_STEPS` of kiln-core).
fn step_index(place: usize) -> StepIndex {
    StepIndex(u16::try_from(place).unwrap_or(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_tasks_of_the_step_that_makes_them() {
        let frames: FrameSet = "10-20".parse().unwrap();
        for bakes in [false, true] {
            let steps = JobSteps::of_frames(bakes, Order::Sequential);
            assert_eq!(JobSteps::new(steps.steps.clone()).as_ref(), Ok(&steps));
            let render = steps.frames_step();
            assert_eq!(render, StepIndex(u16::from(bakes)));
            assert_eq!(steps.get(render).unwrap().tasks(&frames), 11);
            assert_eq!(steps.frame_of(&frames, render, TaskIndex(3)), Some(13));
            assert_eq!(steps.frame_of(&frames, render, TaskIndex(11)), None);
            assert_eq!(steps.of_kind(StepKind::Bake), bakes.then_some(StepIndex(0)));
        }
        let baked = JobSteps::of_frames(true, Order::Sequential);
        assert_eq!(baked.get(StepIndex(0)).unwrap().tasks(&frames), 1);
        assert_eq!(baked.frame_of(&frames, StepIndex(0), TaskIndex(0)), None);
        assert_eq!(baked.frame_of(&frames, StepIndex(2), TaskIndex(0)), None);
    }

    #[test]
    fn steps_without_frames_or_out_of_order_are_refused() {
        let good = JobSteps::of_frames(true, Order::Sequential).steps;
        assert_eq!(JobSteps::new(Vec::new()), Err(StepsError::NoFrames));
        assert_eq!(JobSteps::new(good[..1].to_vec()), Err(StepsError::NoFrames));
        let needs =
            |step, needs| Err(StepsError::NotBefore { step: StepIndex(step), needs: StepIndex(needs) });
        let turned: Vec<StepSpec> = good.iter().rev().cloned().collect();
        assert_eq!(JobSteps::new(turned), needs(0, 0));
        let mut late = good.clone();
        late[1].after = vec![StepIndex(1).into()];
        assert_eq!(JobSteps::new(late), needs(1, 1));
        // The bake has no frames to wait for.
        let mut frame_of_bake = good.clone();
        frame_of_bake[1].after[0].scope = DependencyScope::Frame;
        assert_eq!(JobSteps::new(frame_of_bake), needs(1, 0));
        let mut frames_as_bundle = good;
        frames_as_bundle[0].product = ProductKind::Output;
        assert_eq!(JobSteps::new(frames_as_bundle), needs(1, 0));
    }

    #[test]
    fn parts_lie_frame_by_frame() {
        let frames: FrameSet = "5,9".parse().unwrap();
        let mut steps = JobSteps::of_frames(false, Order::Sequential).steps;
        let parts = StepSpec {
            space: TaskSpace::Parts(NonZeroU16::new(3).unwrap()),
            after: vec![StepDependency {
                scope: DependencyScope::Frame,
                until: DependencyEnd::Ended,
                ..StepIndex(0).into()
            }],
            ..steps[0].clone()
        };
        let stored = serde_json::to_string(&parts).unwrap();
        assert!(stored.contains(r#""space":{"parts":3}"#), "{stored}");
        let after = r#""after":[{"step":0,"scope":"frame","until":"ended"}]"#;
        assert!(stored.contains(after), "{stored}");
        assert_eq!(serde_json::from_str::<StepSpec>(&stored).unwrap(), parts);
        assert_eq!(parts.tasks(&frames), 6);
        steps.push(parts);
        let steps = JobSteps::new(steps).unwrap();
        let step = StepIndex(1);
        let all: Vec<_> = (0..7)
            .map(|task| {
                (steps.frame_of(&frames, step, TaskIndex(task)), steps.part_of(step, TaskIndex(task)))
            })
            .collect();
        let place = |frame, part| (Some(frame), Some(part));
        assert_eq!(all[..6], [place(5, 0), place(5, 1), place(5, 2), place(9, 0), place(9, 1), place(9, 2)]);
        assert_eq!(all[6].0, None, "there is no such task");
        assert_eq!(steps.part_of(StepIndex(0), TaskIndex(1)), None);
        assert_eq!(steps.name_of(&frames, step, TaskIndex(4)).unwrap().to_string(), "frame 9");
    }

    /// Stored jobs have this text.
    #[test]
    fn the_stored_form_stays() {
        let steps = JobSteps::of_frames(true, Order::Reverse);
        let stored: Vec<String> =
            steps.iter().map(|(_, step)| serde_json::to_string(step).unwrap()).collect();
        assert_eq!(
            stored,
            [
                r#"{"kind":"bake","space":"one","order":"reverse","opens":"copy","product":"bundle"}"#,
                r#"{"kind":"render","space":"frames","order":"reverse","after":[{"step":0}],"opens":{"step":0},"renders":true,"product":"output"}"#,
            ]
        );
        let read: Vec<StepSpec> = stored.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        assert_eq!(read, steps.steps);
    }
}
