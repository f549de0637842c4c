//! The committed files of earlier steps that a task uses, fetched into a folder of its own as they come.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use futures_util::{StreamExt, TryStreamExt, stream};
use kiln_api::StepFile;
use kiln_blobs::DiskSpace;
use kiln_client::Client;
use kiln_types::{BlobHasher, Failure, JobId, RelPath, StepIndex, TaskIndex};
use tokio::{
    fs::File,
    io::AsyncWriteExt,
    sync::{Mutex, Notify, OwnedMutexGuard},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    scratch::{ScratchFolder, create_folder, on_disk},
    transfer::{TransferError, TransferRetry, not_stored, unavailable},
};

/// Files that are fetched at the same time.
const AT_ONCE: usize = 4;
/// Bytes of the disk that fetched files leave free.
const DISK_RESERVE: u64 = 1 << 30;

/// Fetches the inputs of all tasks of a worker. Cheap to clone; clones share what they reserve of the disk.
#[derive(Debug, Clone)]
pub(crate) struct InputFetcher {
    client: Client,
    folder: PathBuf,
    space: DiskSpace,
}

/// An earlier step, and the part of its list that is here.
#[derive(Debug)]
pub(crate) struct InputStep {
    job: JobId,
    step: StepIndex,
    /// Only the files of this frame.
    frame: Option<i32>,
    /// The sequence of the last commit whose files are here.
    after: u64,
}

impl InputStep {
    pub(crate) fn new(job: JobId, step: StepIndex, frame: Option<i32>) -> Self {
        Self { job, step, frame, after: 0 }
    }
}

/// The order in which a task uses its inputs: by step, task and path.
type InputKey = (StepIndex, TaskIndex, RelPath);

/// The inputs of a task that are here.
#[derive(Debug)]
pub(crate) struct TaskInputs {
    fetcher: InputFetcher,
    folder: ScratchFolder,
    steps: Vec<InputStep>,
    files: BTreeMap<InputKey, PathBuf>,
}

impl InputFetcher {
    pub(crate) fn new(client: Client, folder: PathBuf) -> Self {
        let space = DiskSpace::of(&folder, DISK_RESERVE);
        Self { client, folder, space }
    }

    /// The inputs of a task, none of them fetched yet. `name`: of its folder.
    pub(crate) fn inputs(&self, name: &str, steps: Vec<InputStep>) -> TaskInputs {
        let folder = ScratchFolder::new(self.folder.join(name));
        TaskInputs { fetcher: self.clone(), folder, steps, files: BTreeMap::new() }
    }

    async fn fetch(&self, file: &StepFile, to: &Path) -> Result<(), TransferError> {
        let mut room = self.space.reserve(file.size)?;
        let (size, mut stream) = self.client.get_blob(file.hash).await?;
        if size != file.size {
            return Err(unavailable(format!("{} has {size} bytes, not {}", file.path, file.size)).into());
        }
        let mut copy = File::create(to).await?;
        let mut hasher = BlobHasher::new();
        while let Some(piece) = stream.next().await {
            let piece = piece?;
            room.take(piece.len() as u64)?;
            hasher.update(&piece);
            copy.write_all(&piece).await?;
        }
        copy.flush().await?;
        if hasher.hash() != file.hash {
            return Err(TransferError::Transient(format!("{} was damaged on the way", file.path)));
        }
        Ok(())
    }
}

impl TaskInputs {
    #[cfg_attr(
        not(debug_assertions),
        expect(dead_code, reason = "only the steps of tests have no Blender yet")
    )]
    pub(crate) fn files(&self) -> impl Iterator<Item = (&InputKey, &Path)> {
        self.files.iter().map(|(key, path)| (key, path.as_path()))
    }

    /// Fetches all files that the server lists now and that are not here. May be dropped in between, and begun again.
    pub(crate) async fn fetch(&mut self) -> Result<(), Failure> {
        let Self { fetcher, folder, steps, files } = self;
        let path = folder.path().to_owned();
        let created = on_disk(move || create_folder(&path)).await;
        created.map_err(|error| not_stored(&error, error.to_string()))?;
        for step in steps {
            let mut retry = TransferRetry::new();
            while let Err(error) = step.fetch(fetcher, folder.path(), files).await {
                retry.wait(error).await?;
            }
        }
        Ok(())
    }
}

impl InputStep {
    async fn fetch(
        &mut self,
        fetcher: &InputFetcher,
        folder: &Path,
        files: &mut BTreeMap<InputKey, PathBuf>,
    ) -> Result<(), TransferError> {
        loop {
            let page = fetcher.client.step_files(self.job, self.step, self.frame, self.after).await?;
            let mut lacking = Vec::new();
            let last = page.files.last().map_or(self.after, |file| file.sequence);
            for file in page.files {
                let key = (self.step, file.index, file.path.clone());
                if !files.contains_key(&key) {
                    // Files are inserted in this order, so that a number is used once.
                    let path = folder.join((files.len() + lacking.len()).to_string());
                    let fetcher = fetcher.clone();
                    lacking.push(async move { fetcher.fetch(&file, &path).await.map(|()| (key, path)) });
                }
            }
            let mut fetches = stream::iter(lacking).buffered(AT_ONCE);
            while let Some((key, path)) = fetches.try_next().await? {
                files.insert(key, path);
            }
            self.after = last;
            if !page.more {
                return Ok(());
            }
        }
    }
}

/// The inputs of a task, shared by its attempt's stages: while it streams, and on its slot.
#[derive(Debug, Clone)]
pub(crate) struct SharedInputs {
    inputs: Arc<Mutex<TaskInputs>>,
    /// Fetches while the attempt streams, and ends with the last reference.
    stream: Option<(Arc<Notify>, Arc<AbortOnDropHandle<()>>)>,
}

impl SharedInputs {
    pub(crate) fn new(inputs: TaskInputs) -> Self {
        Self { inputs: Arc::new(Mutex::new(inputs)), stream: None }
    }

    /// Fetches files as they come, until the last reference is dropped or a fetch fails.
    pub(crate) fn stream(inputs: TaskInputs, failed: impl FnOnce(Failure) + Send + 'static) -> Self {
        let inputs = Arc::new(Mutex::new(inputs));
        let arrived = Arc::new(Notify::new());
        let (fetched, notified) = (inputs.clone(), arrived.clone());
        let task = tokio::spawn(async move {
            loop {
                let result = fetched.lock().await.fetch().await;
                if let Err(failure) = result {
                    return failed(failure);
                }
                notified.notified().await;
            }
        });
        Self { inputs, stream: Some((arrived, Arc::new(AbortOnDropHandle::new(task)))) }
    }

    /// Looks for more files.
    pub(crate) fn notify(&self) {
        if let Some((arrived, _)) = &self.stream {
            arrived.notify_one();
        }
    }

    /// Fetches what is not here yet, and returns all inputs.
    pub(crate) async fn complete(&self) -> Result<OwnedMutexGuard<TaskInputs>, Failure> {
        let mut inputs = self.inputs.clone().lock_owned().await;
        inputs.fetch().await?;
        Ok(inputs)
    }
}
