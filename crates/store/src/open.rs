//! Opening a data folder: the lock, the copy before a migration, the migration, the epoch.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};
use std::time::Duration;

use kiln_types::Epoch;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqliteConnection, SqlitePool};
use tokio::sync::{Mutex, Notify};

use crate::{Durability, Inner, Store, StoreError};

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// The file of the database in the data folder; its write-ahead log is beside it.
const DATABASE: &str = "kiln.db";
const LOCK: &str = "kiln.lock";

/// The connections by which a [`Store`] reads. Readers of one pool never wait for those of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadPool {
    /// Pages and downloads, four at a time; the pool of [`Store::open`].
    Requests,
    /// A few rows for the scheduler during a turn.
    Scheduler,
    /// A whole job, which may be large.
    Jobs,
    /// Collections, which scan everything.
    Scans,
}

/// The longest wait for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);
/// The same for pools whose reads may take long, and for which no request waits.
const LONG_ACQUIRE_TIMEOUT: Duration = Duration::from_secs(60 * 60);

#[derive(Debug)]
pub(crate) struct Pools {
    requests: SqlitePool,
    scheduler: SqlitePool,
    jobs: SqlitePool,
    scans: SqlitePool,
}

impl Pools {
    /// Makes the pools; their connections open at the first use.
    fn new(options: &SqliteConnectOptions) -> Self {
        let pool = |connections, timeout| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(timeout)
                .test_before_acquire(false)
                .connect_lazy_with(options.clone())
        };
        Self {
            requests: pool(4, ACQUIRE_TIMEOUT),
            scheduler: pool(1, ACQUIRE_TIMEOUT),
            jobs: pool(1, LONG_ACQUIRE_TIMEOUT),
            scans: pool(1, LONG_ACQUIRE_TIMEOUT),
        }
    }

    fn get(&self, pool: ReadPool) -> &SqlitePool {
        match pool {
            ReadPool::Requests => &self.requests,
            ReadPool::Scheduler => &self.scheduler,
            ReadPool::Jobs => &self.jobs,
            ReadPool::Scans => &self.scans,
        }
    }

    async fn close(&self) {
        for pool in [&self.requests, &self.scheduler, &self.jobs, &self.scans] {
            pool.close().await;
        }
    }
}

impl Store {
    /// Opens the records in this folder, or creates them, and begins a new epoch. Migrates an older database to the schema
    /// of this version, after copying it to `kiln.db.before-NNNN` (`NNNN`: the first missing migration).
    ///
    /// # Errors
    /// [`StoreError::AlreadyRunning`] if another process has locked the folder, [`StoreError::Newer`] if a newer Kiln wrote
    /// the database.
    pub async fn open(folder: &Path, durability: Durability) -> Result<(Self, Epoch), StoreError> {
        Self::open_with(folder, durability, &MIGRATIONS).await
    }

    pub(crate) async fn open_with(
        folder: &Path,
        durability: Durability,
        migrations: &Migrator,
    ) -> Result<(Self, Epoch), StoreError> {
        fs::create_dir_all(folder).map_err(StoreError::io("create", folder))?;
        let lock = lock(folder)?;
        let file = folder.join(DATABASE);
        let fresh = !file.try_exists().map_err(StoreError::io("look at", &file))?;
        let options = options(&file, durability);
        let mut writer = options.clone().create_if_missing(true).connect().await?;

        let pending = first_pending(&mut writer, folder, migrations).await?;
        if let Some(version) = pending {
            if !fresh {
                copy_before(&mut writer, &file, version).await?;
            }
            migrations.run(&mut writer).await.map_err(StoreError::Migrate)?;
        }
        if fresh && durability == Durability::Durable {
            kiln_files::flush_folder(folder).map_err(StoreError::io("write", folder))?;
        }

        let epoch = next_epoch(&mut writer).await?;
        let pools = Pools::new(&options.pragma("query_only", "ON"));
        let readers = pools.get(ReadPool::Requests).clone();
        let writer = Mutex::new(Some(writer));
        let inner =
            Inner { writer, pools, deleted: Notify::new(), epoch: AtomicU32::new(epoch.0), _lock: lock };
        Ok((Self { inner: Arc::new(inner), readers }, epoch))
    }

    /// Begins a new epoch, for a scheduler that starts again in the same process.
    pub async fn begin_epoch(&self) -> Result<Epoch, StoreError> {
        let mut writer = self.inner.writer.lock().await;
        let Some(writer) = writer.as_mut() else { return Err(StoreError::Closed) };
        let epoch = next_epoch(writer).await?;
        self.inner.epoch.store(epoch.0, Ordering::Release);
        Ok(epoch)
    }

    /// The same records, read by other connections.
    #[must_use]
    pub fn reading_by(&self, pool: ReadPool) -> Self {
        Self { inner: self.inner.clone(), readers: self.inner.pools.get(pool).clone() }
    }
}

/// Locks the folder until the file is dropped; the operating system unlocks it when the process ends in any way.
fn lock(folder: &Path) -> Result<File, StoreError> {
    let path = folder.join(LOCK);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(StoreError::io("create", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::AlreadyRunning(folder.to_owned())),
        Err(TryLockError::Error(source)) => Err(StoreError::io("lock", &path)(source)),
    }
}

fn options(file: &Path, durability: Durability) -> SqliteConnectOptions {
    let synchronous = match durability {
        Durability::Durable => SqliteSynchronous::Full,
        Durability::Ephemeral => SqliteSynchronous::Off,
    };
    SqliteConnectOptions::new()
        .filename(file)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(synchronous)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(10))
        .disable_statement_logging()
}

/// Returns the first migration that this database lacks, if any.
async fn first_pending(
    db: &mut SqliteConnection,
    folder: &Path,
    migrations: &Migrator,
) -> Result<Option<i64>, StoreError> {
    let migrated: i64 =
        sqlx::query_scalar("SELECT count(*) FROM sqlite_master WHERE name = '_sqlx_migrations'")
            .fetch_one(&mut *db)
            .await?;
    let mut found = 0;
    if migrated != 0 {
        found = sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations")
            .fetch_one(&mut *db)
            .await?;
    }
    let known = migrations.iter().map(|m| m.version).max().unwrap_or(0);
    if found > known {
        return Err(StoreError::Newer { folder: folder.to_owned(), found, known });
    }
    Ok(migrations.iter().map(|m| m.version).filter(|version| *version > found).min())
}

/// Copies the database. An earlier copy of the same name is from a migration that failed, and has nothing that this one does
/// not have.
async fn copy_before(db: &mut SqliteConnection, file: &Path, version: i64) -> Result<(), StoreError> {
    // Moves the log into the file of the database, so that one file has everything.
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut *db).await?;
    let mut copy = file.as_os_str().to_owned();
    copy.push(format!(".before-{version:04}"));
    let copy = PathBuf::from(copy);
    let part = copy.with_extension(format!("before-{version:04}.part"));
    let from = file.to_owned();
    let work = move || -> io::Result<()> {
        fs::copy(&from, &part)?;
        kiln_files::rename_durably(&part, &copy)
    };
    let done = tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(io::Error::other(e)));
    done.map_err(StoreError::io("copy", file))
}

impl Store {
    /// Waits for the writer and the readers to end, and moves the log into the file of the database. Later writes fail with
    /// [`StoreError::Closed`].
    pub async fn close(&self) -> Result<(), StoreError> {
        self.inner.pools.close().await;
        match self.inner.writer.lock().await.take() {
            Some(writer) => Ok(writer.close().await?),
            None => Ok(()),
        }
    }
}

/// Raises the epoch in the records.
async fn next_epoch(db: &mut SqliteConnection) -> Result<Epoch, StoreError> {
    let epoch: i64 = sqlx::query_scalar("UPDATE meta SET epoch = epoch + 1 WHERE id = 1 RETURNING epoch")
        .fetch_one(db)
        .await?;
    Ok(Epoch(u32::try_from(epoch).map_err(|e| StoreError::damaged("epoch", e))?))
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use sqlx::SqlSafeStr;
    use sqlx::migrate::{Migration, MigrationType};

    use super::*;

    /// The migrations of this version and one more.
    fn next(sql: &'static str) -> Migrator {
        let mut all: Vec<Migration> = MIGRATIONS.iter().cloned().collect();
        let up = MigrationType::Simple;
        all.push(Migration::new(known() + 1, Cow::Borrowed("next"), up, sql.into_sql_str(), false));
        Migrator::with_migrations(all)
    }

    /// The last migration of this version.
    fn known() -> i64 {
        MIGRATIONS.iter().map(|migration| migration.version).max().unwrap()
    }

    /// The migrations up to this one.
    fn up_to(version: i64) -> Migrator {
        Migrator::with_migrations(
            MIGRATIONS.iter().filter(|migration| migration.version <= version).cloned().collect(),
        )
    }

    #[tokio::test]
    async fn who_reads_for_one_purpose_waits_for_nobody_who_reads_for_another() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(folder.path(), Durability::Ephemeral).await.unwrap();
        let all = [ReadPool::Requests, ReadPool::Scheduler, ReadPool::Jobs, ReadPool::Scans];
        for free in all {
            let mut taken = Vec::new();
            for pool in all.iter().filter(|pool| **pool != free) {
                let readers = store.reading_by(*pool).readers;
                for _ in 0..readers.options().get_max_connections() {
                    taken.push(readers.acquire().await.unwrap());
                }
            }
            let reader = store.reading_by(free);
            let read = tokio::time::timeout(Duration::from_secs(20), reader.last_job()).await;
            read.unwrap_or_else(|_| panic!("{free:?} waits for others")).unwrap();
        }
        store.close().await.unwrap();
        for pool in all {
            store.reading_by(pool).last_job().await.unwrap_err();
        }
    }

    #[tokio::test]
    async fn a_folder_of_before_the_indexes_opens_and_has_them() {
        let folder = tempfile::tempdir().unwrap();
        let before = up_to(8);
        let (store, _) = Store::open_with(folder.path(), Durability::Durable, &before).await.unwrap();
        let bundle = crate::NewBundle {
            id: kiln_types::BundleId(kiln_types::BlobHash::of(b"bundle")),
            owner: kiln_types::Owner::default(),
            project: kiln_types::Project::default(),
            size: 1,
            blobs: vec![kiln_types::BlobHash::of(b"file")],
        };
        store.commit(vec![crate::Write::InsertBundle { bundle, at_ms: 1 }]).await.unwrap();
        store.close().await.unwrap();
        drop(store);
        let (store, _) = Store::open(folder.path(), Durability::Durable).await.unwrap();
        assert!(folder.path().join("kiln.db.before-0009").exists());
        let files = store.bundle_blobs(None, 10).await.unwrap();
        assert_eq!(files, [kiln_types::BlobHash::of(b"file")]);
        assert!(store.bundle_blobs(Some(files[0]), 10).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_folder_of_before_stored_steps_has_the_steps_that_were_derived_and_todays_words() {
        let folder = tempfile::tempdir().unwrap();
        let before = up_to(9);
        let (store, _) = Store::open_with(folder.path(), Durability::Durable, &before).await.unwrap();
        store.close().await.unwrap();
        drop(store);
        let mut db = options_of(folder.path()).connect().await.unwrap();
        sqlx::raw_sql(include_str!("../tests/fixtures/schema-9.sql")).execute(&mut db).await.unwrap();
        db.close().await.unwrap();

        let (store, _) = Store::open(folder.path(), Durability::Durable).await.unwrap();
        for (job, order, bakes) in [(1, "coarse", false), (2, "every-2", true)] {
            let row = store.job(kiln_types::JobId(job)).await.unwrap().unwrap();
            assert_eq!(row.spec.order.to_string(), order);
            assert_eq!(row.plan, kiln_types::JobSteps::of_frames(bakes, row.spec.order));
            assert_eq!(row.steps.last().map(|step| step.count), Some(5));
        }
        let quarantines: Vec<_> =
            store.workers().await.unwrap().into_iter().map(|row| (row.name, row.quarantine)).collect();
        let known = kiln_types::Quarantine { reason: "it failed 4 times".to_owned(), failed_probes: 2 };
        assert_eq!(quarantines, [("desk".to_owned(), None), ("rack-3".to_owned(), Some(known))]);
        let events = store.events_after(kiln_types::EventNumber(0), 10, None).await.unwrap();
        let kinds: Vec<_> = events.iter().map(|event| event.data["step_kind"].as_str()).collect();
        assert_eq!(kinds, [Some("bake"), Some("render"), None]);
    }

    #[tokio::test]
    async fn the_records_of_before_are_told_in_todays_words() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = Store::open_with(folder.path(), Durability::Durable, &up_to(12)).await.unwrap();
        store.close().await.unwrap();
        drop(store);
        let mut db = options_of(folder.path()).connect().await.unwrap();
        sqlx::raw_sql(include_str!("../tests/fixtures/schema-12.sql")).execute(&mut db).await.unwrap();
        db.close().await.unwrap();

        let (store, _) = Store::open(folder.path(), Durability::Durable).await.unwrap();
        let infos: Vec<_> = store.workers().await.unwrap().into_iter().map(|row| row.info).collect();
        let asleep = serde_json::json!({"why": "asleep until 08:00", "until_ms": 5});
        let slots = serde_json::json!({"slots": 1});
        let free = serde_json::json!({"unavailable": null, "slots": 1});
        assert_eq!(infos, [serde_json::json!({"unavailable": asleep, "slots": 1}), free, slots]);
        let events = store.events_after(kiln_types::EventNumber(0), 10, None).await.unwrap();
        let states: Vec<_> = events.iter().map(|event| event.data["state"].as_str().unwrap()).collect();
        assert_eq!(states, ["unavailable", "quarantined", "idle"]);
    }

    #[tokio::test]
    async fn attempts_jobs_and_workers_of_before_are_read_in_the_terms_of_the_field() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = Store::open_with(folder.path(), Durability::Durable, &up_to(13)).await.unwrap();
        store.close().await.unwrap();
        drop(store);
        let mut db = options_of(folder.path()).connect().await.unwrap();
        sqlx::raw_sql(include_str!("../tests/fixtures/schema-13.sql")).execute(&mut db).await.unwrap();
        db.close().await.unwrap();

        let (store, _) = Store::open(folder.path(), Durability::Durable).await.unwrap();
        let spec = store.job(kiln_types::JobId(1)).await.unwrap().unwrap().spec;
        assert_eq!(
            (spec.scheduling.priority.get(), spec.scheduling.after),
            (70, [kiln_types::JobId(7)].into())
        );
        assert_eq!((spec.requirements.tags.len(), spec.requirements.memory), (1, Some(9)));
        let desired: Vec<_> =
            store.workers().await.unwrap().iter().map(|row| row.desired.to_string()).collect();
        assert_eq!(desired, ["active", "paused", "draining", "stopped"]);
        let events = store.events_after(kiln_types::EventNumber(0), 10, None).await.unwrap();
        let states: Vec<_> = events.iter().filter_map(|event| event.data["state"].as_str()).collect();
        assert_eq!(states, ["expired", "returned", "failed"]);
        assert_eq!(events[3].data, serde_json::json!({"scheduling": {"priority": 9}}));
        store.close().await.unwrap();
        drop(store);
        let mut db = options_of(folder.path()).connect().await.unwrap();
        let states = sqlx::query_scalar("SELECT state FROM attempts ORDER BY counter");
        let states: Vec<String> = states.fetch_all(&mut db).await.unwrap();
        assert_eq!(states, ["expired", "returned", "failed"]);
    }

    fn options_of(folder: &Path) -> SqliteConnectOptions {
        SqliteConnectOptions::new().filename(folder.join(DATABASE))
    }

    async fn tables(file: &Path) -> Vec<String> {
        let mut db = SqliteConnectOptions::new().filename(file).connect().await.unwrap();
        let names = sqlx::query_scalar("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name");
        names.fetch_all(&mut db).await.unwrap()
    }

    #[tokio::test]
    async fn the_database_is_copied_before_a_migration() {
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join(format!("kiln.db.before-{:04}", known() + 1));
        let (store, _) = Store::open(folder.path(), Durability::Durable).await.unwrap();
        assert!(!folder.path().join("kiln.db.before-0001").exists(), "a new database has nothing to copy");
        // Not closed: what is in the log alone must be in the copy.
        drop(store);

        // One that fails changes nothing, and the next start tries again.
        let failing = next("CREATE TABLE news (id INTEGER PRIMARY KEY); SELECT * FROM nowhere;");
        let error = Store::open_with(folder.path(), Durability::Durable, &failing).await.unwrap_err();
        assert!(matches!(error, StoreError::Migrate(_)), "{error}");
        assert!(copy.exists());
        let migrations = next("CREATE TABLE news (id INTEGER PRIMARY KEY) STRICT;");
        let (store, epoch) = Store::open_with(folder.path(), Durability::Durable, &migrations).await.unwrap();
        assert_eq!(epoch, Epoch(2));
        store.close().await.unwrap();
        drop(store);
        assert!(tables(&folder.path().join("kiln.db")).await.contains(&"news".to_owned()));
        let copied = tables(&copy).await;
        assert!(copied.contains(&"jobs".to_owned()) && !copied.contains(&"news".to_owned()));

        // An earlier version refuses it; the copy, put in its place, opens.
        let error = Store::open(folder.path(), Durability::Durable).await.unwrap_err();
        let newer = matches!(error, StoreError::Newer { found, known: own, .. } if (found, own) == (known() + 1, known()));
        assert!(newer, "{error}");
        fs::rename(&copy, folder.path().join("kiln.db")).unwrap();
        let (_, epoch) = Store::open(folder.path(), Durability::Durable).await.unwrap();
        assert_eq!(epoch, Epoch(2));
    }
}
