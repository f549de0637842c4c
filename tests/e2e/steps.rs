//! Steps that are added to a finished job: parts of each frame and a task that merges them as they come, while server,
//! workers and the command line are killed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    num::NonZeroU16,
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use kiln_api::StepFile;
use kiln_client::Client;
use kiln_testkit::{free_port, scene, wait_until};
use kiln_types::{
    BlobHash, DependencyScope, DependencyStart, JobId, Order, ProductKind, StepDependency, StepIndex,
    StepInput, StepKind, StepSpec, TaskSpace,
};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::{
    crash,
    farm::pictures,
    support::{Home, Running},
};

const FRAMES: [i32; 4] = [1, 2, 3, 4];
const PARTS: u16 = 3;
/// The time of a task of the added steps, in milliseconds.
const TASK_MS: u64 = 600;
const LIMIT: Duration = Duration::from_secs(60);
const RENDERED: StepIndex = StepIndex(0);
const SPLIT: StepIndex = StepIndex(1);
const MERGED: StepIndex = StepIndex(2);

/// Parts of each frame, each made from the finished frame.
fn split() -> StepSpec {
    StepSpec {
        kind: StepKind::Test,
        space: TaskSpace::Parts(NonZeroU16::new(PARTS).unwrap()),
        order: Order::Sequential,
        after: vec![StepDependency { scope: DependencyScope::Frame, ..RENDERED.into() }],
        opens: StepInput::None,
        renders: false,
        product: ProductKind::Intermediate,
    }
}

/// A task for each frame that starts with its first part.
fn merge() -> StepSpec {
    let parts =
        StepDependency { scope: DependencyScope::Frame, start: DependencyStart::FirstDone, ..SPLIT.into() };
    StepSpec { space: TaskSpace::Frames, after: vec![parts], product: ProductKind::Preview, ..split() }
}

/// A farm whose programs are killed and started again.
struct Farm {
    home: Home,
    port: u16,
    runtime: Runtime,
    client: Client,
    workers: Vec<(Running, &'static str, u32)>,
    server: Running,
}

impl Farm {
    fn start() -> Self {
        let (home, port) = (Home::new(), free_port());
        let server = crash::start(&home, port);
        let key = fs::read_to_string(home.data().join("farm.key")).unwrap();
        let client = Client::new(format!("http://127.0.0.1:{port}"), key.trim()).unwrap();
        let runtime = Runtime::new().unwrap();
        let mut farm = Self { home, port, runtime, client, workers: Vec::new(), server };
        for name in ["one", "two"] {
            let worker = farm.start_worker(name, 0);
            farm.workers.push((worker, name, 0));
        }
        farm.home.connected(2);
        farm
    }

    fn log(&self, name: &str, start: u32) -> PathBuf {
        self.home.work().join(format!("{name}-{start}.jsonl"))
    }

    fn start_worker(&self, name: &str, start: u32) -> Running {
        let url = format!("http://127.0.0.1:{}", self.port);
        let mut command =
            self.home.kiln(&["worker", "--server", &url, "--name", name, "--slots", "1", "--json"]);
        let events = File::create(self.log(name, start)).unwrap();
        command.env("KILN_TEST_STEP_MS", TASK_MS.to_string()).stdout(events).stderr(Stdio::null());
        Running { child: command.spawn().unwrap(), url: String::new() }
    }

    /// The worker that streams now.
    fn streaming(&self) -> Option<usize> {
        self.workers.iter().position(|(_, name, start)| {
            let text = fs::read_to_string(self.log(name, *start)).unwrap_or_default();
            let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let merges = events.filter(|event| event["frame"].is_i64());
            let mut streams = BTreeSet::new();
            for event in merges {
                let frame = event["frame"].as_i64();
                match event["kind"].as_str() {
                    Some("streaming") => streams.insert(frame),
                    // Parts of the frame may start, too; then another moment is as good.
                    Some("started" | "returned" | "failed") => streams.remove(&frame),
                    _ => false,
                };
            }
            !streams.is_empty()
        })
    }

    fn kill_server(&mut self) {
        self.server.kill();
        self.server = crash::start(&self.home, self.port);
    }

    fn kill_worker(&mut self, index: usize) {
        let (worker, name, start) = &mut self.workers[index];
        worker.kill();
        *start += 1;
        let (name, start) = (*name, *start);
        self.workers[index].0 = self.start_worker(name, start);
    }

    fn files(&self, job: JobId, step: StepIndex) -> Vec<StepFile> {
        let page = self.runtime.block_on(self.client.step_files(job, step, None, 0)).unwrap();
        assert!(!page.more);
        page.files
    }

    fn bytes(&self, hash: BlobHash) -> Vec<u8> {
        use futures_util::TryStreamExt as _;
        self.runtime.block_on(async {
            let (_, stream) = self.client.get_blob(hash).await.unwrap();
            let pieces: Vec<_> = stream.try_collect().await.unwrap();
            pieces.concat()
        })
    }

    /// Waits until this number of parts is committed.
    fn wait_for_parts(&self, job: JobId, count: usize) {
        wait_until(LIMIT, "parts are committed", || self.files(job, SPLIT).len() >= count);
    }

    /// Demands that the merged file of each frame was made of all of its parts, each of the right frame and generation.
    fn assert_merged(&self, job: JobId, generations: &BTreeMap<i32, u32>) {
        let frames = self.rendered(job);
        let parts = self.files(job, SPLIT);
        assert_eq!(parts.len(), FRAMES.len() * usize::from(PARTS), "{parts:#?}");
        let merged = self.files(job, MERGED);
        assert_eq!(merged.len(), FRAMES.len(), "{merged:#?}");
        for file in &merged {
            let frame = file.frame.unwrap();
            assert_eq!(file.path.as_str(), format!("test/2/{frame}"));
            let generation = generations[&frame];
            let mut lines = Vec::new();
            for part in 0..PARTS {
                let is_part = |other: &&StepFile| (other.frame, other.part) == (Some(frame), Some(part));
                let [part_file] = parts.iter().filter(is_part).collect::<Vec<_>>()[..] else {
                    panic!("part {part} of frame {frame}: {parts:#?}")
                };
                assert_eq!(part_file.generation.0, generation);
                let first = format!(
                    "job {job} step 1 frame {frame} part {part} generation {generation} of {}",
                    frames[&frame]
                );
                let content = self.bytes(part_file.hash);
                assert!(content.len() > 300_000 && content.starts_with(format!("{first}\n").as_bytes()));
                lines.push(format!("test/1/{frame}-{part} {} {first}", BlobHash::of(&content)));
            }
            let text = String::from_utf8(self.bytes(file.hash)).unwrap();
            assert_eq!(text.lines().collect::<Vec<_>>(), lines, "frame {frame}");
        }
    }

    /// The newest picture of each frame, by its hash. The artist's files are the frames, and nothing else.
    fn rendered(&self, job: JobId) -> BTreeMap<i32, BlobHash> {
        let page = self.runtime.block_on(self.client.outputs(job, 0)).unwrap();
        assert!(page.outputs.iter().all(|output| output.step == RENDERED), "{:#?}", page.outputs);
        let frames: BTreeMap<i32, BlobHash> =
            page.outputs.iter().map(|output| (output.frame, output.files.files()[0].hash)).collect();
        assert_eq!(frames.len(), FRAMES.len());
        frames
    }

    fn steps(&self, job: &str) -> Vec<(String, u64, u64)> {
        let view = self.home.show(job);
        let steps = view["steps"].as_array().unwrap().iter();
        steps
            .map(|step| {
                let count = |name: &str| step["tasks"][name].as_u64().unwrap();
                (step["kind"].as_str().unwrap().to_owned(), count("total"), count("done"))
            })
            .collect()
    }
}

#[test]
fn added_steps_end_with_the_right_files_whatever_is_killed() {
    let mut farm = Farm::start();
    let blend = farm.home.copy(&scene("basic"), "shot.blend");
    let id = farm.home.submit(&[blend.to_str().unwrap(), "--frames", "1-4"]);
    let job: JobId = id.parse().unwrap();
    farm.home.completed(&id);
    for step in [split(), merge()] {
        farm.runtime.block_on(farm.client.add_step(job, &step)).unwrap();
    }
    let waits = |farm: &Farm| {
        let command =
            farm.home.kiln(&["jobs", "wait", &id]).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Running { child: command.unwrap(), url: String::new() }
    };
    let mut waiting = waits(&farm);

    farm.wait_for_parts(job, 1);
    farm.kill_server();
    let mut streaming = None;
    wait_until(LIMIT, "a worker streams", || {
        streaming = farm.streaming();
        streaming.is_some()
    });
    let first = streaming.unwrap();
    farm.kill_worker(first);
    waiting.kill();
    waiting = waits(&farm);
    farm.wait_for_parts(job, 5);
    farm.kill_worker(1 - first);
    farm.wait_for_parts(job, 8);
    farm.kill_server();

    wait_until(LIMIT, "the command line sees the end", || waiting.child.try_wait().unwrap().is_some());
    assert!(waiting.child.wait().unwrap().success());
    farm.home.completed(&id);
    let first_generation: BTreeMap<i32, u32> = FRAMES.map(|frame| (frame, 0)).into();
    farm.assert_merged(job, &first_generation);
    let frames = FRAMES.len() as u64;
    let parts = frames * u64::from(PARTS);
    let test = |tasks| ("test".to_owned(), tasks, tasks);
    assert_eq!(farm.steps(&id), [("render".to_owned(), frames, frames), test(parts), test(frames)]);
    let fetched = farm.home.fetch(&id, "fetched");
    assert_eq!(pictures(&fetched).len(), FRAMES.len());
    assert!(!fetched.join("test").exists() && !fetched.join("frames/test").exists());

    // A frame that is rendered again takes its parts and its merged file along, and no other's.
    let said = farm.home.run(&["jobs", "rerender", &id, "--frames", "2"]);
    assert_eq!(said.code, 0, "{}", said.err);
    farm.home.completed(&id);
    let mut again = first_generation;
    again.insert(2, 1);
    farm.assert_merged(job, &again);
    for worker in ["worker-0", "worker-1"] {
        for part in ["inputs", "outbox"] {
            let folder = farm.home.data().join("worker").join(worker).join(part);
            wait_until(LIMIT, "nothing is left over", || fs::read_dir(&folder).unwrap().next().is_none());
        }
    }
}
