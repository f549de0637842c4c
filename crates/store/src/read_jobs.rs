//! Reading jobs, for the scheduler and for lists.

use std::collections::BTreeMap;

use kiln_types::{
    AttemptState, BundleId, Generation, JobId, JobState, JobSteps, Owner, Project, SlotIndex, StepIndex,
    StepSpec, StepsError, TaskIndex, WorkerId,
};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use crate::sql::{Columns, StoreResult, to_json};
use crate::{
    AttemptRow, JobRow, JobSelection, Notice, RetentionRow, StepRow, Store, StoreError, StoredJob,
    StoredStep, TaskFaults, TaskRun, WorkerTotals,
};

/// Selects the columns that [`job_row`] reads.
macro_rules! job_query {
    ($which:literal) => {
        concat!(
            "SELECT *, coalesce((SELECT max(seq) FROM outputs WHERE job = jobs.id), 0) AS last_seq FROM jobs ",
            $which
        )
    };
}

impl Store {
    /// The highest job id so far, even if that job was deleted; 0 before the first.
    pub async fn last_job(&self) -> StoreResult<JobId> {
        let last: i64 =
            sqlx::query_scalar("SELECT last_job FROM meta WHERE id = 1").fetch_one(&self.readers).await?;
        Ok(JobId(last.cast_unsigned()))
    }

    /// Every job that has not ended, oldest first, for the scheduler.
    pub async fn unfinished_jobs(&self) -> StoreResult<Vec<StoredJob>> {
        let mut tx = self.readers.begin().await?;
        let rows = sqlx::query(job_query!("WHERE state IN ('queued', 'running', 'paused') ORDER BY id"))
            .fetch_all(&mut *tx)
            .await?;
        let mut jobs = Vec::new();
        for row in add_steps(&mut tx, rows).await? {
            jobs.push(add_tasks(&mut tx, row).await?);
        }
        Ok(jobs)
    }

    /// A job for the scheduler, even if it has ended: a retry reopens it.
    pub async fn stored_job(&self, job: JobId) -> StoreResult<Option<StoredJob>> {
        let mut tx = self.readers.begin().await?;
        match read_job(&mut tx, job).await? {
            Some(row) => Ok(Some(add_tasks(&mut tx, row).await?)),
            None => Ok(None),
        }
    }

    pub async fn job(&self, job: JobId) -> StoreResult<Option<JobRow>> {
        let mut tx = self.readers.begin().await?;
        read_job(&mut tx, job).await
    }

    /// A page of jobs, newest first: at most `limit`, all older than `before`.
    pub async fn jobs(
        &self,
        filter: &JobSelection,
        limit: u32,
        before: Option<JobId>,
    ) -> StoreResult<Vec<JobRow>> {
        let mut tx = self.readers.begin().await?;
        let ids: Vec<i64> =
            page_query(filter, limit, before).build_query_scalar().fetch_all(&mut *tx).await?;
        let rows = sqlx::query(job_query!("WHERE id IN (SELECT value FROM json_each(?1)) ORDER BY id DESC"))
            .bind(to_json("id", &ids)?)
            .fetch_all(&mut *tx)
            .await?;
        add_steps(&mut tx, rows).await
    }

    /// The part of each worker in a step of the job, most frames first. Counts every generation.
    pub async fn job_report(&self, job: JobId, step: StepIndex) -> StoreResult<Vec<WorkerTotals>> {
        let rows = sqlx::query(
            "SELECT worker, coalesce((SELECT name FROM workers WHERE id = worker), \
             (SELECT name FROM former_workers WHERE id = worker)) AS name, \
             sum(state = 'committed') AS frames, sum(state = 'failed') AS errors, \
             sum(state = 'expired') AS expired, \
             coalesce(sum(CASE WHEN state = 'committed' THEN seconds END), 0.0) AS seconds, \
             min(started_ms) AS first_start, max(ended_ms) AS last_end \
             FROM attempts WHERE job = ?1 AND step = ?2 GROUP BY worker ORDER BY frames DESC, name",
        )
        .bind(job.0.cast_signed())
        .bind(i64::from(step.0))
        .fetch_all(&self.readers)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(WorkerTotals {
                    worker: row.worker("worker")?,
                    name: row.raw("name")?,
                    frames: row.u64("frames")?,
                    errors: row.u64("errors")?,
                    expired: row.u64("expired")?,
                    seconds: row.raw("seconds")?,
                    first_start_ms: row.raw("first_start")?,
                    last_end_ms: row.raw("last_end")?,
                })
            })
            .collect()
    }
}

/// The query of the ids of a page. Each state has a branch of its own, which an index answers from the newest job on: the cost
/// of a page does not depend on the number of jobs that the filter skips.
fn page_query(filter: &JobSelection, limit: u32, before: Option<JobId>) -> QueryBuilder<Sqlite> {
    let states =
        JobState::ALL.iter().filter(|state| filter.states.is_empty() || filter.states.contains(state));
    let archived = [false, true].into_iter().filter(|one| filter.archived.is_none_or(|only| only == *one));
    let before = before.map_or(i64::MAX, |job| job.0.cast_signed());
    let mut query = QueryBuilder::new("SELECT id FROM (");
    for (at, (archived, state)) in
        archived.flat_map(|one| states.clone().map(move |of| (one, of))).enumerate()
    {
        query.push(if at == 0 { "" } else { " UNION ALL " });
        query.push("SELECT * FROM (SELECT id FROM jobs WHERE (archived_ms IS NOT NULL) = ");
        query.push_bind(archived).push(" AND state = ").push_bind(state.as_str());
        query.push(" AND id < ").push_bind(before);
        if let Some(Owner(owner)) = &filter.owner {
            query.push(" AND owner = ").push_bind(owner.to_string());
        }
        if let Some(Project(project)) = &filter.project {
            query.push(" AND project = ").push_bind(project.to_string());
        }
        query.push(" ORDER BY id DESC LIMIT ").push_bind(i64::from(limit)).push(")");
    }
    query.push(") ORDER BY id DESC LIMIT ").push_bind(i64::from(limit));
    query
}

async fn read_job(db: &mut SqliteConnection, job: JobId) -> StoreResult<Option<JobRow>> {
    let query = sqlx::query(job_query!("WHERE id = ?1 AND state <> 'deleted'")).bind(job.0.cast_signed());
    let rows = query.fetch_all(&mut *db).await?;
    Ok(add_steps(db, rows).await?.pop())
}

/// Reads the steps and notices of these jobs, in two queries.
async fn add_steps(db: &mut SqliteConnection, rows: Vec<SqliteRow>) -> StoreResult<Vec<JobRow>> {
    let ids = rows.iter().map(|row| row.raw::<i64>("id")).collect::<StoreResult<Vec<_>>>()?;
    let ids = to_json("id", &ids)?;
    let steps =
        sqlx::query("SELECT * FROM steps WHERE job IN (SELECT value FROM json_each(?1)) ORDER BY job, step")
            .bind(ids.clone())
            .fetch_all(&mut *db)
            .await?;
    let mut of_job: BTreeMap<JobId, Vec<&SqliteRow>> = BTreeMap::new();
    for row in &steps {
        of_job.entry(JobId(row.u64("job")?)).or_default().push(row);
    }
    let read = |row: &SqliteRow| job_row(row, of_job.get(&JobId(row.u64("id")?)).map_or(&[], Vec::as_slice));
    let mut jobs = rows.iter().map(read).collect::<StoreResult<Vec<_>>>()?;
    let places: BTreeMap<JobId, usize> = jobs.iter().enumerate().map(|(at, job)| (job.id, at)).collect();
    let notices = sqlx::query(
        "SELECT * FROM notices WHERE job IN (SELECT value FROM json_each(?1)) ORDER BY job, at_ms, text",
    )
    .bind(ids)
    .fetch_all(db)
    .await?;
    for row in &notices {
        if let Some(at) = places.get(&JobId(row.u64("job")?)) {
            jobs[*at].notices.push(notice(row)?);
        }
    }
    Ok(jobs)
}

fn job_row(row: &SqliteRow, steps: &[&SqliteRow]) -> StoreResult<JobRow> {
    let specs = steps.iter().map(|step| step.json("spec")).collect::<StoreResult<Vec<StepSpec>>>()?;
    let damaged = |error: StepsError| StoreError::Damaged { what: "job", why: error.to_string() };
    Ok(JobRow {
        id: JobId(row.u64("id")?),
        spec: row.json("spec")?,
        state: row.parsed("state")?,
        created_ms: row.raw("created_ms")?,
        started_ms: row.raw("started_ms")?,
        ended_ms: row.raw("ended_ms")?,
        reason: row.json_opt("reason")?,
        plan: JobSteps::new(specs).map_err(damaged)?,
        steps: steps.iter().map(|step| step_row(step)).collect::<StoreResult<_>>()?,
        notices: Vec::new(),
        kept: RetentionRow {
            archived_ms: row.raw("archived_ms")?,
            last_seq: row.u64("last_seq")?,
            fetched_seq: row.u64("fetched_seq")?,
            fetched_ms: row.raw("fetched_ms")?,
            inputs_gone_ms: row.raw("inputs_gone_ms")?,
            outputs_gone_seq: row.u64("outputs_gone_seq")?,
            outputs_gone_ms: row.raw("outputs_gone_ms")?,
            logs_gone_ms: row.raw("logs_gone_ms")?,
        },
    })
}

fn step_row(row: &SqliteRow) -> StoreResult<StepRow> {
    Ok(StepRow {
        step: row.step()?,
        count: row.number("count")?,
        done: row.number("done")?,
        failed: row.number("failed")?,
        bundle: row.hash_opt("bundle")?.map(BundleId),
        ended_ms: row.raw("ended_ms")?,
    })
}

fn notice(row: &SqliteRow) -> StoreResult<Notice> {
    let attempt: Option<i64> = row.raw("attempt_epoch")?;
    Ok(Notice {
        text: row.raw("text")?,
        attempt: attempt.map(|_| row.attempt("attempt_epoch", "attempt_counter")).transpose()?,
        at_ms: row.raw("at_ms")?,
    })
}

/// Adds the records that only the scheduler needs.
async fn add_tasks(db: &mut SqliteConnection, row: JobRow) -> StoreResult<StoredJob> {
    let mut steps: BTreeMap<StepIndex, StoredStep> = BTreeMap::new();
    for step in &row.steps {
        let empty = StoredStep { step: step.step, runs: vec![], cancelled: vec![], faults: vec![] };
        steps.insert(step.step, empty);
    }
    let job = row.id.0.cast_signed();
    read_cancelled(db, job, &mut steps).await?;
    read_runs(db, job, &mut steps).await?;
    read_faults(db, job, &mut steps).await?;
    let open = sqlx::query(
        "SELECT a.* FROM attempts a INDEXED BY attempts_open \
         LEFT JOIN tasks t ON t.job = a.job AND t.step = a.step AND t.idx = a.idx \
         WHERE a.job = ?1 AND a.state IN ('assigned', 'running', 'expired') \
         AND (a.state <> 'expired' OR a.counts = 1) \
         AND coalesce(t.state, 'waiting') = 'waiting' AND a.generation = coalesce(t.generation, 0) \
         ORDER BY a.epoch, a.counter",
    )
    .bind(job)
    .fetch_all(db)
    .await?;
    let mut open = open.iter().map(attempt_row).collect::<StoreResult<Vec<_>>>()?;
    // Attempts at cancelled tasks may not deliver.
    open.retain(|attempt| {
        steps.get(&attempt.task.step).is_some_and(|step| !is_cancelled(&step.cancelled, attempt.task.index))
    });
    Ok(StoredJob { row, steps: steps.into_values().collect(), open })
}

pub(crate) fn is_cancelled(spans: &[(TaskIndex, TaskIndex)], index: TaskIndex) -> bool {
    spans.iter().any(|(first, last)| (*first..=*last).contains(&index))
}

async fn read_cancelled(
    db: &mut SqliteConnection,
    job: i64,
    steps: &mut BTreeMap<StepIndex, StoredStep>,
) -> StoreResult<()> {
    let rows =
        sqlx::query("SELECT step, cancelled FROM steps WHERE job = ?1").bind(job).fetch_all(db).await?;
    for row in &rows {
        if let Some(step) = steps.get_mut(&row.step()?) {
            step.cancelled = row.json("cancelled")?;
        }
    }
    Ok(())
}

/// Reads tasks in runs, which the database joins: a million tasks that are done are one row.
async fn read_runs(
    db: &mut SqliteConnection,
    job: i64,
    steps: &mut BTreeMap<StepIndex, StoredStep>,
) -> StoreResult<()> {
    let rows = sqlx::query(
        "SELECT step, generation, state, min(idx) AS first, max(idx) AS last FROM ( \
             SELECT step, idx, generation, state, \
             idx - row_number() OVER (PARTITION BY step, generation, state ORDER BY idx) AS island \
             FROM tasks WHERE job = ?1 AND NOT (state = 'waiting' AND generation = 0) \
         ) GROUP BY step, generation, state, island ORDER BY step, first",
    )
    .bind(job)
    .fetch_all(db)
    .await?;
    for row in &rows {
        if let Some(step) = steps.get_mut(&row.step()?) {
            step.runs.push(TaskRun {
                first: row.index("first")?,
                last: row.index("last")?,
                generation: Generation(row.number("generation")?),
                state: row.parsed("state")?,
            });
        }
    }
    Ok(())
}

async fn read_faults(
    db: &mut SqliteConnection,
    job: i64,
    steps: &mut BTreeMap<StepIndex, StoredStep>,
) -> StoreResult<()> {
    let rows = sqlx::query(
        "SELECT a.step, a.idx, a.worker, a.state, a.outgrew FROM attempts a \
         LEFT JOIN tasks t ON t.job = a.job AND t.step = a.step AND t.idx = a.idx \
         WHERE a.job = ?1 AND a.counts = 1 AND a.state IN ('failed', 'expired') \
         AND coalesce(t.state, 'waiting') = 'waiting' AND a.generation = coalesce(t.generation, 0) \
         ORDER BY a.step, a.idx, a.epoch, a.counter",
    )
    .bind(job)
    .fetch_all(db)
    .await?;
    for row in &rows {
        let Some(step) = steps.get_mut(&row.step()?) else { continue };
        let index = row.index("idx")?;
        if is_cancelled(&step.cancelled, index) {
            continue;
        }
        if step.faults.last().is_none_or(|faults| faults.index != index) {
            let (failed_on, expired_on) = (Vec::new(), Vec::new());
            step.faults.push(TaskFaults { index, failed_on, expired_on, outgrew: None });
        }
        let Some(faults) = step.faults.last_mut() else { continue };
        let worker: WorkerId = row.worker("worker")?;
        match row.parsed("state")? {
            AttemptState::Expired => faults.expired_on.push(worker),
            _ => faults.failed_on.push(worker),
        }
        faults.outgrew = faults.outgrew.max(row.raw::<Option<i64>>("outgrew")?.map(i64::cast_unsigned));
    }
    Ok(())
}

pub(crate) fn attempt_row(row: &SqliteRow) -> StoreResult<AttemptRow> {
    Ok(AttemptRow {
        id: row.attempt("epoch", "counter")?,
        task: row.task()?,
        generation: Generation(row.number("generation")?),
        worker: row.worker("worker")?,
        slot: row.number_opt("slot")?.map(SlotIndex),
        state: row.parsed("state")?,
        opened_ms: row.raw("opened_ms")?,
        started_ms: row.raw("started_ms")?,
        ended_ms: row.raw("ended_ms")?,
        failure: row.json_opt("failure")?,
        seconds: row.raw("seconds")?,
        peak_memory: row.raw::<Option<i64>>("peak_memory")?.map(i64::cast_unsigned),
    })
}

#[cfg(test)]
mod tests {
    use sqlx::{AssertSqlSafe, Execute, Row};

    use super::*;
    use crate::Durability;

    #[tokio::test]
    async fn a_list_is_answered_by_indexes_whatever_it_is_filtered_by() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(folder.path(), Durability::Ephemeral).await.unwrap();
        let (owner, project) = (Some("ana".parse().unwrap()), Some("forest".parse().unwrap()));
        for (owner, project) in
            [(None, None), (owner.clone(), None), (None, project.clone()), (owner, project)]
        {
            for states in [vec![], vec![JobState::Failed], vec![JobState::Queued, JobState::Running]] {
                for archived in [None, Some(false)] {
                    let filter = JobSelection {
                        owner: owner.clone(),
                        project: project.clone(),
                        archived,
                        states: states.clone(),
                    };
                    let mut query = page_query(&filter, 50, Some(JobId(1000)));
                    let sql = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {}", query.sql().as_str()));
                    let arguments = query.build().take_arguments().unwrap().unwrap();
                    let rows = sqlx::query_with(sql, arguments).fetch_all(&store.readers).await.unwrap();
                    let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
                    let filtered = usize::from(owner.is_some()) + usize::from(project.is_some());
                    // The index covers all conditions, so that no row is read and skipped.
                    let full = ["(<expr>=? AND state=? AND id<?)", "=? AND <expr>=? AND state=? AND id<?)"];
                    let full = full[filtered.min(1)];
                    assert!(plan.iter().any(|step| step.contains(" jobs")), "{plan:#?}");
                    // Only the pages of the branches are sorted.
                    for step in plan.iter().filter(|step| step.contains(" jobs")) {
                        assert!(
                            step.starts_with("SEARCH jobs USING COVERING INDEX") && step.contains(full),
                            "{plan:#?}"
                        );
                        assert!(filtered < 2 || step.contains("owner=? AND project=?"), "{plan:#?}");
                    }
                }
            }
        }
    }
}
