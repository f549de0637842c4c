//! Nothing for ever: what nobody needs any more goes, on a schedule and on demand.
//!
//! The scheduler removes from the records all that is due by the retention, in transactions of its own, each of a part;
//! then the bytes that nothing needs are removed. What an open job, an upload or a promise needs is never among them: the line below
//! which promises have run out is drawn before the records are read, and whoever puts something into the records
//! holds that line from its first look on (`holds.rs`).

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use kiln_api::Collected;
use kiln_blobs::{BlobError, Blobs, Uploads};
use kiln_store::{Due, Expired, Expiry, Store, StoreError, Write};
use kiln_types::{BlobHash, EventNumber};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::{
    holds::Holds,
    logs::Logs,
    retention::Retention,
    scheduler::{Input, Refusal, SchedulerHandle},
    space::DiskSpace,
};

/// The first collection after a start, and every further one.
const FIRST: Duration = Duration::from_secs(60);
const EVERY: Duration = Duration::from_secs(60 * 60);
/// Jobs and bundles that go in one transaction, and events: the scheduler waits for no longer.
const AT_ONCE: usize = 500;
const EVENTS: u64 = 20_000;
/// From one look for used intermediates to the next, while the disk is short.
const SHORT: Duration = Duration::from_secs(5);
/// Until rows that could not be removed are tried again.
const AGAIN: Duration = Duration::from_secs(60);

/// The reasons for which a collection breaks off, or does not begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CollectError {
    #[error("this server belongs to one render and is thrown away with it; there is nothing to collect")]
    KeepsNothing,
    #[error(transparent)]
    Scheduler(#[from] Refusal),
    #[error("the records: {0}")]
    Records(#[from] StoreError),
    #[error("the bytes: {0}")]
    Blobs(#[from] BlobError),
    #[error("the logs: {0}")]
    Logs(#[from] std::io::Error),
}

pub(crate) struct Collector {
    /// A throw-away server has none: everything goes at its end.
    pub retention: Option<Retention>,
    /// Read by a connection of its own: a collection looks at everything.
    pub store: Store,
    pub blobs: Blobs,
    pub uploads: Uploads,
    pub logs: Logs,
    pub scheduler: SchedulerHandle,
    pub holds: Holds,
    pub space: DiskSpace,
    /// One collection at a time.
    pub one: Mutex<()>,
}

impl Collector {
    /// Collects at its times until the server stops.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        if self.retention.is_none() {
            return;
        }
        let mut times = tokio::time::interval_at(tokio::time::Instant::now() + FIRST, EVERY);
        loop {
            let is_short = tokio::select! {
                () = stop.cancelled() => return,
                _ = times.tick() => false,
                () = self.space.refused() => true,
            };
            let collect = async {
                if is_short {
                    self.free_spent().await?;
                    tokio::time::sleep(SHORT).await;
                    return Ok(());
                }
                self.collect(SystemTime::now(), false).await.map(drop)
            };
            tokio::select! {
                () = stop.cancelled() => return,
                done = collect => if let Err::<(), CollectError>(error) = done {
                    tracing::warn!(%error, "collection broke off");
                },
            }
        }
    }

    /// Removes the rows of deleted jobs, a little at a time, until the server stops.
    pub(crate) async fn sweep_deleted(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                swept = self.store.sweep() => if let Err(error) = swept {
                    tracing::warn!(%error, "the rows of deleted jobs cannot be removed now");
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(AGAIN) => continue,
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.store.job_deleted() => {}
            }
        }
    }

    /// Removes what nobody needs at this time, or only says what that would be.
    ///
    /// # Errors
    /// Where the disk or the records fail; what was collected until then is gone.
    pub(crate) async fn collect(&self, now: SystemTime, dry_run: bool) -> Result<Collected, CollectError> {
        let retention = self.retention.ok_or(CollectError::KeepsNothing)?;
        let _one = self.one.lock().await;
        let begun = std::time::Instant::now();
        let now_ms = unix(now);
        // First of all: who comes later promises later, and who has come is in the records that are read next.
        let held = self.holds.oldest();
        let promised_since = match retention.promises.until(now_ms) {
            Some(at_ms) => held.min(system(at_ms)),
            None => UNIX_EPOCH,
        };
        let idle_since = retention.uploads.until(now_ms).map_or(UNIX_EPOCH, |at_ms| held.min(system(at_ms)));
        let uploads = if dry_run {
            self.uploads.expirable(idle_since).await?
        } else {
            self.uploads.expire(idle_since).await?
        };
        let expiry = Expiry {
            at_ms: now_ms,
            inputs_ms: retention.bundles.until(now_ms),
            outputs_ms: retention.outputs.until(now_ms),
            logs_ms: retention.logs.until(now_ms),
            spent_ms: retention.intermediates.until(now_ms),
            unused_ms: retention.intermediates.until(now_ms),
            promised_ms: unix(promised_since),
        };
        let (expired, mut needed) = if dry_run {
            self.store.would_expire(&expiry).await?
        } else {
            (self.expire(expiry, self.store.due(&expiry).await?).await?, self.store.needed_blobs().await?)
        };
        needed.extend(self.uploads.finished(idle_since).await?);
        needed.sort_unstable();
        let is_needed = move |hash: &BlobHash| needed.binary_search(hash).is_ok();
        let freed = if dry_run {
            self.blobs.collectable(is_needed, promised_since).await?
        } else {
            self.blobs.collect(is_needed, promised_since).await?
        };
        if !dry_run && expired.bundles > 0 {
            self.store.sweep().await?;
        }
        let log_bytes = self.logs(&expired, dry_run).await?;
        let events = self.events(retention.events.until(now_ms), dry_run).await?;
        let collected = Collected {
            dry_run,
            inputs: expired.inputs,
            outputs: expired.outputs,
            logs: expired.logs,
            bundles: expired.bundles,
            intermediates: expired.intermediates.len() as u64,
            uploads: uploads as u64,
            blobs: freed.blobs,
            bytes: freed.bytes,
            log_bytes,
            events,
            seconds: begun.elapsed().as_secs_f64(),
        };
        if !dry_run {
            tracing::info!(
                inputs = collected.inputs.len(),
                outputs = collected.outputs.len(),
                logs = collected.logs.len(),
                bundles = collected.bundles,
                intermediates = collected.intermediates,
                uploads,
                blobs = collected.blobs,
                bytes = collected.bytes,
                log_bytes,
                events,
                seconds = collected.seconds,
                "collected"
            );
        }
        Ok(collected)
    }

    /// Removes intermediates that are used up, however young they are, because the disk is short. Others keep what they
    /// were promised: of these, nobody was told anything since they were stored.
    ///
    /// # Errors
    /// If the disk or the records fail; what was removed until then is gone.
    async fn free_spent(&self) -> Result<(), CollectError> {
        let _one = self.one.lock().await;
        let held = self.holds.oldest();
        let now_ms = unix(SystemTime::now());
        let expiry = Expiry { at_ms: now_ms, spent_ms: Some(now_ms), ..Expiry::default() };
        let spent = self.store.due_intermediates(&expiry).await?;
        let Expired { intermediates, freed, .. } = self.expire(expiry, spent).await?;
        if freed.is_empty() {
            return Ok(());
        }
        let mut needed = self.store.needed_blobs().await?;
        needed.extend(self.uploads.finished(UNIX_EPOCH).await?);
        needed.sort_unstable();
        let is_free = |(hash, _): &(BlobHash, i64)| needed.binary_search(hash).is_err();
        let stored_by = |(hash, at_ms): (BlobHash, i64)| (hash, held.min(system(at_ms.saturating_add(1))));
        let spent = freed.into_iter().filter(is_free).map(stored_by).collect();
        let freed = self.blobs.whole().collect_each(spent).await?;
        tracing::info!(
            tasks = intermediates.len(),
            blobs = freed.blobs,
            bytes = freed.bytes,
            "used intermediates removed"
        );
        Ok(())
    }

    /// Has the scheduler remove from the records all that was found to be due, a part at a time, with turns in between.
    async fn expire(&self, expiry: Expiry, due: Due) -> Result<Expired, CollectError> {
        let mut expired = Expired::default();
        for due in due.parts(AT_ONCE) {
            let due = Box::new(due);
            expired.add(self.scheduler.ask(|reply| Input::Expire { expiry, due, reply }).await?);
        }
        Ok(expired)
    }

    /// Those that are due, and those of jobs that are there no more. Returns their bytes.
    async fn logs(&self, expired: &Expired, dry_run: bool) -> Result<u64, CollectError> {
        let there = self.logs.jobs().await?;
        let kept = self.store.with_logs(&there).await?;
        let goes = |job| !kept.contains(job) || expired.logs.contains(job);
        let mut bytes = 0;
        for job in there.iter().filter(|job| goes(job)) {
            bytes += self.logs.size(*job).await?;
            if !dry_run {
                self.logs.delete(*job);
            }
        }
        self.logs.flush().await;
        Ok(bytes)
    }

    async fn events(&self, until_ms: Option<i64>, dry_run: bool) -> Result<u64, CollectError> {
        let Some(until_ms) = until_ms else { return Ok(0) };
        let Some((last, count)) = self.store.events_until(until_ms).await? else { return Ok(0) };
        if dry_run {
            return Ok(count);
        }
        let mut up_to = last.0.saturating_sub(count);
        while up_to < last.0 {
            up_to = last.0.min(up_to + EVENTS);
            let trim = Write::TrimEvents { up_to: EventNumber(up_to) };
            self.store.commit(vec![trim]).await?;
        }
        Ok(count)
    }
}

fn unix(at: SystemTime) -> i64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn system(unix_ms: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(unix_ms).unwrap_or(0))
}
