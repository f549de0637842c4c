//! Workers: connections, desired states and availability.

use kiln_api::{Down, Hello, JobView, Unavailability, UnmetRequirement, UnmetView, Up, WaitReason};
use kiln_types::{BlenderSeries, DesiredState, HeldPhase, JobState, WorkerState};
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::{FakeWorker, Farm, held, hello, problem, soon};

#[tokio::test]
async fn another_protocol_is_refused_with_a_reason() {
    let farm = Farm::start().await;
    let mut hello = hello(1, "future", 1);
    hello.protocol = 99;
    let mut link = farm.client.connect_worker().await.unwrap();
    link.send(&Up::Hello(Box::new(hello))).await.unwrap();
    let Some(Down::Refused { reason }) = soon("a refusal", link.recv()).await.unwrap() else { panic!() };
    assert!(reason.contains("protocol 99") && reason.contains("update"), "{reason}");
    assert!(!matches!(soon("the end", link.recv()).await, Ok(Some(_))));
    assert!(farm.client.workers().await.unwrap().is_empty());
}

#[tokio::test]
async fn the_first_message_is_a_hello() {
    let farm = Farm::start().await;
    let mut link = farm.client.connect_worker().await.unwrap();
    link.send(&Up::Heartbeat).await.unwrap();
    assert!(matches!(soon("a refusal", link.recv()).await, Ok(Some(Down::Refused { .. }))));
}

#[tokio::test]
async fn names_are_unique_and_links_replaced() {
    let farm = Farm::start().await;
    let mut first = FakeWorker::join(&farm, 1, "studio", 1).await;
    let second = FakeWorker::join(&farm, 2, "studio", 1).await;
    assert_eq!((first.welcome.name.as_str(), second.welcome.name.as_str()), ("studio", "studio-2"));
    let again = FakeWorker::join(&farm, 1, "studio", 1).await;
    assert_eq!(again.welcome.name, "studio");
    // The older connection of the same worker ends; its end does not make the worker leave.
    while first.next_or_end().await.is_some() {}
    let workers = farm.client.workers().await.unwrap();
    assert_eq!(workers.len(), 2);
    assert!(workers.iter().all(|worker| worker.state == WorkerState::Idle), "{workers:?}");
}

#[tokio::test]
async fn desired_states_reach_the_worker_and_outlive_the_server() {
    let farm = Farm::start().await;
    let mut worker = FakeWorker::join(&farm, 1, "alpha", 1).await;
    farm.client.tell_worker("alpha", "pause").await.unwrap();
    assert!(matches!(worker.next().await, Down::DesiredState { desired: DesiredState::Paused }));
    let farm = farm.restart().await;
    let mut worker = FakeWorker::join(&farm, 1, "alpha", 1).await;
    assert_eq!(worker.welcome.desired, DesiredState::Paused);
    let job = farm.submit("1").await;
    let waiting = farm.client.job(job.id).await.unwrap();
    let paused = WaitReason::NotWorking { paused: 1, draining: 0, unavailable: 0, quarantined: 0, silent: 0 };
    assert_eq!(waiting.waits_for, Some(paused));
    farm.client.tell_worker("alpha", "resume").await.unwrap();
    worker.render(1).await;
    farm.reaches(&job, JobState::Completed).await;

    let connected = farm.request(Method::DELETE, "/api/v1/workers/alpha").send().await.unwrap();
    assert_eq!(problem(connected).await.status, 409);
    worker.leave().await;
    let gone = async {
        while farm.client.workers().await.unwrap()[0].state != WorkerState::Offline {
            tokio::task::yield_now().await;
        }
    };
    soon("the worker offline", gone).await;
    assert_eq!(problem(farm.post("/api/v1/workers/alpha/drain", json!({})).await).await.status, 409);
    farm.client.remove_worker("alpha").await.unwrap();
    assert!(farm.client.workers().await.unwrap().is_empty());
    assert_eq!(farm.get("/api/v1/workers/alpha").await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_unavailable_worker_gets_no_task_and_reports_the_reason() {
    let farm = Farm::start().await;
    let reason = Unavailability { why: "asleep\u{7} until 08:00".to_owned(), until_ms: Some(1) };
    let asleep =
        Hello { tags: vec!["attic".parse().unwrap()], unavailable: Some(reason), ..hello(1, "attic", 1) };
    let blenders = asleep.blenders.clone();
    let mut sleeper = FakeWorker::join_as(&farm, asleep).await;
    let job = farm.submit("1-2").await;
    let view = farm.client.workers().await.unwrap().remove(0);
    assert_eq!(view.state, WorkerState::Unavailable);
    assert_eq!(view.unavailable.unwrap().why, "asleep until 08:00", "nothing that moves a terminal");
    assert_eq!((view.tags, view.offered.cores), (vec!["attic".to_owned()], 4));
    let why = farm.client.job(job.id).await.unwrap().waits_for;
    assert_eq!(why.unwrap().to_string(), "No worker that could take it works now: 1 unavailable.");
    sleeper.say(Up::Offer { blenders, unavailable: None }).await;
    assert_eq!(sleeper.assignment().await.tasks.len(), 2);
}

#[tokio::test]
async fn a_requirement_that_no_worker_meets_is_named() {
    let farm = Farm::start().await;
    let id = farm.upload().await;
    let _worker = FakeWorker::join(&farm, 1, "alpha", 1).await;
    let submit = async |change: serde_json::Value| {
        let mut request = json!({"source": {"upload": {"id": id}}, "frames": "1"});
        request.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let job: JobView = farm.post("/api/v1/jobs", request).await.json().await.unwrap();
        farm.client.job(job.id).await.unwrap()
    };
    let job = submit(json!({"blender": "4.5", "settings": {"engine": "CYCLES"}})).await;
    let blender = || UnmetRequirement::Blender { series: BlenderSeries { major: 4, minor: 5 } };
    let waits = WaitReason::NoWorkerFits {
        missing: vec![blender()],
        nearest: "alpha".to_owned(),
        nearest_missing: vec![blender()],
        any_gpu: false,
    };
    assert_eq!(job.waits_for, Some(waits));
    assert_eq!(job.unmet, [UnmetView { worker: "alpha".to_owned(), missing: vec![blender()] }]);
    let text = |job: JobView| job.waits_for.unwrap().to_string();
    let job = submit(json!({"device": "cuda"})).await;
    assert_eq!(text(job), "No worker of the farm has a cuda device for Blender 3.4.");
    let job = submit(json!({"settings": {"engine": "LUXCORE"}})).await;
    assert_eq!(text(job), "No worker of the farm has the engine LUXCORE in Blender 3.4.");
}

#[tokio::test]
async fn the_attempt_of_a_silent_worker_expires_and_runs_elsewhere() {
    let data = tempfile::tempdir().unwrap();
    let farm = Farm::start_in(data, |options| options.lease_ms = 2000).await;
    let mut silent = FakeWorker::join(&farm, 1, "silent", 1).await;
    let job = farm.submit("1").await;
    let assignment = silent.assignment().await;
    let task = assignment.tasks[0].clone();
    silent.say(Up::Started { attempt: task.attempt }).await;
    farm.reaches(&job, JobState::Running).await;
    silent.leave().await;
    let mut other = FakeWorker::join(&farm, 2, "other", 1).await;
    let again = other.assignment().await.tasks.remove(0);
    assert!(again.task == task.task && again.attempt > task.attempt);
    other.say(Up::Started { attempt: again.attempt }).await;
    assert_eq!(other.deliver(&again).await, kiln_types::ReportOutcome::Committed);
    farm.reaches(&job, JobState::Completed).await;

    // The first worker is back and delivers the frame: the report is answered and dropped.
    let mut hello = hello(1, "silent", 1);
    hello.held = vec![held(&assignment, &task, |slot| HeldPhase::Finished { slot })];
    let mut silent = FakeWorker::join_as(&farm, hello).await;
    let outcome = silent.deliver(&task).await;
    assert!(
        matches!(outcome, kiln_types::ReportOutcome::Superseded | kiln_types::ReportOutcome::Unknown),
        "{outcome:?}"
    );
    let outputs = farm.client.outputs(job.id, 0).await.unwrap().outputs;
    assert_eq!(outputs.len(), 1);
}
