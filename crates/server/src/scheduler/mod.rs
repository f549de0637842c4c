//! The scheduler: the one task that owns the live state and decides.
//!
//! A turn takes the waiting inputs, applies each to the core, writes all consequences in one transaction, and only then
//! answers, pushes to workers and publishes events: nothing is sent before it is on disk, and many decisions share one
//! flush of the disk.
//!
//! No input waits long: a turn takes a limited number of inputs ([`AT_ONCE`]), requests go before messages of workers, and
//! reads run between two turns, when everything that they see is on disk.

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
mod views;
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
pub(crate) use input::{CheckedReport, FarmSetting, Input, JobCommand, MadeFiles, misbehaved};
pub(crate) use refusal::Refusal;
pub(crate) use views::LiveJobView;
pub(crate) use worker::{KnownWorker, LinkHandle};

use crate::{arrivals::Arrivals, clock::Clock, error::ServerError, events::Hub, logs::Logs};
use broken::AppliedInput;
use reading::Loading;

/// Messages of workers that wait at most; the senders of further ones wait themselves.
const MESSAGES: usize = 4 * AT_ONCE;
/// Requests of clients that wait at most.
const REQUESTS: usize = 1024;
/// Inputs that one turn takes from either queue at most, because a request waits for one turn. Only an overloaded server
/// reaches this number, and a larger one does more work: a turn writes as many pages of the records for few messages as for
/// many (`bench/farm lifecycles`: 5,018 a second with 512 inputs a turn, 8,518 with 2,048, 17,068 with 4,096).
const AT_ONCE: usize = 4096;

impl Scheduler {
    /// Opens the scheduler with the unfinished jobs and the workers of the records.
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
        let (message_sender, messages) = mpsc::channel(MESSAGES);
        let (request_sender, requests) = mpsc::channel(REQUESTS);
        let (arrivals, clock) = (Arc::<Arrivals>::default(), farm.clock);
        let handle = SchedulerHandle {
            messages: message_sender,
            requests: request_sender,
            arrivals: arrivals.clone(),
            clock,
        };
        let (batch, pending, applied, broken) = Default::default();
        let scheduler = Self {
            farm,
            batch,
            store,
            loading,
            hub,
            logs,
            arrivals,
            messages,
            requests,
            config,
            pending,
            applied,
            broken,
        };
        Ok((scheduler, handle))
    }

    /// Runs until `stop`, and then until no input waits.
    ///
    /// # Errors
    /// If the records cannot be written, or the scheduler contradicts itself repeatedly: none of the last inputs was
    /// acknowledged.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), ServerError> {
        let (mut requests, mut messages) = (Vec::new(), Vec::new());
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
                _ = self.requests.recv_many(&mut requests, AT_ONCE) => false,
                _ = self.messages.recv_many(&mut messages, AT_ONCE) => false,
                Some(read) = self.loading.next() => {
                    self.finish_loading(read).await;
                    false
                }
                () = alarm => false,
                () = stop.cancelled() => true,
            };
            is_due = false;
            match AssertUnwindSafe(self.round(&mut requests, &mut messages)).catch_unwind().await {
                Ok(done) => done?,
                Err(panic) => {
                    self.recover(panic).await?;
                    is_due = true;
                }
            }
            if stopped && !is_due && self.requests.is_empty() && self.messages.is_empty() {
                self.batch.writes.extend(self.farm.touch_workers());
                return Ok(self.turn().await?);
            }
        }
    }

    /// Runs one turn, with these inputs and as many further ones as it may take.
    async fn round(
        &mut self,
        requests: &mut Vec<Input>,
        messages: &mut Vec<Input>,
    ) -> Result<(), StoreError> {
        fill(requests, &mut self.requests);
        fill(messages, &mut self.messages);
        // Reads come before anything changes: the state is on disk now.
        for input in requests.drain(..) {
            match input {
                Input::Read(read) => read(&self.farm),
                request => self.pending.push_back(request),
            }
        }
        while let Some(read) = self.loading.try_next() {
            self.finish_loading(read).await;
        }
        self.pending.extend(messages.drain(..));
        while let Some(input) = self.pending.pop_front() {
            self.applied.push(AppliedInput::of(&input));
            self.take(input).await?;
        }
        self.turn().await
    }

    /// Lets the core react to the time and dispatch tasks; then writes, then sends.
    async fn turn(&mut self) -> Result<(), StoreError> {
        let now = self.farm.clock.now();
        self.respect_waiting_messages(now);
        self.farm.core.tick(now, &mut self.batch.outbox);
        self.farm.core.schedule(now, &mut self.batch.outbox);
        self.commit().await
    }

    /// Writes the decisions of the batch, then answers, pushes and publishes them.
    async fn commit(&mut self) -> Result<(), StoreError> {
        self.absorb();
        self.farm.forget_ended_jobs();
        if !self.batch.writes.is_empty() {
            let events = self.store.commit(std::mem::take(&mut self.batch.writes)).await?;
            self.hub.publish(&events);
        }
        self.release();
        self.applied.clear();
        Ok(())
    }

    /// Renews the leases of workers whose messages wait to be applied, and postpones the hang timeouts of their attempts.
    fn respect_waiting_messages(&mut self, now: Moment) {
        for worker in self.farm.core.expiring(now) {
            if let Some(heard) = self.arrivals.silent_since(worker, now) {
                self.farm.core.renew_lease(heard, worker);
            }
        }
        for worker in self.farm.core.hanging(now) {
            if self.arrivals.has_waiting(worker) {
                self.farm.core.postpone_hang(now, worker);
            }
        }
    }

    /// Reads from the records what an input needs of them, and applies it.
    async fn take(&mut self, input: Input) -> Result<(), StoreError> {
        match input {
            Input::Job { job, command, reply } => self.begin_command(job, command, reply).await,
            // Only the scheduler removes bundles: one that is recorded now still is when the job is written.
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

/// Takes waiting inputs, up to [`AT_ONCE`] in all.
fn fill(taken: &mut Vec<Input>, waiting: &mut mpsc::Receiver<Input>) {
    while taken.len() < AT_ONCE
        && let Ok(input) = waiting.try_recv()
    {
        taken.push(input);
    }
}
