//! Folders that are removed with a value, and other work on the disk that no async thread waits for.

use std::{
    fs, io, mem,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use kiln_types::{Failure, FailureCause};
use tokio::{runtime::Handle, task::spawn_blocking};

/// A folder that is removed with all in it when the value is dropped, in the background.
#[derive(Debug)]
pub(crate) struct ScratchFolder(PathBuf);

impl ScratchFolder {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Removes it, and waits until it is gone.
    pub(crate) async fn remove(mut self) {
        let path = mem::take(&mut self.0);
        let _ = spawn_blocking(move || clear(&path)).await;
    }
}

impl Drop for ScratchFolder {
    fn drop(&mut self) {
        let path = mem::take(&mut self.0);
        if path.as_os_str().is_empty() {
            return;
        }
        // Outside a runtime the program is ending, and a moment does not matter.
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || clear(&path))),
            Err(_) => clear(&path),
        }
    }
}

fn clear(path: &Path) {
    if let Err(error) = kiln_files::remove_folder(path) {
        tracing::warn!(%error, folder = %path.display(), "a folder cannot be removed");
    }
}

/// Creates a folder that only its owner reads. Blocking.
pub(crate) fn create_folder(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Returns true if the disk, or the user's part of it, has no room left.
fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

pub(crate) fn disk_full() -> Failure {
    let message =
        "this worker's disk is full, the task's files do not fit; free some space in its data folder";
    Failure::new(FailureCause::DiskFull, message)
}

/// The failure of a write to the disk: that it is full, or else `other`.
pub(crate) fn write_failure(error: &io::Error, other: impl FnOnce() -> Failure) -> Failure {
    if is_disk_full(error) { disk_full() } else { other() }
}

/// Runs work that waits for the disk on a thread for blocking work.
pub(crate) async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{future::Future, pin::pin, sync::mpsc};

    use futures_util::FutureExt;

    use super::*;

    /// Runs a future in a runtime whose only thread for what blocks is taken until it has waited for that once, and calls
    /// `meanwhile` then.
    pub(crate) fn while_the_disk_is_busy<T>(future: impl Future<Output = T>, meanwhile: impl FnOnce()) -> T {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.max_blocking_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let (free, taken) = mpsc::channel::<()>();
            let busy = spawn_blocking(move || taken.recv());
            let mut future = pin!(future);
            let early = future.as_mut().now_or_never();
            meanwhile();
            drop(free);
            busy.await.unwrap().unwrap_err();
            let done = match early {
                Some(done) => done,
                None => future.await,
            };
            // What was left to that thread is done in its order.
            spawn_blocking(|| ()).await.unwrap();
            done
        })
    }

    #[test]
    fn nobody_waits_for_a_folder_that_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("slot");
        for waits in [false, true] {
            std::fs::create_dir_all(path.join("out/deep")).unwrap();
            std::fs::write(path.join("out/deep/frame.exr"), b"x").unwrap();
            let folder = ScratchFolder::new(path.clone());
            let going = async {
                if waits {
                    folder.remove().await;
                    assert!(!path.exists());
                } else {
                    drop(folder);
                }
            };
            while_the_disk_is_busy(going, || assert!(path.exists(), "an async thread has waited for it"));
            assert!(!path.exists());
        }
        // Where there is no runtime any more, it goes as well.
        std::fs::create_dir(&path).unwrap();
        drop(ScratchFolder::new(path.clone()));
        assert!(!path.exists());
    }

    #[test]
    fn only_a_full_disk_is_called_full() {
        for (kind, cause) in [
            (io::ErrorKind::StorageFull, FailureCause::DiskFull),
            (io::ErrorKind::QuotaExceeded, FailureCause::DiskFull),
            (io::ErrorKind::PermissionDenied, FailureCause::Other),
        ] {
            let failure = write_failure(&kind.into(), || Failure::new(FailureCause::Other, "not allowed"));
            assert_eq!(failure.cause, cause, "{kind}");
        }
    }
}
