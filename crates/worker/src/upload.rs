//! The delivery of files: checked, hashed and uploaded while the next task runs.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use kiln_client::{Client, ClientError};
use kiln_types::{Failure, FailureCause, TaskFile};
use tokio::{sync::Semaphore, task::spawn_blocking};
use tokio_util::sync::CancellationToken;

use crate::{
    output::{CollectedBytes, SMALL, TaskOutput},
    scratch::ScratchFolder,
    transfer::backoff,
};

/// Tasks whose files may wait for their upload before slots stop to start more.
const MOST_TASKS: u64 = 64;
/// Bytes that may wait.
const MOST_BYTES: u64 = 4 << 30;
/// Uploads at a time: more would only share the same line.
const UPLOADS: usize = 4;
/// Bytes that may wait in memory; beyond it, all files wait on disk.
const MOST_IN_MEMORY: u64 = 256 << 20;

/// The time that finished files wait for room on the server's disk.
const FULL_PATIENCE: Duration = Duration::from_secs(10 * 60);

/// Files on their way from a slot to the server.
#[derive(Debug)]
pub(crate) struct UploadQueue {
    client: Client,
    folder: PathBuf,
    permits: Semaphore,
    tasks: AtomicU64,
    bytes: AtomicU64,
}

/// Counts a task, and its bytes once known, for as long as its files wait.
struct Waiting<'a> {
    uploads: &'a UploadQueue,
    bytes: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.uploads.tasks.fetch_sub(1, Ordering::Relaxed);
        self.uploads.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl UploadQueue {
    pub(crate) fn new(client: Client, folder: PathBuf) -> Self {
        let permits = Semaphore::new(UPLOADS);
        Self { client, folder, permits, tasks: AtomicU64::new(0), bytes: AtomicU64::new(0) }
    }

    /// The folder of all files that have left their slots.
    pub(crate) fn folder(&self) -> &std::path::Path {
        &self.folder
    }

    /// Returns true if there is room for the files of another task.
    pub(crate) fn has_room(&self) -> bool {
        self.tasks.load(Ordering::Relaxed) < MOST_TASKS && self.bytes.load(Ordering::Relaxed) < MOST_BYTES
    }

    /// Checks the files of a task and brings them to the server; waits for as long as the server is away. `None` if it was
    /// cancelled.
    pub(crate) async fn deliver(
        self: Arc<Self>,
        output: TaskOutput,
        cancel: CancellationToken,
    ) -> Option<Result<Vec<TaskFile>, Failure>> {
        cancel.run_until_cancelled(self.collect_and_upload(output)).await
    }

    async fn collect_and_upload(&self, output: TaskOutput) -> Result<Vec<TaskFile>, Failure> {
        self.tasks.fetch_add(1, Ordering::Relaxed);
        let mut waiting = Waiting { uploads: self, bytes: 0 };
        let folder = ScratchFolder::new(self.folder.join(output.attempt.to_string()));
        let small = if self.bytes.load(Ordering::Relaxed) < MOST_IN_MEMORY { SMALL } else { 0 };
        let collected = spawn_blocking(move || output.collect(folder, small)).await.map_err(|error| {
            Failure::new(FailureCause::BadOutput, format!("the files could not be checked: {error}"))
        })??;
        waiting.bytes = collected.files.iter().map(|(_, file)| file.size).sum();
        self.bytes.fetch_add(waiting.bytes, Ordering::Relaxed);
        for (bytes, file) in &collected.files {
            self.upload(bytes, file).await?;
        }
        Ok(collected.files.into_iter().map(|(_, file)| file).collect())
    }

    async fn upload(&self, bytes: &CollectedBytes, file: &TaskFile) -> Result<(), Failure> {
        let TaskFile { path, hash, size, picture: _ } = file;
        let mut backoff = backoff();
        let mut full_since = None;
        loop {
            let sent = {
                let _permit = self.permits.acquire().await;
                match bytes {
                    CollectedBytes::InMemory(bytes) => self.client.put_blob_bytes(*hash, bytes.clone()).await,
                    CollectedBytes::OnDisk(place) => self.client.put_blob_file(*hash, *size, place).await,
                }
            };
            match sent {
                Ok(()) => return Ok(()),
                Err(error) if error.is_transient() => {
                    tracing::debug!(%error, %path, "upload failed; trying again");
                }
                // The work is done: its files wait here, and with them the slots once enough files do.
                Err(error) if is_full(&error) => {
                    let since = *full_since.get_or_insert_with(|| {
                        tracing::warn!(%path, "upload refused: the server's disk is full; trying again");
                        Instant::now()
                    });
                    if since.elapsed() >= FULL_PATIENCE {
                        return Err(refused(&error, file));
                    }
                }
                Err(error) => return Err(refused(&error, file)),
            }
            tokio::time::sleep(backoff.failed()).await;
        }
    }
}

fn is_full(error: &ClientError) -> bool {
    error.code() == Some(kiln_api::ProblemCode::NoSpace)
}

fn refused(error: &ClientError, file: &TaskFile) -> Failure {
    let cause = if is_full(error) { FailureCause::DiskFull } else { FailureCause::Other };
    Failure::new(cause, format!("{} is made, but was not taken by the server: {error}", file.path))
}
