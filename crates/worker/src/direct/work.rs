//! The run of a task without a Blender.

use std::{fmt, path::PathBuf, sync::Arc, time::Instant};

use futures_util::future::BoxFuture;
use kiln_types::{Failure, FailureCause};
use tokio::{sync::OwnedMutexGuard, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    inputs::{SharedInputs, TaskInputs},
    monitor::AttemptMonitor,
    output::{OutputFiles, TaskResult},
    scratch::{ScratchFolder, create_folder, on_disk, write_failure},
    task::TaskHead,
};

/// A task without a Blender.
#[derive(Debug, Clone)]
pub(crate) struct DirectTask {
    pub(crate) head: TaskHead,
    /// Bytes that it claims.
    pub(crate) memory: u64,
    pub(crate) inputs: SharedInputs,
    pub(crate) work: Arc<dyn DirectWork>,
}

/// The work of a task without a Blender: one implementation for each kind of step that has such tasks.
pub(crate) trait DirectWork: fmt::Debug + Send + Sync {
    /// Makes the files. Dropping the future cancels the work.
    fn run(self: Arc<Self>, room: DirectRoom) -> BoxFuture<'static, Result<OutputFiles, Failure>>;
}

/// The things that a running task without a Blender uses.
#[derive(Debug)]
#[cfg_attr(not(debug_assertions), expect(dead_code, reason = "only the steps of tests have no Blender yet"))]
pub(crate) struct DirectRoom {
    pub(crate) head: TaskHead,
    /// All files of its inputs.
    pub(crate) inputs: OwnedMutexGuard<TaskInputs>,
    /// An empty folder for its files.
    pub(crate) folder: ScratchFolder,
    pub(crate) monitor: AttemptMonitor,
}

/// Runs a task, and leaves its files in `folder`. `None` if it was cancelled.
pub(crate) async fn run(
    task: DirectTask,
    folder: PathBuf,
    monitor: AttemptMonitor,
    cancel: CancellationToken,
) -> Option<Result<TaskResult, Failure>> {
    let DirectTask { head, memory, inputs, work } = task;
    let started = Instant::now();
    monitor.serve(head.attempt);
    let limit = head.time_limit;
    let made = async {
        let inputs = inputs.complete().await?;
        let folder = ScratchFolder::new(folder);
        let path = folder.path().to_owned();
        on_disk(move || create_folder(&path)).await.map_err(|error| {
            let message = format!("the task's folder cannot be made: {error}");
            write_failure(&error, || Failure::new(FailureCause::Other, message))
        })?;
        work.run(DirectRoom { head, inputs, folder, monitor: monitor.clone() }).await
    };
    let limited = async {
        match limit {
            Some(limit) => timeout(limit, made).await.unwrap_or_else(|_| {
                let message = format!("the task took longer than {} s", limit.as_secs());
                Err(Failure::new(FailureCause::TimedOut, message))
            }),
            None => made.await,
        }
    };
    let files = cancel.run_until_cancelled(limited).await;
    monitor.flush();
    let seconds = started.elapsed().as_secs_f64();
    let result = |files| TaskResult {
        files,
        log_tail: Vec::new(),
        notices: Vec::new(),
        seconds,
        peak_memory: memory,
        span: None,
    };
    Some(files?.map(result))
}
