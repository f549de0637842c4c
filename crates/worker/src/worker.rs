//! The worker: one actor that knows what it holds, between the server and its slots.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use kiln_api::{Assignment, BUILD, Down, Finish, Hello, Machine, PROTOCOL, RevokeWhy, Up, Welcome};
use kiln_blobs::{BlobStore, Cache};
use kiln_client::Client;
use kiln_host::BlenderInstall;
use kiln_types::{AttemptId, BlenderSeries, Failure, JobId, OutputSet, SlotIndex, WorkerWish};
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
    hardware::{self, Memory},
    identity::Identity,
    ledger::{Entry, Ledger, Revoked},
    link::{self, LinkEvent},
    memory::MemoryBook,
    offers::Offers,
    outbox::Outbox,
    seat::{Garage, Met},
    sizing::{self, SpareFacts},
    slot::{self, Kind, Made, Order, Shop, Told, Work},
};

const TICK: Duration = Duration::from_secs(1);
/// How often a worker without a Blender looks again.
const LOOK_AGAIN: Duration = Duration::from_secs(20);
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
    /// What became of a rendered frame; `None` where it was called off.
    Through {
        attempt: AttemptId,
        seconds: f64,
        peak: u64,
        result: Option<Result<OutputSet, Failure>>,
    },
    Log {
        attempt: AttemptId,
        text: String,
    },
    Progress {
        attempt: AttemptId,
        fraction: f32,
    },
    Notices {
        job: JobId,
        texts: Vec<String>,
    },
    Met(Box<Met>),
    /// A look at a Blender that no slot has started is over.
    Probed(BlenderSeries, Result<Box<Met>, Failure>),
    Found(Vec<BlenderInstall>),
    Drain,
}

/// Why and how the worker leaves.
#[derive(Debug, Clone, Copy)]
struct Leaving {
    wish: Option<WorkerWish>,
    /// Since every slot has closed.
    closed: Option<Instant>,
}

pub(crate) struct Worker {
    options: WorkerOptions,
    identity: Identity,
    client: Client,
    machine: Machine,
    shop: Arc<Shop>,
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
        let bundles = Bundles::new(client.clone(), cache, identity.part("bundles"), local);
        let garage = Garage::new(
            identity.part("roots"),
            options.threads.unwrap_or(0),
            options.devices.clone(),
            inputs.clone(),
        );
        let shop = Shop {
            garage: Arc::new(garage),
            bundles,
            outbox: Arc::new(Outbox::new(client.clone(), identity.part("outbox"))),
            rendered: identity.part("outbox"),
            memory: MemoryBook::default(),
            inputs: inputs.clone(),
        };
        Ok(Self {
            machine: hardware::describe(),
            shop: Arc::new(shop),
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
        let memory = Memory::now();
        let count = self.options.slots.unwrap_or_else(|| sizing::slots(self.machine.cores, memory.available));
        for index in 0..count {
            let (orders, task) = slot::start(SlotIndex(index), self.shop.clone());
            self.slots.push((orders, AbortOnDropHandle::new(task)));
        }
        // Blender comes up while the connection is made and the job's files travel.
        self.prestart();
        let link = AbortOnDropHandle::new(tokio::spawn(link::run(self.client.clone(), self.inputs.clone())));
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
        self.up = None;
        // The last words go out; a server that is away must not hold this up.
        let _ = timeout(Duration::from_secs(2), link).await;
        for (orders, task) in self.slots {
            drop(orders);
            task.abort();
            let _ = task.await;
        }
        self.shop.garage.drop_spare();
        self.tasks.shutdown().await;
        exit
    }

    async fn look_for_blenders(&mut self) {
        let (extra, home, cache) = self.where_to_look();
        let found = spawn_blocking(move || kiln_host::discover(&extra, &home, &cache)).await;
        self.found(found.unwrap_or_default());
        if self.offers.is_empty() {
            self.happen(Happening::NoBlender);
        }
    }

    fn where_to_look(&self) -> (Vec<std::path::PathBuf>, std::path::PathBuf, std::path::PathBuf) {
        let home = self.options.installs.clone().unwrap_or_else(|| self.options.data.clone());
        (self.options.blenders.clone(), home, self.options.data.clone())
    }

    fn found(&mut self, installs: Vec<BlenderInstall>) {
        if installs.is_empty() {
            return;
        }
        let versions = installs.iter().map(|install| install.version.to_string()).collect();
        self.happen(Happening::Blenders(versions));
        self.offers = Offers::new(&installs, self.options.devices.as_deref());
        self.shop.garage.set_installs(installs);
    }

    fn prestart(&mut self) {
        let garage = &self.shop.garage;
        let known = |series: &BlenderSeries| garage.install(*series).is_some();
        let newest = garage.installs().first().map(|install| install.version.series());
        let wished = [self.options.prestart, self.last_series, newest];
        if let Some(series) = wished.into_iter().flatten().find(known) {
            self.order_all(|| Order::Prestart(series));
        }
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
            Input::Through { attempt, seconds, peak, result } => self.through(attempt, seconds, peak, result),
            Input::Log { attempt, text } => self.send_or_keep(Up::Log { attempt, text }),
            Input::Progress { attempt, fraction } => self.send(Up::Progress { attempt, fraction }),
            Input::Notices { job, texts } => self.notices(job, texts),
            Input::Met(met) => self.met(&met),
            Input::Probed(series, result) => {
                self.probing = false;
                match result {
                    Ok(met) => self.met(&met),
                    Err(failure) => {
                        tracing::warn!(%series, %failure, "a Blender that was found does not start; it is not offered");
                        self.offers.give_up(series);
                        self.send(Up::Offer { blenders: self.offers.all() });
                    }
                }
            }
            Input::Found(installs) => {
                if self.offers.is_empty() && !installs.is_empty() {
                    self.found(installs);
                    self.send(Up::Offer { blenders: self.offers.all() });
                    self.prestart();
                }
            }
            Input::Drain => self.leave(None),
        }
        None
    }

    fn met(&mut self, met: &Met) {
        if self.offers.met(met) {
            self.send(Up::Offer { blenders: self.offers.all() });
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
            name: self.identity.name(self.options.name.as_deref(), &self.machine.hostname),
            machine: self.machine.clone(),
            slots: u16::try_from(self.slots.len()).unwrap_or(u16::MAX),
            blenders: self.offers.all(),
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
        if self.leaving.is_some_and(|leaving| leaving.wish.is_none()) {
            self.send(Up::Draining);
        }
        self.ledger.unsent();
        self.report();
        self.wish(welcome.wish);
        None
    }

    fn down(&mut self, down: Down) {
        match down {
            Down::Assign(assignment) => self.assign(*assignment),
            Down::Revoke { attempt, why } => {
                let stop = why != RevokeWhy::Stolen;
                match self.ledger.revoke(attempt, stop) {
                    Revoked::InSlot(slot) => self.order(slot, Order::Revoke { attempt, running: stop }),
                    Revoked::CalledOff => self.end(attempt, Finish::HandedBack),
                    Revoked::Report => self.report(),
                }
            }
            Down::Settled { attempt, verdict } => {
                tracing::debug!(%attempt, ?verdict, "a report is settled");
                self.ledger.settle(attempt);
            }
            Down::Wish { wish } => self.wish(wish),
            // The connection reads these itself.
            Down::Welcome(_) | Down::Refused { .. } => {}
        }
    }

    fn wish(&mut self, wish: WorkerWish) {
        if wish != WorkerWish::Work {
            self.happen(Happening::Wish(wish));
        }
        match wish {
            // A paused worker gets nothing new; what it has it finishes.
            WorkerWish::Work | WorkerWish::Pause => {}
            WorkerWish::Drain | WorkerWish::Stop => self.leave(Some(wish)),
        }
    }

    fn leave(&mut self, wish: Option<WorkerWish>) {
        let first = self.leaving.is_none();
        if first {
            self.leaving = Some(Leaving { wish, closed: None });
        }
        if wish.is_none() {
            self.happen(Happening::Draining);
            self.send(Up::Draining);
        }
        // A stop after a drain takes the running frames too.
        let running = wish != Some(WorkerWish::Drain);
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
        let patience = if leaving.wish.is_none() { LEAVE_WITHIN } else { DISMISSED_WITHIN };
        // Without a connection nobody can be told, and the server sees that the worker is gone.
        let over = self.ledger.is_empty() || !connected || now.duration_since(closed) >= patience;
        over.then(|| leaving.wish.map_or(WorkerExit::Drained, WorkerExit::Dismissed))
    }

    fn assign(&mut self, assignment: Assignment) {
        let Assignment { slot, session, frame_time_limit_s, tasks, .. } = assignment;
        let key = session.key();
        let session = Arc::new(session);
        let time_limit = frame_time_limit_s.map(|seconds| Duration::from_secs(seconds.into()));
        let mut works = Vec::new();
        for task in tasks {
            let entry = Entry { task: task.task, generation: task.generation, slot, frame: task.frame };
            if self.ledger.assign(task.attempt, entry) {
                works.push(Work {
                    attempt: task.attempt,
                    task: task.task,
                    frame: task.frame,
                    session: session.clone(),
                    key,
                    time_limit,
                });
            }
        }
        let Some(first) = works.first() else { return };
        let (job, frames) = (first.job(), works.iter().map(|work| work.frame).collect());
        *self.used.entry(session.blender).or_default() += 1;
        if self.last_series != Some(session.blender) {
            self.last_series = Some(session.blender);
            self.identity.remember_series(session.blender);
        }
        self.happen(Happening::Assigned { job, slot, frames });
        if usize::from(slot.0) < self.slots.len() && self.leaving.is_none() {
            self.order(slot, Order::Enqueue(works));
        } else {
            // No such slot, or none any more.
            for work in works {
                self.ledger.finish(work.attempt, Finish::HandedBack);
            }
            self.report();
        }
    }

    fn told(&mut self, slot: SlotIndex, told: Told) {
        match told {
            Told::Began(work) => {
                self.ledger.began(work.attempt);
                self.happen(Happening::Began { job: work.job(), slot, frame: work.frame });
                self.send(Up::Started { attempt: work.attempt });
            }
            Told::HandedBack(work) => {
                self.happen(Happening::HandedBack { job: work.job(), slot, frame: work.frame });
                self.end(work.attempt, Finish::HandedBack);
            }
            Told::Failed { work, failure, seconds } => {
                self.failed(work.attempt, failure, seconds);
            }
            Told::Closed => {
                self.closed_slots.insert(slot);
                // By now it holds nothing; if it does, by a fault, the farm must not wait for it.
                for attempt in self.ledger.of_slot(slot) {
                    self.end(attempt, Finish::HandedBack);
                }
            }
        }
    }

    fn failed(&mut self, attempt: AttemptId, failure: Failure, seconds: f64) {
        if let Some(entry) = self.ledger.entry(attempt) {
            let (job, slot, frame) = (entry.task.job, entry.slot, entry.frame);
            self.happen(Happening::Failed { job, slot, frame, failure: failure.clone() });
        }
        self.end(attempt, Finish::Failed { failure, seconds });
    }

    fn made(&mut self, slot: SlotIndex, made: Made) {
        let Made { work, frame, seconds, peak, gap } = made;
        let attempt = work.attempt;
        self.happen(Happening::Rendered { job: work.job(), slot, frame: work.frame, seconds, gap });
        let Some(off) = self.ledger.delivering(attempt) else { return };
        let (outbox, inputs) = (self.shop.outbox.clone(), self.inputs.clone());
        self.tasks.spawn(async move {
            let result = outbox.deliver(frame, off).await;
            let _ = inputs.send(Input::Through { attempt, seconds, peak, result });
        });
    }

    fn through(
        &mut self,
        attempt: AttemptId,
        seconds: f64,
        peak: u64,
        result: Option<Result<OutputSet, Failure>>,
    ) {
        self.order_all(|| Order::Poke);
        match result {
            Some(Ok(outputs)) => {
                if let Some(entry) = self.ledger.entry(attempt) {
                    let (job, slot, frame) = (entry.task.job, entry.slot, entry.frame);
                    self.happen(Happening::Delivered { job, slot, frame });
                }
                self.end(attempt, Finish::Delivered { outputs, seconds, peak_memory: peak });
            }
            Some(Err(failure)) => self.failed(attempt, failure, seconds),
            None => self.end(attempt, Finish::HandedBack),
        }
    }

    fn end(&mut self, attempt: AttemptId, finish: Finish) {
        if self.ledger.finish(attempt, finish) {
            self.report();
        }
    }

    /// Sends every report that is due.
    fn report(&mut self) {
        if self.up.is_some() {
            for up in self.ledger.due(Instant::now()) {
                self.send(up);
            }
        }
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

    fn tick(&mut self, now: Instant) -> Option<WorkerExit> {
        self.report();
        let busy = self.ledger.is_busy();
        if busy != self.busy.0 {
            self.busy = (busy, now);
        }
        if self.leaving.is_some() {
            return None;
        }
        let steady = now.duration_since(self.busy.1);
        self.keep_a_spare(busy, steady);
        if !busy && steady >= Duration::from_secs(5) {
            self.probe();
        }
        if self.offers.is_empty() && now.duration_since(self.looked) >= LOOK_AGAIN {
            self.looked = now;
            let (extra, home, cache) = self.where_to_look();
            let inputs = self.inputs.clone();
            self.tasks.spawn(async move {
                let found = spawn_blocking(move || kiln_host::discover(&extra, &home, &cache)).await;
                let _ = inputs.send(Input::Found(found.unwrap_or_default()));
            });
        }
        None
    }

    /// One spare process of the series used most, once there has been work at all.
    fn keep_a_spare(&mut self, busy: bool, steady: Duration) {
        let Some((series, _)) = self.used.iter().max_by_key(|(_, count)| **count) else { return };
        let series = *series;
        let have = self.shop.garage.has_spare();
        // The machine is asked for its memory only where the answer matters.
        if have || steady < Duration::from_secs(5) || self.shop.garage.install(series).is_none() {
            return;
        }
        let memory = Memory::now();
        let facts = SpareFacts { have, steady, busy, available: memory.available, total: memory.total };
        if sizing::want_spare(facts) {
            let garage = self.shop.garage.clone();
            self.tasks.spawn(async move { garage.start_spare(series).await });
        }
    }

    /// Looks at a Blender that no slot has started yet, while there is nothing else to do.
    fn probe(&mut self) {
        let Some(series) = self.offers.unknown() else { return };
        if self.probing {
            return;
        }
        self.probing = true;
        let (garage, inputs) = (self.shop.garage.clone(), self.inputs.clone());
        self.tasks.spawn(async move {
            let result = garage.meet(Kind { series, trust: false }).await;
            let _ = inputs.send(Input::Probed(series, result.map(Box::new)));
        });
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
