//! The actor of a slot: waits for one thing to happen, applies it to the state machine, and carries out the effects.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use kiln_host::OpenedFile;
use kiln_types::{BlenderSeries, Failure, FailureCause, JobId, SessionKey, SlotIndex};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::{AbortHandle, JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

use super::{
    context::{FinishedTask, SlotCommand, SlotContext, SlotEvent},
    effects::{SlotEffect, SlotEnvironment, SlotNotice},
    state::{DirectRun, SlotMachine, SlotPhase},
    task::{BlenderAction, SlotTask},
};
use crate::{
    bundles::MaterializedBundle,
    hardware::Memory,
    output::{TaskOutput, TaskResult},
    process::BlenderProcess,
    sizing,
    task::TaskHead,
};

/// The time that a process keeps a file open without a task for it.
const WAIT_OPEN: Duration = Duration::from_secs(300);

/// Starts a slot; it ends when it has closed, or when the task is aborted.
pub(crate) fn start(
    index: SlotIndex,
    context: Arc<SlotContext>,
) -> (UnboundedSender<SlotCommand>, JoinHandle<()>) {
    let (commands, incoming) = unbounded_channel();
    let actor = Actor {
        index,
        slot: SlotMachine::new(),
        context,
        process: None,
        running: None,
        cancel: CancellationToken::new(),
        direct: None,
        bundles: HashMap::new(),
        fetches: JoinSet::new(),
        fetching: HashMap::new(),
        wake: None,
        idle_since: None,
        last_end: None,
        pid: None,
        lowered: false,
    };
    (commands, tokio::spawn(actor.run(incoming)))
}

/// The outcome of a request to a process.
pub(super) enum Done {
    Started(Result<Box<BlenderProcess>, Failure>),
    Opened(Box<BlenderProcess>, Result<OpenedFile, Failure>),
    Worked {
        /// Absent if the process has ended with the task.
        process: Option<Box<BlenderProcess>>,
        /// Seconds.
        took: f64,
        result: Result<TaskResult, Failure>,
    },
    /// The process has ended.
    Ended,
    /// There was no process to ask.
    Lost(Failure),
}

/// A task without a Blender that runs.
pub(super) struct Direct {
    pub(super) task: TaskHead,
    /// `None` if it was cancelled.
    pub(super) run: BoxFuture<'static, Option<Result<TaskResult, Failure>>>,
    pub(super) cancel: CancellationToken,
    pub(super) started: Instant,
}

type Fetched = (SessionKey, Result<Arc<MaterializedBundle>, Failure>);

enum Action {
    Command(Option<SlotCommand>),
    Done(Done),
    Ran(Option<Result<TaskResult, Failure>>),
    Fetched(Fetched),
    Woken,
}

pub(super) struct Actor {
    pub(super) index: SlotIndex,
    pub(super) slot: SlotMachine,
    pub(super) context: Arc<SlotContext>,
    /// Here while no request runs with it.
    pub(super) process: Option<Box<BlenderProcess>>,
    pub(super) running: Option<BoxFuture<'static, Done>>,
    /// Cancels the request that runs, which then ends its process.
    pub(super) cancel: CancellationToken,
    pub(super) direct: Option<Direct>,
    pub(super) bundles: HashMap<SessionKey, Arc<MaterializedBundle>>,
    pub(super) fetches: JoinSet<Fetched>,
    pub(super) fetching: HashMap<SessionKey, AbortHandle>,
    wake: Option<Instant>,
    idle_since: Option<Instant>,
    last_end: Option<f64>,
    /// Of the process, while there is one.
    pid: Option<u32>,
    /// The priority of the process was lowered, which cannot be undone.
    lowered: bool,
}

/// The machine as the state machine sees it.
struct Environment<'a> {
    index: SlotIndex,
    context: &'a SlotContext,
    bundles: &'a HashMap<SessionKey, Arc<MaterializedBundle>>,
    process: Option<&'a BlenderProcess>,
    alive: bool,
    lowered: bool,
}

impl SlotEnvironment for Environment<'_> {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn has_blender(&self, series: BlenderSeries) -> bool {
        self.context.processes.install(series).is_some()
    }

    fn has_memory(&self, task: &SlotTask) -> bool {
        let (claims, memory) = (&self.context.memory, self.context.memory_now());
        match task {
            SlotTask::Blender(task) => {
                let size = self.bundles.get(&task.key).map_or(0, |bundle| bundle.size);
                claims.has_room(self.index, task.key, size, memory)
            }
            SlotTask::Direct(task) => claims.has_room_for_task(task.head.attempt, task.memory, memory),
        }
    }

    fn has_upload_room(&self) -> bool {
        self.context.uploads.has_room()
    }

    fn is_worn(&self) -> bool {
        // One that died between two frames is no frame's fault.
        !self.alive
            || self.lowered
            || self.process.is_some_and(|process| {
                let frames = process.host.frames_rendered();
                // Looking at the machine's memory takes longer than all else here: only where it could matter.
                let memory = if process.peak > 1 << 30 {
                    self.context.memory_now()
                } else {
                    Memory { total: 0, available: u64::MAX }
                };
                sizing::worn(frames, process.peak, memory.available, memory.total)
            })
    }
}

macro_rules! environment {
    ($actor:ident) => {
        &{
            let alive = $actor.process.as_mut().is_none_or(|process| process.host.is_alive());
            Environment {
                index: $actor.index,
                context: &$actor.context,
                bundles: &$actor.bundles,
                process: $actor.process.as_deref(),
                alive,
                lowered: $actor.lowered,
            }
        }
    };
}

impl Actor {
    async fn run(mut self, mut commands: UnboundedReceiver<SlotCommand>) {
        loop {
            let action = self.next(&mut commands).await;
            if self.apply(action) {
                return;
            }
        }
    }

    /// Waits for one thing to happen.
    async fn next(&mut self, commands: &mut UnboundedReceiver<SlotCommand>) -> Action {
        let wake = self.wake.into_iter().chain(self.idle_since.map(|since| since + WAIT_OPEN)).min();
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
        let direct = async {
            match &mut self.direct {
                Some(direct) => direct.run.as_mut().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            done = running => {
                self.running = None;
                Action::Done(done)
            }
            result = direct => Action::Ran(result),
            command = commands.recv() => Action::Command(command),
            Some(fetched) = self.fetches.join_next() => match fetched {
                Ok(fetched) => Action::Fetched(fetched),
                // Cancelled.
                Err(_) => Action::Woken,
            },
            () = sleeping => Action::Woken,
        }
    }

    /// Applies one action and its effects. Returns whether the slot has ended.
    fn apply(&mut self, action: Action) -> bool {
        let mut finished = None;
        match action {
            Action::Command(Some(command)) => self.command(command),
            Action::Command(None) => self.slot.close(true, environment!(self)),
            Action::Done(done) => finished = self.done(done),
            Action::Ran(result) => finished = self.ran(result),
            Action::Fetched((key, result)) => self.fetched(key, result),
            Action::Woken => {
                let now = Instant::now();
                self.wake = self.wake.filter(|at| *at > now);
                if self.idle_since.is_some_and(|since| now >= since + WAIT_OPEN) {
                    self.idle_since = None;
                    self.slot.end_waiting(environment!(self));
                }
                self.slot.advance(environment!(self));
            }
        }
        let mut closed = false;
        for effect in self.slot.take_effects() {
            closed |= self.carry_out(effect);
        }
        // The next frame is on its way to Blender before the files of this one are looked at.
        if let Some(finished) = finished {
            self.send(SlotEvent::Finished(Box::new(finished)));
        }
        let waits = matches!(self.slot.phase, SlotPhase::Idle { open: Some(_), .. });
        self.idle_since = if waits { self.idle_since.or_else(|| Some(Instant::now())) } else { None };
        if !matches!(self.slot.phase, SlotPhase::Working { .. }) {
            self.last_end = None;
        }
        closed
    }

    fn send(&self, event: SlotEvent) {
        self.context.events.send((self.index, event));
    }

    fn command(&mut self, command: SlotCommand) {
        match command {
            SlotCommand::Enqueue(tasks) => self.slot.enqueue(tasks, environment!(self)),
            SlotCommand::Revoke { attempt, running } => {
                self.slot.revoke(attempt, running, environment!(self));
            }
            SlotCommand::Prestart(series) => self.slot.prestart(series, environment!(self)),
            SlotCommand::MakeUnavailable { running } => {
                self.slot.make_unavailable(running, environment!(self));
                if let Some(pid) = self.pid.filter(|_| self.slot.blender_task().is_some()) {
                    kiln_host::lower_priority(pid);
                    self.lowered = true;
                }
            }
            SlotCommand::MakeAvailable => self.slot.make_available(environment!(self)),
            SlotCommand::EndIdle => self.slot.end_idle(environment!(self)),
            SlotCommand::Close { running } => self.slot.close(running, environment!(self)),
            SlotCommand::Poke => self.slot.advance(environment!(self)),
        }
    }

    fn fetched(&mut self, key: SessionKey, result: Result<Arc<MaterializedBundle>, Failure>) {
        if self.fetching.remove(&key).is_some() {
            let result = result.map(|bundle| {
                self.bundles.insert(key, bundle);
            });
            self.slot.fetched(key, result, environment!(self));
        }
    }

    fn done(&mut self, done: Done) -> Option<FinishedTask> {
        match done {
            Done::Started(Ok(process)) => {
                (self.pid, self.lowered) = (Some(process.host.pid()), false);
                self.process = Some(process);
                self.slot.started(Ok(()), environment!(self));
            }
            Done::Started(Err(failure)) => {
                tracing::warn!(%failure, "Blender failed to start");
                self.slot.started(Err(failure), environment!(self));
            }
            Done::Opened(process, result) => self.opened(process, result),
            Done::Worked { process, took, result } => return self.worked(process, took, result),
            Done::Ended => {
                self.pid = None;
                self.context.memory.release(self.index);
                self.slot.recycled(environment!(self));
            }
            Done::Lost(failure) => self.slot.lost(&failure, environment!(self)),
        }
        None
    }

    fn ran(&mut self, result: Option<Result<TaskResult, Failure>>) -> Option<FinishedTask> {
        let Direct { task, started, .. } = self.direct.take()?;
        self.context.memory.release_task(task.attempt);
        // The files of a cancelled task are dropped, also where it was done first.
        let result = result.filter(|_| self.slot.direct == DirectRun::Running(task));
        let (finished, result) = match result {
            Some(Ok(result)) => {
                let TaskResult { files, log_tail, seconds, peak_memory: peak, .. } = result;
                let output = TaskOutput { attempt: task.attempt, files, log_tail };
                (Some(FinishedTask { task, output, seconds, peak, gap: None }), Ok(()))
            }
            Some(Err(failure)) => (None, Err((failure, started.elapsed().as_secs_f64()))),
            None => (None, Ok(())),
        };
        self.slot.ran(result, environment!(self));
        finished
    }

    fn opened(&mut self, mut process: Box<BlenderProcess>, result: Result<OpenedFile, Failure>) {
        let alive = process.host.is_alive();
        let result = match (result, self.slot.blender_task()) {
            (Ok(opened), Some(task)) => {
                let job = task.head.job();
                tracing::debug!(%job, seconds = opened.seconds, "file opened");
                self.job_notices(job, opened.notices);
                Ok(())
            }
            (Ok(_), None) => Ok(()),
            (Err(failure), current) => {
                if failure.cause == FailureCause::OutOfMemory
                    && let Some(task) = current
                {
                    self.context.memory.note_out_of_memory(task.key);
                }
                self.context.memory.release(self.index);
                // The log goes up before the attempt ends: the server takes none for one that has ended.
                process.monitor.flush();
                Err(failure)
            }
        };
        self.process = Some(process);
        self.slot.opened(result, alive, environment!(self));
    }

    fn worked(
        &mut self,
        mut process: Option<Box<BlenderProcess>>,
        took: f64,
        result: Result<TaskResult, Failure>,
    ) -> Option<FinishedTask> {
        let task = self.slot.blender_task().map(|task| (task.head, task.key));
        let (finished, result) = match (result, task) {
            (Ok(result), Some((task, key))) => {
                (Some(self.finish(process.as_deref_mut(), task, key, result)), Ok(()))
            }
            // It was revoked; its files are removed.
            (Ok(_), None) => (None, Ok(())),
            (Err(failure), task) => {
                if let Some((_, key)) = task
                    && failure.cause == FailureCause::OutOfMemory
                {
                    self.context.memory.note_out_of_memory(key);
                }
                (None, Err((failure, took)))
            }
        };
        let lives = process.is_some();
        match &mut process {
            // The host has read all that was printed for this task; it goes up before the task's end does.
            Some(process) => process.monitor.flush(),
            None => {
                self.pid = None;
                self.context.memory.release(self.index);
            }
        }
        self.process = process;
        self.slot.worked(result, lives, environment!(self));
        finished
    }

    fn finish(
        &mut self,
        process: Option<&mut BlenderProcess>,
        task: TaskHead,
        key: SessionKey,
        result: TaskResult,
    ) -> FinishedTask {
        let TaskResult { files, log_tail, notices, seconds, peak_memory: peak, span } = result;
        if let Some(process) = process {
            let higher = (peak > process.peak).then_some(peak);
            process.peak = process.peak.max(peak);
            self.context.memory.rendered(self.index, key, process.persistent, higher);
        }
        let gap = span.and_then(|(started, ended)| {
            let last_end = self.last_end.replace(ended)?;
            Some((started - last_end).max(0.0))
        });
        self.job_notices(task.job(), notices);
        FinishedTask {
            task,
            output: TaskOutput { attempt: task.attempt, files, log_tail },
            seconds,
            peak,
            gap,
        }
    }

    fn job_notices(&self, job: JobId, texts: Vec<String>) {
        if !texts.is_empty() {
            self.send(SlotEvent::JobNotices { job, texts });
        }
    }

    fn carry_out(&mut self, effect: SlotEffect) -> bool {
        match effect {
            SlotEffect::Start(kind, session) => self.start(kind, session),
            SlotEffect::Fetch(session) => self.fetch(session),
            SlotEffect::Open(task) => self.open(task),
            SlotEffect::Work(task) => match task.action {
                BlenderAction::Render(frame) => self.render(&task, frame),
                BlenderAction::Bake => self.bake(task),
            },
            SlotEffect::Run(task) => self.run_direct(task),
            SlotEffect::CancelRun => {
                if let Some(direct) = &self.direct {
                    direct.cancel.cancel();
                }
            }
            SlotEffect::Recycle => self.recycle(),
            SlotEffect::Release(key) => {
                self.bundles.remove(&key);
                if let Some(fetch) = self.fetching.remove(&key) {
                    fetch.abort();
                }
            }
            SlotEffect::Wake(after) => self.wake = Some(Instant::now() + after),
            SlotEffect::Tell(notice) => {
                let closed = matches!(notice, SlotNotice::Closed);
                self.send(SlotEvent::Notice(notice));
                return closed;
            }
        }
        false
    }
}
