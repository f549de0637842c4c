//! Reading the tasks of a job, their attempts and their outputs.

use std::collections::BTreeMap;

use kiln_types::{
    AttemptState, BundleFile, Failure, Generation, JobId, OutputFile, PixelReport, RelPath, StepIndex,
    TaskIndex, TaskState,
};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use crate::read_jobs::{attempt_row, is_cancelled};
use crate::sql::{Columns, StoreResult, to_json};
use crate::{AttemptRow, AttemptSelection, FileFilter, FileRow, OutputRow, Store, TaskFilter, TaskRow};

/// Rows of a page if all rows of a job are read.
const PAGE: usize = 10_000;

/// Tasks that are read together to find those in a state that is not stored.
const WINDOW: u32 = 4096;

impl Store {
    /// A page of tasks in the order of their indexes: at most `limit`, from `filter.from` on, also those that never ran.
    pub async fn tasks(&self, job: JobId, filter: &TaskFilter, limit: u32) -> StoreResult<Vec<TaskRow>> {
        let mut tx = self.readers.begin().await?;
        let step = sqlx::query("SELECT step, count, cancelled FROM steps WHERE job = ?1 AND step = ?2")
            .bind(job.0.cast_signed())
            .bind(i64::from(filter.step.0))
            .fetch_optional(&mut *tx)
            .await?;
        let Some(step) = step else { return Ok(Vec::new()) };
        let step = Step { job, filter, count: step.number("count")?, cancelled: step.json("cancelled")? };
        match filter.state {
            Some(state @ (TaskState::Done | TaskState::Failed)) => {
                let indexes = sqlx::query(match state {
                    // An index of failed tasks alone.
                    TaskState::Failed => {
                        "SELECT idx FROM tasks INDEXED BY tasks_failed WHERE job = ?1 AND step = ?2 AND state = ?3 \
                         AND state = 'failed' AND idx >= ?4 ORDER BY idx LIMIT ?5"
                    }
                    _ => {
                        "SELECT idx FROM tasks WHERE job = ?1 AND step = ?2 AND state = ?3 AND idx >= ?4 \
                         ORDER BY idx LIMIT ?5"
                    }
                });
                step.read_selected(&mut tx, indexes.bind(job.0.cast_signed()), state, limit).await
            }
            Some(state @ (TaskState::Assigned | TaskState::Running)) => {
                let indexes = sqlx::query(
                    "SELECT DISTINCT idx FROM attempts INDEXED BY attempts_open \
                     WHERE job = ?1 AND step = ?2 AND state = ?3 \
                     AND state IN ('assigned', 'running', 'expired') AND idx >= ?4 ORDER BY idx LIMIT ?5",
                );
                step.read_selected(&mut tx, indexes.bind(job.0.cast_signed()), state, limit).await
            }
            Some(TaskState::Waiting | TaskState::Cancelled) | None => step.scan(&mut tx, limit).await,
        }
    }

    /// Calls `each` with the path of every file of the newest finished generations, and its task.
    pub async fn current_paths(
        &self,
        job: JobId,
        mut each: impl FnMut(StepIndex, TaskIndex, &str),
    ) -> StoreResult<()> {
        let mut after = 0;
        loop {
            let rows = sqlx::query(
                "SELECT seq, step, idx, path FROM outputs WHERE job = ?1 AND seq > ?2 AND current = 1 \
                 ORDER BY seq LIMIT ?3",
            )
            .bind(job.0.cast_signed())
            .bind(after)
            .bind(PAGE as i64)
            .fetch_all(&self.readers)
            .await?;
            for row in &rows {
                each(row.step()?, row.index("idx")?, row.raw("path")?);
                after = row.raw("seq")?;
            }
            if rows.len() < PAGE {
                return Ok(());
            }
        }
    }

    /// A page of attempts of a job, newest first: at most `limit`.
    pub async fn attempts(
        &self,
        job: JobId,
        filter: &AttemptSelection,
        limit: u32,
    ) -> StoreResult<Vec<AttemptRow>> {
        let rows = attempts_query(job, filter, limit).build().fetch_all(&self.readers).await?;
        rows.iter().map(attempt_row).collect()
    }

    pub async fn attempt(&self, attempt: kiln_types::AttemptId) -> StoreResult<Option<AttemptRow>> {
        let row = sqlx::query("SELECT * FROM attempts WHERE epoch = ?1 AND counter = ?2")
            .bind(i64::from(attempt.epoch.0))
            .bind(attempt.counter.cast_signed())
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(attempt_row).transpose()
    }

    /// A page of the outputs of a job, of every generation, in the order of their commits: at most `limit`, all after
    /// `after_seq`.
    pub async fn outputs(&self, job: JobId, after_seq: u64, limit: u32) -> StoreResult<Vec<OutputRow>> {
        let rows = sqlx::query("SELECT * FROM outputs WHERE job = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3")
            .bind(job.0.cast_signed())
            .bind(i64::try_from(after_seq).unwrap_or(i64::MAX))
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(output_row).collect()
    }

    /// The newest output at this path.
    pub async fn output_by_path(&self, job: JobId, path: &RelPath) -> StoreResult<Option<OutputRow>> {
        let row = sqlx::query("SELECT * FROM outputs WHERE job = ?1 AND path = ?2 ORDER BY seq DESC LIMIT 1")
            .bind(job.0.cast_signed())
            .bind(path.as_str().to_owned())
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(output_row).transpose()
    }

    /// A page of the files of a step, the oldest commit first: at most `limit`, all after `after_seq`. Of each task that is
    /// done, the files of its newest generation; without expired ones.
    pub async fn step_files(&self, filter: &FileFilter, limit: u32) -> StoreResult<Vec<FileRow>> {
        let rows = files_query(filter, limit).build().fetch_all(&self.readers).await?;
        let file = |row: &SqliteRow| {
            Ok(FileRow {
                seq: row.u64("seq")?,
                index: row.index("idx")?,
                generation: Generation(row.number("generation")?),
                file: BundleFile {
                    path: row.parsed("path")?,
                    hash: row.hash("hash")?,
                    size: row.u64("size")?,
                },
            })
        };
        rows.iter().map(file).collect()
    }

    /// The tasks of a step that are done, and whose intermediates expired.
    pub async fn tasks_without_files(&self, job: JobId, step: StepIndex) -> StoreResult<Vec<TaskIndex>> {
        let rows = sqlx::query(
            "SELECT idx FROM tasks WHERE job = ?1 AND step = ?2 AND state = 'done' AND NOT EXISTS (SELECT 1 FROM products \
             WHERE job = ?1 AND step = ?2 AND idx = tasks.idx AND generation = tasks.generation) ORDER BY idx",
        )
        .bind(job.0.cast_signed())
        .bind(i64::from(step.0))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|row| row.index("idx")).collect()
    }

    /// The outputs of the newest generation of every suspicious frame, frame by frame.
    pub async fn suspicious_outputs(&self, job: JobId) -> StoreResult<Vec<OutputRow>> {
        let rows = sqlx::query(
            "SELECT * FROM outputs WHERE job = ?1 AND current = 1 AND (step, idx) IN (SELECT step, idx FROM outputs \
             WHERE job = ?1 AND current = 1 AND (blank IS NOT NULL OR not_finite > 0)) ORDER BY step, idx, seq",
        )
        .bind(job.0.cast_signed())
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(output_row).collect()
    }
}

/// The query of a page of attempts. It has only the conditions that the filter sets, so that an index answers it in the
/// order of the page: the cost does not depend on the number of attempts.
fn attempts_query(job: JobId, filter: &AttemptSelection, limit: u32) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new("SELECT * FROM attempts WHERE job = ");
    query.push_bind(job.0.cast_signed());
    if let Some((step, index)) = filter.task {
        query.push(" AND step = ").push_bind(i64::from(step.0));
        query.push(" AND idx = ").push_bind(i64::from(index.0));
    }
    if let Some(worker) = filter.worker {
        query.push(" AND worker = ").push_bind(worker.bits().cast_signed());
    }
    if !filter.states.is_empty() {
        let few = |state: &AttemptState| matches!(state, AttemptState::Failed | AttemptState::Expired);
        if filter.states.iter().all(few) {
            query.push(" AND state IN ('failed', 'expired')");
        }
        query.push(" AND state IN (");
        let mut states = query.separated(", ");
        for state in &filter.states {
            states.push_bind(state.as_str());
        }
        query.push(")");
    }
    if let Some(before) = filter.before {
        query.push(" AND (epoch, counter) < (").push_bind(i64::from(before.epoch.0));
        query.push(", ").push_bind(before.counter.cast_signed()).push(")");
    }
    query.push(" ORDER BY epoch DESC, counter DESC LIMIT ").push_bind(i64::from(limit));
    query
}

/// The query of a page of files. For all tasks, an index answers it in the order of the page; the few files of few tasks
/// are sorted.
fn files_query(filter: &FileFilter, limit: u32) -> QueryBuilder<Sqlite> {
    let FileFilter { job, step, outputs, tasks, after_seq } = *filter;
    let (job, after_seq) = (job.0.cast_signed(), i64::try_from(after_seq).unwrap_or(i64::MAX));
    let seq = if tasks.is_some() { "+seq" } else { "seq" };
    let mut query = QueryBuilder::new("SELECT seq, idx, generation, path, hash, size FROM ");
    query.push(if outputs { "outputs" } else { "products" }).push(" AS f WHERE job = ").push_bind(job);
    query.push(" AND step = ").push_bind(i64::from(step.0));
    query.push(" AND ").push(seq).push(" > ").push_bind(after_seq);
    if let Some((first, last)) = tasks {
        query.push(" AND idx >= ").push_bind(i64::from(first.0));
        query.push(" AND idx <= ").push_bind(i64::from(last.0));
    }
    if outputs {
        query.push(" AND ").push(seq).push(" > (SELECT outputs_gone_seq FROM jobs WHERE id = f.job)");
    }
    query.push(
        " AND EXISTS (SELECT 1 FROM tasks AS t WHERE t.job = f.job AND t.step = f.step AND t.idx = f.idx \
         AND t.generation = f.generation AND t.state = 'done') ORDER BY ",
    );
    query.push(seq).push(" LIMIT ").push_bind(i64::from(limit));
    query
}

type Query = sqlx::query::Query<'static, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

/// A step whose tasks are being listed.
struct Step<'a> {
    job: JobId,
    filter: &'a TaskFilter,
    count: u32,
    cancelled: Vec<(TaskIndex, TaskIndex)>,
}

impl Step<'_> {
    /// Reads the tasks whose indexes the query selects.
    async fn read_selected(
        &self,
        db: &mut SqliteConnection,
        query: Query,
        state: TaskState,
        limit: u32,
    ) -> StoreResult<Vec<TaskRow>> {
        let rows = query
            .bind(i64::from(self.filter.step.0))
            .bind(state.as_str())
            .bind(i64::from(self.filter.from.0))
            .bind(i64::from(limit))
            .fetch_all(&mut *db)
            .await?;
        let indexes = rows.iter().map(|row| row.index("idx")).collect::<StoreResult<Vec<_>>>()?;
        self.read(db, &indexes).await
    }

    /// Reads tasks one window after the other, and selects those in the state of the filter.
    async fn scan(&self, db: &mut SqliteConnection, limit: u32) -> StoreResult<Vec<TaskRow>> {
        let limit = limit as usize;
        let window = if self.filter.state.is_none() { limit.min(WINDOW as usize) as u32 } else { WINDOW };
        let mut found = Vec::new();
        let mut at = self.filter.from.0;
        while at < self.count && found.len() < limit {
            let end = at.saturating_add(window.max(1)).min(self.count);
            let indexes: Vec<_> = (at..end).map(TaskIndex).collect();
            let rows = self.read(db, &indexes).await?;
            found.extend(rows.into_iter().filter(|row| self.filter.state.is_none_or(|s| s == row.state)));
            at = end;
        }
        found.truncate(limit);
        Ok(found)
    }

    /// Reads these tasks, which are in order.
    async fn read(&self, db: &mut SqliteConnection, indexes: &[TaskIndex]) -> StoreResult<Vec<TaskRow>> {
        let numbers = to_json("index", &indexes)?;
        let job = self.job.0.cast_signed();
        let step = i64::from(self.filter.step.0);
        let rows = sqlx::query(
            "SELECT idx, generation, state, reason FROM tasks WHERE job = ?1 AND step = ?2 \
             AND idx IN (SELECT value FROM json_each(?3))",
        )
        .bind(job)
        .bind(step)
        .bind(numbers.clone())
        .fetch_all(&mut *db)
        .await?;
        let mut stored: BTreeMap<TaskIndex, (Generation, TaskState, Option<Failure>)> = BTreeMap::new();
        for row in &rows {
            let generation = Generation(row.number("generation")?);
            stored.insert(row.index("idx")?, (generation, row.parsed("state")?, row.json_opt("reason")?));
        }
        let rows = sqlx::query(
            "SELECT * FROM attempts WHERE job = ?1 AND step = ?2 \
             AND idx IN (SELECT value FROM json_each(?3)) ORDER BY idx, epoch, counter",
        )
        .bind(job)
        .bind(step)
        .bind(numbers)
        .fetch_all(&mut *db)
        .await?;
        let counting = sqlx::query(
            "SELECT idx, sum(state = 'failed') AS failures, sum(state = 'expired') AS expired FROM attempts \
             WHERE job = ?1 AND step = ?2 AND counts = 1 AND state IN ('failed', 'expired') \
             AND idx BETWEEN ?3 AND ?4 GROUP BY idx",
        )
        .bind(job)
        .bind(step)
        .bind(indexes.first().map_or(0, |index| i64::from(index.0)))
        .bind(indexes.last().map_or(-1, |index| i64::from(index.0)))
        .fetch_all(db)
        .await?;
        let mut counts: BTreeMap<TaskIndex, (u32, u32)> = BTreeMap::new();
        for row in &counting {
            counts.insert(row.index("idx")?, (row.number("failures")?, row.number("expired")?));
        }
        let mut attempts: BTreeMap<TaskIndex, Vec<AttemptRow>> = BTreeMap::new();
        for row in &rows {
            attempts.entry(row.index("idx")?).or_default().push(attempt_row(row)?);
        }
        let task = |index: &TaskIndex| {
            let (generation, state, reason) =
                stored.remove(index).unwrap_or((Generation(0), TaskState::Waiting, None));
            let (failures, expired) = counts.get(index).copied().unwrap_or_default();
            let attempt = attempts.remove(index).and_then(|all| decisive_attempt(all, generation));
            let state = self.displayed_state(*index, state, attempt.as_ref());
            let step = self.filter.step;
            TaskRow { step, index: *index, generation, state, failures, expired, reason, attempt }
        };
        Ok(indexes.iter().map(task).collect())
    }

    fn displayed_state(
        &self,
        index: TaskIndex,
        stored: TaskState,
        attempt: Option<&AttemptRow>,
    ) -> TaskState {
        match (stored, attempt.map(|attempt| attempt.state)) {
            (TaskState::Waiting, Some(AttemptState::Running)) => TaskState::Running,
            (TaskState::Waiting, Some(AttemptState::Assigned)) => TaskState::Assigned,
            (TaskState::Waiting, _) if is_cancelled(&self.cancelled, index) => TaskState::Cancelled,
            _ => stored,
        }
    }
}

/// The attempt that decides the state of this generation, of the attempts of one task, oldest first.
fn decisive_attempt(attempts: Vec<AttemptRow>, generation: Generation) -> Option<AttemptRow> {
    let rank = |attempt: &AttemptRow| match attempt.state {
        AttemptState::Committed => 3,
        AttemptState::Running => 2,
        AttemptState::Assigned => 1,
        _ => 0,
    };
    // The last of several with the same rank.
    attempts.into_iter().filter(|attempt| attempt.generation == generation).max_by_key(rank)
}

fn output_row(row: &SqliteRow) -> StoreResult<OutputRow> {
    Ok(OutputRow {
        seq: row.u64("seq")?,
        task: row.task()?,
        generation: Generation(row.number("generation")?),
        attempt: row.attempt("attempt_epoch", "attempt_counter")?,
        frame: row.raw("frame")?,
        file: OutputFile {
            path: row.parsed("path")?,
            role: row.json("role")?,
            hash: row.hash("hash")?,
            size: row.u64("size")?,
            format: row.parsed("format")?,
            width: row.number("width")?,
            height: row.number("height")?,
            pixels: PixelReport { blank: row.parsed_opt("blank")?, not_finite: row.u64("not_finite")? },
        },
        committed_ms: row.raw("committed_ms")?,
        current: row.raw("current")?,
    })
}

#[cfg(test)]
mod tests {
    use sqlx::Execute;

    use super::*;
    use crate::Durability;
    use crate::plan_tests::plan;

    #[tokio::test]
    async fn a_page_of_files_is_found_by_an_index() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(folder.path(), Durability::Ephemeral).await.unwrap();
        let some = Some((TaskIndex(0), TaskIndex(3)));
        for (outputs, tasks, index) in [
            (false, None, "products_by_step (job=? AND step=? AND seq>?)"),
            (true, None, "outputs_by_job (job=? AND seq>?)"),
            (false, some, "(job=? AND step=? AND idx>? AND idx<?)"),
            (true, some, "(job=? AND step=? AND idx>? AND idx<?)"),
        ] {
            let filter = FileFilter { job: JobId(1), step: StepIndex(0), outputs, tasks, after_seq: 7 };
            let plan = plan(&store, files_query(&filter, 500).build().sql().as_str()).await;
            assert!(plan[0].contains(index), "{plan:#?}");
        }
    }

    #[tokio::test]
    async fn a_page_of_attempts_is_read_in_its_order_and_nothing_is_sorted() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(folder.path(), Durability::Ephemeral).await.unwrap();
        let failed = vec![AttemptState::Failed, AttemptState::Expired];
        for (task, states, index) in [
            (None, vec![], "attempts_by_job (job=? AND (epoch,counter)<(?,?))"),
            (None, failed.clone(), "attempts_failed (job=? AND (epoch,counter)<(?,?))"),
            (Some((StepIndex(0), TaskIndex(1))), failed, "attempts_by_task (job=? AND step=? AND idx=?"),
            (Some((StepIndex(0), TaskIndex(1))), vec![], "attempts_by_task (job=? AND step=? AND idx=?"),
        ] {
            let before = Some("1-9".parse().unwrap());
            let filter = AttemptSelection { task, states, before, ..AttemptSelection::default() };
            let mut query = attempts_query(JobId(1), &filter, 500);
            let plan = plan(&store, query.build().sql().as_str()).await;
            assert!(matches!(&plan[..], [one] if one.contains(index)), "{plan:#?}");
        }
    }
}
