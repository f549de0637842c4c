//! The records that are due to expire. A reader searches all records for them; the writer then checks only those again, in
//! parts.

use kiln_types::{BundleId, Generation, JobId, Owner, Project, TaskId};
use sqlx::sqlite::SqliteRow;
use sqlx::{SqliteConnection, SqliteExecutor};

use crate::sql::{Columns, StoreResult, to_json};
use crate::{Expired, Expiry, Store};

/// The records that a reader found due. [`Store::expire`] checks them again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Due {
    /// Jobs whose inputs are due, in the order of the bundle that they share.
    pub(crate) inputs: Vec<(BundleId, JobId)>,
    pub(crate) bundles: Vec<BundleKey>,
    pub(crate) outputs: Vec<JobId>,
    pub(crate) logs: Vec<JobId>,
    pub(crate) intermediates: Vec<ProductKey>,
}

/// The intermediate files of one commit of a task.
pub type ProductKey = (TaskId, Generation);

/// A bundle of one owner and project.
pub(crate) type BundleKey = (BundleId, Owner, Project);

impl Due {
    /// Splits the records into parts of about `most`, which are written one after the other. Jobs that share a bundle are in
    /// one part, because their inputs expire together; bundles come after the jobs that need them.
    pub fn split(self, most: usize) -> Vec<Self> {
        let mut parts: Vec<Self> = Vec::new();
        for shared in self.inputs.chunk_by(|one, next| one.0 == next.0) {
            part_for(&mut parts, shared.len(), most).inputs.extend_from_slice(shared);
        }
        for bundle in self.bundles {
            part_for(&mut parts, 1, most).bundles.push(bundle);
        }
        for job in self.outputs {
            part_for(&mut parts, 1, most).outputs.push(job);
        }
        for job in self.logs {
            part_for(&mut parts, 1, most).logs.push(job);
        }
        for key in self.intermediates {
            part_for(&mut parts, 1, most).intermediates.push(key);
        }
        parts
    }

    fn len(&self) -> usize {
        let jobs = self.inputs.len() + self.outputs.len() + self.logs.len();
        jobs + self.bundles.len() + self.intermediates.len()
    }

    pub(crate) fn inputs(&self) -> Vec<JobId> {
        self.inputs.iter().map(|(_, job)| *job).collect()
    }
}

/// Returns the last part if `more` records fit into it, or a new one.
fn part_for(parts: &mut Vec<Due>, more: usize, most: usize) -> &mut Due {
    if parts.last().is_none_or(|last| last.len() > 0 && last.len() + more > most) {
        parts.push(Due::default());
    }
    let last = parts.len() - 1;
    &mut parts[last]
}

impl From<&Due> for Expired {
    fn from(due: &Due) -> Self {
        let (outputs, logs) = (due.outputs.clone(), due.logs.clone());
        let intermediates = due.intermediates.clone();
        let bundles = due.bundles.len() as u64;
        let mut expired =
            Self { inputs: due.inputs(), outputs, logs, bundles, intermediates, freed: Vec::new() };
        expired.sort();
        expired
    }
}

impl Store {
    /// Finds the records that are due.
    pub async fn find_due(&self, expiry: &Expiry) -> StoreResult<Due> {
        find_due(&mut *self.readers.begin().await?, expiry).await
    }

    /// Finds the intermediates that are due.
    pub async fn find_due_intermediates(&self, expiry: &Expiry) -> StoreResult<Due> {
        let intermediates = find_intermediates(&mut *self.readers.acquire().await?, expiry).await?;
        Ok(Due { intermediates, ..Due::default() })
    }
}

/// The condition that the inputs of an ended job are due by its own times: `?1` is [`Expiry::inputs_ms`].
macro_rules! inputs_due {
    ($job:literal) => {
        concat!(
            "(",
            $job,
            ".inputs_gone_ms IS NULL AND ",
            $job,
            ".state IN ('completed', 'failed', 'cancelled') AND (",
            $job,
            ".archived_ms IS NOT NULL OR ",
            $job,
            ".ended_ms <= ?1))"
        )
    };
}

/// The jobs whose inputs are due. Jobs that share a bundle expire together: until the last of them is due, each can render
/// again. `?2` is [`Expiry::promised_ms`].
macro_rules! inputs_query {
    ($among:literal) => {
        concat!(
            "SELECT jobs.id AS job, jobs.bundle AS bundle FROM jobs WHERE ",
            inputs_due!("jobs"),
            $among,
            " AND NOT EXISTS (SELECT 1 FROM bundles b WHERE b.id = jobs.bundle \
                 AND (b.used_ms > ?2 OR (b.waits AND (?1 IS NULL OR b.used_ms > ?1)))) \
             AND NOT EXISTS (SELECT 1 FROM needed_bundles n JOIN jobs o ON o.id = n.job \
                 WHERE n.bundle = jobs.bundle AND ",
            inputs_due!("o"),
            " IS NOT TRUE) \
             ORDER BY jobs.bundle, jobs.id"
        )
    };
}

/// The condition that a bundle is due: only jobs whose inputs expire (`?3`) need it, it is not promised to a client (`?2`),
/// and it has waited long enough for a job (`?1`).
macro_rules! bundles_where {
    () => {
        " used_ms <= ?2 AND NOT (waits AND (?1 IS NULL OR used_ms > ?1)) \
          AND NOT EXISTS (SELECT 1 FROM needed_bundles n \
              WHERE n.bundle = bundles.id AND n.job NOT IN (SELECT value FROM json_each(?3)))"
    };
}

macro_rules! delete_bundles_query {
    () => {
        concat!(
            "DELETE FROM bundles WHERE (id, owner, project) IN ( \
                 SELECT unhex(value ->> 0), value ->> 1, value ->> 2 FROM json_each(?4)) AND",
            bundles_where!()
        )
    };
}

/// The jobs whose outputs were all fetched by `?1`.
macro_rules! outputs_query {
    ($among:literal) => {
        concat!(
            "SELECT id AS job FROM ( \
                 SELECT id, state, archived_ms, ended_ms, fetched_seq, fetched_ms, outputs_gone_seq, \
                 (SELECT max(seq) FROM outputs WHERE job = jobs.id) AS last_seq FROM jobs ", $among,
            ") WHERE state IN ('completed', 'failed', 'cancelled') AND archived_ms IS NULL \
             AND last_seq > outputs_gone_seq AND fetched_seq >= last_seq AND max(fetched_ms, ended_ms) <= ?1"
        )
    };
}

/// The jobs that had ended by `?1`, with logs since the last expiry.
macro_rules! logs_query {
    ($among:literal) => {
        concat!(
            "SELECT id AS job FROM jobs WHERE state IN ('completed', 'failed', 'cancelled') ",
            $among,
            " AND (archived_ms IS NOT NULL OR ended_ms <= ?1) \
             AND (logs_gone_ms IS NULL OR logs_gone_ms < ended_ms)"
        )
    };
}

/// Intermediates whose users were all done by `?1`, that were made again, or whose job had ended by `?2`.
macro_rules! intermediates_query {
    ($among:literal) => {
        concat!(
            "SELECT DISTINCT p.job, p.step, p.idx, p.generation FROM products AS p JOIN jobs ON jobs.id = p.job \
             WHERE p.kind = 'intermediate' AND jobs.state <> 'deleted'",
            $among,
            " AND (jobs.state IN ('completed', 'failed', 'cancelled') \
                 AND (jobs.archived_ms IS NOT NULL OR jobs.ended_ms <= ?2) \
             OR p.committed_ms <= ?1 AND NOT EXISTS (SELECT 1 FROM tasks AS made WHERE made.job = p.job \
                 AND made.step = p.step AND made.idx = p.idx AND made.generation = p.generation AND made.state = 'done') \
             OR EXISTS (SELECT 1 FROM step_users AS u WHERE u.job = p.job AND u.step = p.step) \
             AND NOT EXISTS (SELECT 1 FROM step_users AS u WHERE u.job = p.job AND u.step = p.step \
                 AND CASE WHEN u.per_frame IS NULL THEN (u.is_done AND u.ended_ms <= ?1) IS NOT TRUE \
                     ELSE (SELECT count(*) FROM tasks AS t WHERE t.job = p.job AND t.step = u.user AND t.state = 'done' \
                         AND t.idx BETWEEN p.position * u.per_frame AND p.position * u.per_frame + u.per_frame - 1 \
                         ) < u.per_frame \
                     OR (SELECT max(ended_ms) <= ?1 FROM attempts AS a WHERE a.job = p.job AND a.step = u.user \
                         AND a.state = 'committed' \
                         AND a.idx BETWEEN p.position * u.per_frame AND p.position * u.per_frame + u.per_frame - 1 \
                         ) IS NOT TRUE END)) \
             ORDER BY p.job, p.step, p.idx, p.generation"
        )
    };
}

/// Finds all due records.
pub(crate) async fn find_due(db: &mut SqliteConnection, expiry: &Expiry) -> StoreResult<Due> {
    let inputs = sqlx::query(inputs_query!("")).bind(expiry.inputs_ms).bind(expiry.promised_ms);
    let inputs = inputs.fetch_all(&mut *db).await?;
    let inputs = inputs.iter().map(shared).collect::<StoreResult<Vec<_>>>()?;
    let expiring: Vec<JobId> = inputs.iter().map(|(_, job)| *job).collect();
    let bundles = sqlx::query(concat!(
        "SELECT id, owner, project FROM bundles WHERE",
        bundles_where!(),
        " ORDER BY id"
    ))
    .bind(expiry.inputs_ms)
    .bind(expiry.promised_ms)
    .bind(to_json("id", &expiring)?)
    .fetch_all(&mut *db)
    .await?;
    let outputs = sqlx::query(outputs_query!("")).bind(expiry.outputs_ms).fetch_all(&mut *db).await?;
    let logs = sqlx::query(logs_query!("")).bind(expiry.logs_ms).fetch_all(&mut *db).await?;
    Ok(Due {
        inputs,
        bundles: bundles.iter().map(bundle_key).collect::<StoreResult<_>>()?,
        outputs: jobs(&outputs)?,
        logs: jobs(&logs)?,
        intermediates: find_intermediates(db, expiry).await?,
    })
}

async fn find_intermediates(db: &mut SqliteConnection, expiry: &Expiry) -> StoreResult<Vec<ProductKey>> {
    let query = sqlx::query(intermediates_query!("")).bind(expiry.spent_ms).bind(expiry.unused_ms);
    product_keys(&query.fetch_all(db).await?)
}

/// Returns those of these jobs whose inputs are still due.
pub(crate) async fn inputs_among(
    db: impl SqliteExecutor<'_>,
    expiry: &Expiry,
    among: &[JobId],
) -> StoreResult<Vec<JobId>> {
    let rows = sqlx::query(inputs_query!(" AND jobs.id IN (SELECT value FROM json_each(?3))"))
        .bind(expiry.inputs_ms)
        .bind(expiry.promised_ms)
        .bind(to_json("id", &among)?)
        .fetch_all(db)
        .await?;
    jobs(&rows)
}

/// Removes those of these bundles that are still due, but not the lists of their files. Returns their number.
pub(crate) async fn delete_bundles(
    db: impl SqliteExecutor<'_>,
    expiry: &Expiry,
    among: &[BundleKey],
) -> StoreResult<u64> {
    let done = sqlx::query(delete_bundles_query!())
        .bind(expiry.inputs_ms)
        .bind(expiry.promised_ms)
        .bind("[]")
        .bind(to_json("bundle", &among)?)
        .execute(db)
        .await?;
    Ok(done.rows_affected())
}

/// Returns those of these jobs whose outputs are still due.
pub(crate) async fn outputs_among(
    db: impl SqliteExecutor<'_>,
    expiry: &Expiry,
    among: &[JobId],
) -> StoreResult<Vec<JobId>> {
    let query = sqlx::query(outputs_query!("WHERE id IN (SELECT value FROM json_each(?2))"));
    jobs(&query.bind(expiry.outputs_ms).bind(to_json("id", &among)?).fetch_all(db).await?)
}

/// Returns those of these jobs whose logs are still due.
pub(crate) async fn logs_among(
    db: impl SqliteExecutor<'_>,
    expiry: &Expiry,
    among: &[JobId],
) -> StoreResult<Vec<JobId>> {
    let query = sqlx::query(logs_query!("AND id IN (SELECT value FROM json_each(?2))"));
    jobs(&query.bind(expiry.logs_ms).bind(to_json("id", &among)?).fetch_all(db).await?)
}

/// Returns those of these intermediates that are still due.
pub(crate) async fn intermediates_among(
    db: impl SqliteExecutor<'_>,
    expiry: &Expiry,
    among: &[ProductKey],
) -> StoreResult<Vec<ProductKey>> {
    let among: Vec<_> = among.iter().map(key_values).collect();
    let rows = sqlx::query(intermediates_query!(
        " AND (p.job, p.step, p.idx, p.generation) IN ( \
             SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?3))"
    ))
    .bind(expiry.spent_ms)
    .bind(expiry.unused_ms)
    .bind(to_json("task", &among)?)
    .fetch_all(db)
    .await?;
    product_keys(&rows)
}

/// Returns the key for a statement: job, step, index, generation.
pub(crate) fn key_values((task, generation): &ProductKey) -> (i64, u16, u32, u32) {
    (task.job.0.cast_signed(), task.step.0, task.index.0, generation.0)
}

fn product_keys(rows: &[SqliteRow]) -> StoreResult<Vec<ProductKey>> {
    let key = |row: &SqliteRow| Ok((row.task()?, Generation(row.number("generation")?)));
    rows.iter().map(key).collect()
}

pub(crate) fn jobs(rows: &[SqliteRow]) -> StoreResult<Vec<JobId>> {
    rows.iter().map(|row| Ok(JobId(row.u64("job")?))).collect()
}

fn shared(row: &SqliteRow) -> StoreResult<(BundleId, JobId)> {
    Ok((BundleId(row.hash("bundle")?), JobId(row.u64("job")?)))
}

fn bundle_key(row: &SqliteRow) -> StoreResult<BundleKey> {
    Ok((BundleId(row.hash("id")?), row.parsed("owner")?, row.parsed("project")?))
}

#[cfg(test)]
mod tests {
    use kiln_types::{BlobHash, StepIndex, TaskIndex};

    use super::*;
    use crate::Durability;
    use crate::plan_tests::{plan, scans};

    #[tokio::test]
    async fn the_writer_looks_only_at_what_was_found() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(folder.path(), Durability::Ephemeral).await.unwrap();
        for sql in [
            inputs_query!(" AND jobs.id IN (SELECT value FROM json_each(?3))"),
            delete_bundles_query!(),
            outputs_query!("WHERE id IN (SELECT value FROM json_each(?2))"),
            logs_query!("AND id IN (SELECT value FROM json_each(?2))"),
            intermediates_query!(
                " AND (p.job, p.step, p.idx, p.generation) IN ( \
                     SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?3))"
            ),
        ] {
            let plan = plan(&store, sql).await;
            assert!(scans(&plan).is_empty(), "{sql}\n{plan:#?}");
        }
        // The reader looks at each job and bundle once.
        for sql in [inputs_query!(""), outputs_query!(""), logs_query!(""), intermediates_query!("")] {
            let plan = plan(&store, sql).await;
            assert!(scans(&plan).len() <= 1, "{sql}\n{plan:#?}");
        }
    }

    #[test]
    fn what_goes_together_is_written_together_and_everything_is_written_once() {
        let bundle = |number: u8| BundleId(BlobHash::of(&[number]));
        let ids = |range: std::ops::Range<u64>| range.map(JobId).collect::<Vec<_>>();
        // Seven that share one bundle, and two of their own.
        let mut inputs: Vec<_> = (0..7).map(|job| (bundle(1), JobId(job))).collect();
        inputs.extend([(bundle(2), JobId(7)), (bundle(3), JobId(8))]);
        let key = |number| (bundle(number), Owner::default(), Project::default());
        let bundles = (1..=3).map(key).collect();
        let task =
            |number| (TaskId { job: JobId(1), step: StepIndex(0), index: TaskIndex(number) }, Generation(0));
        let intermediates = (0..4).map(task).collect();
        let due = Due { inputs: inputs.clone(), bundles, outputs: ids(0..5), logs: ids(0..3), intermediates };
        let parts = due.clone().split(3);
        let lengths: Vec<_> = parts.iter().map(Due::len).collect();
        assert_eq!(lengths, [7, 3, 3, 3, 3, 3, 2]);
        assert_eq!(parts[0].inputs, inputs[..7]);
        let mut all = Due::default();
        for part in parts {
            all.inputs.extend(part.inputs);
            all.bundles.extend(part.bundles);
            all.outputs.extend(part.outputs);
            all.logs.extend(part.logs);
            all.intermediates.extend(part.intermediates);
        }
        assert_eq!(all, due);
        assert!(Due::default().split(3).is_empty());
    }
}
