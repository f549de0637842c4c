//! The events of a worker, for the terminal and for programs.

use std::{fmt, time::Duration};

use kiln_types::{DesiredState, Failure, JobId, SlotIndex, StepKind, TaskName, duration::measured};
use serde::{Serialize, Serializer};

/// An event of a worker, for the terminal and for programs. Prints as one line.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum WorkerEvent {
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
    Disconnected {
        why: String,
        /// In seconds in JSON.
        #[serde(rename = "retry_s", serialize_with = "seconds")]
        retry: Duration,
    },
    Assigned {
        job: JobId,
        slot: SlotIndex,
        tasks: Vec<TaskName>,
    },
    /// A task fetches its files as they come, and has no slot yet.
    Streaming {
        job: JobId,
        #[serde(flatten)]
        task: TaskName,
    },
    Started {
        job: JobId,
        slot: SlotIndex,
        #[serde(flatten)]
        task: TaskName,
    },
    /// The task has left its slot; its files are checked and uploaded next.
    Rendered {
        job: JobId,
        slot: SlotIndex,
        #[serde(flatten)]
        task: TaskName,
        seconds: f64,
        /// Seconds from the end of the slot's frame before to the start of this one, by the host's own clock, if
        /// this one was waiting by then.
        #[serde(skip_serializing_if = "Option::is_none")]
        gap: Option<f64>,
    },
    Delivered {
        job: JobId,
        #[serde(flatten)]
        task: TaskName,
    },
    Failed {
        job: JobId,
        #[serde(flatten)]
        task: TaskName,
        failure: Failure,
    },
    Returned {
        job: JobId,
        #[serde(flatten)]
        task: TaskName,
    },
    DesiredState {
        desired: DesiredState,
    },
    /// The worker takes no work, by its own settings; `why` is a part of a sentence, such as `asleep until 08:00`.
    Unavailable {
        why: String,
    },
    /// The worker takes work again.
    Available,
    Draining,
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

impl fmt::Display for WorkerEvent {
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
            Self::Disconnected { why, retry } => {
                write!(f, "{why}; trying again in {}", measured(retry.as_secs_f64()))
            }
            Self::Assigned { job, tasks, .. } => {
                let tasks: Vec<String> = tasks.iter().map(ToString::to_string).collect();
                write!(f, "job {job}: got {}", tasks.join(", "))
            }
            Self::Streaming { job, task } => write!(f, "job {job}: {task} waits for files"),
            Self::Started { job, task, .. } => write!(f, "job {job}: {task} begins"),
            Self::Rendered { job, task, seconds, .. } => {
                let done = if task.kind == StepKind::Render { "rendered" } else { "done" };
                write!(f, "job {job}: {task} {done} in {}", measured(*seconds))
            }
            Self::Delivered { job, task } => write!(f, "job {job}: {task} delivered"),
            Self::Failed { job, task, failure } => write!(f, "job {job}: {task} failed: {failure}"),
            Self::Returned { job, task } => write!(f, "job {job}: {task} returned"),
            Self::DesiredState { desired: DesiredState::Active } => {
                write!(f, "the farm activated this worker")
            }
            Self::DesiredState { desired: DesiredState::Paused } => write!(f, "the farm paused this worker"),
            Self::DesiredState { desired: DesiredState::Draining } => {
                write!(f, "the farm drains this worker")
            }
            Self::DesiredState { desired: DesiredState::Stopped } => {
                write!(f, "the farm stopped this worker")
            }
            Self::Unavailable { why } => write!(f, "taking no work: {why}"),
            Self::Available => write!(f, "taking work again"),
            Self::Draining => write!(f, "returning unfinished tasks"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_reads_the_step_and_the_frame() {
        let started = |kind, frame| WorkerEvent::Started {
            job: JobId(7),
            slot: SlotIndex(0),
            task: TaskName { kind, frame },
        };
        let (frame, bake) = (started(StepKind::Render, Some(5)), started(StepKind::Bake, None));
        let json = |event| serde_json::to_string(event).unwrap();
        assert_eq!(json(&frame), r#"{"kind":"started","job":7,"slot":0,"step_kind":"render","frame":5}"#);
        assert_eq!(json(&bake), r#"{"kind":"started","job":7,"slot":0,"step_kind":"bake","frame":null}"#);
        assert_eq!(bake.to_string(), "job 7: the bake begins");
        assert_eq!(frame.to_string(), "job 7: frame 5 begins");
    }
}
