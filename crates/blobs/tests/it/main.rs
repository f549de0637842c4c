#![allow(clippy::unwrap_used)]

mod blobs;
mod cache;
mod chunks;
mod killed;
mod model;
mod promises;
mod small;
mod uploads;

use std::path::Path;

use bytes::Bytes;
use futures_util::{Stream, stream};
use kiln_blobs::{BlobError, StreamError, UploadOutcome, Uploads};
use kiln_types::{BlobHash, UploadId};

/// A stream of these pieces.
fn pieces<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> impl Stream<Item = Result<Bytes, StreamError>> + Send + Unpin {
    let all: Vec<_> = pieces.into_iter().map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    stream::iter(all)
}

/// Ends an upload that nobody has anything against.
async fn finish(uploads: &Uploads, id: UploadId) -> Result<(BlobHash, u64), BlobError> {
    match uploads.finish(id, |_| Ok(())).await? {
        UploadOutcome::Stored(hash, len) => Ok((hash, len)),
        UploadOutcome::Refused(why) => panic!("{why}"),
    }
}

/// A stream that breaks after these bytes.
fn breaking(bytes: &[u8]) -> impl Stream<Item = Result<Bytes, StreamError>> + Send + Unpin {
    stream::iter([Ok(Bytes::copy_from_slice(bytes)), Err("the sender went away".into())])
}

/// Every file below a folder, by its path in it, sorted.
fn files_below(folder: &Path) -> Vec<String> {
    fn walk(folder: &Path, root: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, root, found);
            } else {
                found.push(path.strip_prefix(root).unwrap().to_string_lossy().into_owned());
            }
        }
    }
    let mut found = Vec::new();
    walk(folder, folder, &mut found);
    found.sort();
    found
}

/// Bytes that do not repeat soon.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
