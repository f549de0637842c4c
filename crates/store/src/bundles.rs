//! Inserting bundles, in several transactions: the list of a million files delays no batch.

use kiln_types::{BlobHash, BundleId};
use sqlx::SqliteConnection;

use crate::sql::{StoreResult, to_json};
use crate::{NewBundle, Store};

/// Files of one transaction.
const FILES: usize = 5000;

/// A transaction of the insertion of a bundle.
#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    /// Makes the row of the bundle, which keeps its files but is not a bundle to readers yet.
    Begin,
    /// Adds files.
    Files(&'a [BlobHash]),
    /// Makes it a bundle, with all its files.
    End,
}

impl Store {
    /// Inserts a bundle as [`crate::Write::InsertBundle`] does, but in several transactions. Until this returns, its files
    /// are needed, and readers do not see the bundle. The next insertion of the same bundle completes an unfinished one;
    /// otherwise that expires.
    pub async fn insert_bundle(&self, bundle: &NewBundle, at_ms: i64) -> StoreResult<()> {
        if self.run_step(bundle, at_ms, Step::Begin).await? {
            return Ok(());
        }
        for files in bundle.blobs.chunks(FILES) {
            self.run_step(bundle, at_ms, Step::Files(files)).await?;
        }
        self.run_step(bundle, at_ms, Step::End).await?;
        Ok(())
    }

    /// Returns whether the bundle is complete.
    async fn run_step(&self, bundle: &NewBundle, at_ms: i64, step: Step<'_>) -> StoreResult<bool> {
        let mut writer = self.inner.writer.lock().await;
        let mut tx = self.begin(&mut writer).await?;
        let whole = match step {
            Step::Begin => {
                let whole = is_whole(&mut tx, bundle.id).await?;
                upsert_bundle(&mut tx, bundle, at_ms, whole).await?;
                whole
            }
            Step::Files(files) => {
                insert_files(&mut tx, bundle.id, files).await?;
                false
            }
            Step::End => {
                upsert_bundle(&mut tx, bundle, at_ms, true).await?;
                true
            }
        };
        tx.commit().await?;
        Ok(whole)
    }
}

/// Inserts a bundle in the caller's transaction.
pub(crate) async fn insert_bundle(
    db: &mut SqliteConnection,
    bundle: &NewBundle,
    at_ms: i64,
) -> StoreResult<()> {
    if !is_whole(db, bundle.id).await? {
        insert_files(db, bundle.id, &bundle.blobs).await?;
    }
    upsert_bundle(db, bundle, at_ms, true).await
}

/// Returns whether the list of its files is complete, for any owner: the same id means the same files.
async fn is_whole(db: &mut SqliteConnection, bundle: BundleId) -> StoreResult<bool> {
    let whole = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM bundles WHERE id = ?1 AND waits <> 2)");
    Ok(whole.bind(bundle.0.as_bytes().to_vec()).fetch_one(db).await?)
}

/// Makes or renews the row of a bundle that waits for a job (1), or whose list is not complete (2).
async fn upsert_bundle(
    db: &mut SqliteConnection,
    bundle: &NewBundle,
    at_ms: i64,
    whole: bool,
) -> StoreResult<()> {
    sqlx::query(
        "INSERT INTO bundles (id, owner, project, size, created_ms, used_ms, waits) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6) \
         ON CONFLICT (id, owner, project) DO UPDATE SET used_ms = max(used_ms, ?5), waits = ?6",
    )
    .bind(bundle.id.0.as_bytes().to_vec())
    .bind(bundle.owner.to_string())
    .bind(bundle.project.to_string())
    .bind(bundle.size.cast_signed())
    .bind(at_ms)
    .bind(if whole { 1 } else { 2 })
    .execute(db)
    .await?;
    Ok(())
}

async fn insert_files(db: &mut SqliteConnection, bundle: BundleId, files: &[BlobHash]) -> StoreResult<()> {
    sqlx::query(
        "INSERT OR IGNORE INTO bundle_blobs (bundle, hash) SELECT ?1, unhex(value) FROM json_each(?2)",
    )
    .bind(bundle.0.as_bytes().to_vec())
    .bind(to_json("bundle", &files)?)
    .execute(db)
    .await?;
    Ok(())
}

/// Ends the wait of a bundle for a job.
pub(crate) async fn take_bundle(db: &mut SqliteConnection, bundle: BundleId) -> StoreResult<()> {
    let query = sqlx::query("UPDATE bundles SET waits = 0 WHERE id = ?1");
    query.bind(bundle.0.as_bytes().to_vec()).execute(db).await?;
    Ok(())
}
