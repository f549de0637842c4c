//! Workers, bundles, events, and large batches.

use std::time::Instant;

use kiln_store::{ShareRow, StoreError, Write};
use kiln_types::{AccountKind, DesiredState, EventNumber, JobId, JobState, Priority};
use serde_json::json;

use crate::{committed, event, fresh, insert, open, opened, spec, started, task, worker};

pub fn upsert(number: u64, name: &str, at_ms: i64) -> Write {
    Write::UpsertWorker { worker: worker(number), name: name.into(), info: json!({ "cores": at_ms }), at_ms }
}

#[tokio::test]
async fn workers_are_remembered() {
    let store = fresh().await;
    let batch = vec![
        upsert(1, "oak", 10),
        upsert(2, "ash", 11),
        Write::SetDesiredState { worker: worker(1), desired: DesiredState::Paused },
        upsert(1, "elm", 20),
        Write::TouchWorker { worker: worker(1), at_ms: 30 },
        Write::TouchWorker { worker: worker(1), at_ms: 25 },
    ];
    store.commit(batch).await.unwrap();
    let all = store.workers().await.unwrap();
    assert_eq!(all.iter().map(|w| w.name.as_str()).collect::<Vec<_>>(), ["ash", "elm"]);
    assert_eq!((all[1].id, all[1].desired), (worker(1), DesiredState::Paused));
    assert_eq!((all[1].first_seen_ms, all[1].last_seen_ms), (10, 30));
    assert_eq!(all[1].info, json!({ "cores": 20 }));

    let error = store.commit(vec![upsert(3, "ash", 1)]).await.unwrap_err();
    assert!(matches!(&error, StoreError::WorkerNameTaken(name) if name == "ash"), "{error}");
    assert_eq!(store.worker(worker(2)).await.unwrap().unwrap().name, "ash");
    assert!(store.worker(worker(3)).await.unwrap().is_none());
    store.commit(vec![Write::DeleteWorker { worker: worker(2) }, upsert(3, "ash", 1)]).await.unwrap();
    assert!(store.worker(worker(2)).await.unwrap().is_none());
}

#[tokio::test]
async fn shares_limits_and_pools_outlive_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let share = |kind, name: &str, weight, max_slots| ShareRow { kind, name: name.into(), weight, max_slots };
    let limit = |name: &str, total| Write::SetLimit { name: name.into(), total };
    let batch = vec![
        Write::SetShare(share(AccountKind::User, "ada", 100, Some(0))),
        Write::SetShare(share(AccountKind::User, "ada", 300, None)),
        Write::SetShare(share(AccountKind::Project, "ada", 1, Some(7))),
        limit("houdini", Some(3)),
        limit("nuke", Some(u32::MAX)),
        limit("houdini", None),
        upsert(1, "oak", 10),
        Write::SetWorkerPools {
            worker: worker(1),
            pools: ["night".parse().unwrap(), "big".parse().unwrap()].into(),
        },
        upsert(1, "elm", 20),
        upsert(2, "ash", 20),
    ];
    store.commit(batch).await.unwrap();
    drop(store);
    let store = open(folder.path()).await;
    let shares = [share(AccountKind::Project, "ada", 1, Some(7)), share(AccountKind::User, "ada", 300, None)];
    assert_eq!(store.shares().await.unwrap(), shares);
    assert_eq!(store.limits().await.unwrap(), [("nuke".to_owned(), u32::MAX)].into());
    let workers = store.workers().await.unwrap();
    let pools: Vec<_> = workers.iter().map(|worker| (worker.name.as_str(), &worker.pools)).collect();
    assert_eq!(
        pools,
        [("ash", &[].into()), ("elm", &["big".parse().unwrap(), "night".parse().unwrap()].into())]
    );
}

#[tokio::test]
async fn changed_scheduling_options_are_read_back() {
    let store = fresh().await;
    let mut new = spec("shot", "1-3");
    new.scheduling.priority = Priority::MAX;
    new.scheduling.after = [JobId(1)].into();
    let change = Write::SetJobSpec { job: JobId(2), spec: Box::new(new.clone()) };
    let cancelled = Write::SetJobState { job: JobId(1), state: JobState::Cancelled, at_ms: 9, reason: None };
    store.commit(vec![insert(1, "1"), insert(2, "1-3"), change, cancelled]).await.unwrap();
    assert_eq!(store.job(JobId(2)).await.unwrap().unwrap().spec, new);
    let states = store.job_states(&[JobId(1), JobId(2), JobId(3)]).await.unwrap();
    assert_eq!(states, [(JobId(1), JobState::Cancelled), (JobId(2), JobState::Queued)].into());
}

#[tokio::test]
async fn events_are_numbered_without_a_gap() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    assert_eq!(store.last_event().await.unwrap(), EventNumber(0));
    let events =
        store.commit(vec![event(Some(1), "a"), event(Some(2), "b"), event(None, "c")]).await.unwrap();
    assert_eq!(events.iter().map(|e| e.number.0).collect::<Vec<_>>(), [1, 2, 3]);
    // As written, so read.
    assert_eq!(store.events_after(EventNumber(0), 10, None).await.unwrap(), events);
    assert_eq!(store.events_after(EventNumber(1), 1, None).await.unwrap(), events[1..2]);
    assert_eq!(store.events_after(EventNumber(0), 10, Some(JobId(2))).await.unwrap(), events[1..2]);

    // Forgotten numbers are never used again, not even after a restart.
    store.commit(vec![Write::TrimEvents { up_to: EventNumber(3) }]).await.unwrap();
    drop(store);
    let store = open(folder.path()).await;
    assert_eq!(store.last_event().await.unwrap(), EventNumber(3));
    assert_eq!(store.commit(vec![event(None, "d")]).await.unwrap()[0].number, EventNumber(4));
    assert_eq!(store.events_after(EventNumber(0), 10, None).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_batch_of_tens_of_thousands_and_how_fast_batches_go() {
    let store = fresh().await;
    store.commit(vec![insert(1, "1-20000")]).await.unwrap();
    let frame = |index: u32| {
        let at = task(1, index);
        let counter = u64::from(index);
        let told = event(Some(1), "task-done");
        [opened(counter, at, 0, 1), started(counter), committed(counter, at, 0, index as i32 + 1), told]
    };
    let begun = Instant::now();
    let events = store.commit((0..10_000).flat_map(frame).collect()).await.unwrap();
    println!("one batch of 10,000 frames: {:.0} frames/s", 10_000.0 / begun.elapsed().as_secs_f64());
    assert_eq!(events.len(), 10_000);
    let begun = Instant::now();
    for batch in 0..100 {
        store.commit((0..10).flat_map(|n| frame(10_000 + batch * 10 + n)).collect()).await.unwrap();
    }
    println!("batches of 10 frames: {:.0} frames/s", 1000.0 / begun.elapsed().as_secs_f64());
    let begun = Instant::now();
    for index in 11_000..11_100 {
        store.commit(frame(index).into()).await.unwrap();
    }
    println!("batches of 1 frame: {:.0} frames/s", 100.0 / begun.elapsed().as_secs_f64());
    let job = store.stored_job(JobId(1)).await.unwrap().unwrap();
    assert_eq!((job.row.steps[0].done, job.steps[0].runs.len()), (11_100, 1));
}
