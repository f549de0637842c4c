//! Room on the disk, promised before it is used.
//!
//! What the disk says is free counts only as far as nobody was promised it: of many that write at the same time, those
//! that do not fit are turned away before they write, and some of the disk stays free for those who must not fail.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::BlobError;
use crate::disk::BlobResult;

/// Bytes that are asked for at once where nobody knows how many will come.
const STEP: u64 = 1 << 20;

/// Bytes that came and may not be on the disk yet: what is being gathered, and what is being written.
const UNDERWAY: u64 = 4 << 20;

/// The disk of a folder, of which a part stays free. It is cheap to clone, and clones share their promises.
#[derive(Debug, Clone)]
pub struct DiskSpace {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    reserve: u64,
    /// Bytes.
    promised: Mutex<u64>,
    /// Bytes were turned away.
    refused: Notify,
}

/// Bytes that somebody is about to write. Dropping it gives back what was not written; keep it until all is.
#[derive(Debug)]
pub struct Reservation {
    space: DiskSpace,
    /// Counted by the space.
    promised: u64,
    /// Those that have not come yet.
    ahead: u64,
    /// Those that came and may not be on the disk yet.
    underway: u64,
}

impl DiskSpace {
    /// `reserve`: bytes that stay free, or an eighth of a smaller disk.
    pub fn of(folder: &Path, reserve: u64) -> Self {
        let (promised, refused) = Default::default();
        Self { inner: Arc::new(Inner { folder: folder.to_owned(), reserve, promised, refused }) }
    }

    /// Promises room for `bytes`.
    ///
    /// # Errors
    /// [`BlobError::Reserved`] where they do not fit beside what was promised to others.
    pub fn reserve(&self, bytes: u64) -> BlobResult<Reservation> {
        let promised = self.promise(bytes)?;
        Ok(Reservation { space: self.clone(), promised, ahead: bytes, underway: 0 })
    }

    /// Waits until bytes are turned away, or returns at once if some were since it returned last.
    pub async fn refused(&self) {
        self.inner.refused.notified().await;
    }

    /// Counts the bytes. A disk that does not tell its free space counts as having room: writing will fail if it has none.
    fn promise(&self, bytes: u64) -> BlobResult<u64> {
        // Held while the disk is asked: of two, one is first.
        let mut promised = self.promised();
        let Ok(disk) = rustix::fs::statvfs(&self.inner.folder) else { return Ok(0) };
        let (free, whole) = (disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize);
        if !fits(free, *promised, bytes, self.inner.reserve.min(whole / 8)) {
            let folder = self.inner.folder.display();
            self.inner.refused.notify_one();
            tracing::warn!(%folder, free, promised = *promised, bytes, "the disk is full; bytes are turned away");
            return Err(BlobError::Reserved { free });
        }
        *promised += bytes;
        Ok(bytes)
    }

    pub(crate) fn promised(&self) -> MutexGuard<'_, u64> {
        self.inner.promised.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// These bytes leave the reserve alone, even when everything that was promised is written.
fn fits(free: u64, promised: u64, bytes: u64, reserve: u64) -> bool {
    free.saturating_sub(promised).checked_sub(bytes).is_some_and(|left| left >= reserve)
}

impl Reservation {
    /// Counts `bytes` that came and are written next. If more come than were reserved, more is reserved, a step at a
    /// time.
    ///
    /// # Errors
    /// [`BlobError::Reserved`] where there is no room for them; nothing has changed then.
    pub fn take(&mut self, bytes: u64) -> BlobResult<()> {
        if let Some(lacking) = bytes.checked_sub(self.ahead).filter(|lacking| *lacking > 0) {
            let asked = lacking.max(STEP);
            let (granted, promised) = match self.space.promise(asked) {
                Ok(promised) => (asked, promised),
                // The last bytes of all may fit where a whole step does not.
                Err(_) if lacking < asked => (lacking, self.space.promise(lacking)?),
                Err(error) => return Err(error),
            };
            self.ahead += granted;
            self.promised += promised;
        }
        self.ahead -= bytes;
        self.underway += bytes;
        // Those that came long ago are on the disk, which counts them itself.
        let written = self.underway.saturating_sub(UNDERWAY);
        self.underway -= written;
        self.give_back(written);
        Ok(())
    }

    fn give_back(&mut self, bytes: u64) {
        let bytes = bytes.min(self.promised);
        self.promised -= bytes;
        let mut promised = self.space.promised();
        *promised = promised.saturating_sub(bytes);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.give_back(self.promised);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn free(folder: &Path) -> u64 {
        let disk = rustix::fs::statvfs(folder).unwrap();
        disk.f_bavail * disk.f_frsize
    }

    #[test]
    fn what_was_promised_counts_as_used_and_the_reserve_stays() {
        for (free, promised, bytes, reserve, want) in [
            (100, 0, 90, 10, true),
            (100, 0, 91, 10, false),
            (100, 50, 40, 10, true),
            (100, 50, 41, 10, false),
            // The disk fell below what was promised: by others who ask nobody.
            (100, 200, 0, 10, false),
            (10, 0, 0, 10, true),
            (9, 0, 0, 10, false),
            (100, 0, u64::MAX, 10, false),
        ] {
            assert_eq!(fits(free, promised, bytes, reserve), want, "{free} {promised} {bytes} {reserve}");
        }
    }

    #[test]
    fn of_two_that_fit_alone_the_second_is_turned_away_until_the_first_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let free = free(folder.path());
        // So that two thirds of what is free fit once.
        let space = DiskSpace::of(folder.path(), MIB);
        let first = space.reserve(free / 3 * 2).unwrap();
        let error = space.clone().reserve(free / 3 * 2).unwrap_err();
        assert!(matches!(error, BlobError::Reserved { .. }), "{error}");
        drop(first);
        drop(space.reserve(free / 3 * 2).unwrap());
        assert_eq!(*space.promised(), 0);
        space.reserve(u64::MAX).unwrap_err();
    }

    #[test]
    fn what_came_long_ago_is_not_counted_twice_and_what_did_not_come_is_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let space = DiskSpace::of(folder.path(), 0);
        let mut announced = space.reserve(10 * MIB).unwrap();
        for mib in 1..=8 {
            announced.take(MIB).unwrap();
            assert_eq!(*space.promised(), (10 - mib) * MIB + (mib * MIB).min(UNDERWAY));
        }
        // One more of unknown length: a step at a time, and never less than came.
        let mut endless = space.reserve(0).unwrap();
        let before = *space.promised();
        for kib in 1..5000_u64 {
            endless.take(1024).unwrap();
            let counted = *space.promised() - before;
            let came = (kib << 10).min(UNDERWAY);
            assert!((came..came + STEP).contains(&counted), "{kib} KiB came, {counted} bytes are counted");
        }
        drop(announced);
        drop(endless);
        assert_eq!(*space.promised(), 0);
    }
}
