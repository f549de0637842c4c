#![allow(clippy::unwrap_used)]

mod bakes;
mod farm;
mod jobs;
mod killed;
mod open;
mod products;
mod retention;
mod tasks;

use std::path::Path;

use kiln_store::{Durability, NewBundle, NewEvent, NewStep, Store, TaskProduct, Write};
use kiln_types::{
    AttemptId, AttemptState, BlobHash, BundleId, DeviceClass, Epoch, Failure, FailureCause, FileFormat,
    Generation, JobId, JobRequirements, JobScheduling, JobSpec, JobSteps, Order, OutputFile, OutputRole,
    OutputSet, Owner, PixelReport, Policy, Project, RelPath, RenderSettings, SessionSpec, SlotIndex,
    StepIndex, StepSpec, TaskId, TaskIndex, WorkerId,
};
use serde_json::json;

const STEP: StepIndex = StepIndex(0);

/// A folder with a fresh store in it.
struct Fresh {
    store: Store,
    /// After the store, so that it goes last.
    _folder: tempfile::TempDir,
}

impl std::ops::Deref for Fresh {
    type Target = Store;
    fn deref(&self) -> &Store {
        &self.store
    }
}

async fn fresh() -> Fresh {
    let folder = tempfile::tempdir().unwrap();
    Fresh { store: open(folder.path()).await, _folder: folder }
}

async fn open(folder: &Path) -> Store {
    let (store, _) = Store::open(folder, Durability::Durable).await.unwrap();
    store.commit(vec![made(b"bundle", 1000)]).await.unwrap();
    store
}

/// A bundle of this name and one file; that of every job here is called “bundle”.
fn made(name: &[u8], at_ms: i64) -> Write {
    let bundle = NewBundle {
        id: BundleId(BlobHash::of(name)),
        owner: Owner::default(),
        project: Project::default(),
        size: 77,
        blobs: vec![BlobHash::of(b"file of a bundle")],
    };
    Write::InsertBundle { bundle, at_ms }
}

fn spec(name: &str, frames: &str) -> JobSpec {
    JobSpec {
        name: name.to_owned(),
        owner: Owner::default(),
        project: Project::default(),
        frames: frames.parse().unwrap(),
        order: Order::Sequential,
        frame_time_limit_s: Some(600),
        hang_s: None,
        any_gpu: false,
        refuse_black: false,
        denoiser: None,
        scheduling: JobScheduling::default(),
        requirements: JobRequirements::default(),
        written_by: "3.4.1".parse().unwrap(),
        bake: Vec::new(),
        shared: Vec::new(),
        hold: None,
        save: None,
        session: SessionSpec {
            bundle: BundleId(BlobHash::of(b"bundle")),
            blend: RelPath::new("shot.blend").unwrap(),
            origin: Some("/home/artist".to_owned()),
            file_name: None,
            blender: "3.4".parse().unwrap(),
            device: DeviceClass::Cpu,
            settings: RenderSettings { samples: Some(16), ..RenderSettings::default() },
            policy: Policy::default(),
            ocio: None,
            addons: Vec::new(),
        },
    }
}

fn insert(job: u64, frames: &str) -> Write {
    insert_spec(job, spec("shot", frames))
}

fn insert_spec(job: u64, spec: JobSpec) -> Write {
    let steps = JobSteps::of_frames(!spec.bake.is_empty(), spec.order);
    let new = |(step, of): (StepIndex, &StepSpec)| NewStep {
        step,
        spec: of.clone(),
        count: of.tasks(&spec.frames),
    };
    let steps = steps.iter().map(new).collect();
    Write::InsertJob { job: JobId(job), spec: Box::new(spec), steps, at_ms: 1000 }
}

fn task(job: u64, index: u32) -> TaskId {
    TaskId { job: JobId(job), step: STEP, index: TaskIndex(index) }
}

/// An attempt of the first epoch.
fn attempt(counter: u64) -> AttemptId {
    AttemptId { epoch: Epoch(1), counter }
}

/// Ids with the highest bit set must come back as they are.
fn worker(number: u64) -> WorkerId {
    WorkerId::from_bits(u64::MAX - number).unwrap()
}

fn opened(counter: u64, task: TaskId, generation: u32, by: u64) -> Write {
    Write::OpenAttempt {
        attempt: attempt(counter),
        task,
        generation: Generation(generation),
        worker: worker(by),
        slot: Some(SlotIndex(2)),
        at_ms: 2000 + counter as i64,
    }
}

fn closed_as(counter: u64, state: AttemptState) -> Write {
    let failure = (state == AttemptState::Failed).then(|| failure("Blender crashed"));
    Write::CloseAttempt { attempt: attempt(counter), state, at_ms: 9000, failure, seconds: Some(0.5) }
}

fn started(counter: u64) -> Write {
    Write::StartAttempt { attempt: attempt(counter), at_ms: 3000 + counter as i64 }
}

fn output(path: &str, content: &[u8]) -> OutputFile {
    OutputFile {
        path: RelPath::new(path).unwrap(),
        role: OutputRole::FileOutput { node: "File Output".into(), slot: "depth".into(), view: None },
        hash: BlobHash::of(content),
        size: content.len() as u64,
        format: FileFormat::OpenExr,
        width: 1920,
        height: 1080,
        pixels: PixelReport::default(),
    }
}

fn committed(counter: u64, task: TaskId, generation: u32, frame: i32) -> Write {
    let content = format!("{task} {generation}");
    let files = vec![
        output(&format!("{frame:04}.exr"), content.as_bytes()),
        output(&format!("depth/{frame:04}.exr"), format!("depth of {content}").as_bytes()),
    ];
    Write::CommitTask {
        task,
        generation: Generation(generation),
        attempt: attempt(counter),
        product: TaskProduct::Outputs { frame, files: OutputSet::new(files).unwrap() },
        seconds: 1.5,
        peak_memory: Some(1 << 40),
        at_ms: 4000 + counter as i64,
    }
}

fn failure(message: &str) -> Failure {
    let mut failure = Failure::new(FailureCause::Crashed, message);
    failure.log_tail = vec!["Segmentation fault".to_owned()];
    failure
}

fn event(job: Option<u64>, kind: &str) -> Write {
    Write::Event(NewEvent {
        at_ms: 5000,
        job: job.map(JobId),
        worker: Some(worker(1)),
        kind: kind.to_owned(),
        data: json!({ "text": "“ö” 'x'\n", "number": 1.5, "none": null }),
    })
}
