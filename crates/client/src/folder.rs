//! The output folder, and all calls of the file system for it.
//!
//! Names come from the server, and through it from a scene: every path is opened below the folder, so that no link inside it
//! leads a frame elsewhere. `kiln_files` cannot do this, because its functions take paths; also, names are flushed once for
//! many files.

use std::{
    collections::HashSet,
    fs::File,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use kiln_types::{BlobHash, RelPath};
use rustix::{
    fs::{self, AtFlags, CWD, Mode, OFlags, RenameFlags, ResolveFlags},
    io::Errno,
};

/// The ending of a file that is not whole yet.
const PART: &str = ".kiln-part";

/// An open output folder.
#[derive(Debug)]
pub struct OutFolder {
    root: OwnedFd,
    path: PathBuf,
    real: PathBuf,
    /// Folders that were created for it, outermost first. They are removed again if nothing is in them.
    made: Mutex<Vec<PathBuf>>,
}

/// The size and time of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Bytes.
    pub size: u64,
    /// Nanoseconds since 1970.
    pub mtime_ns: i64,
}

/// A file that is being written.
pub(crate) struct PartFile {
    dir: OwnedFd,
    name: String,
    pub(crate) file: File,
}

/// A part whose bytes are all on the disk. Only such a part gets its name, so that a loss of power leaves no half frame.
pub(crate) struct WholeFile(PartFile);

/// The result of giving a file its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placement {
    Done,
    /// A file is there, and must not be replaced.
    Taken,
}

impl OutFolder {
    /// Opens the folder, creates it if necessary, and checks that files can be written.
    pub fn prepare(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let mut made: Vec<PathBuf> = Vec::new();
        let missing: Vec<&Path> = path.ancestors().take_while(|part| !part.exists()).collect();
        for part in missing.into_iter().rev() {
            match std::fs::create_dir(part) {
                Ok(()) => {
                    made.push(part.to_owned());
                    // Flushed, so that it survives a loss of power; if that fails, frames are fetched all the same.
                    let above = part.parent().map(File::open);
                    let _ = above.map(|above| above.and_then(|above| above.sync_all()));
                }
                Err(error) => {
                    remove_empty(&made);
                    return Err(error);
                }
            }
        }
        let opened = Self::open_at(&path);
        match opened.and_then(|root| probe(&root).map(|()| root)) {
            Ok(root) => {
                let real = path.canonicalize().unwrap_or_else(|_| path.clone());
                Ok(Self { root, path, real, made: Mutex::new(made) })
            }
            Err(error) => {
                remove_empty(&made);
                Err(error)
            }
        }
    }

    fn open_at(path: &Path) -> io::Result<OwnedFd> {
        Ok(fs::openat(CWD, path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// Returns the absolute path as the person named it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path without links and `..`.
    pub fn real_path(&self) -> &Path {
        &self.real
    }

    /// Returns size and time of a regular file, if it exists. The error of anything else, such as a link, is of the kind
    /// `InvalidInput`.
    pub fn stamp(&self, path: &RelPath) -> io::Result<Option<Stamp>> {
        let dir = match self.dir_of(path, false) {
            Ok(dir) => dir,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match fs::statat(&dir, path.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if fs::FileType::from_raw_mode(stat.st_mode).is_file() => Ok(Some(stamp_of(&stat))),
            Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns whether anything has this name.
    pub fn taken(&self, path: &RelPath) -> io::Result<bool> {
        match self.stamp(path) {
            Ok(stamp) => Ok(stamp.is_some()),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Opens a file, but not a link, to read it.
    pub(crate) fn read(&self, path: &RelPath) -> io::Result<File> {
        let dir = self.dir_of(path, false)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(File::from(fs::openat(&dir, path.file_name(), flags, Mode::empty())?))
    }

    /// Opens a file to append to it, and creates it if necessary.
    pub(crate) fn append(&self, path: &RelPath) -> io::Result<File> {
        let dir = self.dir_of(path, true)?;
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(fs::openat(&dir, path.file_name(), flags, Mode::from_raw_mode(0o644))?))
    }

    /// Opens the temporary file for `path`, which may contain bytes of an interrupted fetch. An error of the kind `WouldBlock`
    /// means that another program is writing it.
    pub(crate) fn part(&self, path: &RelPath, hash: BlobHash) -> io::Result<PartFile> {
        let dir = self.dir_of(path, true)?;
        let name = part_name(path, hash);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(fs::openat(&dir, &name, flags, Mode::from_raw_mode(0o644))?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
        }
        // For a file that is locked, the error is `WouldBlock`.
        file.try_lock()?;
        Ok(PartFile { dir, name, file })
    }

    /// Gives the part its name.
    pub(crate) fn place(WholeFile(part): &WholeFile, path: &RelPath, replace: bool) -> io::Result<Placement> {
        let name = path.file_name();
        if replace {
            fs::renameat(&part.dir, &part.name, &part.dir, name)?;
            return Ok(Placement::Done);
        }
        match fs::renameat_with(&part.dir, &part.name, &part.dir, name, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(Placement::Done),
            Err(Errno::EXIST) => Ok(Placement::Taken),
            // Not every file system knows the flag; a hard link refuses to replace too.
            Err(Errno::INVAL | Errno::NOSYS) => {
                match fs::linkat(&part.dir, &part.name, &part.dir, name, AtFlags::empty()) {
                    Ok(()) => {
                        fs::unlinkat(&part.dir, &part.name, AtFlags::empty())?;
                        Ok(Placement::Done)
                    }
                    Err(Errno::EXIST) => Ok(Placement::Taken),
                    Err(error) => Err(error.into()),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Flushes the names of these files, and those of the folders that contain them, to the disk.
    pub(crate) fn flush_names<'a>(&self, paths: impl IntoIterator<Item = &'a RelPath>) -> io::Result<()> {
        let mut seen = HashSet::new();
        for path in paths {
            let up = std::iter::successors(Some(path.clone()), RelPath::parent);
            for path in up.take_while(|path| seen.insert(path.parent())) {
                match fs::fsync(self.dir_of(&path, false)?) {
                    // Some file systems have nothing to flush for a folder.
                    Ok(()) | Err(Errno::INVAL | Errno::NOTSUP) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// Opens the folder that contains `path`, without leaving this one.
    fn dir_of(&self, path: &RelPath, make: bool) -> io::Result<OwnedFd> {
        let mut dir = self.root.try_clone()?;
        let Some(parent) = path.parent() else { return Ok(dir) };
        let mut end = 0;
        for part in parent.as_str().split('/') {
            end += part.len();
            if make {
                match fs::mkdirat(&dir, part, Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
            dir = match fs::openat(&dir, part, flags | OFlags::NOFOLLOW, Mode::empty()) {
                // A link to a folder is allowed if it ends below the output folder, which the kernel checks.
                Err(Errno::LOOP | Errno::NOTDIR) => {
                    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
                    fs::openat2(&self.root, &parent.as_str()[..end], flags, Mode::empty(), resolve)?
                }
                other => other?,
            };
            end += 1;
        }
        Ok(dir)
    }

    /// Keeps the folders that were created, even if they are empty.
    pub fn keep(&self) {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Lets this folder also remove the folders above it that were created for others: the last one finds them empty.
    pub(crate) fn share_cleanup(&mut self, others: &[Arc<Self>]) {
        let own = self.made.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut above: Vec<PathBuf> = Vec::new();
        for other in others {
            let made = other.made.lock().unwrap_or_else(PoisonError::into_inner);
            let is_above = |made: &&PathBuf| self.path.starts_with(made) && self.path != **made;
            above.extend(made.iter().filter(is_above).cloned());
        }
        above.sort();
        above.dedup();
        above.append(own);
        *own = above;
    }
}

impl Drop for OutFolder {
    fn drop(&mut self) {
        remove_empty(self.made.get_mut().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Removes folders, innermost first, as far as they are empty.
fn remove_empty(made: &[PathBuf]) {
    for path in made.iter().rev() {
        let _ = std::fs::remove_dir(path);
    }
}

/// Writes a file and removes it: permissions do not show that a disk is read-only or full.
fn probe(root: &OwnedFd) -> io::Result<()> {
    let name = format!(".{}{PART}", std::process::id());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(root, &name, flags, Mode::from_raw_mode(0o644))?;
    fs::unlinkat(root, &name, AtFlags::empty())?;
    Ok(())
}

fn part_name(path: &RelPath, hash: BlobHash) -> String {
    let hash = &hash.to_string()[..12];
    let mut name = path.file_name();
    while name.len() > 200 {
        let mut end = 200;
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        name = &name[..end];
    }
    format!(".{name}.{hash}{PART}")
}

fn stamp_of(stat: &fs::Stat) -> Stamp {
    Stamp {
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mtime_ns: stat.st_mtime.saturating_mul(1_000_000_000).saturating_add(stat.st_mtime_nsec as i64),
    }
}

impl PartFile {
    /// Waits until its bytes are on the disk.
    pub(crate) fn finish(self) -> io::Result<WholeFile> {
        self.file.sync_all()?;
        Ok(WholeFile(self))
    }

    /// Removes the temporary file.
    pub(crate) fn discard(self) {
        let _ = fs::unlinkat(&self.dir, &self.name, AtFlags::empty());
    }
}

impl WholeFile {
    pub(crate) fn stamp(&self) -> io::Result<Stamp> {
        Ok(stamp_of(&fs::fstat(&self.0.file)?))
    }

    /// Removes the temporary file.
    pub(crate) fn discard(self) {
        self.0.discard();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn rel(text: &str) -> RelPath {
        RelPath::new(text).unwrap()
    }

    fn put(folder: &OutFolder, path: &str, bytes: &[u8], replace: bool) -> io::Result<Placement> {
        let mut part = folder.part(&rel(path), BlobHash::of(bytes))?;
        part.file.write_all(bytes)?;
        let part = part.finish()?;
        let placed = OutFolder::place(&part, &rel(path), replace)?;
        folder.flush_names([&rel(path)])?;
        if placed == Placement::Taken {
            part.discard();
        }
        Ok(placed)
    }

    #[test]
    fn files_are_placed_whole_and_replace_nothing_unasked() {
        let dir = tempfile::tempdir().unwrap();
        let folder = OutFolder::prepare(&dir.path().join("a/b")).unwrap();
        assert_eq!(put(&folder, "x/y.png", b"one", false).unwrap(), Placement::Done);
        assert_eq!(put(&folder, "x/y.png", b"two", false).unwrap(), Placement::Taken);
        assert_eq!(std::fs::read(dir.path().join("a/b/x/y.png")).unwrap(), b"one");
        assert_eq!(put(&folder, "x/y.png", b"two", true).unwrap(), Placement::Done);
        assert_eq!(std::fs::read(dir.path().join("a/b/x/y.png")).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(dir.path().join("a/b/x")).unwrap().count(), 1, "no part stays");
    }

    #[test]
    fn what_is_not_on_the_disk_gets_no_name_and_a_name_that_is_lost_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let folder = OutFolder::prepare(dir.path()).unwrap();
        let mut part = folder.part(&rel("a/b.png"), BlobHash::of(b"x")).unwrap();
        part.file.write_all(b"x").unwrap();
        // Writing to this goes well, and flushing fails.
        part.file = File::options().write(true).open("/dev/null").unwrap();
        assert!(part.finish().is_err());
        assert!(!dir.path().join("a/b.png").exists());

        assert_eq!(put(&folder, "a/b.png", b"x", false).unwrap(), Placement::Done);
        assert_eq!(put(&folder, "c.png", b"x", false).unwrap(), Placement::Done);
        folder.flush_names([&rel("a/b.png"), &rel("a/d/e.png"), &rel("c.png")]).unwrap_err();
        folder.flush_names([&rel("a/b.png"), &rel("c.png")]).unwrap();
        std::fs::remove_dir_all(dir.path().join("a")).unwrap();
        let error = folder.flush_names([&rel("c.png"), &rel("a/b.png")]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn no_link_leads_out() {
        let dir = tempfile::tempdir().unwrap();
        let (out, outside) = (dir.path().join("out"), dir.path().join("outside"));
        std::fs::create_dir_all(out.join("real/deep")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, out.join("link")).unwrap();
        std::os::unix::fs::symlink("../outside", out.join("up")).unwrap();
        std::os::unix::fs::symlink("real", out.join("inner")).unwrap();
        std::os::unix::fs::symlink(outside.join("target"), out.join("file.png")).unwrap();
        let folder = OutFolder::prepare(&out).unwrap();
        for bad in ["link/x.png", "up/x.png", "link/deep/x.png"] {
            assert!(put(&folder, bad, b"x", true).is_err(), "{bad}");
        }
        assert_eq!(put(&folder, "inner/deep/x.png", b"x", false).unwrap(), Placement::Done);
        assert!(out.join("real/deep/x.png").is_file());
        assert_eq!(
            put(&folder, "file.png", b"x", true).unwrap(),
            Placement::Done,
            "the link itself is replaced"
        );
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    }

    #[test]
    fn what_was_made_for_nothing_goes_again() {
        let dir = tempfile::tempdir().unwrap();
        drop(OutFolder::prepare(&dir.path().join("a/b/c")).unwrap());
        assert!(!dir.path().join("a").exists());
        std::fs::write(dir.path().join("file"), b"x").unwrap();
        assert!(OutFolder::prepare(&dir.path().join("file/sub")).is_err());
        assert!(OutFolder::prepare(&dir.path().join("file")).is_err());
    }

    #[test]
    fn one_part_has_one_writer() {
        let dir = tempfile::tempdir().unwrap();
        let folder = OutFolder::prepare(dir.path()).unwrap();
        let first = folder.part(&rel("a"), BlobHash::of(b"x")).unwrap();
        let second = folder.part(&rel("a"), BlobHash::of(b"x"));
        assert_eq!(second.err().unwrap().kind(), io::ErrorKind::WouldBlock);
        first.discard();
    }
}
