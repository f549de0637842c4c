//! Fetches the frames of a job into a folder. Each file is checked before it gets its name.

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
/// The time between two reports to the server on what was fetched.
const REPORT_EVERY: Duration = Duration::from_secs(5);
/// The longest wait for a frame that another Kiln is fetching to the same path.
const LONGEST_BUSY: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// The longest wait for the last report.
const LAST_REPORT: Duration = Duration::from_secs(1);

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

/// A frame that was fetched, or was found to be here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedFrame {
    pub frame: i32,
    pub files: Vec<RelPath>,
    /// Bytes that came over the network.
    pub bytes: u64,
    /// The reasons why the frame is suspicious.
    pub suspicious: Vec<Suspicion>,
    pub result: FetchResult,
    /// Files that are in the way and were left as they are.
    pub left: Vec<RelPath>,
}

/// The result of fetching the files of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FetchResult {
    Written,
    /// Written in the place of a frame of an earlier save, or of other settings.
    Replaced,
    /// The same bytes were there.
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
    /// The job was submitted from this machine, so that the path from the folder to its .blend is known.
    is_of_here: bool,
    /// The job may render on any GPU, so that its device is known only when a frame is done.
    is_device_open: bool,
    mode: Existing,
    folder: Arc<OutFolder>,
    manifest: Arc<Mutex<Manifest>>,
    /// The sequence of the last output that was handled.
    after: u64,
    /// The sequence up to which all outputs are here.
    complete: u64,
    report: Option<FetchReport>,
}

/// The last report to the server on what was fetched.
struct FetchReport {
    sequence: u64,
    at: Instant,
    sending: JoinHandle<()>,
}

impl Fetcher {
    /// `is_of_here`: the job was submitted from this machine.
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
            is_device_open: job.spec.any_gpu,
            mode,
            folder,
            manifest: Arc::new(Mutex::new(manifest)),
            after: 0,
            complete: 0,
            report: None,
        }
    }

    pub fn folder(&self) -> &OutFolder {
        &self.folder
    }

    /// Fetches all frames that are committed and not here, and calls `landed` with each. After an error, call it again: it
    /// continues where it ended.
    pub async fn sweep(&mut self, mut landed: impl FnMut(FetchedFrame)) -> Result<(), FetchError> {
        loop {
            let page = self.client.outputs(self.job, self.after).await?;
            let Some(last) = page.outputs.iter().map(|output| output.sequence).max() else { return Ok(()) };
            if self.is_device_open {
                // A frame is done, so the job is pinned to its backend.
                let job = self.client.job(self.job).await?;
                self.identity = identity(&job.spec, self.is_of_here, &self.folder);
                self.is_device_open = false;
            }
            // Only the newest output of a task counts.
            let mut newest = BTreeMap::new();
            for output in page.outputs {
                newest.insert((output.step, output.index), output);
            }
            let this = &*self;
            let mut coming = stream::iter(newest.into_values().map(|output| this.fetch_frame(output)))
                .buffer_unordered(AT_ONCE);
            let (mut left, mut placed) = (false, Vec::new());
            while let Some(frame) = coming.try_next().await? {
                left |= frame.result == FetchResult::Left;
                if matches!(frame.result, FetchResult::Written | FetchResult::Replaced) {
                    placed.extend(frame.files.iter().cloned());
                }
                landed(frame);
            }
            drop(coming);
            self.flush(placed).await?;
            // A frame that was left is not reported as fetched, and neither are the outputs after it.
            if !left && self.complete == self.after {
                self.complete = last;
            }
            self.after = last;
            if self.report.as_ref().is_none_or(|report| report.at.elapsed() >= REPORT_EVERY) {
                self.report_fetched();
            }
            if !page.more {
                return Ok(());
            }
        }
    }

    /// Flushes the names of files to the disk, before the server is told that they are here.
    async fn flush(&self, placed: Vec<RelPath>) -> Result<(), FetchError> {
        let Some(first) = placed.first().cloned() else { return Ok(()) };
        let (folder, manifest) = (Arc::clone(&self.folder), Arc::clone(&self.manifest));
        let kept = on_disk(move || {
            manifest.lock().unwrap_or_else(PoisonError::into_inner).flush(&folder)?;
            folder.flush_names(&placed)
        });
        kept.await.map_err(|error| self.rules().write_error(&first, error))
    }

    /// Reports to the server what was fetched, so that it can expire. Nothing waits for the report; if it fails, the server
    /// only keeps the frames for longer.
    fn report_fetched(&mut self) {
        let sequence = self.complete;
        if sequence == 0 || self.report.as_ref().is_some_and(|report| report.sequence == sequence) {
            return;
        }
        let (client, job) = (self.client.clone(), self.job);
        let sending = tokio::spawn(async move {
            if let Err(error) = client.fetched(job, sequence).await {
                tracing::debug!(%job, sequence, %error, "fetched frames not reported");
            }
        });
        self.report = Some(FetchReport { sequence, at: Instant::now(), sending });
    }

    /// Reports what was fetched, and waits a moment until the server has the report.
    pub async fn finish(mut self) {
        let reporting = async {
            self.report_fetched();
            if let Some(report) = self.report.take() {
                let _ = report.sending.await;
            }
        };
        let _ = tokio::time::timeout(LAST_REPORT, reporting).await;
    }

    async fn fetch_frame(&self, output: OutputView) -> Result<FetchedFrame, FetchError> {
        let frame = output.frame;
        let files: Vec<RelPath> = output.files.files().iter().map(|file| file.path.clone()).collect();
        let suspicious = output.files.suspicions();
        let done = |bytes, result, left| {
            let (files, suspicious) = (files.clone(), suspicious.clone());
            FetchedFrame { frame, files, bytes, suspicious, result, left }
        };
        let found = self.blocking(&output, |job, manifest, output| {
            if manifest.has(&job.folder, &job.identity, output.frame, &output.files) {
                if let Err(error) = manifest.see(&job.folder, &job.identity, Some(output.frame)) {
                    // At worst a job that was submitted before this one replaces the frame.
                    tracing::debug!(%error, "manifest line not written");
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
        match found.await? {
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
                // Checked again before the line is written, which makes the path one of Kiln.
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

    fn rules(&self) -> FetchRules {
        FetchRules {
            job: self.job,
            identity: self.identity.clone(),
            mode: self.mode,
            folder: Arc::clone(&self.folder),
        }
    }

    /// Runs work on files with the manifest, off the async threads.
    async fn blocking<T: Send + 'static>(
        &self,
        output: &OutputView,
        work: impl FnOnce(&FetchRules, &mut Manifest, &OutputView) -> Result<T, FetchError> + Send + 'static,
    ) -> Result<T, FetchError> {
        let rules = self.rules();
        let (manifest, output) = (Arc::clone(&self.manifest), output.clone());
        let run = move || {
            // A panic leaves the manifest whole: it grows by finished lines.
            let mut manifest = manifest.lock().unwrap_or_else(PoisonError::into_inner);
            work(&rules, &mut manifest, &output)
        };
        let path = self.folder.path().to_owned();
        let job = self.job;
        tokio::task::spawn_blocking(run)
            .await
            .unwrap_or_else(|error| Err(FetchError::Write { path, job, source: io::Error::other(error) }))
    }

    /// Downloads a file under its temporary name, checks it, and returns it with the number of bytes that were received.
    async fn download(&self, file: &OutputFile) -> Result<(WholeFile, u64), FetchError> {
        let fail = |error: io::Error| {
            if error.kind() == io::ErrorKind::WouldBlock {
                FetchError::Busy { path: self.folder.path().join(file.path.to_path()) }
            } else {
                self.rules().write_error(&file.path, error)
            }
        };
        let mut came = 0;
        // A part of an interrupted download is continued once; if the bytes are wrong, all are fetched again.
        for fresh in [false, true] {
            let begun = Instant::now();
            let (part, mut hasher, have) = loop {
                let (folder, path, hash, size) =
                    (Arc::clone(&self.folder), file.path.clone(), file.hash, file.size);
                let opened = on_disk(move || {
                    let mut part = folder.part(&path, hash)?;
                    let (hasher, have) = resume_part(&mut part, fresh, size)?;
                    Ok((part, hasher, have))
                });
                match opened.await {
                    // Another command fetches the same frame.
                    Err(error)
                        if error.kind() == io::ErrorKind::WouldBlock && begun.elapsed() < LONGEST_BUSY =>
                    {
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

/// Runs work that waits for the disk off the async threads.
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
    /// Returns whether the file at this path may be replaced: a frame of this job or of an earlier save, or the rest of any frame
    /// of Kiln.
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

/// Hashes the bytes of a part up to its end. A `fresh` part, or one that is too long, is emptied.
fn resume_part(part: &mut PartFile, fresh: bool, size: u64) -> io::Result<(BlobHasher, u64)> {
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
