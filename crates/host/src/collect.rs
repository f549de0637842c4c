//! Takes what a frame wrote out of its folder, believing nothing.

use std::{
    collections::HashSet,
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use kiln_types::{Failure, FailureCause, RelPath};
use rustix::{
    fs::{CWD, Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2},
    io::Errno,
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
    let lost = |error: Errno| {
        Failure::new(
            FailureCause::BadOutput,
            format!("the frame's folder cannot be read: {}", error_text(error)),
        )
    };
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    let folder = openat(CWD, out, flags, Mode::empty()).map_err(lost)?;
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
        tracing::debug!(extra, "the frame wrote files that no output set names");
    }
    Ok(collected)
}

pub(crate) fn error_text(error: Errno) -> io::Error {
    io::Error::from(error)
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
        error => Failure::new(
            FailureCause::BadOutput,
            format!("{} cannot be read: {}", planned.path, error_text(error)),
        ),
    })?;
    let stat = fstat(&file).map_err(|error| {
        Failure::new(
            FailureCause::BadOutput,
            format!("{} cannot be read: {}", planned.path, error_text(error)),
        )
    })?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(misbehaved(format!("{} is no regular file; it is refused", planned.path)));
    }
    if stat.st_nlink != 1 {
        return Err(misbehaved(format!("{} has a second name on the disk; it is refused", planned.path)));
    }
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    if size == 0 {
        return Err(Failure::new(FailureCause::BadOutput, format!("{} is empty", planned.path)));
    }
    if size > MAX_FILE_BYTES {
        return Err(misbehaved(format!("{} is larger than 16 GiB; it is refused", planned.path)));
    }
    Ok(CollectedFile { planned: planned.clone(), file: File::from(file), size })
}

/// Never blocks on a FIFO, never leaves the folder, follows no link at any part of the name.
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

/// Bounds what lies around: a script cannot fill the disk with names unseen.
fn count_extra(
    folder: &OwnedFd,
    prefix: &str,
    expected: &HashSet<&str>,
    depth: usize,
    extra: &mut usize,
) -> Result<(), Failure> {
    let unreadable = |error: Errno| {
        Failure::new(
            FailureCause::BadOutput,
            format!("the frame's folder cannot be read: {}", error_text(error)),
        )
    };
    if depth > MAX_DEPTH {
        return Err(misbehaved(format!("the frame's folder is nested deeper than {MAX_DEPTH} folders")));
    }
    for entry in Dir::read_from(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let path = format!("{prefix}{}", name.to_string_lossy());
        if entry.file_type() == FileType::Directory {
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
            let below = openat(folder, name, flags, Mode::empty()).map_err(unreadable)?;
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
