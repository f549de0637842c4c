//! Retention: everything expires, and nothing too early.

use std::time::{Duration, SystemTime};

use kiln_api::{Collected, JobList, JobView, OutputsPage, ProblemCode, RetentionState, Up};
use kiln_server::{Retention, RetentionPeriod, ServerOptions};
use kiln_types::{JobState, ReportOutcome};
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::{FakeWorker, Farm, files_below, problem};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn in_days(days: u32) -> SystemTime {
    SystemTime::now() + DAY * days
}

async fn rendered(farm: &Farm, frames: &str, count: u32) -> JobView {
    let mut worker = FakeWorker::join(farm, 1, "alpha", 1).await;
    let job = farm.submit(frames).await;
    worker.render(count).await;
    let job = farm.reaches(&job, JobState::Completed).await;
    worker.leave().await;
    job
}

async fn outputs(farm: &Farm, job: &JobView) -> OutputsPage {
    farm.client.outputs(job.id, 0).await.unwrap()
}

async fn refusal(farm: &Farm, method: Method, path: String) -> kiln_api::Problem {
    problem(farm.request(method, &path).send().await.unwrap()).await
}

#[tokio::test]
async fn everything_expires_at_its_time() {
    // Nothing is split meanwhile, so that every blob is counted once.
    let whole = |options: &mut ServerOptions| options.chunks = false;
    let farm = Farm::start_in(tempfile::tempdir().unwrap(), whole).await;
    let mut worker = FakeWorker::join(&farm, 1, "alpha", 1).await;
    let job = farm.submit("1").await;
    assert_eq!(job.kept.outputs, RetentionState::WhileOpen);
    let task = worker.assignment().await.tasks.remove(0);
    worker.say(Up::Started { attempt: task.attempt }).await;
    worker.say(Up::Log { attempt: task.attempt, text: "Fra:1\n".into() }).await;
    // Nothing of an open job expires; only the packed upload does, of which the job has an unpacked copy.
    let none = farm.collect_as_of(in_days(9000)).await;
    assert_eq!((none.inputs.len(), none.blobs, none.log_bytes), (0, 1, 0));
    assert!(none.events > 1);
    assert_eq!(none.uploads, 1, "the job does not need the upload");
    assert_eq!(worker.deliver(&task).await, ReportOutcome::Committed);
    let job = farm.reaches(&job, JobState::Completed).await;
    let path = format!("/api/v1/jobs/{}", job.id);
    let log = format!("{path}/attempts/{}/log", task.attempt);
    assert_eq!(farm.get(&log).await.text().await.unwrap(), "Fra:1\n");
    worker.leave().await;

    assert_eq!(farm.collect_as_of(in_days(6)).await.inputs, []);
    let went = farm.collect_as_of(in_days(8)).await;
    assert_eq!((went.inputs, went.bundles, went.uploads), (vec![job.id], 1, 0));
    // The manifest and the .blend.
    assert_eq!((went.blobs, went.outputs.len(), went.logs.len()), (2, 0, 0));
    for (verb, body) in [("rerender", json!({})), ("retry", json!({})), ("extend", json!({"frames": "2"}))] {
        let why = problem(farm.post(&format!("{path}/{verb}"), body).await).await;
        let want =
            format!("The files of job {} were removed 8 days after it ended; submit it again.", job.id);
        assert_eq!((why.status, why.detail), (409, want));
    }
    let farm = farm.restart().await;
    let why = refusal(&farm, Method::POST, format!("{path}/rerender")).await;
    assert!(why.detail.contains("8 days after it ended"), "{}", why.detail);

    // Frames that were not fetched stay.
    let went = farm.collect_as_of(in_days(9000)).await;
    assert_eq!((went.outputs, went.logs, went.log_bytes, went.blobs), (vec![], vec![job.id], 6, 0));
    let gone = problem(farm.get(&log).await).await;
    assert_eq!((gone.status, gone.code), (410, ProblemCode::Gone));
    assert_eq!(problem(farm.get(&format!("{path}/logs")).await).await.status, 410);
    let page = outputs(&farm, &job).await;
    assert_eq!(page.outputs[0].gone_ms, None);
    farm.client.fetched(job.id, page.outputs[0].sequence).await.unwrap();
    let went = farm.collect_as_of(in_days(29)).await;
    assert_eq!((went.outputs, went.events), (vec![], 0));
    let file = format!("{path}/files/out/frame_0001.png");
    assert_eq!(farm.get(&file).await.status(), StatusCode::OK);
    let went = farm.collect_as_of(in_days(31)).await;
    assert_eq!((went.outputs, went.blobs), (vec![job.id], 1));
    let gone = problem(farm.get(&file).await).await;
    assert_eq!((gone.status, gone.code), (410, ProblemCode::Gone));
    let hash = outputs(&farm, &job).await.outputs[0].files.files()[0].hash;
    assert_eq!(problem(farm.get(&format!("/api/v1/blobs/{hash}")).await).await.status, 410);
    assert!(outputs(&farm, &job).await.outputs[0].gone_ms.is_some());
    let kept = farm.client.job(job.id).await.unwrap().kept;
    assert!(
        [kept.inputs, kept.outputs, kept.logs].iter().all(|kept| matches!(kept, RetentionState::Gone { .. })),
        "{kept:?}"
    );
    // The report stays.
    assert_eq!(farm.client.report(job.id).await.unwrap().workers[0].worker, "alpha");
}

#[tokio::test]
async fn a_dry_run_reports_what_a_collection_removes() {
    let farm = Farm::start_in(tempfile::tempdir().unwrap(), |options: &mut ServerOptions| {
        let now = RetentionPeriod::After(Duration::ZERO);
        let all = Retention {
            bundles: now,
            outputs: now,
            intermediates: now,
            logs: now,
            events: now,
            uploads: now,
            promises: now,
        };
        options.retention = Some(all);
        options.chunks = false;
    })
    .await;
    let job = rendered(&farm, "1-2", 2).await;
    let last = outputs(&farm, &job).await.outputs.last().unwrap().sequence;
    farm.client.fetched(job.id, last).await.unwrap();
    // Times are compared in milliseconds.
    let before = farm.client.job(job.id).await.unwrap();
    while SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as i64
        <= before.ended_ms.unwrap() + 40
    {
        tokio::task::yield_now().await;
    }
    let there = files_below(farm.data.path());
    let would = farm.client.collect(true).await.unwrap();
    assert_eq!(files_below(farm.data.path()), there);
    assert_eq!(farm.client.job(job.id).await.unwrap(), before);
    let did = farm.client.collect(false).await.unwrap();
    assert!(would.dry_run && !did.dry_run);
    let plain = |collected: Collected| Collected { dry_run: false, seconds: 0.0, events: 0, ..collected };
    assert_eq!(plain(would), plain(did.clone()));
    assert_eq!((did.inputs, did.outputs, did.logs), (vec![job.id], vec![job.id], vec![job.id]));
    // Two frames, the manifest, the .blend as it was uploaded, and unpacked.
    assert_eq!((did.blobs, did.bundles, did.uploads), (5, 1, 1));
    assert_eq!(files_below(farm.data.path()), ["farm.key", "kiln.lock", "server.json"]);
}

#[tokio::test]
async fn frames_that_are_gone_are_rendered_again() {
    let farm = Farm::start_in(tempfile::tempdir().unwrap(), |options: &mut ServerOptions| {
        options.retention = Some(Retention { bundles: RetentionPeriod::Never, ..Retention::default() });
    })
    .await;
    let job = rendered(&farm, "1-2", 2).await;
    let last = outputs(&farm, &job).await.outputs.last().unwrap().sequence;
    farm.client.fetched(job.id, last).await.unwrap();
    assert_eq!(farm.collect_as_of(in_days(40)).await.outputs, [job.id]);
    farm.client.rerender(job.id, Some("2".parse().unwrap())).await.unwrap();
    let mut worker = FakeWorker::join(&farm, 1, "alpha", 1).await;
    worker.render(1).await;
    let job = farm.reaches(&job, JobState::Completed).await;
    assert_eq!(job.kept.outputs, RetentionState::UntilFetched);
    let files = format!("/api/v1/jobs/{}/files/out", job.id);
    assert_eq!(farm.get(&format!("{files}/frame_0001.png")).await.status(), StatusCode::GONE);
    assert_eq!(farm.collect_as_of(in_days(9000)).await.outputs, []);
    assert_eq!(farm.get(&format!("{files}/frame_0002.png")).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn an_archived_job_is_not_listed_and_cannot_render() {
    let farm = Farm::start().await;
    let open = farm.submit("1").await;
    let path = |what: &str| format!("/api/v1/jobs/{}/{what}", open.id);
    let why = refusal(&farm, Method::POST, path("archive")).await;
    assert_eq!((why.status, why.code), (409, ProblemCode::Conflict));
    farm.client.cancel(open.id).await.unwrap();
    farm.client.archive(open.id).await.unwrap();
    farm.client.archive(open.id).await.unwrap();
    let listed = async |which: &str| -> usize {
        farm.get(&format!("/api/v1/jobs{which}")).await.json::<JobList>().await.unwrap().jobs.len()
    };
    assert_eq!((listed("").await, listed("?archived=only").await, listed("?archived=all").await), (0, 1, 1));
    let why = refusal(&farm, Method::POST, path("retry")).await;
    assert!(why.detail.contains("kiln jobs unarchive"), "{}", why.detail);
    // The files are promised for a day after they arrived, and an archived job does not keep them for a week.
    assert_eq!(farm.collect_as_of(SystemTime::now()).await.inputs, []);
    farm.client.unarchive(open.id).await.unwrap();
    assert_eq!(farm.collect_as_of(in_days(2)).await.inputs, []);
    farm.client.archive(open.id).await.unwrap();
    assert_eq!(farm.collect_as_of(in_days(2)).await.inputs, [open.id]);
    farm.client.unarchive(open.id).await.unwrap();
    let why = refusal(&farm, Method::POST, path("retry")).await;
    assert!(why.detail.contains("were removed"), "{}", why.detail);
}

#[tokio::test]
async fn a_temporary_server_collects_nothing() {
    let farm =
        Farm::start_in(tempfile::tempdir().unwrap(), |options: &mut ServerOptions| options.retention = None)
            .await;
    let job = rendered(&farm, "1", 1).await;
    assert_eq!(job.kept.inputs, RetentionState::UntilDeleted);
    let why = refusal(&farm, Method::POST, "/api/v1/farm/collect".to_owned()).await;
    assert_eq!(why.code, ProblemCode::Conflict);
}
