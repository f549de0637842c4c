//! Tasks, attempts and outputs.

use kiln_store::{AttemptSelection, TaskFilter, Write};
use kiln_types::{
    AttemptState, BlobHash, Generation, JobId, OutputRole, RelPath, SlotIndex, TaskIndex, TaskState,
};

use crate::{Fresh, STEP, attempt, committed, failure, fresh, insert, opened, output, started, task, worker};

/// Ten tasks: 0 done, 1 failed, 2 running, 3 assigned, 4 failed once, 8 and 9 cancelled.
async fn ten() -> Fresh {
    let store = fresh().await;
    let failed = |counter| Write::CloseAttempt {
        attempt: attempt(counter),
        state: AttemptState::Failed,
        at_ms: 9000,
        failure: Some(failure("Blender crashed")),
        seconds: None,
    };
    let batch = vec![
        insert(1, "1-10"),
        opened(1, task(1, 0), 0, 1),
        started(1),
        committed(1, task(1, 0), 0, 1),
        opened(2, task(1, 1), 0, 1),
        failed(2),
        Write::FailTask { task: task(1, 1), generation: Generation(0), reason: failure("used up") },
        opened(3, task(1, 2), 0, 1),
        started(3),
        opened(4, task(1, 3), 0, 2),
        opened(5, task(1, 4), 0, 2),
        failed(5),
        Write::SetCancelledTasks { job: JobId(1), step: STEP, spans: vec![(TaskIndex(8), TaskIndex(9))] },
    ];
    store.commit(batch).await.unwrap();
    store
}

async fn listed(store: &Fresh, state: Option<TaskState>, from: u32, limit: u32) -> Vec<u32> {
    let filter = TaskFilter { step: STEP, state, from: TaskIndex(from) };
    let page = store.tasks(JobId(1), &filter, limit).await.unwrap();
    page.iter().map(|task| task.index.0).collect()
}

#[tokio::test]
async fn tasks_are_listed_also_those_that_never_ran() {
    let store = ten().await;
    use TaskState::{Assigned, Cancelled, Done, Failed, Running, Waiting};
    let all = store.tasks(JobId(1), &TaskFilter::default(), 100).await.unwrap();
    let states: Vec<_> = all.iter().map(|task| task.state).collect();
    let expected =
        [Done, Failed, Running, Assigned, Waiting, Waiting, Waiting, Waiting, Cancelled, Cancelled];
    assert_eq!(states, expected);
    assert_eq!((all[1].failures, all[1].reason.clone()), (1, Some(failure("used up"))));
    assert_eq!((all[4].failures, all[4].expired), (1, 0));
    let of = |index: usize| all[index].attempt.as_ref().map(|a| (a.id.counter, a.worker, a.state));
    assert_eq!(of(0), Some((1, worker(1), AttemptState::Committed)));
    assert_eq!(of(4), Some((5, worker(2), AttemptState::Failed)));
    assert_eq!(of(5), None);
    let peak = all[0].attempt.as_ref().unwrap();
    assert_eq!((peak.seconds, peak.peak_memory, peak.slot), (Some(1.5), Some(1 << 40), Some(SlotIndex(2))));

    assert_eq!(listed(&store, None, 3, 4).await, [3, 4, 5, 6]);
    assert_eq!(listed(&store, Some(Waiting), 5, 2).await, [5, 6]);
    assert_eq!(listed(&store, Some(Cancelled), 0, 9).await, [8, 9]);
    for (state, index) in [(Done, 0), (Failed, 1), (Running, 2), (Assigned, 3)] {
        assert_eq!(listed(&store, Some(state), 0, 9).await, [index]);
        assert_eq!(listed(&store, Some(state), index + 1, 9).await, [0; 0]);
    }
    assert!(store.tasks(JobId(7), &TaskFilter::default(), 9).await.unwrap().is_empty());
}

#[tokio::test]
async fn attempts_are_filtered_and_paged() {
    let store = ten().await;
    let ids = async |filter: AttemptSelection, limit| {
        let page = store.attempts(JobId(1), &filter, limit).await.unwrap();
        page.iter().map(|a| a.id.counter).collect::<Vec<_>>()
    };
    assert_eq!(ids(AttemptSelection::default(), 2).await, [5, 4]);
    let older = AttemptSelection { before: Some(attempt(4)), ..AttemptSelection::default() };
    assert_eq!(ids(older, 9).await, [3, 2, 1]);
    let of_task = AttemptSelection { task: Some((STEP, TaskIndex(1))), ..AttemptSelection::default() };
    assert_eq!(ids(of_task, 9).await, [2]);
    let failed = AttemptSelection {
        states: vec![AttemptState::Failed],
        worker: Some(worker(2)),
        ..AttemptSelection::default()
    };
    assert_eq!(ids(failed, 9).await, [5]);
    let one = store.attempt(attempt(2)).await.unwrap().unwrap();
    assert_eq!(one.failure, Some(failure("Blender crashed")));
    assert_eq!((one.opened_ms, one.started_ms, one.ended_ms), (2002, None, Some(9000)));
}

#[tokio::test]
async fn outputs_are_read_on_from_where_one_stood() {
    let store = ten().await;
    let first = store.outputs(JobId(1), 0, 1).await.unwrap();
    let rest = store.outputs(JobId(1), first[0].seq, 10).await.unwrap();
    assert_eq!((first.len(), rest.len()), (1, 1));
    assert_eq!(first[0].file, output("0001.exr", b"1.0.0 0"));
    assert!(matches!(&first[0].file.role, OutputRole::FileOutput { slot, .. } if slot == "depth"));
    assert_eq!((first[0].frame, first[0].attempt, first[0].current), (1, attempt(1), true));

    // Rendered again: the earlier generation stays, the newer one is what is asked for by name.
    let batch = vec![
        Write::ReopenTasks {
            job: JobId(1),
            step: STEP,
            first: TaskIndex(0),
            last: TaskIndex(0),
            generation: Generation(1),
        },
        opened(9, task(1, 0), 1, 1),
        committed(9, task(1, 0), 1, 1),
    ];
    store.commit(batch).await.unwrap();
    let all = store.outputs(JobId(1), 0, 10).await.unwrap();
    let seen: Vec<_> = all.iter().map(|o| (o.frame, o.generation.0, o.current)).collect();
    assert_eq!(seen, [(1, 0, false), (1, 0, false), (1, 1, true), (1, 1, true)]);
    let path = RelPath::new("0001.exr").unwrap();
    let newest = store.output_by_path(JobId(1), &path).await.unwrap().unwrap();
    assert_eq!(newest.file.hash, BlobHash::of(b"1.0.0 1"));
    assert!(store.output_by_path(JobId(2), &path).await.unwrap().is_none());
}

#[tokio::test]
async fn a_generation_is_committed_once() {
    let store = ten().await;
    let before = store.outputs(JobId(1), 0, 10).await.unwrap();
    let again = vec![opened(9, task(1, 0), 0, 2), committed(9, task(1, 0), 0, 1)];
    store.commit(again).await.unwrap_err();
    assert_eq!(store.outputs(JobId(1), 0, 10).await.unwrap(), before);
    assert!(store.attempt(attempt(9)).await.unwrap().is_none(), "nothing of the batch is there");
    store.commit(vec![opened(10, task(1, 5), 0, 2)]).await.unwrap();
}
