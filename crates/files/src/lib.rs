//! Writes files whole, renames so that a loss of power undoes nothing, and removes folders.
//!
//! Everything here blocks.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod remove;
mod write;

pub use remove::remove_folder;
pub use write::{Access, NewFile, remove_drafts, write_atomically};

use std::{
    fs::{self, File},
    io,
    path::Path,
};

/// The durability of a write before it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// On the disk: survives the loss of power.
    Durable,
    /// With the operating system: for what can be made again, and for the throw-away server inside a `kiln render`.
    Ephemeral,
}

/// Gives a finished file its name, on the same disk, so that both survive a loss of power: after one, the name leads to
/// what was there before or to all of this.
///
/// # Errors
/// If the content cannot be flushed, or the name cannot be given; then the old name is still there. Also if the folder
/// of the new name cannot be flushed; then the new name is there, but perhaps not after a loss of power.
pub fn rename_durably(from: &Path, to: &Path) -> io::Result<()> {
    File::open(from)?.sync_all()?;
    fs::rename(from, to)?;
    flush_folder(parent(to))
}

/// Makes the names in a folder survive a loss of power.
///
/// # Errors
/// If the folder is not there, or the disk fails.
pub fn flush_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder)?.sync_all() {
        // Some file systems have nothing to flush for a folder.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
            Ok(())
        }
        done => done,
    }
}

/// Makes files that lie on one disk survive a loss of power, by one flush of the disk where the system can.
///
/// # Errors
/// If the disk fails.
pub fn flush_together<'a>(files: impl IntoIterator<Item = &'a File>) -> io::Result<()> {
    let mut files = files.into_iter();
    #[cfg(target_os = "linux")]
    {
        files.next().map_or(Ok(()), |file| Ok(rustix::fs::syncfs(file)?))
    }
    #[cfg(not(target_os = "linux"))]
    {
        files.try_for_each(File::sync_all)
    }
}

/// Makes all that a folder holds survive a loss of power, with the names in it, but not its own.
///
/// # Errors
/// If a part of it cannot be read, or the disk fails.
pub fn flush_tree(folder: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        flush_together([&File::open(folder)?])
    }
    #[cfg(not(target_os = "linux"))]
    {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                flush_tree(&entry.path())?;
            } else if kind.is_file() {
                File::open(entry.path())?.sync_all()?;
            }
        }
        flush_folder(folder)
    }
}

/// The folder that holds this path, also where that is the working directory.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_to_the_renamed_file() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("part"), dir.path().join("whole"));
        fs::write(&to, "old").unwrap();
        fs::write(&from, "new").unwrap();
        rename_durably(&from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"new");
        assert!(!from.exists());

        let error = rename_durably(&from, &to).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert_eq!(fs::read(&to).unwrap(), b"new");
    }

    #[test]
    fn files_are_flushed_together_and_folders_alone() {
        let dir = tempfile::tempdir().unwrap();
        let files = [tempfile::tempfile_in(dir.path()).unwrap(), tempfile::tempfile_in(dir.path()).unwrap()];
        flush_together(&files).unwrap();
        flush_together([]).unwrap();
        fs::create_dir(dir.path().join("deep")).unwrap();
        fs::write(dir.path().join("deep/file"), "x").unwrap();
        flush_tree(dir.path()).unwrap();
        flush_folder(dir.path()).unwrap();
        assert!(flush_folder(&dir.path().join("absent")).is_err());
    }

    #[test]
    fn a_bare_name_lies_in_the_working_directory() {
        assert_eq!(parent(Path::new("name")), Path::new("."));
        assert_eq!(parent(Path::new("/a/name")), Path::new("/a"));
    }
}
