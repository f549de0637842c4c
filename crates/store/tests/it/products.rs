//! Files of tasks that are not the artist's: intermediates, previews.

use kiln_store::{FileFilter, FileKind, NewProduct, NewStep, Store, TaskProduct, Write};
use kiln_types::{
    BlobHash, BundleFile, Generation, JobId, JobState, RelPath, StepIndex, StepSpec, TaskId, TaskIndex,
};

use crate::retention::{expire, until};
use crate::{attempt, committed, fresh, open, opened, spec, task};

const PARTS: StepIndex = StepIndex(1);
const MERGE: StepIndex = StepIndex(2);
const THUMBS: StepIndex = StepIndex(3);

/// Frames, two parts of each, what is merged of the parts of a frame, and a preview of each.
fn insert(job: u64, frames: &str) -> Write {
    let spec = spec("shot", frames);
    let specs = [
        r#"{"kind":"render","space":"frames","order":"sequential","opens":"job","product":"output"}"#,
        r#"{"kind":"render","space":{"parts":2},"order":"sequential","opens":"none","product":"intermediate"}"#,
        r#"{"kind":"render","space":"frames","order":"sequential","after":[{"step":1,"scope":"frame"}],"opens":"none","product":"intermediate"}"#,
        r#"{"kind":"render","space":"frames","order":"sequential","after":[{"step":0,"scope":"frame"}],"opens":"none","product":"preview"}"#,
    ];
    let new = |(step, text): (usize, &&str)| {
        let step_spec: StepSpec = serde_json::from_str(text).unwrap();
        NewStep { step: StepIndex(step as u16), count: step_spec.tasks(&spec.frames), spec: step_spec }
    };
    let steps = specs.iter().enumerate().map(new).collect();
    Write::InsertJob { job: JobId(job), spec: Box::new(spec), steps, at_ms: 1000 }
}

fn hash(name: &str) -> BlobHash {
    BlobHash::of(name.as_bytes())
}

/// A task that is done at `at_ms`, in this generation, with a file of its name.
fn done(counter: u64, step: StepIndex, index: u32, generation: u32, at_ms: i64) -> [Write; 2] {
    let task = TaskId { job: JobId(1), step, index: TaskIndex(index) };
    let name = format!("{step}-{index}-{generation}");
    let (kind, position) = match step {
        PARTS => (FileKind::Intermediate, index / 2),
        MERGE => (FileKind::Intermediate, index),
        _ => (FileKind::Preview, index),
    };
    let file = BundleFile { path: RelPath::new(&name).unwrap(), hash: hash(&name), size: 7 };
    let product = TaskProduct::Files(NewProduct { kind, position: Some(position), files: vec![file] });
    let commit = Write::CommitTask {
        task,
        generation: Generation(generation),
        attempt: attempt(counter),
        product,
        seconds: 1.0,
        peak_memory: None,
        at_ms,
    };
    [opened(counter, task, generation, 1), commit]
}

fn reset(step: StepIndex, index: u32, generation: u32) -> Write {
    let (first, last) = (TaskIndex(index), TaskIndex(index));
    Write::ReopenTasks { job: JobId(1), step, first, last, generation: Generation(generation) }
}

fn ended(at_ms: i64) -> Write {
    Write::SetJobState { job: JobId(1), state: JobState::Completed, at_ms, reason: None }
}

async fn write<const N: usize>(store: &Store, writes: [Write; N]) {
    store.commit(writes.into()).await.unwrap();
}

/// The tasks whose intermediates go at this time, as step and index.
async fn gone(store: &Store, at_ms: i64) -> Vec<(u16, u32)> {
    let expired = expire(store, &until(at_ms)).await;
    expired.intermediates.iter().map(|(task, _)| (task.step.0, task.index.0)).collect()
}

async fn files(store: &Store, step: StepIndex, tasks: Option<(u32, u32)>, after_seq: u64) -> Vec<String> {
    let tasks = tasks.map(|(first, last)| (TaskIndex(first), TaskIndex(last)));
    let filter = FileFilter { job: JobId(1), step, outputs: step == StepIndex(0), tasks, after_seq };
    let rows = store.step_files(&filter, 100).await.unwrap();
    rows.into_iter().map(|row| row.file.path.as_str().to_owned()).collect()
}

#[tokio::test]
async fn parts_stay_until_what_uses_them_is_done_and_a_while_longer() {
    let store = fresh().await;
    write(&store, [insert(1, "1-2")]).await;
    for (counter, part) in (1..).zip([2, 0, 1, 3]) {
        write(&store, done(counter, PARTS, part, 0, 5000)).await;
    }
    assert_eq!(gone(&store, 900_000).await, [], "nothing is merged yet");
    assert_eq!(files(&store, PARTS, None, 0).await, ["1-2-0", "1-0-0", "1-1-0", "1-3-0"], "the oldest first");
    assert_eq!(files(&store, PARTS, None, 2).await, ["1-1-0", "1-3-0"]);
    assert_eq!(files(&store, PARTS, Some((0, 1)), 0).await, ["1-0-0", "1-1-0"], "those of a frame");

    write(&store, done(9, MERGE, 0, 0, 6000)).await;
    assert_eq!(gone(&store, 5999).await, []);
    let needed = store.needed_blobs().await.unwrap();
    assert!(["1-0-0", "1-1-0", "1-2-0", "2-0-0"].iter().all(|name| needed.contains(&hash(name))));
    let (would, would_need) = store.would_expire(&until(6000)).await.unwrap();
    assert_eq!((would.intermediates.len(), would_need.contains(&hash("1-0-0"))), (2, false));
    let spent = store.find_due_intermediates(&until(6000)).await.unwrap();
    let (expired, _) = store.expire(&until(6000), &spent, |_| Vec::new()).await.unwrap();
    let freed: Vec<BlobHash> = expired.freed.iter().map(|(hash, _)| *hash).collect();
    assert_eq!((expired.intermediates.len(), freed), (2, vec![hash("1-0-0"), hash("1-1-0")]));
    assert_eq!(expired.freed[0].1, 5000);
    assert_eq!(files(&store, PARTS, None, 0).await, ["1-2-0", "1-3-0"], "the other frame is not merged");
    let needed = store.needed_blobs().await.unwrap();
    assert!(!needed.contains(&hash("1-0-0")) && needed.contains(&hash("1-2-0")));
    let without = store.tasks_without_files(JobId(1), PARTS).await.unwrap();
    assert_eq!(without, [TaskIndex(0), TaskIndex(1)]);

    // A task that is merged again needs its parts again, however old they are.
    write(&store, done(10, MERGE, 1, 0, 6000)).await;
    write(&store, [reset(MERGE, 1, 1)]).await;
    assert_eq!(gone(&store, 900_000).await, [(2, 1)], "only what was made of them before");
}

#[tokio::test]
async fn what_was_found_to_be_due_and_is_needed_again_stays() {
    let store = fresh().await;
    write(&store, [insert(1, "1")]).await;
    write(&store, done(1, PARTS, 0, 0, 5000)).await;
    write(&store, done(2, PARTS, 1, 0, 5000)).await;
    write(&store, done(3, MERGE, 0, 0, 5000)).await;
    let due = store.find_due(&until(6000)).await.unwrap();
    write(&store, [reset(MERGE, 0, 1)]).await;
    let (expired, _) = store.expire(&until(6000), &due, |_| Vec::new()).await.unwrap();
    assert_eq!(expired.intermediates.len(), 0);
    assert_eq!(files(&store, PARTS, None, 0).await.len(), 2);
}

#[tokio::test]
async fn what_was_made_again_and_what_nobody_used_goes() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    write(&store, [insert(1, "1")]).await;
    write(&store, done(1, PARTS, 0, 0, 5000)).await;
    write(&store, [reset(PARTS, 0, 1)]).await;
    assert_eq!(files(&store, PARTS, None, 0).await, [""; 0], "it is made again");
    assert_eq!(gone(&store, 4999).await, []);
    assert_eq!(gone(&store, 5000).await, [(1, 0)]);
    write(&store, done(2, PARTS, 0, 1, 6000)).await;
    write(&store, [ended(8000)]).await;
    assert_eq!(gone(&store, 7999).await, []);
    drop(store);
    let store = open(folder.path()).await;
    assert_eq!(files(&store, PARTS, None, 0).await, ["1-0-1"]);
    assert_eq!(gone(&store, 8000).await, [(1, 0)]);
    assert_eq!(store.tasks_without_files(JobId(1), PARTS).await.unwrap(), [TaskIndex(0)]);
}

#[tokio::test]
async fn previews_stay_as_long_as_the_output_of_their_frame() {
    let store = fresh().await;
    write(&store, [insert(1, "1-2")]).await;
    for (counter, frame) in [(1, 1), (2, 2)] {
        let frame_task = task(1, frame - 1);
        write(&store, [opened(counter, frame_task, 0, 1), committed(counter, frame_task, 0, frame as i32)])
            .await;
        write(&store, done(counter + 10, THUMBS, frame - 1, 0, 4100)).await;
    }
    write(&store, [ended(5000)]).await;
    gone(&store, 900_000).await;
    let is_needed = async |name: &str| store.needed_blobs().await.unwrap().contains(&hash(name));
    assert!(is_needed("3-0-0").await && is_needed("3-1-0").await, "the frames are not fetched");
    write(&store, [Write::MarkFetched { job: JobId(1), sequence: 4, at_ms: 6000 }]).await;
    let (_, needed) = store.would_expire(&until(6000)).await.unwrap();
    assert!(!needed.contains(&hash("3-0-0")), "it would go with its frame");
    assert_eq!(expire(&store, &until(6000)).await.outputs, [JobId(1)]);
    assert!(!is_needed("3-0-0").await && !is_needed("3-1-0").await);
    // A frame that is rendered again has a preview again.
    write(&store, [reset(StepIndex(0), 0, 1), reset(THUMBS, 0, 1)]).await;
    write(&store, [opened(5000, task(1, 0), 1, 1), committed(5000, task(1, 0), 1, 1)]).await;
    write(&store, done(21, THUMBS, 0, 1, 9500)).await;
    assert!(is_needed("3-0-1").await && !is_needed("3-0-0").await && !is_needed("3-1-0").await);
    assert_eq!(files(&store, StepIndex(0), Some((0, 0)), 0).await, ["0001.exr", "depth/0001.exr"]);
    assert_eq!(files(&store, StepIndex(0), Some((1, 1)), 0).await, [""; 0], "its bytes are gone");
}

#[tokio::test]
async fn a_deleted_job_needs_nothing_and_its_rows_go() {
    let store = fresh().await;
    write(&store, [insert(1, "1")]).await;
    write(&store, done(1, PARTS, 0, 0, 5000)).await;
    write(&store, [Write::DeleteJob { job: JobId(1) }]).await;
    assert!(!store.needed_blobs().await.unwrap().contains(&hash("1-0-0")));
    assert_eq!(gone(&store, 900_000).await, [], "its rows go by themselves");
    store.sweep().await.unwrap();
    assert_eq!(files(&store, PARTS, None, 0).await, [""; 0]);
}
