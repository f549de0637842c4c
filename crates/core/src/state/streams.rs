//! Streams, by worker and by step.

use std::collections::BTreeMap;

use kiln_types::{AttemptId, TaskIndex};

use crate::IndexSet;

/// The streams of a worker, each with the memory that it claims; bytes.
#[derive(Debug, Default)]
pub(crate) struct WorkerStreams {
    live: BTreeMap<AttemptId, u64>,
    /// Revoked or expired streams, which may be in the worker's memory until each is reported closed.
    closing: BTreeMap<AttemptId, u64>,
}

impl WorkerStreams {
    pub fn is_empty(&self) -> bool {
        self.live.is_empty() && self.closing.is_empty()
    }

    pub fn live(&self) -> impl Iterator<Item = AttemptId> {
        self.live.keys().copied()
    }

    pub fn len(&self) -> usize {
        self.live.len() + self.closing.len()
    }

    /// The live streams, each with its memory.
    pub fn claims(&self) -> impl Iterator<Item = (AttemptId, u64)> {
        self.live.iter().map(|(attempt, memory)| (*attempt, *memory))
    }

    pub fn contains(&self, attempt: AttemptId) -> bool {
        self.live.contains_key(&attempt)
    }

    /// The memory of live and closing streams.
    pub fn memory(&self) -> u64 {
        self.live.values().chain(self.closing.values()).fold(0, |sum, memory| sum.saturating_add(*memory))
    }

    pub fn closing(&self) -> impl Iterator<Item = AttemptId> {
        self.closing.keys().copied()
    }

    pub fn open(&mut self, attempt: AttemptId, memory: u64) {
        self.live.insert(attempt, memory);
    }

    pub fn detach(&mut self, attempt: AttemptId) {
        self.live.remove(&attempt);
    }

    /// Keeps the claim of a closed stream until the worker reports it.
    pub fn close(&mut self, attempt: AttemptId, memory: u64) {
        self.closing.insert(attempt, memory);
    }

    /// Releases the claim of a stream that the worker reports closed; returns whether there was one.
    pub fn reopen(&mut self, attempt: AttemptId) -> bool {
        self.closing.remove(&attempt).is_some()
    }

    /// Forgets every attempt.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

/// The tasks of a step that stream.
#[derive(Debug, Default)]
pub(crate) struct StreamingTasks(BTreeMap<TaskIndex, Stream>);

#[derive(Debug, Clone, Copy)]
pub(crate) struct Stream {
    pub attempt: AttemptId,
    /// The dependencies on the same frame are met.
    pub has_frames: bool,
}

impl StreamingTasks {
    pub fn get(&self, task: TaskIndex) -> Option<Stream> {
        self.0.get(&task).copied()
    }

    pub fn insert(&mut self, task: TaskIndex, stream: Stream) {
        self.0.insert(task, stream);
    }

    pub fn remove(&mut self, task: TaskIndex) -> Option<Stream> {
        self.0.remove(&task)
    }

    pub fn len(&self) -> u32 {
        self.0.len() as u32
    }

    pub fn iter(&self) -> impl Iterator<Item = (TaskIndex, Stream)> {
        self.0.iter().map(|(task, stream)| (*task, *stream))
    }

    /// The tasks that wait for no frame.
    pub fn with_frames(&self) -> impl Iterator<Item = (TaskIndex, AttemptId)> {
        self.iter().filter(|(_, stream)| stream.has_frames).map(|(task, stream)| (task, stream.attempt))
    }

    /// Sets whether the tasks of `which` have their frames.
    pub fn set_frames(&mut self, which: &IndexSet, has_frames: bool) {
        for (_, stream) in self.0.iter_mut().filter(|(task, _)| which.contains(**task)) {
            stream.has_frames = has_frames;
        }
    }
}
