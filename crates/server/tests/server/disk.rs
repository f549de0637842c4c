//! The server's disk is full.

use kiln_api::{ProblemCode, Up, Verdict};
use kiln_testkit::SmallDisk;
use kiln_types::{BlobHash, JobState};
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::{FakeWorker, Farm, files_below, problem};

#[tokio::test]
async fn a_full_disk_turns_bytes_away_and_loses_nothing() {
    let data = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(data.path(), 8) else { return };
    // Nothing is split meanwhile, so that every byte on the disk is accounted for.
    let farm = Farm::start_in(data, |options| options.chunks = false).await;
    let mut worker = FakeWorker::join(&farm, 1, "alpha", 1).await;
    let job = farm.submit("1-3").await;
    let mut tasks = worker.assignment().await.tasks;
    assert_eq!(worker.deliver(&tasks.remove(0)).await, Verdict::Committed);
    let before = files_below(farm.data.path());

    // Some room is left, but that is the records'.
    disk.fill_but(600 << 10);
    let bytes = vec![7; 100_000];
    let path = format!("/api/v1/blobs/{}", BlobHash::of(&bytes));
    let full = farm.request(Method::PUT, &path).body(bytes.clone()).send().await.unwrap();
    let full = problem(full).await;
    assert_eq!((full.status, full.code), (507, ProblemCode::NoSpace));
    assert!(full.detail.starts_with("The server's disk is full"), "{}", full.detail);
    let upload = json!({"name": "shot.blend", "size": 100_000});
    assert_eq!(farm.post("/api/v1/uploads", upload.clone()).await.status(), StatusCode::INSUFFICIENT_STORAGE);
    // Nothing is left of them.
    let mut now = files_below(farm.data.path());
    now.retain(|name| name != "ballast");
    assert_eq!(now, before);

    // Work goes on as far as it needs no bytes, and what was acknowledged is there.
    if tasks.is_empty() {
        tasks = worker.assignment().await.tasks;
    }
    let attempt = tasks[0].attempt;
    worker.say(Up::Started { attempt }).await;
    worker.say(Up::Log { attempt, text: "what nobody has room for".into() }).await;
    let longer = farm.post(&format!("/api/v1/jobs/{}/extend", job.id), json!({"frames": "4"})).await;
    assert!(longer.status().is_success());
    let first = format!("/api/v1/jobs/{}/files/out/frame_0001.png", job.id);
    assert_eq!(farm.get(&first).await.status(), StatusCode::OK);

    // Bytes that no length announces fill the disk to the end: they are turned away all the same.
    disk.make_room();
    let pieces = (0..200).map(|_| Ok::<_, std::io::Error>(vec![9; 100_000]));
    let endless = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
    let path = format!("/api/v1/blobs/{}", BlobHash::of(b"something else"));
    let full = farm.request(Method::PUT, &path).body(endless).send().await.unwrap();
    assert_eq!(problem(full).await.status, 507);
    assert_eq!(files_below(farm.data.path()), before);

    // With room again, everything goes on.
    assert!(
        farm.request(Method::PUT, &format!("/api/v1/blobs/{}", BlobHash::of(&bytes)))
            .body(bytes)
            .send()
            .await
            .unwrap()
            .status()
            .is_success()
    );
    for _ in 2..=4 {
        if tasks.is_empty() {
            tasks = worker.assignment().await.tasks;
        }
        assert_eq!(worker.deliver(&tasks.remove(0)).await, Verdict::Committed);
    }
    farm.reaches(&job, JobState::Completed).await;
    let log = farm.get(&format!("/api/v1/jobs/{}/attempts/{attempt}/log", job.id)).await;
    assert_eq!(log.text().await.unwrap(), "", "the records need the room more than a log does");
    worker.leave().await;
    let mut farm = farm;
    farm.stop().await;
    drop(disk);
}
