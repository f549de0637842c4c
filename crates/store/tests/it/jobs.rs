//! Jobs, and all that the scheduler needs to go on with them.

use kiln_store::{JobSelection, StoredStep, TaskFaults, TaskRun, Write};
use kiln_types::{AttemptState, Generation, JobId, JobState, Project, TaskIndex, TaskState};

use crate::{
    STEP, attempt, closed_as, committed, failure, fresh, insert, open, opened, spec, started, task, worker,
};

fn state(job: u64, state: JobState, at_ms: i64) -> Write {
    Write::SetJobState { job: JobId(job), state, at_ms, reason: None }
}

#[tokio::test]
async fn a_job_goes_its_way() {
    let store = fresh().await;
    assert_eq!(store.last_job().await.unwrap(), JobId(0));
    store.commit(vec![insert(1, "1-10")]).await.unwrap();
    let job = store.job(JobId(1)).await.unwrap().unwrap();
    assert_eq!(job.spec, spec("shot", "1-10"));
    assert_eq!((job.state, job.created_ms, job.started_ms), (JobState::Queued, 1000, None));
    assert_eq!((job.steps[0].count, job.steps[0].done, job.steps[0].failed), (10, 0, 0));

    let reason = failure("no camera");
    let failed = Write::SetJobState {
        job: JobId(1),
        state: JobState::Failed,
        at_ms: 30,
        reason: Some(reason.clone()),
    };
    let batch = vec![state(1, JobState::Running, 10), state(1, JobState::Paused, 15), failed];
    store.commit(batch).await.unwrap();
    let job = store.job(JobId(1)).await.unwrap().unwrap();
    assert_eq!((job.started_ms, job.ended_ms, job.reason), (Some(10), Some(30), Some(reason)));
    assert!(store.unfinished_jobs().await.unwrap().is_empty());

    // Retried: it goes on.
    store.commit(vec![state(1, JobState::Running, 40)]).await.unwrap();
    let job = store.job(JobId(1)).await.unwrap().unwrap();
    assert_eq!((job.started_ms, job.ended_ms, job.reason), (Some(10), None, None));
    assert_eq!(store.unfinished_jobs().await.unwrap().len(), 1);
}

#[tokio::test]
async fn notices_are_kept_once() {
    let store = fresh().await;
    let notice = |text: &str, at: Option<u64>, at_ms| Write::AddNotice {
        job: JobId(1),
        text: text.to_owned(),
        attempt: at.map(attempt),
        at_ms,
    };
    let batch = vec![
        insert(1, "1"),
        notice("smoke is not baked", Some(4), 1),
        notice("smoke is not baked", Some(5), 2),
        notice("scripts were blocked", None, 3),
    ];
    store.commit(batch).await.unwrap();
    let job = store.job(JobId(1)).await.unwrap().unwrap();
    let seen: Vec<_> = job.notices.iter().map(|n| (n.text.as_str(), n.attempt, n.at_ms)).collect();
    assert_eq!(seen, [("smoke is not baked", Some(attempt(4)), 1), ("scripts were blocked", None, 3)]);
}

#[tokio::test]
async fn extending_keeps_what_is_done() {
    let store = fresh().await;
    let batch = vec![
        insert(1, "1-2"),
        opened(1, task(1, 0), 0, 1),
        committed(1, task(1, 0), 0, 1),
        Write::ExtendStep { job: JobId(1), step: STEP, spec: Box::new(spec("shot", "1-5")), count: 5 },
    ];
    store.commit(batch).await.unwrap();
    let job = store.job(JobId(1)).await.unwrap().unwrap();
    assert_eq!((job.steps[0].count, job.steps[0].done, job.spec.frames.len()), (5, 1, 5));
}

#[tokio::test]
async fn deleting_takes_everything_and_its_number_never_comes_back() {
    let store = fresh().await;
    let batch = vec![
        insert(1, "1-2"),
        insert(2, "1-2"),
        opened(1, task(2, 0), 0, 1),
        committed(1, task(2, 0), 0, 1),
        Write::DeleteJob { job: JobId(2) },
    ];
    store.commit(batch).await.unwrap();
    assert!(store.job(JobId(2)).await.unwrap().is_none());
    assert!(store.stored_job(JobId(2)).await.unwrap().is_none());
    // What was on its way when it was deleted neither brings it back nor stays.
    let late = vec![state(2, JobState::Running, 5), opened(2, task(2, 1), 0, 1)];
    store.commit(late).await.unwrap();
    assert!(store.job(JobId(2)).await.unwrap().is_none());
    store.sweep().await.unwrap();
    assert!(store.outputs(JobId(2), 0, 10).await.unwrap().is_empty());
    assert!(store.attempt(attempt(1)).await.unwrap().is_none());
    assert_eq!(store.last_job().await.unwrap(), JobId(2));
    // What is still said of it is passed over.
    let late = Write::AddNotice { job: JobId(2), text: "late".into(), attempt: None, at_ms: 1 };
    store.commit(vec![started(1), closed_as(1, AttemptState::Returned), late]).await.unwrap();
}

#[tokio::test]
async fn lists_are_filtered_and_paged() {
    let store = fresh().await;
    let mut batch: Vec<_> = (1..=5).map(|job| insert(job, "1")).collect();
    if let Write::InsertJob { spec, .. } = &mut batch[3] {
        spec.owner = "ana".parse().unwrap();
    }
    batch.push(state(2, JobState::Completed, 1));
    store.commit(batch).await.unwrap();
    let ids = async |filter: JobSelection, limit, before| {
        let page = store.jobs(&filter, limit, before).await.unwrap();
        page.iter().map(|job| job.id.0).collect::<Vec<_>>()
    };
    assert_eq!(ids(JobSelection::default(), 2, None).await, [5, 4]);
    assert_eq!(ids(JobSelection::default(), 10, Some(JobId(4))).await, [3, 2, 1]);
    let ana = JobSelection { owner: Some("ana".parse().unwrap()), ..JobSelection::default() };
    assert_eq!(ids(ana, 10, None).await, [4]);
    let ended =
        JobSelection { states: vec![JobState::Completed, JobState::Failed], ..JobSelection::default() };
    assert_eq!(ids(ended, 10, None).await, [2]);
    let project = |name: &str| Some(name.parse::<Project>().unwrap());
    let of = |owner: &str, name: &str, state| JobSelection {
        owner: Some(owner.parse().unwrap()),
        project: project(name),
        states: vec![state, state],
        archived: None,
    };
    let theirs = spec("shot", "1");
    assert_eq!(ids(of("ana", &theirs.project.0, JobState::Queued), 10, None).await, [4]);
    assert!(ids(of("ana", &theirs.project.0, JobState::Completed), 10, None).await.is_empty());
    assert!(ids(of("ana", "another", JobState::Queued), 10, None).await.is_empty());
    // Of several states, newest first all the same, page by page.
    let mixed =
        JobSelection { states: vec![JobState::Completed, JobState::Queued], ..JobSelection::default() };
    assert_eq!(ids(mixed.clone(), 2, Some(JobId(5))).await, [4, 3]);
    assert_eq!(ids(mixed, 2, Some(JobId(3))).await, [2, 1]);
}

#[tokio::test]
async fn the_scheduler_finds_everything_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let mut batch = vec![insert(1, "1-100"), state(1, JobState::Running, 10)];
    // 0 to 19 are done, 5 is rendered again and done, 6 is to be rendered again.
    for index in 0..20 {
        batch.push(opened(u64::from(index), task(1, index), 0, 1));
        batch.push(committed(u64::from(index), task(1, index), 0, index as i32 + 1));
    }
    let reopen = |first, last, generation| Write::ReopenTasks {
        job: JobId(1),
        step: STEP,
        first: TaskIndex(first),
        last: TaskIndex(last),
        generation: Generation(generation),
    };
    batch.extend([
        reopen(5, 6, 1),
        opened(30, task(1, 5), 1, 2),
        committed(30, task(1, 5), 1, 6),
        // 20 ran out of memory on two workers and expired on a third, and waits.
        opened(31, task(1, 20), 0, 1),
        closed_as(31, AttemptState::Failed),
        Write::OutgrewMemory { attempt: attempt(31), bytes: 64 << 30 },
        opened(32, task(1, 20), 0, 2),
        closed_as(32, AttemptState::Failed),
        Write::OutgrewMemory { attempt: attempt(32), bytes: 32 << 30 },
        opened(33, task(1, 20), 0, 3),
        closed_as(33, AttemptState::Expired),
        // 21 failed for good, 22 too but was retried.
        opened(34, task(1, 21), 0, 1),
        closed_as(34, AttemptState::Failed),
        Write::FailTask { task: task(1, 21), generation: Generation(0), reason: failure("used up") },
        opened(35, task(1, 22), 0, 1),
        closed_as(35, AttemptState::Failed),
        Write::FailTask { task: task(1, 22), generation: Generation(0), reason: failure("used up") },
        reopen(22, 23, 0),
        // 24 runs, 25 is assigned, 26 expired and was resumed, 27 was returned.
        opened(36, task(1, 24), 0, 1),
        started(36),
        opened(37, task(1, 25), 0, 1),
        opened(38, task(1, 26), 0, 1),
        closed_as(38, AttemptState::Expired),
        Write::ResumeAttempt { attempt: attempt(38), state: AttemptState::Running },
        opened(39, task(1, 27), 0, 1),
        closed_as(39, AttemptState::Returned),
        // 28 was retried while an attempt ran: that it failed later does not count.
        opened(40, task(1, 28), 0, 1),
        reopen(28, 28, 0),
        closed_as(40, AttemptState::Failed),
        // 41 is cancelled while it runs, 42 after it failed; of 0, a second attempt still runs.
        opened(41, task(1, 41), 0, 1),
        opened(42, task(1, 42), 0, 1),
        closed_as(42, AttemptState::Failed),
        opened(43, task(1, 0), 0, 2),
        Write::SetCancelledTasks {
            job: JobId(1),
            step: STEP,
            spans: vec![(TaskIndex(40), TaskIndex(49)), (TaskIndex(60), TaskIndex(60))],
        },
    ]);
    store.commit(batch).await.unwrap();
    drop(store);

    let store = open(folder.path()).await;
    let jobs = store.unfinished_jobs().await.unwrap();
    let [job] = &jobs[..] else { panic!("{} jobs", jobs.len()) };
    assert_eq!((job.row.state, job.row.spec.frames.len()), (JobState::Running, 100));
    let run = |first, last, generation, state| TaskRun {
        first: TaskIndex(first),
        last: TaskIndex(last),
        generation: Generation(generation),
        state,
    };
    let faults = |index, failed: &[u64], expired: &[u64]| TaskFaults {
        index: TaskIndex(index),
        failed_on: failed.iter().map(|w| worker(*w)).collect(),
        expired_on: expired.iter().map(|w| worker(*w)).collect(),
        outgrew: (index == 20).then_some(64 << 30),
    };
    let expected = StoredStep {
        step: STEP,
        runs: vec![
            run(0, 4, 0, TaskState::Done),
            run(5, 5, 1, TaskState::Done),
            run(6, 6, 1, TaskState::Waiting),
            run(7, 19, 0, TaskState::Done),
            run(21, 21, 0, TaskState::Failed),
        ],
        cancelled: vec![(TaskIndex(40), TaskIndex(49)), (TaskIndex(60), TaskIndex(60))],
        faults: vec![faults(20, &[1, 2], &[3])],
    };
    assert_eq!(job.steps, [expected]);
    let open: Vec<_> = job.open.iter().map(|a| (a.id.counter, a.task.index.0, a.state)).collect();
    use AttemptState::{Assigned, Expired, Running};
    assert_eq!(open, [(33, 20, Expired), (36, 24, Running), (37, 25, Assigned), (38, 26, Running)]);
    assert_eq!(job.row.steps[0].done, 19);
    assert_eq!(job.row.steps[0].failed, 1);
    assert_eq!(store.stored_job(JobId(1)).await.unwrap().as_ref(), Some(job));
}

#[tokio::test]
async fn the_report_counts_what_each_worker_did() {
    let store = fresh().await;
    let batch = vec![
        Write::UpsertWorker { worker: worker(1), name: "ash".into(), info: 1.into(), at_ms: 0 },
        insert(1, "1-9"),
        opened(1, task(1, 0), 0, 1),
        started(1),
        committed(1, task(1, 0), 0, 1),
        opened(2, task(1, 1), 0, 1),
        started(2),
        committed(2, task(1, 1), 0, 2),
        opened(3, task(1, 2), 0, 2),
        closed_as(3, AttemptState::Failed),
        opened(4, task(1, 2), 0, 2),
        closed_as(4, AttemptState::Expired),
    ];
    store.commit(batch).await.unwrap();
    let report = store.job_report(JobId(1), STEP).await.unwrap();
    assert_eq!((report[0].name.as_deref(), report[0].frames, report[0].seconds), (Some("ash"), 2, 3.0));
    assert_eq!((report[0].first_start_ms, report[0].last_end_ms), (Some(3001), Some(4002)));
    assert_eq!((report[1].worker, report[1].name.as_deref()), (worker(2), None));
    assert_eq!((report[1].frames, report[1].errors, report[1].expired), (0, 1, 1));
}

#[tokio::test]
async fn the_times_of_the_last_frames_come_in_the_order_of_the_range() {
    let store = fresh().await;
    let mut batch = vec![insert(1, "1-9"), insert(2, "1-9")];
    for (counter, index, by) in [(1, 3, 1), (2, 0, 2), (3, 1, 1), (4, 2, 2)] {
        batch.extend([opened(counter, task(1, index), 0, by), started(counter)]);
        batch.push(committed(counter, task(1, index), 0, 1 + index as i32));
    }
    batch.extend([
        opened(5, task(1, 4), 0, 1),
        closed_as(5, AttemptState::Failed),
        opened(6, task(1, 5), 0, 1),
    ]);
    store.commit(batch).await.unwrap();
    let times = store.step_times(JobId(1), STEP, 3).await.unwrap();
    let expected = [(1, 1), (2, 2), (3, 1)].map(|(index, by)| (TaskIndex(index), worker(by), 1.5));
    assert_eq!(times, expected);
    assert!(store.step_times(JobId(2), STEP, 3).await.unwrap().is_empty());
}
