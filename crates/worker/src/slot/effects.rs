//! The effects of a slot's state machine, and the questions that it asks of the machine around it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use kiln_types::{BlenderSeries, Failure, SessionKey, SessionSpec};

use super::task::{BlenderTask, SlotTask};
use crate::{direct::DirectTask, process::ProcessKind, task::TaskHead};

/// An order to the actor.
#[derive(Debug)]
pub(crate) enum SlotEffect {
    /// Start a process, with the files of this session if it has startup files.
    Start(ProcessKind, Option<SessionKey>),
    /// Bring the bundle of a session here.
    Fetch(Arc<SessionSpec>),
    Open(BlenderTask),
    /// Do the task; a bake ends the process too.
    Work(BlenderTask),
    /// Run a task without a Blender.
    Run(DirectTask),
    /// Cancel the task that runs without a Blender.
    CancelRun,
    /// End the process; also in the middle of its work.
    Recycle,
    /// The bundle of the session is no longer used here.
    Release(SessionKey),
    /// Look again, with [`super::state::SlotMachine::advance`], after this time.
    Wake(Duration),
    Tell(SlotNotice),
}

/// A message of a slot's state machine to the worker.
#[derive(Debug)]
pub(crate) enum SlotNotice {
    Started(TaskHead),
    Returned(TaskHead),
    Failed {
        task: TaskHead,
        failure: Failure,
        seconds: f64,
    },
    /// The slot has ended for good.
    Closed,
}

/// The machine around a slot.
pub(crate) trait SlotEnvironment {
    fn now(&self) -> Instant;
    fn has_blender(&self, series: BlenderSeries) -> bool;
    /// Returns true if there is memory for the task's scene, or for the task.
    fn has_memory(&self, task: &SlotTask) -> bool;
    /// Returns true if files that wait for their upload leave room for those of another task.
    fn has_upload_room(&self) -> bool;
    /// Returns true if the process is to be replaced by a fresh one.
    fn is_worn(&self) -> bool;
}
