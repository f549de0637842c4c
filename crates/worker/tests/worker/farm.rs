//! The server's side of the protocol, played by a test: real HTTP, a real WebSocket, no scheduler.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{
        DefaultBodyLimit, Path, Query, State, WebSocketUpgrade,
        ws::{Message, WebSocket},
    },
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use kiln_api::{
    AssignedTask, Assignment, AttemptReport, Down, Hello, SlotClaim, StepFile, StepFilesPage, StepWork, Up,
    Welcome,
};
use kiln_types::{
    AttemptId, BlobHash, Bundle, BundleFile, BundleId, DesiredState, DeviceClass, Epoch, Generation, Policy,
    ProductKind, RelPath, RenderSettings, ReportOutcome, Resolution, SessionSpec, SlotIndex, StepKind,
    TaskId,
};
use kiln_worker::{RunningWorker, WorkerOptions};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::timeout,
};

/// Nothing in these tests takes longer.
pub const LIMIT: Duration = Duration::from_secs(60);
/// Long before a heartbeat could be the event that is waited for.
const HEARTBEAT_MS: u64 = 500;

#[derive(Clone)]
struct Shared {
    blobs: Arc<Mutex<HashMap<BlobHash, Bytes>>>,
    downloads: Arc<Mutex<Vec<BlobHash>>>,
    bundles: Arc<Mutex<HashMap<BundleId, Bundle>>>,
    /// The committed files of step 1; `None` while the server does not answer.
    files: Arc<Mutex<Option<Vec<StepFile>>>>,
    arrivals: UnboundedSender<WebSocket>,
}

pub struct Farm {
    pub url: String,
    shared: Shared,
    arrivals: UnboundedReceiver<WebSocket>,
    server: tokio::task::JoinHandle<()>,
    data: tempfile::TempDir,
    pub epoch: u32,
    counter: u64,
}

impl Drop for Farm {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A worker's connection.
pub struct Line {
    pub hello: Hello,
    socket: WebSocket,
}

impl Farm {
    pub async fn open() -> Self {
        let (arrivals_to, arrivals) = unbounded_channel();
        let shared = Shared {
            blobs: Arc::default(),
            downloads: Arc::default(),
            bundles: Arc::default(),
            files: Arc::new(Mutex::new(Some(Vec::new()))),
            arrivals: arrivals_to,
        };
        let router = Router::new()
            .route("/api/v1/blobs/{hash}", get(get_blob).put(put_blob))
            // Every blob is kept whole.
            .route("/api/v1/blobs/{hash}/chunks", get(|| async { StatusCode::NO_CONTENT }))
            .route("/api/v1/chunks/missing", post(|asked: Bytes| async { asked }))
            .route("/api/v1/bundles/{id}", get(get_bundle))
            .route("/api/v1/jobs/1/steps/1/files", get(list_files))
            .route("/api/v1/worker", get(connect))
            .layer(DefaultBodyLimit::max(1 << 30))
            .with_state(shared.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let data = tempfile::Builder::new().prefix("kiln-test-").tempdir().unwrap();
        Self { url, shared, arrivals, server, data, epoch: 1, counter: 0 }
    }

    pub fn data(&self) -> &std::path::Path {
        self.data.path()
    }

    pub fn options(&self) -> WorkerOptions {
        let mut options = WorkerOptions::new(&self.url, "key", self.data());
        options.slots = Some(1);
        options.name = Some("anvil".parse().unwrap());
        options
    }

    pub async fn worker(&self) -> RunningWorker {
        RunningWorker::start(self.options()).await.unwrap()
    }

    /// The next worker that comes, welcomed.
    pub async fn next(&mut self) -> Line {
        let mut line = self.arrival().await;
        let welcome = Welcome {
            name: line.hello.name.to_string(),
            build: "test".to_owned(),
            protocol: 1,
            epoch: Epoch(self.epoch),
            heartbeat_ms: HEARTBEAT_MS,
            desired: DesiredState::Active,
        };
        line.send(Down::Welcome(welcome)).await;
        line
    }

    /// The next worker that comes; it waits for a word.
    pub async fn arrival(&mut self) -> Line {
        let mut socket = timeout(LIMIT, self.arrivals.recv()).await.expect("no worker came").unwrap();
        let hello = loop {
            let Message::Text(text) = socket.recv().await.unwrap().unwrap() else { continue };
            match serde_json::from_str(&text).unwrap() {
                Up::Hello(hello) => break *hello,
                other => panic!("{other:?} before a hello"),
            }
        };
        Line { hello, socket }
    }

    /// A session of the sample animation.
    pub fn session(&self, percent: u16, samples: u32) -> SessionSpec {
        let bytes = self.sample();
        let file = BundleFile {
            path: RelPath::new("scene.blend").unwrap(),
            hash: self.put(&bytes),
            size: bytes.len() as u64,
        };
        let bundle = self.keep(Bundle { files: vec![file], ..Bundle::default() });
        let settings = RenderSettings {
            samples: Some(samples),
            resolution: Some(Resolution::Percent(percent)),
            ..RenderSettings::default()
        };
        SessionSpec { settings, ..self.plain_session(bundle, "scene.blend") }
    }

    /// A session of a folder of files, as they are.
    pub fn session_of(&self, folder: &std::path::Path, blend: &str) -> SessionSpec {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                let bytes = std::fs::read(entry.path()).unwrap();
                let path = RelPath::new(entry.file_name().to_str().unwrap()).unwrap();
                files.push(BundleFile { path, hash: self.put(&bytes), size: bytes.len() as u64 });
            }
        }
        self.plain_session(self.keep(Bundle { files, ..Bundle::default() }), blend)
    }

    pub fn bundle(&self, id: BundleId) -> Bundle {
        self.shared.bundles.lock().unwrap()[&id].clone()
    }

    pub fn blob(&self, hash: &BlobHash) -> Bytes {
        self.shared.blobs.lock().unwrap()[hash].clone()
    }

    pub fn keep(&self, bundle: Bundle) -> BundleId {
        let id = bundle.id();
        self.shared.bundles.lock().unwrap().insert(id, bundle);
        id
    }

    fn plain_session(&self, bundle: BundleId, blend: &str) -> SessionSpec {
        SessionSpec {
            bundle,
            blend: RelPath::new(blend).unwrap(),
            origin: None,
            file_name: None,
            blender: kiln_testkit::blender_series().parse().unwrap(),
            device: DeviceClass::Cpu,
            settings: RenderSettings::default(),
            policy: Policy::default(),
            ocio: None,
            addons: Vec::new(),
        }
    }

    /// The bytes of the sample animation.
    pub fn sample(&self) -> Vec<u8> {
        std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/sample.blend")).unwrap()
    }

    pub fn has(&self, hash: &BlobHash) -> bool {
        self.shared.blobs.lock().unwrap().contains_key(hash)
    }

    /// The number of blobs that were fetched.
    pub fn downloads(&self) -> usize {
        self.shared.downloads.lock().unwrap().len()
    }

    /// Frames of job 1 for a slot.
    pub fn assignment(&mut self, slot: u16, session: &SessionSpec, frames: &[i32]) -> Assignment {
        let tasks = frames.iter().map(|frame| {
            self.counter += 1;
            AssignedTask {
                attempt: AttemptId { epoch: Epoch(self.epoch), counter: self.counter },
                task: format!("1.0.{frame}").parse::<TaskId>().unwrap(),
                generation: Generation(0),
                frame: Some(*frame),
                part: None,
            }
        });
        Assignment {
            slot: SlotIndex(slot),
            job: "1".parse().unwrap(),
            work: StepWork {
                kind: StepKind::Render,
                session: Some(session.clone()),
                inputs: Vec::new(),
                parts: None,
                product: ProductKind::Output,
                time_limit_s: None,
                refuse_black: false,
            },
            claim: SlotClaim::default(),
            tasks: tasks.collect(),
        }
    }
}

impl Farm {
    /// The bake of job 1 for a slot.
    pub fn bake(&mut self, slot: u16, session: &SessionSpec) -> Assignment {
        let mut assignment = self.assignment(slot, session, &[0]);
        assignment.work.kind = StepKind::Bake;
        assignment.work.product = ProductKind::Bundle;
        assignment.tasks[0].frame = None;
        assignment
    }
}

impl Farm {
    /// A task without a Blender: frame 7 of step 0.
    pub fn test_task(&mut self, slot: u16) -> Assignment {
        let session = self.plain_session(BundleId(BlobHash::of(b"none")), "none.blend");
        let mut assignment = self.assignment(slot, &session, &[7]);
        (assignment.work.kind, assignment.work.session) = (StepKind::Test, None);
        assignment.work.product = ProductKind::Intermediate;
        assignment.tasks[0].task.index.0 = 0;
        assignment
    }

    pub fn put(&self, bytes: &[u8]) -> BlobHash {
        let hash = BlobHash::of(bytes);
        self.damage(hash, bytes);
        hash
    }

    /// Stores other bytes under a hash.
    pub fn damage(&self, hash: BlobHash, bytes: &[u8]) {
        self.shared.blobs.lock().unwrap().insert(hash, bytes.to_vec().into());
    }

    pub fn remove(&self, hash: &BlobHash) {
        self.shared.blobs.lock().unwrap().remove(hash);
    }

    /// Adds a file to the list of step 1.
    pub fn list(&self, file: StepFile) {
        self.shared.files.lock().unwrap().as_mut().unwrap().push(file);
    }

    /// Makes the server leave questions for lists unanswered.
    pub fn list_nothing(&self) {
        *self.shared.files.lock().unwrap() = None;
    }
}

/// The query of a list of files.
#[derive(serde::Deserialize)]
struct FilesQuery {
    frame: Option<i32>,
    after: u64,
}

/// Two files a page.
async fn list_files(State(shared): State<Shared>, Query(query): Query<FilesQuery>) -> Response {
    let files = shared.files.lock().unwrap().clone();
    let Some(files) = files else { return std::future::pending().await };
    let is_asked = |file: &StepFile| {
        file.sequence > query.after && query.frame.is_none_or(|frame| file.frame == Some(frame))
    };
    let mut files: Vec<StepFile> = files.into_iter().filter(is_asked).collect();
    let more = files.len() > 2;
    files.truncate(2);
    Json(StepFilesPage { files, more }).into_response()
}

impl Line {
    pub async fn send(&mut self, down: Down) {
        self.socket.send(Message::Text(serde_json::to_string(&down).unwrap().into())).await.unwrap();
    }

    /// The next message that is no heartbeat; `None` where the worker has closed.
    pub async fn next(&mut self) -> Option<Up> {
        let message = async {
            loop {
                match self.socket.recv().await {
                    Some(Ok(Message::Text(text))) => match serde_json::from_str(&text).unwrap() {
                        Up::Heartbeat => {}
                        up => return Some(up),
                    },
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                    Some(Ok(_)) => {}
                }
            }
        };
        timeout(LIMIT, message).await.expect("the worker says nothing")
    }

    /// Skips to the begin of the next attempt.
    pub async fn started(&mut self) -> AttemptId {
        loop {
            if let Up::Started { attempt } = self.next().await.expect("the worker has left") {
                return attempt;
            }
        }
    }

    /// Skips to the message that it is unavailable, or available again; returns the reason.
    pub async fn next_availability(&mut self, is_unavailable: bool) -> Option<String> {
        loop {
            if let Up::Offer { unavailable, .. } = self.next().await.expect("the worker has left")
                && unavailable.is_some() == is_unavailable
            {
                return unavailable.map(|reason| reason.why);
            }
        }
    }

    /// Skips to the next report, and settles it.
    pub async fn finished(&mut self) -> (AttemptId, AttemptReport) {
        let (attempt, finish) = self.report().await;
        self.send(Down::Settled { attempt, outcome: ReportOutcome::Recorded }).await;
        (attempt, finish)
    }

    /// Skips to the next report, and leaves it unanswered.
    pub async fn report(&mut self) -> (AttemptId, AttemptReport) {
        loop {
            if let Up::Finished { attempt, report: finish, .. } =
                self.next().await.expect("the worker has left")
            {
                return (attempt, finish);
            }
        }
    }
}

async fn get_blob(State(shared): State<Shared>, Path(hash): Path<String>) -> Response {
    let hash = hash.parse().unwrap();
    let blob = shared.blobs.lock().unwrap().get(&hash).cloned();
    shared.downloads.lock().unwrap().push(hash);
    blob.map_or_else(|| StatusCode::NOT_FOUND.into_response(), IntoResponse::into_response)
}

async fn put_blob(State(shared): State<Shared>, Path(hash): Path<String>, body: Bytes) -> StatusCode {
    let hash: BlobHash = hash.parse().unwrap();
    assert_eq!(hash, BlobHash::of(&body), "the worker sends what it says");
    shared.blobs.lock().unwrap().insert(hash, body);
    StatusCode::NO_CONTENT
}

async fn get_bundle(State(shared): State<Shared>, Path(id): Path<String>) -> Response {
    let bundle = shared.bundles.lock().unwrap().get(&id.parse().unwrap()).cloned();
    bundle.map_or_else(|| StatusCode::NOT_FOUND.into_response(), |bundle| Json(bundle).into_response())
}

async fn connect(State(shared): State<Shared>, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(|socket| async move {
        // The test may be over.
        let _ = shared.arrivals.send(socket);
    })
}
