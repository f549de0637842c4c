//! Expiring records that are due, one part after the other.

use kiln_types::{BlobHash, JobId};
use sqlx::SqliteConnection;

use crate::commit::flush_events;
use crate::due::{
    Due, ProductKey, delete_bundles, inputs_among, intermediates_among, key_values, logs_among, outputs_among,
};
use crate::sql::{Columns, StoreResult, to_json};
use crate::{NewEvent, Store, StoredEvent};

/// The limits of retention. Times are Unix milliseconds; a kind without one never expires by its age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Expiry {
    /// The time of the expiry, for the records.
    pub at_ms: i64,
    /// Inputs of jobs that had ended by then, and bundles that have waited for a job since then.
    pub inputs_ms: Option<i64>,
    /// Outputs that were all fetched by then.
    pub outputs_ms: Option<i64>,
    /// Logs of jobs that had ended by then.
    pub logs_ms: Option<i64>,
    /// Intermediates whose users were all done by then.
    pub spent_ms: Option<i64>,
    /// Intermediates of jobs that had ended by then.
    pub unused_ms: Option<i64>,
    /// Bundles that were made or used after this are promised to a client, and stay.
    pub promised_ms: i64,
}

/// The records that expired.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expired {
    /// Jobs whose inputs expired.
    pub inputs: Vec<JobId>,
    /// Jobs whose outputs so far expired.
    pub outputs: Vec<JobId>,
    /// Jobs whose logs expired.
    pub logs: Vec<JobId>,
    pub bundles: u64,
    /// Tasks whose intermediates expired, with their generations.
    pub intermediates: Vec<ProductKey>,
    /// The files of these intermediates, each with the time of its commit.
    pub freed: Vec<(BlobHash, i64)>,
}

impl Expired {
    pub fn add(&mut self, more: Self) {
        self.inputs.extend(more.inputs);
        self.outputs.extend(more.outputs);
        self.logs.extend(more.logs);
        self.bundles += more.bundles;
        self.intermediates.extend(more.intermediates);
        self.freed.extend(more.freed);
        self.sort();
    }

    pub(crate) fn sort(&mut self) {
        [&mut self.inputs, &mut self.outputs, &mut self.logs]
            .into_iter()
            .for_each(|jobs| jobs.sort_unstable());
    }
}

impl Store {
    /// Expires the records of this part that are still due, and writes the events that `events_of` makes of them, in one
    /// transaction. Never expires what an open job needs. [`Store::needed_blobs`] tells which bytes stay.
    pub async fn expire(
        &self,
        expiry: &Expiry,
        due: &Due,
        events_of: impl FnOnce(&Expired) -> Vec<NewEvent>,
    ) -> StoreResult<(Expired, Vec<StoredEvent>)> {
        let mut writer = self.inner.writer.lock().await;
        let mut tx = self.begin(&mut writer).await?;
        let expired = expire(&mut tx, expiry, due).await?;
        let (mut pending, mut events) = (events_of(&expired), Vec::new());
        flush_events(&mut tx, &mut pending, &mut events).await?;
        tx.commit().await?;
        Ok((expired, events))
    }
}

async fn expire(db: &mut SqliteConnection, expiry: &Expiry, due: &Due) -> StoreResult<Expired> {
    let inputs = inputs_among(&mut *db, expiry, &due.inputs()).await?;
    mark(
        db,
        "UPDATE jobs SET inputs_gone_ms = ?2 WHERE id IN (SELECT value FROM json_each(?1))",
        &inputs,
        expiry,
    )
    .await?;
    let bundles = delete_bundles(&mut *db, expiry, &due.bundles).await?;
    let outputs = outputs_among(&mut *db, expiry, &due.outputs).await?;
    mark(
        db,
        "UPDATE jobs SET outputs_gone_seq = fetched_seq, outputs_gone_ms = ?2 \
         WHERE id IN (SELECT value FROM json_each(?1))",
        &outputs,
        expiry,
    )
    .await?;
    let logs = logs_among(&mut *db, expiry, &due.logs).await?;
    mark(
        db,
        "UPDATE jobs SET logs_gone_ms = max(?2, ended_ms) WHERE id IN (SELECT value FROM json_each(?1))",
        &logs,
        expiry,
    )
    .await?;
    let gone = intermediates_among(&mut *db, expiry, &due.intermediates).await?;
    let freed = sqlx::query(
        "DELETE FROM products WHERE (job, step, idx, generation) IN ( \
             SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?1)) RETURNING hash, committed_ms",
    )
    .bind(to_json("task", &gone.iter().map(key_values).collect::<Vec<_>>())?)
    .fetch_all(&mut *db)
    .await?;
    let freed = freed.iter().map(|row| Ok((row.hash("hash")?, row.raw("committed_ms")?)));
    let freed = freed.collect::<StoreResult<_>>()?;
    let mut expired = Expired { inputs, outputs, logs, bundles, intermediates: gone, freed };
    expired.sort();
    Ok(expired)
}

async fn mark(
    db: &mut SqliteConnection,
    update: &'static str,
    jobs: &[JobId],
    expiry: &Expiry,
) -> StoreResult<()> {
    sqlx::query(update).bind(to_json("id", &jobs)?).bind(expiry.at_ms).execute(db).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Durability;

    #[tokio::test]
    async fn what_is_due_is_looked_for_while_somebody_writes_and_nobody_waits_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(folder.path(), Durability::Ephemeral).await.unwrap();
        let any = Some(1);
        let (inputs_ms, outputs_ms, logs_ms, spent_ms, unused_ms) = (any, any, any, any, any);
        let expiry = Expiry { at_ms: 1, inputs_ms, outputs_ms, logs_ms, spent_ms, unused_ms, promised_ms: 1 };
        let writing = store.inner.writer.lock().await;
        let look = async {
            store.find_due(&expiry).await.unwrap();
            store.would_expire(&expiry).await.unwrap();
            store.needed_blobs().await.unwrap();
        };
        tokio::time::timeout(Duration::from_secs(20), look).await.expect("it needs no writer");
        drop(writing);
        // And the other way round: a batch is written while all readers look at something.
        let mut looking = Vec::new();
        for _ in 0..store.readers.options().get_max_connections() {
            looking.push(store.readers.begin().await.unwrap());
        }
        let written = tokio::time::timeout(Duration::from_secs(20), store.commit(Vec::new())).await;
        written.expect("it needs no reader").unwrap();
    }
}
