//! The messages of uploads: blobs, bundles and resumable uploads.

use kiln_types::{BlobHash, BundleId, UploadId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Hashes in one query for missing chunks; 32 bytes each.
pub const HASHES_AT_ONCE: usize = 1 << 16;
/// Chunks that one request may fetch.
pub const CHUNKS_AT_ONCE: usize = 1 << 12;
/// Bytes of chunk frames that one request may send.
pub const MAX_FRAMES: usize = 64 << 20;
/// Bytes of a recipe in a request.
pub const MAX_RECIPE: usize = 64 << 20;
/// The media type of chunks, hashes and recipes.
pub const BINARY: &str = "application/octet-stream";

/// Asks for those of these blobs that the server lacks.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct MissingQuery {
    #[schema(max_items = 10_000)]
    pub hashes: Vec<BlobHash>,
}

impl MissingQuery {
    /// Hashes in one query.
    pub const MAX: usize = 10_000;
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct MissingAnswer {
    pub missing: Vec<BlobHash>,
}

/// The answer to a bundle's manifest.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct BundleCreated {
    pub id: BundleId,
}

/// Begins a resumable upload of one whole file.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct UploadCreate {
    /// The file's name, for the job's name and for messages; at most 1,024 bytes.
    #[schema(min_length = 1, max_length = 1024, pattern = r"^[^\u0000]+$")]
    pub name: String,
    /// Bytes, where known: an upload that ends short is then refused.
    #[serde(default)]
    #[schema(maximum = 1_099_511_627_776_u64)]
    pub size: Option<u64>,
}

/// The progress of an upload. Parts are sent by `PATCH` with the header `Upload-Offset`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct UploadView {
    pub id: UploadId,
    /// Bytes that are flushed to the server's disk.
    pub offset: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct UploadFinished {
    pub hash: BlobHash,
    /// Bytes.
    pub size: u64,
}
