//! The server's disk is full.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use kiln_api::{ProblemCode, Up};
use kiln_testkit::SmallDisk;
use kiln_types::{BlobHash, JobId, JobState, ReportOutcome, StepIndex};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinHandle};

use crate::steps::{add, deliver, deliver_all, merge, parts};
use crate::support::{FakeWorker, Farm, files_below, problem, soon};

#[tokio::test]
async fn a_full_disk_turns_bytes_away_and_loses_nothing() {
    let data = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(data.path(), 8) else { return };
    // Nothing is split meanwhile, so that every byte on the disk is accounted for.
    let farm = Farm::start_in(data, |options| options.chunks = false).await;
    let mut worker = FakeWorker::join(&farm, 1, "alpha", 1).await;
    let job = farm.submit("1-3").await;
    let mut tasks = worker.assignment().await.tasks;
    assert_eq!(worker.deliver(&tasks.remove(0)).await, ReportOutcome::Committed);
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
        assert_eq!(worker.deliver(&tasks.remove(0)).await, ReportOutcome::Committed);
    }
    farm.reaches(&job, JobState::Completed).await;
    let log = farm.get(&format!("/api/v1/jobs/{}/attempts/{attempt}/log", job.id)).await;
    assert_eq!(log.text().await.unwrap(), "", "the records need the room more than a log does");
    worker.leave().await;
    let mut farm = farm;
    farm.stop().await;
    drop(disk);
}

const MIB: usize = 1 << 20;

/// Some bytes that hash to a name of their own.
fn bytes(number: u8, mib: usize) -> Vec<u8> {
    vec![number; mib * MIB]
}

/// A body in pieces of a MiB, each sent when a word comes.
struct Slow {
    go: mpsc::UnboundedSender<()>,
    sent: JoinHandle<reqwest::Result<Response>>,
}

impl Slow {
    fn put(farm: &Farm, bytes: &[u8], announced: bool) -> Self {
        let (go, words) = mpsc::unbounded_channel();
        let pieces: Vec<Vec<u8>> = bytes.chunks(MIB).map(<[u8]>::to_vec).collect();
        let body =
            futures_util::stream::unfold((words, pieces.into_iter()), |(mut words, mut left)| async move {
                words.recv().await?;
                Some((Ok::<_, io::Error>(left.next()?), (words, left)))
            });
        let mut put = farm.request(Method::PUT, &format!("/api/v1/blobs/{}", BlobHash::of(bytes)));
        if announced {
            put = put.header("Content-Length", bytes.len());
        }
        let sent = tokio::spawn(put.body(reqwest::Body::wrap_stream(body)).send());
        Self { go, sent }
    }

    fn go(&self, pieces: usize) {
        for _ in 0..pieces {
            let _ = self.go.send(());
        }
    }

    /// Until the server writes.
    async fn begins(&self, farm: &Farm) {
        self.go(2);
        until("a begin", || written(farm) > 0).await;
    }

    async fn ends(self) -> Response {
        self.go(1000);
        soon("an answer", self.sent).await.unwrap().unwrap()
    }
}

async fn until(what: &str, so: impl Fn() -> bool) {
    soon(what, async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Bytes of files that are on their way.
fn written(farm: &Farm) -> u64 {
    let drafts = std::fs::read_dir(farm.data.path().join("tmp")).unwrap();
    drafts.filter_map(|draft| Some(draft.unwrap().metadata().ok()?.len())).sum()
}

/// `None` where the line broke, because the answer came before the body had gone.
async fn put(farm: &Farm, bytes: Vec<u8>) -> Option<Response> {
    let path = format!("/api/v1/blobs/{}", BlobHash::of(&bytes));
    soon("an answer", farm.request(Method::PUT, &path).body(bytes).send()).await.ok()
}

async fn is_full(answer: Option<Response>) {
    let Some(answer) = answer else { return };
    let full = problem(answer).await;
    assert_eq!((full.status, full.code), (507, ProblemCode::NoSpace), "{}", full.detail);
    assert!(full.detail.starts_with("The server's disk is full ("), "{}", full.detail);
}

#[tokio::test]
async fn of_uploads_that_fit_only_one_by_one_the_second_is_turned_away_before_it_writes() {
    for announced in [true, false] {
        let data = tempfile::tempdir().unwrap();
        let Some(disk) = SmallDisk::mount(data.path(), 20) else { return };
        let mut farm = Farm::start_in(data, |options| options.chunks = false).await;
        if announced {
            // Who goes away gives the room back.
            let gone = Slow::put(&farm, &bytes(5, 9), true);
            gone.begins(&farm).await;
            is_full(put(&farm, bytes(2, 9)).await).await;
            gone.sent.abort();
            until("the end of what it wrote", || written(&farm) == 0).await;
            let upload = json!({"name": "shot.blend", "size": 9 * MIB});
            soon("room", async {
                while farm.post("/api/v1/uploads", upload.clone()).await.status() != StatusCode::CREATED {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
            .await;
        }
        let first = Slow::put(&farm, &bytes(1, 9), announced);
        first.begins(&farm).await;
        if !announced {
            // What has come counts, and what is being written.
            first.go(5);
            until("most of it", || written(&farm) >= 6 * MIB as u64).await;
        }
        let before = files_below(farm.data.path());
        is_full(put(&farm, bytes(2, 9)).await).await;
        assert_eq!(files_below(farm.data.path()), before);
        let upload = json!({"name": "shot.blend", "size": 9 * MIB});
        is_full(Some(farm.post("/api/v1/uploads", upload).await)).await;
        let begun = farm.post("/api/v1/uploads", json!({"name": "shot.blend"})).await;
        let id = begun.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned();
        let patch = farm.request(Method::PATCH, &format!("/api/v1/uploads/{id}"));
        let patch = patch.header("Upload-Offset", 0).body(bytes(3, 9));
        is_full(soon("an answer", patch.send()).await.ok()).await;
        // One that fits beside it does, and the one that was promised its room has it.
        assert_eq!(put(&farm, bytes(4, 1)).await.unwrap().status(), StatusCode::NO_CONTENT);
        assert_eq!(first.ends().await.status(), StatusCode::NO_CONTENT);
        farm.stop().await;
        drop(disk);
    }
}

/// The least that was ever free while it watched, in bytes.
struct Watch {
    done: Arc<AtomicBool>,
    least: std::thread::JoinHandle<u64>,
}

impl Watch {
    fn of(folder: &Path) -> Self {
        let (folder, done) = (folder.to_owned(), Arc::new(AtomicBool::new(false)));
        let stop = done.clone();
        let least = std::thread::spawn(move || {
            let mut least = u64::MAX;
            while !stop.load(Ordering::Relaxed) {
                let disk = rustix::fs::statvfs(&folder).unwrap();
                least = least.min(disk.f_bavail * disk.f_frsize);
                std::thread::sleep(Duration::from_micros(200));
            }
            least
        });
        Self { done, least }
    }

    fn end(self) -> u64 {
        self.done.store(true, Ordering::Relaxed);
        self.least.join().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_bodies_without_a_length_leave_the_records_their_room_and_the_farm_goes_on() {
    let data = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(data.path(), 24) else { return };
    let mut farm = Farm::start_in(data, |options| options.chunks = false).await;
    let job = farm.submit("1").await;
    let mut paths = Vec::new();
    for number in 0..6_u8 {
        paths.push(if number.is_multiple_of(2) {
            let begun = farm.post("/api/v1/uploads", json!({"name": "shot.blend"})).await;
            let id = begun.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned();
            (Method::PATCH, format!("/api/v1/uploads/{id}"))
        } else {
            (Method::PUT, format!("/api/v1/blobs/{}", BlobHash::of(&vec![number; 10_000_000])))
        });
    }
    let watch = Watch::of(farm.data.path());
    let mut sending = tokio::task::JoinSet::new();
    for (number, (method, path)) in (0_u8..).zip(paths) {
        let pieces = (0..100).map(move |_| Ok::<_, io::Error>(vec![number; 100_000]));
        let body = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
        sending.spawn(farm.request(method, &path).header("Upload-Offset", 0).body(body).send());
    }
    let mut full = 0;
    while let Some(sent) = soon("an answer", sending.join_next()).await {
        match sent.unwrap() {
            Ok(answer) if answer.status().is_success() => {}
            refused => {
                is_full(refused.ok()).await;
                full += 1;
            }
        }
    }
    assert!(full >= 3, "six of 10 MB do not fit: {full} were turned away");
    // The records themselves have grown a little meanwhile.
    let least = watch.end();
    assert!(least >= (3 * MIB - MIB / 2) as u64, "only {least} bytes were left");
    // What needs no bytes goes on, and is on the disk.
    for frames in ["2", "3", "4"] {
        let longer = farm.post(&format!("/api/v1/jobs/{}/extend", job.id), json!({"frames": frames})).await;
        assert!(longer.status().is_success());
    }
    farm.stop().await;
    drop(disk);
}

/// Puts the bytes as often as the disk is full.
async fn put_at_last(farm: &Farm, bytes: &[u8]) {
    let stored = async {
        loop {
            match put(farm, bytes.to_vec()).await {
                Some(answer) if answer.status().is_success() => return,
                refused => is_full(refused).await,
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("room for them", stored).await;
}

#[tokio::test]
async fn used_intermediates_go_first_when_the_disk_is_full_and_needed_ones_stay() {
    let data = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(data.path(), 64) else { return };
    let mut farm = Farm::start_in(data, |options| options.chunks = false).await;
    let mut worker = FakeWorker::join(&farm, 1, "alpha", 1).await;
    let mut jobs = Vec::new();
    for _ in 0..2 {
        let job = farm.submit("1-2").await;
        worker.render(2).await;
        farm.reaches(&job, JobState::Completed).await;
        add(&farm, job.id, parts()).await;
        deliver_all(&farm, &mut worker, 4, 4 * MIB).await;
        jobs.push(farm.reaches(&job, JobState::Completed).await);
    }
    let [unmerged, merged] = &jobs[..] else { panic!("two jobs") };
    add(&farm, merged.id, merge()).await;
    let mut tasks = worker.assignment().await.tasks;
    let first = tasks.remove(0);
    assert_eq!(first.frame, Some(1));
    assert_eq!(deliver(&farm, &mut worker, &first, 0).await, ReportOutcome::Committed);
    if tasks.is_empty() {
        tasks = worker.assignment().await.tasks;
    }
    let second = tasks.remove(0);

    // How many files of the step are there for the frame; each can be read.
    let there = async |job: JobId, step, frame| {
        let page = farm.client.step_files(job, StepIndex(step), Some(frame), 0).await.unwrap();
        for file in &page.files {
            let bytes = farm.get(&format!("/api/v1/blobs/{}", file.hash)).await.bytes().await.unwrap();
            assert_eq!(BlobHash::of(&bytes), file.hash, "{}", file.path);
        }
        page.files.len()
    };
    let parts_of = async |job: JobId| [there(job, 1, 1).await, there(job, 1, 2).await];
    assert_eq!((parts_of(merged.id).await, parts_of(unmerged.id).await), ([2, 2], [2, 2]));

    // An eighth of the disk is the records'; two parts and what is left beside them hold these bytes.
    disk.fill_but(12 << 20);
    is_full(put(&farm, bytes(1, 6)).await).await;
    put_at_last(&farm, &bytes(1, 6)).await;
    assert_eq!((parts_of(merged.id).await, parts_of(unmerged.id).await), ([0, 2], [2, 2]));
    assert_eq!(there(merged.id, 2, 1).await, 1, "what was made of them stays");
    assert_eq!((there(merged.id, 0, 1).await, there(unmerged.id, 0, 1).await), (1, 1));

    // The next ones go when they are used.
    assert_eq!(deliver(&farm, &mut worker, &second, 0).await, ReportOutcome::Committed);
    farm.reaches(merged, JobState::Completed).await;
    assert_eq!(parts_of(merged.id).await, [0, 2], "not before they are in the way");
    is_full(put(&farm, bytes(2, 7)).await).await;
    put_at_last(&farm, &bytes(2, 7)).await;
    assert_eq!((parts_of(merged.id).await, parts_of(unmerged.id).await), ([0, 0], [2, 2]));

    let path = format!("/api/v1/jobs/{}/rerender", merged.id);
    let answer: Value = farm.post(&path, json!({"frames": "1"})).await.json().await.unwrap();
    assert_eq!(answer["again"], 2, "{answer}");
    worker.leave().await;
    farm.stop().await;
    drop(disk);
}
