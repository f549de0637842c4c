//! Frames of a job into a folder, each checked before it has its name.

use std::{
    collections::BTreeMap,
    io::{self, BufReader, Seek as _},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use kiln_api::{JobView, OutputView};
use kiln_types::{BlobHasher, JobId, JobSpec, OutputFile, RelPath, Suspicion};
use serde::Serialize;
use tokio::{io::AsyncWriteExt, task::JoinHandle};

use crate::{
    Client, ClientError,
    existing::Existing,
    folder::{OutFolder, PartFile, Placement, WholeFile},
    made::{FrameIdentity, Relation},
    manifest::{Manifest, WrittenFile, same_bytes},
};

/// Frames that are fetched at the same time.
const AT_ONCE: usize = 4;
/// The time between two notes to the server of what is here.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// The longest wait for a frame that another Kiln is fetching to the same path.
const BUSY: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// The longest wait for the last note to the server.
const LAST_WORD: Duration = Duration::from_secs(1);

/// The reasons why frames are not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{} cannot be written ({source}); make room or check the folder, then fetch the frames with \
             `kiln jobs fetch {job}`", path.display())]
    Write { path: PathBuf, job: JobId, source: io::Error },
    #[error("{} is being fetched by another kiln; wait until it is done", path.display())]
    Busy { path: PathBuf },
}

/// A frame that has been dealt with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedFrame {
    pub frame: i32,
    pub files: Vec<RelPath>,
    /// Bytes that came over the network.
    pub bytes: u64,
    /// The reasons why somebody should look at the frame.
    pub suspicious: Vec<Suspicion>,
    pub result: FetchResult,
    /// Files that are in the way of its own, and were left as they are.
    pub left: Vec<RelPath>,
}

/// The result of fetching the files of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FetchResult {
    Written,
    /// Written in the place of a frame of an earlier save, or of other settings.
    Replaced,
    /// It was there already, the same to the last bit.
    AlreadyThere,
    /// Other files are in the way.
    Left,
    /// The server has removed it.
    Gone,
}

/// Fetches the frames of one job. Each call of [`Fetcher::sweep`] takes what is new.
pub struct Fetcher {
    client: Client,
    job: JobId,
    identity: FrameIdentity,
    /// The .blend lies on this machine, so that the way to it from the folder means something.
    is_of_here: bool,
    /// The job may render on any GPU, so that its device is known for certain only when a frame is there.
    open: bool,
    mode: Existing,
    folder: Arc<OutFolder>,
    manifest: Arc<Mutex<Manifest>>,
    /// The sequence of the last output that was dealt with.
    after: u64,
    /// That of the last one up to which all are here.
    home: u64,
    telling: Option<Telling>,
}

/// The last note to the server of what is here.
struct Telling {
    sequence: u64,
    at: Instant,
    heard: JoinHandle<()>,
}

impl Fetcher {
    /// `is_of_here`: the job was made on this machine.
    pub fn new(
        client: Client,
        job: &JobView,
        is_of_here: bool,
        mode: Existing,
        folder: Arc<OutFolder>,
        manifest: Manifest,
    ) -> Self {
        Self {
            client,
            job: job.id,
            identity: identity(&job.spec, is_of_here, &folder),
            is_of_here,
            open: job.spec.any_gpu,
            mode,
            folder,
            manifest: Arc::new(Mutex::new(manifest)),
            after: 0,
            home: 0,
            telling: None,
        }
    }

    pub fn folder(&self) -> &OutFolder {
        &self.folder
    }

    /// Fetches all that is committed and not here yet; `landed` hears of each frame.
    ///
    /// # Errors
    /// Where the server cannot be reached or the folder cannot be written. Call it again to go on where it
    /// ended: what has landed is not fetched again.
    pub async fn sweep(&mut self, mut landed: impl FnMut(FetchedFrame)) -> Result<(), FetchError> {
        loop {
            let page = self.client.outputs(self.job, self.after).await?;
            let Some(last) = page.outputs.iter().map(|output| output.sequence).max() else { return Ok(()) };
            if self.open {
                // What is delivered is of the backend that the job is pinned to for good.
                let job = self.client.job(self.job).await?;
                self.identity = identity(&job.spec, self.is_of_here, &self.folder);
                self.open = false;
            }
            // Of a task that was rendered again, only the newest.
            let mut newest = BTreeMap::new();
            for output in page.outputs {
                newest.insert((output.step, output.index), output);
            }
            let this = &*self;
            let mut coming =
                stream::iter(newest.into_values().map(|output| this.frame(output))).buffer_unordered(AT_ONCE);
            let (mut left, mut placed) = (false, Vec::new());
            while let Some(frame) = coming.try_next().await? {
                left |= frame.result == FetchResult::Left;
                if matches!(frame.result, FetchResult::Written | FetchResult::Replaced) {
                    placed.extend(frame.files.iter().cloned());
                }
                landed(frame);
            }
            drop(coming);
            self.keep(placed).await?;
            // What was not taken home is not known as fetched, nor is anything behind it.
            if !left && self.home == self.after {
                self.home = last;
            }
            self.after = last;
            if self.telling.as_ref().is_none_or(|told| told.at.elapsed() >= TELL_EVERY) {
                self.tell();
            }
            if !page.more {
                return Ok(());
            }
        }
    }

    /// Makes files that were placed survive a loss of power: before the server hears that they are here.
    async fn keep(&self, placed: Vec<RelPath>) -> Result<(), FetchError> {
        let Some(first) = placed.first().cloned() else { return Ok(()) };
        let (folder, manifest) = (Arc::clone(&self.folder), Arc::clone(&self.manifest));
        let kept = on_disk(move || {
            manifest.lock().unwrap_or_else(PoisonError::into_inner).keep(&folder)?;
            folder.keep_names(&placed)
        });
        kept.await.map_err(|error| self.place().write_error(&first, error))
    }

    /// Tells the server what is here, which it may then delete one day. Nothing waits for that, and
    /// nothing comes of it where it fails: the server keeps what it does not know to be fetched.
    fn tell(&mut self) {
        let sequence = self.home;
        if sequence == 0 || self.telling.as_ref().is_some_and(|told| told.sequence == sequence) {
            return;
        }
        let (client, job) = (self.client.clone(), self.job);
        let heard = tokio::spawn(async move {
            if let Err(error) = client.fetched(job, sequence).await {
                tracing::debug!(%job, sequence, %error, "the server does not know what was fetched");
            }
        });
        self.telling = Some(Telling { sequence, at: Instant::now(), heard });
    }

    /// The end: waits a moment until the server has heard what is here.
    pub async fn finish(mut self) {
        let told = async {
            self.tell();
            if let Some(told) = self.telling.take() {
                let _ = told.heard.await;
            }
        };
        let _ = tokio::time::timeout(LAST_WORD, told).await;
    }

    async fn frame(&self, output: OutputView) -> Result<FetchedFrame, FetchError> {
        let frame = output.frame;
        let files: Vec<RelPath> = output.files.files().iter().map(|file| file.path.clone()).collect();
        let suspicious = output.files.suspicions();
        let done = |bytes, result, left| {
            let (files, suspicious) = (files.clone(), suspicious.clone());
            FetchedFrame { frame, files, bytes, suspicious, result, left }
        };
        let verdict = self.blocking(&output, |job, manifest, output| {
            if manifest.has(&job.folder, &job.identity, output.frame, &output.files) {
                if let Err(error) = manifest.see(&job.folder, &job.identity, Some(output.frame)) {
                    // At worst a job that was made before this one replaces it one day.
                    tracing::debug!(%error, "what is there was not noted again");
                }
                return Ok(Before::There);
            }
            let mut in_the_way = Vec::new();
            for file in output.files.files() {
                if job.mode != Existing::Overwrite
                    && job.folder.taken(&file.path).map_err(|error| job.write_error(&file.path, error))?
                    && !job.may_replace(manifest, &file.path)
                    && !same_bytes(&job.folder, &file.path, file.hash)
                {
                    in_the_way.push(file.path.clone());
                }
            }
            Ok(if in_the_way.is_empty() { Before::Free } else { Before::Taken(in_the_way) })
        });
        match verdict.await? {
            Before::There => return Ok(done(0, FetchResult::AlreadyThere, Vec::new())),
            Before::Taken(paths) => return Ok(done(0, FetchResult::Left, paths)),
            Before::Free if output.gone_ms.is_some() => return Ok(done(0, FetchResult::Gone, Vec::new())),
            Before::Free => {}
        }
        let (mut parts, mut bytes) = (Vec::new(), 0);
        for file in output.files.files() {
            let (part, came) = self.download(file).await?;
            bytes += came;
            parts.push((file.clone(), part));
        }
        let (left, replaced) = self
            .blocking(&output, move |job, manifest, output| {
                let written = parts
                    .iter()
                    .map(|(file, part)| {
                        let stamp = part.stamp().map_err(|error| job.write_error(&file.path, error))?;
                        Ok(WrittenFile::new(file, stamp))
                    })
                    .collect::<Result<Vec<_>, FetchError>>()?;
                // Looked at again before the note is taken: afterwards the path counts as Kiln's own.
                let (mut replace, mut replaced) = (Vec::new(), false);
                for (file, _) in &parts {
                    replaced |= job.is_of_another(manifest, &file.path);
                    let own = job.may_replace(manifest, &file.path)
                        || same_bytes(&job.folder, &file.path, file.hash);
                    replace.push(own || job.mode == Existing::Overwrite);
                }
                let first = output.files.files().first().map(|file| file.path.clone());
                manifest
                    .record(&job.folder, &job.identity, output.frame, written, output.files.suspicions())
                    .map_err(|error| match &first {
                        Some(path) => job.write_error(path, error),
                        None => FetchError::Busy { path: job.folder.path().to_owned() },
                    })?;
                let mut left = Vec::new();
                for ((file, part), replace) in parts.into_iter().zip(replace) {
                    match OutFolder::place(&part, &file.path, replace) {
                        Ok(Placement::Done) => {}
                        Ok(Placement::Taken) => {
                            part.discard();
                            left.push(file.path);
                        }
                        Err(error) => return Err(job.write_error(&file.path, error)),
                    }
                }
                Ok((left, replaced))
            })
            .await?;
        let result = match (left.is_empty(), replaced) {
            (false, _) => FetchResult::Left,
            (true, true) => FetchResult::Replaced,
            (true, false) => FetchResult::Written,
        };
        Ok(done(bytes, result, left))
    }

    fn place(&self) -> FetchRules {
        FetchRules {
            job: self.job,
            identity: self.identity.clone(),
            mode: self.mode,
            folder: Arc::clone(&self.folder),
        }
    }

    /// Runs file work off the async threads, with the manifest in hand.
    async fn blocking<T: Send + 'static>(
        &self,
        output: &OutputView,
        work: impl FnOnce(&FetchRules, &mut Manifest, &OutputView) -> Result<T, FetchError> + Send + 'static,
    ) -> Result<T, FetchError> {
        let place = self.place();
        let (manifest, output) = (Arc::clone(&self.manifest), output.clone());
        let run = move || {
            // A panic leaves it whole: it only grows by finished lines.
            let mut manifest = manifest.lock().unwrap_or_else(PoisonError::into_inner);
            work(&place, &mut manifest, &output)
        };
        let path = self.folder.path().to_owned();
        let job = self.job;
        tokio::task::spawn_blocking(run)
            .await
            .unwrap_or_else(|error| Err(FetchError::Write { path, job, source: io::Error::other(error) }))
    }

    /// A whole, checked file under its temporary name, and how many bytes came for it.
    async fn download(&self, file: &OutputFile) -> Result<(WholeFile, u64), FetchError> {
        let fail = |error: io::Error| {
            if error.kind() == io::ErrorKind::WouldBlock {
                FetchError::Busy { path: self.folder.path().join(file.path.to_path()) }
            } else {
                self.place().write_error(&file.path, error)
            }
        };
        let mut came = 0;
        // A part that an earlier break left is gone on with once; if that does not give the right bytes, all is fetched again.
        for fresh in [false, true] {
            let begun = Instant::now();
            let (part, mut hasher, have) = loop {
                let (folder, path, hash, size) =
                    (Arc::clone(&self.folder), file.path.clone(), file.hash, file.size);
                let opened = on_disk(move || {
                    let mut part = folder.part(&path, hash)?;
                    let (hasher, have) = take_up(&mut part, fresh, size)?;
                    Ok((part, hasher, have))
                });
                match opened.await {
                    // Another command that stays with the same job is at it.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock && begun.elapsed() < BUSY => {
                        tokio::time::sleep(LOOK_AGAIN).await;
                    }
                    opened => break opened.map_err(fail)?,
                }
            };
            if have < file.size {
                let handle = part.file.try_clone().map_err(fail)?;
                let mut out = tokio::fs::File::from_std(handle);
                let (_, mut body) = self.client.get_blob_from(file.hash, have).await?;
                while let Some(piece) = body.next().await {
                    let piece = piece?;
                    came += piece.len() as u64;
                    hasher.update(&piece);
                    out.write_all(&piece).await.map_err(fail)?;
                }
                out.flush().await.map_err(fail)?;
            }
            if hasher.hash() == file.hash {
                return Ok((on_disk(move || part.finish()).await.map_err(fail)?, came));
            }
            if fresh || have == 0 {
                part.discard();
                break;
            }
        }
        Err(ClientError::Damaged { hash: file.hash }.into())
    }
}

/// Runs what waits for the disk off the async threads.
async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

enum Before {
    There,
    Free,
    Taken(Vec<RelPath>),
}

/// The folder of a job's frames, and the rules for files that are there.
struct FetchRules {
    job: JobId,
    identity: FrameIdentity,
    mode: Existing,
    folder: Arc<OutFolder>,
}

impl FetchRules {
    /// Returns whether the file at this path is Kiln's to replace: a frame of this job or of an earlier save, or what is left of
    /// one of any.
    fn may_replace(&self, manifest: &Manifest, path: &RelPath) -> bool {
        manifest.relation_of(&self.folder, &self.identity, path) == Relation::Same
            || self.is_of_another(manifest, path)
            || self.mode != Existing::Error && manifest.is_remnant(&self.folder, path)
    }

    /// Returns whether the file at this path is a frame of another save or of other settings that this job may replace.
    fn is_of_another(&self, manifest: &Manifest, path: &RelPath) -> bool {
        if !matches!(self.mode, Existing::Continue | Existing::Replace) {
            return false;
        }
        match manifest.relation_of(&self.folder, &self.identity, path) {
            Relation::Older => true,
            Relation::OtherChoices(_) => self.mode == Existing::Replace,
            Relation::Same | Relation::Newer | Relation::Stranger => false,
        }
    }

    fn write_error(&self, path: &RelPath, source: io::Error) -> FetchError {
        FetchError::Write { path: self.folder.path().join(path.to_path()), job: self.job, source }
    }
}

fn identity(spec: &JobSpec, is_of_here: bool, folder: &OutFolder) -> FrameIdentity {
    FrameIdentity::of_job(spec, is_of_here.then(|| folder.real_path()))
}

/// Hashes the bytes of a part and reads to its end; a `fresh` one, or one that is too long, is emptied.
fn take_up(part: &mut PartFile, fresh: bool, size: u64) -> io::Result<(BlobHasher, u64)> {
    let mut hasher = BlobHasher::new();
    let length = part.file.metadata()?.len();
    if fresh || length > size {
        part.file.set_len(0)?;
        part.file.rewind()?;
        return Ok((hasher, 0));
    }
    let have = io::copy(&mut BufReader::with_capacity(1 << 18, &part.file), &mut hasher)?;
    Ok((hasher, have))
}
