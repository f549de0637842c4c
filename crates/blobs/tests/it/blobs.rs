//! Putting and getting blobs.

use std::os::unix::fs::PermissionsExt;

use futures_util::{FutureExt, StreamExt};
use kiln_blobs::{BlobError, BlobStore, Durability, PutMode};
use kiln_types::BlobHash;
use tokio::io::AsyncReadExt;

use crate::{breaking, files_below, noise, pieces};

async fn store() -> (tempfile::TempDir, BlobStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = BlobStore::open(folder.path(), Durability::Durable).await.unwrap();
    (folder, store)
}

#[tokio::test]
async fn what_is_put_is_there_under_its_hash() {
    let (folder, store) = store().await;
    // Over several buffers, in pieces that fit none of them.
    let bytes = noise(3_500_001);
    let (hash, len) = store.put_stream(None, u64::MAX, pieces(bytes.chunks(70_001))).await.unwrap();
    assert_eq!((hash, len), (BlobHash::of(&bytes), 3_500_001));
    let (mut file, size) = store.open_blob(&hash).await.unwrap();
    let mut read = Vec::new();
    file.read_to_end(&mut read).await.unwrap();
    assert!(read == bytes && size == len);
    assert_eq!(store.verify(&hash).await.unwrap(), len);
    let name = hash.to_string();
    assert_eq!(files_below(folder.path()), [format!("blobs/{}/{name}", &name[..2])]);
    let mode = store.path(&hash).metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o222, 0, "nobody may write to a blob");
}

#[tokio::test]
async fn large_and_empty_pieces_and_blobs() {
    let (_folder, store) = store().await;
    let bytes = noise(5 << 20);
    let (hash, _) =
        store.put_stream(None, u64::MAX, pieces([&bytes[..3 << 20], &[], &bytes[3 << 20..]])).await.unwrap();
    assert_eq!(hash, BlobHash::of(&bytes));
    let empty = store.put_bytes(Vec::new()).await.unwrap();
    assert_eq!((empty, store.size(&empty).await.unwrap()), (BlobHash::of(b""), Some(0)));
}

#[tokio::test]
async fn wrong_bytes_leave_nothing() {
    let (folder, store) = store().await;
    let expected = BlobHash::of(b"right");
    let error = store.put_stream(Some(expected), 100, pieces([&b"wrong"[..]])).await.unwrap_err();
    assert!(matches!(error, BlobError::Mismatch { expected: e, .. } if e == expected), "{error}");
    let error = store.put_stream(None, 10, pieces([&[0; 6][..], &[0; 6]])).await.unwrap_err();
    assert!(matches!(error, BlobError::TooLarge { limit: 10 }), "{error}");
    let error = store.put_stream(None, 1 << 30, breaking(&noise(2 << 20))).await.unwrap_err();
    assert!(matches!(error, BlobError::Stream(_)), "{error}");
    assert_eq!(files_below(folder.path()), Vec::<String>::new());
}

#[tokio::test]
async fn an_aborted_put_leaves_nothing() {
    let (folder, store) = store().await;
    let bytes = noise(2 << 20);
    let stream = pieces([&bytes[..]]).chain(futures_util::stream::pending());
    let mut put = Box::pin(store.put_stream(None, u64::MAX, stream));
    // Until the draft is on the disk.
    while files_below(folder.path()).is_empty() {
        assert!((&mut put).now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    drop(put);
    while !files_below(folder.path()).is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn putting_again_checks_and_writes_nothing() {
    let (_folder, store) = store().await;
    let hash = store.put_bytes(&b"kiln"[..]).await.unwrap();
    let file = || std::os::unix::fs::MetadataExt::ino(&store.path(&hash).metadata().unwrap());
    let before = file();
    assert_eq!(store.put_bytes(&b"kiln"[..]).await.unwrap(), hash);
    let again = store.put_stream(Some(hash), 100, pieces([&b"ki"[..], b"ln"])).await.unwrap();
    assert_eq!(again, (hash, 4));
    let error = store.put_stream(Some(hash), 100, pieces([&b"lnki"[..]])).await.unwrap_err();
    assert!(matches!(error, BlobError::Mismatch { .. }), "{error}");
    assert_eq!(file(), before);
}

#[tokio::test]
async fn a_damaged_blob_is_found() {
    let (_folder, store) = store().await;
    let hash = store.put_bytes(&b"kiln"[..]).await.unwrap();
    std::fs::remove_file(store.path(&hash)).unwrap();
    std::fs::write(store.path(&hash), b"kil").unwrap();
    let error = store.verify(&hash).await.unwrap_err();
    assert!(matches!(error, BlobError::Mismatch { .. }), "{error}");
    let error = store.put_stream(Some(hash), 100, pieces([&b"kiln"[..]])).await.unwrap_err();
    assert!(matches!(error, BlobError::Damaged(_)), "{error}");
    store.put_stream(Some(hash), 100, pieces([&b"kiln"[..]])).await.unwrap();
    store.verify(&hash).await.unwrap();
}

#[tokio::test]
async fn files_are_copied_or_moved_in() {
    let (folder, store) = store().await;
    let copied = folder.path().join("copied");
    let moved = folder.path().join("moved");
    std::fs::write(&copied, noise(300_000)).unwrap();
    std::fs::write(&moved, noise(200_000)).unwrap();
    let (a, len) = store.put_file(&copied, PutMode::Copy).await.unwrap();
    assert_eq!((a, len), (BlobHash::of(&noise(300_000)), 300_000));
    let (b, _) = store.put_file(&moved, PutMode::Move).await.unwrap();
    assert!(copied.exists() && !moved.exists());
    store.verify(&b).await.unwrap();
    // A second time, the file goes and the blob stays.
    store.put_file(&copied, PutMode::Move).await.unwrap();
    assert!(!copied.exists());
    let mut all: Vec<_> = store.list().await.unwrap();
    all.sort_by_key(|(_, len)| *len);
    assert_eq!(all, [(b, 200_000), (a, 300_000)]);
}

#[tokio::test]
async fn deleting_and_not_finding() {
    let (_folder, store) = store().await;
    let hash = store.put_bytes(&b"kiln"[..]).await.unwrap();
    let (mut open, _) = store.open_blob(&hash).await.unwrap();
    assert!(store.delete(&hash).await.unwrap() && !store.delete(&hash).await.unwrap());
    let mut text = String::new();
    open.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "kiln", "a download goes on while its blob is deleted");
    assert!(matches!(store.open_blob(&hash).await, Err(BlobError::NotFound(_))));
    assert!(matches!(store.verify(&hash).await, Err(BlobError::NotFound(_))));
    assert!(!store.contains(&hash).await.unwrap());
}

#[tokio::test]
async fn many_at_once_also_of_the_same() {
    let (folder, store) = store().await;
    let puts = (0..200_u32).map(|n| {
        let store = store.clone();
        tokio::spawn(async move { store.put_bytes(noise(1000 + n as usize % 50)).await.unwrap() })
    });
    for put in puts.collect::<Vec<_>>() {
        store.verify(&put.await.unwrap()).await.unwrap();
    }
    assert_eq!(files_below(folder.path()).len(), 50);
}

#[tokio::test]
async fn a_full_disk_is_said_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let Some(_disk) = kiln_testkit::SmallDisk::mount(folder.path(), 1) else { return };
    let store = BlobStore::open(folder.path(), Durability::Durable).await.unwrap();
    let bytes = noise(4 << 20);
    let error = store.put_stream(None, u64::MAX, pieces(bytes.chunks(1 << 16))).await.unwrap_err();
    assert!(matches!(error, BlobError::NoSpace), "{error}");
    assert_eq!(files_below(folder.path()), Vec::<String>::new());
    store.put_bytes(&b"small ones still fit"[..]).await.unwrap();
}
