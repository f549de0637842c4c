//! Content-addressed bytes on disk, as whole files and as chunks; resumable uploads into them, and a size-limited
//! cache of them.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod blobs;
mod cache;
mod chunks;
mod disk;
mod error;
mod in_turn;
mod promise;
mod space;
mod store;
mod uploads;

pub use blobs::{BlobReader, Blobs};
pub use cache::{Cache, CacheUsage, Pin};
pub use chunks::{ChunkReader, ChunkStore, PutChunks};
pub use error::{BlobError, StreamError};
pub use kiln_files::Durability;
pub use promise::Freed;
pub use space::{Reservation, Space};
pub use store::{BlobStore, Take};
pub use uploads::{UploadInfo, UploadOutcome, Uploads};
