//! What the records no longer hold on to, and what they still need: the two halves of a collection.

use kiln_types::{BlobHash, BundleId, EventNumber, JobId};
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, SqliteConnection};

use crate::sql::{Columns, Result, to_json};
use crate::{Store, StoreError};

/// What may go. Times are unix milliseconds; where there is none, that kind never goes by its age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry {
    /// What goes, goes at this time.
    pub at_ms: i64,
    /// Bundles whose last job ended by then, and those that have waited for one since then.
    pub inputs_ms: Option<i64>,
    /// Outputs that were all fetched by then.
    pub outputs_ms: Option<i64>,
    /// Logs of jobs that had ended by then.
    pub logs_ms: Option<i64>,
    /// Bundles that were made after this are promised.
    pub promised_ms: i64,
}

/// What went.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expired {
    /// Jobs that can render nothing more.
    pub inputs: Vec<JobId>,
    /// Jobs whose outputs up to now went.
    pub outputs: Vec<JobId>,
    /// Jobs whose logs went.
    pub logs: Vec<JobId>,
    pub bundles: u64,
}

impl Store {
    /// Lets go of what may go, in one transaction: never of anything that a job which has not ended needs. The
    /// bytes go where nothing else needs them, see [`Store::needed_blobs`].
    ///
    /// # Errors
    /// Where the disk or the database fails; nothing has gone then.
    pub async fn expire(&self, expiry: &Expiry) -> Result<Expired> {
        let mut writer = self.inner.writer.lock().await;
        let Some(writer) = writer.as_mut() else { return Err(StoreError::Closed) };
        let mut tx = writer.begin_with("BEGIN IMMEDIATE").await?;
        crate::commit::check_reign(&mut tx, self.inner.epoch).await?;
        let expired = expire(&mut tx, expiry).await?;
        tx.commit().await?;
        Ok(expired)
    }

    /// What [`Store::expire`] would let go of, and the blobs that would be needed then. Nothing changes.
    ///
    /// # Errors
    /// Where the disk or the database fails.
    pub async fn would_expire(&self, expiry: &Expiry) -> Result<(Expired, Vec<BlobHash>)> {
        let mut writer = self.inner.writer.lock().await;
        let Some(writer) = writer.as_mut() else { return Err(StoreError::Closed) };
        let mut tx = writer.begin_with("BEGIN IMMEDIATE").await?;
        let expired = expire(&mut tx, expiry).await?;
        let needed = needed_blobs(&mut tx).await?;
        tx.rollback().await?;
        Ok((expired, needed))
    }

    /// Every blob that an output, a bundle's manifest or a bundle's file is made of, each once, sorted.
    ///
    /// # Errors
    /// Where the database fails, or holds what cannot be read.
    pub async fn needed_blobs(&self) -> Result<Vec<BlobHash>> {
        needed_blobs(&mut *self.inner.readers.acquire().await?).await
    }

    /// Whether [`Store::needed_blobs`] holds this one.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn is_needed(&self, hash: &BlobHash) -> Result<bool> {
        let found: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM bundles WHERE id = ?1) \
             OR EXISTS (SELECT 1 FROM bundle_blobs WHERE hash = ?1) \
             OR EXISTS (SELECT 1 FROM outputs JOIN jobs ON jobs.id = job WHERE hash = ?1 AND seq > outputs_gone_seq)",
        )
        .bind(hash.as_bytes().to_vec())
        .fetch_one(&self.inner.readers)
        .await?;
        Ok(found)
    }

    /// The job whose output these bytes once were, where that output has gone, and when it went.
    ///
    /// # Errors
    /// Where the database fails, or holds what cannot be read.
    pub async fn output_gone(&self, hash: &BlobHash) -> Result<Option<(JobId, i64)>> {
        let row = sqlx::query(
            "SELECT jobs.id, outputs_gone_ms FROM outputs JOIN jobs ON jobs.id = job \
             WHERE hash = ?1 AND seq <= outputs_gone_seq AND outputs_gone_ms IS NOT NULL LIMIT 1",
        )
        .bind(hash.as_bytes().to_vec())
        .fetch_optional(&self.inner.readers)
        .await?;
        row.map(|row| Ok((JobId(row.u64("id")?), row.raw("outputs_gone_ms")?))).transpose()
    }

    /// Those of these jobs whose logs are still kept: they exist, and no log of theirs has gone since they ended.
    ///
    /// # Errors
    /// Where the database fails, or holds what cannot be read.
    pub async fn with_logs(&self, jobs: &[JobId]) -> Result<Vec<JobId>> {
        let rows = sqlx::query(
            "SELECT id FROM jobs WHERE id IN (SELECT value FROM json_each(?1)) \
             AND NOT (state IN ('completed', 'failed', 'cancelled') AND logs_gone_ms IS NOT NULL \
                 AND logs_gone_ms >= ended_ms)",
        )
        .bind(to_json("id", &jobs)?)
        .fetch_all(&self.inner.readers)
        .await?;
        ids(&rows)
    }

    /// The last event that was told by this time, and how many there are up to it; `None` where all are younger.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn events_until(&self, at_ms: i64) -> Result<Option<(EventNumber, u64)>> {
        // Events are in the order of their times: only the old ones are looked at.
        let young: Option<i64> =
            sqlx::query_scalar("SELECT number FROM events WHERE at_ms > ?1 ORDER BY number LIMIT 1")
                .bind(at_ms)
                .fetch_optional(&self.inner.readers)
                .await?;
        let row = sqlx::query("SELECT max(number) AS last, count(*) AS count FROM events WHERE number < ?1")
            .bind(young.unwrap_or(i64::MAX))
            .fetch_one(&self.inner.readers)
            .await?;
        let last: Option<i64> = row.raw("last")?;
        Ok(match last {
            Some(last) => Some((EventNumber(last.cast_unsigned()), row.u64("count")?)),
            None => None,
        })
    }
}

async fn expire(db: &mut SqliteConnection, expiry: &Expiry) -> Result<Expired> {
    // A job's files go together with those of every job that shares them: until the last of these is due, each
    // can render again.
    let inputs = sqlx::query(
        "WITH due (id) AS ( \
             SELECT id FROM jobs WHERE inputs_gone_ms IS NULL AND state IN ('completed', 'failed', 'cancelled') \
             AND (archived_ms IS NOT NULL OR ended_ms <= ?1) \
         ) \
         SELECT id FROM jobs WHERE id IN due \
         AND NOT EXISTS (SELECT 1 FROM bundles b WHERE b.id = jobs.bundle \
             AND (b.used_ms > ?2 OR (b.waits AND (?1 IS NULL OR b.used_ms > ?1)))) \
         AND NOT EXISTS (SELECT 1 FROM needed_bundles n WHERE n.bundle = jobs.bundle AND n.job NOT IN due)",
    )
    .bind(expiry.inputs_ms)
    .bind(expiry.promised_ms)
    .fetch_all(&mut *db)
    .await?;
    let inputs = ids(&inputs)?;
    mark(
        db,
        "UPDATE jobs SET inputs_gone_ms = ?2 WHERE id IN (SELECT value FROM json_each(?1))",
        &inputs,
        expiry,
    )
    .await?;
    let bundles = delete_bundles(db, expiry).await?;
    let outputs = sqlx::query(
        "SELECT id FROM ( \
             SELECT *, (SELECT max(seq) FROM outputs WHERE job = jobs.id) AS last_seq FROM jobs \
         ) WHERE state IN ('completed', 'failed', 'cancelled') AND archived_ms IS NULL \
         AND last_seq > outputs_gone_seq AND fetched_seq >= last_seq AND max(fetched_ms, ended_ms) <= ?1",
    )
    .bind(expiry.outputs_ms)
    .fetch_all(&mut *db)
    .await?;
    let outputs = ids(&outputs)?;
    mark(
        db,
        "UPDATE jobs SET outputs_gone_seq = fetched_seq, outputs_gone_ms = ?2 \
         WHERE id IN (SELECT value FROM json_each(?1))",
        &outputs,
        expiry,
    )
    .await?;
    let logs = sqlx::query(
        "SELECT id FROM jobs WHERE state IN ('completed', 'failed', 'cancelled') \
         AND (archived_ms IS NOT NULL OR ended_ms <= ?1) \
         AND (logs_gone_ms IS NULL OR logs_gone_ms < ended_ms)",
    )
    .bind(expiry.logs_ms)
    .fetch_all(&mut *db)
    .await?;
    let logs = ids(&logs)?;
    mark(
        db,
        "UPDATE jobs SET logs_gone_ms = max(?2, ended_ms) WHERE id IN (SELECT value FROM json_each(?1))",
        &logs,
        expiry,
    )
    .await?;
    Ok(Expired { inputs, outputs, logs, bundles })
}

/// Those that no job needs, nobody was promised, and that have waited long enough for one. Returns how many.
async fn delete_bundles(db: &mut SqliteConnection, expiry: &Expiry) -> Result<u64> {
    let rows = sqlx::query(
        "DELETE FROM bundles WHERE used_ms <= ?2 AND NOT (waits AND (?1 IS NULL OR used_ms > ?1)) \
         AND NOT EXISTS (SELECT 1 FROM needed_bundles n WHERE n.bundle = bundles.id) RETURNING id",
    )
    .bind(expiry.inputs_ms)
    .bind(expiry.promised_ms)
    .fetch_all(&mut *db)
    .await?;
    let gone = rows.iter().map(|row| Ok(BundleId(row.hash("id")?))).collect::<Result<Vec<_>>>()?;
    sqlx::query(
        "DELETE FROM bundle_blobs WHERE bundle IN (SELECT unhex(value) FROM json_each(?1)) \
         AND NOT EXISTS (SELECT 1 FROM bundles WHERE id = bundle)",
    )
    .bind(to_json("bundle", &gone)?)
    .execute(db)
    .await?;
    Ok(gone.len() as u64)
}

async fn mark(
    db: &mut SqliteConnection,
    update: &'static str,
    jobs: &[JobId],
    expiry: &Expiry,
) -> Result<()> {
    sqlx::query(update).bind(to_json("id", &jobs)?).bind(expiry.at_ms).execute(db).await?;
    Ok(())
}

async fn needed_blobs(db: &mut SqliteConnection) -> Result<Vec<BlobHash>> {
    let rows = sqlx::query(
        "SELECT hash FROM outputs JOIN jobs ON jobs.id = job WHERE seq > outputs_gone_seq \
         UNION SELECT hash FROM bundle_blobs UNION SELECT id FROM bundles ORDER BY 1",
    )
    .fetch_all(db)
    .await?;
    rows.iter().map(|row| row.hash("hash")).collect()
}

fn ids(rows: &[SqliteRow]) -> Result<Vec<JobId>> {
    rows.iter().map(|row| Ok(JobId(row.u64("id")?))).collect()
}
