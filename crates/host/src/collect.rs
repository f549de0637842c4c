//! Collects the files of a frame from its folder. Nothing that the process reports about them is trusted.

use std::{
    collections::HashSet,
    fmt::Display,
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use kiln_types::{Failure, FailureCause, RelPath};
use rustix::{
    fs::{CWD, Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2},
    io::Errno,
    path::Arg,
};

use crate::PlannedFile;

/// A larger file is refused: 16 GiB.
pub const MAX_FILE_BYTES: u64 = 16 << 30;
/// Other files that a frame may leave beside those planned (an add-on's notes); more is refused.
const MAX_EXTRA: usize = 1000;
/// Folders below `out` that are looked into.
const MAX_DEPTH: usize = 16;

/// A file of a frame, opened for reading; nothing is known of its content yet.
#[derive(Debug)]
pub struct CollectedFile {
    pub planned: PlannedFile,
    pub file: File,
    /// Bytes; at least 1.
    pub size: u64,
}

/// Opens every planned file below `out`, without following links: regular files with one name only. Blocking.
///
/// # Errors
/// [`FailureCause::BadOutput`] where a file is absent or empty; [`FailureCause::HostMisbehaved`] where something
/// else lies in its place.
pub fn collect(out: &Path, planned: &[PlannedFile]) -> Result<Vec<CollectedFile>, Failure> {
    let folder = open_folder(CWD, out).map_err(unreadable_frame)?;
    let collected = planned.iter().map(|file| take(&folder, file)).collect::<Result<Vec<_>, _>>()?;
    let mut expected = HashSet::new();
    for file in planned {
        // The folders on its way, which Kiln made, and the file.
        let name = file.scratch.as_str();
        expected.extend(name.match_indices('/').map(|(slash, _)| &name[..slash]));
        expected.insert(name);
    }
    let mut extra = 0;
    count_extra(&folder, "", &expected, 0, &mut extra)?;
    if extra > 0 {
        tracing::debug!(extra, "extra files ignored");
    }
    Ok(collected)
}

/// Opens a folder, and not by a link.
pub(crate) fn open_folder(at: impl AsFd, name: impl Arg) -> Result<OwnedFd, Errno> {
    openat(at, name, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY, Mode::empty())
}

pub(crate) fn unreadable(what: impl Display, error: Errno) -> Failure {
    Failure::new(FailureCause::BadOutput, format!("{what} cannot be read: {}", io::Error::from(error)))
}

fn unreadable_frame(error: Errno) -> Failure {
    unreadable("the frame's folder", error)
}

pub(crate) fn misbehaved(message: String) -> Failure {
    Failure::new(FailureCause::HostMisbehaved, message)
}

fn take(folder: &OwnedFd, planned: &PlannedFile) -> Result<CollectedFile, Failure> {
    let name = &planned.scratch;
    let file = open_below(folder, name).map_err(|error| match error {
        Errno::NOENT => Failure::new(
            FailureCause::BadOutput,
            format!("Blender said that it rendered, but {} was not written", planned.path),
        ),
        Errno::LOOP | Errno::XDEV | Errno::NOTDIR => misbehaved(format!(
            "{} is a link or leads out of the frame's folder; it is refused",
            planned.path
        )),
        // A socket, or a FIFO opened without a writer where that is an error.
        Errno::NXIO => misbehaved(format!("{} is no regular file; it is refused", planned.path)),
        error => unreadable(&planned.path, error),
    })?;
    let size = regular_size(&file, planned.path.as_str())?;
    if size == 0 {
        return Err(Failure::new(FailureCause::BadOutput, format!("{} is empty", planned.path)));
    }
    Ok(CollectedFile { planned: planned.clone(), file: File::from(file), size })
}

/// Returns the size in bytes of a regular file that has one name only.
pub(crate) fn regular_size(file: &OwnedFd, path: &str) -> Result<u64, Failure> {
    let stat = fstat(file).map_err(|error| unreadable(path, error))?;
    let refused = |why| Err(misbehaved(format!("{path} {why}; it is refused")));
    match u64::try_from(stat.st_size).unwrap_or(0) {
        _ if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile => refused("is no regular file"),
        _ if stat.st_nlink != 1 => refused("has a second name on the disk"),
        size if size > MAX_FILE_BYTES => refused("is larger than 16 GiB"),
        size => Ok(size),
    }
}

/// Opens a file below a folder: never blocks on a FIFO, never leaves the folder, and follows no link.
pub(crate) fn open_below(folder: &OwnedFd, name: &RelPath) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match openat2(folder, name.as_str(), flags, Mode::empty(), resolve) {
        // Kernels before 5.6, and filters that do not know the call.
        Err(Errno::NOSYS | Errno::PERM) => by_parts(folder, name, flags),
        opened => opened,
    }
}

fn by_parts(folder: &OwnedFd, name: &RelPath, flags: OFlags) -> Result<OwnedFd, Errno> {
    let mut current: Option<OwnedFd> = None;
    let mut parts = name.as_str().split('/').peekable();
    while let Some(part) = parts.next() {
        let at = current.as_ref().map_or(folder.as_fd(), AsFd::as_fd);
        let more = if parts.peek().is_some() { OFlags::DIRECTORY } else { OFlags::empty() };
        let next = openat(at, part, flags | more, Mode::empty())?;
        current = Some(next);
    }
    current.ok_or(Errno::NOENT)
}

/// Counts the other files: a script cannot fill the disk with names unseen.
fn count_extra(
    folder: &OwnedFd,
    prefix: &str,
    expected: &HashSet<&str>,
    depth: usize,
    extra: &mut usize,
) -> Result<(), Failure> {
    if depth > MAX_DEPTH {
        return Err(misbehaved(format!("the frame's folder is nested deeper than {MAX_DEPTH} folders")));
    }
    for entry in Dir::read_from(folder).map_err(unreadable_frame)? {
        let entry = entry.map_err(unreadable_frame)?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let path = format!("{prefix}{}", name.to_string_lossy());
        if entry.file_type() == FileType::Directory {
            let below = open_folder(folder, name).map_err(unreadable_frame)?;
            count_extra(&below, &format!("{path}/"), expected, depth + 1, extra)?;
        }
        if !expected.contains(path.as_str()) {
            *extra += 1;
        }
        if *extra > MAX_EXTRA {
            return Err(misbehaved(format!("the frame left more than {MAX_EXTRA} files beside its own")));
        }
    }
    Ok(())
}
