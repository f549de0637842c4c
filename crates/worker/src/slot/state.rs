//! The states of a slot and their transitions: a state machine without I/O.
//!
//! Every change comes in as one call, is applied at once, and leaves [`SlotEffect`]s for the actor to carry out; the
//! actor reports each outcome as another call. Transitions that follow by themselves are in `advance.rs`. So only one
//! thing happens at a time, and all of it can be tested without a Blender.
//!
//! | from | to | when |
//! |---|---|---|
//! | Cold | Starting | there is work, or a start ahead of work is ordered |
//! | Starting | Idle, Cold | Blender is up; it could not be started |
//! | Idle | Opening | the next frame is of a session that is not open, its bundle is here, memory allows |
//! | Idle | Working | the next frame is of the open session; or the next task is a bake, its bundle is here, memory allows |
//! | Idle | Recycling | the next frame needs another Blender or another trust; the process is worn; the slot closes, is unavailable, or was idle for long |
//! | Opening | Working, Idle | the file is open; it could not be opened and Blender lives |
//! | Working | Working, Idle | the task is done, and its process lives |
//! | Working | Cold | the task has ended, and its process with it, as that of a bake does |
//! | Starting | Recycling | the slot closes |
//! | Opening, Working | Recycling | Blender died or failed, or the task was revoked |
//! | Recycling | Cold | the process has ended |
//!
//! A task without a Blender runs beside the process, in any phase in which that does no work, and does not change it.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use kiln_types::{AttemptId, BlenderSeries, Failure, SessionKey};

use super::{
    effects::{SlotEffect, SlotEnvironment, SlotNotice},
    task::{BlenderTask, SlotTask},
};
use crate::{process::ProcessKind, task::TaskHead};

#[derive(Debug)]
pub(crate) enum SlotPhase {
    /// No process.
    Cold,
    Starting {
        kind: ProcessKind,
    },
    /// A process waits; a file may be open in it.
    Idle {
        kind: ProcessKind,
        open: Option<SessionKey>,
    },
    Opening {
        kind: ProcessKind,
        task: BlenderTask,
    },
    Working {
        kind: ProcessKind,
        task: BlenderTask,
    },
    /// The process is being ended.
    Recycling,
}

/// The task that runs without a Blender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DirectRun {
    None,
    Running(TaskHead),
    /// Cancelled, and not ended yet.
    Cancelled,
}

/// The state of a session's bundle on this machine.
#[derive(Debug)]
pub(super) enum BundleState {
    Coming,
    Here,
    Failed(Failure),
}

/// A slot: the tasks before it, and the process that does them.
#[derive(Debug)]
pub(crate) struct SlotMachine {
    pub(crate) phase: SlotPhase,
    pub(crate) direct: DirectRun,
    pub(super) queue: VecDeque<SlotTask>,
    pub(super) bundles: BTreeMap<SessionKey, BundleState>,
    /// A start that is ordered ahead of work.
    pub(super) ahead: Option<ProcessKind>,
    pub(super) no_memory_since: Option<Instant>,
    /// The worker takes no work: tasks that come are returned, and no process is kept.
    pub(super) unavailable: bool,
    pub(super) closing: bool,
    pub(super) closed: bool,
    pub(super) effects: Vec<SlotEffect>,
}

impl SlotMachine {
    pub(crate) fn new() -> Self {
        Self {
            phase: SlotPhase::Cold,
            direct: DirectRun::None,
            queue: VecDeque::new(),
            bundles: BTreeMap::new(),
            ahead: None,
            no_memory_since: None,
            unavailable: false,
            closing: false,
            closed: false,
            effects: Vec::new(),
        }
    }

    /// Returns the effects since the last call, in their order.
    pub(crate) fn take_effects(&mut self) -> Vec<SlotEffect> {
        std::mem::take(&mut self.effects)
    }

    pub(crate) fn prestart(&mut self, series: BlenderSeries, environment: &impl SlotEnvironment) {
        if !self.unavailable {
            self.ahead = Some(ProcessKind::plain(series));
        }
        self.advance(environment);
    }

    pub(crate) fn enqueue(&mut self, tasks: Vec<SlotTask>, environment: &impl SlotEnvironment) {
        for task in tasks {
            if self.closing || self.unavailable {
                self.tell(SlotNotice::Returned(task.head()));
            } else {
                if let SlotTask::Blender(task) = &task {
                    self.want_bundle(task);
                }
                self.queue.push_back(task);
            }
        }
        self.advance(environment);
    }

    /// Returns a task. One that runs is stopped only if `running`.
    pub(crate) fn revoke(&mut self, attempt: AttemptId, running: bool, environment: &impl SlotEnvironment) {
        if let Some(at) = self.queue.iter().position(|task| task.head().attempt == attempt) {
            if let Some(task) = self.queue.remove(at) {
                self.tell(SlotNotice::Returned(task.head()));
            }
        } else if running && self.current().is_some_and(|task| task.attempt == attempt) {
            self.stop_current();
        }
        self.advance(environment);
    }

    /// Returns the tasks that have not begun, and with `running` the one that has; then ends the process.
    pub(crate) fn close(&mut self, running: bool, environment: &impl SlotEnvironment) {
        self.closing = true;
        self.return_tasks(running, environment);
    }

    /// As [`SlotMachine::close`], until [`SlotMachine::make_available`].
    pub(crate) fn make_unavailable(&mut self, running: bool, environment: &impl SlotEnvironment) {
        self.unavailable = true;
        self.ahead = None;
        self.return_tasks(running, environment);
    }

    pub(crate) fn make_available(&mut self, environment: &impl SlotEnvironment) {
        self.unavailable = false;
        self.advance(environment);
    }

    pub(crate) fn fetched(
        &mut self,
        key: SessionKey,
        result: Result<(), Failure>,
        environment: &impl SlotEnvironment,
    ) {
        if let Some(bundle) = self.bundles.get_mut(&key) {
            *bundle = match result {
                Ok(()) => BundleState::Here,
                Err(failure) => BundleState::Failed(failure),
            };
        }
        self.advance(environment);
    }

    pub(crate) fn started(&mut self, result: Result<(), Failure>, environment: &impl SlotEnvironment) {
        let SlotPhase::Starting { kind } = &self.phase else { return };
        let kind = kind.clone();
        match result {
            Ok(()) => self.phase = SlotPhase::Idle { kind, open: None },
            Err(failure) => {
                self.phase = SlotPhase::Cold;
                // Once: a Blender that does not start ahead of work would not start a moment later.
                self.ahead = None;
                let front = self.queue.front().and_then(SlotTask::blender);
                if self.direct == DirectRun::None && front.is_some_and(|task| task.process() == kind) {
                    self.fail_front(failure);
                }
            }
        }
        self.advance(environment);
    }

    pub(crate) fn opened(
        &mut self,
        result: Result<(), Failure>,
        alive: bool,
        environment: &impl SlotEnvironment,
    ) {
        match std::mem::replace(&mut self.phase, SlotPhase::Cold) {
            SlotPhase::Opening { kind, task } => match result {
                Ok(()) => self.work(kind, task),
                Err(failure) => {
                    self.tell(SlotNotice::Failed { task: task.head, failure, seconds: 0.0 });
                    self.phase = SlotPhase::Idle { kind, open: None };
                    if !alive {
                        self.recycle();
                    }
                }
            },
            other => self.phase = other,
        }
        self.advance(environment);
    }

    /// Ends a task; the actor checks its files. After an error a process that lives is ended: its state is unknown.
    pub(crate) fn worked(
        &mut self,
        result: Result<(), (Failure, f64)>,
        lives: bool,
        environment: &impl SlotEnvironment,
    ) {
        match std::mem::replace(&mut self.phase, SlotPhase::Cold) {
            SlotPhase::Working { kind, task } => {
                if lives {
                    self.phase = SlotPhase::Idle { kind, open: Some(task.key) };
                }
                if let Err((failure, seconds)) = result {
                    self.tell(SlotNotice::Failed { task: task.head, failure, seconds });
                    if lives {
                        self.recycle();
                    }
                }
            }
            other => self.phase = other,
        }
        self.advance(environment);
    }

    /// Ends the task that ran without a Blender. A cancelled one was returned before, whatever came of it.
    pub(crate) fn ran(&mut self, result: Result<(), (Failure, f64)>, environment: &impl SlotEnvironment) {
        let run = std::mem::replace(&mut self.direct, DirectRun::None);
        if let (DirectRun::Running(task), Err((failure, seconds))) = (run, result) {
            self.tell(SlotNotice::Failed { task, failure, seconds });
        }
        self.advance(environment);
    }

    pub(crate) fn recycled(&mut self, environment: &impl SlotEnvironment) {
        if matches!(self.phase, SlotPhase::Recycling) {
            self.phase = SlotPhase::Cold;
        }
        self.advance(environment);
    }

    /// Fails the current task, because its process is not there.
    pub(crate) fn lost(&mut self, failure: &Failure, environment: &impl SlotEnvironment) {
        match self.phase {
            SlotPhase::Opening { .. } => self.opened(Err(failure.clone()), false, environment),
            SlotPhase::Working { .. } => self.worked(Err((failure.clone(), 0.0)), true, environment),
            _ => {}
        }
    }

    /// Ends a process that has waited long with a file open, for its memory.
    pub(crate) fn end_waiting(&mut self, environment: &impl SlotEnvironment) {
        if self.queue.is_empty() && matches!(self.phase, SlotPhase::Idle { open: Some(_), .. }) {
            self.recycle();
        }
        self.advance(environment);
    }

    /// Ends a process after a long time without work: its memory is better used otherwise.
    pub(crate) fn end_idle(&mut self, environment: &impl SlotEnvironment) {
        self.ahead = None;
        if self.queue.is_empty() && matches!(self.phase, SlotPhase::Idle { .. }) {
            self.recycle();
        }
        self.advance(environment);
    }

    /// The task that runs.
    pub(crate) fn current(&self) -> Option<TaskHead> {
        match self.direct {
            DirectRun::Running(task) => Some(task),
            DirectRun::None | DirectRun::Cancelled => self.blender_task().map(|task| task.head),
        }
    }

    pub(crate) fn blender_task(&self) -> Option<&BlenderTask> {
        match &self.phase {
            SlotPhase::Opening { task, .. } | SlotPhase::Working { task, .. } => Some(task),
            _ => None,
        }
    }
}
