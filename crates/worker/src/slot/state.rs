//! What a slot does next: a state machine without I/O.
//!
//! Every change comes in as one call, is applied at once, and leaves [`Effect`]s for the actor to carry out; the
//! actor reports each outcome as another call. So only one thing happens at a time, and all of it can be tested
//! without a Blender.
//!
//! | from | to | when |
//! |---|---|---|
//! | Cold | Starting | there is work, or a start ahead of work is wished |
//! | Starting | Idle, Cold | Blender is up; it could not be started |
//! | Idle | Opening | the next frame is of a session that is not open, its files are here, memory allows |
//! | Idle | Rendering | the next frame is of the open session |
//! | Idle | Baking | the next task is a bake, its files are here, memory allows |
//! | Idle | Recycling | the next frame needs another Blender or another trust; the process is worn; the slot closes, or rests |
//! | Opening | Rendering, Idle | the file is open; it could not be opened and Blender lives |
//! | Rendering | Rendering, Idle | the frame is done |
//! | Starting | Recycling | the slot closes |
//! | Opening, Rendering | Recycling | Blender died or failed, or the frame was taken back |
//! | Baking | Cold | the bake is over, well or not: its process has ended with it |
//! | Baking | Recycling | the bake was taken back |
//! | Recycling | Cold | the process is gone |

use std::{
    collections::{BTreeMap, VecDeque, btree_map::Entry},
    sync::Arc,
    time::{Duration, Instant},
};

use kiln_types::{AttemptId, BlenderSeries, Failure, FailureCause, SessionKey, SessionSpec};

use super::work::{Kind, Work};
use crate::What;

/// How long frames may wait for memory before they are handed back; meanwhile other slots may steal them.
const MEMORY_PATIENCE: Duration = Duration::from_secs(10);

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
        frame: i32,
    },
    Rendering {
        kind: Kind,
        work: Work,
    },
    Baking {
        work: Work,
    },
    /// The process is being ended.
    Recycling,
}

/// What the actor has to do.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Start a process; where it brings something, with these files.
    Start(Kind, Option<SessionKey>),
    /// Bring a session's files here.
    Fetch(Arc<SessionSpec>),
    Open(Work),
    /// The frame that the work names.
    Render(Work, i32),
    /// And end the process.
    Bake(Work),
    /// End the process; also in the middle of what it does.
    Recycle,
    /// The session's files are no longer wanted here.
    Release(SessionKey),
    /// Look again, with [`Slot::advance`], after this time.
    Wake(Duration),
    Tell(Told),
}

/// What the worker is told.
#[derive(Debug)]
pub(crate) enum Told {
    Began(Work),
    HandedBack(Work),
    Failed {
        work: Work,
        failure: Failure,
        seconds: f64,
    },
    /// The slot has ended for good.
    Closed,
}

/// What the slot must know of the machine around it.
pub(crate) trait Surroundings {
    fn now(&self) -> Instant;
    fn has(&self, series: BlenderSeries) -> bool;
    /// Whether memory allows to open this scene here.
    fn room(&self, work: &Work) -> bool;
    /// Whether rendered frames that wait for their upload leave room for another.
    fn outbox_open(&self) -> bool;
    /// Whether the process has done its share.
    fn worn(&self) -> bool;
}

/// How the next task's files lie.
enum Lie {
    Here(SessionKey),
    Coming,
    Failed,
}

#[derive(Debug)]
enum Files {
    Coming,
    Here,
    Failed(Failure),
}

/// A slot: the frames before it, and the process that renders them.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) phase: Phase,
    queue: VecDeque<Work>,
    files: BTreeMap<SessionKey, Files>,
    /// A start that is wished ahead of work.
    ahead: Option<Kind>,
    no_memory_since: Option<Instant>,
    /// The worker takes no work: what comes is handed back, and no process is kept.
    resting: bool,
    closing: bool,
    closed: bool,
    effects: Vec<Effect>,
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
                if self.queue.front().is_some_and(|work| work.kind() == kind) {
                    self.fail_front(failure);
                }
            }
        }
        self.advance(around);
    }

    pub(crate) fn opened(&mut self, result: Result<(), Failure>, alive: bool, around: &impl Surroundings) {
        match std::mem::replace(&mut self.phase, Phase::Cold) {
            Phase::Opening { kind, work, frame } => match result {
                Ok(()) => self.render(kind, work, frame),
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

    /// A frame has left Blender; its files are the actor's to check. An error ends the process: nobody knows what
    /// state it is in.
    pub(crate) fn rendered(&mut self, result: Result<(), (Failure, f64)>, around: &impl Surroundings) {
        match std::mem::replace(&mut self.phase, Phase::Cold) {
            Phase::Rendering { kind, work } => {
                self.phase = Phase::Idle { kind, open: Some(work.key) };
                if let Err((failure, seconds)) = result {
                    self.tell(Told::Failed { work, failure, seconds });
                    self.recycle();
                }
            }
            other => self.phase = other,
        }
        self.advance(around);
    }

    /// A bake is over, and its process gone; its files are the actor's to check.
    pub(crate) fn baked(&mut self, result: Result<(), (Failure, f64)>, around: &impl Surroundings) {
        match std::mem::replace(&mut self.phase, Phase::Cold) {
            Phase::Baking { work } => {
                if let Err((failure, seconds)) = result {
                    self.tell(Told::Failed { work, failure, seconds });
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
            Phase::Rendering { .. } => self.rendered(Err((failure.clone(), 0.0)), around),
            Phase::Baking { .. } => self.baked(Err((failure.clone(), 0.0)), around),
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

    pub(crate) fn current(&self) -> Option<&Work> {
        match &self.phase {
            Phase::Opening { work, .. } | Phase::Rendering { work, .. } | Phase::Baking { work } => {
                Some(work)
            }
            _ => None,
        }
    }

    /// Takes every step that is possible now.
    pub(crate) fn advance(&mut self, around: &impl Surroundings) {
        while self.step(around) {}
        self.release();
    }

    /// Whether there may be another step at once.
    fn step(&mut self, around: &impl Surroundings) -> bool {
        match &self.phase {
            Phase::Cold if self.closing => {
                if !self.closed {
                    self.closed = true;
                    self.tell(Told::Closed);
                }
                false
            }
            Phase::Cold => self.step_cold(around),
            Phase::Idle { .. } if self.closing || self.resting => {
                self.recycle();
                false
            }
            Phase::Idle { kind, open } => {
                let (kind, open) = (kind.clone(), *open);
                self.step_idle(kind, open, around)
            }
            Phase::Starting { .. }
            | Phase::Opening { .. }
            | Phase::Rendering { .. }
            | Phase::Baking { .. }
            | Phase::Recycling => false,
        }
    }

    fn step_cold(&mut self, around: &impl Surroundings) -> bool {
        let Some(kind) = self.queue.front().map(Work::kind).or_else(|| self.ahead.clone()) else {
            return false;
        };
        if !around.has(kind.series) {
            self.ahead = self.ahead.take().filter(|ahead| ahead.series != kind.series);
            let message = format!(
                "this worker has no Blender {}; `kiln blender install {}` gets one",
                kind.series, kind.series
            );
            self.fail_front(Failure::new(FailureCause::CannotStart, message));
            return true;
        }
        let mut files = None;
        if kind.brings.is_some() {
            // The process reads them when it starts, so it starts when they are here.
            match self.files_of_front() {
                Lie::Here(key) => files = Some(key),
                Lie::Coming => return false,
                Lie::Failed => return true,
            }
        }
        self.phase = Phase::Starting { kind: kind.clone() };
        self.effects.push(Effect::Start(kind, files));
        false
    }

    /// Whether the next task's files are here; where they cannot be had, it has failed, and another is the next.
    fn files_of_front(&mut self) -> Lie {
        let Some(front) = self.queue.front().cloned() else { return Lie::Coming };
        match self.files.get(&front.key) {
            Some(Files::Here) => Lie::Here(front.key),
            Some(Files::Coming) => Lie::Coming,
            Some(Files::Failed(failure)) => {
                let failure = failure.clone();
                self.fail_front(failure);
                // The next frame of it tries again.
                self.files.remove(&front.key);
                if let Some(next) = self.queue.iter().find(|work| work.key == front.key).cloned() {
                    self.want_files(&next);
                }
                Lie::Failed
            }
            None => {
                self.want_files(&front);
                Lie::Coming
            }
        }
    }

    fn step_idle(&mut self, kind: Kind, open: Option<SessionKey>, around: &impl Surroundings) -> bool {
        let Some(front) = self.queue.front() else {
            self.no_memory_since = None;
            return false;
        };
        let wanted = front.kind();
        if wanted != kind && kind.may_become(&wanted) {
            // What is open has the old part.
            self.phase = Phase::Idle { kind: wanted, open: None };
            return true;
        }
        if wanted != kind || around.worn() {
            self.recycle();
            return false;
        }
        if let What::Frame(frame) = front.what
            && open == Some(front.key)
        {
            // Otherwise the outbox calls when it has room again.
            if around.outbox_open()
                && let Some(work) = self.queue.pop_front()
            {
                self.tell(Told::Began(work.clone()));
                self.render(kind, work, frame);
            }
            return false;
        }
        match self.files_of_front() {
            Lie::Here(_) => {}
            Lie::Coming => return false,
            Lie::Failed => return true,
        }
        if self.queue.front().is_some_and(|front| !around.room(front)) {
            return self.wait_for_memory(around);
        }
        self.no_memory_since = None;
        if let Some(work) = self.queue.pop_front() {
            self.tell(Told::Began(work.clone()));
            match work.what {
                What::Bake => {
                    self.effects.push(Effect::Bake(work.clone()));
                    self.phase = Phase::Baking { work };
                }
                What::Frame(frame) => {
                    self.effects.push(Effect::Open(work.clone()));
                    self.phase = Phase::Opening { kind, work, frame };
                }
            }
        }
        false
    }

    fn render(&mut self, kind: Kind, work: Work, frame: i32) {
        self.effects.push(Effect::Render(work.clone(), frame));
        self.phase = Phase::Rendering { kind, work };
    }

    fn wait_for_memory(&mut self, around: &impl Surroundings) -> bool {
        let since = *self.no_memory_since.get_or_insert(around.now());
        if around.now().duration_since(since) >= MEMORY_PATIENCE {
            self.no_memory_since = None;
            self.hand_back_queue();
            return true;
        }
        self.effects.push(Effect::Wake(Duration::from_millis(500)));
        false
    }

    fn want_files(&mut self, work: &Work) {
        if let Entry::Vacant(place) = self.files.entry(work.key) {
            place.insert(Files::Coming);
            self.effects.push(Effect::Fetch(work.session.clone()));
        }
    }

    /// Files that nothing here needs any more are let go.
    fn release(&mut self) {
        let open = match &self.phase {
            Phase::Idle { open, .. } => *open,
            Phase::Opening { work, .. } | Phase::Rendering { work, .. } | Phase::Baking { work } => {
                Some(work.key)
            }
            _ => None,
        };
        let queue = &self.queue;
        let effects = &mut self.effects;
        self.files.retain(|key, _| {
            let wanted = Some(*key) == open || queue.iter().any(|work| work.key == *key);
            if !wanted {
                effects.push(Effect::Release(*key));
            }
            wanted
        });
    }

    fn stop_current(&mut self) {
        if let Phase::Opening { work, .. } | Phase::Rendering { work, .. } | Phase::Baking { work } =
            std::mem::replace(&mut self.phase, Phase::Recycling)
        {
            self.tell(Told::HandedBack(work));
            self.effects.push(Effect::Recycle);
        }
    }

    fn recycle(&mut self) {
        self.phase = Phase::Recycling;
        self.effects.push(Effect::Recycle);
    }

    fn fail_front(&mut self, failure: Failure) {
        if let Some(work) = self.queue.pop_front() {
            self.tell(Told::Began(work.clone()));
            self.tell(Told::Failed { work, failure, seconds: 0.0 });
        }
    }

    fn give_back(&mut self, running: bool, around: &impl Surroundings) {
        self.hand_back_queue();
        if running && self.current().is_some() {
            self.stop_current();
        } else if matches!(self.phase, Phase::Starting { .. }) {
            self.recycle();
        }
        self.advance(around);
    }

    fn hand_back_queue(&mut self) {
        while let Some(work) = self.queue.pop_front() {
            self.tell(Told::HandedBack(work));
        }
    }

    fn tell(&mut self, told: Told) {
        self.effects.push(Effect::Tell(told));
    }
}
