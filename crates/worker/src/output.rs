//! The files that tasks leave: taken out of reach of the processes that wrote them, checked and hashed.

use std::{
    fs,
    io::{self, Cursor, Read, Seek, Write},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use kiln_host::{PlannedFile, collect, gather, open_gathered};
use kiln_image::{Checked, Expectation, ImageFault};
use kiln_types::{
    AttemptId, BlobHash, BlobHasher, Failure, FailureCause, OutputFile, OutputRole, OutputSet, TaskFile,
};

use crate::{
    bake_tree::{self, BakedTree},
    scratch::{ScratchFolder, write_failure},
};

const PIECE: usize = 256 << 10;
/// A picture up to this size, in bytes, waits in memory: most frames never touch the disk a second time.
pub(crate) const SMALL: u64 = 8 << 20;

/// The result of a task, with its unchecked files.
#[derive(Debug)]
pub(crate) struct TaskResult {
    pub(crate) files: OutputFiles,
    pub(crate) log_tail: Vec<String>,
    /// Texts about the job, for its owner.
    pub(crate) notices: Vec<String>,
    pub(crate) seconds: f64,
    /// Bytes.
    pub(crate) peak_memory: u64,
    /// The start and the end of a frame, in seconds of the host's clock.
    pub(crate) span: Option<(f64, f64)>,
}

/// The unchecked files of a task.
#[derive(Debug)]
pub(crate) struct TaskOutput {
    pub(crate) attempt: AttemptId,
    pub(crate) files: OutputFiles,
    pub(crate) log_tail: Vec<String>,
}

/// The ways in which a task leaves files.
#[derive(Debug)]
pub(crate) enum OutputFiles {
    /// Pictures that were named before.
    Planned {
        /// A folder of their own; removed once its files are taken.
        out: ScratchFolder,
        planned: Vec<PlannedFile>,
        /// A black one is a failure.
        refuse_black: bool,
    },
    /// The files of a tree that changed.
    Baked(BakedTree),
    /// All files of a folder, of whatever format.
    #[cfg_attr(
        not(debug_assertions),
        expect(dead_code, reason = "only the steps of tests have no Blender yet")
    )]
    Folder(ScratchFolder),
}

/// The bytes of a file, out of reach of the process that wrote it.
#[derive(Debug)]
pub(crate) enum CollectedBytes {
    InMemory(Bytes),
    OnDisk(PathBuf),
}

/// The checked files of a task.
#[derive(Debug)]
pub(crate) struct CollectedFiles {
    /// Files on disk are in it.
    _folder: ScratchFolder,
    pub(crate) files: Vec<(CollectedBytes, TaskFile)>,
}

impl TaskOutput {
    /// Checks and hashes the files. Pictures of more than `small` bytes are copied into `folder`. Blocking.
    pub(crate) fn collect(self, folder: ScratchFolder, small: u64) -> Result<CollectedFiles, Failure> {
        let Self { attempt: _, files, log_tail } = self;
        let collected = match files {
            OutputFiles::Planned { out, planned, refuse_black } => {
                take(out.path(), &planned, refuse_black, folder.path(), small).map(|(bytes, set)| {
                    let files = bytes.into_iter().zip(Vec::<TaskFile>::from(set)).collect();
                    CollectedFiles { _folder: folder, files }
                })
            }
            OutputFiles::Baked(tree) => {
                let files = bake_tree::changed_files(&tree);
                files.map(|files| on_disk(tree.folder, files.into_iter().map(TaskFile::from)))
            }
            OutputFiles::Folder(folder) => hash_files(folder.path()).map(|files| on_disk(folder, files)),
        };
        collected.map_err(
            |failure| if failure.log_tail.is_empty() { Failure { log_tail, ..failure } } else { failure },
        )
    }
}

fn on_disk(folder: ScratchFolder, files: impl IntoIterator<Item = TaskFile>) -> CollectedFiles {
    let bytes = |file: &TaskFile| CollectedBytes::OnDisk(folder.path().join(file.path.to_path()));
    let files = files.into_iter().map(|file| (bytes(&file), file)).collect();
    CollectedFiles { _folder: folder, files }
}

/// Hashes all files below a folder. Blocking.
fn hash_files(folder: &Path) -> Result<Vec<TaskFile>, Failure> {
    let mut files = Vec::new();
    for found in gather(folder, 0)? {
        let (mut file, _) = open_gathered(folder, &found.path)?;
        let mut hasher = BlobHasher::new();
        io::copy(&mut file, &mut hasher).map_err(|error| unkept(&error))?;
        files.push(TaskFile { path: found.path, hash: hasher.hash(), size: hasher.count(), picture: None });
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// Takes every file out of Blender's reach, those larger than `small` bytes into the folder, and looks at what
/// was taken: a process that still has a file open cannot change what was checked. Blocking.
fn take(
    out: &Path,
    planned: &[PlannedFile],
    refuse_black: bool,
    folder: &Path,
    small: u64,
) -> Result<(Vec<CollectedBytes>, OutputSet), Failure> {
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
            CollectedBytes::InMemory(bytes) => look(|| Ok(Cursor::new(&bytes[..])), &planned),
            CollectedBytes::OnDisk(path) => look(|| fs::File::open(path), &planned),
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

/// Returns the failure of a black frame.
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
fn keep_in_memory(from: &mut fs::File, size: u64) -> io::Result<(CollectedBytes, BlobHash, u64)> {
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    from.take(size).read_to_end(&mut bytes)?;
    let (hash, size) = (BlobHash::of(&bytes), bytes.len() as u64);
    Ok((CollectedBytes::InMemory(bytes.into()), hash, size))
}

/// The same onto disk, hashed on the way.
fn keep_on_disk(
    from: &mut fs::File,
    size: u64,
    folder: &Path,
    at: usize,
) -> io::Result<(CollectedBytes, BlobHash, u64)> {
    fs::create_dir_all(folder)?;
    let path = folder.join(at.to_string());
    let mut to = fs::File::create(&path)?;
    let mut hasher = BlobHasher::new();
    let mut piece = vec![0; PIECE];
    let mut from = from.take(size);
    loop {
        let read = from.read(&mut piece)?;
        if read == 0 {
            return Ok((CollectedBytes::OnDisk(path), hasher.hash(), hasher.count()));
        }
        hasher.update(&piece[..read]);
        to.write_all(&piece[..read])?;
    }
}

fn unkept(error: &io::Error) -> Failure {
    let other =
        || Failure::new(FailureCause::BadOutput, format!("the frame's files cannot be kept: {error}"));
    write_failure(error, other)
}

#[cfg(test)]
mod tests {
    use kiln_types::{Blank, ColorDepth, FileFormat, RelPath};

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
    fn frame(out: &Path, planned: Vec<PlannedFile>, refuse_black: bool) -> TaskOutput {
        let files = OutputFiles::Planned { out: ScratchFolder::new(out.to_owned()), planned, refuse_black };
        TaskOutput { attempt: "1-1".parse().unwrap(), files, log_tail: vec!["Saved".to_owned()] }
    }

    fn all_planned(files: &[&str]) -> Vec<PlannedFile> {
        files.iter().map(|name| planned(name)).collect()
    }

    fn collected(
        left: TaskOutput,
        kept: &Path,
        small: u64,
    ) -> Result<Vec<(CollectedBytes, TaskFile)>, Failure> {
        left.collect(ScratchFolder::new(kept.to_owned()), small).map(|CollectedFiles { _folder, files }| {
            // Its files are looked at.
            std::mem::forget(_folder);
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
                CollectedBytes::InMemory(bytes) if small > 0 => assert_eq!(bytes[..], bmp()),
                CollectedBytes::OnDisk(path) if small == 0 => assert_eq!(fs::read(path).unwrap(), bmp()),
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

    #[test]
    fn all_files_of_a_folder_are_hashed_and_go_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        fs::create_dir_all(out.join("test/1")).unwrap();
        fs::write(out.join("test/1/b"), b"second").unwrap();
        fs::write(out.join("test/1/a"), b"").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", out.join("link")).unwrap();
        let files = OutputFiles::Folder(ScratchFolder::new(out.clone()));
        let output = TaskOutput { attempt: "1-1".parse().unwrap(), files, log_tail: Vec::new() };
        let collected = output.collect(ScratchFolder::new(dir.path().join("kept")), SMALL).unwrap();
        let files: Vec<_> = collected.files.iter().map(|(_, file)| (file.path.as_str(), file.hash)).collect();
        assert_eq!(files, [("test/1/a", BlobHash::of(b"")), ("test/1/b", BlobHash::of(b"second"))]);
        for (bytes, file) in &collected.files {
            let CollectedBytes::OnDisk(path) = bytes else { panic!("{bytes:?}") };
            assert_eq!(BlobHash::of(&fs::read(path).unwrap()), file.hash);
        }
        drop(collected);
        assert!(!out.exists());
    }
}
