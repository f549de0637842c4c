//! The few things done to files, each on a thread that may block.

use std::fs::{self, File};
use std::io::{self, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use kiln_types::BlobHash;
use tokio::task::JoinHandle;

use crate::{BlobError, Durability, StreamError};

pub(crate) type Result<T> = std::result::Result<T, BlobError>;

/// Bytes gathered before a thread is asked to write them: enough that the asking costs nothing beside it.
const BUFFER: usize = 1 << 20;

/// Runs what blocks off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    joined(tokio::task::spawn_blocking(work)).await
}

pub(crate) async fn joined<T>(task: JoinHandle<Result<T>>) -> Result<T> {
    task.await.unwrap_or_else(|panic| {
        let source = io::Error::other(panic);
        Err(BlobError::Io { doing: "finish writing to", path: PathBuf::new(), source })
    })
}

/// A file being written, removed when it is dropped before it was kept.
#[derive(Debug)]
pub(crate) struct Draft {
    file: File,
    path: PathBuf,
    hasher: blake3::Hasher,
    len: u64,
    kept: bool,
}

impl Draft {
    pub fn create(path: PathBuf) -> Result<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(BlobError::io("create", &path))?;
        Ok(Self { file, path, hasher: blake3::Hasher::new(), len: 0, kept: false })
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(BlobError::io("write", &self.path))?;
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Writes in any order; [`Draft::hash_rest`] follows. What comes in order is hashed as it comes.
    pub fn write_at(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        self.file
            .seek(SeekFrom::Start(at))
            .and_then(|_| self.file.write_all(bytes))
            .map_err(BlobError::io("write", &self.path))?;
        if at == self.len {
            self.hasher.update(bytes);
            self.len += bytes.len() as u64;
        }
        Ok(())
    }

    /// Writes all of it, whose hash is known.
    pub fn write_checked(&mut self, bytes: &[u8]) -> Result<()> {
        self.len = bytes.len() as u64;
        self.file.write_all(bytes).map_err(BlobError::io("write", &self.path))
    }

    /// Hashes what was written in any order.
    pub fn hash_rest(&mut self) -> Result<()> {
        self.len += self
            .file
            .seek(SeekFrom::Start(self.len))
            .and_then(|_| io::copy(&mut BufReader::with_capacity(1 << 18, &self.file), &mut self.hasher))
            .map_err(BlobError::io("read", &self.path))?;
        Ok(())
    }

    pub fn hash(&self) -> (BlobHash, u64) {
        (self.hasher.finalize().into(), self.len)
    }

    /// Bytes so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Gives the file its final name.
    pub fn keep(mut self, to: &Path, durability: Durability) -> Result<()> {
        make_safe(&self.file, &self.path, durability)?;
        move_in(&self.path, to, durability)?;
        self.kept = true;
        Ok(())
    }
}

/// Gives many files their final names, flushing the disk once. After a loss of power, a name may be gone, but what
/// has its name is whole.
pub(crate) fn keep_all(drafts: Vec<(Draft, PathBuf)>, durability: Durability) -> Result<()> {
    for (draft, _) in &drafts {
        make_safe(&draft.file, &draft.path, Durability::Ephemeral)?;
    }
    if durability == Durability::Durable {
        flush_all(&drafts)?;
    }
    for (mut draft, to) in drafts {
        move_in(&draft.path, &to, Durability::Ephemeral)?;
        draft.kept = true;
    }
    Ok(())
}

/// All of these, which lie on one disk.
fn flush_all(drafts: &[(Draft, PathBuf)]) -> Result<()> {
    #[cfg(target_os = "linux")]
    if let Some((draft, _)) = drafts.first() {
        let flushed = rustix::fs::syncfs(&draft.file).map_err(io::Error::from);
        return flushed.map_err(BlobError::io("write", &draft.path));
    }
    for (draft, _) in drafts {
        draft.file.sync_all().map_err(BlobError::io("write", &draft.path))?;
    }
    Ok(())
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept {
            // What cannot be removed now is removed when the store is next opened.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Nobody changes a blob any more, its promise begins, and its bytes are on the disk before its name is.
pub(crate) fn make_safe(file: &File, path: &Path, durability: Durability) -> Result<()> {
    file.set_modified(SystemTime::now()).map_err(BlobError::io("date", path))?;
    let mut permissions = file.metadata().map_err(BlobError::io("look at", path))?.permissions();
    permissions.set_readonly(true);
    file.set_permissions(permissions).map_err(BlobError::io("protect", path))?;
    match durability {
        Durability::Durable => file.sync_all().map_err(BlobError::io("write", path)),
        Durability::Ephemeral => Ok(()),
    }
}

/// Renames, making the folder of the new name where it is not there yet.
pub(crate) fn move_in(from: &Path, to: &Path, durability: Durability) -> Result<()> {
    let folder = to.parent().unwrap_or(Path::new("."));
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(folder).map_err(BlobError::io("create", folder))?;
            if let Some(above) = folder.parent() {
                sync_folder(above, durability)?;
            }
            fs::rename(from, to).map_err(BlobError::io("write", to))?;
        }
        done => done.map_err(BlobError::io("write", to))?,
    }
    sync_folder(folder, durability)
}

pub(crate) fn sync_folder(folder: &Path, durability: Durability) -> Result<()> {
    match durability {
        Durability::Durable => {
            File::open(folder).and_then(|f| f.sync_all()).map_err(BlobError::io("write", folder))
        }
        Durability::Ephemeral => Ok(()),
    }
}

/// Whether there was such a file.
pub(crate) fn remove(path: &Path) -> Result<bool> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        done => done.map(|()| true).map_err(BlobError::io("remove", path)),
    }
}

/// The length of a file, if it is there.
pub(crate) fn length(path: &Path) -> Result<Option<u64>> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        done => done.map(|meta| Some(meta.len())).map_err(BlobError::io("look at", path)),
    }
}

/// Every file below `root` that is named by a hash, as `root/ab/abcdef...`; others are passed over.
pub(crate) fn walk(root: &Path) -> Result<Vec<(BlobHash, fs::Metadata)>> {
    let mut all = Vec::new();
    for shard in fs::read_dir(root).map_err(BlobError::io("read", root))? {
        let shard = shard.map_err(BlobError::io("read", root))?.path();
        let entries = match fs::read_dir(&shard) {
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => continue,
            entries => entries.map_err(BlobError::io("read", &shard))?,
        };
        for entry in entries {
            let entry = entry.map_err(BlobError::io("read", &shard))?;
            let Some(hash) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            match entry.metadata() {
                // Deleted meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                meta => all.push((hash, meta.map_err(BlobError::io("look at", &entry.path()))?)),
            }
        }
    }
    Ok(all)
}

/// `root/ab/abcdef...`
pub(crate) fn sharded(root: &Path, hash: &BlobHash) -> PathBuf {
    let name = hash.to_string();
    root.join(&name[..2]).join(name)
}

/// Carries a stream through `step` in large pieces, each on a thread that may block, while the next piece
/// arrives. `sink` goes along. A stream that breaks gives back the sink with what arrived before, and the error.
pub(crate) async fn pour<S, E, T>(
    stream: S,
    sink: T,
    step: impl Fn(&mut T, &[u8]) -> Result<()> + Clone + Send + 'static,
) -> Result<(T, Option<StreamError>)>
where
    S: Stream<Item = std::result::Result<Bytes, E>> + Send,
    E: Into<StreamError>,
    T: Send + 'static,
{
    let mut stream = pin!(stream);
    let mut state = Pouring::Idle(sink);
    let mut buffer = BytesMut::new();
    let mut broken = None;
    loop {
        let next = stream.next().await;
        let last = match next {
            Some(Ok(bytes)) => {
                // A large piece that comes alone is not copied once more.
                if buffer.is_empty() && bytes.len() >= BUFFER {
                    state = state.start(bytes, step.clone()).await?;
                    continue;
                }
                buffer.extend_from_slice(&bytes);
                false
            }
            Some(Err(error)) => {
                broken = Some(error.into());
                true
            }
            None => true,
        };
        if buffer.len() >= BUFFER || (last && !buffer.is_empty()) {
            state = state.start(std::mem::take(&mut buffer).freeze(), step.clone()).await?;
        }
        if last {
            return Ok((state.rest().await?, broken));
        }
    }
}

enum Pouring<T> {
    Idle(T),
    Busy(JoinHandle<Result<T>>),
}

impl<T: Send + 'static> Pouring<T> {
    async fn rest(self) -> Result<T> {
        match self {
            Self::Idle(sink) => Ok(sink),
            Self::Busy(task) => joined(task).await,
        }
    }

    async fn start(
        self,
        bytes: Bytes,
        step: impl Fn(&mut T, &[u8]) -> Result<()> + Send + 'static,
    ) -> Result<Self> {
        let mut sink = self.rest().await?;
        Ok(Self::Busy(tokio::task::spawn_blocking(move || {
            step(&mut sink, &bytes)?;
            Ok(sink)
        })))
    }
}
