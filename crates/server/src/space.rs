//! The room on the disk that is reserved for the records, without which the server cannot go on.

use std::path::Path;

pub(crate) use kiln_blobs::{DiskSpace, Reservation};

/// Bytes that are kept free for the records; on a small disk, an eighth of it.
const RESERVE: u64 = 64 << 20;

/// Returns the space of the data folder's disk.
pub(crate) fn of(folder: &Path) -> DiskSpace {
    DiskSpace::of(folder, RESERVE)
}
