//! The states of a slot and what changes them: a state machine without I/O.
//!
//! Every change comes in as one call, is applied at once, and leaves [`Effect`]s for the actor to carry out; the
//! actor reports each outcome as another call, and what follows of itself is in `advance.rs`. So only one thing happens at a time, and all of it can be tested
//! without a Blender.
//!
//! | from | to | when |
//! |---|---|---|
//! | Cold | Starting | there is work, or a start ahead of work is wished |
//! | Starting | Idle, Cold | Blender is up; it could not be started |
//! | Idle | Opening | the next frame is of a session that is not open, its files are here, memory allows |
//! | Idle | Working | the next frame is of the open session; or the next task is a bake, its files are here, memory allows |
//! | Idle | Recycling | the next frame needs another Blender or another trust; the process is worn; the slot closes, rests, or has done nothing for long |
//! | Opening | Working, Idle | the file is open; it could not be opened and Blender lives |
//! | Working | Working, Idle | the task is done, and its process lives |
//! | Working | Cold | the task is over, well or not, and its process has ended with it, as that of a bake does |
//! | Starting | Recycling | the slot closes |
//! | Opening, Working | Recycling | Blender died or failed, or the task was taken back |
//! | Recycling | Cold | the process is gone |

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use kiln_types::{AttemptId, BlenderSeries, Failure, SessionKey};

use super::{
    effect::{Effect, Surroundings, Told},
    work::{Kind, Work},
};

#[derive(Debug)]
pub(crate) enum Phase {
    /// No process.
    Cold,
    Starting {
        kind: Kind,
    },
    /// A process waits; a file may be open in it.
    Idle {
        kind: Kind,
        open: Option<SessionKey>,
    },
    Opening {
        kind: Kind,
        work: Work,
    },
    Working {
        kind: Kind,
        work: Work,
    },
    /// The process is being ended.
    Recycling,
}

/// How a session's files lie.
#[derive(Debug)]
pub(super) enum Files {
    Coming,
    Here,
    Failed(Failure),
}

/// A slot: the frames before it, and the process that renders them.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) phase: Phase,
    pub(super) queue: VecDeque<Work>,
    pub(super) files: BTreeMap<SessionKey, Files>,
    /// A start that is wished ahead of work.
    pub(super) ahead: Option<Kind>,
    pub(super) no_memory_since: Option<Instant>,
    /// The worker takes no work: what comes is handed back, and no process is kept.
    pub(super) resting: bool,
    pub(super) closing: bool,
    pub(super) closed: bool,
    pub(super) effects: Vec<Effect>,
}

impl Slot {
    pub(crate) fn new() -> Self {
        Self {
            phase: Phase::Cold,
            queue: VecDeque::new(),
            files: BTreeMap::new(),
            ahead: None,
            no_memory_since: None,
            resting: false,
            closing: false,
            closed: false,
            effects: Vec::new(),
        }
    }

    /// What is to be done now, in this order.
    pub(crate) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    pub(crate) fn prestart(&mut self, series: BlenderSeries, around: &impl Surroundings) {
        if !self.resting {
            self.ahead = Some(Kind::plain(series));
        }
        self.advance(around);
    }

    pub(crate) fn enqueue(&mut self, works: Vec<Work>, around: &impl Surroundings) {
        for work in works {
            if self.closing || self.resting {
                self.tell(Told::HandedBack(work));
            } else {
                self.want_files(&work);
                self.queue.push_back(work);
            }
        }
        self.advance(around);
    }

    /// Takes a frame back. One that renders is stopped only where `running` says so.
    pub(crate) fn revoke(&mut self, attempt: AttemptId, running: bool, around: &impl Surroundings) {
        if let Some(at) = self.queue.iter().position(|work| work.attempt == attempt) {
            if let Some(work) = self.queue.remove(at) {
                self.tell(Told::HandedBack(work));
            }
        } else if running && self.current().is_some_and(|work| work.attempt == attempt) {
            self.stop_current();
        }
        self.advance(around);
    }

    /// Hands back what has not begun, and with `running` what has; then ends the process.
    pub(crate) fn close(&mut self, running: bool, around: &impl Surroundings) {
        self.closing = true;
        self.give_back(running, around);
    }

    /// As [`Slot::close`], until [`Slot::end_rest`].
    pub(crate) fn begin_rest(&mut self, running: bool, around: &impl Surroundings) {
        self.resting = true;
        self.ahead = None;
        self.give_back(running, around);
    }

    /// Takes work again.
    pub(crate) fn end_rest(&mut self, around: &impl Surroundings) {
        self.resting = false;
        self.advance(around);
    }

    pub(crate) fn fetched(
        &mut self,
        key: SessionKey,
        result: Result<(), Failure>,
        around: &impl Surroundings,
    ) {
        if let Some(files) = self.files.get_mut(&key) {
            *files = match result {
                Ok(()) => Files::Here,
                Err(failure) => Files::Failed(failure),
            };
        }
        self.advance(around);
    }

    pub(crate) fn started(&mut self, result: Result<(), Failure>, around: &impl Surroundings) {
        let Phase::Starting { kind } = &self.phase else { return };
        let kind = kind.clone();
        match result {
            Ok(()) => self.phase = Phase::Idle { kind, open: None },
            Err(failure) => {
                self.phase = Phase::Cold;
                // Once: a Blender that does not start ahead of work would not start a moment later.
                self.ahead = None;
                if self.queue.front().is_some_and(|work| work.process() == kind) {
                    self.fail_front(failure);
                }
            }
        }
        self.advance(around);
    }

    pub(crate) fn opened(&mut self, result: Result<(), Failure>, alive: bool, around: &impl Surroundings) {
        match std::mem::replace(&mut self.phase, Phase::Cold) {
            Phase::Opening { kind, work } => match result {
                Ok(()) => self.work(kind, work),
                Err(failure) => {
                    self.tell(Told::Failed { work, failure, seconds: 0.0 });
                    self.phase = Phase::Idle { kind, open: None };
                    if !alive {
                        self.recycle();
                    }
                }
            },
            other => self.phase = other,
        }
        self.advance(around);
    }

    /// A task is over; its files are the actor's to check. An error ends a process that lives: nobody knows what state it
    /// is in.
    pub(crate) fn worked(
        &mut self,
        result: Result<(), (Failure, f64)>,
        lives: bool,
        around: &impl Surroundings,
    ) {
        match std::mem::replace(&mut self.phase, Phase::Cold) {
            Phase::Working { kind, work } => {
                if lives {
                    self.phase = Phase::Idle { kind, open: Some(work.key) };
                }
                if let Err((failure, seconds)) = result {
                    self.tell(Told::Failed { work, failure, seconds });
                    if lives {
                        self.recycle();
                    }
                }
            }
            other => self.phase = other,
        }
        self.advance(around);
    }

    pub(crate) fn recycled(&mut self, around: &impl Surroundings) {
        if matches!(self.phase, Phase::Recycling) {
            self.phase = Phase::Cold;
        }
        self.advance(around);
    }

    /// The process that should have done this is not there.
    pub(crate) fn lost(&mut self, failure: &Failure, around: &impl Surroundings) {
        match self.phase {
            Phase::Opening { .. } => self.opened(Err(failure.clone()), false, around),
            Phase::Working { .. } => self.worked(Err((failure.clone(), 0.0)), true, around),
            _ => {}
        }
    }

    /// A process that has waited long with a file open gives its memory back.
    pub(crate) fn rest(&mut self, around: &impl Surroundings) {
        if self.queue.is_empty() && matches!(self.phase, Phase::Idle { open: Some(_), .. }) {
            self.recycle();
        }
        self.advance(around);
    }

    /// There has been no work for so long that the memory of a process is better used otherwise.
    pub(crate) fn end_idle(&mut self, around: &impl Surroundings) {
        self.ahead = None;
        if self.queue.is_empty() && matches!(self.phase, Phase::Idle { .. }) {
            self.recycle();
        }
        self.advance(around);
    }

    pub(crate) fn current(&self) -> Option<&Work> {
        match &self.phase {
            Phase::Opening { work, .. } | Phase::Working { work, .. } => Some(work),
            _ => None,
        }
    }
}
