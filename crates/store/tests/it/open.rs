//! The data folder: locked, copied before a migration, refused when newer, one epoch after another.

use kiln_store::{Durability, Store, StoreError};
use kiln_types::{Epoch, EventNumber, JobId};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};

use crate::{event, insert, open};

async fn raw(folder: &tempfile::TempDir) -> SqliteConnection {
    SqliteConnectOptions::new().filename(folder.path().join("kiln.db")).connect().await.unwrap()
}

#[tokio::test]
async fn one_server_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let error = Store::open(folder.path(), Durability::Durable).await.unwrap_err();
    assert!(matches!(&error, StoreError::AlreadyRunning(path) if path == folder.path()), "{error}");
    assert!(error.to_string().starts_with("another Kiln server already uses /"), "{error}");
    let clone = store.clone();
    drop(store);
    Store::open(folder.path(), Durability::Durable).await.unwrap_err();
    drop(clone);
    open(folder.path()).await;
}

#[tokio::test]
async fn every_start_is_an_epoch_and_an_earlier_one_cannot_write() {
    let folder = tempfile::tempdir().unwrap();
    for expected in 1..4 {
        let (store, epoch) = Store::open(folder.path(), Durability::Ephemeral).await.unwrap();
        assert_eq!((epoch, store.epoch()), (Epoch(expected), Epoch(expected)));
    }
    let store = open(folder.path()).await;
    sqlx::query("UPDATE meta SET epoch = 9").execute(&mut raw(&folder).await).await.unwrap();
    let error = store.commit(vec![insert(1, "1")]).await.unwrap_err();
    assert!(matches!(error, StoreError::Superseded { own: Epoch(4), found: Epoch(9) }), "{error}");
    assert!(store.job(JobId(1)).await.unwrap().is_none());
}

#[tokio::test]
async fn a_newer_database_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).await.close().await.unwrap();
    let mut db = raw(&folder).await;
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (900, 'of the future', 1, x'00', 0)",
    )
    .execute(&mut db)
    .await
    .unwrap();
    db.close().await.unwrap();
    let before = std::fs::read(folder.path().join("kiln.db")).unwrap();
    let error = Store::open(folder.path(), Durability::Durable).await.unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 900, .. }), "{error}");
    assert!(std::fs::read(folder.path().join("kiln.db")).unwrap() == before);
}

#[tokio::test]
async fn closing_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    store.commit(vec![insert(1, "1")]).await.unwrap();
    store.close().await.unwrap();
    let error = store.commit(vec![insert(2, "1")]).await.unwrap_err();
    assert!(matches!(error, StoreError::Closed), "{error}");
    drop(store);
    let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(files.iter().all(|name| name == "kiln.db" || name == "kiln.lock"), "{files:?}");
    assert!(open(folder.path()).await.job(JobId(1)).await.unwrap().is_some());
}

#[tokio::test]
async fn what_is_no_database_is_told() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("kiln.db"), "not a database at all, but long enough").unwrap();
    Store::open(folder.path(), Durability::Durable).await.unwrap_err();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = Store::open(&file, Durability::Durable).await.unwrap_err();
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
}

#[tokio::test]
async fn an_aborted_commit_is_whole_or_has_no_effect() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    for job in (1..60_u64).step_by(2) {
        // Aborted a little later each time: before, in and after the transaction.
        let patience = async {
            for _ in 0..job {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            done = store.commit(vec![insert(job, "1"), event(Some(job), "a")]) => drop(done.unwrap()),
            () = patience => {}
        }
        store.commit(vec![insert(job + 1, "1"), event(Some(job + 1), "a")]).await.unwrap();
        let there = store.job(JobId(job)).await.unwrap();
        let events = store.events_after(EventNumber(0), 9, Some(JobId(job))).await.unwrap();
        assert_eq!(there.map_or(0, |job| job.steps.len()), events.len(), "job {job}");
        assert!(store.job(JobId(job + 1)).await.unwrap().is_some());
    }
}
