//! The things that all slots of a worker share, and the messages between them and the worker.

use std::sync::Arc;

use kiln_types::{AttemptId, BlenderSeries, JobId, SlotIndex};

use super::{effects::SlotNotice, task::SlotTask};
use crate::{
    availability::held_memory, bundles::Bundles, hardware::Memory, memory::MemoryClaims, monitor::TaskReport,
    output::TaskOutput, process::ProcessPool, sink::EventSink, task::TaskHead, upload::UploadQueue,
};

/// The things that all slots of a worker share.
#[derive(Debug)]
pub(crate) struct SlotContext {
    pub(crate) processes: Arc<ProcessPool>,
    pub(crate) bundles: Bundles,
    pub(crate) uploads: Arc<UploadQueue>,
    pub(crate) memory: MemoryClaims,
    /// Bytes of memory given to the farm; all if `None`.
    pub(crate) offered: Option<u64>,
    pub(crate) reports: EventSink<TaskReport>,
    pub(crate) events: EventSink<(SlotIndex, SlotEvent)>,
}

impl SlotContext {
    /// The part of the machine's memory that may be used.
    pub(crate) fn memory_now(&self) -> Memory {
        Memory::now().offered(self.offered, held_memory)
    }
}

/// A message to a slot.
#[derive(Debug)]
pub(crate) enum SlotCommand {
    Enqueue(Vec<SlotTask>),
    Revoke {
        attempt: AttemptId,
        running: bool,
    },
    Prestart(BlenderSeries),
    /// Take no work and keep no process. The task that runs is returned with `running`; else it ends, behind all other
    /// programs.
    MakeUnavailable {
        running: bool,
    },
    MakeAvailable,
    /// Keep no idle process, and start none ahead of work.
    EndIdle,
    /// Return everything, with `running` also the task that runs, and end.
    Close {
        running: bool,
    },
    /// Something changed around the slot: look again.
    Poke,
}

/// A message of a slot.
#[derive(Debug)]
pub(crate) enum SlotEvent {
    Notice(SlotNotice),
    Finished(Box<FinishedTask>),
    /// Texts about a job, for its owner.
    JobNotices {
        job: JobId,
        texts: Vec<String>,
    },
}

/// A task that a slot has done.
#[derive(Debug)]
pub(crate) struct FinishedTask {
    pub(crate) task: TaskHead,
    pub(crate) output: TaskOutput,
    /// Seconds.
    pub(crate) seconds: f64,
    /// Bytes.
    pub(crate) peak: u64,
    /// Seconds between the end of the slot's frame before and the start of this one, by the host's clock, if this one
    /// was waiting by then.
    pub(crate) gap: Option<f64>,
}
