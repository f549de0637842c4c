//! Splitting of whole files into chunks, in the background: files that a client sent whole, and files of a bake, share
//! their bytes with other files from then on.

use kiln_blobs::{BlobError, Blobs};
use kiln_store::Store;
use kiln_types::BlobHash;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;

use crate::space::DiskSpace;

/// Files that are listed at once.
const PAGE: u32 = 1000;

/// The sender of files that are to be split; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Splitter(UnboundedSender<BlobHash>);

/// The files that are to be split.
#[derive(Debug)]
pub(crate) struct SplitQueue(UnboundedReceiver<BlobHash>);

impl Splitter {
    pub(crate) fn new() -> (Self, SplitQueue) {
        let (sender, receiver) = unbounded_channel();
        (Self(sender), SplitQueue(receiver))
    }

    /// Adds the files of a bundle. For a file that is split already, this costs one lookup.
    pub(crate) fn add(&self, files: &[BlobHash]) {
        for hash in files {
            // The queue is closed in a server that keeps files whole.
            let _ = self.0.send(*hash);
        }
    }
}

impl SplitQueue {
    /// Splits one file after another, beginning with those that an earlier server left whole.
    pub(crate) async fn run(mut self, blobs: Blobs, store: Store, space: DiskSpace, stop: CancellationToken) {
        if blobs.chunks().is_none() {
            return;
        }
        let mut last = None;
        loop {
            let page = match store.bundle_blobs(last, PAGE).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::warn!(%error, "files to split not listed");
                    break;
                }
            };
            for hash in &page {
                if stop.is_cancelled() {
                    return;
                }
                split(&blobs, &space, hash).await;
            }
            match page.last() {
                Some(hash) => last = Some(*hash),
                None => break,
            }
        }
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                next = self.0.recv() => match next {
                    Some(hash) => split(&blobs, &space, &hash).await,
                    None => return,
                }
            }
        }
    }
}

/// Splits a file. If it cannot be split now, it stays whole and is tried again when the server starts.
async fn split(blobs: &Blobs, space: &DiskSpace, hash: &BlobHash) {
    let Some(chunks) = blobs.chunks() else { return };
    let size = match blobs.whole().size(hash).await {
        Ok(Some(size)) => size,
        Ok(None) => return,
        Err(error) => return tracing::warn!(%error, blob = %hash, "file not split"),
    };
    // The chunks and the whole file exist side by side for a moment.
    let Ok(_room) = space.reserve(size) else { return };
    match chunks.convert(blobs.whole(), hash).await {
        Ok(stored) => tracing::debug!(blob = %hash, size, stored, "file split"),
        // Collected meanwhile.
        Err(BlobError::NotFound(_)) => {}
        Err(error) => tracing::warn!(%error, blob = %hash, "file not split"),
    }
}
