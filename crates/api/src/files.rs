//! Bytes on their way in: blobs, bundles, resumable uploads.

use kiln_types::{BlobHash, BundleId, UploadId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Asks which of these blobs the server lacks.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct MissingQuery {
    /// At most 10,000.
    pub hashes: Vec<BlobHash>,
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
    /// The file's name, for the job's name and for messages.
    pub name: String,
    /// Bytes, where known: an upload that ends short is then refused.
    #[serde(default)]
    pub size: Option<u64>,
}

/// Where an upload stands. Parts go to it by `PATCH` with the header `Upload-Offset`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct UploadView {
    pub id: UploadId,
    /// Bytes that are safely on the server's disk.
    pub offset: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct UploadFinished {
    pub hash: BlobHash,
    /// Bytes.
    pub size: u64,
}
