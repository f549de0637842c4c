//! Reading workers, events and bundles.

use std::collections::{BTreeSet, HashMap};

use kiln_types::{BlobHash, BundleId, EventNumber, JobId, WorkerId};
use sqlx::sqlite::SqliteRow;

use crate::sql::{Columns, StoreResult, to_json};
use crate::{BundleRow, Store, StoredEvent, WorkerRow};

impl Store {
    /// Every worker ever seen and not removed, in the order of the names.
    pub async fn workers(&self) -> StoreResult<Vec<WorkerRow>> {
        let rows = sqlx::query("SELECT * FROM workers ORDER BY name").fetch_all(&self.readers).await?;
        rows.iter().map(worker_row).collect()
    }

    pub async fn worker(&self, worker: WorkerId) -> StoreResult<Option<WorkerRow>> {
        let row = sqlx::query("SELECT * FROM workers WHERE id = ?1")
            .bind(worker.bits().cast_signed())
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(worker_row).transpose()
    }

    /// The names of these workers, the last ones of those that were removed.
    pub async fn worker_names(
        &self,
        workers: impl IntoIterator<Item = WorkerId>,
    ) -> StoreResult<HashMap<WorkerId, String>> {
        let ids: BTreeSet<i64> = workers.into_iter().map(|worker| worker.bits().cast_signed()).collect();
        let rows = sqlx::query(
            "SELECT id, name FROM former_workers WHERE id IN (SELECT value FROM json_each(?1)) UNION ALL \
             SELECT id, name FROM workers WHERE id IN (SELECT value FROM json_each(?1))",
        )
        .bind(to_json("id", &ids)?)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|row| Ok((row.worker("id")?, row.raw("name")?))).collect()
    }

    /// At most `limit` events in their order, all after this number: of one job, or of the farm.
    pub async fn events_after(
        &self,
        after: EventNumber,
        limit: u32,
        job: Option<JobId>,
    ) -> StoreResult<Vec<StoredEvent>> {
        let query = match job {
            None => sqlx::query("SELECT * FROM events WHERE number > ?1 ORDER BY number LIMIT ?2"),
            Some(_) => {
                sqlx::query("SELECT * FROM events WHERE job = ?3 AND number > ?1 ORDER BY number LIMIT ?2")
            }
        };
        let mut query = query.bind(i64::try_from(after.0).unwrap_or(i64::MAX)).bind(i64::from(limit));
        if let Some(job) = job {
            query = query.bind(job.0.cast_signed());
        }
        query.fetch_all(&self.readers).await?.iter().map(event).collect()
    }

    /// The number of the newest event, even if it was removed; 0 before the first.
    pub async fn last_event(&self) -> StoreResult<EventNumber> {
        let last: Option<i64> = sqlx::query_scalar("SELECT seq FROM sqlite_sequence WHERE name = 'events'")
            .fetch_optional(&self.readers)
            .await?;
        Ok(EventNumber(last.unwrap_or(0).cast_unsigned()))
    }

    /// The bundle of its first owner.
    pub async fn bundle(&self, bundle: BundleId) -> StoreResult<Option<BundleRow>> {
        let row =
            sqlx::query("SELECT * FROM bundles WHERE id = ?1 AND waits <> 2 ORDER BY created_ms LIMIT 1")
                .bind(bundle.0.as_bytes().to_vec())
                .fetch_optional(&self.readers)
                .await?;
        row.as_ref().map(bundle_row).transpose()
    }

    /// A page of the blobs that are files of bundles and not outputs, each once, in their order: at most `limit`, all after
    /// this one.
    pub async fn bundle_blobs(&self, after: Option<BlobHash>, limit: u32) -> StoreResult<Vec<BlobHash>> {
        let rows = sqlx::query(
            "SELECT DISTINCT hash FROM bundle_blobs WHERE hash > ?1 \
             AND NOT EXISTS (SELECT 1 FROM outputs o WHERE o.hash = bundle_blobs.hash) ORDER BY hash LIMIT ?2",
        )
        .bind(after.map_or_else(Vec::new, |hash| hash.as_bytes().to_vec()))
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|row| row.hash("hash")).collect()
    }
}

fn worker_row(row: &SqliteRow) -> StoreResult<WorkerRow> {
    Ok(WorkerRow {
        id: row.worker("id")?,
        name: row.raw("name")?,
        info: row.json("info")?,
        desired: row.parsed("desired")?,
        quarantine: row.json_opt("quarantine")?,
        pools: row.json("pools")?,
        first_seen_ms: row.raw("first_seen_ms")?,
        last_seen_ms: row.raw("last_seen_ms")?,
    })
}

fn event(row: &SqliteRow) -> StoreResult<StoredEvent> {
    Ok(StoredEvent {
        number: EventNumber(row.u64("number")?),
        at_ms: row.raw("at_ms")?,
        job: row.raw::<Option<i64>>("job")?.map(|job| JobId(job.cast_unsigned())),
        worker: row.raw::<Option<i64>>("worker")?.map(|_| row.worker("worker")).transpose()?,
        kind: row.raw("kind")?,
        data: row.json("data")?,
    })
}

fn bundle_row(row: &SqliteRow) -> StoreResult<BundleRow> {
    Ok(BundleRow {
        id: BundleId(row.hash("id")?),
        owner: row.parsed("owner")?,
        project: row.parsed("project")?,
        size: row.u64("size")?,
        created_ms: row.raw("created_ms")?,
    })
}
