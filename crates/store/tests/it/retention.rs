//! What the records let go of, and what they hold on to.

use kiln_store::{Expired, Expiry, JobFilter, KeptRow, NewBundle, StoreError, Write};
use kiln_types::{BlobHash, BundleId, JobId, JobState, Owner, Project};

use crate::{STEP, committed, event, farm::upsert, fresh, insert, made, opened, task};

/// All that is as old as this, and nothing is promised.
fn until(ms: i64) -> Expiry {
    let at = Some(ms);
    Expiry { at_ms: 1_000_000, inputs_ms: at, outputs_ms: at, logs_ms: at, promised_ms: i64::MAX }
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

async fn kept(store: &kiln_store::Store, job: u64) -> KeptRow {
    store.job(JobId(job)).await.unwrap().unwrap().kept
}

#[tokio::test]
async fn files_go_with_the_last_job_that_shares_them() {
    let store = fresh().await;
    store.commit(vec![insert(1, "1"), insert(2, "1"), insert(3, "1"), ended(1, 2000)]).await.unwrap();
    assert_eq!(store.expire(&until(9000)).await.unwrap().inputs, []);
    store.commit(vec![ended(2, 3000), ended(3, 5000)]).await.unwrap();
    // The second one is due, the third is not: all can render again still.
    assert_eq!(store.expire(&until(4000)).await.unwrap().inputs, []);
    assert_eq!(store.needed_blobs().await.unwrap().len(), 2);
    let none = Expiry { inputs_ms: None, logs_ms: None, ..until(9000) };
    assert_eq!(store.expire(&none).await.unwrap(), Expired::default());

    let (would, needed) = store.would_expire(&until(5000)).await.unwrap();
    assert_eq!((&would.inputs, would.bundles, needed), (&jobs(&[1, 2, 3]), 1, vec![]));
    assert_eq!(store.needed_blobs().await.unwrap().len(), 2, "nothing has changed");
    let Expired { inputs, bundles, .. } = store.expire(&until(5000)).await.unwrap();
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
    assert_eq!(store.expire(&until(4999)).await.unwrap().bundles, 1);
    let never = Expiry { inputs_ms: None, ..until(9000) };
    assert_eq!(store.expire(&never).await.unwrap().bundles, 0);
    // Made again, it waits anew.
    store.commit(vec![made(b"waits", 8000)]).await.unwrap();
    assert_eq!(store.expire(&until(7999)).await.unwrap().bundles, 0);
    assert_eq!(store.expire(&Expiry { promised_ms: 7999, ..until(9000) }).await.unwrap().bundles, 0);
    assert_eq!(store.expire(&Expiry { promised_ms: 8000, ..until(8000) }).await.unwrap().bundles, 1);

    // What a deleted job leaves waits for nobody, but whoever was told of it may still come.
    store.commit(vec![made(b"bundle", 1000), insert(1, "1"), ended(1, 1500)]).await.unwrap();
    store.commit(vec![Write::DeleteJob { job: JobId(1) }]).await.unwrap();
    let promised = Expiry { promised_ms: 999, ..until(0) };
    assert_eq!(store.expire(&promised).await.unwrap().bundles, 0);
    assert_eq!(store.expire(&until(0)).await.unwrap().bundles, 1);
}

#[tokio::test]
async fn files_stay_while_one_of_two_owners_is_promised_them() {
    let store = fresh().await;
    let ana = NewBundle {
        id: bundle(),
        owner: Owner("ana".to_owned()),
        project: Project::default(),
        size: 77,
        blobs: vec![BlobHash::of(b"file of a bundle")],
    };
    let ana = Write::InsertBundle { bundle: ana, at_ms: 6000 };
    store.commit(vec![ana]).await.unwrap();
    assert_eq!(store.expire(&until(5000)).await.unwrap().bundles, 1);
    assert_eq!(store.needed_blobs().await.unwrap().len(), 2);
    assert_eq!(store.expire(&until(6000)).await.unwrap().bundles, 1);
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
    assert_eq!(store.expire(&until(900_000)).await.unwrap().outputs, []);
    // Half of it is not all of it. What is beyond the end is no more than the end.
    store.commit(vec![fetched(1, 2, 6000)]).await.unwrap();
    assert_eq!(store.expire(&until(900_000)).await.unwrap().outputs, []);
    store.commit(vec![fetched(1, u64::MAX, 7000), fetched(1, 3, 9000)]).await.unwrap();
    let now = kept(&store, 1).await;
    assert_eq!((now.last_seq, now.fetched_seq, now.fetched_ms), (4, 4, Some(7000)));
    assert_eq!(store.expire(&until(6999)).await.unwrap().outputs, []);
    assert!(store.is_needed(&hash).await.unwrap());
    assert_eq!(store.output_gone(&hash).await.unwrap(), None);
    assert_eq!(store.expire(&until(7000)).await.unwrap().outputs, jobs(&[1]));
    assert!(!store.is_needed(&hash).await.unwrap());
    assert_eq!(store.output_gone(&hash).await.unwrap(), Some((JobId(1), 1_000_000)));
    assert_eq!(store.outputs(JobId(1), 0, 10).await.unwrap().len(), 4, "what there was is told still");
    assert_eq!(store.expire(&until(900_000)).await.unwrap().outputs, []);

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
    assert_eq!(store.expire(&until(900_000)).await.unwrap().outputs, []);
    assert!(store.is_needed(&BlobHash::of(b"1.0.0 1")).await.unwrap());
    assert!(!store.is_needed(&hash).await.unwrap());
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
    let list = |archived| JobFilter { archived, ..JobFilter::default() };
    for (archived, want) in [(None, vec![2, 1]), (Some(false), vec![2]), (Some(true), vec![1])] {
        let rows = store.jobs(&list(archived), 10, None).await.unwrap();
        assert_eq!(rows.iter().map(|row| row.id.0).collect::<Vec<_>>(), want);
    }
    // The other job needs the files.
    let never = Expiry { inputs_ms: None, logs_ms: None, ..until(900_000) };
    let went = store.expire(&never).await.unwrap();
    assert_eq!((went.inputs, went.outputs, went.logs), (vec![], vec![], jobs(&[1])));
    store.commit(vec![ended(2, 5000), archived(2, 6000)]).await.unwrap();
    let went = store.expire(&never).await.unwrap();
    assert_eq!((went.inputs, went.outputs, went.logs), (jobs(&[1, 2]), vec![], jobs(&[2])));
    assert!(store.is_needed(&BlobHash::of(b"1.0.0 0")).await.unwrap());
    store.commit(vec![Write::SetJobArchived { job: JobId(1), at_ms: None }]).await.unwrap();
    assert_eq!(store.expire(&until(900_000)).await.unwrap().outputs, jobs(&[1]));
}

#[tokio::test]
async fn logs_go_after_each_end_anew() {
    let store = fresh().await;
    store.commit(vec![insert(1, "1"), ended(1, 5000)]).await.unwrap();
    let all = [JobId(1), JobId(7)];
    assert_eq!(store.with_logs(&all).await.unwrap(), jobs(&[1]));
    let first = Expiry { at_ms: 6000, ..until(5000) };
    assert_eq!(store.expire(&first).await.unwrap().logs, jobs(&[1]));
    assert_eq!(store.with_logs(&all).await.unwrap(), []);
    store.commit(vec![ended(1, 8000)]).await.unwrap();
    assert_eq!(store.with_logs(&all).await.unwrap(), jobs(&[1]));
    assert_eq!(store.expire(&until(7999)).await.unwrap().logs, []);
    assert_eq!(store.expire(&until(8000)).await.unwrap().logs, jobs(&[1]));
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
    assert_eq!(store.worker_names().await.unwrap()[&worker], "beta");
    store.commit(vec![upsert(2, "beta", 1), upsert(1, "gamma", 1)]).await.unwrap();
    assert_eq!(store.worker_names().await.unwrap()[&worker], "gamma");
}
