//! What happens to a worker, for the terminal and for programs.

use std::{fmt, time::Duration};

use kiln_types::{DesiredState, Failure, JobId, SlotIndex, StepKind, TaskName, duration::measured};
use serde::{Serialize, Serializer, ser::SerializeMap};

/// The work that a task asks for. In JSON `"step": "render", "frame": 5`, or `"step": "bake"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskKind {
    Frame(i32),
    /// All simulations of the scene.
    Bake,
}

impl TaskKind {
    /// The work of a task of such a step; `None` if the step is about frames and the task names none.
    pub(crate) fn new(step: StepKind, frame: Option<i32>) -> Option<Self> {
        match step {
            StepKind::Bake => Some(Self::Bake),
            StepKind::Render => frame.map(Self::Frame),
        }
    }

    pub fn step(self) -> StepKind {
        match self {
            Self::Frame(_) => StepKind::Render,
            Self::Bake => StepKind::Bake,
        }
    }
}

impl fmt::Display for TaskKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let frame = match self {
            Self::Frame(frame) => Some(*frame),
            Self::Bake => None,
        };
        TaskName { kind: self.step(), frame }.fmt(f)
    }
}

impl Serialize for TaskKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("step", &self.step())?;
        if let Self::Frame(frame) = self {
            map.serialize_entry("frame", frame)?;
        }
        map.end()
    }
}

/// Something that happened, for the terminal and for programs. Prints as one line.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Happening {
    /// The Blenders that were found, as `3.4.1`.
    Blenders {
        versions: Vec<String>,
    },
    NoBlender,
    Connected {
        name: String,
        slots: u16,
    },
    /// The server cannot be reached; the next try follows after `retry`.
    Away {
        why: String,
        /// In seconds where it is written down.
        #[serde(rename = "retry_s", serialize_with = "seconds")]
        retry: Duration,
    },
    Assigned {
        job: JobId,
        slot: SlotIndex,
        tasks: Vec<TaskKind>,
    },
    Began {
        job: JobId,
        slot: SlotIndex,
        #[serde(flatten)]
        task: TaskKind,
    },
    /// The task has left Blender; its files are checked and uploaded next.
    Rendered {
        job: JobId,
        slot: SlotIndex,
        #[serde(flatten)]
        task: TaskKind,
        seconds: f64,
        /// Seconds from the end of the slot's frame before to the start of this one, by the host's own clock,
        /// where this one was waiting by then.
        #[serde(skip_serializing_if = "Option::is_none")]
        gap: Option<f64>,
    },
    Delivered {
        job: JobId,
        slot: SlotIndex,
        #[serde(flatten)]
        task: TaskKind,
    },
    Failed {
        job: JobId,
        slot: SlotIndex,
        #[serde(flatten)]
        task: TaskKind,
        failure: Failure,
    },
    HandedBack {
        job: JobId,
        slot: SlotIndex,
        #[serde(flatten)]
        task: TaskKind,
    },
    DesiredState {
        desired: DesiredState,
    },
    /// It takes no more work by its own wish; `why` is a sentence's part such as `asleep until 08:00`.
    Rests {
        why: String,
    },
    /// It takes work again.
    Wakes,
    Draining,
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blenders { versions } => write!(f, "found Blender {}", versions.join(", ")),
            Self::NoBlender => write!(
                f,
                "no Blender was found, so this worker gets no frames; get one by `kiln blender install 5.0` or \
                 `apt install blender`, or name one by --blender"
            ),
            Self::Connected { name, slots: 1 } => write!(f, "connected as {name}, with 1 slot"),
            Self::Connected { name, slots } => write!(f, "connected as {name}, with {slots} slots"),
            Self::Away { why, retry } => {
                write!(f, "{why}; trying again in {}", measured(retry.as_secs_f64()))
            }
            Self::Assigned { job, tasks, .. } => {
                let tasks: Vec<String> = tasks.iter().map(ToString::to_string).collect();
                write!(f, "job {job}: got {}", tasks.join(", "))
            }
            Self::Began { job, task, .. } => write!(f, "job {job}: {task} begins"),
            Self::Rendered { job, task, seconds, .. } => {
                let done = if *task == TaskKind::Bake { "done" } else { "rendered" };
                write!(f, "job {job}: {task} {done} in {}", measured(*seconds))
            }
            Self::Delivered { job, task, .. } => write!(f, "job {job}: {task} delivered"),
            Self::Failed { job, task, failure, .. } => {
                write!(f, "job {job}: {task} failed: {failure}")
            }
            Self::HandedBack { job, task, .. } => write!(f, "job {job}: {task} handed back"),
            Self::DesiredState { desired: DesiredState::Work } => {
                write!(f, "the farm wants this worker to work")
            }
            Self::DesiredState { desired: DesiredState::Pause } => {
                write!(f, "the farm has paused this worker")
            }
            Self::DesiredState { desired: DesiredState::Drain } => {
                write!(f, "the farm wants this worker to finish and leave")
            }
            Self::DesiredState { desired: DesiredState::Stop } => {
                write!(f, "the farm has stopped this worker")
            }
            Self::Rests { why } => write!(f, "taking no work: {why}"),
            Self::Wakes => write!(f, "taking work again"),
            Self::Draining => write!(f, "handing back what is not finished"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_reads_the_step_and_the_frame() {
        let began = |task| Happening::Began { job: JobId(7), slot: SlotIndex(0), task };
        let json = |task| serde_json::to_string(&began(task)).unwrap();
        assert_eq!(
            json(TaskKind::Frame(5)),
            r#"{"kind":"began","job":7,"slot":0,"step":"render","frame":5}"#
        );
        assert_eq!(json(TaskKind::Bake), r#"{"kind":"began","job":7,"slot":0,"step":"bake"}"#);
        assert_eq!(began(TaskKind::Bake).to_string(), "job 7: the bake begins");
        assert_eq!(began(TaskKind::Frame(5)).to_string(), "job 7: frame 5 begins");
    }
}
