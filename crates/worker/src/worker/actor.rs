//! The actor: applies one input at a time, without waiting for anything.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use kiln_api::{
    AttemptReport, BUILD, Down, Hello, Machine, MachineOffer, PROTOCOL, Unavailability, Up, Welcome,
};
use kiln_blobs::{BlobStore, Cache};
use kiln_client::Client;
use kiln_host::BlenderInstall;
use kiln_types::{AttemptId, BlenderSeries, DesiredState, Failure, JobId, RevokeReason, SlotIndex, TaskFile};
use tokio::{
    sync::{
        broadcast,
        mpsc::{UnboundedReceiver, UnboundedSender},
    },
    task::{JoinSet, spawn_blocking},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    attempts::{HeldAttempts, Revocation},
    availability::{ActivityMonitor, Availability, MachineUse, watch_machine},
    bundles::Bundles,
    direct::DirectTask,
    event::WorkerEvent,
    folder::WorkerFolder,
    gpus::GpuMemory,
    hardware::{self, Memory},
    inputs::InputFetcher,
    link::{self, LinkEvent},
    memory::MemoryClaims,
    monitor::TaskReport,
    offers::Offers,
    options::{WorkerError, WorkerExit, WorkerOptions},
    process::{PoolOptions, ProbedBlender, ProcessPool},
    shared::SharedRoots,
    sink::EventSink,
    sizing,
    slot::{self, SlotCommand, SlotContext, SlotEvent},
    upload::UploadQueue,
};

const TICK: Duration = Duration::from_secs(1);
/// Bytes of log kept for a server that is away; the oldest go first.
const LOG_KEPT: usize = 4 << 20;
/// The time that a worker that leaves waits for its last reports to be settled: on its own order, and on the farm's.
const LEAVE_WITHIN: Duration = Duration::from_secs(10);
const DISMISSED_WITHIN: Duration = Duration::from_secs(60);

/// An event of a part of the worker, or an order to it.
#[derive(Debug)]
pub(crate) enum WorkerInput {
    Link(LinkEvent),
    Slot(SlotIndex, SlotEvent),
    Report(TaskReport),
    /// The delivery of an attempt has ended.
    Delivered(Box<Delivery>),
    /// A streaming attempt cannot fetch its files.
    StreamFailed(AttemptId, Failure),
    /// A Blender was started.
    Probed(Box<ProbedBlender>),
    /// A Blender that no slot has started was probed.
    IdleProbed(BlenderSeries, Result<Box<ProbedBlender>, Failure>),
    Found(Vec<BlenderInstall>),
    MachineUse(MachineUse),
    /// The same, of a worker that looks only while it has nothing to do.
    IdleMachineUse(Box<ActivityMonitor>, MachineUse),
    Drain,
    StopHard,
}

/// The end of a delivery.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(super) attempt: AttemptId,
    pub(super) seconds: f64,
    /// Bytes.
    pub(super) peak_memory: u64,
    /// `None` if it was cancelled.
    pub(super) result: Option<Result<Vec<TaskFile>, Failure>>,
}

/// The reason and the state of the worker's departure.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leaving {
    desired: Option<DesiredState>,
    /// The time at which all slots had closed.
    closed: Option<Instant>,
}

/// A worker that has had no work for long.
#[derive(Debug, Default)]
pub(super) struct Idle {
    /// The time of the last decision about processes.
    pub(super) decided: Option<Instant>,
    pub(super) monitor: IdleMonitor,
}

/// The monitor of a worker that looks at its machine only while there is no work.
#[derive(Debug, Default)]
pub(super) enum IdleMonitor {
    #[default]
    None,
    Looking,
    Here(Box<ActivityMonitor>),
}

pub(crate) struct WorkerActor {
    pub(super) options: WorkerOptions,
    pub(super) folder: WorkerFolder,
    client: Client,
    machine: Machine,
    offered: MachineOffer,
    /// The number of slots that it begins with.
    count: u16,
    pub(super) availability: Availability,
    pub(super) unavailable: Option<Unavailability>,
    pub(super) context: Arc<SlotContext>,
    pub(super) fetcher: InputFetcher,
    pub(super) gpus: Arc<GpuMemory>,
    pub(super) offers: Offers,
    pub(super) slots: Vec<(UnboundedSender<SlotCommand>, AbortOnDropHandle<()>)>,
    pub(super) closed_slots: HashSet<SlotIndex>,
    pub(super) attempts: HeldAttempts,
    /// Attempts that have no slot yet.
    pub(super) streams: HashMap<AttemptId, DirectTask>,
    /// Messages go here while there is a connection.
    pub(super) up: Option<UnboundedSender<Up>>,
    /// Logs and notices for a server that is away.
    later: VecDeque<Up>,
    later_bytes: usize,
    sent_notices: HashSet<(JobId, String)>,
    pub(super) used: HashMap<BlenderSeries, u64>,
    pub(super) last_series: Option<BlenderSeries>,
    /// The work at the last tick: some or none, and since when.
    pub(super) busy: (bool, Instant),
    pub(super) probing: bool,
    pub(super) looked: Instant,
    pub(super) idle: Idle,
    pub(super) leaving: Option<Leaving>,
    pub(super) tasks: JoinSet<()>,
    pub(super) inputs: UnboundedSender<WorkerInput>,
    events: broadcast::Sender<WorkerEvent>,
}

impl WorkerActor {
    /// Takes a folder and makes ready; nothing is started yet.
    pub(crate) async fn prepare(
        options: WorkerOptions,
        inputs: UnboundedSender<WorkerInput>,
        events: broadcast::Sender<WorkerEvent>,
    ) -> Result<Self, WorkerError> {
        if let Some(slots @ (0 | 1025..)) = options.slots {
            return Err(WorkerError::Slots(slots));
        }
        let client = Client::new(&options.server_url, options.key.as_str())?;
        let data = options.data.clone();
        let folder = spawn_blocking(move || WorkerFolder::claim(&data))
            .await
            .map_err(|error| WorkerError::Fault(error.to_string()))??;
        let cache = Cache::open(&folder.part("cache"), options.cache_bytes).await?;
        let local = options.local_blobs.as_deref().map(BlobStore::peek);
        let roots = SharedRoots::new(options.shared.clone());
        let bundles = Bundles::new(client.clone(), cache, folder.part("bundles"), local, roots);
        let machine = hardware::describe();
        let offered = MachineOffer {
            cores: options.cores.unwrap_or(machine.cores).clamp(1, machine.cores.max(1)),
            memory: options.memory.unwrap_or(machine.memory).min(machine.memory),
        };
        let memory = Memory::now().available.min(offered.memory);
        let gpus = options.gpus().unwrap_or_else(|| hardware::gpus(Path::new("/dev")));
        let count = options.slots.unwrap_or_else(|| sizing::slots(offered.cores, memory, gpus));
        let threads = options.threads.unwrap_or_else(|| sizing::threads(offered.cores, machine.cores, count));
        let reports = EventSink::new(inputs.clone(), WorkerInput::Report);
        let processes = ProcessPool::new(PoolOptions {
            roots: folder.part("roots"),
            threads,
            nice: options.nice,
            devices_override: options.devices.clone(),
            bytecode: options.blender_cache.as_ref().unwrap_or(&options.data).join("bytecode"),
            reports: reports.clone(),
            probed: EventSink::new(inputs.clone(), |probed| WorkerInput::Probed(Box::new(probed))),
        });
        let context = SlotContext {
            processes: Arc::new(processes),
            bundles,
            uploads: Arc::new(UploadQueue::new(client.clone(), folder.part("outbox"))),
            memory: MemoryClaims::default(),
            offered: options.memory,
            reports,
            events: EventSink::new(inputs.clone(), |(slot, event)| WorkerInput::Slot(slot, event)),
        };
        Ok(Self {
            availability: Availability::new(options.availability.clone(), machine.cores),
            machine,
            offered,
            count,
            unavailable: None,
            context: Arc::new(context),
            fetcher: InputFetcher::new(client.clone(), folder.part("inputs")),
            gpus: Arc::default(),
            offers: Offers::default(),
            slots: Vec::new(),
            closed_slots: HashSet::new(),
            attempts: HeldAttempts::default(),
            streams: HashMap::new(),
            up: None,
            later: VecDeque::new(),
            later_bytes: 0,
            sent_notices: HashSet::new(),
            used: HashMap::new(),
            last_series: folder.last_series(),
            busy: (false, Instant::now()),
            probing: false,
            looked: Instant::now(),
            idle: Idle::default(),
            leaving: None,
            tasks: JoinSet::new(),
            options,
            folder,
            client,
            inputs,
            events,
        })
    }

    /// Works until it is ordered to leave.
    pub(crate) async fn run(mut self, mut incoming: UnboundedReceiver<WorkerInput>) -> WorkerExit {
        self.look_for_blenders().await;
        for index in 0..self.count {
            let (orders, task) = slot::start(SlotIndex(index), self.context.clone());
            self.slots.push((orders, AbortOnDropHandle::new(task)));
        }
        // Before the farm hears of it: one that is unavailable is given nothing.
        let monitor = self.look_first().await;
        // Blender comes up while the connection is made and the job's files travel.
        self.prestart();
        let events = EventSink::new(self.inputs.clone(), WorkerInput::Link);
        let link = AbortOnDropHandle::new(tokio::spawn(link::run(self.client.clone(), events)));
        let _monitor = monitor.map(|monitor| {
            let seen = EventSink::new(self.inputs.clone(), WorkerInput::MachineUse);
            AbortOnDropHandle::new(tokio::spawn(watch_machine(monitor, seen)))
        });
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let exit = loop {
            let exit = tokio::select! {
                Some(input) = incoming.recv() => self.apply(input),
                _ = ticks.tick() => {
                    self.tick(Instant::now());
                    None
                }
                Some(_) = self.tasks.join_next() => None,
            };
            if let Some(exit) = exit.or_else(|| self.may_leave(Instant::now())) {
                break exit;
            }
        };
        // First everything stops, whatever the reason to leave.
        self.streams.clear();
        let (commands, slots): (Vec<_>, Vec<_>) = std::mem::take(&mut self.slots).into_iter().unzip();
        slots.iter().for_each(AbortOnDropHandle::abort);
        for slot in slots {
            // It was aborted.
            let _ = slot.await;
        }
        drop(commands);
        self.context.processes.drop_spare();
        self.tasks.shutdown().await;
        // Also a folder that its owner removes next is left empty.
        if let Err(error) = self.folder.tidy().await {
            tracing::warn!(%error, "the worker's folders were not emptied");
        }
        // The last messages are sent, if there is a connection.
        if self.up.take().is_some() {
            let _ = timeout(Duration::from_secs(2), link).await;
        }
        exit
    }

    pub(super) fn emit(&self, event: WorkerEvent) {
        tracing::debug!("{event}");
        // There may be no listener.
        let _ = self.events.send(event);
    }

    pub(super) fn command(&self, slot: SlotIndex, command: SlotCommand) {
        if let Some((commands, _)) = self.slots.get(usize::from(slot.0)) {
            let _ = commands.send(command);
        }
    }

    pub(super) fn command_all(&self, command: impl Fn() -> SlotCommand) {
        for (commands, _) in &self.slots {
            let _ = commands.send(command());
        }
    }

    fn apply(&mut self, input: WorkerInput) -> Option<WorkerExit> {
        match input {
            WorkerInput::Link(event) => return self.link(event),
            WorkerInput::Slot(slot, SlotEvent::Notice(notice)) => self.notice(slot, notice),
            WorkerInput::Slot(slot, SlotEvent::Finished(finished)) => self.finished(slot, *finished),
            WorkerInput::Slot(_, SlotEvent::JobNotices { job, texts }) => self.job_notices(job, texts),
            WorkerInput::Report(TaskReport::Log { attempt, text }) => {
                self.send_or_keep(Up::Log { attempt, text });
            }
            WorkerInput::Report(TaskReport::Progress { attempt, fraction }) => {
                self.send(Up::Progress { attempt, fraction });
            }
            WorkerInput::Report(TaskReport::Alive { attempt, moved }) => {
                self.send(Up::Alive { attempt, moved });
            }
            WorkerInput::Delivered(delivery) => self.delivered(*delivery),
            WorkerInput::StreamFailed(attempt, failure) => self.stream_failed(attempt, failure),
            WorkerInput::Probed(probed) => self.probed(&probed),
            WorkerInput::IdleProbed(series, result) => {
                self.probing = false;
                match result {
                    Ok(probed) => self.probed(&probed),
                    Err(failure) => {
                        tracing::warn!(%series, %failure, "Blender failed to start; it is not offered");
                        self.offers.remove_unprobed(series);
                        self.offer();
                    }
                }
            }
            WorkerInput::Found(installs) => {
                if self.offers.is_empty() && !installs.is_empty() {
                    self.found(installs);
                    self.offer();
                    self.prestart();
                }
            }
            WorkerInput::MachineUse(seen) => {
                self.availability.see(&seen, Instant::now());
                self.update_availability();
            }
            WorkerInput::IdleMachineUse(monitor, seen) => {
                self.idle.monitor = IdleMonitor::Here(monitor);
                self.availability.see(&seen, Instant::now());
                self.keep_an_idle_spare();
            }
            WorkerInput::Drain => self.leave(None),
            WorkerInput::StopHard => return Some(WorkerExit::Stopped),
        }
        None
    }

    fn probed(&mut self, probed: &ProbedBlender) {
        if self.offers.update(probed) {
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
            LinkEvent::Disconnected { why, retry } => {
                self.up = None;
                self.emit(WorkerEvent::Disconnected { why, retry });
            }
            LinkEvent::Failed(error) => return Some(WorkerExit::Failed(error)),
        }
        None
    }

    fn hello(&self) -> Hello {
        Hello {
            protocol: PROTOCOL,
            build: BUILD.to_owned(),
            id: self.folder.id,
            name: self.folder.name(self.options.name.as_ref(), &self.machine.hostname),
            machine: self.machine.clone(),
            slots: u16::try_from(self.slots.len()).unwrap_or(u16::MAX),
            blenders: self.offers.all(),
            shared: self.options.shared.keys().cloned().collect(),
            offered: Some(self.offered),
            tags: self.options.tags.clone(),
            unavailable: self.unavailable.clone(),
            wakes: self.options.wakes,
            macs: hardware::macs(Path::new("/sys/class/net")),
            held: self.attempts.held(),
        }
    }

    fn connected(&mut self, welcome: Welcome, up: UnboundedSender<Up>) -> Option<WorkerExit> {
        let seen = self.folder.epoch(&self.options.key);
        if welcome.epoch < seen {
            let file = self.folder.part("epochs");
            return Some(WorkerExit::Failed(WorkerError::OldEpoch { seen, found: welcome.epoch, file }));
        }
        if let Err(error) = self.folder.remember_epoch(&self.options.key, welcome.epoch) {
            tracing::warn!(%error, "the server's epoch was not saved");
        }
        self.up = Some(up);
        let slots = u16::try_from(self.slots.len()).unwrap_or(u16::MAX);
        self.emit(WorkerEvent::Connected { name: welcome.name, slots });
        for up in std::mem::take(&mut self.later) {
            self.send(up);
        }
        self.later_bytes = 0;
        if self.leaving.is_some_and(|leaving| leaving.desired.is_none()) {
            self.send(Up::Draining);
        }
        self.attempts.reset_sent();
        self.send_reports();
        // Messages about arrived files may be lost with the old connection.
        for stream in self.streams.values() {
            stream.inputs.notify();
        }
        self.set_desired(welcome.desired);
        None
    }

    fn down(&mut self, down: Down) {
        match down {
            Down::Assign(assignment) => self.assign(*assignment),
            Down::Stream(stream) => self.stream(*stream),
            Down::Place { attempt, slot, claim } => self.place(attempt, slot, &claim),
            Down::Arrived { attempt } => {
                if let Some(stream) = self.streams.get(&attempt) {
                    stream.inputs.notify();
                }
            }
            Down::Revoke { attempt, why } => {
                let stop = why != RevokeReason::Preempted;
                match self.attempts.revoke(attempt, stop) {
                    Revocation::InSlot(slot) => {
                        self.command(slot, SlotCommand::Revoke { attempt, running: stop });
                    }
                    Revocation::Stream => self.return_stream(attempt),
                    Revocation::DeliveryCancelled => self.end(attempt, AttemptReport::Returned),
                    Revocation::Report => self.send_reports(),
                }
            }
            Down::Settled { attempt, outcome } => {
                tracing::debug!(%attempt, ?outcome, "report settled");
                self.attempts.settle(attempt);
            }
            Down::DesiredState { desired } => self.set_desired(desired),
            // The connection reads these itself.
            Down::Welcome(_) | Down::Refused { .. } => {}
        }
    }

    fn set_desired(&mut self, desired: DesiredState) {
        // The farm repeats the order of a worker that leaves by itself.
        let own = desired == DesiredState::Draining
            && self.leaving.is_some_and(|leaving| leaving.desired.is_none());
        if desired != DesiredState::Active && !own {
            self.emit(WorkerEvent::DesiredState { desired });
        }
        match desired {
            // A paused worker gets nothing new; what it has it finishes.
            DesiredState::Active | DesiredState::Paused => {}
            DesiredState::Draining | DesiredState::Stopped => self.leave(Some(desired)),
        }
    }

    fn leave(&mut self, desired: Option<DesiredState>) {
        let first = self.leaving.is_none();
        if first {
            self.leaving = Some(Leaving { desired, closed: None });
        } else if let Some(Leaving { desired: before @ Some(_), .. }) = &mut self.leaving
            && desired.is_some()
        {
            // A stop after a drain is final.
            *before = desired;
        }
        if desired.is_none() {
            self.emit(WorkerEvent::Draining);
            self.send(Up::Draining);
        }
        // A stop after a drain takes the running frames too.
        let running = desired != Some(DesiredState::Draining);
        self.return_streams();
        self.command_all(|| SlotCommand::Close { running });
        self.context.processes.drop_spare();
    }

    /// Returns the exit once all reports are settled, or have waited long enough.
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
        let over = self.attempts.is_empty() || !connected || now.duration_since(closed) >= patience;
        over.then(|| leaving.desired.map_or(WorkerExit::Drained, WorkerExit::Dismissed))
    }

    pub(super) fn offer(&self) {
        self.send(Up::Offer { blenders: self.offers.all(), unavailable: self.unavailable.clone() });
    }

    /// Sends while there is a connection; the next hello replaces what is lost without one.
    pub(super) fn send(&self, up: Up) {
        if let Some(sender) = &self.up {
            let _ = sender.send(up);
        }
    }

    /// Sends, or keeps for later what no hello replaces.
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

    fn job_notices(&mut self, job: JobId, mut texts: Vec<String>) {
        if self.sent_notices.len() > 10_000 {
            self.sent_notices.clear();
        }
        texts.retain(|text| self.sent_notices.insert((job, text.clone())));
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
