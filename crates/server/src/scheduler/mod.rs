//! The one place that decides.
//!
//! A turn takes what waits, applies each input to the core, writes all consequences in one transaction, and only then
//! answers, pushes to workers and publishes events: nothing is told before it is on disk, and many decisions share one
//! flush of the disk.
//!
//! Nobody waits long behind others: a turn takes and hands out only so much ([`AT_ONCE`]), people are heard before
//! workers, and whoever only looks does so between two turns, when all that there is to see is on disk.

mod absorb;
mod actor;
mod apply;
mod batch;
mod broken;
mod explain;
mod farm;
mod handle;
mod input;
mod loading;
mod look;
mod order;
mod paths;
mod plan;
mod reading;
mod recover;
#[cfg(test)]
mod recover_tests;
mod refusal;
mod release;
mod restore;
mod roster;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod turn_tests;
mod worker;

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt as _;
use kiln_core::Moment;
use kiln_store::{ReadPool, Store, StoreError};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub(crate) use actor::Scheduler;
pub(crate) use farm::{FarmState, account};
pub(crate) use handle::SchedulerHandle;
pub(crate) use input::{CheckedReport, FarmSetting, Input, JobAction, MadeFiles, misbehaved};
pub(crate) use look::LiveJobView;
pub(crate) use refusal::Refusal;
pub(crate) use worker::LinkHandle;

use crate::{arrivals::Arrivals, clock::Clock, error::ServerError, events::Hub, logs::Logs};
use batch::Batch;
use broken::Taken;
use reading::Loading;

/// Inputs of workers that wait at most; senders of more wait themselves.
const QUEUE: usize = 4 * AT_ONCE;
/// Requests of people that wait at most.
const ASKED: usize = 1024;
/// Inputs that one turn takes from either at most: who asks something waits for one turn. Only a server that has more
/// to do than it can takes so many, and the more it takes at once, the more it does: a turn writes as many pages of the
/// records for few inputs of many workers as for many (`bench/farm lifecycles`: 5,018 a second with 512 inputs a turn,
/// 8,518 with 2,048, 17,068 with 4,096).
const AT_ONCE: usize = 4096;

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
                self.batch.writes.extend(self.farm.touch_all());
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
                    Ok(Some(_)) => match self.completed(&spec.scheduling.after).await {
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
