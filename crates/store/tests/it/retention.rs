//! The records that expire, and those that stay.

use std::time::Duration;

use futures_util::FutureExt;
use kiln_store::{
    Expired, Expiry, JobSelection, NewBundle, NewEvent, RetentionRow, Store, StoreError, Write,
};
use kiln_types::{BlobHash, BundleId, EventNumber, JobId, JobState, Owner, Project};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use crate::{STEP, attempt, committed, event, farm::upsert, fresh, insert, made, open, opened, task};

/// All that is as old as this, and nothing is promised.
pub fn until(ms: i64) -> Expiry {
    let at = Some(ms);
    Expiry {
        at_ms: 1_000_000,
        inputs_ms: at,
        outputs_ms: at,
        logs_ms: at,
        spent_ms: at,
        unused_ms: at,
        promised_ms: i64::MAX,
    }
}

fn ended(job: u64, at_ms: i64) -> Write {
    Write::SetJobState { job: JobId(job), state: JobState::Completed, at_ms, reason: None }
}

fn fetched(job: u64, sequence: u64, at_ms: i64) -> Write {
    Write::MarkFetched { job: JobId(job), sequence, at_ms }
}

fn archived(job: u64, at_ms: i64) -> Write {
    Write::SetJobArchived { job: JobId(job), at_ms: Some(at_ms) }
}

fn jobs(ids: &[u64]) -> Vec<JobId> {
    ids.iter().copied().map(JobId).collect()
}

fn bundle() -> BundleId {
    BundleId(BlobHash::of(b"bundle"))
}

/// Expires all that is due, in parts.
pub async fn expire(store: &Store, expiry: &Expiry) -> Expired {
    let mut all = Expired::default();
    for part in store.find_due(expiry).await.unwrap().split(2) {
        all.add(store.expire(expiry, &part, |_| Vec::new()).await.unwrap().0);
    }
    all
}

async fn is_needed(store: &Store, hash: &BlobHash) -> bool {
    store.needed_blobs().await.unwrap().contains(hash)
}

async fn kept(store: &Store, job: u64) -> RetentionRow {
    store.job(JobId(job)).await.unwrap().unwrap().kept
}

#[tokio::test]
async fn files_go_with_the_last_job_that_shares_them() {
    let store = fresh().await;
    store.commit(vec![insert(1, "1"), insert(2, "1"), insert(3, "1"), ended(1, 2000)]).await.unwrap();
    assert_eq!(expire(&store, &until(9000)).await.inputs, []);
    store.commit(vec![ended(2, 3000), ended(3, 5000)]).await.unwrap();
    // The second one is due, the third is not: all can render again still.
    assert_eq!(expire(&store, &until(4000)).await.inputs, []);
    assert_eq!(store.needed_blobs().await.unwrap().len(), 2);
    let none = Expiry { inputs_ms: None, logs_ms: None, ..until(9000) };
    assert_eq!(expire(&store, &none).await, Expired::default());

    let (would, needed) = store.would_expire(&until(5000)).await.unwrap();
    assert_eq!((&would.inputs, would.bundles, needed), (&jobs(&[1, 2, 3]), 1, vec![]));
    assert_eq!(store.needed_blobs().await.unwrap().len(), 2, "nothing has changed");
    let Expired { inputs, bundles, .. } = expire(&store, &until(5000)).await;
    assert_eq!((inputs, bundles), (jobs(&[1, 2, 3]), 1));
    assert_eq!(kept(&store, 2).await.inputs_gone_ms, Some(1_000_000));
    assert_eq!(store.bundle(bundle()).await.unwrap(), None);
    assert!(store.needed_blobs().await.unwrap().is_empty());

    // A job that comes too late is no job, and the batch leaves nothing behind.
    let late = store.commit(vec![event(None, "early"), insert(4, "1")]).await.unwrap_err();
    assert!(matches!(late, StoreError::NoBundle(id) if id == bundle()), "{late}");
    assert_eq!(store.job(JobId(4)).await.unwrap(), None);
    assert_eq!((store.last_job().await.unwrap(), store.last_event().await.unwrap().0), (JobId(3), 0));
    store.commit(vec![made(b"bundle", 7000), insert(4, "1")]).await.unwrap();
    // The earlier ones do not come back to life with it.
    assert_eq!(kept(&store, 2).await.inputs_gone_ms, Some(1_000_000));
}

#[tokio::test]
async fn a_bundle_waits_for_its_job_and_is_promised_for_a_while() {
    let store = fresh().await;
    store.commit(vec![made(b"waits", 5000)]).await.unwrap();
    // The one of 1000 goes, the one of 5000 waits.
    assert_eq!(expire(&store, &until(4999)).await.bundles, 1);
    let never = Expiry { inputs_ms: None, ..until(9000) };
    assert_eq!(expire(&store, &never).await.bundles, 0);
    // Made again, it waits from then on.
    store.commit(vec![made(b"waits", 8000)]).await.unwrap();
    assert_eq!(expire(&store, &until(7999)).await.bundles, 0);
    assert_eq!(expire(&store, &Expiry { promised_ms: 7999, ..until(9000) }).await.bundles, 0);
    assert_eq!(expire(&store, &Expiry { promised_ms: 8000, ..until(8000) }).await.bundles, 1);

    // The bundle of a deleted job does not wait for another job, but is promised to a client.
    store.commit(vec![made(b"bundle", 1000), insert(1, "1"), ended(1, 1500)]).await.unwrap();
    store.commit(vec![Write::DeleteJob { job: JobId(1) }]).await.unwrap();
    let promised = Expiry { promised_ms: 999, ..until(0) };
    assert_eq!(expire(&store, &promised).await.bundles, 0);
    assert_eq!(expire(&store, &until(0)).await.bundles, 1);
}

#[tokio::test]
async fn files_stay_while_one_of_two_owners_is_promised_them() {
    let store = fresh().await;
    let ana = NewBundle {
        id: bundle(),
        owner: "ana".parse().unwrap(),
        project: Project::default(),
        size: 77,
        blobs: vec![BlobHash::of(b"file of a bundle")],
    };
    let ana = Write::InsertBundle { bundle: ana, at_ms: 6000 };
    store.commit(vec![ana]).await.unwrap();
    assert_eq!(expire(&store, &until(5000)).await.bundles, 1);
    assert_eq!(store.needed_blobs().await.unwrap().len(), 2);
    assert_eq!(expire(&store, &until(6000)).await.bundles, 1);
    assert!(store.needed_blobs().await.unwrap().is_empty());
}

#[tokio::test]
async fn outputs_stay_until_they_are_fetched_and_a_while_longer() {
    let store = fresh().await;
    let done = |number, index, generation| {
        [opened(number, task(1, index), generation, 1), committed(number, task(1, index), generation, 1)]
    };
    let mut batch = vec![insert(1, "1-3")];
    batch.extend(done(1, 0, 0));
    batch.extend(done(2, 1, 0));
    batch.push(ended(1, 5000));
    store.commit(batch).await.unwrap();
    let hash = BlobHash::of(b"1.0.0 0");
    assert_eq!(expire(&store, &until(900_000)).await.outputs, []);
    // Half of it is not all of it. What is beyond the end is no more than the end.
    store.commit(vec![fetched(1, 2, 6000)]).await.unwrap();
    assert_eq!(expire(&store, &until(900_000)).await.outputs, []);
    store.commit(vec![fetched(1, u64::MAX, 7000), fetched(1, 3, 9000)]).await.unwrap();
    let now = kept(&store, 1).await;
    assert_eq!((now.last_seq, now.fetched_seq, now.fetched_ms), (4, 4, Some(7000)));
    assert_eq!(expire(&store, &until(6999)).await.outputs, []);
    assert!(is_needed(&store, &hash).await);
    assert_eq!(store.output_gone(&hash).await.unwrap(), None);
    assert_eq!(expire(&store, &until(7000)).await.outputs, jobs(&[1]));
    assert!(!is_needed(&store, &hash).await);
    assert_eq!(store.output_gone(&hash).await.unwrap(), Some((JobId(1), 1_000_000)));
    assert_eq!(store.outputs(JobId(1), 0, 10).await.unwrap().len(), 4, "what there was is told still");
    assert_eq!(expire(&store, &until(900_000)).await.outputs, []);

    // Rendered again: the new one is as if nothing had been.
    let reopen = Write::ReopenTasks {
        job: JobId(1),
        step: STEP,
        first: task(1, 0).index,
        last: task(1, 0).index,
        generation: kiln_types::Generation(1),
    };
    let mut batch = vec![reopen];
    batch.extend(done(3, 0, 1));
    batch.push(ended(1, 8000));
    store.commit(batch).await.unwrap();
    assert_eq!(expire(&store, &until(900_000)).await.outputs, []);
    assert!(is_needed(&store, &BlobHash::of(b"1.0.0 1")).await);
    assert!(!is_needed(&store, &hash).await);
}

#[tokio::test]
async fn an_archived_job_keeps_its_outputs_and_nothing_else() {
    let store = fresh().await;
    let batch = vec![
        insert(1, "1"),
        opened(1, task(1, 0), 0, 1),
        committed(1, task(1, 0), 0, 1),
        ended(1, 5000),
        fetched(1, 9, 5000),
        archived(1, 6000),
        insert(2, "1"),
    ];
    store.commit(batch).await.unwrap();
    let list = |archived| JobSelection { archived, ..JobSelection::default() };
    for (archived, want) in [(None, vec![2, 1]), (Some(false), vec![2]), (Some(true), vec![1])] {
        let rows = store.jobs(&list(archived), 10, None).await.unwrap();
        assert_eq!(rows.iter().map(|row| row.id.0).collect::<Vec<_>>(), want);
    }
    // The other job needs the files.
    let never = Expiry { inputs_ms: None, logs_ms: None, ..until(900_000) };
    let went = expire(&store, &never).await;
    assert_eq!((went.inputs, went.outputs, went.logs), (vec![], vec![], jobs(&[1])));
    store.commit(vec![ended(2, 5000), archived(2, 6000)]).await.unwrap();
    let went = expire(&store, &never).await;
    assert_eq!((went.inputs, went.outputs, went.logs), (jobs(&[1, 2]), vec![], jobs(&[2])));
    assert!(is_needed(&store, &BlobHash::of(b"1.0.0 0")).await);
    store.commit(vec![Write::SetJobArchived { job: JobId(1), at_ms: None }]).await.unwrap();
    assert_eq!(expire(&store, &until(900_000)).await.outputs, jobs(&[1]));
}

#[tokio::test]
async fn logs_expire_after_each_end() {
    let store = fresh().await;
    store.commit(vec![insert(1, "1"), ended(1, 5000)]).await.unwrap();
    let all = [JobId(1), JobId(7)];
    assert_eq!(store.with_logs(&all).await.unwrap(), jobs(&[1]));
    let first = Expiry { at_ms: 6000, ..until(5000) };
    assert_eq!(expire(&store, &first).await.logs, jobs(&[1]));
    assert_eq!(store.with_logs(&all).await.unwrap(), []);
    store.commit(vec![ended(1, 8000)]).await.unwrap();
    assert_eq!(store.with_logs(&all).await.unwrap(), jobs(&[1]));
    assert_eq!(expire(&store, &until(7999)).await.logs, []);
    assert_eq!(expire(&store, &until(8000)).await.logs, jobs(&[1]));
}

#[tokio::test]
async fn old_events_are_counted_without_looking_at_young_ones() {
    let store = fresh().await;
    assert_eq!(store.events_until(9000).await.unwrap(), None);
    let told = |at_ms| {
        let Write::Event(mut new) = event(None, "x") else { unreachable!() };
        new.at_ms = at_ms;
        Write::Event(new)
    };
    store.commit([1000, 2000, 2000, 3000].map(told).into()).await.unwrap();
    for (at_ms, want) in [(999, None), (1000, Some((1, 1))), (2500, Some((3, 3))), (3000, Some((4, 4)))] {
        let found = store.events_until(at_ms).await.unwrap();
        assert_eq!(found.map(|(last, count)| (last.0, count)), want, "{at_ms}");
    }
}

#[tokio::test]
async fn the_name_of_a_removed_worker_is_remembered() {
    let store = fresh().await;
    let worker = crate::worker(1);
    let batch = vec![upsert(1, "beta", 1), insert(1, "1"), opened(1, task(1, 0), 0, 1)];
    store.commit(batch).await.unwrap();
    store.commit(vec![Write::DeleteWorker { worker }]).await.unwrap();
    assert_eq!(store.job_report(JobId(1), STEP).await.unwrap()[0].name.as_deref(), Some("beta"));
    assert_eq!(store.worker_names([worker]).await.unwrap()[&worker], "beta");
    store.commit(vec![upsert(2, "beta", 1), upsert(1, "gamma", 1)]).await.unwrap();
    assert_eq!(store.worker_names([worker]).await.unwrap()[&worker], "gamma");
}

fn told(expired: &Expired) -> Vec<NewEvent> {
    let event = |job: &JobId| NewEvent {
        at_ms: 7,
        job: Some(*job),
        worker: None,
        kind: "job-expired".to_owned(),
        data: serde_json::json!({}),
    };
    expired.inputs.iter().map(event).collect()
}

#[tokio::test]
async fn what_went_and_that_it_went_are_one_transaction() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    store.commit(vec![insert(1, "1"), ended(1, 2000), event(Some(1), "ended")]).await.unwrap();
    let due = store.find_due(&until(9000)).await.unwrap();
    // Another server has taken over in the meantime: neither happens.
    let options = SqliteConnectOptions::new().filename(folder.path().join("kiln.db"));
    let set_epoch = async |sql: &'static str| {
        let mut db = options.connect().await.unwrap();
        sqlx::query(sql).execute(&mut db).await.unwrap();
        db.close().await.unwrap();
    };
    set_epoch("UPDATE meta SET epoch = epoch + 1").await;
    let error = store.expire(&until(9000), &due, told).await.unwrap_err();
    assert!(matches!(error, StoreError::Superseded { .. }), "{error}");
    assert_eq!(store.last_event().await.unwrap(), EventNumber(1));
    assert_eq!(kept(&store, 1).await.inputs_gone_ms, None);
    set_epoch("UPDATE meta SET epoch = epoch - 1").await;

    let (went, events) = store.expire(&until(9000), &due, told).await.unwrap();
    assert_eq!(went.inputs, jobs(&[1]));
    // Nothing else was written since.
    assert_eq!(store.events_after(EventNumber(1), 9, Some(JobId(1))).await.unwrap(), events);
    assert_eq!((events.len(), events[0].number), (1, EventNumber(2)));
}

#[tokio::test]
async fn records_that_are_not_due_any_longer_when_they_are_written_stay() {
    let store = fresh().await;
    let queued =
        |job| Write::SetJobState { job: JobId(job), state: JobState::Queued, at_ms: 1, reason: None };
    let batch = vec![
        insert(1, "1"),
        insert(2, "1"),
        opened(1, task(1, 0), 0, 1),
        committed(1, task(1, 0), 0, 1),
        ended(1, 2000),
        ended(2, 2000),
        fetched(1, 9, 2000),
        made(b"other", 1000),
    ];
    store.commit(batch).await.unwrap();
    let due = store.find_due(&until(9000)).await.unwrap();
    let would = Expired {
        inputs: jobs(&[1, 2]),
        outputs: jobs(&[1]),
        logs: jobs(&[1, 2]),
        bundles: 2,
        ..Expired::default()
    };
    assert_eq!(Expired::from(&due), would);
    // One is retried, somebody brings the other bundle again, and a frame comes: none of it goes, nor does what the two
    // jobs share.
    let again = vec![
        queued(1),
        Write::InsertBundle {
            bundle: NewBundle {
                id: BundleId(BlobHash::of(b"other")),
                owner: Owner::default(),
                project: Project::default(),
                size: 1,
                blobs: Vec::new(),
            },
            at_ms: 9500,
        },
        opened(2, task(1, 0), 1, 1),
        committed(2, task(1, 0), 1, 1),
    ];
    store.commit(again).await.unwrap();
    let mut went = Expired::default();
    for part in due.split(1) {
        went.add(store.expire(&until(9000), &part, told).await.unwrap().0);
    }
    assert_eq!(went, Expired { logs: jobs(&[2]), ..Expired::default() });
    assert_eq!(store.needed_blobs().await.unwrap().len(), 7, "two bundles, a file, two frames of two files");
}

/// Files of a bundle: more than are written or removed at once.
const FILES: usize = 12_000;

fn many_files() -> NewBundle {
    let blobs = (0..FILES).map(|number| BlobHash::of(&number.to_le_bytes())).collect();
    let id = BundleId(BlobHash::of(b"many files"));
    NewBundle { id, owner: Owner::default(), project: Project::default(), size: 1, blobs }
}

#[tokio::test]
async fn a_bundle_of_many_files_comes_bit_by_bit_and_is_none_until_it_is_whole() {
    let store = fresh().await;
    let (many, needed) = (many_files(), async || store.needed_blobs().await.unwrap().len());
    let mut coming = Box::pin(store.insert_bundle(&many, 2000));
    // A part of it is written, then the request goes away.
    while needed().await < 3000 {
        assert!(coming.as_mut().now_or_never().is_none(), "it is written in one go");
        tokio::task::yield_now().await;
    }
    drop(coming);
    assert!(needed().await < FILES, "what there is of it is needed already");
    store.commit(vec![event(None, "in between")]).await.unwrap();
    assert_eq!(store.bundle(many.id).await.unwrap(), None);
    let job = |job| {
        let Write::InsertJob { spec, steps, at_ms, .. } = insert(job, "1") else { unreachable!() };
        let mut spec = spec;
        spec.session.bundle = many.id;
        Write::InsertJob { job: JobId(job), spec, steps, at_ms }
    };
    let early = store.commit(vec![job(1)]).await.unwrap_err();
    assert!(matches!(early, StoreError::NoBundle(id) if id == many.id), "{early}");
    // Brought again, also by somebody else at the same time, it is whole.
    let theirs = NewBundle { owner: "ana".parse().unwrap(), ..many.clone() };
    let (one, other) = tokio::join!(store.insert_bundle(&many, 3000), store.insert_bundle(&theirs, 3000));
    one.unwrap();
    other.unwrap();
    assert_eq!(needed().await, FILES + 3);
    store.commit(vec![job(1)]).await.unwrap();
    store.insert_bundle(&many, 4000).await.unwrap();
    assert_eq!(needed().await, FILES + 3);
    assert_eq!(store.bundle(many.id).await.unwrap().unwrap().size, 1);
}

#[tokio::test]
async fn a_list_of_files_goes_bit_by_bit_and_is_whole_where_the_bundle_comes_again() {
    let store = fresh().await;
    store.insert_bundle(&many_files(), 1000).await.unwrap();
    let needed = async || store.needed_blobs().await.unwrap().len();
    assert_eq!(needed().await, FILES + 3);
    assert_eq!(expire(&store, &until(9000)).await.bundles, 2);
    // Not needed from this moment on, even if rows are still to be removed.
    assert_eq!(needed().await, 0);
    let again = many_files();
    let (swept, brought) = tokio::join!(store.sweep(), store.insert_bundle(&again, 2000));
    swept.unwrap();
    brought.unwrap();
    assert_eq!(needed().await, FILES + 1);
    assert_eq!(expire(&store, &until(9000)).await.bundles, 1);
    store.sweep().await.unwrap();
    // Without its list, a bundle of that name needs only itself.
    let empty = NewBundle {
        id: BundleId(BlobHash::of(b"many files")),
        owner: Owner::default(),
        project: Project::default(),
        size: 1,
        blobs: Vec::new(),
    };
    store.commit(vec![Write::InsertBundle { bundle: empty, at_ms: 3000 }]).await.unwrap();
    assert_eq!(needed().await, 1);
}

#[tokio::test]
async fn a_large_job_that_is_deleted_is_gone_at_once_and_its_rows_hold_up_nobody() {
    const FRAMES: u64 = 5000;
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let mut batch = vec![insert(1, &format!("1-{FRAMES}")), insert(2, "1")];
    for frame in 0..FRAMES {
        let at = task(1, frame as u32);
        batch.extend([opened(frame + 1, at, 0, 1), committed(frame + 1, at, 0, frame as i32 + 1)]);
    }
    batch.extend([ended(1, 2000), fetched(1, u64::MAX, 2000)]);
    store.commit(batch).await.unwrap();
    let before = store.needed_blobs().await.unwrap().len();
    let hash = BlobHash::of(b"1.0.0 0");
    let hears = store.wait_for_deleted_job();
    store.commit(vec![Write::DeleteJob { job: JobId(1) }]).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), hears).await.expect("who sweeps is told");
    assert_eq!(store.job(JobId(1)).await.unwrap(), None);
    assert_eq!(store.job_states(&[JobId(1)]).await.unwrap().len(), 0);
    assert_eq!(store.with_logs(&[JobId(1), JobId(2)]).await.unwrap(), jobs(&[2]));
    let all = store.jobs(&JobSelection::default(), 9, None).await.unwrap();
    assert_eq!(all.iter().map(|row| row.id).collect::<Vec<_>>(), jobs(&[2]));
    assert_eq!(store.needed_blobs().await.unwrap().len(), before - 2 * FRAMES as usize);
    assert_eq!(store.output_gone(&hash).await.unwrap(), None);
    assert_eq!(expire(&store, &until(9000)).await, Expired::default());

    // Others write in the midst of it. Then the process ends, and the next one goes on.
    let sweeping = store.clone();
    let sweeping = tokio::spawn(async move { sweeping.sweep().await });
    let left = async |store: &Store| store.attempt(attempt(FRAMES)).await.unwrap().is_some();
    let first = async || store.outputs(JobId(1), 0, 1).await.unwrap().first().map(|output| output.seq);
    while first().await == Some(1) {
        tokio::task::yield_now().await;
    }
    store.commit(vec![event(Some(2), "in between")]).await.unwrap();
    assert!(left(&store).await, "a batch does not wait until all rows are gone");
    sweeping.abort();
    let _ = sweeping.await;
    drop(store);
    let store = open(folder.path()).await;
    assert_eq!(store.job(JobId(1)).await.unwrap(), None);
    store.sweep().await.unwrap();
    assert!(!left(&store).await);
    assert!(store.outputs(JobId(1), 0, 1).await.unwrap().is_empty());
    assert_eq!(store.last_job().await.unwrap(), JobId(2));
}
