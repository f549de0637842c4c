//! The frequent writes: attempts opened and started, and tasks committed. All of a kind in a batch are one statement,
//! because a statement costs two changes of thread, and a row only a few microseconds.

use kiln_types::{Blank, BundleFile, OutputSet};
use serde::Serialize;
use sqlx::SqliteConnection;

use crate::bundles::{insert_bundle, take_bundle};
use crate::sql::{StoreResult, to_json};
use crate::{NewBundle, NewProduct, TaskProduct, Write};

/// The frequent writes since the last other one, by kind.
#[derive(Default)]
pub(crate) struct Bulk {
    opened: Vec<Opened>,
    started: Vec<Started>,
    done: Vec<Done>,
    outputs: Vec<Output>,
    products: Vec<Product>,
    bundles: Vec<Bundle>,
}

/// A bundle that a step made.
struct Bundle {
    job: i64,
    step: u16,
    bundle: NewBundle,
    at_ms: i64,
}

/// Epoch, counter, job, step, index, generation, worker, slot, time.
#[derive(Serialize)]
struct Opened(u32, i64, i64, u16, u32, u32, i64, Option<u16>, i64);

/// Epoch, counter, time.
#[derive(Serialize)]
struct Started(u32, i64, i64);

/// Job, step, index, generation; the attempt's epoch and counter; time, seconds, peak memory.
#[derive(Serialize)]
struct Done(i64, u16, u32, u32, u32, i64, i64, f64, Option<i64>);

/// The position of its task in [`Bulk::done`], and the file: frame, path, role, hash, size, format, width, height, and the
/// remarkable things in its pixels.
#[derive(Serialize)]
struct Output(usize, i32, String, String, String, i64, &'static str, u32, u32, Option<&'static str>, i64);

/// The position of its task in [`Bulk::done`], and the file: kind, position of its frame, path, hash, size.
#[derive(Serialize)]
struct Product(usize, &'static str, Option<u32>, String, String, i64);

impl Bulk {
    /// Takes a frequent write, and returns any other one, which the caller applies after [`Bulk::flush`].
    pub fn take(&mut self, write: Write) -> StoreResult<Option<Write>> {
        match write {
            Write::OpenAttempt { attempt, task, generation, worker, slot, at_ms } => {
                let (epoch, counter) = (attempt.epoch.0, attempt.counter.cast_signed());
                let (job, step, index) = (task.job.0.cast_signed(), task.step.0, task.index.0);
                let (worker, slot) = (worker.bits().cast_signed(), slot.map(|slot| slot.0));
                let row = Opened(epoch, counter, job, step, index, generation.0, worker, slot, at_ms);
                self.opened.push(row);
            }
            Write::StartAttempt { attempt, at_ms } => {
                self.started.push(Started(attempt.epoch.0, attempt.counter.cast_signed(), at_ms));
            }
            Write::CommitTask { task, generation, attempt, product, seconds, peak_memory, at_ms } => {
                let (epoch, counter) = (attempt.epoch.0, attempt.counter.cast_signed());
                let (job, step, index) = (task.job.0.cast_signed(), task.step.0, task.index.0);
                match product {
                    TaskProduct::Outputs { frame, files } => self.add_outputs(frame, &files)?,
                    TaskProduct::Bundle(bundle) => self.bundles.push(Bundle { job, step, bundle, at_ms }),
                    TaskProduct::Files(NewProduct { kind, position, files }) => {
                        let (done, kind) = (self.done.len(), kind.as_str());
                        self.products.extend(files.into_iter().map(|BundleFile { path, hash, size }| {
                            let (path, hash) = (path.as_str().to_owned(), hash.to_string());
                            Product(done, kind, position, path, hash, size.cast_signed())
                        }));
                    }
                }
                let peak = peak_memory.map(u64::cast_signed);
                let row = Done(job, step, index, generation.0, epoch, counter, at_ms, seconds, peak);
                self.done.push(row);
            }
            other => return Ok(Some(other)),
        }
        Ok(None)
    }

    fn add_outputs(&mut self, frame: i32, outputs: &OutputSet) -> StoreResult<()> {
        for file in outputs.files() {
            self.outputs.push(Output(
                self.done.len(),
                frame,
                file.path.as_str().to_owned(),
                to_json("role", &file.role)?,
                file.hash.to_string(),
                file.size.cast_signed(),
                file.format.as_str(),
                file.width,
                file.height,
                file.pixels.blank.map(Blank::as_str),
                i64::try_from(file.pixels.not_finite).unwrap_or(i64::MAX),
            ));
        }
        Ok(())
    }

    /// Runs a statement for each kind, in the order in which an attempt lives.
    pub async fn flush(&mut self, db: &mut SqliteConnection) -> StoreResult<()> {
        let Self { opened, started, done, outputs, products, bundles } = std::mem::take(self);
        run_for_all(
            db,
            &opened,
            "INSERT INTO attempts (epoch, counter, job, step, idx, generation, worker, slot, state, opened_ms) \
             SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, \
                 value ->> 7, 'assigned', value ->> 8 \
             FROM json_each(?1) ORDER BY key",
        )
        .await?;
        run_for_all(
            db,
            &started,
            "UPDATE attempts SET state = 'running', started_ms = row.value ->> 2 FROM json_each(?1) AS row \
             WHERE epoch = row.value ->> 0 AND counter = row.value ->> 1 AND state = 'assigned'",
        )
        .await?;
        run_for_all(
            db,
            &done,
            "UPDATE attempts SET state = 'committed', ended_ms = row.value ->> 6, seconds = row.value ->> 7, \
                 peak_memory = row.value ->> 8 \
             FROM json_each(?1) AS row WHERE epoch = row.value ->> 4 AND counter = row.value ->> 5",
        )
        .await?;
        run_for_all(
            db,
            &done,
            "INSERT INTO tasks (job, step, idx, generation, state) \
             SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, 'done' FROM json_each(?1) \
             WHERE true ORDER BY key \
             ON CONFLICT (job, step, idx) DO UPDATE SET generation = excluded.generation, state = 'done', reason = NULL",
        )
        .await?;
        let again: Vec<&Done> = done.iter().filter(|done| done.3 > 0).collect();
        run_for_all(
            db,
            &again,
            "UPDATE outputs SET current = 0 FROM json_each(?1) AS row \
             WHERE job = row.value ->> 0 AND step = row.value ->> 1 AND idx = row.value ->> 2 \
                 AND generation < row.value ->> 3",
        )
        .await?;
        let rows: Vec<(&Output, &Done)> =
            outputs.iter().filter_map(|output| Some((output, done.get(output.0)?))).collect();
        run_for_all(
            db,
            &rows,
            "INSERT INTO outputs (job, step, idx, generation, attempt_epoch, attempt_counter, committed_ms, frame, path, \
                 role, hash, size, format, width, height, blank, not_finite) \
             SELECT value ->> '$[1][0]', value ->> '$[1][1]', value ->> '$[1][2]', value ->> '$[1][3]', \
                 value ->> '$[1][4]', value ->> '$[1][5]', value ->> '$[1][6]', value ->> '$[0][1]', \
                 value ->> '$[0][2]', value ->> '$[0][3]', unhex(value ->> '$[0][4]'), value ->> '$[0][5]', \
                 value ->> '$[0][6]', value ->> '$[0][7]', value ->> '$[0][8]', value ->> '$[0][9]', \
                 value ->> '$[0][10]' \
             FROM json_each(?1) ORDER BY key",
        )
        .await?;
        let rows: Vec<(&Product, &Done)> =
            products.iter().filter_map(|product| Some((product, done.get(product.0)?))).collect();
        run_for_all(
            db,
            &rows,
            "INSERT INTO products (job, step, idx, generation, committed_ms, kind, position, path, hash, size) \
             SELECT value ->> '$[1][0]', value ->> '$[1][1]', value ->> '$[1][2]', value ->> '$[1][3]', \
                 value ->> '$[1][6]', value ->> '$[0][1]', value ->> '$[0][2]', value ->> '$[0][3]', \
                 unhex(value ->> '$[0][4]'), value ->> '$[0][5]' \
             FROM json_each(?1) ORDER BY key",
        )
        .await?;
        for Bundle { job, step, bundle, at_ms } in bundles {
            let query = sqlx::query("UPDATE steps SET bundle = ?3 WHERE job = ?1 AND step = ?2")
                .bind(job)
                .bind(i64::from(step))
                .bind(bundle.id.0.as_bytes().to_vec());
            query.execute(&mut *db).await?;
            insert_bundle(db, &bundle, at_ms).await?;
            take_bundle(db, bundle.id).await?;
        }
        Ok(())
    }
}

/// Runs the statement on all rows at once, if there are any.
async fn run_for_all(
    db: &mut SqliteConnection,
    rows: &[impl Serialize],
    sql: &'static str,
) -> StoreResult<()> {
    if !rows.is_empty() {
        sqlx::query(sql).bind(to_json("row", &rows)?).execute(db).await?;
    }
    Ok(())
}
