//! The blobs that the records need, and the records of those that expired.

use futures_util::TryStreamExt;
use kiln_types::{BlobHash, EventNumber, JobId};
use sqlx::SqliteConnection;

use crate::due::{find_due, jobs, key_values};
use crate::sql::{Columns, StoreResult, to_json};
use crate::{Due, Expired, Expiry, Store};

impl Store {
    /// Returns the records that [`Store::expire`] would expire, and the blobs that would be needed then. Only reads.
    pub async fn would_expire(&self, expiry: &Expiry) -> StoreResult<(Expired, Vec<BlobHash>)> {
        // One transaction, so that both are of the same moment.
        let mut tx = self.readers.begin().await?;
        let due = find_due(&mut tx, expiry).await?;
        let needed = needed_blobs(&mut tx, &due).await?;
        Ok((Expired::from(&due), needed))
    }

    /// Returns every blob that is an output, another file of a task, a bundle's manifest or a bundle's file, each once,
    /// sorted.
    pub async fn needed_blobs(&self) -> StoreResult<Vec<BlobHash>> {
        needed_blobs(&mut *self.readers.acquire().await?, &Due::default()).await
    }

    /// Returns the job that this blob was an expired output of, and the time of the expiry.
    pub async fn output_gone(&self, hash: &BlobHash) -> StoreResult<Option<(JobId, i64)>> {
        let row = sqlx::query(
            "SELECT jobs.id, outputs_gone_ms FROM outputs JOIN jobs ON jobs.id = job \
             WHERE hash = ?1 AND seq <= outputs_gone_seq AND outputs_gone_ms IS NOT NULL LIMIT 1",
        )
        .bind(hash.as_bytes().to_vec())
        .fetch_optional(&self.readers)
        .await?;
        row.map(|row| Ok((JobId(row.u64("id")?), row.raw("outputs_gone_ms")?))).transpose()
    }

    /// Returns those of these jobs that exist, and whose logs did not expire since they ended.
    pub async fn with_logs(&self, among: &[JobId]) -> StoreResult<Vec<JobId>> {
        let rows = sqlx::query(
            "SELECT id AS job FROM jobs WHERE id IN (SELECT value FROM json_each(?1)) AND state <> 'deleted' \
             AND NOT (state IN ('completed', 'failed', 'cancelled') AND logs_gone_ms IS NOT NULL \
                 AND logs_gone_ms >= ended_ms)",
        )
        .bind(to_json("id", &among)?)
        .fetch_all(&self.readers)
        .await?;
        jobs(&rows)
    }

    /// Returns the last event until this time, and the number of events up to it; `None` if all are later.
    pub async fn events_until(&self, at_ms: i64) -> StoreResult<Option<(EventNumber, u64)>> {
        // Events are in the order of their times, so that this reads only the old ones.
        let young: Option<i64> =
            sqlx::query_scalar("SELECT number FROM events WHERE at_ms > ?1 ORDER BY number LIMIT 1")
                .bind(at_ms)
                .fetch_optional(&self.readers)
                .await?;
        let row = sqlx::query("SELECT max(number) AS last, count(*) AS count FROM events WHERE number < ?1")
            .bind(young.unwrap_or(i64::MAX))
            .fetch_one(&self.readers)
            .await?;
        let last: Option<i64> = row.raw("last")?;
        Ok(match last {
            Some(last) => Some((EventNumber(last.cast_unsigned()), row.u64("count")?)),
            None => None,
        })
    }
}

/// Reads the blobs that the records need without those of `except`. The file list of a removed bundle, which is removed
/// later, does not count.
async fn needed_blobs(db: &mut SqliteConnection, except: &Due) -> StoreResult<Vec<BlobHash>> {
    let mut rows = sqlx::query(
        "SELECT hash FROM outputs JOIN jobs ON jobs.id = job \
         WHERE seq > iif(job IN (SELECT value FROM json_each(?1)), fetched_seq, outputs_gone_seq) \
         UNION SELECT hash FROM bundle_blobs WHERE bundle IN (SELECT id FROM bundles WHERE (id, owner, project) \
             NOT IN (SELECT unhex(value ->> 0), value ->> 1, value ->> 2 FROM json_each(?2))) \
         UNION SELECT id FROM bundles WHERE (id, owner, project) \
             NOT IN (SELECT unhex(value ->> 0), value ->> 1, value ->> 2 FROM json_each(?2)) \
         UNION SELECT hash FROM products AS p JOIN jobs ON jobs.id = p.job WHERE jobs.state <> 'deleted' \
             AND CASE kind WHEN 'intermediate' THEN (p.job, p.step, p.idx, p.generation) NOT IN ( \
                 SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?3)) \
             ELSE EXISTS (SELECT 1 FROM outputs AS o WHERE o.job = p.job AND o.step IN ( \
                     SELECT step FROM steps WHERE job = p.job AND spec ->> 'space' = 'frames' AND spec ->> 'product' = 'output') \
                 AND (p.position IS NULL OR o.idx = p.position) AND o.committed_ms <= p.committed_ms \
                 AND o.seq > iif(p.job IN (SELECT value FROM json_each(?1)), fetched_seq, outputs_gone_seq)) END \
         ORDER BY 1",
    )
    .bind(to_json("id", &except.outputs)?)
    .bind(to_json("bundle", &except.bundles)?)
    .bind(to_json("task", &except.intermediates.iter().map(key_values).collect::<Vec<_>>())?)
    .fetch(db);
    // One row at a time: millions of hashes would take ten times the memory as rows.
    let mut needed = Vec::new();
    while let Some(row) = rows.try_next().await? {
        needed.push(row.hash("hash")?);
    }
    Ok(needed)
}
