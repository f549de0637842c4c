//! One slot: an actor that carries out what its state machine says.

mod advance;
mod effect;
mod requests;
mod state;
#[cfg(test)]
mod tests;
mod work;

use std::{
    collections::HashMap,
    future::Future,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use kiln_host::Opened;
use kiln_types::{AttemptId, BlenderSeries, Failure, FailureCause, SessionKey, SlotIndex};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::{AbortHandle, JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

pub(crate) use effect::Told;
use effect::{Effect, Surroundings};
use state::{Phase, Slot};
pub(crate) use work::{Kind, Part, Work};

use crate::{
    TaskKind,
    bundles::{Bundles, Laid},
    hardware::Memory,
    memory::MemoryBook,
    outbox::{Left, LeftFiles, Outbox},
    seat::{Garage, Seat},
    sizing, wishes,
    worker::Input,
};

/// How long a process keeps a file open that nobody renders.
const REST_AFTER: Duration = Duration::from_secs(300);

/// What all slots of a worker share.
#[derive(Debug)]
pub(crate) struct Shop {
    pub(crate) garage: Arc<Garage>,
    pub(crate) bundles: Bundles,
    pub(crate) outbox: Arc<Outbox>,
    /// The folder of all files that have left Blender.
    pub(crate) left: PathBuf,
    pub(crate) memory: MemoryBook,
    /// Bytes of memory given to the farm; all where `None`.
    pub(crate) offered: Option<u64>,
    pub(crate) inputs: UnboundedSender<Input>,
}

impl Shop {
    /// What of the machine's memory may be used.
    pub(crate) fn memory_now(&self) -> Memory {
        Memory::now().offered(self.offered, wishes::presence::held)
    }
}

/// What a slot is told.
#[derive(Debug)]
pub(crate) enum Order {
    Enqueue(Vec<Work>),
    Revoke {
        attempt: AttemptId,
        running: bool,
    },
    Prestart(BlenderSeries),
    /// Take no work and keep no process. What renders is handed back with `running`; else it ends, behind all other
    /// programs.
    Rest {
        running: bool,
    },
    /// Take work again.
    Work,
    /// Keep no process that does nothing, and start none ahead of work.
    EndIdle,
    /// Hand everything back, with `running` also what renders, and end.
    Close {
        running: bool,
    },
    /// Something changed around the slot: look again.
    Poke,
}

/// A task that a slot has done, and how long after the one before it began.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) work: Work,
    pub(crate) left: Left,
    /// Seconds.
    pub(crate) seconds: f64,
    /// Bytes.
    pub(crate) peak: u64,
    /// Seconds between the end of the slot's frame before and the start of this one, by the host's clock, where
    /// this one was waiting by then.
    pub(crate) gap: Option<f64>,
}

/// Starts a slot; ends when told to close, or with the task.
pub(crate) fn start(index: SlotIndex, shop: Arc<Shop>) -> (UnboundedSender<Order>, JoinHandle<()>) {
    let (orders, incoming) = unbounded_channel();
    let actor = Actor {
        index,
        slot: Slot::new(),
        shop,
        seat: None,
        running: None,
        off: CancellationToken::new(),
        laid: HashMap::new(),
        fetches: JoinSet::new(),
        fetching: HashMap::new(),
        wake: None,
        idle_since: None,
        last_end: None,
        pid: None,
        lowered: false,
    };
    (orders, tokio::spawn(actor.run(incoming)))
}

type Running = Pin<Box<dyn Future<Output = Done> + Send>>;

/// What came of what was running.
enum Done {
    Started(Result<Box<Seat>, Failure>),
    Opened(Box<Seat>, Result<Opened, Failure>),
    Worked {
        /// Absent if the process has ended with the task.
        seat: Option<Box<Seat>>,
        /// Seconds.
        took: f64,
        result: Result<WorkDone, Failure>,
    },
    /// The process is gone.
    Gone,
    /// There was nothing to begin with.
    Lost(Failure),
}

/// A task as its process has done it; its files are out of Blender's reach.
struct WorkDone {
    files: LeftFiles,
    log_tail: Vec<String>,
    notices: Vec<String>,
    /// By the host's clock.
    seconds: f64,
    /// Bytes.
    peak_memory: u64,
    /// The begin and the end of a frame, in seconds of the host's clock.
    span: Option<(f64, f64)>,
}

enum Action {
    Order(Option<Order>),
    Done(Done),
    Fetched(SessionKey, Result<Arc<Laid>, Failure>),
    Woken,
}

struct Actor {
    index: SlotIndex,
    slot: Slot,
    shop: Arc<Shop>,
    /// Here while nothing is running with it.
    seat: Option<Box<Seat>>,
    running: Option<Running>,
    /// Calls off what is running, which then ends its process.
    off: CancellationToken,
    laid: HashMap<SessionKey, Arc<Laid>>,
    fetches: JoinSet<(SessionKey, Result<Arc<Laid>, Failure>)>,
    fetching: HashMap<SessionKey, AbortHandle>,
    wake: Option<Instant>,
    idle_since: Option<Instant>,
    last_end: Option<f64>,
    /// Of the process, while there is one.
    pid: Option<u32>,
    /// Whether its priority was taken for good.
    lowered: bool,
}

/// The machine as the state machine sees it.
struct Around<'a> {
    index: SlotIndex,
    shop: &'a Shop,
    laid: &'a HashMap<SessionKey, Arc<Laid>>,
    seat: Option<&'a Seat>,
    alive: bool,
    lowered: bool,
}

impl Surroundings for Around<'_> {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn has(&self, series: BlenderSeries) -> bool {
        self.shop.garage.install(series).is_some()
    }

    fn room(&self, work: &Work) -> bool {
        let size = self.laid.get(&work.key).map_or(0, |laid| laid.size);
        self.shop.memory.room(self.index, work.key, size, self.shop.memory_now())
    }

    fn outbox_open(&self) -> bool {
        self.shop.outbox.is_open()
    }

    fn worn(&self) -> bool {
        // One that died between two frames is no frame's fault.
        !self.alive
            || self.lowered
            || self.seat.is_some_and(|seat| {
                let frames = seat.host.frames_rendered();
                // Looking at the machine's memory takes longer than all else here: only where it could matter.
                let memory = if seat.peak > 1 << 30 {
                    self.shop.memory_now()
                } else {
                    Memory { total: 0, available: u64::MAX }
                };
                sizing::worn(frames, seat.peak, memory.available, memory.total)
            })
    }
}

macro_rules! around {
    ($actor:ident) => {
        &{
            let alive = $actor.seat.as_mut().is_none_or(|seat| seat.host.is_alive());
            Around {
                index: $actor.index,
                shop: &$actor.shop,
                laid: &$actor.laid,
                seat: $actor.seat.as_deref(),
                alive,
                lowered: $actor.lowered,
            }
        }
    };
}

impl Actor {
    async fn run(mut self, mut orders: UnboundedReceiver<Order>) {
        loop {
            let action = self.next(&mut orders).await;
            if self.apply(action) {
                return;
            }
        }
    }

    /// Waits for one thing to happen.
    async fn next(&mut self, orders: &mut UnboundedReceiver<Order>) -> Action {
        let wake = self.wake.into_iter().chain(self.idle_since.map(|since| since + REST_AFTER)).min();
        let sleeping = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        let running = async {
            match &mut self.running {
                Some(running) => running.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            done = running => {
                self.running = None;
                Action::Done(done)
            }
            order = orders.recv() => Action::Order(order),
            Some(fetched) = self.fetches.join_next() => match fetched {
                Ok((key, result)) => Action::Fetched(key, result),
                // Called off.
                Err(_) => Action::Woken,
            },
            () = sleeping => Action::Woken,
        }
    }

    /// Applies one action and what follows from it. Returns whether the slot has ended.
    fn apply(&mut self, action: Action) -> bool {
        let mut made = None;
        match action {
            Action::Order(Some(order)) => self.order(order),
            Action::Order(None) => self.slot.close(true, around!(self)),
            Action::Done(done) => made = self.done(done),
            Action::Fetched(key, result) => self.fetched(key, result),
            Action::Woken => {
                let now = Instant::now();
                self.wake = self.wake.filter(|at| *at > now);
                if self.idle_since.is_some_and(|since| now >= since + REST_AFTER) {
                    self.idle_since = None;
                    self.slot.rest(around!(self));
                }
                self.slot.advance(around!(self));
            }
        }
        let mut closed = false;
        for effect in self.slot.take_effects() {
            closed |= self.carry_out(effect);
        }
        // The next frame is on its way to Blender before anybody looks at this one.
        if let Some(made) = made {
            let _ = self.shop.inputs.send(Input::Made(self.index, Box::new(made)));
        }
        let rests = matches!(self.slot.phase, Phase::Idle { open: Some(_), .. });
        self.idle_since = if rests { self.idle_since.or_else(|| Some(Instant::now())) } else { None };
        if !matches!(self.slot.phase, Phase::Working { .. }) {
            self.last_end = None;
        }
        closed
    }

    fn order(&mut self, order: Order) {
        match order {
            Order::Enqueue(works) => self.slot.enqueue(works, around!(self)),
            Order::Revoke { attempt, running } => self.slot.revoke(attempt, running, around!(self)),
            Order::Prestart(series) => self.slot.prestart(series, around!(self)),
            Order::Rest { running } => {
                self.slot.begin_rest(running, around!(self));
                if let Some(pid) = self.pid.filter(|_| self.slot.current().is_some()) {
                    kiln_host::lower_priority(pid);
                    self.lowered = true;
                }
            }
            Order::Work => self.slot.end_rest(around!(self)),
            Order::EndIdle => self.slot.end_idle(around!(self)),
            Order::Close { running } => self.slot.close(running, around!(self)),
            Order::Poke => self.slot.advance(around!(self)),
        }
    }

    fn fetched(&mut self, key: SessionKey, result: Result<Arc<Laid>, Failure>) {
        if self.fetching.remove(&key).is_some() {
            let result = result.map(|laid| {
                self.laid.insert(key, laid);
            });
            self.slot.fetched(key, result, around!(self));
        }
    }

    fn done(&mut self, done: Done) -> Option<Made> {
        match done {
            Done::Started(Ok(seat)) => {
                (self.pid, self.lowered) = (Some(seat.host.pid()), false);
                self.seat = Some(seat);
                self.slot.started(Ok(()), around!(self));
            }
            Done::Started(Err(failure)) => {
                tracing::warn!(%failure, "Blender could not be started");
                self.slot.started(Err(failure), around!(self));
            }
            Done::Opened(seat, result) => self.opened(seat, result),
            Done::Worked { seat, took, result } => return self.worked(seat, took, result),
            Done::Gone => {
                self.pid = None;
                self.shop.memory.release(self.index);
                self.slot.recycled(around!(self));
            }
            Done::Lost(failure) => self.slot.lost(&failure, around!(self)),
        }
        None
    }

    fn opened(&mut self, mut seat: Box<Seat>, result: Result<Opened, Failure>) {
        let alive = seat.host.is_alive();
        let result = match (result, self.slot.current()) {
            (Ok(opened), Some(work)) => {
                tracing::debug!(job = %work.job(), seconds = opened.seconds, "the file is open");
                self.notices(work.job(), opened.notices);
                Ok(())
            }
            (Ok(_), None) => Ok(()),
            (Err(failure), current) => {
                if failure.cause == FailureCause::OutOfMemory
                    && let Some(work) = current
                {
                    self.shop.memory.ran_out(work.key);
                }
                self.shop.memory.release(self.index);
                // The log goes up before the attempt ends: the server takes none for one that is over.
                seat.flush();
                Err(failure)
            }
        };
        self.seat = Some(seat);
        self.slot.opened(result, alive, around!(self));
    }

    fn worked(
        &mut self,
        mut seat: Option<Box<Seat>>,
        took: f64,
        result: Result<WorkDone, Failure>,
    ) -> Option<Made> {
        let work = self.slot.current().cloned();
        let (made, result) = match (result, work) {
            (Ok(done), Some(work)) => (Some(self.keep(seat.as_deref_mut(), work, done)), Ok(())),
            // Nobody wants it any more; its files go.
            (Ok(_), None) => (None, Ok(())),
            (Err(failure), work) => {
                if let Some(work) = work
                    && failure.cause == FailureCause::OutOfMemory
                {
                    self.shop.memory.ran_out(work.key);
                }
                (None, Err((failure, took)))
            }
        };
        let lives = seat.is_some();
        match &mut seat {
            // The host has heard all that was printed for this task; it goes up before the task's end does.
            Some(seat) => seat.flush(),
            None => {
                self.pid = None;
                self.shop.memory.release(self.index);
            }
        }
        self.seat = seat;
        self.slot.worked(result, lives, around!(self));
        made
    }

    /// The files of a task with all that is known of it.
    fn keep(&mut self, seat: Option<&mut Seat>, work: Work, done: WorkDone) -> Made {
        let WorkDone { files, log_tail, notices, seconds, peak_memory: peak, span } = done;
        if let Some(seat) = seat {
            let higher = (peak > seat.peak).then_some(peak);
            seat.peak = seat.peak.max(peak);
            self.shop.memory.rendered(self.index, work.key, seat.persistent, higher);
        }
        let gap = span.and_then(|(began, ended)| {
            let last_end = self.last_end.replace(ended)?;
            Some((began - last_end).max(0.0))
        });
        self.notices(work.job(), notices);
        let left = Left { attempt: work.attempt, files, log_tail };
        Made { work, left, seconds, peak, gap }
    }

    fn notices(&self, job: kiln_types::JobId, texts: Vec<String>) {
        if !texts.is_empty() {
            let _ = self.shop.inputs.send(Input::Notices { job, texts });
        }
    }

    fn carry_out(&mut self, effect: Effect) -> bool {
        match effect {
            Effect::Start(kind, files) => self.start(kind, files),
            Effect::Fetch(session) => self.fetch(session),
            Effect::Open(work) => self.open(work),
            Effect::Work(work) => match work.kind {
                TaskKind::Frame(frame) => self.render(&work, frame),
                TaskKind::Bake => self.bake(work),
            },
            Effect::Recycle => self.recycle(),
            Effect::Release(key) => {
                self.laid.remove(&key);
                if let Some(fetch) = self.fetching.remove(&key) {
                    fetch.abort();
                }
            }
            Effect::Wake(after) => self.wake = Some(Instant::now() + after),
            Effect::Tell(told) => {
                let closed = matches!(told, Told::Closed);
                let _ = self.shop.inputs.send(Input::Told(self.index, Box::new(told)));
                return closed;
            }
        }
        false
    }
}
