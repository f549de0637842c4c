//! The worker: one actor that knows what it holds, between the server and its slots.

mod frames;
mod rests;
mod upkeep;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use kiln_api::{AttemptReport, BUILD, Down, Hello, Machine, Offered, PROTOCOL, Rest, Up, Welcome};
use kiln_blobs::{BlobStore, Cache};
use kiln_client::Client;
use kiln_host::BlenderInstall;
use kiln_types::{AttemptId, BlenderSeries, DesiredState, Failure, JobId, RevokeReason, SlotIndex};
use tokio::{
    sync::{
        broadcast,
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    },
    task::{JoinSet, spawn_blocking},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    Happening, WorkerError, WorkerExit, WorkerOptions,
    bundles::Bundles,
    gpus::GpuMemory,
    hardware::{self, Memory},
    identity::Identity,
    ledger::{Ledger, Revoked},
    link::{self, LinkEvent},
    memory::MemoryBook,
    offers::Offers,
    outbox::Outbox,
    seat::{Garage, Met},
    shared::SharedRoots,
    sizing,
    slot::{self, Made, Order, Shop, Told},
    wishes::{Facts, Policy, presence::Watch},
};
use upkeep::{Idle, Looks};

const TICK: Duration = Duration::from_secs(1);
/// Bytes of log kept for a server that is away; the oldest go first.
const LOG_KEPT: usize = 4 << 20;
/// How long a worker that leaves waits for its last reports to be settled: by its own wish, and by the farm's.
const LEAVE_WITHIN: Duration = Duration::from_secs(10);
const DISMISSED_WITHIN: Duration = Duration::from_secs(60);

/// Everything that can happen to a worker.
#[derive(Debug)]
pub(crate) enum Input {
    Link(LinkEvent),
    Told(SlotIndex, Box<Told>),
    Made(SlotIndex, Box<Made>),
    /// The delivery of an attempt is over; `None` if it was called off.
    Through {
        attempt: AttemptId,
        seconds: f64,
        result: Option<Result<AttemptReport, Failure>>,
    },
    Log {
        attempt: AttemptId,
        text: String,
    },
    Progress {
        attempt: AttemptId,
        fraction: f32,
    },
    /// Its Blender does something, and where it has moved, it shows that.
    Alive {
        attempt: AttemptId,
        moved: bool,
    },
    Notices {
        job: JobId,
        texts: Vec<String>,
    },
    Met(Box<Met>),
    /// A look at a Blender that no slot has started is over.
    Probed(BlenderSeries, Result<Box<Met>, Failure>),
    Found(Vec<BlenderInstall>),
    /// A look at whether somebody needs the machine.
    Looked(Facts),
    /// The same, of a worker that looks only while it has nothing to do.
    LookedIdle(Box<Watch>, Facts),
    Drain,
    StopHard,
}

/// Why and how the worker leaves.
#[derive(Debug, Clone, Copy)]
struct Leaving {
    desired: Option<DesiredState>,
    /// Since every slot has closed.
    closed: Option<Instant>,
}

pub(crate) struct Worker {
    options: WorkerOptions,
    identity: Identity,
    client: Client,
    machine: Machine,
    offered: Offered,
    /// How many slots it begins with.
    count: u16,
    policy: Policy,
    resting: Option<Rest>,
    shop: Arc<Shop>,
    gpus: Arc<GpuMemory>,
    offers: Offers,
    slots: Vec<(UnboundedSender<Order>, AbortOnDropHandle<()>)>,
    closed_slots: HashSet<SlotIndex>,
    ledger: Ledger,
    /// Messages go here while there is a connection.
    up: Option<UnboundedSender<Up>>,
    /// Logs and notices for a server that is away.
    later: VecDeque<Up>,
    later_bytes: usize,
    told_notices: HashSet<(JobId, String)>,
    used: HashMap<BlenderSeries, u64>,
    last_series: Option<BlenderSeries>,
    /// Whether there was work, and since when it has been so.
    busy: (bool, Instant),
    probing: bool,
    looked: Instant,
    idle: Idle,
    leaving: Option<Leaving>,
    tasks: JoinSet<()>,
    inputs: UnboundedSender<Input>,
    happenings: broadcast::Sender<Happening>,
}

impl Worker {
    /// Takes a folder and makes ready; nothing is started yet.
    pub(crate) async fn prepare(
        options: WorkerOptions,
        inputs: UnboundedSender<Input>,
        happenings: broadcast::Sender<Happening>,
    ) -> Result<Self, WorkerError> {
        if let Some(slots @ (0 | 1025..)) = options.slots {
            return Err(WorkerError::Slots(slots));
        }
        let client = Client::new(&options.server_url, options.key.as_str())?;
        let data = options.data.clone();
        let identity = spawn_blocking(move || Identity::claim(&data))
            .await
            .map_err(|error| WorkerError::Fault(error.to_string()))??;
        let cache = Cache::open(&identity.part("cache"), options.cache_bytes).await?;
        let local = options.local_blobs.as_deref().map(BlobStore::peek);
        let roots = SharedRoots::new(options.shared.clone());
        let bundles = Bundles::new(client.clone(), cache, identity.part("bundles"), local, roots);
        let machine = hardware::describe();
        let offered = Offered {
            cores: options.cores.unwrap_or(machine.cores).clamp(1, machine.cores.max(1)),
            memory: options.memory.unwrap_or(machine.memory).min(machine.memory),
        };
        let memory = Memory::now().available.min(offered.memory);
        let gpus = options.gpus().unwrap_or_else(|| hardware::gpus(Path::new("/dev")));
        let count = options.slots.unwrap_or_else(|| sizing::slots(offered.cores, memory, gpus));
        let threads = options.threads.unwrap_or_else(|| sizing::threads(offered.cores, machine.cores, count));
        let garage = Garage::new(
            identity.part("roots"),
            threads,
            options.nice,
            options.devices.clone(),
            options.blender_cache.as_ref().unwrap_or(&options.data).join("bytecode"),
            inputs.clone(),
        );
        let shop = Shop {
            garage: Arc::new(garage),
            bundles,
            outbox: Arc::new(Outbox::new(client.clone(), identity.part("outbox"))),
            left: identity.part("outbox"),
            memory: MemoryBook::default(),
            offered: options.memory,
            inputs: inputs.clone(),
        };
        Ok(Self {
            policy: Policy::new(options.wishes.clone(), machine.cores),
            machine,
            offered,
            count,
            resting: None,
            shop: Arc::new(shop),
            gpus: Arc::default(),
            offers: Offers::default(),
            slots: Vec::new(),
            closed_slots: HashSet::new(),
            ledger: Ledger::default(),
            up: None,
            later: VecDeque::new(),
            later_bytes: 0,
            told_notices: HashSet::new(),
            used: HashMap::new(),
            last_series: identity.last_series(),
            busy: (false, Instant::now()),
            probing: false,
            looked: Instant::now(),
            idle: Idle::default(),
            leaving: None,
            tasks: JoinSet::new(),
            options,
            identity,
            client,
            inputs,
            happenings,
        })
    }

    /// Works until told to leave.
    pub(crate) async fn run(mut self, mut incoming: UnboundedReceiver<Input>) -> WorkerExit {
        self.look_for_blenders().await;
        for index in 0..self.count {
            let (orders, task) = slot::start(SlotIndex(index), self.shop.clone());
            self.slots.push((orders, AbortOnDropHandle::new(task)));
        }
        // Before the farm hears of it: one that rests is given nothing.
        let watch = self.first_look().await;
        // Blender comes up while the connection is made and the job's files travel.
        self.prestart();
        let link = AbortOnDropHandle::new(tokio::spawn(link::run(self.client.clone(), self.inputs.clone())));
        let _watch = watch.map(|watch| {
            AbortOnDropHandle::new(tokio::spawn(rests::keep_looking(watch, self.inputs.clone())))
        });
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let exit = loop {
            let exit = tokio::select! {
                Some(input) = incoming.recv() => self.apply(input),
                _ = ticks.tick() => self.tick(Instant::now()),
                Some(_) = self.tasks.join_next() => None,
            };
            if let Some(exit) = exit.or_else(|| self.may_leave(Instant::now())) {
                break exit;
            }
        };
        // First of all nothing renders any more, whatever the reason to leave.
        let (orders, slots): (Vec<_>, Vec<_>) = std::mem::take(&mut self.slots).into_iter().unzip();
        slots.iter().for_each(AbortOnDropHandle::abort);
        for slot in slots {
            // An abort is no news.
            let _ = slot.await;
        }
        drop(orders);
        self.shop.garage.drop_spare();
        self.tasks.shutdown().await;
        // Nothing is left behind, also where the folder is a throw-away that its owner removes next.
        if let Err(error) = self.identity.tidy().await {
            tracing::warn!(%error, "the worker's folders cannot be emptied");
        }
        // The last words go out, where somebody hears them.
        if self.up.take().is_some() {
            let _ = timeout(Duration::from_secs(2), link).await;
        }
        exit
    }

    fn happen(&self, happening: Happening) {
        tracing::debug!("{happening}");
        // Nobody may be looking.
        let _ = self.happenings.send(happening);
    }

    fn order(&self, slot: SlotIndex, order: Order) {
        if let Some((orders, _)) = self.slots.get(usize::from(slot.0)) {
            let _ = orders.send(order);
        }
    }

    fn order_all(&self, order: impl Fn() -> Order) {
        for (orders, _) in &self.slots {
            let _ = orders.send(order());
        }
    }

    /// Applies one input at once, without waiting for anything.
    fn apply(&mut self, input: Input) -> Option<WorkerExit> {
        match input {
            Input::Link(event) => return self.link(event),
            Input::Told(slot, told) => self.told(slot, *told),
            Input::Made(slot, made) => self.made(slot, *made),
            Input::Through { attempt, seconds, result } => self.through(attempt, seconds, result),
            Input::Log { attempt, text } => self.send_or_keep(Up::Log { attempt, text }),
            Input::Progress { attempt, fraction } => self.send(Up::Progress { attempt, fraction }),
            Input::Alive { attempt, moved } => self.send(Up::Alive { attempt, moved }),
            Input::Notices { job, texts } => self.notices(job, texts),
            Input::Met(met) => self.met(&met),
            Input::Probed(series, result) => {
                self.probing = false;
                match result {
                    Ok(met) => self.met(&met),
                    Err(failure) => {
                        tracing::warn!(%series, %failure, "a Blender that was found does not start; it is not offered");
                        self.offers.give_up(series);
                        self.offer();
                    }
                }
            }
            Input::Found(installs) => {
                if self.offers.is_empty() && !installs.is_empty() {
                    self.found(installs);
                    self.offer();
                    self.prestart();
                }
            }
            Input::Looked(facts) => {
                self.policy.saw(&facts, Instant::now());
                self.consider_rest();
            }
            Input::LookedIdle(watch, facts) => {
                self.idle.watch = Looks::Here(watch);
                self.policy.saw(&facts, Instant::now());
                self.keep_an_idle_spare();
            }
            Input::Drain => self.leave(None),
            Input::StopHard => return Some(WorkerExit::Stopped),
        }
        None
    }

    fn met(&mut self, met: &Met) {
        if self.offers.met(met) {
            self.offer();
        }
    }

    fn link(&mut self, event: LinkEvent) -> Option<WorkerExit> {
        match event {
            LinkEvent::Hello(answer) => {
                let _ = answer.send(Box::new(self.hello()));
            }
            LinkEvent::Up(welcome, up) => return self.connected(*welcome, up),
            LinkEvent::Down(down) => self.down(*down),
            LinkEvent::Away { why, retry } => {
                self.up = None;
                self.happen(Happening::Away { why, retry });
            }
            LinkEvent::Failed(error) => return Some(WorkerExit::Failed(error)),
        }
        None
    }

    fn hello(&self) -> Hello {
        Hello {
            protocol: PROTOCOL,
            build: BUILD.to_owned(),
            id: self.identity.id,
            name: self.identity.name(self.options.name.as_ref(), &self.machine.hostname),
            machine: self.machine.clone(),
            slots: u16::try_from(self.slots.len()).unwrap_or(u16::MAX),
            blenders: self.offers.all(),
            shared: self.options.shared.keys().cloned().collect(),
            offered: Some(self.offered),
            tags: self.options.tags.clone(),
            resting: self.resting.clone(),
            wakes: self.options.wakes,
            macs: hardware::macs(Path::new("/sys/class/net")),
            held: self.ledger.held(),
        }
    }

    fn connected(&mut self, welcome: Welcome, up: UnboundedSender<Up>) -> Option<WorkerExit> {
        let seen = self.identity.epoch(&self.options.key);
        if welcome.epoch < seen {
            let file = self.identity.part("epochs");
            return Some(WorkerExit::Failed(WorkerError::OldReign { seen, found: welcome.epoch, file }));
        }
        if let Err(error) = self.identity.remember_epoch(&self.options.key, welcome.epoch) {
            tracing::warn!(%error, "the server's reign cannot be remembered");
        }
        self.up = Some(up);
        let slots = u16::try_from(self.slots.len()).unwrap_or(u16::MAX);
        self.happen(Happening::Connected { name: welcome.name, slots });
        for up in std::mem::take(&mut self.later) {
            self.send(up);
        }
        self.later_bytes = 0;
        if self.leaving.is_some_and(|leaving| leaving.desired.is_none()) {
            self.send(Up::Draining);
        }
        self.ledger.unsent();
        self.report();
        self.set_desired(welcome.desired);
        None
    }

    fn down(&mut self, down: Down) {
        match down {
            Down::Assign(assignment) => self.assign(*assignment),
            Down::Stream(stream) => self.refuse(&[stream.task]),
            Down::Place { .. } | Down::Arrived { .. } => {}
            Down::Revoke { attempt, why } => {
                let stop = why != RevokeReason::Preempted;
                match self.ledger.revoke(attempt, stop) {
                    Revoked::InSlot(slot) => self.order(slot, Order::Revoke { attempt, running: stop }),
                    Revoked::CalledOff => self.end(attempt, AttemptReport::Returned),
                    Revoked::Report => self.report(),
                }
            }
            Down::Settled { attempt, outcome } => {
                tracing::debug!(%attempt, ?outcome, "a report is settled");
                self.ledger.settle(attempt);
            }
            Down::DesiredState { desired } => self.set_desired(desired),
            // The connection reads these itself.
            Down::Welcome(_) | Down::Refused { .. } => {}
        }
    }

    fn set_desired(&mut self, desired: DesiredState) {
        // The farm repeats the wish of a worker that leaves by itself.
        let own =
            desired == DesiredState::Drain && self.leaving.is_some_and(|leaving| leaving.desired.is_none());
        if desired != DesiredState::Work && !own {
            self.happen(Happening::DesiredState { desired });
        }
        match desired {
            // A paused worker gets nothing new; what it has it finishes.
            DesiredState::Work | DesiredState::Pause => {}
            DesiredState::Drain | DesiredState::Stop => self.leave(Some(desired)),
        }
    }

    fn leave(&mut self, desired: Option<DesiredState>) {
        let first = self.leaving.is_none();
        if first {
            self.leaving = Some(Leaving { desired, closed: None });
        } else if let Some(Leaving { desired: before @ Some(_), .. }) = &mut self.leaving
            && desired.is_some()
        {
            // A stop after a drain is the farm's last word.
            *before = desired;
        }
        if desired.is_none() {
            self.happen(Happening::Draining);
            self.send(Up::Draining);
        }
        // A stop after a drain takes the running frames too.
        let running = desired != Some(DesiredState::Drain);
        self.order_all(|| Order::Close { running });
        self.shop.garage.drop_spare();
    }

    /// Whether all is handed over, or has waited long enough to be.
    fn may_leave(&mut self, now: Instant) -> Option<WorkerExit> {
        let connected = self.up.is_some();
        let all_closed = self.closed_slots.len() == self.slots.len();
        let leaving = self.leaving.as_mut()?;
        if !all_closed {
            return None;
        }
        let closed = *leaving.closed.get_or_insert(now);
        let patience = if leaving.desired.is_none() { LEAVE_WITHIN } else { DISMISSED_WITHIN };
        // Without a connection nobody can be told, and the server sees that the worker is gone.
        let over = self.ledger.is_empty() || !connected || now.duration_since(closed) >= patience;
        over.then(|| leaving.desired.map_or(WorkerExit::Drained, WorkerExit::Dismissed))
    }

    fn offer(&self) {
        self.send(Up::Offer { blenders: self.offers.all(), resting: self.resting.clone() });
    }

    /// Sends while there is a connection; what is lost without one is told at the next hello.
    fn send(&self, up: Up) {
        if let Some(sender) = &self.up {
            let _ = sender.send(up);
        }
    }

    /// Keeps for later what no hello tells.
    fn send_or_keep(&mut self, up: Up) {
        if self.up.is_some() {
            return self.send(up);
        }
        self.later_bytes += weight(&up);
        self.later.push_back(up);
        while self.later_bytes > LOG_KEPT {
            let Some(dropped) = self.later.pop_front() else { break };
            self.later_bytes -= weight(&dropped);
        }
    }

    fn notices(&mut self, job: JobId, mut texts: Vec<String>) {
        if self.told_notices.len() > 10_000 {
            self.told_notices.clear();
        }
        texts.retain(|text| self.told_notices.insert((job, text.clone())));
        if !texts.is_empty() {
            self.send_or_keep(Up::Notices { job, texts });
        }
    }
}

fn weight(up: &Up) -> usize {
    match up {
        Up::Log { text, .. } => text.len() + 64,
        Up::Notices { texts, .. } => texts.iter().map(String::len).sum::<usize>() + 64,
        _ => 64,
    }
}

/// The channel that a worker listens on.
pub(crate) fn channel() -> (UnboundedSender<Input>, UnboundedReceiver<Input>) {
    unbounded_channel()
}
