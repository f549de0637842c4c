//! Collects the files of a bake from its tree. Nothing that the process says of them is believed.

use std::{fs::File, os::fd::OwnedFd, path::Path};

use kiln_types::{Failure, RelPath};
use rustix::{
    fs::{CWD, Dir, FileType, Mode, OFlags, openat},
    io::Errno,
};

use crate::collect::{misbehaved, open_below, open_folder, regular_size, unreadable};

/// The most files, folders and links that a bake may add; a bake with more is refused. A fluid writes about
/// five files per frame.
pub const MAX_BAKED_ENTRIES: usize = 50_000;
/// Bytes of all that a bake leaves; more is refused: 256 GiB.
pub const MAX_BAKED_BYTES: u64 = 256 << 30;
/// Folders below each other that are looked into.
const MAX_DEPTH: usize = 64;

/// A regular file of a bake's tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BakedFile {
    pub path: RelPath,
    /// Bytes.
    pub size: u64,
}

/// Every regular file below `tree`, which was given `known` entries before the bake; links are passed over and
/// never followed. No process may write there any more. Blocking.
///
/// # Errors
/// [`kiln_types::FailureCause::HostMisbehaved`] where a file has a second name, a name that no bundle can hold, or where
/// there are too many or too large ones; [`kiln_types::FailureCause::BadOutput`] where the tree cannot be read.
pub fn gather(tree: &Path, known: usize) -> Result<Vec<BakedFile>, Failure> {
    let folder = open_folder(CWD, tree).map_err(unreadable_tree)?;
    let mut walk = Walk { found: Vec::new(), left: known.saturating_add(MAX_BAKED_ENTRIES), bytes: 0 };
    walk.folder(&folder, "", 0)?;
    Ok(walk.found)
}

/// Opens a file that was gathered, without following links; the second is its size in bytes. Blocking.
pub fn open_gathered(tree: &Path, path: &RelPath) -> Result<(File, u64), Failure> {
    let folder = open_folder(CWD, tree).map_err(unreadable_tree)?;
    let file = open_below(&folder, path).map_err(unreadable_tree)?;
    let size = regular_size(&file, path.as_str())?;
    Ok((File::from(file), size))
}

struct Walk {
    found: Vec<BakedFile>,
    left: usize,
    bytes: u64,
}

impl Walk {
    fn folder(&mut self, folder: &OwnedFd, prefix: &str, depth: usize) -> Result<(), Failure> {
        if depth > MAX_DEPTH {
            return Err(misbehaved(format!("the bake's folder is nested deeper than {MAX_DEPTH} folders")));
        }
        for entry in Dir::read_from(folder).map_err(unreadable_tree)? {
            let entry = entry.map_err(unreadable_tree)?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            self.left = self.left.checked_sub(1).ok_or_else(|| {
                misbehaved(format!("the bake left more than {MAX_BAKED_ENTRIES} files; it is refused"))
            })?;
            match entry.file_type() {
                FileType::Directory => {
                    let path = format!("{prefix}{}/", text(name)?);
                    let below = open_folder(folder, name).map_err(unreadable_tree)?;
                    self.folder(&below, &path, depth + 1)?;
                }
                FileType::RegularFile => {
                    let path = format!("{prefix}{}", text(name)?);
                    let path =
                        RelPath::new(&path).map_err(|error| misbehaved(format!("the bake left {error}")))?;
                    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY | OFlags::NONBLOCK;
                    let file = openat(folder, name, flags, Mode::empty()).map_err(unreadable_tree)?;
                    let size = regular_size(&file, path.as_str())?;
                    self.bytes = self.bytes.saturating_add(size);
                    if self.bytes > MAX_BAKED_BYTES {
                        return Err(misbehaved("the bake left more than 256 GiB; it is refused".to_owned()));
                    }
                    self.found.push(BakedFile { path, size });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn text(name: &std::ffi::CStr) -> Result<&str, Failure> {
    name.to_str().map_err(|_| {
        misbehaved(format!("the bake left {}, which is no text; it is refused", name.to_string_lossy()))
    })
}

fn unreadable_tree(error: Errno) -> Failure {
    unreadable("the bake's folder", error)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use kiln_types::FailureCause;

    use super::*;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("cache/data")).unwrap();
        fs::write(dir.path().join("a.blend"), b"baked").unwrap();
        fs::write(dir.path().join("cache/data/0001.vdb"), b"smoke").unwrap();
        dir
    }

    #[test]
    fn regular_files_are_found_and_links_are_not_followed() {
        let dir = tree();
        symlink("/etc/passwd", dir.path().join("wood.png")).unwrap();
        symlink("/etc", dir.path().join("maps")).unwrap();
        rustix::fs::mkfifoat(CWD, dir.path().join("pipe"), Mode::from_raw_mode(0o600)).unwrap();
        let mut found = gather(dir.path(), 0).unwrap();
        found.sort_by(|a, b| a.path.cmp(&b.path));
        let named: Vec<_> = found.iter().map(|file| (file.path.as_str(), file.size)).collect();
        assert_eq!(named, [("a.blend", 5), ("cache/data/0001.vdb", 5)]);
        let link = RelPath::new("wood.png").unwrap();
        assert_eq!(open_gathered(dir.path(), &link).unwrap_err().cause, FailureCause::BadOutput);
        assert_eq!(open_gathered(dir.path(), &found[0].path).unwrap().1, 5);
    }

    #[test]
    fn a_second_name_and_a_name_that_no_bundle_holds_are_refused() {
        let dir = tree();
        fs::hard_link(dir.path().join("a.blend"), dir.path().join("b.blend")).unwrap();
        let failure = gather(dir.path(), 0).unwrap_err();
        assert_eq!(failure.cause, FailureCause::HostMisbehaved);
        assert!(failure.message.contains("second name"), "{failure}");
        let dir = tree();
        fs::write(dir.path().join("a\\b"), b"x").unwrap();
        let failure = gather(dir.path(), 0).unwrap_err();
        assert_eq!(failure.cause, FailureCause::HostMisbehaved, "{failure}");
    }

    #[test]
    fn more_files_than_any_bake_makes_are_refused() {
        let dir = tree();
        let mut walk = Walk { found: Vec::new(), left: 3, bytes: 0 };
        let folder = openat(CWD, dir.path(), OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).unwrap();
        let failure = walk.folder(&folder, "", 0).unwrap_err();
        assert!(failure.message.contains("more than 50000 files"), "{failure}");
    }
}
