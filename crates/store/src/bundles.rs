//! Bundles into the records, in steps: the list of a million files holds up no batch.

use kiln_types::{BlobHash, BundleId};
use sqlx::SqliteConnection;

use crate::sql::{StoreResult, to_json};
use crate::{NewBundle, Store};

/// Files of one transaction.
const FILES: usize = 5000;

/// A transaction on the way of a bundle into the records.
#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    /// It is needed, and no bundle to anybody yet.
    Begin,
    /// Some of its files.
    Files(&'a [BlobHash]),
    /// All of its files are there.
    End,
}

impl Store {
    /// As [`crate::Write::InsertBundle`], with others writing in between. Once this returns, all of it is there; until
    /// then its files are needed, and it is no bundle. One that breaks off is begun again by the next who brings it, or
    /// expires.
    pub async fn insert_bundle(&self, bundle: &NewBundle, at_ms: i64) -> StoreResult<()> {
        if self.step(bundle, at_ms, Step::Begin).await? {
            return Ok(());
        }
        for files in bundle.blobs.chunks(FILES) {
            self.step(bundle, at_ms, Step::Files(files)).await?;
        }
        self.step(bundle, at_ms, Step::End).await?;
        Ok(())
    }

    /// Whether the bundle is whole afterwards.
    async fn step(&self, bundle: &NewBundle, at_ms: i64, step: Step<'_>) -> StoreResult<bool> {
        let mut writer = self.inner.writer.lock().await;
        let mut tx = self.begin(&mut writer).await?;
        let whole = match step {
            Step::Begin => {
                let whole = is_whole(&mut tx, bundle.id).await?;
                note(&mut tx, bundle, at_ms, whole).await?;
                whole
            }
            Step::Files(files) => {
                list(&mut tx, bundle.id, files).await?;
                false
            }
            Step::End => {
                note(&mut tx, bundle, at_ms, true).await?;
                true
            }
        };
        tx.commit().await?;
        Ok(whole)
    }
}

/// All of it in the caller's transaction.
pub(crate) async fn insert_bundle(
    db: &mut SqliteConnection,
    bundle: &NewBundle,
    at_ms: i64,
) -> StoreResult<()> {
    if !is_whole(db, bundle.id).await? {
        list(db, bundle.id, &bundle.blobs).await?;
    }
    note(db, bundle, at_ms, true).await
}

/// Whether the list of its files is there, whoever brought it. A bundle of the same id has the same files.
async fn is_whole(db: &mut SqliteConnection, bundle: BundleId) -> StoreResult<bool> {
    let whole = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM bundles WHERE id = ?1 AND waits <> 2)");
    Ok(whole.bind(bundle.0.as_bytes().to_vec()).fetch_one(db).await?)
}

/// It waits for a job, from now on; before its list is whole it does so with a mark of its own.
async fn note(db: &mut SqliteConnection, bundle: &NewBundle, at_ms: i64, whole: bool) -> StoreResult<()> {
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

async fn list(db: &mut SqliteConnection, bundle: BundleId, files: &[BlobHash]) -> StoreResult<()> {
    sqlx::query(
        "INSERT OR IGNORE INTO bundle_blobs (bundle, hash) SELECT ?1, unhex(value) FROM json_each(?2)",
    )
    .bind(bundle.0.as_bytes().to_vec())
    .bind(to_json("bundle", &files)?)
    .execute(db)
    .await?;
    Ok(())
}

/// A job needs it: it waits for none any more.
pub(crate) async fn take_bundle(db: &mut SqliteConnection, bundle: BundleId) -> StoreResult<()> {
    let query = sqlx::query("UPDATE bundles SET waits = 0 WHERE id = ?1");
    query.bind(bundle.0.as_bytes().to_vec()).execute(db).await?;
    Ok(())
}
