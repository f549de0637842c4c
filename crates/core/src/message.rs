//! The inputs and outputs of the core besides jobs: offers and reports of workers, pushes to them, records.

use std::collections::BTreeSet;

use kiln_types::{
    AttemptId, AttemptState, DesiredState, Failure, Generation, JobId, JobState, RevokeReason, SlotIndex,
    StepIndex, TaskId, WorkerId, WorkerState,
};

use crate::{IndexSet, Label, Quarantine, TaskSpan};

/// The offer of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WorkerOffer {
    pub name: String,
    /// Attempts that run at once; more than [`WorkerOffer::MAX_SLOTS`] are not used.
    pub slots: u16,
    pub labels: BTreeSet<Label>,
    /// The worker is not available for now, by its own rules. What it has begun goes on.
    pub unavailable: bool,
    pub cores: u32,
    /// Bytes.
    pub memory: u64,
    /// The memory of each GPU in bytes, 0 where it is not known; at most [`WorkerOffer::MAX_GPUS`] are used.
    pub gpus: Vec<u64>,
}

impl WorkerOffer {
    pub const MAX_SLOTS: u16 = 1024;
    pub const MAX_GPUS: usize = 64;
}

/// The part of its worker's machine that a slot holds while it works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Claim {
    pub cores: u32,
    /// Bytes; 0 where it is not known yet.
    pub memory: u64,
    pub gpus: GpuSet,
}

impl Claim {
    /// A claim of this many bytes and of nothing else.
    pub fn memory(memory: u64) -> Self {
        Self { memory, ..Self::default() }
    }
}

/// GPUs of a worker, by their places in its offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct GpuSet(pub u64);

impl GpuSet {
    pub fn iter(self) -> impl Iterator<Item = u16> {
        (0..64u16).filter(move |index| self.0 >> index & 1 == 1)
    }
}

/// The way in which an attempt left its slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finish {
    /// Every file of the output set is checked and stored; the caller has made sure of that.
    Delivered,
    Failed(Failure),
    /// Unfinished: drained, revoked or never begun. Such an attempt counts against no task.
    Returned,
}

/// The receiver of the core's decisions. It collects them, writes the records of a whole batch in one transaction, and
/// only then sends the pushes.
pub trait Outbox {
    fn push(&mut self, to: WorkerId, push: Push);
    fn record(&mut self, record: Record);
}

/// A message to a worker.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Push {
    /// Run these tasks in this order behind what the slot already has. All are of one step of one job.
    Assign { slot: SlotIndex, claim: Claim, tasks: Vec<Assigned> },
    /// Stop or return the attempt, as the reason says.
    Revoke { attempt: AttemptId, why: RevokeReason },
    /// The state that the farm wants the worker to be in.
    DesiredState(DesiredState),
    /// Begin to stream this task, on no slot and with this claim: only its memory is set.
    Stream { claim: Claim, task: Assigned },
    /// All that a streaming attempt depends on is done: run it behind what this slot already has.
    Place { attempt: AttemptId, slot: SlotIndex, claim: Claim },
    /// One more task that a streaming attempt depends on is done.
    Arrived { attempt: AttemptId },
}

/// A task of a push, with the attempt that it is dispatched as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Assigned {
    pub attempt: AttemptId,
    pub task: TaskId,
    pub generation: Generation,
}

/// A durable consequence. The records of all batches are enough to build the core again: [`crate::Ledger`] does it, and
/// defines the meaning of each.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Record {
    /// The job's state changed. `reason`: of a job that stopped before its tasks had ended.
    JobState { job: JobId, state: JobState, reason: Option<Failure> },
    /// Only for showing: it follows from the other records.
    StepState { job: JobId, step: StepIndex, state: StepState },
    /// The attempt is dispatched to this slot.
    AttemptOpened {
        attempt: AttemptId,
        task: TaskId,
        generation: Generation,
        worker: WorkerId,
        slot: SlotIndex,
    },
    /// The attempt runs.
    AttemptStarted { attempt: AttemptId, task: TaskId },
    /// The attempt ended. `Failed` and `Expired` count against the task. An attempt may be closed a second time: as
    /// `Committed` or `Superseded`, where it delivered after it had expired or was revoked.
    AttemptClosed { attempt: AttemptId, task: TaskId, state: AttemptState, failure: Option<Failure> },
    /// This attempt, which failed or was lost, no longer counts against its task: its worker was the origin. Follows
    /// the record that closed it.
    AttemptForgiven { attempt: AttemptId, task: TaskId },
    /// This attempt, which failed, ran out of memory: its task needs a machine of at least `bytes` for itself, as
    /// long as the failure counts. Follows the record that closed it.
    MemoryExceeded { attempt: AttemptId, task: TaskId, bytes: u64 },
    /// An expired attempt goes on, because its worker came back in time: it is `Running` or `Assigned` again, and its
    /// loss no longer counts.
    AttemptResumed { attempt: AttemptId, task: TaskId, state: AttemptState },
    /// This generation has its output set. At most one for a generation.
    TaskCommitted { task: TaskId, generation: Generation, attempt: AttemptId },
    /// The task has used up its attempts, or its failure stopped the job.
    TaskFailed { task: TaskId, generation: Generation, reason: Failure },
    /// These tasks wait again, in this generation, with no failed or lost attempt counted: they are retried or rendered
    /// again, or a step is that they depend on. Tasks of the span are all of one generation.
    TasksReset { job: JobId, step: StepIndex, tasks: TaskSpan, generation: Generation },
    /// From now on exactly these tasks of the step are cancelled: they do not run until they are reset. Written when a
    /// job ends with tasks that never ran, and when that changes.
    CancelledTasks { job: JobId, step: StepIndex, tasks: IndexSet },
    /// The job is pinned to the device of this label, before the first attempt of it is opened; or no longer pinned, as
    /// nothing of it was delivered and no attempt of it is open.
    JobPinned { job: JobId, device: Option<Label> },
    /// The job is no longer held after its first frames.
    HoldLifted { job: JobId },
    /// The step has grown to `count` tasks.
    StepExtended { job: JobId, step: StepIndex, count: u32 },
    /// The worker is in quarantine, for a new reason or longer than before; or no longer in one.
    WorkerQuarantine { worker: WorkerId, quarantine: Option<Quarantine> },
    /// Only for showing.
    WorkerState { worker: WorkerId, state: WorkerState },
    /// The step that [`crate::Core::add_step`] was given is added to the job.
    StepAdded { job: JobId, step: StepIndex },
    /// The attempt is dispatched to this worker, and streams until [`Record::StreamPlaced`].
    StreamOpened { attempt: AttemptId, task: TaskId, generation: Generation, worker: WorkerId },
    /// The attempt no longer streams: it is dispatched to this slot of its worker.
    StreamPlaced { attempt: AttemptId, task: TaskId, slot: SlotIndex },
}

/// The state of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StepState {
    /// The step waits for another one.
    Waiting,
    /// Tasks may run.
    Open,
    /// Every task is done.
    Completed,
    /// Every task has ended, some of them failed or cancelled.
    Failed,
}
