//! Room on the disk that bytes may not take: the records need it, and without them the server cannot go on.

use std::path::Path;

pub(crate) use kiln_blobs::{DiskSpace, Reservation};

/// Bytes kept free for the records; on a small disk an eighth of it.
const RESERVE: u64 = 64 << 20;

/// The disk of the data folder.
pub(crate) fn of(folder: &Path) -> DiskSpace {
    DiskSpace::of(folder, RESERVE)
}
