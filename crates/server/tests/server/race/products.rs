//! Parts of frames and what is merged of them, removed while people render frames again.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use kiln_api::{AssignedTask, AttemptReport};
use kiln_types::{BlobHash, JobId, JobState, RelPath, ReportOutcome, StepIndex, TaskFile};
use rand::RngExt;
use serde_json::{Value, json};

use super::{LIMIT, OFTEN, Person, ROUNDS, Seen, blob};
use crate::steps::{add, merge, parts};
use crate::support::{FakeWorker, Farm, soon};

const PARTS: StepIndex = StepIndex(1);
const MERGED: StepIndex = StepIndex(2);

/// Returns the content of a part, which is the same in every job.
fn part_text(frame: i32, part: u16) -> String {
    format!("part {part} of frame {frame}\n")
}

fn merged_text(frame: i32) -> String {
    part_text(frame, 0) + &part_text(frame, 1)
}

/// Makes a part, or merges the parts of a frame, and reports it.
pub(super) async fn make(worker: &mut FakeWorker, farm: &Farm, seen: &Seen, task: &AssignedTask) {
    let frame = task.frame.unwrap();
    let (path, made) = match task.part {
        Some(part) => (format!("test/{frame}-{part}"), Ok(part_text(frame, part))),
        None => (format!("test/{frame}"), read_parts(farm, task.task.job, frame).await),
    };
    let bytes = made.clone().unwrap_or_default().into_bytes();
    let (hash, size) = (BlobHash::of(&bytes), bytes.len() as u64);
    farm.client.put_blob_bytes(hash, bytes.into()).await.unwrap();
    let file = TaskFile { path: RelPath::new(&path).unwrap(), hash, size, picture: None };
    let report = AttemptReport::Done { files: vec![file], seconds: 0.1, peak_memory: 1 };
    // Its parts may be missing only if the frame is no longer merged: it is rendered again, or its job is deleted.
    if worker.report(task, report).await == ReportOutcome::Committed && task.part.is_none() {
        assert_eq!(made, Ok(merged_text(frame)), "{} generation {}", task.task, task.generation);
        seen.merged.fetch_add(1, Ordering::Relaxed);
    }
}

async fn read_parts(farm: &Farm, job: JobId, frame: i32) -> Result<String, String> {
    let page = farm.client.step_files(job, PARTS, Some(frame), 0).await.map_err(|error| error.to_string())?;
    let mut files = page.files;
    files.sort_by_key(|file| file.part);
    let mut text = String::new();
    for file in files {
        let bytes = blob(farm, file.hash).await.map_err(|why| format!("{}: {why}", file.path))?;
        text.push_str(str::from_utf8(&bytes).unwrap());
    }
    Ok(text)
}

impl Seen {
    pub(super) fn is_enough_of_products(&self) -> bool {
        let often = [&self.merged, &self.previews, &self.again, &self.intermediates];
        often.into_iter().all(|seen| seen.load(Ordering::Relaxed) >= OFTEN * 3)
    }
}

fn count(seen: &AtomicU64, more: u64) {
    seen.fetch_add(more, Ordering::Relaxed);
}

impl Person {
    pub(super) async fn live_with_products(mut self) {
        let started = Instant::now();
        for round in 0.. {
            if round >= ROUNDS && self.seen.is_enough_of_products() {
                break;
            }
            assert!(started.elapsed() < LIMIT, "not everything was met within {LIMIT:?}: {:?}", self.seen);
            let job = self.bundle(round).await;
            count(&self.seen.jobs, 1);
            let view = self.farm.client.job(job).await.unwrap();
            add(&self.farm, job, parts()).await;
            if self.rng.random_bool(0.5) {
                // Nothing uses the parts of a job that has ended: they are removed, and made again for the next step.
                self.farm.reaches(&view, JobState::Completed).await;
                if self.rng.random_bool(0.5) {
                    soon("the removal of the parts", self.parts_are_gone(job)).await;
                }
            }
            let added = add(&self.farm, job, merge()).await;
            count(&self.seen.again, added.again.into());
            for _ in 0..self.rng.random_range(0..4) {
                match self.rng.random_range(0..4) {
                    0 => self.rerender(job, json!({"frames": "2"})).await,
                    1 => self.rerender(job, json!({})).await,
                    _ => {
                        self.farm.reaches(&view, JobState::Completed).await;
                        self.read_previews(job).await;
                    }
                }
            }
            if self.rng.random_bool(0.7) {
                self.farm.reaches(&view, JobState::Completed).await;
                self.read_previews(job).await;
                let last = self.farm.client.outputs(job, 0).await.unwrap().outputs.pop().unwrap();
                self.farm.client.fetched(job, last.sequence).await.unwrap();
            }
            if self.rng.random_bool(0.7) {
                self.farm.client.delete(job, true).await.unwrap();
            }
        }
    }

    async fn parts_are_gone(&self, job: JobId) {
        while !self.farm.client.step_files(job, PARTS, None, 0).await.unwrap().files.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn rerender(&self, job: JobId, frames: Value) {
        let answer = self.farm.post(&format!("/api/v1/jobs/{job}/rerender"), frames).await;
        let answer: Value = answer.json().await.unwrap();
        match answer["again"].as_u64() {
            Some(again) => count(&self.seen.again, again),
            None => {
                assert!(answer["detail"].as_str().unwrap().contains("nothing to render again"), "{answer}")
            }
        }
    }

    /// Checks that the previews of a completed job are there until its frames are fetched.
    async fn read_previews(&self, job: JobId) {
        let page = self.farm.client.step_files(job, MERGED, None, 0).await.unwrap();
        assert_eq!(page.files.len(), 2, "{page:?}");
        for file in page.files {
            let bytes =
                blob(&self.farm, file.hash).await.unwrap_or_else(|why| panic!("{}: {why}", file.path));
            assert_eq!(bytes, merged_text(file.frame.unwrap()), "job {job}");
        }
        count(&self.seen.previews, 2);
    }
}
