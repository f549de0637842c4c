//! Committing batches of writes: a batch is a transaction.

use kiln_types::{
    AttemptId, AttemptState, Epoch, EventNumber, Failure, Generation, JobId, JobSpec, JobState, StepIndex,
    TaskId, TaskIndex, TaskState,
};
use sqlx::{Connection, Sqlite, SqliteConnection, Transaction};

use crate::bulk::Bulk;
use crate::bundles::{insert_bundle, take_bundle};
use crate::share::{set_limit, set_share};
use crate::sql::{StoreResult, to_json};
use crate::{NewEvent, NewStep, Store, StoreError, StoredEvent, Write};

impl Store {
    /// Commits the batch as one transaction, with the [`crate::Durability`] of the store, and returns its events with their
    /// numbers. Writes to a deleted job do nothing, or [`Store::sweep`] removes them.
    ///
    /// # Errors
    /// The batch is not committed; but if the disk fails at the end of the transaction, it may turn out to be when the
    /// records are opened again.
    pub async fn commit(&self, batch: Vec<Write>) -> StoreResult<Vec<StoredEvent>> {
        let mut writer = self.inner.writer.lock().await;
        let mut tx = self.begin(&mut writer).await?;
        let mut pending = Vec::new();
        let mut events = Vec::new();
        let mut bulk = Bulk::default();
        let deletes = batch.iter().any(|write| matches!(write, Write::DeleteJob { .. }));
        for write in batch {
            let Some(write) = bulk.take(write)? else { continue };
            match write {
                // No other write depends on them.
                Write::Event(event) => pending.push(event),
                Write::TrimEvents { up_to } => {
                    flush_events(&mut tx, &mut pending, &mut events).await?;
                    sqlx::query("DELETE FROM events WHERE number <= ?1")
                        .bind(up_to.0.cast_signed())
                        .execute(&mut *tx)
                        .await?;
                }
                other => {
                    bulk.flush(&mut tx).await?;
                    apply(&mut tx, other).await?;
                }
            }
        }
        bulk.flush(&mut tx).await?;
        flush_events(&mut tx, &mut pending, &mut events).await?;
        tx.commit().await?;
        if deletes {
            self.inner.deleted.notify_one();
        }
        Ok(events)
    }

    /// Begins a transaction on the write connection, which the caller has locked.
    ///
    /// # Errors
    /// [`StoreError::Closed`], or [`StoreError::Superseded`] if a later epoch has begun.
    pub(crate) async fn begin<'a>(
        &self,
        writer: &'a mut Option<SqliteConnection>,
    ) -> StoreResult<Transaction<'a, Sqlite>> {
        let Some(writer) = writer else { return Err(StoreError::Closed) };
        let mut tx = writer.begin_with("BEGIN IMMEDIATE").await?;
        check_epoch(&mut tx, self.epoch()).await?;
        Ok(tx)
    }
}

/// Refuses the writes of a scheduler whose epoch has ended: a later one may have decided otherwise.
async fn check_epoch(db: &mut SqliteConnection, own: Epoch) -> StoreResult<()> {
    let found: i64 = sqlx::query_scalar("SELECT epoch FROM meta WHERE id = 1").fetch_one(db).await?;
    if found == i64::from(own.0) {
        return Ok(());
    }
    let found = Epoch(u32::try_from(found).map_err(|e| StoreError::damaged("epoch", e))?);
    Err(StoreError::Superseded { own, found })
}

async fn apply(db: &mut SqliteConnection, write: Write) -> StoreResult<()> {
    match write {
        Write::InsertJob { job, spec, steps, at_ms } => insert_job(db, job, &spec, &steps, at_ms).await,
        Write::SetJobState { job, state, at_ms, reason } => {
            set_job_state(db, job, state, at_ms, reason).await
        }
        Write::AddNotice { job, text, attempt, at_ms } => {
            let query = sqlx::query(
                "INSERT OR IGNORE INTO notices (job, text, attempt_epoch, attempt_counter, at_ms) \
                 SELECT ?1, ?2, ?3, ?4, ?5 WHERE EXISTS (SELECT 1 FROM jobs WHERE id = ?1)",
            )
            .bind(job.0.cast_signed())
            .bind(text)
            .bind(attempt.map(|a| i64::from(a.epoch.0)))
            .bind(attempt.map(|a| a.counter.cast_signed()))
            .bind(at_ms);
            run(db, query).await
        }
        Write::ExtendStep { job, step, spec, count } => extend_step(db, job, step, &spec, count).await,
        Write::AddStep { job, step } => insert_step(db, job, &step).await,
        Write::SetJobSpec { job, spec } => set_spec(db, job, &spec).await,
        // Hides the job and removes its needs; `Store::sweep` removes its rows, which may be millions.
        Write::DeleteJob { job } => {
            let query = sqlx::query(
                "UPDATE jobs SET state = 'deleted', archived_ms = NULL, inputs_gone_ms = 0, \
                 outputs_gone_seq = 9223372036854775807, outputs_gone_ms = NULL WHERE id = ?1",
            );
            run(db, query.bind(job.0.cast_signed())).await
        }
        Write::SetJobArchived { job, at_ms } => {
            let query = sqlx::query("UPDATE jobs SET archived_ms = ?2 WHERE id = ?1 AND state <> 'deleted'");
            run(db, query.bind(job.0.cast_signed()).bind(at_ms)).await
        }
        Write::MarkFetched { job, sequence, at_ms } => {
            let query = sqlx::query(
                "WITH has (seq) AS ( \
                     SELECT min(?2, coalesce((SELECT max(seq) FROM outputs WHERE job = ?1), 0)) \
                 ) \
                 UPDATE jobs SET fetched_seq = (SELECT seq FROM has), fetched_ms = ?3 \
                 WHERE id = ?1 AND fetched_seq < (SELECT seq FROM has)",
            )
            .bind(job.0.cast_signed())
            .bind(i64::try_from(sequence).unwrap_or(i64::MAX))
            .bind(at_ms);
            run(db, query).await
        }
        Write::CloseAttempt { attempt, state, at_ms, failure, seconds } => {
            close_attempt(db, attempt, state, at_ms, failure, seconds).await
        }
        Write::PlaceAttempt { attempt, slot } => {
            let sql = "UPDATE attempts SET slot = ?3 WHERE epoch = ?1 AND counter = ?2";
            run(db, bind_attempt(sql, attempt).bind(i64::from(slot.0))).await
        }
        Write::ExcuseAttempt { attempt } => {
            let sql = "UPDATE attempts SET counts = 0 WHERE epoch = ?1 AND counter = ?2";
            run(db, bind_attempt(sql, attempt)).await
        }
        Write::OutgrewMemory { attempt, bytes } => {
            let sql = "UPDATE attempts SET outgrew = ?3 WHERE epoch = ?1 AND counter = ?2";
            run(db, bind_attempt(sql, attempt).bind(i64::try_from(bytes).unwrap_or(i64::MAX))).await
        }
        Write::ResumeAttempt { attempt, state } => {
            let sql = "UPDATE attempts SET state = ?3, counts = 1, ended_ms = NULL, failure = NULL, seconds = NULL \
                       WHERE epoch = ?1 AND counter = ?2";
            run(db, bind_attempt(sql, attempt).bind(state.as_str())).await
        }
        Write::FailTask { task, generation, reason } => {
            set_task(db, task, generation, TaskState::Failed, Some(reason)).await
        }
        Write::ReopenTasks { job, step, first, last, generation } => {
            reopen_tasks(db, job, step, first, last, generation).await
        }
        Write::SetStepEnd { job, step, ended_ms } => {
            let sql = "UPDATE steps SET ended_ms = ?3 WHERE job = ?1 AND step = ?2";
            run(db, bind_step(sql, job, step).bind(ended_ms)).await
        }
        Write::SetCancelledTasks { job, step, spans } => {
            let sql = "UPDATE steps SET cancelled = ?3 WHERE job = ?1 AND step = ?2";
            run(db, bind_step(sql, job, step).bind(to_json("span", &spans)?)).await
        }
        Write::UpsertWorker { worker, name, info, at_ms } => {
            let done = sqlx::query(
                "INSERT INTO workers (id, name, info, desired, first_seen_ms, last_seen_ms) \
                 VALUES (?1, ?2, ?3, 'active', ?4, ?4) \
                 ON CONFLICT (id) DO UPDATE SET name = ?2, info = ?3, last_seen_ms = ?4",
            )
            .bind(worker.bits().cast_signed())
            .bind(&name)
            .bind(info.to_string())
            .bind(at_ms)
            .execute(db)
            .await;
            match done {
                Err(e) if e.as_database_error().is_some_and(|e| e.is_unique_violation()) => {
                    Err(StoreError::WorkerNameTaken(name))
                }
                done => Ok(done.map(drop)?),
            }
        }
        Write::SetDesiredState { worker, desired } => {
            let query = sqlx::query("UPDATE workers SET desired = ?2 WHERE id = ?1");
            run(db, query.bind(worker.bits().cast_signed()).bind(desired.as_str())).await
        }
        Write::SetQuarantine { worker, quarantine } => {
            let quarantine = quarantine.map(|known| to_json("quarantine", &known)).transpose()?;
            let query = sqlx::query("UPDATE workers SET quarantine = ?2 WHERE id = ?1");
            run(db, query.bind(worker.bits().cast_signed()).bind(quarantine)).await
        }
        Write::SetWorkerPools { worker, pools } => {
            let query = sqlx::query("UPDATE workers SET pools = ?2 WHERE id = ?1");
            run(db, query.bind(worker.bits().cast_signed()).bind(to_json("pool", &pools)?)).await
        }
        Write::TouchWorker { worker, at_ms } => {
            let query = sqlx::query("UPDATE workers SET last_seen_ms = max(last_seen_ms, ?2) WHERE id = ?1");
            run(db, query.bind(worker.bits().cast_signed()).bind(at_ms)).await
        }
        Write::DeleteWorker { worker } => {
            let keep = sqlx::query(
                "INSERT OR REPLACE INTO former_workers (id, name) SELECT id, name FROM workers WHERE id = ?1",
            );
            run(db, keep.bind(worker.bits().cast_signed())).await?;
            let query = sqlx::query("DELETE FROM workers WHERE id = ?1");
            run(db, query.bind(worker.bits().cast_signed())).await
        }
        Write::SetShare(share) => set_share(db, share).await,
        Write::SetLimit { name, total } => set_limit(db, name, total).await,
        Write::InsertBundle { bundle, at_ms } => insert_bundle(db, &bundle, at_ms).await,
        // `Store::commit` has taken these.
        Write::OpenAttempt { .. }
        | Write::StartAttempt { .. }
        | Write::CommitTask { .. }
        | Write::Event(_)
        | Write::TrimEvents { .. } => Ok(()),
    }
}

type Query = sqlx::query::Query<'static, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

/// A statement whose first parameters are the epoch and the counter of the attempt.
fn bind_attempt(sql: &'static str, attempt: AttemptId) -> Query {
    sqlx::query(sql).bind(i64::from(attempt.epoch.0)).bind(attempt.counter.cast_signed())
}

/// A statement whose first parameters are the job and the step.
fn bind_step(sql: &'static str, job: JobId, step: StepIndex) -> Query {
    sqlx::query(sql).bind(job.0.cast_signed()).bind(i64::from(step.0))
}

async fn run(db: &mut SqliteConnection, query: Query) -> StoreResult<()> {
    query.execute(db).await?;
    Ok(())
}

async fn insert_job(
    db: &mut SqliteConnection,
    job: JobId,
    spec: &JobSpec,
    steps: &[NewStep],
    at_ms: i64,
) -> StoreResult<()> {
    let bundle = spec.session.bundle;
    let query = sqlx::query(
        "INSERT INTO jobs (id, owner, project, name, state, spec, session, bundle, created_ms) \
         SELECT ?1, ?2, ?3, ?4, 'queued', ?5, ?6, ?7, ?8 \
         WHERE EXISTS (SELECT 1 FROM bundles WHERE id = ?7 AND waits <> 2)",
    )
    .bind(job.0.cast_signed())
    .bind(spec.owner.to_string())
    .bind(spec.project.to_string())
    .bind(spec.name.clone())
    .bind(to_json("job", spec)?)
    .bind(spec.session.key().0.as_bytes().to_vec())
    .bind(bundle.0.as_bytes().to_vec())
    .bind(at_ms);
    if query.execute(&mut *db).await?.rows_affected() == 0 {
        return Err(StoreError::NoBundle(bundle));
    }
    take_bundle(db, bundle).await?;
    let highest = sqlx::query("UPDATE meta SET last_job = max(last_job, ?1) WHERE id = 1");
    run(db, highest.bind(job.0.cast_signed())).await?;
    for step in steps {
        insert_step(db, job, step).await?;
    }
    Ok(())
}

/// Inserts nothing if the job was deleted.
async fn insert_step(db: &mut SqliteConnection, job: JobId, step: &NewStep) -> StoreResult<()> {
    let query = sqlx::query(
        "INSERT INTO steps (job, step, spec, count) SELECT ?1, ?2, ?3, ?4 WHERE EXISTS (SELECT 1 FROM jobs WHERE id = ?1)",
    )
    .bind(job.0.cast_signed())
    .bind(i64::from(step.step.0))
    .bind(to_json("step", &step.spec)?)
    .bind(i64::from(step.count));
    run(db, query).await
}

async fn set_job_state(
    db: &mut SqliteConnection,
    job: JobId,
    state: JobState,
    at_ms: i64,
    reason: Option<Failure>,
) -> StoreResult<()> {
    let reason = reason.map(|reason| to_json("reason", &reason)).transpose()?;
    let query = sqlx::query(
        "UPDATE jobs SET state = ?2, \
         started_ms = CASE WHEN ?3 THEN coalesce(started_ms, ?5) ELSE started_ms END, \
         ended_ms = CASE WHEN ?4 THEN ?5 END, \
         reason = ?6 \
         WHERE id = ?1 AND state <> 'deleted'",
    )
    .bind(job.0.cast_signed())
    .bind(state.as_str())
    .bind(state == JobState::Running)
    .bind(state.is_end())
    .bind(at_ms)
    .bind(reason);
    run(db, query).await
}

async fn set_spec(db: &mut SqliteConnection, job: JobId, spec: &JobSpec) -> StoreResult<()> {
    let query = sqlx::query("UPDATE jobs SET spec = ?2 WHERE id = ?1");
    run(db, query.bind(job.0.cast_signed()).bind(to_json("job", spec)?)).await
}

async fn extend_step(
    db: &mut SqliteConnection,
    job: JobId,
    step: StepIndex,
    spec: &JobSpec,
    count: u32,
) -> StoreResult<()> {
    set_spec(db, job, spec).await?;
    let sql = "UPDATE steps SET count = ?3 WHERE job = ?1 AND step = ?2";
    run(db, bind_step(sql, job, step).bind(i64::from(count))).await
}

async fn close_attempt(
    db: &mut SqliteConnection,
    attempt: AttemptId,
    state: AttemptState,
    at_ms: i64,
    failure: Option<Failure>,
    seconds: Option<f64>,
) -> StoreResult<()> {
    let failure = failure.map(|failure| to_json("failure", &failure)).transpose()?;
    let sql = "UPDATE attempts SET state = ?3, ended_ms = ?4, failure = ?5, seconds = ?6 \
               WHERE epoch = ?1 AND counter = ?2";
    run(db, bind_attempt(sql, attempt).bind(state.as_str()).bind(at_ms).bind(failure).bind(seconds)).await
}

async fn set_task(
    db: &mut SqliteConnection,
    task: TaskId,
    generation: Generation,
    state: TaskState,
    reason: Option<Failure>,
) -> StoreResult<()> {
    let reason = reason.map(|reason| to_json("reason", &reason)).transpose()?;
    let query = sqlx::query(
        "INSERT INTO tasks (job, step, idx, generation, state, reason) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
         ON CONFLICT (job, step, idx) DO UPDATE SET generation = ?4, state = ?5, reason = ?6",
    )
    .bind(task.job.0.cast_signed())
    .bind(i64::from(task.step.0))
    .bind(i64::from(task.index.0))
    .bind(i64::from(generation.0))
    .bind(state.as_str())
    .bind(reason);
    run(db, query).await
}

async fn reopen_tasks(
    db: &mut SqliteConnection,
    job: JobId,
    step: StepIndex,
    first: TaskIndex,
    last: TaskIndex,
    generation: Generation,
) -> StoreResult<()> {
    let for_tasks = |sql| bind_step(sql, job, step).bind(i64::from(first.0)).bind(i64::from(last.0));
    // In generation 0, a task without a row is waiting already.
    let reopen = if generation == Generation(0) {
        "UPDATE tasks SET generation = ?5, state = 'waiting', reason = NULL \
         WHERE job = ?1 AND step = ?2 AND idx BETWEEN ?3 AND ?4"
    } else {
        "WITH RECURSIVE span (idx) AS (SELECT ?3 UNION ALL SELECT idx + 1 FROM span WHERE idx < ?4) \
         INSERT INTO tasks (job, step, idx, generation, state) \
         SELECT ?1, ?2, idx, ?5, 'waiting' FROM span WHERE true \
         ON CONFLICT (job, step, idx) DO UPDATE SET generation = ?5, state = 'waiting', reason = NULL"
    };
    run(db, for_tasks(reopen).bind(i64::from(generation.0))).await?;
    let forget = "UPDATE attempts SET counts = 0 \
                  WHERE job = ?1 AND step = ?2 AND idx BETWEEN ?3 AND ?4 AND counts = 1";
    run(db, for_tasks(forget)).await
}

/// Writes all pending events in one statement: they are the most frequent rows by far. Their numbers have no gap, because
/// there is one writer.
pub(crate) async fn flush_events(
    db: &mut SqliteConnection,
    pending: &mut Vec<NewEvent>,
    events: &mut Vec<StoredEvent>,
) -> StoreResult<()> {
    if pending.is_empty() {
        return Ok(());
    }
    let rows: Vec<_> = pending
        .iter()
        .map(|event| {
            let job = event.job.map(|job| job.0.cast_signed());
            let worker = event.worker.map(|worker| worker.bits().cast_signed());
            (event.at_ms, job, worker, &event.kind, event.data.to_string())
        })
        .collect();
    let last = sqlx::query(
        "INSERT INTO events (at_ms, job, worker, kind, data) \
         SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(?1) ORDER BY key",
    )
    .bind(to_json("events", &rows)?)
    .execute(db)
    .await?
    .last_insert_rowid();
    let first = last - rows.len() as i64 + 1;
    events.extend(pending.drain(..).zip(first..).map(|(event, number)| StoredEvent {
        number: EventNumber(number.cast_unsigned()),
        at_ms: event.at_ms,
        job: event.job,
        worker: event.worker,
        kind: event.kind,
        data: event.data,
    }));
    Ok(())
}
