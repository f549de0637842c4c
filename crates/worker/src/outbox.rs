//! Files that have left Blender: checked, hashed and uploaded while the next frame renders.

use std::{
    fs,
    io::{self, Cursor, Read, Seek, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use kiln_client::{Client, ClientError};
use kiln_host::{PlannedFile, collect};
use kiln_image::{Checked, Expectation, ImageFault};
use kiln_types::{
    AttemptId, BlobHash, BlobHasher, Failure, FailureCause, OutputFile, OutputRole, OutputSet, RelPath,
    TaskFile,
};
use tokio::{sync::Semaphore, task::spawn_blocking};
use tokio_util::sync::CancellationToken;

use crate::{
    link,
    scratch::ScratchFolder,
    tree::{self, BakedTree},
};

/// Frames that may wait for their upload before slots stop to render more.
const MOST_FRAMES: u64 = 64;
/// Bytes that may wait so.
const MOST_BYTES: u64 = 4 << 30;
/// Uploads at a time: more would only share the same line.
const UPLOADS: usize = 4;
const PIECE: usize = 256 << 10;
/// A file up to this size, in bytes, waits in memory: most frames never touch the disk a second time.
const SMALL: u64 = 8 << 20;
/// Bytes that may wait in memory; beyond it, all files wait on disk.
const MOST_IN_MEMORY: u64 = 256 << 20;

/// How long a rendered frame waits for room on the server's disk.
const FULL_PATIENCE: Duration = Duration::from_secs(10 * 60);

/// The files of a task as Blender left them.
#[derive(Debug)]
pub(crate) struct Left {
    pub(crate) attempt: AttemptId,
    pub(crate) files: LeftFiles,
    pub(crate) log_tail: Vec<String>,
}

/// The two ways in which a task leaves files.
#[derive(Debug)]
pub(crate) enum LeftFiles {
    /// Pictures that were named before.
    Planned {
        /// A folder of their own; removed once its files are taken.
        out: ScratchFolder,
        planned: Vec<PlannedFile>,
        /// A black one is a failure.
        refuse_black: bool,
    },
    /// Those of a tree that changed.
    Tree(BakedTree),
}

/// The way from a slot's folder to the server.
#[derive(Debug)]
pub(crate) struct Outbox {
    client: Client,
    folder: PathBuf,
    uploads: Semaphore,
    frames: AtomicU64,
    bytes: AtomicU64,
}

/// Counts a task, and its bytes once known, for as long as its files wait.
struct Waiting<'a> {
    outbox: &'a Outbox,
    bytes: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.outbox.frames.fetch_sub(1, Ordering::Relaxed);
        self.outbox.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A file out of Blender's reach.
#[derive(Debug)]
enum Kept {
    InMemory(Bytes),
    OnDisk(PathBuf),
}

impl Outbox {
    pub(crate) fn new(client: Client, folder: PathBuf) -> Self {
        Self {
            client,
            folder,
            uploads: Semaphore::new(UPLOADS),
            frames: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    /// Whether another frame may be rendered.
    pub(crate) fn is_open(&self) -> bool {
        self.frames.load(Ordering::Relaxed) < MOST_FRAMES && self.bytes.load(Ordering::Relaxed) < MOST_BYTES
    }

    /// Checks the files of a task and brings them to the server; waits as long as the server is away. `None` if it was
    /// called off.
    pub(crate) async fn deliver(
        self: Arc<Self>,
        left: Left,
        off: CancellationToken,
    ) -> Option<Result<Vec<TaskFile>, Failure>> {
        self.frames.fetch_add(1, Ordering::Relaxed);
        let mut waiting = Waiting { outbox: &self, bytes: 0 };
        let folder = self.folder.join(left.attempt.to_string());
        let small = if self.bytes.load(Ordering::Relaxed) < MOST_IN_MEMORY { SMALL } else { 0 };
        let collect = spawn_blocking(move || collect_all(left, ScratchFolder::new(folder), small));
        let collected = tokio::select! {
            collected = collect => collected,
            () = off.cancelled() => return None,
        };
        let (_folder, files) = match collected {
            Ok(Ok(collected)) => collected,
            Ok(Err(failure)) => return Some(Err(failure)),
            Err(error) => {
                let message = format!("the files could not be checked: {error}");
                return Some(Err(Failure::new(FailureCause::BadOutput, message)));
            }
        };
        waiting.bytes = files.iter().map(|(_, file)| file.size).sum();
        self.bytes.fetch_add(waiting.bytes, Ordering::Relaxed);
        let upload = async {
            for (kept, file) in &files {
                self.upload(kept, &file.path, file.hash, file.size).await?;
            }
            Ok(())
        };
        let uploaded = tokio::select! {
            uploaded = upload => uploaded,
            () = off.cancelled() => return None,
        };
        Some(uploaded.map(|()| files.into_iter().map(|(_, file)| file).collect()))
    }

    async fn upload(&self, kept: &Kept, path: &RelPath, hash: BlobHash, size: u64) -> Result<(), Failure> {
        let mut backoff = link::backoff();
        let mut full_since = None;
        loop {
            let sent = {
                let _turn = self.uploads.acquire().await;
                match kept {
                    Kept::InMemory(bytes) => self.client.put_blob_bytes(hash, bytes.clone()).await,
                    Kept::OnDisk(place) => self.client.put_blob_file(hash, size, place).await,
                }
            };
            match sent {
                Ok(()) => return Ok(()),
                Err(error) if error.is_transient() => {
                    tracing::debug!(%error, %path, "an upload did not succeed; trying again");
                    tokio::time::sleep(backoff.failed()).await;
                }
                // The frame is rendered: it waits here, and with it the slots once enough frames do.
                Err(error) if is_full(&error) => {
                    let since = *full_since.get_or_insert_with(|| {
                        tracing::warn!(%path, "the server's disk is full; rendered frames wait");
                        Instant::now()
                    });
                    if since.elapsed() >= FULL_PATIENCE {
                        return Err(refused(&error, path));
                    }
                    tokio::time::sleep(backoff.failed()).await;
                }
                Err(error) => return Err(refused(&error, path)),
            }
        }
    }
}

fn is_full(error: &ClientError) -> bool {
    error.code() == Some(kiln_api::ProblemCode::NoSpace)
}

fn refused(error: &ClientError, path: &RelPath) -> Failure {
    let cause = if is_full(error) { FailureCause::DiskFull } else { FailureCause::Other };
    Failure::new(cause, format!("{path} is made, but was not taken by the server: {error}"))
}

/// The files of a task, checked, and the folder that they lie in. Blocking.
fn collect_all(
    left: Left,
    folder: ScratchFolder,
    small: u64,
) -> Result<(ScratchFolder, Vec<(Kept, TaskFile)>), Failure> {
    let Left { attempt: _, files, log_tail } = left;
    let collected = match files {
        LeftFiles::Planned { out, planned, refuse_black } => {
            take(out.path(), &planned, refuse_black, folder.path(), small).map(|(kept, set)| {
                let files = kept.into_iter().zip(Vec::<TaskFile>::from(set)).collect();
                (folder, files)
            })
        }
        LeftFiles::Tree(tree) => tree::changed(&tree).map(|files| {
            let kept = |file: &TaskFile| Kept::OnDisk(tree.folder.path().join(file.path.to_path()));
            let files = files.into_iter().map(TaskFile::from).map(|file| (kept(&file), file)).collect();
            (tree.folder, files)
        }),
    };
    collected.map_err(
        |failure| if failure.log_tail.is_empty() { Failure { log_tail, ..failure } } else { failure },
    )
}

/// Takes every file out of Blender's reach, those larger than `small` bytes into the folder, and looks at what
/// was taken: a process that still has a file open cannot change what was checked. Blocking.
fn take(
    out: &Path,
    planned: &[PlannedFile],
    refuse_black: bool,
    folder: &Path,
    small: u64,
) -> Result<(Vec<Kept>, OutputSet), Failure> {
    let mut files = Vec::new();
    let mut all_kept = Vec::new();
    for (at, mut found) in collect(out, planned)?.into_iter().enumerate() {
        let (kept, hash, size) = if found.size <= small {
            keep_in_memory(&mut found.file, found.size)
        } else {
            keep_on_disk(&mut found.file, found.size, folder, at)
        }
        .map_err(|error| unkept(&error))?;
        let planned = found.planned;
        let wrong =
            |fault| Failure::new(FailureCause::BadOutput, format!("{} is not right: {fault}", planned.path));
        let checked = match &kept {
            Kept::InMemory(bytes) => look(|| Ok(Cursor::new(&bytes[..])), &planned),
            Kept::OnDisk(path) => look(|| fs::File::open(path), &planned),
        }
        .map_err(|error| unkept(&error))?
        .map_err(wrong)?;
        files.push(OutputFile {
            path: planned.path,
            role: planned.role,
            hash,
            size,
            format: planned.format,
            width: checked.width,
            height: checked.height,
            pixels: checked.pixels,
        });
        all_kept.push(kept);
    }
    let set = OutputSet::new(files)
        .map_err(|error| Failure::new(FailureCause::BadOutput, format!("the frame is not right: {error}")))?;
    match black(&set) {
        Some(failure) if refuse_black => Err(failure),
        _ => Ok((all_kept, set)),
    }
}

/// Why a job that refuses black frames does not take this one.
fn black(set: &OutputSet) -> Option<Failure> {
    let is_main = |file: &&OutputFile| matches!(file.role, OutputRole::Main { .. });
    let (path, blank) =
        set.files().iter().filter(is_main).find_map(|file| Some((&file.path, file.pixels.blank?)))?;
    let message = format!("{path} is entirely {blank}, and the job refuses such frames");
    Some(Failure::new(FailureCause::BlackFrame, message))
}

/// Decodes a picture to its end.
fn look<R: Read + Seek>(
    open: impl Fn() -> io::Result<R>,
    planned: &PlannedFile,
) -> io::Result<Result<Checked, ImageFault>> {
    // A size of 0: a compositor node decides, and any whole picture is right.
    let size = match (planned.width, planned.height) {
        (0, 0) => kiln_image::probe(open()?).map(|(_, width, height)| (width, height)),
        size => Ok(size),
    };
    let (width, height) = match size {
        Ok(size) => size,
        Err(fault) => return Ok(Err(fault)),
    };
    let expected = Expectation::new(planned.format, width, height).depth(Some(planned.depth));
    Ok(kiln_image::verify(open()?, &expected))
}

/// A file that grows while it is read ends where it ended when it was found.
fn keep_in_memory(from: &mut fs::File, size: u64) -> io::Result<(Kept, BlobHash, u64)> {
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    from.take(size).read_to_end(&mut bytes)?;
    let (hash, size) = (BlobHash::of(&bytes), bytes.len() as u64);
    Ok((Kept::InMemory(bytes.into()), hash, size))
}

/// The same onto disk, hashed on the way.
fn keep_on_disk(
    from: &mut fs::File,
    size: u64,
    folder: &Path,
    at: usize,
) -> io::Result<(Kept, BlobHash, u64)> {
    fs::create_dir_all(folder)?;
    let path = folder.join(at.to_string());
    let mut to = fs::File::create(&path)?;
    let mut hasher = BlobHasher::new();
    let mut piece = vec![0; PIECE];
    let mut from = from.take(size);
    loop {
        let read = from.read(&mut piece)?;
        if read == 0 {
            return Ok((Kept::OnDisk(path), hasher.hash(), hasher.count()));
        }
        hasher.update(&piece[..read]);
        to.write_all(&piece[..read])?;
    }
}

fn unkept(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Failure::new(
            FailureCause::DiskFull,
            "this worker's disk is full, the frame does not fit; free some space in its data folder",
        ),
        _ => Failure::new(FailureCause::BadOutput, format!("the frame's files cannot be kept: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use kiln_types::{Blank, ColorDepth, FileFormat};

    use super::*;

    fn planned(name: &str) -> PlannedFile {
        PlannedFile {
            path: RelPath::new(name).unwrap(),
            scratch: RelPath::new(name).unwrap(),
            role: OutputRole::Main { view: None },
            format: FileFormat::Bmp,
            depth: ColorDepth::Eight,
            width: 1,
            height: 1,
        }
    }

    /// One black pixel.
    fn bmp() -> Vec<u8> {
        let mut bytes = b"BM".to_vec();
        for number in [58_u32, 0, 54, 40, 1, 1, 0x18_0001, 0, 4, 2835, 2835, 0, 0, 0] {
            bytes.extend(number.to_le_bytes());
        }
        bytes
    }

    /// Planned files in a folder that goes with them.
    fn frame(out: &Path, planned: Vec<PlannedFile>, refuse_black: bool) -> Left {
        let files = LeftFiles::Planned { out: ScratchFolder::new(out.to_owned()), planned, refuse_black };
        Left { attempt: "1-1".parse().unwrap(), files, log_tail: vec!["Saved".to_owned()] }
    }

    fn all_planned(files: &[&str]) -> Vec<PlannedFile> {
        files.iter().map(|name| planned(name)).collect()
    }

    fn collected(left: Left, kept: &Path, small: u64) -> Result<Vec<(Kept, TaskFile)>, Failure> {
        collect_all(left, ScratchFolder::new(kept.to_owned()), small).map(|(folder, files)| {
            // Its files are looked at.
            std::mem::forget(folder);
            files
        })
    }

    #[test]
    fn a_black_frame_is_a_frame_and_its_bytes_are_kept_apart() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        for small in [0, SMALL] {
            fs::create_dir(&out).unwrap();
            fs::write(out.join("a.bmp"), bmp()).unwrap();
            let left = frame(&out, all_planned(&["a.bmp"]), false);
            let files = collected(left, &dir.path().join("kept"), small).unwrap();
            assert!(!out.exists(), "the folder goes with the frame");
            assert_eq!(files[0].1.hash, BlobHash::of(&bmp()));
            match &files[0].0 {
                Kept::InMemory(bytes) if small > 0 => assert_eq!(bytes[..], bmp()),
                Kept::OnDisk(path) if small == 0 => assert_eq!(fs::read(path).unwrap(), bmp()),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_black_frame_is_delivered_and_reported_or_fails_where_the_job_refuses_it() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let white: Vec<u8> = [&bmp()[..54], &[255; 4]].concat();
        let rendered = |planned, refuse_black| {
            fs::create_dir(&out).unwrap();
            for name in ["left.bmp", "mask.bmp"] {
                fs::write(out.join(name), bmp()).unwrap();
            }
            fs::write(out.join("right.bmp"), &white).unwrap();
            let files = collected(frame(&out, planned, refuse_black), &dir.path().join("kept"), SMALL)?;
            Ok(OutputSet::try_from(files.into_iter().map(|(_, file)| file).collect::<Vec<_>>()).unwrap())
        };

        let set = rendered(all_planned(&["left.bmp"]), false).unwrap();
        assert_eq!(set.files()[0].pixels.blank, Some(Blank::Black));
        let failure: Failure = rendered(all_planned(&["right.bmp", "left.bmp"]), true).unwrap_err();
        assert_eq!(failure.cause, FailureCause::BlackFrame);
        assert_eq!(failure.message, "left.bmp is entirely black, and the job refuses such frames");
        // A mask beside the picture may be black.
        let mut masked = all_planned(&["right.bmp", "mask.bmp"]);
        masked[1].role =
            OutputRole::FileOutput { node: "Masks".to_owned(), slot: "mask".to_owned(), view: None };
        let set = rendered(masked, true).unwrap();
        assert_eq!((set.suspicions(), set.files()[1].pixels.blank), (vec![], Some(Blank::Black)));
    }

    #[test]
    fn less_than_the_whole_set_is_a_failure_with_blenders_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        fs::create_dir(&out).unwrap();
        fs::write(out.join("a.bmp"), bmp()).unwrap();
        let left = frame(&out, all_planned(&["a.bmp", "b.bmp"]), false);
        let failure = collected(left, &dir.path().join("kept"), SMALL).unwrap_err();
        assert_eq!(failure.cause, FailureCause::BadOutput);
        assert!(failure.message.contains("b.bmp"), "{}", failure.message);
        assert_eq!(failure.log_tail, ["Saved"]);
    }

    #[test]
    fn a_broken_picture_is_a_failure_in_one_sentence() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        fs::create_dir(&out).unwrap();
        fs::write(out.join("a.bmp"), &bmp()[..40]).unwrap();
        let left = frame(&out, all_planned(&["a.bmp"]), false);
        let failure = collected(left, &dir.path().join("kept"), SMALL).unwrap_err();
        assert_eq!(failure.cause, FailureCause::BadOutput);
        assert!(failure.message.starts_with("a.bmp is not right: "), "{}", failure.message);
    }
}
