//! Fair shares and limits, and the resources that jobs used.

use std::collections::BTreeMap;

use kiln_types::{JobId, JobState, StepIndex, TaskIndex, WorkerId};
use sqlx::SqliteConnection;

use crate::sql::{Columns, StoreResult, to_json};
use crate::{ShareRow, Store};

impl Store {
    /// The shares of users and projects that were set.
    pub async fn shares(&self) -> StoreResult<Vec<ShareRow>> {
        let rows = sqlx::query("SELECT * FROM shares ORDER BY kind, name").fetch_all(&self.readers).await?;
        let share = |row: &sqlx::sqlite::SqliteRow| {
            Ok(ShareRow {
                kind: row.parsed("kind")?,
                name: row.raw("name")?,
                weight: row.number("weight")?,
                max_slots: row.raw::<Option<u32>>("max_slots")?,
            })
        };
        rows.iter().map(share).collect()
    }

    /// The total of each limit.
    pub async fn limits(&self) -> StoreResult<BTreeMap<String, u32>> {
        let rows = sqlx::query("SELECT * FROM limits").fetch_all(&self.readers).await?;
        rows.iter().map(|row| Ok((row.raw("name")?, row.number("total")?))).collect()
    }

    /// The states of those of these jobs that exist.
    pub async fn job_states(&self, jobs: &[JobId]) -> StoreResult<BTreeMap<JobId, JobState>> {
        let ids: Vec<i64> = jobs.iter().map(|job| job.0.cast_signed()).collect();
        let rows = sqlx::query(
            "SELECT id, state FROM jobs WHERE id IN (SELECT value FROM json_each(?1)) AND state <> 'deleted'",
        )
        .bind(to_json("job", &ids)?)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|row| Ok((JobId(row.u64("id")?), row.parsed("state")?))).collect()
    }

    /// The highest memory use of a task of each step of the job, in bytes, with its worker.
    pub async fn job_peaks(&self, job: JobId) -> StoreResult<Vec<(StepIndex, WorkerId, u64)>> {
        // SQLite takes `worker` from the row with the maximum.
        let rows = sqlx::query(
            "SELECT step, worker, max(peak_memory) AS peak FROM attempts \
             WHERE job = ?1 AND peak_memory IS NOT NULL GROUP BY step",
        )
        .bind(job.0.cast_signed())
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|row| Ok((row.step()?, row.worker("worker")?, row.u64("peak")?))).collect()
    }

    /// The seconds of the last `limit` committed tasks of the step by their indexes, each with its worker, in the order of
    /// the indexes. The cost does not depend on the length of the step.
    pub async fn step_times(
        &self,
        job: JobId,
        step: StepIndex,
        limit: u32,
    ) -> StoreResult<Vec<(TaskIndex, WorkerId, f64)>> {
        let rows = sqlx::query(
            "SELECT idx, worker, seconds FROM attempts INDEXED BY attempts_by_task \
             WHERE job = ?1 AND step = ?2 AND state = 'committed' AND seconds > 0 ORDER BY idx DESC LIMIT ?3",
        )
        .bind(job.0.cast_signed())
        .bind(i64::from(step.0))
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        let time = |row: &sqlx::sqlite::SqliteRow| {
            Ok((Columns::index(row, "idx")?, row.worker("worker")?, row.raw("seconds")?))
        };
        rows.iter().rev().map(time).collect()
    }
}

pub(crate) async fn set_share(db: &mut SqliteConnection, share: ShareRow) -> StoreResult<()> {
    sqlx::query("INSERT OR REPLACE INTO shares (kind, name, weight, max_slots) VALUES (?1, ?2, ?3, ?4)")
        .bind(share.kind.as_str())
        .bind(share.name)
        .bind(i64::from(share.weight))
        .bind(share.max_slots.map(i64::from))
        .execute(db)
        .await?;
    Ok(())
}

pub(crate) async fn set_limit(
    db: &mut SqliteConnection,
    name: String,
    total: Option<u32>,
) -> StoreResult<()> {
    let query = match total {
        Some(total) => sqlx::query("INSERT OR REPLACE INTO limits (name, total) VALUES (?1, ?2)")
            .bind(name)
            .bind(i64::from(total)),
        None => sqlx::query("DELETE FROM limits WHERE name = ?1").bind(name),
    };
    query.execute(db).await?;
    Ok(())
}
