//! Jobs whose simulations are baked before the first frame.

use bytes::Bytes;
use kiln_api::{AssignedTask, Assignment, AttemptReport, JobView, Up};
use kiln_client::AttemptFilter;
use kiln_types::{
    BlobHash, Bundle, BundleFile, Failure, FailureCause, JobState, RelPath, ReportOutcome, StepIndex,
    StepKind, TaskFile, TaskState,
};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{FakeWorker, Farm, held, hello, picture, problem};

/// A rigid body that falls, and that nobody has baked.
fn falling() -> Vec<u8> {
    std::fs::read(kiln_testkit::scene("rigid_body")).unwrap()
}

async fn submit(farm: &Farm, frames: &str) -> JobView {
    let id = farm.upload_of(falling()).await;
    let answer = farm.post("/api/v1/jobs", json!({"source": {"upload": {"id": id}}, "frames": frames})).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    answer.json().await.unwrap()
}

/// Files as they come out of a bake; `what` tells bakes apart.
async fn baked(farm: &Farm, job: &JobView, what: &str) -> Vec<BundleFile> {
    let mut files = Vec::new();
    for name in [job.spec.session.blend.as_str(), "blendcache_shot/cube_000001_00.bphys"] {
        let bytes = Bytes::from(format!("{name} {what}"));
        let (hash, size) = (BlobHash::of(&bytes), bytes.len() as u64);
        farm.client.put_blob_bytes(hash, bytes).await.unwrap();
        files.push(BundleFile { path: RelPath::new(name).unwrap(), hash, size });
    }
    files
}

fn finish(files: Vec<BundleFile>) -> AttemptReport {
    AttemptReport::Done {
        files: files.into_iter().map(TaskFile::from).collect(),
        seconds: 20.0,
        peak_memory: 1 << 30,
    }
}

/// The one task of a bake, begun.
async fn begin(worker: &mut FakeWorker, job: &JobView) -> (Assignment, AssignedTask) {
    let assignment = worker.assignment().await;
    assert_eq!((assignment.job, assignment.work.kind), (job.id, StepKind::Bake));
    assert_eq!(assignment.work.session.as_ref(), Some(&job.spec.session));
    let task = assignment.tasks[0].clone();
    assert_eq!((assignment.tasks.len(), task.frame, task.task.step), (1, None, StepIndex(0)));
    worker.say(Up::Started { attempt: task.attempt }).await;
    (assignment, task)
}

async fn manifest(farm: &Farm, assignment: &Assignment) -> Bundle {
    let path = format!("/api/v1/bundles/{}", assignment.work.session.as_ref().unwrap().bundle);
    farm.get(&path).await.json().await.unwrap()
}

#[tokio::test]
async fn frames_render_from_what_the_bake_made() {
    let farm = Farm::start().await;
    let mut worker = FakeWorker::join(&farm, 1, "alpha", 1).await;
    let job = submit(&farm, "1-3").await;
    assert_eq!(job.spec.bake, ["rigid body Cube"]);
    let steps: Vec<_> = job.steps.iter().map(|step| (step.kind, step.tasks.total)).collect();
    assert_eq!(steps, [(StepKind::Bake, 1), (StepKind::Render, 3)]);
    assert_eq!((job.tasks.total, job.steps[1].after.as_slice()), (3, &[StepIndex(0)][..]));

    let (_, task) = begin(&mut worker, &job).await;
    worker.say(Up::Progress { attempt: task.attempt, fraction: 0.43 }).await;
    let running = farm.reaches(&job, JobState::Running).await;
    assert_eq!((running.tasks.running, running.tasks.waiting, running.seconds_left), (0, 3, None));
    let view = farm.client.job(job.id).await.unwrap();
    assert!((view.steps[0].progress - 0.43).abs() < 1e-6, "{:?}", view.steps[0]);
    assert!(view.steps[0].started_ms.is_some() && view.steps[1].started_ms.is_none());
    let busy = farm.client.workers().await.unwrap();
    let run = busy.iter().find_map(|worker| worker.running.first()).unwrap();
    assert_eq!((run.name.to_string(), run.fraction), ("the bake".to_owned(), Some(0.43)));

    let files = baked(&farm, &job, "once").await;
    assert_eq!(worker.report(&task, finish(files.clone())).await, ReportOutcome::Committed);
    // Reported again, as after a break of the line: answered, and nothing comes of it.
    assert_eq!(worker.report(&task, finish(files.clone())).await, ReportOutcome::Superseded);

    let assignment = worker.assignment().await;
    assert_eq!((assignment.work.kind, assignment.tasks[0].frame), (StepKind::Render, Some(1)));
    assert_ne!(assignment.work.session.as_ref().unwrap().bundle, job.spec.session.bundle);
    let mut expected = files.clone();
    expected.sort_by(|a, b| a.path.cmp(&b.path));
    assert_eq!(manifest(&farm, &assignment).await.files, expected);
    let view = farm.client.job(job.id).await.unwrap();
    assert_eq!((view.steps[0].progress, view.steps[0].tasks.done), (1.0, 1));
    assert_eq!(view.steps[1].started_ms, view.steps[0].ended_ms);
    assert!(view.steps[0].ended_ms >= view.steps[0].started_ms);
    // The job is still the artist's: what is there already is known by it.
    assert_eq!(view.spec.session, job.spec.session);
    assert_eq!(view.mean_frame_s, None, "a bake is no frame");

    // Tasks and the closing table are those of the frames.
    let tasks = farm.client.tasks(job.id, None, None, None).await.unwrap().tasks;
    assert_eq!(tasks.iter().map(|task| task.name.frame).collect::<Vec<_>>(), [Some(1), Some(2), Some(3)]);
    let bake = farm.client.tasks(job.id, Some(StepIndex(0)), None, None).await.unwrap().tasks;
    assert_eq!((bake.len(), bake[0].name.frame, bake[0].state), (1, None, TaskState::Done));
    for task in &assignment.tasks {
        worker.say(Up::Started { attempt: task.attempt }).await;
        assert_eq!(worker.deliver(task).await, ReportOutcome::Committed);
    }
    let report = farm.client.report(job.id).await.unwrap();
    assert!((report.render_s - 0.5 * assignment.tasks.len() as f64).abs() < 1e-9, "{report:?}");
    let logs = farm.get(&format!("/api/v1/jobs/{}/logs", job.id)).await.text().await.unwrap();
    assert!(logs.starts_with("== the bake, attempt ") && logs.contains("== frame 1, attempt "), "{logs}");
}

/// The bake is remembered over a restart, and over whatever is asked of the frames; a new one is made when that is
/// asked for, and then nothing renders from the old one.
#[tokio::test]
async fn a_bake_serves_until_another_is_asked_for() {
    let farm = Farm::start().await;
    let mut worker = FakeWorker::join(&farm, 1, "alpha", 1).await;
    let job = submit(&farm, "1").await;
    let (assignment, task) = begin(&mut worker, &job).await;
    // The server goes away while it bakes.
    worker.leave().await;
    let farm = farm.restart().await;
    let mut back = hello(1, "alpha", 1);
    back.held = vec![held(&assignment, &task, |slot| kiln_types::HeldPhase::Running { slot })];
    let mut worker = FakeWorker::join_as(&farm, back).await;
    let files = baked(&farm, &job, "first").await;
    assert_eq!(worker.report(&task, finish(files)).await, ReportOutcome::Committed);
    let first = worker.assignment().await;
    worker.say(Up::Started { attempt: first.tasks[0].attempt }).await;
    assert_eq!(worker.deliver(&first.tasks[0]).await, ReportOutcome::Committed);
    farm.reaches(&job, JobState::Completed).await;
    worker.leave().await;

    let farm = farm.restart().await;
    let mut worker = FakeWorker::join(&farm, 1, "alpha", 1).await;
    farm.client.rerender(job.id, None).await.unwrap();
    let again = worker.assignment().await;
    assert_eq!(
        (again.work.kind, again.work.session.as_ref().unwrap().bundle),
        (StepKind::Render, first.work.session.as_ref().unwrap().bundle)
    );
    worker.say(Up::Started { attempt: again.tasks[0].attempt }).await;
    worker.deliver(&again.tasks[0]).await;
    farm.client.extend(job.id, "2".parse().unwrap()).await.unwrap();
    let more = worker.assignment().await;
    assert_eq!(
        (more.tasks[0].frame, more.work.session.as_ref().unwrap().bundle),
        (Some(2), first.work.session.as_ref().unwrap().bundle)
    );

    // It holds frame 2 of the old bake while a new one is asked for.
    worker.say(Up::Started { attempt: more.tasks[0].attempt }).await;
    farm.client.rebake(job.id).await.unwrap();
    let stale = &more.tasks[0];
    assert_eq!(worker.report(stale, AttemptReport::Returned).await, ReportOutcome::Recorded);
    let (_, task) = begin(&mut worker, &job).await;
    assert_eq!(task.generation.0, 1);
    let files = baked(&farm, &job, "second").await;
    assert_eq!(worker.report(&task, finish(files)).await, ReportOutcome::Committed);
    let mut frames = Vec::new();
    while frames.len() < 2 {
        let assignment = worker.assignment().await;
        assert_ne!(
            assignment.work.session.as_ref().unwrap().bundle,
            first.work.session.as_ref().unwrap().bundle
        );
        assert_ne!(assignment.work.session.as_ref().unwrap().bundle, job.spec.session.bundle);
        for task in &assignment.tasks {
            worker.say(Up::Started { attempt: task.attempt }).await;
            assert_eq!(worker.deliver(task).await, ReportOutcome::Committed);
            frames.push((task.frame.unwrap(), task.generation.0));
        }
    }
    assert_eq!(frames, [(1, 2), (2, 1)]);
    farm.reaches(&job, JobState::Completed).await;
    let path = format!("/api/v1/jobs/{}/rerender", job.id);
    let refused = farm.post(&path, json!({"bake": true, "frames": "1"})).await;
    assert_eq!(problem(refused).await.status, 422);
}

#[tokio::test]
async fn a_bake_that_fails_three_times_takes_the_frames_with_it_until_it_is_retried() {
    let farm = Farm::start().await;
    let mut worker = FakeWorker::join(&farm, 1, "alpha", 1).await;
    let job = submit(&farm, "1-4").await;
    for _ in 0..3 {
        let (_, task) = begin(&mut worker, &job).await;
        let failure = Failure::new(FailureCause::Crashed, "Blender crashed while it baked.");
        worker.report(&task, AttemptReport::Failed { failure, seconds: 3.0 }).await;
    }
    let failed = farm.reaches(&job, JobState::Failed).await;
    assert_eq!((failed.steps[0].tasks.failed, failed.tasks.cancelled, failed.tasks.failed), (1, 4, 0));
    let bake =
        farm.client.tasks(job.id, Some(StepIndex(0)), Some(TaskState::Failed), None).await.unwrap().tasks;
    assert_eq!(bake[0].reason.as_deref(), Some("Blender crashed while it baked."));
    for (verb, body) in
        [("rerender", json!({})), ("rerender", json!({"frames": "2"})), ("extend", json!({"frames": "9"}))]
    {
        let refused = problem(farm.post(&format!("/api/v1/jobs/{}/{verb}", job.id), body).await).await;
        assert_eq!(refused.status, 409);
        assert!(refused.detail.contains("`kiln jobs retry 1` bakes them"), "{}", refused.detail);
    }
    farm.client.retry(job.id).await.unwrap();
    let (_, task) = begin(&mut worker, &job).await;
    let files = baked(&farm, &job, "at last").await;
    assert_eq!(worker.report(&task, finish(files)).await, ReportOutcome::Committed);
    worker.render(4).await;
    farm.reaches(&job, JobState::Completed).await;
}

#[tokio::test]
async fn what_a_bake_reports_is_not_believed() {
    let farm = Farm::start().await;
    let job = submit(&farm, "1").await;
    let good = baked(&farm, &job, "good").await;
    let never_sent = BundleFile {
        path: RelPath::new("blendcache_shot/ghost.bphys").unwrap(),
        hash: BlobHash::of(b"never sent"),
        size: 10,
    };
    let mut another_size = good.clone();
    another_size[1].size += 1;
    let without_scene = good[1..].to_vec();
    let twice = [&good[..], &good[..1]].concat();
    let cases = [
        (vec![good[0].clone(), never_sent], FailureCause::BadOutput, "without having sent it"),
        (another_size, FailureCause::BadOutput, "and the server holds"),
        (without_scene, FailureCause::HostMisbehaved, "came back without"),
        (twice, FailureCause::HostMisbehaved, "twice"),
        (Vec::new(), FailureCause::HostMisbehaved, "came back without"),
    ];
    let mut worker = FakeWorker::join(&farm, 1, "liar", 1).await;
    for (files, cause, words) in cases {
        let (_, task) = begin(&mut worker, &job).await;
        assert_eq!(worker.report(&task, finish(files)).await, ReportOutcome::Recorded);
        assert_failed(&farm, &job, &task, cause, words).await;
        if farm.client.job(job.id).await.unwrap().state == JobState::Failed {
            farm.client.retry(job.id).await.unwrap();
        }
    }
    // A picture for a bake, and a bake for a frame.
    let (_, task) = begin(&mut worker, &job).await;
    let (outputs, bytes) = picture(&AssignedTask { frame: Some(1), ..task.clone() });
    farm.client.put_blob_bytes(BlobHash::of(&bytes), bytes).await.unwrap();
    let delivered = AttemptReport::Done { files: outputs.into(), seconds: 1.0, peak_memory: 1 };
    assert_eq!(worker.report(&task, delivered).await, ReportOutcome::Recorded);
    assert_failed(&farm, &job, &task, FailureCause::HostMisbehaved, "does not make").await;
    if farm.client.job(job.id).await.unwrap().state == JobState::Failed {
        farm.client.retry(job.id).await.unwrap();
    }
    let (_, task) = begin(&mut worker, &job).await;
    assert_eq!(worker.report(&task, finish(good.clone())).await, ReportOutcome::Committed);
    let frame = worker.assignment().await.tasks.remove(0);
    worker.say(Up::Started { attempt: frame.attempt }).await;
    assert_eq!(worker.report(&frame, finish(good)).await, ReportOutcome::Recorded);
    assert_failed(&farm, &job, &frame, FailureCause::HostMisbehaved, "does not make").await;
    // And one that the worker was never given.
    let stranger = AssignedTask { attempt: "1-999".parse().unwrap(), ..frame };
    assert_eq!(worker.report(&stranger, finish(Vec::new())).await, ReportOutcome::Unknown);
}

async fn assert_failed(farm: &Farm, job: &JobView, task: &AssignedTask, cause: FailureCause, words: &str) {
    let page = farm.client.attempts(job.id, &AttemptFilter::default()).await.unwrap();
    let attempt = page.attempts.iter().find(|attempt| attempt.id == task.attempt).unwrap();
    let failure = attempt.failure.as_ref().unwrap();
    assert_eq!(failure.cause, cause, "{failure}");
    assert!(failure.message.contains(words), "{failure}");
}

#[tokio::test]
async fn the_policy_decides_whether_there_is_a_bake() {
    let farm = Farm::start().await;
    let id = farm.upload_of(falling()).await;
    let with = async |simulations: &str| {
        let policy = json!({"scripts": "stop", "external_files": "required", "simulations": simulations});
        let request = json!({"source": {"upload": {"id": id}}, "frames": "1-2", "policy": policy});
        farm.post("/api/v1/jobs", request).await
    };
    let refused = problem(with("must-be-baked").await).await;
    assert!(refused.status == 422 && refused.detail.contains("(rigid body Cube)"), "{}", refused.detail);
    let as_they_are: JobView = with("as-they-are").await.json().await.unwrap();
    assert_eq!((as_they_are.steps.len(), as_they_are.steps[0].kind), (1, StepKind::Render));
    let bakes: Value = with("bake").await.json().await.unwrap();
    assert_eq!(bakes["steps"][0]["kind"], "bake");
    assert_eq!(bakes["spec"]["bake"], json!(["rigid body Cube"]));
    // Nothing moves in the sample.
    assert_eq!(farm.submit("1").await.steps.len(), 1);
}

#[tokio::test]
async fn what_a_library_simulates_is_refused_unless_it_may_stand_still() {
    let farm = Farm::start().await;
    let mut files = Vec::new();
    for (scene, place) in
        [("linked_cloth", "shots/shot.blend"), ("endless_cloth", "endless_cloth/endless_cloth.blend")]
    {
        let bytes = Bytes::from(std::fs::read(kiln_testkit::scene(scene)).unwrap());
        let (hash, size) = (BlobHash::of(&bytes), bytes.len() as u64);
        farm.client.put_blob_bytes(hash, bytes).await.unwrap();
        files.push(BundleFile { path: RelPath::new(place).unwrap(), hash, size });
    }
    let submit = async |bundle: &Bundle, policy: &str| {
        let id = farm.client.create_bundle(bundle).await.unwrap();
        let source = json!({"bundle": {"id": id, "blend": "shots/shot.blend"}});
        farm.post("/api/v1/jobs", json!({"source": source, "policy": {"simulations": policy}})).await
    };
    let bundle = Bundle { files, ..Bundle::default() };
    for policy in ["bake", "must-be-baked"] {
        let refused = problem(submit(&bundle, policy).await).await;
        for words in
            ["“Scene”", "not baked (cloth of Grid (from endless_cloth.blend))", "bake in the library"]
        {
            assert!(refused.detail.contains(words), "{words}: {}", refused.detail);
        }
    }
    assert_eq!(submit(&bundle, "as-they-are").await.status(), StatusCode::CREATED);
    // By another name, that only the bundle knows the meaning of.
    let mut moved = bundle.clone();
    moved.files[1].path = RelPath::new("_external/lib.blend").unwrap();
    let meaning = "//../endless_cloth/endless_cloth.blend".to_owned();
    moved.remap = [(meaning, moved.files[1].path.clone())].into();
    let refused = problem(submit(&moved, "bake").await).await;
    assert!(refused.detail.contains("cloth of Grid (from lib.blend)"), "{}", refused.detail);
    // What is not there Blender itself misses, with a sentence of its own.
    moved.remap.clear();
    assert_eq!(submit(&moved, "bake").await.status(), StatusCode::CREATED);
}
