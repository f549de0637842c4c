//! Collections without a pause beside clients that ask, send, submit, cancel, fetch and delete, over real HTTP.

mod products;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use kiln_api::{JobSource, SubmitJob, Up, UploadFinished};
use kiln_client::{ClientError, JobFilter};
use kiln_server::{Retention, RetentionPeriod};
use kiln_types::{
    ArchivedFilter, BlobHash, Bundle, BundleFile, BundleId, JobId, JobState, RelPath, StepKind,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use reqwest::Method;
use serde_json::json;

use crate::support::{FakeWorker, Farm, files_below, sample, soon};

/// So short that promises sometimes expire between two requests.
const PROMISE: Duration = Duration::from_millis(300);
const CLIENTS: u64 = 4;
/// Jobs that each client makes at least; it continues until every race has happened often enough.
const ROUNDS: u32 = 12;
/// The number of times that each race must happen.
const OFTEN: u64 = 6;
/// The time within which this must happen, on a machine that is not too busy.
const LIMIT: Duration = Duration::from_secs(300);
/// Textures that the clients share.
const SHARED: u64 = 3;

fn every_one() -> JobFilter {
    JobFilter { archived: ArchivedFilter::All, ..JobFilter::default() }
}

/// The number of times that each race happened, so that the test cannot pass without them.
#[derive(Debug, Default)]
struct Seen {
    promises_kept: AtomicU64,
    jobs: AtomicU64,
    /// Whole bundles of open jobs.
    read: AtomicU64,
    /// Bundles that were removed while they were read, because nothing needed them.
    lost: AtomicU64,
    fetched: AtomicU64,
    uploads: AtomicU64,
    too_late: AtomicU64,
    /// Collections, and what they removed.
    rounds: AtomicU64,
    blobs: AtomicU64,
    bundles: AtomicU64,
    intermediates: AtomicU64,
    /// Frames whose parts a worker read and merged.
    merged: AtomicU64,
    /// Previews that were there for as long as their frames.
    previews: AtomicU64,
    /// Parts that were made again, because they had been removed.
    again: AtomicU64,
    /// The time of the last request for each blob that was answered with a promise.
    promised: Mutex<HashMap<BlobHash, Instant>>,
}

impl Seen {
    /// Returns whether every race has happened often enough to prove something.
    fn is_enough(&self) -> bool {
        let often = [&self.uploads, &self.fetched, &self.promises_kept, &self.read, &self.bundles];
        let more = [&self.rounds, &self.blobs];
        let reached = |seen: &AtomicU64, least| seen.load(Ordering::Relaxed) >= least;
        often.into_iter().all(|seen| reached(seen, OFTEN)) && more.into_iter().all(|seen| reached(seen, 21))
    }

    fn promise(&self, asked: Instant, hashes: impl IntoIterator<Item = BlobHash>) {
        let mut promised = self.promised.lock().unwrap();
        for hash in hashes {
            let last = promised.entry(hash).or_insert(asked);
            *last = asked.max(*last);
        }
    }

    /// Returns whether a promise of the blob still holds.
    fn is_promised(&self, hash: &BlobHash) -> bool {
        self.promised.lock().unwrap().get(hash).is_some_and(|asked| asked.elapsed() < PROMISE)
    }
}

/// The blob of a bundle that was not there, or broke off.
struct Lost {
    hash: BlobHash,
    why: String,
}

struct Person {
    farm: Arc<Farm>,
    seen: Arc<Seen>,
    rng: StdRng,
    number: u64,
}

impl Person {
    async fn live(mut self) {
        let started = Instant::now();
        for round in 0.. {
            if round >= ROUNDS && self.seen.is_enough() {
                break;
            }
            assert!(started.elapsed() < LIMIT, "not everything was met within {LIMIT:?}: {:?}", self.seen);
            let job = if self.rng.random_bool(0.3) { self.upload().await } else { self.bundle(round).await };
            self.seen.jobs.fetch_add(1, Ordering::Relaxed);
            let spec = self.farm.client.job(job).await.unwrap().spec;
            // What an open job needs is there, at whatever moment.
            for _ in 0..3 {
                let before = self.needing(spec.session.bundle).await;
                let read = self.read_all(spec.session.bundle).await;
                let promised = read.as_ref().is_err_and(|lost| self.seen.is_promised(&lost.hash));
                let mut open = self.needing(spec.session.bundle).await;
                match read {
                    Ok(()) if open.contains(&job) => drop(self.seen.read.fetch_add(1, Ordering::Relaxed)),
                    Ok(()) => {}
                    // The read may break off only if nothing needs the blob: no job of the same files that was open all the
                    // time, and no promise.
                    Err(Lost { hash, why }) => {
                        open.retain(|job| before.contains(job));
                        assert!(open.is_empty(), "the open jobs {open:?} lost {hash}: {why}");
                        assert!(!promised, "{hash} was promised and is lost: {why}");
                        self.seen.lost.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            match self.rng.random_range(0..4) {
                0 => self.farm.client.cancel(job).await.unwrap_or_else(|error| ended(&error)),
                1 => {}
                _ => self.fetch(job).await,
            }
            if self.rng.random_bool(0.7) {
                self.farm.client.delete(job, true).await.unwrap();
            }
        }
    }

    /// Returns the open jobs of this bundle.
    async fn needing(&self, bundle: BundleId) -> Vec<JobId> {
        let jobs = self.farm.client.jobs(&every_one()).await.unwrap().jobs;
        let open = jobs.iter().filter(|job| job.spec.session.bundle == bundle && !job.state.is_end());
        open.map(|job| job.id).collect()
    }

    /// Sends the missing files, then makes a bundle and a job of them; again from the start if that took too long.
    async fn bundle(&mut self, round: u32) -> JobId {
        let own = format!("texture {} of {}", round % 3, self.number);
        let shared = format!("texture {}", self.rng.random_range(0..SHARED));
        let files = [("shot.blend", sample()), ("own.png", own.into()), ("shared.png", shared.into())];
        let bundle = Bundle {
            files: files
                .iter()
                .map(|(path, bytes)| BundleFile {
                    path: RelPath::new(path).unwrap(),
                    hash: BlobHash::of(bytes),
                    size: bytes.len() as u64,
                })
                .collect(),
            ..Bundle::default()
        };
        loop {
            let asked = Instant::now();
            let hashes: Vec<BlobHash> = bundle.files.iter().map(|file| file.hash).collect();
            let missing = self.farm.client.missing(&hashes).await.unwrap();
            for (file, (_, bytes)) in bundle.files.iter().zip(&files) {
                if missing.contains(&file.hash) {
                    self.farm.client.put_blob_bytes(file.hash, bytes.clone().into()).await.unwrap();
                } else {
                    self.promised(asked, file.hash).await;
                }
            }
            self.seen.promise(asked, hashes);
            let made = Instant::now();
            match self.farm.client.create_bundle(&bundle).await {
                Ok(id) => match self
                    .submit(JobSource::Bundle {
                        id,
                        blend: RelPath::new("shot.blend").unwrap(),
                        origin: None,
                        file_name: None,
                    })
                    .await
                {
                    Ok(job) => return job,
                    Err(error) => self.late(made, &error),
                },
                Err(error) => self.late(asked, &error),
            }
        }
    }

    /// Checks that a promised blob can be read while the promise holds.
    async fn promised(&self, asked: Instant, hash: BlobHash) {
        let there = blob(&self.farm, hash).await.is_ok();
        if asked.elapsed() < PROMISE {
            assert!(there, "{hash} was promised {:?} ago and is gone", asked.elapsed());
            self.seen.promises_kept.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Checks that a refusal came after the end of the promise.
    fn late(&self, since: Instant, error: &ClientError) {
        let elapsed = since.elapsed();
        assert!(elapsed >= PROMISE, "after {elapsed:?}: {error}");
        assert!(matches!(error, ClientError::Problem(_)), "{error}");
        self.seen.too_late.fetch_add(1, Ordering::Relaxed);
    }

    /// Makes a job of a finished upload, whatever time that takes.
    async fn upload(&self) -> JobId {
        let id = self.farm.upload().await;
        tokio::task::yield_now().await;
        let again = self.farm.post(&format!("/api/v1/uploads/{id}/finish"), json!({})).await;
        let UploadFinished { hash, .. } = again.json().await.unwrap();
        assert!(self.farm.get(&format!("/api/v1/blobs/{hash}")).await.status().is_success());
        self.seen.uploads.fetch_add(1, Ordering::Relaxed);
        self.submit(JobSource::Upload { id: id.parse().unwrap() }).await.unwrap()
    }

    async fn submit(&self, source: JobSource) -> Result<JobId, ClientError> {
        let job: SubmitJob = serde_json::from_value(json!({ "source": source, "frames": "1-2" })).unwrap();
        Ok(self.farm.client.submit(&job).await?.id)
    }

    async fn read_all(&self, id: BundleId) -> Result<(), Lost> {
        let answer = self.farm.get(&format!("/api/v1/bundles/{id}")).await;
        if !answer.status().is_success() {
            return Err(Lost { hash: id.0, why: format!("the bundle: {}", answer.status()) });
        }
        let bundle: Bundle = answer.json().await.unwrap();
        for file in &bundle.files {
            let lost = |why: String| Lost { hash: file.hash, why: format!("{}: {why}", file.path) };
            blob(&self.farm, file.hash).await.map_err(lost)?;
        }
        Ok(())
    }

    /// Checks that all frames are there until they are reported as fetched.
    async fn fetch(&self, job: JobId) {
        let view = self.farm.client.job(job).await.unwrap();
        self.farm.reaches(&view, JobState::Completed).await;
        let page = self.farm.client.outputs(job, 0).await.unwrap();
        assert_eq!(page.outputs.len(), 2);
        for output in &page.outputs {
            let file = &output.files.files()[0];
            let bytes = self.farm.get(&format!("/api/v1/jobs/{job}/files/{}", file.path)).await;
            assert_eq!(BlobHash::of(&bytes.bytes().await.unwrap()), file.hash, "{}", file.path);
        }
        self.farm.client.fetched(job, page.outputs[1].sequence).await.unwrap();
        self.seen.fetched.fetch_add(1, Ordering::Relaxed);
    }
}

/// Reads a blob to its end, or returns the reason why it cannot. The read of a blob that is removed meanwhile breaks off.
async fn blob(farm: &Farm, hash: BlobHash) -> Result<Bytes, String> {
    let asked = farm.request(Method::GET, &format!("/api/v1/blobs/{hash}")).send();
    let answer = soon("an answer", asked).await.map_err(|error| error.to_string())?;
    if !answer.status().is_success() {
        return Err(answer.status().to_string());
    }
    let bytes = soon("the bytes", answer.bytes()).await.map_err(|error| error.to_string())?;
    assert_eq!(BlobHash::of(&bytes), hash);
    Ok(bytes)
}

/// Checks the error of a cancellation: the job was completed before.
fn ended(error: &ClientError) {
    assert!(error.to_string().contains("has ended"), "{error}");
}

/// Takes assignments until it is stopped, also of jobs that are cancelled meanwhile.
async fn work(
    mut worker: FakeWorker,
    farm: Arc<Farm>,
    seen: Arc<Seen>,
    mut stopped: tokio::sync::oneshot::Receiver<()>,
) {
    let mut beat = tokio::time::interval(Duration::from_millis(worker.welcome.heartbeat_ms));
    loop {
        let assignment = tokio::select! {
            _ = &mut stopped => return worker.leave().await,
            _ = beat.tick() => {
                worker.say(Up::Heartbeat).await;
                continue;
            }
            assignment = worker.assignment() => assignment,
        };
        for task in assignment.tasks {
            worker.say(Up::Started { attempt: task.attempt }).await;
            worker.say(Up::Log { attempt: task.attempt, text: "Fra\n".into() }).await;
            match assignment.work.kind {
                StepKind::Test => products::make(&mut worker, &farm, &seen, &task).await,
                _ => drop(worker.deliver(&task).await),
            }
        }
    }
}

/// Collects all the time while the clients run, and afterwards everything that they left.
async fn race<Life>(bundles: RetentionPeriod, live: fn(Person) -> Life) -> Arc<Seen>
where
    Life: Future<Output = ()> + Send + 'static,
{
    let now = RetentionPeriod::After(Duration::ZERO);
    let farm = Farm::start_in(tempfile::tempdir().unwrap(), |options| {
        options.retention = Some(Retention {
            bundles,
            outputs: now,
            intermediates: now,
            logs: now,
            promises: RetentionPeriod::After(PROMISE),
            ..Retention::default()
        });
    })
    .await;
    let farm = Arc::new(farm);
    let (seen, done) = (Arc::new(Seen::default()), Arc::new(AtomicBool::new(false)));
    let worker = FakeWorker::join(&farm, 1, "alpha", 2).await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let working = tokio::spawn(work(worker, farm.clone(), seen.clone(), stopped));
    let collecting = tokio::spawn({
        let (farm, done, seen) = (farm.clone(), done.clone(), seen.clone());
        async move {
            while !done.load(Ordering::Relaxed) {
                let went = farm.collect_as_of(SystemTime::now()).await;
                seen.rounds.fetch_add(1, Ordering::Relaxed);
                seen.blobs.fetch_add(went.blobs, Ordering::Relaxed);
                seen.bundles.fetch_add(went.bundles, Ordering::Relaxed);
                seen.intermediates.fetch_add(went.intermediates, Ordering::Relaxed);
            }
        }
    });
    let people: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let rng = StdRng::seed_from_u64(number);
            tokio::spawn(live(Person { farm: farm.clone(), seen: seen.clone(), rng, number }))
        })
        .collect();
    for person in people {
        person.await.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    collecting.await.unwrap();
    let _ = stop.send(());
    soon("the worker's end", working).await.unwrap();

    // Once the jobs are deleted, a collection empties the disk.
    for job in farm.client.jobs(&every_one()).await.unwrap().jobs {
        farm.client.delete(job.id, true).await.unwrap();
    }
    let emptied = async {
        // A file that was being split when its job was deleted is stored a little later.
        while files_below(farm.data.path()) != ["farm.key", "kiln.lock", "server.json"] {
            farm.collect_as_of(SystemTime::now() + Duration::from_secs(8 * 24 * 60 * 60)).await;
        }
    };
    soon("an empty disk", emptied).await;
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_that_is_needed_is_lost_and_nothing_else_stays() {
    let seen = race(RetentionPeriod::After(Duration::ZERO), Person::live).await;
    let count = |seen: &AtomicU64| seen.load(Ordering::Relaxed);
    println!(
        "{} collections, {} blobs and {} bundles went; {} jobs, {} of uploads, {} fetched, {} promises kept, \
         {} lost while they were read, {} came too late",
        count(&seen.rounds),
        count(&seen.blobs),
        count(&seen.bundles),
        count(&seen.jobs),
        count(&seen.uploads),
        count(&seen.fetched),
        count(&seen.promises_kept),
        count(&seen.lost),
        count(&seen.too_late)
    );
    assert!(seen.is_enough());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn parts_and_previews_are_there_as_long_as_they_are_needed() {
    let seen = race(Retention::default().bundles, Person::live_with_products).await;
    let counts = [&seen.jobs, &seen.rounds, &seen.merged, &seen.previews, &seen.again, &seen.intermediates];
    println!("jobs, collections, merged, previews, again, removed: {counts:?}");
    assert!(seen.is_enough_of_products());
}
