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

    /// The folder of the bundle's files.
    pub fn input(&self) -> PathBuf {
        self.path.join("in")
    }

    /// The folder of the frames, each in a folder of its own.
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
    pub fn fresh_out(&self, name: &str) -> io::Result<PathBuf> {
        let folder = self.out().join(name);
        kiln_files::remove_folder(&folder)?;
        fs::create_dir(&folder)?;
        Ok(folder)
    }
}
