//! A disk that is soon full.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

/// A file system of a few MiB over a folder, there while the value lives.
#[derive(Debug)]
pub struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    /// Only root may; where it is refused, reports the test as skipped and returns `None`.
    #[must_use]
    pub fn mount(at: &Path, mib: u32) -> Option<Self> {
        let size = format!("size={mib}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output();
        if mounted.is_ok_and(|out| out.status.success()) {
            return Some(Self { at: at.to_owned() });
        }
        crate::skip("only root can mount the small disk that this test fills");
        None
    }

    /// Fills it up to the last byte but `free`; removed again by [`SmallDisk::make_room`].
    ///
    /// # Panics
    /// Where the disk cannot be filled.
    pub fn fill_but(&self, free: u64) {
        let path = self.ballast();
        let mut file = File::options().append(true).create(true).open(&path).expect("ballast can be made");
        let block = vec![1_u8; 4096];
        while file.write_all(&block).is_ok() {}
        let length = file.metadata().expect("ballast has a length").len();
        file.set_len(length.saturating_sub(free)).expect("ballast can be cut");
    }

    /// # Panics
    /// Where it was not filled.
    pub fn make_room(&self) {
        fs::remove_file(self.ballast()).expect("the disk was filled");
    }

    fn ballast(&self) -> PathBuf {
        self.at.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}
