//! Which frame of a job delivered which file, so that no other frame of it silently takes the file's place.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use kiln_types::{OutputSet, RelPath, StepIndex, TaskId, TaskIndex};

/// Hashes of paths instead of the paths: a million frames are a few ten megabytes. That two paths of a million
/// share one has a chance of one in ten million.
#[derive(Default)]
pub(crate) struct Paths(HashMap<u64, (StepIndex, TaskIndex)>);

impl Paths {
    pub(super) fn insert(&mut self, step: StepIndex, index: TaskIndex, path: &str) {
        self.0.insert(hash(path), (step, index));
    }

    pub(super) fn insert_all(&mut self, task: TaskId, outputs: &OutputSet) {
        for file in outputs.files() {
            self.insert(task.step, task.index, file.path.as_str());
        }
    }

    /// A file of these that another task of the job has delivered, and that task.
    pub(super) fn taken<'a>(&self, task: TaskId, outputs: &'a OutputSet) -> Option<(&'a RelPath, TaskId)> {
        outputs.files().iter().find_map(|file| {
            let (step, index) = *self.0.get(&hash(file.path.as_str()))?;
            let other = TaskId { job: task.job, step, index };
            (other != task).then_some((&file.path, other))
        })
    }
}

/// Names that differ in letter case only are the same, as within an output set.
fn hash(path: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.to_lowercase().hash(&mut hasher);
    hasher.finish()
}
