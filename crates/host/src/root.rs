//! The folder that a slot's process sees and writes.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// A slot's folder: `in` (the bundle's files), `out` (what a frame writes), `tmp`, and `home`, the empty profile
/// of the process.
#[derive(Debug, Clone)]
pub struct SlotRoot {
    path: PathBuf,
}

impl SlotRoot {
    /// Makes the folder and its parts, readable by the owner only; what is there stays.
    pub fn create(path: impl Into<PathBuf>) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let path = path.into();
        let make = |path: &Path| fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        make(&path)?;
        // Blender's working folder is another one: only whole paths mean the same in both processes.
        let root = Self { path: path.canonicalize()? };
        for part in [root.input(), root.out(), root.tmp(), root.home()] {
            make(&part)?;
        }
        Ok(root)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the bundle's files lie.
    pub fn input(&self) -> PathBuf {
        self.path.join("in")
    }

    /// Where frames are written, each in a folder of its own.
    pub fn out(&self) -> PathBuf {
        self.path.join("out")
    }

    pub fn tmp(&self) -> PathBuf {
        self.path.join("tmp")
    }

    /// The process's home: an empty profile.
    pub fn home(&self) -> PathBuf {
        self.path.join("home")
    }

    /// A new, empty folder below `out`.
    ///
    /// # Errors
    /// Where a folder of that name cannot be emptied and made.
    pub fn fresh_out(&self, name: &str) -> io::Result<PathBuf> {
        let folder = self.out().join(name);
        remove(&folder)?;
        fs::create_dir(&folder)?;
        Ok(folder)
    }

    /// Empties `in`, `out` and `tmp`.
    pub fn empty(&self) -> io::Result<()> {
        for part in [self.input(), self.out(), self.tmp()] {
            for entry in fs::read_dir(part)? {
                remove(&entry?.path())?;
            }
        }
        Ok(())
    }
}

/// Removes a file, or a folder and all in it; absent is fine.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
