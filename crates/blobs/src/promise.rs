//! Collection: a blob that is not needed is removed, unless a client was lately promised that it is there.
//!
//! A blob's time is the last moment at which a client was told that it is there. A collection spares blobs that are
//! younger than the promise, so no list of promises has to survive a restart.

use std::fs::{self, File};
use std::io;
use std::ops::Add;
use std::path::Path;
use std::sync::PoisonError;
use std::time::SystemTime;

use kiln_types::BlobHash;

use crate::disk::{BlobResult, blocking, remove};
use crate::{BlobError, BlobStore};

/// The blobs that a collection removed, or would remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FreedSpace {
    pub blobs: u64,
    pub bytes: u64,
}

impl Add for FreedSpace {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { blobs: self.blobs + other.blobs, bytes: self.bytes + other.bytes }
    }
}

impl BlobStore {
    /// The blob's length, if it is there; it is promised from now on.
    pub async fn promise(&self, hash: &BlobHash) -> BlobResult<Option<u64>> {
        let (store, path) = (self.clone(), self.path(hash));
        blocking(move || store.renew(&path)).await
    }

    /// Removes every blob that is not needed and was promised to nobody since this time. What is promised while
    /// it works is spared, whatever the moment.
    pub async fn collect(
        &self,
        needed: impl Fn(&BlobHash) -> bool + Send + 'static,
        promised_since: SystemTime,
    ) -> BlobResult<FreedSpace> {
        let store = self.clone();
        blocking(move || {
            // Looked at again with nobody renewing it.
            let remove = |path: &Path| store.remove_forgotten(path, promised_since);
            store.each_forgotten(needed, promised_since, remove)
        })
        .await
    }

    /// Removes these blobs, but for those that were promised since the time beside them.
    pub async fn collect_each(&self, blobs: Vec<(BlobHash, SystemTime)>) -> BlobResult<FreedSpace> {
        let store = self.clone();
        blocking(move || {
            let mut freed = FreedSpace::default();
            for (hash, promised_since) in blobs {
                if let Some(bytes) = store.remove_forgotten(&store.path(&hash), promised_since)? {
                    freed = freed + FreedSpace { blobs: 1, bytes };
                }
            }
            Ok(freed)
        })
        .await
    }

    /// The blobs that [`BlobStore::collect`] would remove.
    pub async fn collectable(
        &self,
        needed: impl Fn(&BlobHash) -> bool + Send + 'static,
        promised_since: SystemTime,
    ) -> BlobResult<FreedSpace> {
        let store = self.clone();
        blocking(move || store.each_forgotten(needed, promised_since, |path| forgotten(path, promised_since)))
            .await
    }

    fn each_forgotten(
        &self,
        needed: impl Fn(&BlobHash) -> bool,
        promised_since: SystemTime,
        take: impl Fn(&Path) -> BlobResult<Option<u64>>,
    ) -> BlobResult<FreedSpace> {
        let mut freed = FreedSpace::default();
        for (hash, meta) in self.walk()? {
            if needed(&hash) || meta.modified().is_ok_and(|at| at >= promised_since) {
                continue;
            }
            if let Some(bytes) = take(&self.path(&hash))? {
                freed.blobs += 1;
                freed.bytes += bytes;
            }
        }
        Ok(freed)
    }

    /// Removes a blob, unless it was promised since this time. Returns its length if it went.
    fn remove_forgotten(&self, path: &Path, promised_since: SystemTime) -> BlobResult<Option<u64>> {
        let _alone = self.inner.gate.write().unwrap_or_else(PoisonError::into_inner);
        match forgotten(path, promised_since)? {
            Some(bytes) => Ok(remove(path)?.then_some(bytes)),
            None => Ok(None),
        }
    }

    /// Returns true if a blob of this length is there already; it is promised then. Blocks.
    pub(crate) fn claim(&self, path: &Path, len: u64) -> BlobResult<bool> {
        Ok(self.renew(path)? == Some(len))
    }

    fn renew(&self, path: &Path) -> BlobResult<Option<u64>> {
        let _shared = self.inner.gate.read().unwrap_or_else(PoisonError::into_inner);
        renew(path)
    }
}

/// Gives a file the time of now. Its length, if it is there.
pub(crate) fn renew(path: &Path) -> BlobResult<Option<u64>> {
    let renew = || {
        let file = File::open(path)?;
        file.set_modified(SystemTime::now())?;
        Ok(file.metadata()?.len())
    };
    match renew() {
        Err(error) if io::Error::kind(&error) == io::ErrorKind::NotFound => Ok(None),
        done => done.map(Some).map_err(BlobError::io("date", path)),
    }
}

/// The length, if the file is there and older than the promise.
pub(crate) fn forgotten(path: &Path, promised_since: SystemTime) -> BlobResult<Option<u64>> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(BlobError::io("look at", path)(error)),
        Ok(meta) => Ok(meta.modified().is_ok_and(|at| at < promised_since).then_some(meta.len())),
    }
}
