//! Room on the disk that bytes may not take: the records need it, and without them the server cannot go on.

use std::path::{Path, PathBuf};

use kiln_api::ProblemCode;

use crate::problem::{Answer, Fault};

/// Bytes kept free for the records; on a small disk an eighth of it.
const RESERVE: u64 = 64 << 20;

/// The disk of the data folder.
#[derive(Debug, Clone)]
pub(crate) struct Space {
    folder: PathBuf,
}

impl Space {
    pub(crate) fn of(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// # Errors
    /// `no-space` where so many bytes more would eat into the reserve. A disk that does not say how full it is
    /// counts as having room: it will speak for itself.
    pub(crate) fn take(&self, bytes: u64) -> Answer<()> {
        let Ok(disk) = rustix::fs::statvfs(&self.folder) else { return Ok(()) };
        let (free, whole) = (disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize);
        if free.saturating_sub(bytes) >= RESERVE.min(whole / 8) {
            return Ok(());
        }
        tracing::warn!(folder = %self.folder.display(), free, bytes, "the disk is full; bytes are turned away");
        Err(Fault::new(
            ProblemCode::NoSpace,
            format!("The server's disk is full ({} MiB left); free some space and try again.", free >> 20),
        ))
    }
}
