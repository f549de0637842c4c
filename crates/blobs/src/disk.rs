//! The few things done to files, each on a thread that may block.

use std::fs::{self, File};
use std::io::{self, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use kiln_chunks::{Frame, FrameDecoder};
use kiln_types::{BlobHash, BlobHasher};
use tokio::task::JoinHandle;

use crate::{BlobError, Durability, StreamError};

pub(crate) type BlobResult<T> = std::result::Result<T, BlobError>;

/// Bytes gathered before a thread is asked to write them: enough that the asking costs nothing beside it.
const BUFFER: usize = 1 << 20;

/// Bytes that are placed before they are written: they are still at hand for the hash and the system.
const WINDOW: usize = 128 << 10;
const PAGE: usize = 4096;

/// Runs what blocks off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> BlobResult<T> + Send + 'static,
) -> BlobResult<T> {
    joined(tokio::task::spawn_blocking(work)).await
}

pub(crate) async fn joined<T>(task: JoinHandle<BlobResult<T>>) -> BlobResult<T> {
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
    hasher: BlobHasher,
    len: u64,
    window: Window,
    kept: bool,
}

/// The placed bytes that are not written yet.
#[derive(Debug, Default)]
struct Window {
    /// The position in the file.
    at: u64,
    bytes: Vec<u8>,
    /// Bytes of it.
    filled: usize,
}

impl Draft {
    pub fn create(path: PathBuf) -> BlobResult<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(BlobError::io("create", &path))?;
        Ok(Self { file, path, hasher: BlobHasher::new(), len: 0, window: Window::default(), kept: false })
    }

    pub fn write(&mut self, bytes: &[u8]) -> BlobResult<()> {
        self.file.write_all(bytes).map_err(BlobError::io("write", &self.path))?;
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Writes in any order; [`Draft::hash_rest`] follows. What comes in order is gathered, and hashed as it comes.
    pub fn place(&mut self, at: u64, piece: &[u8]) -> BlobResult<()> {
        if at != self.window.at + self.window.filled as u64 {
            self.write_window(0)?;
            self.window.at = at;
        }
        let Window { bytes, filled, .. } = &mut self.window;
        let end = *filled + piece.len();
        if bytes.len() < end {
            bytes.resize(end.max(2 * WINDOW), 0);
        }
        bytes[*filled..end].copy_from_slice(piece);
        *filled = end;
        if end >= WINDOW {
            // What the system keeps by pages is given to it by pages.
            self.write_window((self.window.at as usize).wrapping_add(end) % PAGE)?;
        }
        Ok(())
    }

    /// Writes what is in the window but for the last bytes, which stay there.
    fn write_window(&mut self, left: usize) -> BlobResult<()> {
        let Window { at, bytes, filled } = &mut self.window;
        let left = left.min(*filled);
        let now = &bytes[..*filled - left];
        if now.is_empty() {
            return Ok(());
        }
        self.file
            .seek(SeekFrom::Start(*at))
            .and_then(|_| self.file.write_all(now))
            .map_err(BlobError::io("write", &self.path))?;
        if *at == self.len {
            self.hasher.update(now);
            self.len += now.len() as u64;
        }
        *at += now.len() as u64;
        bytes.copy_within(*filled - left..*filled, 0);
        *filled = left;
        Ok(())
    }

    /// Writes all of it, whose hash is known.
    pub fn write_checked(&mut self, bytes: &[u8]) -> BlobResult<()> {
        self.len = bytes.len() as u64;
        self.file.write_all(bytes).map_err(BlobError::io("write", &self.path))
    }

    /// Writes what was gathered, and hashes what was placed in any order.
    pub fn hash_rest(&mut self) -> BlobResult<()> {
        self.write_window(0)?;
        self.len += self
            .file
            .seek(SeekFrom::Start(self.len))
            .and_then(|_| io::copy(&mut BufReader::with_capacity(1 << 18, &self.file), &mut self.hasher))
            .map_err(BlobError::io("read", &self.path))?;
        Ok(())
    }

    pub fn hash(&self) -> (BlobHash, u64) {
        (self.hasher.hash(), self.len)
    }

    /// Bytes so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Gives the file its final name.
    pub fn keep(mut self, to: &Path, durability: Durability) -> BlobResult<()> {
        make_safe(&self.file, &self.path, durability)?;
        move_in(&self.path, to, durability)?;
        self.kept = true;
        Ok(())
    }
}

/// Gives many files their final names, flushing the disk once. After a loss of power, a name may be gone, but what
/// has its name is whole.
pub(crate) fn keep_all(drafts: Vec<(Draft, PathBuf)>, durability: Durability) -> BlobResult<()> {
    for (draft, _) in &drafts {
        make_safe(&draft.file, &draft.path, Durability::Ephemeral)?;
    }
    if durability == Durability::Durable {
        let flushed = kiln_files::flush_together(drafts.iter().map(|(draft, _)| &draft.file));
        let first = drafts.first().map(|(draft, _)| draft.path.as_path());
        flushed.map_err(BlobError::io("write", first.unwrap_or(Path::new(""))))?;
    }
    for (mut draft, to) in drafts {
        move_in(&draft.path, &to, Durability::Ephemeral)?;
        draft.kept = true;
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
pub(crate) fn make_safe(file: &File, path: &Path, durability: Durability) -> BlobResult<()> {
    file.set_modified(SystemTime::now()).map_err(BlobError::io("date", path))?;
    let mut permissions = file.metadata().map_err(BlobError::io("look at", path))?.permissions();
    permissions.set_readonly(true);
    file.set_permissions(permissions).map_err(BlobError::io("protect", path))?;
    match durability {
        Durability::Durable => file.sync_all().map_err(BlobError::io("write", path)),
        Durability::Ephemeral => Ok(()),
    }
}

/// Renames, making the folder of the new name where it is not there yet. No [`kiln_files::rename_durably`]: the bytes are
/// safe already, those of many files by one flush, and where names may be lost it flushes no folder.
pub(crate) fn move_in(from: &Path, to: &Path, durability: Durability) -> BlobResult<()> {
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

pub(crate) fn sync_folder(folder: &Path, durability: Durability) -> BlobResult<()> {
    match durability {
        Durability::Durable => kiln_files::flush_folder(folder).map_err(BlobError::io("write", folder)),
        Durability::Ephemeral => Ok(()),
    }
}

/// Returns true if there was such a file.
pub(crate) fn remove(path: &Path) -> BlobResult<bool> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        done => done.map(|()| true).map_err(BlobError::io("remove", path)),
    }
}

/// The length of a file, if it is there.
pub(crate) fn length(path: &Path) -> BlobResult<Option<u64>> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        done => done.map(|meta| Some(meta.len())).map_err(BlobError::io("look at", path)),
    }
}

/// Every file below `root` that is named by a hash, as `root/ab/abcdef...`; others are passed over.
pub(crate) fn walk(root: &Path) -> BlobResult<Vec<(BlobHash, fs::Metadata)>> {
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
    step: impl Fn(&mut T, &[u8]) -> BlobResult<()> + Clone + Send + 'static,
) -> BlobResult<(T, Option<BlobError>)>
where
    S: Stream<Item = std::result::Result<Bytes, E>> + Send,
    E: Into<StreamError>,
    T: Send + 'static,
{
    pour_gathered(stream, Pieces::default(), sink, move |sink: &mut T, bytes: Bytes| step(sink, &bytes)).await
}

/// As [`pour`], for a stream of frames: those that are whole, many at a time. Bytes that are no frame, or end in the
/// middle of one, break the stream.
pub(crate) async fn pour_frames<S, E, T>(
    stream: S,
    sink: T,
    step: impl Fn(&mut T, Vec<Frame>) -> BlobResult<()> + Clone + Send + 'static,
) -> BlobResult<(T, Option<BlobError>)>
where
    S: Stream<Item = std::result::Result<Bytes, E>> + Send,
    E: Into<StreamError>,
    T: Send + 'static,
{
    pour_gathered(stream, Frames::default(), sink, step).await
}

/// Gathers what arrives until it is worth the trip to another thread.
trait Gather {
    type Load: Send + 'static;

    fn push(&mut self, piece: Bytes) -> BlobResult<()>;

    /// A load that is worth a write; at the end, all there is.
    fn take(&mut self, last: bool) -> Option<Self::Load>;

    /// Checks that the stream may end here.
    fn end(self) -> BlobResult<()>;
}

#[derive(Default)]
struct Pieces {
    /// A large piece that came alone is not copied once more.
    alone: Option<Bytes>,
    buffer: BytesMut,
}

impl Gather for Pieces {
    type Load = Bytes;

    fn push(&mut self, piece: Bytes) -> BlobResult<()> {
        if self.buffer.is_empty() && piece.len() >= BUFFER {
            self.alone = Some(piece);
        } else {
            self.buffer.extend_from_slice(&piece);
        }
        Ok(())
    }

    fn take(&mut self, last: bool) -> Option<Bytes> {
        let worth = self.buffer.len() >= BUFFER || (last && !self.buffer.is_empty());
        self.alone.take().or_else(|| worth.then(|| std::mem::take(&mut self.buffer).freeze()))
    }

    fn end(self) -> BlobResult<()> {
        Ok(())
    }
}

#[derive(Default)]
struct Frames {
    decoder: FrameDecoder,
    whole: Vec<Frame>,
    /// Bytes of those.
    len: usize,
}

impl Gather for Frames {
    type Load = Vec<Frame>;

    fn push(&mut self, piece: Bytes) -> BlobResult<()> {
        self.decoder.push(&piece);
        while let Some(frame) = self.decoder.take()? {
            self.len += frame.len();
            self.whole.push(frame);
        }
        Ok(())
    }

    fn take(&mut self, last: bool) -> Option<Vec<Frame>> {
        let worth = self.len >= BUFFER || (last && self.len > 0);
        worth.then(|| {
            self.len = 0;
            std::mem::take(&mut self.whole)
        })
    }

    fn end(self) -> BlobResult<()> {
        Ok(self.decoder.finish()?)
    }
}

async fn pour_gathered<S, E, G, T>(
    stream: S,
    mut gathered: G,
    sink: T,
    step: impl Fn(&mut T, G::Load) -> BlobResult<()> + Clone + Send + 'static,
) -> BlobResult<(T, Option<BlobError>)>
where
    S: Stream<Item = std::result::Result<Bytes, E>> + Send,
    E: Into<StreamError>,
    G: Gather,
    T: Send + 'static,
{
    let mut stream = pin!(stream);
    let mut state = Pouring::Idle(sink);
    loop {
        let (last, broken) = match stream.next().await {
            None => (true, None),
            Some(Err(error)) => (true, Some(BlobError::Stream(error.into()))),
            Some(Ok(piece)) => match gathered.push(piece) {
                Ok(()) => (false, None),
                Err(error) => (true, Some(error)),
            },
        };
        if let Some(load) = gathered.take(last) {
            state = state.start(load, step.clone()).await?;
        }
        if last {
            let sink = state.rest().await?;
            return Ok((sink, broken.or_else(|| gathered.end().err())));
        }
    }
}

enum Pouring<T> {
    Idle(T),
    Busy(JoinHandle<BlobResult<T>>),
}

impl<T: Send + 'static> Pouring<T> {
    async fn rest(self) -> BlobResult<T> {
        match self {
            Self::Idle(sink) => Ok(sink),
            Self::Busy(task) => joined(task).await,
        }
    }

    async fn start<L: Send + 'static>(
        self,
        load: L,
        step: impl Fn(&mut T, L) -> BlobResult<()> + Send + 'static,
    ) -> BlobResult<Self> {
        let mut sink = self.rest().await?;
        Ok(Self::Busy(tokio::task::spawn_blocking(move || {
            step(&mut sink, load)?;
            Ok(sink)
        })))
    }
}
