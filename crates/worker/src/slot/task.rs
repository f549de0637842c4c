//! The tasks of a slot: those that need a Blender, and those that need none.

use std::sync::Arc;

use kiln_types::{SessionKey, SessionSpec};

use crate::{
    direct::DirectTask,
    process::{MachineShare, ProcessKind},
    task::TaskHead,
};

/// A task of a slot.
#[derive(Debug, Clone)]
pub(crate) enum SlotTask {
    Blender(BlenderTask),
    Direct(DirectTask),
}

impl SlotTask {
    pub(crate) fn head(&self) -> TaskHead {
        match self {
            Self::Blender(task) => task.head,
            Self::Direct(task) => task.head,
        }
    }

    pub(super) fn blender(&self) -> Option<&BlenderTask> {
        match self {
            Self::Blender(task) => Some(task),
            Self::Direct(_) => None,
        }
    }
}

/// A task for a Blender that has its session open.
#[derive(Debug, Clone)]
pub(crate) struct BlenderTask {
    pub(crate) head: TaskHead,
    pub(crate) action: BlenderAction,
    pub(crate) session: Arc<SessionSpec>,
    pub(crate) key: SessionKey,
    /// A black frame is a failure.
    pub(crate) refuse_black: bool,
    pub(crate) share: MachineShare,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BlenderAction {
    Render(i32),
    /// Bakes a copy of the bundle, and ends the process.
    Bake,
}

impl BlenderTask {
    pub(super) fn process(&self) -> ProcessKind {
        ProcessKind::of_session(&self.session, self.share.clone())
    }
}
