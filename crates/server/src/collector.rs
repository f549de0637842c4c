//! Collections: they remove what the retention no longer keeps, on a schedule and on demand.
//!
//! The scheduler removes what is due from the records, in several transactions; then the bytes that no record needs are
//! removed. Bytes that an open job, an upload or a promise needs are never among them: the time before which promises
//! count as expired is read before the records, and a request that adds to the records holds that time back from its first
//! check on (`holds.rs`).

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

/// The delay from the start of the server to its first collection.
const FIRST: Duration = Duration::from_secs(60);
const EVERY: Duration = Duration::from_secs(60 * 60);
/// Jobs and bundles, or events, that one transaction removes: the scheduler waits for it.
const AT_ONCE: usize = 500;
const EVENTS: u64 = 20_000;
/// The pause between two removals of used intermediates while the disk is short.
const SHORT: Duration = Duration::from_secs(5);
/// The delay before rows that could not be removed are tried again.
const AGAIN: Duration = Duration::from_secs(60);

/// The reasons for which a collection fails.
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
    /// `None` for a temporary server: everything is removed at its end.
    pub retention: Option<Retention>,
    /// With a connection of its own: a collection reads everything.
    pub store: Store,
    pub blobs: Blobs,
    pub uploads: Uploads,
    pub logs: Logs,
    pub scheduler: SchedulerHandle,
    pub holds: Holds,
    pub space: DiskSpace,
    /// Locked during a collection.
    pub running: Mutex<()>,
}

impl Collector {
    /// Collects on schedule, and when the disk runs short, until the server stops.
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
                    tracing::warn!(%error, "collection failed");
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
                    tracing::warn!(%error, "removal of deleted jobs failed");
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(AGAIN) => continue,
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.store.wait_for_deleted_job() => {}
            }
        }
    }

    /// Removes what nothing needs at this time, or only reports it. After an error, what was removed so far stays removed.
    pub(crate) async fn collect(&self, now: SystemTime, dry_run: bool) -> Result<Collected, CollectError> {
        let retention = self.retention.ok_or(CollectError::KeepsNothing)?;
        let _running = self.running.lock().await;
        let begun = std::time::Instant::now();
        let now_ms = unix(now);
        // First of all: a later request promises later, and what an earlier one has finished is in the records read next.
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
            (
                self.expire(expiry, self.store.find_due(&expiry).await?).await?,
                self.store.needed_blobs().await?,
            )
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
        let log_bytes = self.remove_logs(&expired, dry_run).await?;
        let events = self.trim_events(retention.events.until(now_ms), dry_run).await?;
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

    /// Removes intermediates that are used up, however young they are, because the disk is short. Blobs that were promised
    /// since they were stored stay.
    async fn free_spent(&self) -> Result<(), CollectError> {
        let _running = self.running.lock().await;
        let held = self.holds.oldest();
        let now_ms = unix(SystemTime::now());
        let expiry = Expiry { at_ms: now_ms, spent_ms: Some(now_ms), ..Expiry::default() };
        let spent = self.store.find_due_intermediates(&expiry).await?;
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

    /// Has the scheduler remove what is due from the records, a part at a time, with turns in between.
    async fn expire(&self, expiry: Expiry, due: Due) -> Result<Expired, CollectError> {
        let mut expired = Expired::default();
        for due in due.split(AT_ONCE) {
            let due = Box::new(due);
            expired.add(self.scheduler.ask(|reply| Input::Expire { expiry, due, reply }).await?);
        }
        Ok(expired)
    }

    /// Removes the logs that are due, and those of jobs that no longer exist. Returns their bytes.
    async fn remove_logs(&self, expired: &Expired, dry_run: bool) -> Result<u64, CollectError> {
        let with_logs = self.logs.jobs().await?;
        let kept = self.store.with_logs(&with_logs).await?;
        let is_due = |job| !kept.contains(job) || expired.logs.contains(job);
        let mut bytes = 0;
        for job in with_logs.iter().filter(|job| is_due(job)) {
            bytes += self.logs.size(*job).await?;
            if !dry_run {
                self.logs.delete(*job);
            }
        }
        self.logs.flush().await;
        Ok(bytes)
    }

    async fn trim_events(&self, until_ms: Option<i64>, dry_run: bool) -> Result<u64, CollectError> {
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
