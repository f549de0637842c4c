//! The output paths of a job, so that no frame silently replaces the file of another.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use kiln_types::{OutputSet, RelPath, StepIndex, TaskId, TaskIndex};

/// The task of each output path. Hashes instead of paths: a million frames take tens of megabytes. The chance that two of a
/// million paths have one hash is one in ten million.
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

    /// Returns one of the files that another task of the job has delivered, and that task.
    pub(super) fn find_conflict<'a>(
        &self,
        task: TaskId,
        outputs: &'a OutputSet,
    ) -> Option<(&'a RelPath, TaskId)> {
        outputs.files().iter().find_map(|file| {
            let (step, index) = *self.0.get(&hash(file.path.as_str()))?;
            let other = TaskId { job: task.job, step, index };
            (other != task).then_some((&file.path, other))
        })
    }
}

/// Hashes a path so that paths that differ only in letter case are the same, as within an output set.
fn hash(path: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.to_lowercase().hash(&mut hasher);
    hasher.finish()
}
