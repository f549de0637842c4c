//! Content-addressed bytes on disk, as whole files and as chunks; resumable uploads into them, and a size-limited
//! cache of them.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod blobs;
mod cache;
mod chunks;
mod disk;
mod error;
mod ordered_chunks;
mod promise;
mod space;
mod store;
mod uploads;

pub use blobs::{BlobReader, Blobs};
pub use cache::{Cache, CacheUsage, Pin};
pub use chunks::{ChunkReader, ChunkStore, PutReport};
pub use error::{BlobError, StreamError};
pub use kiln_files::Durability;
pub use promise::FreedSpace;
pub use space::{DiskSpace, Reservation};
pub use store::{BlobStore, PutMode};
pub use uploads::{UploadInfo, UploadOutcome, Uploads};
