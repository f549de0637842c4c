//! Content-addressed bytes on disk, resumable uploads into them, and a size-limited cache of them.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod error;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::Stream;
use kiln_types::{BlobHash, UploadId};

pub use error::{BlobError, StreamError};

/// How sure bytes must be before they are acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// On the disk: survives the loss of power.
    Durable,
    /// With the operating system: for the throw-away server inside a `kiln render`, and for caches.
    Ephemeral,
}

/// What becomes of a file that is put into a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// It stays where it is.
    Copy,
    /// It is moved in. Nobody may have it open for writing.
    Move,
}

#[derive(Debug, Clone)]
pub struct BlobStore {}

impl BlobStore {
    pub async fn open(root: &Path, durability: Durability) -> Result<Self, BlobError> {
        todo!("{root:?}{durability:?}")
    }
    pub async fn put_stream<S, E>(
        &self,
        expected: Option<BlobHash>,
        limit: u64,
        stream: S,
    ) -> Result<(BlobHash, u64), BlobError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Into<StreamError>,
    {
        let _ = stream;
        todo!("{expected:?}{limit}")
    }
    pub async fn put_bytes(&self, bytes: impl Into<Bytes>) -> Result<BlobHash, BlobError> {
        let _: Bytes = bytes.into();
        todo!()
    }
    pub async fn put_file(&self, path: &Path, take: Take) -> Result<(BlobHash, u64), BlobError> {
        todo!("{path:?}{take:?}")
    }
    pub async fn contains(&self, hash: &BlobHash) -> Result<bool, BlobError> {
        todo!("{hash}")
    }
    pub async fn size(&self, hash: &BlobHash) -> Result<Option<u64>, BlobError> {
        todo!("{hash}")
    }
    pub async fn open_blob(&self, hash: &BlobHash) -> Result<(tokio::fs::File, u64), BlobError> {
        todo!("{hash}")
    }
    pub async fn read(&self, hash: &BlobHash, limit: u64) -> Result<Bytes, BlobError> {
        todo!("{hash}{limit}")
    }
    pub fn path(&self, hash: &BlobHash) -> PathBuf {
        todo!("{hash}")
    }
    pub async fn delete(&self, hash: &BlobHash) -> Result<bool, BlobError> {
        todo!("{hash}")
    }
    pub async fn list(&self) -> Result<Vec<(BlobHash, u64)>, BlobError> {
        todo!()
    }
    pub async fn verify(&self, hash: &BlobHash) -> Result<u64, BlobError> {
        todo!("{hash}")
    }
}

/// What is known of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadInfo {
    pub id: UploadId,
    /// The file's name, as the sender gave it.
    pub name: String,
    /// Bytes announced, where they were.
    pub size: Option<u64>,
    /// Bytes that are safe.
    pub offset: u64,
    /// What it became, once finished.
    pub finished: Option<BlobHash>,
}

#[derive(Debug, Clone)]
pub struct Uploads {}

impl Uploads {
    pub async fn open(root: &Path, blobs: BlobStore, limit: u64) -> Result<Self, BlobError> {
        todo!("{root:?}{blobs:?}{limit}")
    }
    pub async fn create(&self, name: &str, size: Option<u64>) -> Result<UploadId, BlobError> {
        todo!("{name}{size:?}")
    }
    pub async fn append<S, E>(&self, id: UploadId, offset: u64, stream: S) -> Result<u64, BlobError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Into<StreamError>,
    {
        let _ = stream;
        todo!("{id}{offset}")
    }
    pub async fn offset(&self, id: UploadId) -> Result<u64, BlobError> {
        todo!("{id}")
    }
    pub async fn info(&self, id: UploadId) -> Result<UploadInfo, BlobError> {
        todo!("{id}")
    }
    pub async fn finish(&self, id: UploadId) -> Result<(BlobHash, u64), BlobError> {
        todo!("{id}")
    }
    pub async fn abort(&self, id: UploadId) -> Result<(), BlobError> {
        todo!("{id}")
    }
    pub async fn expire(&self, older_than: SystemTime) -> Result<usize, BlobError> {
        todo!("{older_than:?}")
    }
}

/// How full a cache is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheUsage {
    pub used: u64,
    pub max: u64,
    /// Held by pins; above `max`, the cache is over its limit for as long as they last.
    pub pinned: u64,
}

#[derive(Debug, Clone)]
pub struct Cache {}

/// Keeps blobs in the cache until it is dropped.
#[derive(Debug)]
pub struct Pin {}

impl Cache {
    pub async fn open(root: &Path, max_bytes: u64) -> Result<Self, BlobError> {
        todo!("{root:?}{max_bytes}")
    }
    pub fn pin(&self, hashes: impl IntoIterator<Item = BlobHash>) -> Pin {
        let _: Vec<_> = hashes.into_iter().collect();
        todo!()
    }
    pub async fn get(&self, hash: &BlobHash) -> Result<Option<PathBuf>, BlobError> {
        todo!("{hash}")
    }
    pub async fn put_stream<S, E>(&self, expected: BlobHash, limit: u64, stream: S) -> Result<u64, BlobError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Into<StreamError>,
    {
        let _ = stream;
        todo!("{expected}{limit}")
    }
    pub fn usage(&self) -> CacheUsage {
        todo!()
    }
}
