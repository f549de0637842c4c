//! Whole files of bundles become chunks in the background: what a client without the chunk code has sent, and what a
//! bake has made, shares its bytes with everything else from then on.

use kiln_blobs::{BlobError, Blobs};
use kiln_store::Store;
use kiln_types::BlobHash;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;

use crate::space::DiskSpace;

/// Files that are looked up at once.
const PAGE: u32 = 1000;

/// Where files are handed in. Cheap to clone; without an end to it nothing is split.
#[derive(Debug, Clone)]
pub(crate) struct Splitter(UnboundedSender<BlobHash>);

/// The other end.
#[derive(Debug)]
pub(crate) struct ToSplit(UnboundedReceiver<BlobHash>);

impl Splitter {
    pub(crate) fn new() -> (Self, ToSplit) {
        let (sender, receiver) = unbounded_channel();
        (Self(sender), ToSplit(receiver))
    }

    /// The files of a bundle. Those that are chunks already cost a look.
    pub(crate) fn add(&self, files: &[BlobHash]) {
        for hash in files {
            // Nobody listens in a server that keeps files whole.
            let _ = self.0.send(*hash);
        }
    }
}

impl ToSplit {
    /// Splits, one file at a time, first what an earlier server left.
    pub(crate) async fn run(mut self, blobs: Blobs, store: Store, space: DiskSpace, stop: CancellationToken) {
        if blobs.chunks().is_none() {
            return;
        }
        let mut last = None;
        loop {
            let page = match store.bundle_blobs(last, PAGE).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::warn!(%error, "the files of bundles cannot be listed; whole ones stay whole");
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

/// Where it cannot be split now, it stays whole, and is tried again when the server starts.
async fn split(blobs: &Blobs, space: &DiskSpace, hash: &BlobHash) {
    let Some(chunks) = blobs.chunks() else { return };
    let size = match blobs.whole().size(hash).await {
        Ok(Some(size)) => size,
        Ok(None) => return,
        Err(error) => return tracing::warn!(%error, blob = %hash, "a file cannot be split"),
    };
    // Until the whole file goes, both are there.
    let Ok(_room) = space.reserve(size) else { return };
    match chunks.convert(blobs.whole(), hash).await {
        Ok(stored) => tracing::debug!(blob = %hash, size, stored, "a file was split into chunks"),
        // Collected meanwhile.
        Err(BlobError::NotFound(_)) => {}
        Err(error) => tracing::warn!(%error, blob = %hash, "a file cannot be split"),
    }
}
