//! Steps that are added to a job, streaming attempts, and intermediate files, with the step kind of builds for tests.

use std::time::{Duration, SystemTime};

use kiln_api::{AssignedTask, AttemptReport, Down, ProblemCode, StreamAssignment, Up};
use kiln_types::{
    BlobHash, HeldAttempt, HeldPhase, JobId, JobState, RelPath, ReportOutcome, StepIndex, StepKind, TaskFile,
};
use serde_json::{Value, json};

use crate::support::{FakeWorker, Farm, hello, problem};

pub fn parts() -> Value {
    json!({"kind": "test", "space": {"parts": 2}, "order": "sequential", "opens": "none", "product": "intermediate"})
}

/// Merges the parts of a frame, beside the frame itself, when all are there.
pub fn merge() -> Value {
    json!({
        "kind": "test", "space": "frames", "order": "sequential", "opens": "none", "product": "preview",
        "after": [{"step": 0, "scope": "frame"}, {"step": 1, "scope": "frame"}],
    })
}

/// The same from the first part on.
fn streaming_merge() -> Value {
    let mut merge = merge();
    merge["after"][1]["start"] = "first-done".into();
    merge
}

pub async fn add(farm: &Farm, job: JobId, step: Value) -> kiln_api::ReopenedJob {
    farm.client.add_step(job, &serde_json::from_value(step).unwrap()).await.unwrap()
}

fn big(id: u64) -> kiln_api::Hello {
    let mut hello = hello(id, "alpha", 1);
    hello.machine.memory = 16 << 30;
    hello
}

/// Stores a file of at least this length that no other task makes, and reports it.
pub async fn deliver(
    farm: &Farm,
    worker: &mut FakeWorker,
    task: &AssignedTask,
    length: usize,
) -> ReportOutcome {
    let line = format!("{} {}\n", task.task, task.generation);
    let text = line.repeat(length / line.len() + 1);
    let hash = BlobHash::of(text.as_bytes());
    let path = RelPath::new(&format!("test/{}", task.task.index)).unwrap();
    farm.client.put_blob_bytes(hash, text.clone().into()).await.unwrap();
    let file = TaskFile { path, hash, size: text.len() as u64, picture: None };
    worker.report(task, AttemptReport::Done { files: vec![file], seconds: 0.1, peak_memory: 1 }).await
}

/// Delivers tasks as they are dispatched until `count` are done.
pub async fn deliver_all(farm: &Farm, worker: &mut FakeWorker, mut count: u32, length: usize) {
    while count > 0 {
        for task in worker.assignment().await.tasks {
            worker.say(Up::Started { attempt: task.attempt }).await;
            assert_eq!(deliver(farm, worker, &task, length).await, ReportOutcome::Committed);
            count -= 1;
        }
    }
}

async fn stream(worker: &mut FakeWorker) -> StreamAssignment {
    loop {
        if let Down::Stream(stream) = worker.next().await {
            return *stream;
        }
    }
}

#[tokio::test]
async fn an_added_step_streams_on_no_slot_and_outlives_a_restart() {
    let farm = Farm::start().await;
    let mut worker = FakeWorker::join_as(&farm, big(1)).await;
    let job = farm.submit("1").await;
    worker.render(1).await;
    let job = farm.reaches(&job, JobState::Completed).await;
    let added = add(&farm, job.id, parts()).await;
    assert_eq!((added.job.state, added.job.steps.len(), added.again), (JobState::Running, 2, 0));
    assert_eq!((added.job.steps[1].kind, added.job.steps[1].tasks.total), (StepKind::Test, 2));
    assert_eq!(added.job.tasks.done, 1, "its frames are what they were");
    let first = worker.assignment().await.tasks.remove(0);
    add(&farm, job.id, streaming_merge()).await;
    worker.say(Up::Started { attempt: first.attempt }).await;
    assert_eq!(deliver(&farm, &mut worker, &first, 0).await, ReportOutcome::Committed);
    let StreamAssignment { work, task, .. } = stream(&mut worker).await;
    assert_eq!((task.task.step, task.frame, work.session), (StepIndex(2), Some(1), None));
    let files = farm.client.step_files(job.id, StepIndex(1), Some(1), 0).await.unwrap();
    assert_eq!((files.files.len(), files.files[0].part, files.more), (1, Some(0), false));
    let attempt = async |farm: &Farm| {
        let page = farm.client.attempts(job.id, &Default::default()).await.unwrap();
        page.attempts.into_iter().find(|one| one.id == task.attempt).unwrap()
    };
    assert_eq!(attempt(&farm).await.slot, None);

    worker.leave().await;
    let farm = farm.restart().await;
    let mut back = big(1);
    let (attempt_id, generation) = (task.attempt, task.generation);
    back.held =
        vec![HeldAttempt { attempt: attempt_id, task: task.task, generation, phase: HeldPhase::Streaming }];
    let mut worker = FakeWorker::join_as(&farm, back).await;
    // Done too early is not done.
    let tasks = farm.client.job(job.id).await.unwrap().steps[2].tasks;
    assert_eq!((tasks.done, tasks.running), (0, 0));
    deliver_all(&farm, &mut worker, 1, 0).await;
    let slot = loop {
        match worker.next().await {
            Down::Place { attempt, slot, .. } if attempt == task.attempt => break slot,
            Down::Revoke { attempt, why } => panic!("{attempt} was revoked: {why:?}"),
            _ => {}
        }
    };
    assert_eq!(attempt(&farm).await.slot, Some(slot));
    worker.say(Up::Started { attempt: task.attempt }).await;
    assert_eq!(deliver(&farm, &mut worker, &task, 0).await, ReportOutcome::Committed);
    let done = farm.reaches(&job, JobState::Completed).await;
    assert!(done.steps.iter().all(|step| step.tasks.done == step.tasks.total), "{:?}", done.steps);
    let names = farm.client.outputs(job.id, 0).await.unwrap();
    assert_eq!(names.outputs.len(), 1, "what is not the artist's is not listed");
}

#[tokio::test]
async fn parts_that_are_gone_are_made_again_when_they_are_needed() {
    let farm = Farm::start().await;
    let mut worker = FakeWorker::join_as(&farm, big(1)).await;
    let job = farm.submit("1-2").await;
    worker.render(2).await;
    farm.reaches(&job, JobState::Completed).await;
    add(&farm, job.id, parts()).await;
    deliver_all(&farm, &mut worker, 4, 0).await;
    farm.reaches(&job, JobState::Completed).await;
    add(&farm, job.id, merge()).await;
    deliver_all(&farm, &mut worker, 2, 0).await;
    farm.reaches(&job, JobState::Completed).await;
    let days = |days: u64| SystemTime::now() + Duration::from_secs(days * 24 * 60 * 60);
    assert_eq!(farm.collect_as_of(days(0)).await.intermediates, 0);
    assert_eq!(farm.collect_as_of(days(2)).await.intermediates, 4);
    let listed = async |step, frame| {
        farm.client.step_files(job.id, StepIndex(step), Some(frame), 0).await.unwrap().files.len()
    };
    assert_eq!((listed(1, 1).await, listed(2, 1).await), (0, 1), "the preview stays with its frame");
    // Frame 1 alone: its two parts are needed again.
    let path = format!("/api/v1/jobs/{}/rerender", job.id);
    let answer: Value = farm.post(&path, json!({"frames": "1"})).await.json().await.unwrap();
    assert_eq!(answer["again"], 2);
    let text = "2 tasks run again: their files are needed, and were removed.";
    assert!(answer["notices"].as_array().unwrap().contains(&text.into()), "{}", answer["notices"]);
    let view = farm.client.job(job.id).await.unwrap();
    assert_eq!([0, 1, 2].map(|step: usize| view.steps[step].tasks.done), [1, 2, 1]);
    assert_eq!(view.steps[1].tasks.failed, 0);
}

#[tokio::test]
async fn steps_that_do_not_fit_are_refused() {
    let farm = Farm::start().await;
    let job = farm.submit("1").await;
    let path = format!("/api/v1/jobs/{}/steps", job.id);
    let refused = async |step: Value| problem(farm.post(&path, step).await).await;
    let mut render = parts();
    render["kind"] = "render".into();
    let why = refused(render).await;
    assert_eq!((why.status, why.code), (422, ProblemCode::Unprocessable));
    assert_eq!(why.detail, "A step of kind render cannot be added to a job.");
    let why = refused(merge()).await;
    assert!(why.detail.contains("step 1"), "{}", why.detail);
    farm.post(&format!("/api/v1/jobs/{}/cancel", job.id), json!({})).await;
    assert_eq!(refused(parts()).await.status, 409);
    assert_eq!(problem(farm.post("/api/v1/jobs/77/steps", parts()).await).await.status, 404);
    let files = format!("/api/v1/jobs/{}/steps/4/files", job.id);
    assert_eq!(problem(farm.get(&files).await).await.status, 404);
}
