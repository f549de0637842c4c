//! A farm for tests, and a worker that renders nothing and speaks the real protocol.

use std::{
    collections::VecDeque,
    future::Future,
    path::Path,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use kiln_api::{
    AssignedTask, Assignment, AttemptReport, Collected, Down, Hello, JobView, Machine, Problem, Up, Welcome,
};
use kiln_client::{Client, WorkerLink};
use kiln_server::{Durability, RunningServer, Server, ServerError, ServerOptions};
use kiln_types::{
    BlenderVersion, BlobHash, DeviceClass, FileFormat, HeldAttempt, HeldPhase, JobState, OutputFile,
    OutputRole, OutputSet, PixelReport, RelPath, ReportOutcome, SlotIndex, WorkerId,
};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The time after which a test is taken to hang.
pub const LIMIT: Duration = Duration::from_secs(30);

pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.unwrap_or_else(|_| panic!("{what} did not happen"))
}

pub fn options(data: &Path) -> ServerOptions {
    ServerOptions {
        listen: "127.0.0.1:0".parse().unwrap(),
        durability: Durability::Ephemeral,
        ..ServerOptions::new(data)
    }
}

pub struct Farm {
    pub data: TempDir,
    server: Option<RunningServer>,
    pub client: Client,
    pub http: reqwest::Client,
    pub url: String,
    pub key: String,
}

impl Farm {
    pub async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), |_| ()).await
    }

    pub async fn start_in(data: TempDir, change: impl FnOnce(&mut ServerOptions)) -> Self {
        let mut options = options(data.path());
        change(&mut options);
        let server = Server::start(options).await.unwrap();
        let (url, key) = (server.url(), server.key().to_owned());
        let client = Client::new(&url, &key).unwrap();
        Self { data, server: Some(server), client, http: reqwest::Client::new(), url, key }
    }

    /// Stops the server and starts another one on the same folder.
    pub async fn restart(self) -> Self {
        self.restart_with(|_| ()).await
    }

    pub async fn restart_with(mut self, change: impl FnOnce(&mut ServerOptions)) -> Self {
        self.server.take().unwrap().stop().await.unwrap();
        Self::start_in(self.data, change).await
    }

    /// Collects as if it were this time.
    pub async fn collect_as_of(&self, now: SystemTime) -> Collected {
        // Bytes that were promised within the last tick of the system's clock are spared.
        tokio::time::sleep(Duration::from_millis(25)).await;
        soon("a collection", self.server.as_ref().unwrap().collect_as_of(now)).await.unwrap()
    }

    /// Returns the error with which the server ended by itself.
    pub async fn fall(&mut self) -> ServerError {
        soon("the end of the server", self.server.as_mut().unwrap().wait()).await.unwrap_err()
    }

    pub async fn stop(&mut self) {
        self.server.take().unwrap().stop().await.unwrap();
    }

    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url)).bearer_auth(&self.key)
    }

    pub async fn get(&self, path: &str) -> Response {
        soon("an answer", self.request(Method::GET, path).send()).await.unwrap()
    }

    pub async fn post(&self, path: &str, body: Value) -> Response {
        soon("an answer", self.request(Method::POST, path).json(&body).send()).await.unwrap()
    }

    /// Uploads the sample scene.
    pub async fn upload(&self) -> String {
        self.upload_of(sample()).await
    }

    pub async fn upload_of(&self, bytes: Vec<u8>) -> String {
        self.upload_as("shot.blend", bytes).await
    }

    pub async fn upload_as(&self, name: &str, bytes: Vec<u8>) -> String {
        let answer = self.post("/api/v1/uploads", json!({"name": name, "size": bytes.len()})).await;
        assert_eq!(answer.status(), StatusCode::CREATED);
        let id = answer.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned();
        let path = format!("/api/v1/uploads/{id}");
        let patch = self.request(Method::PATCH, &path).header("Upload-Offset", 0).body(bytes);
        assert_eq!(patch.send().await.unwrap().status(), StatusCode::OK);
        assert_eq!(self.post(&format!("{path}/finish"), json!({})).await.status(), StatusCode::OK);
        id
    }

    pub async fn submit(&self, frames: &str) -> JobView {
        let id = self.upload().await;
        let answer =
            self.post("/api/v1/jobs", json!({"source": {"upload": {"id": id}}, "frames": frames})).await;
        assert_eq!(answer.status(), StatusCode::CREATED);
        answer.json().await.unwrap()
    }

    /// Returns the job, once it is in this state.
    pub async fn reaches(&self, job: &JobView, state: JobState) -> JobView {
        let mut events = self.client.events(Some(kiln_types::EventNumber(0)), Some(job.id)).await.unwrap();
        let wait = async {
            loop {
                let now = self.client.job(job.id).await.unwrap();
                if now.state == state {
                    return now;
                }
                events.next().await.unwrap();
            }
        };
        match tokio::time::timeout(LIMIT, wait).await {
            Ok(view) => view,
            Err(_) => panic!(
                "job {} is not {state}: {:#?}\n{:#?}\n{:#?}",
                job.id,
                self.client.job(job.id).await,
                self.client.explain(job.id).await,
                self.client.workers().await
            ),
        }
    }
}

pub fn sample() -> Vec<u8> {
    std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/sample.blend")).unwrap()
}

/// Returns the paths of all files below the data folder, without those of the database.
pub fn files_below(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                folders.push(path);
            } else if !name.starts_with("kiln.db") {
                found.push(name);
            }
        }
    }
    found.sort();
    found
}

pub async fn problem(response: Response) -> Problem {
    let status = response.status().as_u16();
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let problem: Problem = response.json().await.unwrap();
    assert_eq!(problem.status, status);
    assert!(problem.detail.ends_with('.'), "{}", problem.detail);
    problem
}

/// Returns the versions that a worker offers: that of the sample, and that of this machine's Blender, which saved the scenes.
fn versions() -> impl Iterator<Item = BlenderVersion> {
    let own = Some(kiln_testkit::blender_series()).filter(|series| *series != "3.4");
    own.into_iter().chain(["3.4"]).map(|series| format!("{series}.1").parse().unwrap())
}

pub fn hello(id: u64, name: &str, slots: u16) -> Hello {
    Hello {
        machine: Machine { hostname: name.to_owned(), cores: 4, ..Machine::default() },
        slots,
        blenders: versions()
            .map(|version| kiln_api::BlenderOffer {
                version,
                build_hash: "abc".to_owned(),
                flavor: kiln_types::BlenderFlavor::Executable,
                engines: vec!["CYCLES".to_owned()],
                devices: vec![kiln_api::DeviceOffer {
                    class: DeviceClass::Cpu,
                    name: "cpu".to_owned(),
                    memory: None,
                }],
                denoisers: Vec::new(),
            })
            .collect(),
        ..Hello::new(WorkerId::from_bits(id).unwrap(), name.parse().unwrap())
    }
}

/// A worker's side of the WebSocket.
pub struct FakeWorker {
    link: WorkerLink,
    /// Assignments that arrived while another message was expected.
    early: VecDeque<Assignment>,
    client: Client,
    pub welcome: Welcome,
}

impl FakeWorker {
    pub async fn join(farm: &Farm, id: u64, name: &str, slots: u16) -> Self {
        Self::join_as(farm, hello(id, name, slots)).await
    }

    pub async fn join_as(farm: &Farm, hello: Hello) -> Self {
        let mut link = farm.client.connect_worker().await.unwrap();
        link.send(&Up::Hello(Box::new(hello))).await.unwrap();
        let Some(Down::Welcome(welcome)) = soon("a welcome", link.recv()).await.unwrap() else {
            panic!("no welcome")
        };
        Self { link, early: VecDeque::new(), client: farm.client.clone(), welcome }
    }

    pub async fn say(&mut self, up: Up) {
        self.link.send(&up).await.unwrap();
    }

    pub async fn next(&mut self) -> Down {
        soon("a message to the worker", self.link.recv()).await.unwrap().expect("the connection is open")
    }

    /// Returns `None` if the server has closed the connection.
    pub async fn next_or_end(&mut self) -> Option<Down> {
        soon("a message or the end", self.link.recv()).await.ok().flatten()
    }

    /// Reads, and so answers pings, until the server closes the connection.
    pub async fn listen(&mut self) {
        while let Ok(Some(_)) = self.link.recv().await {}
    }

    /// The next assignment.
    pub async fn assignment(&mut self) -> Assignment {
        if let Some(assignment) = self.early.pop_front() {
            return assignment;
        }
        loop {
            if let Down::Assign(assignment) = self.next().await {
                return *assignment;
            }
        }
    }

    pub async fn outcome(&mut self, task: &AssignedTask) -> ReportOutcome {
        loop {
            match self.next().await {
                Down::Settled { attempt, outcome } if attempt == task.attempt => return outcome,
                Down::Assign(assignment) => self.early.push_back(*assignment),
                _ => {}
            }
        }
    }

    pub async fn report(&mut self, task: &AssignedTask, finish: AttemptReport) -> ReportOutcome {
        let (attempt, generation) = (task.attempt, task.generation);
        self.say(Up::Finished { attempt, task: task.task, generation, report: finish }).await;
        self.outcome(task).await
    }

    /// Stores a picture of the frame and reports it.
    pub async fn deliver(&mut self, task: &AssignedTask) -> ReportOutcome {
        self.deliver_with(task, 1 << 20).await
    }

    /// Delivers a picture of a Blender that used this much memory.
    pub async fn deliver_with(&mut self, task: &AssignedTask, peak_memory: u64) -> ReportOutcome {
        let (outputs, bytes) = picture(task);
        self.client.put_blob_bytes(BlobHash::of(&bytes), bytes).await.unwrap();
        self.report(task, AttemptReport::Done { files: outputs.into(), seconds: 0.5, peak_memory }).await
    }

    /// Delivers a picture with these facts about its pixels.
    pub async fn deliver_pixels(&mut self, task: &AssignedTask, pixels: PixelReport) -> ReportOutcome {
        let (outputs, bytes) = picture(task);
        self.client.put_blob_bytes(BlobHash::of(&bytes), bytes).await.unwrap();
        let files = outputs.files().iter().map(|file| OutputFile { pixels, ..file.clone() }).collect();
        let outputs = OutputSet::new(files).unwrap();
        self.report(task, AttemptReport::Done { files: outputs.into(), seconds: 0.5, peak_memory: 1 }).await
    }

    /// Starts and delivers this number of tasks.
    pub async fn render(&mut self, mut count: u32) {
        while count > 0 {
            for task in self.assignment().await.tasks {
                self.say(Up::Started { attempt: task.attempt }).await;
                assert_eq!(self.deliver(&task).await, ReportOutcome::Committed);
                count -= 1;
            }
        }
    }

    pub async fn leave(self) {
        let (mut sender, mut receiver) = self.link.split();
        sender.close().await;
        while let Ok(Some(_)) = soon("the end", receiver.recv()).await {}
    }
}

pub fn held(assignment: &Assignment, task: &AssignedTask, phase: fn(SlotIndex) -> HeldPhase) -> HeldAttempt {
    HeldAttempt {
        attempt: task.attempt,
        task: task.task,
        generation: task.generation,
        phase: phase(assignment.slot),
    }
}

/// Returns bytes that differ from frame to frame. They are not a picture: only workers decode.
pub fn picture(task: &AssignedTask) -> (OutputSet, Bytes) {
    let frame = task.frame.unwrap();
    let bytes = Bytes::from(format!("frame {frame} generation {}", task.generation));
    let file = OutputFile {
        path: RelPath::new(&format!("out/frame_{frame:04}.png")).unwrap(),
        role: OutputRole::Main { view: None },
        hash: BlobHash::of(&bytes),
        size: bytes.len() as u64,
        format: FileFormat::Png,
        width: 16,
        height: 9,
        pixels: PixelReport::default(),
    };
    (OutputSet::new(vec![file]).unwrap(), bytes)
}
