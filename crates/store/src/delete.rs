//! Removing rows that nothing refers to, in small transactions: the deletion of a job of a million frames, or of a bundle of a
//! million files, delays no batch.

use kiln_types::{BundleId, JobId};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteQueryResult;

use crate::Store;
use crate::sql::{Columns, StoreResult};

/// Rows of one transaction, which takes about as long as a small batch.
const ROWS: u32 = 2000;

impl Store {
    /// Waits until a job is deleted.
    pub async fn wait_for_deleted_job(&self) {
        self.inner.deleted.notified().await;
    }

    /// Removes the rows of deleted jobs and the file lists of removed bundles, also those that an earlier process left.
    /// Others can write between its transactions.
    pub async fn sweep(&self) -> StoreResult<()> {
        loop {
            let job: Option<i64> = sqlx::query_scalar(
                "SELECT id FROM jobs WHERE (archived_ms IS NOT NULL) = 0 AND state = 'deleted' LIMIT 1",
            )
            .fetch_optional(&self.readers)
            .await?;
            let Some(job) = job else { break };
            while self.remove_rows_of(JobId(job.cast_unsigned())).await? {}
        }
        // A loose index scan: each bundle costs one step, whatever the length of its list.
        let gone = sqlx::query(
            "WITH RECURSIVE listed (id) AS ( \
                 SELECT min(bundle) FROM bundle_blobs UNION ALL \
                 SELECT (SELECT min(bundle) FROM bundle_blobs WHERE bundle > listed.id) FROM listed \
                 WHERE listed.id IS NOT NULL \
             ) \
             SELECT id FROM listed WHERE id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM bundles b WHERE b.id = listed.id)",
        )
        .fetch_all(&self.readers)
        .await?;
        for row in &gone {
            let bundle = BundleId(row.hash("id")?);
            while self.remove_list_of(bundle).await? {}
        }
        Ok(())
    }

    /// Returns whether there are more.
    async fn remove_rows_of(&self, job: JobId) -> StoreResult<bool> {
        let mut writer = self.inner.writer.lock().await;
        let mut tx = self.begin(&mut writer).await?;
        let mut left = u64::from(ROWS);
        for some in [
            "DELETE FROM outputs WHERE seq IN (SELECT seq FROM outputs WHERE job = ?1 LIMIT ?2)",
            "DELETE FROM products WHERE seq IN (SELECT seq FROM products WHERE job = ?1 LIMIT ?2)",
            "DELETE FROM attempts WHERE (epoch, counter) IN ( \
                 SELECT epoch, counter FROM attempts WHERE job = ?1 LIMIT ?2)",
            "DELETE FROM tasks WHERE job = ?1 AND (step, idx) IN (SELECT step, idx FROM tasks WHERE job = ?1 LIMIT ?2)",
            "DELETE FROM notices WHERE job = ?1 AND text IN (SELECT text FROM notices WHERE job = ?1 LIMIT ?2)",
        ] {
            left -= remove(&mut tx, some, job.0.cast_signed(), left).await?.rows_affected().min(left);
        }
        if left > 0 {
            let last = "DELETE FROM jobs WHERE id = ?1 AND state = 'deleted'";
            sqlx::query(last).bind(job.0.cast_signed()).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(left == 0)
    }

    /// Returns whether there are more. If the bundle was inserted again in the meantime, its list is complete and stays.
    async fn remove_list_of(&self, bundle: BundleId) -> StoreResult<bool> {
        let mut writer = self.inner.writer.lock().await;
        let mut tx = self.begin(&mut writer).await?;
        let some = "DELETE FROM bundle_blobs \
             WHERE bundle = ?1 AND hash IN (SELECT hash FROM bundle_blobs WHERE bundle = ?1 LIMIT ?2) \
             AND NOT EXISTS (SELECT 1 FROM bundles WHERE id = ?1)";
        let done = remove(&mut tx, some, bundle.0.as_bytes().to_vec(), u64::from(ROWS)).await?;
        tx.commit().await?;
        Ok(done.rows_affected() > 0)
    }
}

async fn remove<'a, T>(
    db: &mut SqliteConnection,
    some: &'static str,
    of: T,
    most: u64,
) -> StoreResult<SqliteQueryResult>
where
    T: sqlx::Encode<'a, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite> + Send + 'a,
{
    Ok(sqlx::query(some).bind(of).bind(most.cast_signed()).execute(db).await?)
}
