//! Files that get their name when all their bytes are there.

use std::{
    fs::{self, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use crate::{Durability, flush_folder, parent};

/// The beginning and the ending of a temporary file's name.
const PREFIX: &str = ".kiln-";
const SUFFIX: &str = ".new";

/// The permissions of a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Only its owner reads and writes it, from the moment it is created.
    Owner,
    /// Those that the process gives to any file.
    Usual,
    /// These bits, whatever the umask of the process is.
    Exactly(u32),
}

/// Writes a file. Its name leads to what was there before or to all of these bytes, never to a part of them, for readers
/// and other writers at every moment and, if it is durable, after a loss of power.
///
/// # Errors
/// If the file cannot be written; then its name leads to what was there before, and nothing else is left.
pub fn write_atomically(path: &Path, bytes: &[u8], access: Access, durability: Durability) -> io::Result<()> {
    let mut file = NewFile::create(path, access)?;
    file.write_all(bytes)?;
    file.commit(durability)
}

/// A file that is being written beside its place, under a name that no other process uses. It goes when it is dropped
/// before it is committed; a process that is killed may leave it.
#[derive(Debug)]
pub struct NewFile {
    draft: NamedTempFile,
    path: PathBuf,
    access: Access,
}

impl NewFile {
    /// Begins a file that will be at `path`, in a folder that is there.
    ///
    /// # Errors
    /// If no file can be made in that folder.
    pub fn create(path: &Path, access: Access) -> io::Result<Self> {
        let mode = match access {
            Access::Owner => 0o600,
            Access::Usual => 0o666,
            Access::Exactly(mode) => mode,
        };
        let mut named = tempfile::Builder::new();
        named.prefix(PREFIX).suffix(SUFFIX).permissions(Permissions::from_mode(mode));
        Ok(Self { draft: named.tempfile_in(parent(path))?, path: path.to_owned(), access })
    }

    /// Gives the file its name, in the place of what has it.
    ///
    /// # Errors
    /// As [`write_atomically`].
    pub fn commit(self, durability: Durability) -> io::Result<()> {
        let Self { draft, path, access } = self;
        if let Access::Exactly(mode) = access {
            draft.as_file().set_permissions(Permissions::from_mode(mode))?;
        }
        if durability == Durability::Durable {
            draft.as_file().sync_all()?;
        }
        // The error brings the file back, and it goes with it.
        draft.persist(&path).map_err(|error| error.error)?;
        match durability {
            Durability::Durable => flush_folder(parent(&path)),
            Durability::Ephemeral => Ok(()),
        }
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.draft.as_file_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.draft.as_file_mut().flush()
    }
}

/// Removes what killed processes left of files in this folder, in which nobody else may be writing.
///
/// # Errors
/// If the folder cannot be read, or the disk fails.
pub fn remove_drafts(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_draft = name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX));
        if is_draft && entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o7777
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_whole_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for durability in [Durability::Durable, Durability::Ephemeral] {
            write_atomically(&path, b"a long text", Access::Owner, durability).unwrap();
            write_atomically(&path, b"short", Access::Owner, durability).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"short");
        }
        assert_eq!(names(dir.path()), ["file"]);
    }

    #[test]
    fn permissions_are_those_that_were_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let usual = dir.path().join("usual");
        fs::write(&usual, "").unwrap();
        for (access, expected) in
            [(Access::Usual, mode(&usual)), (Access::Exactly(0o664), 0o664), (Access::Owner, 0o600)]
        {
            let new = NewFile::create(&path, access).unwrap();
            if access == Access::Owner {
                assert_eq!(mode(new.draft.path()), 0o600, "others could read it before it has its name");
            }
            new.commit(Durability::Ephemeral).unwrap();
            assert_eq!(mode(&path), expected, "{access:?}");
        }
    }

    #[test]
    fn a_failure_leaves_what_was_there_and_no_draft() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("taken");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("inside"), "old").unwrap();
        write_atomically(&path, b"new", Access::Owner, Durability::Durable).unwrap_err();
        assert_eq!(names(dir.path()), ["taken"]);

        let other = dir.path().join("other");
        fs::write(&other, "old").unwrap();
        let mut new = NewFile::create(&other, Access::Owner).unwrap();
        new.write_all(b"half of it").unwrap();
        drop(new);
        assert_eq!(fs::read(&other).unwrap(), b"old");
        assert_eq!(names(dir.path()), ["other", "taken"]);

        let absent = dir.path().join("absent/file");
        let error = write_atomically(&absent, b"new", Access::Owner, Durability::Durable).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn writers_of_one_file_do_not_disturb_each_other() {
        const WRITERS: u8 = 4;
        const BYTES: usize = 100_000;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let write = |letter: u8| {
            write_atomically(&path, &[letter; BYTES], Access::Owner, Durability::Ephemeral).unwrap();
        };
        write(b'a');
        thread::scope(|scope| {
            for letter in (b'a'..).take(WRITERS.into()) {
                scope.spawn(move || (0..50).for_each(|_| write(letter)));
            }
            for _ in 0..200 {
                let bytes = fs::read(&path).unwrap();
                assert_eq!(bytes.len(), BYTES);
                assert!(bytes.iter().all(|letter| *letter == bytes[0]), "two writers are mixed in it");
            }
        });
        assert_eq!(names(dir.path()), ["file"]);
    }

    #[test]
    fn drafts_of_killed_processes_are_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let new = NewFile::create(&dir.path().join("file"), Access::Owner).unwrap();
        // As a process that is killed leaves it.
        new.draft.keep().unwrap();
        for other in ["file", ".kiln-data", "a.new"] {
            fs::write(dir.path().join(other), "").unwrap();
        }
        assert_eq!(names(dir.path()).len(), 4);
        remove_drafts(dir.path()).unwrap();
        assert_eq!(names(dir.path()), [".kiln-data", "a.new", "file"]);
    }
}
