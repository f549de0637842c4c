//! A job of two steps: the bake, and the frames behind it.

use kiln_store::{Expiry, NewBundle, TaskProduct, Write};
use kiln_types::{
    AttemptState, BlobHash, BundleId, Generation, JobId, JobState, Owner, Project, StepIndex, StepKind,
    TaskId, TaskIndex, TaskState,
};

use crate::{
    attempt, closed_as, committed, fresh, insert_spec, open, opened, retention::expire, spec, started,
};

const BAKE: TaskId = TaskId { job: JobId(1), step: StepIndex(0), index: TaskIndex(0) };
const RENDER: StepIndex = StepIndex(1);

fn insert_baked(frames: &str) -> Write {
    let mut spec = spec("shot", frames);
    spec.bake = vec!["rigid body Cube".to_owned()];
    insert_spec(1, spec)
}

fn bundle(name: &str) -> NewBundle {
    NewBundle {
        id: BundleId(BlobHash::of(format!("manifest of {name}").as_bytes())),
        owner: Owner::default(),
        project: Project::default(),
        size: 9,
        blobs: vec![BlobHash::of(name.as_bytes())],
    }
}

fn baked(counter: u64, generation: u32, name: &str) -> Write {
    Write::CommitTask {
        task: BAKE,
        generation: Generation(generation),
        attempt: attempt(counter),
        product: TaskProduct::Bundle(bundle(name)),
        seconds: 40.0,
        peak_memory: Some(7),
        at_ms: 5000,
    }
}

#[tokio::test]
async fn a_bake_leaves_a_bundle_with_its_step() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let ended = Write::SetStepEnd { job: JobId(1), step: StepIndex(0), ended_ms: Some(5000) };
    let batch = vec![insert_baked("1-3"), opened(1, BAKE, 0, 1), started(1), baked(1, 0, "first"), ended];
    store.commit(batch).await.unwrap();
    drop(store);

    let store = open(folder.path()).await;
    let job = store.stored_job(JobId(1)).await.unwrap().unwrap();
    let steps = &job.row.steps;
    assert_eq!(steps[0].bundle, Some(bundle("first").id));
    assert_eq!(
        (job.row.plan.of_kind(StepKind::Bake), job.row.plan.frames_step()),
        (Some(StepIndex(0)), RENDER)
    );
    assert_eq!((steps[0].count, steps[0].done), (1, 1));
    assert_eq!((steps[0].ended_ms, steps[1].ended_ms, steps[1].bundle), (Some(5000), None, None));
    assert_eq!(job.steps[0].runs[0].state, TaskState::Done);
    assert!(store.outputs(JobId(1), 0, 10).await.unwrap().is_empty(), "a bake has no frame");
    let row = store.attempt(attempt(1)).await.unwrap().unwrap();
    assert_eq!((row.state, row.seconds, row.peak_memory), (AttemptState::Committed, Some(40.0), Some(7)));
    let referenced = store.needed_blobs().await.unwrap();
    assert!(referenced.contains(&BlobHash::of(b"first")) && referenced.contains(&bundle("first").id.0));
    assert!(store.bundle(bundle("first").id).await.unwrap().is_some());
}

#[tokio::test]
async fn baking_again_names_the_new_bundle() {
    let store = fresh().await;
    let again = Write::ReopenTasks {
        job: JobId(1),
        step: StepIndex(0),
        first: TaskIndex(0),
        last: TaskIndex(0),
        generation: Generation(1),
    };
    let reopened = Write::SetStepEnd { job: JobId(1), step: StepIndex(0), ended_ms: None };
    let ended = Write::SetStepEnd { job: JobId(1), step: StepIndex(0), ended_ms: Some(5000) };
    let batch = vec![insert_baked("1"), opened(1, BAKE, 0, 1), baked(1, 0, "first"), ended];
    store.commit(batch).await.unwrap();
    store.commit(vec![again, reopened]).await.unwrap();
    let step = store.job(JobId(1)).await.unwrap().unwrap().steps.remove(0);
    assert_eq!((step.done, step.ended_ms), (0, None));
    store.commit(vec![opened(2, BAKE, 1, 1), baked(2, 1, "second")]).await.unwrap();
    let step = store.job(JobId(1)).await.unwrap().unwrap().steps.remove(0);
    assert_eq!((step.done, step.bundle), (1, Some(bundle("second").id)));
}

#[tokio::test]
async fn the_report_of_the_frames_leaves_the_bake_out() {
    let store = fresh().await;
    let frame = TaskId { job: JobId(1), step: RENDER, index: TaskIndex(0) };
    let batch = vec![
        insert_baked("1"),
        opened(1, BAKE, 0, 1),
        closed_as(1, AttemptState::Failed),
        opened(2, BAKE, 0, 1),
        started(2),
        baked(2, 0, "first"),
        opened(3, frame, 0, 2),
        started(3),
        committed(3, frame, 0, 1),
    ];
    store.commit(batch).await.unwrap();
    let frames = store.job_report(JobId(1), RENDER).await.unwrap();
    assert_eq!(frames.len(), 1);
    assert_eq!((frames[0].frames, frames[0].errors, frames[0].seconds), (1, 0, 1.5));
    let bake = store.job_report(JobId(1), StepIndex(0)).await.unwrap();
    assert_eq!((bake[0].frames, bake[0].errors, bake[0].seconds), (1, 1, 40.0));
}

#[tokio::test]
async fn what_a_bake_made_goes_with_the_files_of_its_job() {
    let store = fresh().await;
    let mut batch = vec![insert_baked("1")];
    for (counter, name) in [(1, "first"), (2, "second")] {
        batch.extend([opened(counter, BAKE, 0, 1), baked(counter, 0, name)]);
    }
    store.commit(batch).await.unwrap();
    let due = Expiry { at_ms: 9000, inputs_ms: Some(9000), promised_ms: i64::MAX, ..Expiry::default() };
    // Of an open job, what an earlier bake made is needed by nobody.
    assert_eq!(expire(&store, &due).await.bundles, 1);
    assert_eq!(store.bundle(bundle("first").id).await.unwrap(), None);
    assert!(store.bundle(bundle("second").id).await.unwrap().is_some());
    let end = Write::SetJobState { job: JobId(1), state: JobState::Failed, at_ms: 8000, reason: None };
    store.commit(vec![end]).await.unwrap();
    let never = Expiry { inputs_ms: None, ..due };
    assert_eq!(expire(&store, &never).await.bundles, 0);
    let went = expire(&store, &due).await;
    assert_eq!((went.inputs, went.bundles), (vec![JobId(1)], 2));
    assert!(store.needed_blobs().await.unwrap().is_empty());
}
