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
pub use promise::Freed;
pub use space::{Reservation, Space};
pub use store::{BlobStore, Take};
pub use uploads::{UploadInfo, UploadOutcome, Uploads};

/// How sure bytes must be before they are acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// On the disk: survives the loss of power.
    Durable,
    /// With the operating system: for the throw-away server inside a `kiln render`.
    Ephemeral,
}
