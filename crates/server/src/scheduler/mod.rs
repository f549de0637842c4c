//! The one place that decides.
//!
//! A turn takes what waits, applies each input to the core, writes all consequences in one transaction, and only then
//! answers, pushes to workers and publishes events: nothing is told before it is on disk, and many decisions share one
//! flush of the disk.
//!
//! Nobody waits long behind others: a turn takes and hands out only so much ([`AT_ONCE`]), people are heard before
//! workers, and whoever only looks does so between two turns, when all that there is to see is on disk.

mod absorb;
mod apply;
mod batch;
mod explain;
mod farm;
mod loading;
mod look;
mod order;
mod paths;
mod plan;
mod recover;
#[cfg(test)]
mod recover_tests;
mod refusal;
mod restore;
mod roster;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod turn_tests;
mod wakes;

use std::{collections::VecDeque, panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt as _;
use kiln_api::{ChangeJob, Hello, Up};
use kiln_core::Moment;
use kiln_store::{Due, Expired, Expiry, NewBundle, ReadPool, Store, StoreError};
use kiln_types::{AttemptId, DesiredState, Failure, FrameSet, JobId, JobSpec, StepSpec, TaskFile, WorkerId};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

pub(crate) use farm::{FarmState, LinkHandle};
pub(crate) use look::LiveJobView;
pub(crate) use order::{FarmSetting, party};
pub(crate) use refusal::Refusal;

use crate::{
    ServerError,
    arrivals::{Arrival, Arrivals, Received},
    clock::Clock,
    events::Hub,
    holds::Hold,
    logs::Logs,
};
use batch::Batch;
use loading::Loading;
use recover::{Broken, Taken};

/// Inputs of workers that wait at most; senders of more wait themselves.
const QUEUE: usize = 4 * AT_ONCE;
/// Requests of people that wait at most.
const ASKED: usize = 1024;
/// Inputs that one turn takes from either at most: who asks something waits for one turn. Only a server that has more
/// to do than it can takes so many, and the more it takes at once, the more it does: a turn writes as many pages of the
/// records for few inputs of many workers as for many (`bench/farm lifecycles`: 5,018 a second with 512 inputs a turn,
/// 8,518 with 2,048, 17,068 with 4,096).
const AT_ONCE: usize = 4096;

/// Something that the scheduler has to answer.
pub(crate) enum Input {
    Submit {
        spec: Box<JobSpec>,
        notices: Vec<String>,
        /// It is paused from the start.
        held: bool,
        reply: Reply<JobId>,
    },
    Job {
        job: JobId,
        verb: JobAction,
        /// Answered with the number of tasks that run again only because their files are needed and were removed.
        reply: Reply<u32>,
    },
    /// A worker has connected and said hello. It is welcomed, or refused, through its link.
    Join {
        hello: Box<Hello>,
        link: LinkHandle,
        received: Received,
    },
    Up {
        worker: WorkerId,
        link: u64,
        up: Up,
        received: Received,
    },
    /// An attempt has left its slot. Every byte of what it made is here.
    Finished {
        worker: WorkerId,
        link: u64,
        attempt: AttemptId,
        finished: CheckedReport,
        /// Since before it was looked at.
        hold: Hold,
        received: Received,
    },
    /// The connection is gone.
    Gone {
        worker: WorkerId,
        link: u64,
    },
    DesiredState {
        name: String,
        desired: DesiredState,
        reply: Reply<()>,
    },
    Set {
        setting: FarmSetting,
        reply: Reply<()>,
    },
    Heal {
        name: String,
        reply: Reply<()>,
    },
    RemoveWorker {
        name: String,
        reply: Reply<()>,
    },
    /// The person has its outputs up to this sequence.
    Fetched {
        job: JobId,
        sequence: u64,
        reply: Reply<()>,
    },
    /// Lets go of what is due, a part of it: whoever looked for it did so elsewhere.
    Expire {
        expiry: Expiry,
        due: Box<Due>,
        reply: Reply<Expired>,
    },
    /// Runs when everything before it is on disk.
    Look(Look),
    /// Panics when it is applied.
    #[cfg(test)]
    Panic(Box<dyn FnOnce() + Send>),
}

/// How an attempt left its slot.
#[derive(Debug, Clone)]
pub(crate) enum CheckedReport {
    Done {
        made: MadeFiles,
        /// By the host's clock; not yet believed.
        seconds: f64,
        /// Bytes.
        peak_memory: u64,
    },
    Failed {
        failure: Failure,
        seconds: f64,
    },
    Returned,
}

/// The files that an attempt made. Every byte of them is here; whether its step makes such files is not checked yet.
#[derive(Debug, Clone)]
pub(crate) enum MadeFiles {
    Files(Vec<TaskFile>),
    Bundle(NewBundle),
    /// Files without pictures, of an attempt that was not known when they came.
    Unknown,
}

pub(crate) type Reply<T> = oneshot::Sender<Result<T, Refusal>>;
type Look = Box<dyn FnOnce(&FarmState) + Send>;

/// What a person may do with a job.
#[derive(Debug, Clone)]
pub(crate) enum JobAction {
    Pause,
    Resume,
    Cancel,
    Retry,
    /// All frames, where there are none.
    Rerender(Option<FrameSet>),
    /// Bakes again, and so renders all frames again.
    Rebake,
    Extend(FrameSet),
    AddStep(Box<StepSpec>),
    /// Lets it stand otherwise among the others.
    Change(ChangeJob),
    /// Puts it away, or takes it back out.
    Archive(bool),
    Delete {
        /// Cancel it first, where it has not ended.
        force: bool,
    },
}

/// Speaks to the scheduler; cheap to clone.
#[derive(Clone)]
pub(crate) struct SchedulerHandle {
    told: mpsc::Sender<Input>,
    asked: mpsc::Sender<Input>,
    arrivals: Arc<Arrivals>,
    clock: Clock,
}

impl SchedulerHandle {
    /// A connection of this worker begins; [`Input::Gone`] ends it.
    pub(crate) fn connect(&self, worker: WorkerId) -> Arc<Arrival> {
        self.arrivals.connect(worker, self.clock.now())
    }

    /// The connection has handed on what it received, and listens again.
    pub(crate) fn listen(&self, arrival: &Arrival) {
        arrival.listen(self.clock.now());
    }

    /// What a worker's link has to say, in the order in which it says it. Waits while the scheduler is behind. An input
    /// after the scheduler's end is dropped, its reply with it.
    pub(crate) async fn tell(&self, input: Input) {
        let _ = self.told.send(input).await;
    }

    /// Sends an input and waits for its answer, which comes when its consequences are on disk.
    pub(crate) async fn ask<T>(&self, input: impl FnOnce(Reply<T>) -> Input) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        let _ = self.asked.send(input(reply)).await;
        answer.await.unwrap_or_else(|_| Err(self.unanswered()))
    }

    /// The answer that nobody gave: the scheduler has ended, or has dropped the batch.
    fn unanswered(&self) -> Refusal {
        if self.asked.is_closed() { Refusal::Stopping } else { Refusal::BatchDropped }
    }

    /// Reads the live state, as it is on disk.
    pub(crate) async fn look<T, F>(&self, look: F) -> Result<T, Refusal>
    where
        T: Send + 'static,
        F: FnOnce(&FarmState) -> T + Send + 'static,
    {
        self.look_by(&self.asked, look).await
    }

    /// The same, when all that was told before is on disk.
    pub(crate) async fn look_behind<T, F>(&self, look: F) -> Result<T, Refusal>
    where
        T: Send + 'static,
        F: FnOnce(&FarmState) -> T + Send + 'static,
    {
        self.look_by(&self.told, look).await
    }

    async fn look_by<T, F>(&self, way: &mpsc::Sender<Input>, look: F) -> Result<T, Refusal>
    where
        T: Send + 'static,
        F: FnOnce(&FarmState) -> T + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let look: Look = Box::new(move |farm| {
            // Whoever asked may have gone.
            let _ = reply.send(look(farm));
        });
        let _ = way.send(Input::Look(look)).await;
        answer.await.map_err(|_| self.unanswered())
    }
}

/// The loop around the core.
pub(crate) struct Scheduler {
    farm: FarmState,
    batch: Batch,
    /// Read by a connection of its own.
    store: Store,
    loading: Loading,
    hub: Arc<Hub>,
    logs: Logs,
    arrivals: Arc<Arrivals>,
    told: mpsc::Receiver<Input>,
    asked: mpsc::Receiver<Input>,
    config: kiln_core::Config,
    /// Inputs of this turn that are not applied yet.
    pending: VecDeque<Input>,
    /// Those that are, for the log of a turn that is dropped.
    taken: Vec<Taken>,
    broken: Broken,
}

impl Scheduler {
    /// Reads the unfinished jobs and the known workers back.
    pub(crate) async fn open(
        store: Store,
        hub: Arc<Hub>,
        logs: Logs,
        config: kiln_core::Config,
        heartbeat_ms: u64,
    ) -> Result<(Self, SchedulerHandle), ServerError> {
        let loading = Loading::new(store.reading_by(ReadPool::Jobs));
        let store = store.reading_by(ReadPool::Scheduler);
        let farm = restore::farm(&store, Clock::start(), config.clone(), heartbeat_ms).await?;
        let (tell, told) = mpsc::channel(QUEUE);
        let (ask, asked) = mpsc::channel(ASKED);
        let batch = Batch::default();
        let (arrivals, clock) = (Arc::<Arrivals>::default(), farm.clock);
        let handle = SchedulerHandle { told: tell, asked: ask, arrivals: arrivals.clone(), clock };
        let (pending, taken, broken) = Default::default();
        let scheduler = Self {
            farm,
            batch,
            store,
            loading,
            hub,
            logs,
            arrivals,
            told,
            asked,
            config,
            pending,
            taken,
            broken,
        };
        Ok((scheduler, handle))
    }

    /// Runs until `stop`, and then until no input waits.
    ///
    /// # Errors
    /// If the records could not be written, or the scheduler contradicts itself again and again: then nothing of the last
    /// inputs was acknowledged.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), ServerError> {
        let (mut asked, mut told) = (Vec::new(), Vec::new());
        let mut is_due = false;
        loop {
            let deadline = self.farm.next_deadline();
            let alarm = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            let stopped = tokio::select! {
                biased;
                () = std::future::ready(()), if is_due => false,
                _ = self.asked.recv_many(&mut asked, AT_ONCE) => false,
                _ = self.told.recv_many(&mut told, AT_ONCE) => false,
                Some(read) = self.loading.next() => {
                    self.take_up(read).await;
                    false
                }
                () = alarm => false,
                () = stop.cancelled() => true,
            };
            is_due = false;
            match AssertUnwindSafe(self.round(&mut asked, &mut told)).catch_unwind().await {
                Ok(done) => done?,
                Err(panic) => {
                    self.recover(panic).await?;
                    is_due = true;
                }
            }
            if stopped && !is_due && self.asked.is_empty() && self.told.is_empty() {
                self.farm.touch_all(&mut self.batch);
                return Ok(self.turn().await?);
            }
        }
    }

    /// One turn, of these inputs and as much more as it may take.
    async fn round(&mut self, asked: &mut Vec<Input>, told: &mut Vec<Input>) -> Result<(), StoreError> {
        fill(asked, &mut self.asked);
        fill(told, &mut self.told);
        // Before anything changes: what there is to see now is on disk.
        for input in asked.drain(..) {
            match input {
                Input::Look(look) => look(&self.farm),
                request => self.pending.push_back(request),
            }
        }
        while let Some(read) = self.loading.try_next() {
            self.take_up(read).await;
        }
        self.pending.extend(told.drain(..));
        while let Some(input) = self.pending.pop_front() {
            self.taken.push(Taken::of(&input));
            self.take(input).await?;
        }
        self.turn().await
    }

    /// Lets the core act on the time and hand out work; then writes, then speaks.
    async fn turn(&mut self) -> Result<(), StoreError> {
        let now = self.farm.clock.now();
        self.mind_what_waits(now);
        self.farm.core.tick(now, &mut self.batch.outbox);
        self.farm.core.schedule(now, &mut self.batch.outbox);
        self.commit().await
    }

    /// Writes what the batch has decided, then answers, pushes and publishes it.
    async fn commit(&mut self) -> Result<(), StoreError> {
        self.absorb();
        self.farm.forget_ended_jobs();
        if !self.batch.writes.is_empty() {
            let events = self.store.commit(std::mem::take(&mut self.batch.writes)).await?;
            self.hub.publish(&events);
        }
        self.release();
        self.taken.clear();
        Ok(())
    }

    /// The lease of a worker of which something has arrived goes on, however long that waits to be applied; and nothing of
    /// it is taken to hang before.
    fn mind_what_waits(&mut self, now: Moment) {
        for worker in self.farm.core.expiring(now) {
            if let Some(heard) = self.arrivals.last(worker, now) {
                self.farm.core.renew_lease(heard, worker);
            }
        }
        for worker in self.farm.core.hanging(now) {
            if self.arrivals.waits(worker) {
                self.farm.core.postpone_hang(now, worker);
            }
        }
    }

    /// Reads from the records what an input needs of them, and applies it.
    async fn take(&mut self, input: Input) -> Result<(), StoreError> {
        match input {
            Input::Job { job, verb, reply } => self.begin_verb(job, verb, reply).await,
            // Only the scheduler lets bundles go: one that is there now is there when the job is written.
            Input::Submit { spec, notices, held, reply } => {
                let answer = match self.store.bundle(spec.session.bundle).await {
                    Ok(Some(_)) => match self.completed(&spec.standing.after).await {
                        Ok(completed) => self.submit(*spec, notices, held, &completed),
                        Err(refusal) => Err(refusal),
                    },
                    Ok(None) => Err(Refusal::FilesMissing),
                    Err(error) => Err(Refusal::failed("the job's files could not be looked up", error)),
                };
                self.batch.answer(reply, answer);
            }
            Input::Expire { expiry, due, reply } => self.expire(expiry, &due, reply).await?,
            other => self.apply(other),
        }
        Ok(())
    }
}

/// Up to [`AT_ONCE`] of what waits.
fn fill(taken: &mut Vec<Input>, waiting: &mut mpsc::Receiver<Input>) {
    while taken.len() < AT_ONCE
        && let Ok(input) = waiting.try_recv()
    {
        taken.push(input);
    }
}
