//! Blobs that are collected, and those that stay.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use kiln_blobs::{BlobStore, Durability, FreedSpace, StreamError, Uploads};
use kiln_types::BlobHash;

use crate::finish;

fn far() -> SystemTime {
    SystemTime::now() + Duration::from_secs(1000)
}

async fn fresh() -> (tempfile::TempDir, BlobStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = BlobStore::open(folder.path(), Durability::Ephemeral).await.unwrap();
    (folder, store)
}

#[tokio::test]
async fn only_what_is_neither_needed_nor_promised_goes() {
    let (_folder, store) = fresh().await;
    let needed = store.put_bytes("needed").await.unwrap();
    let old = store.put_bytes("forgotten").await.unwrap();
    let promised = store.put_bytes("promised").await.unwrap();
    let again = store.put_bytes("put again").await.unwrap();
    let since = SystemTime::now();
    assert_eq!(store.promise(&promised).await.unwrap(), Some(8));
    store.put_bytes("put again").await.unwrap();
    let would = store.collectable(move |hash| *hash == needed, since).await.unwrap();
    assert_eq!(would, FreedSpace { blobs: 1, bytes: 9 });
    assert!(store.contains(&old).await.unwrap());
    assert_eq!(store.collect(move |hash| *hash == needed, since).await.unwrap(), would);
    for (hash, there) in [(needed, true), (old, false), (promised, true), (again, true)] {
        assert_eq!(store.contains(&hash).await.unwrap(), there, "{hash}");
    }
    assert_eq!(store.promise(&old).await.unwrap(), None);
    assert_eq!(store.collect(|_| false, far()).await.unwrap().blobs, 3);
    assert!(store.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_finished_upload_names_its_blob_until_it_expires() {
    let (folder, store) = fresh().await;
    let uploads = Uploads::open(folder.path(), store.clone(), 1 << 20).await.unwrap();
    let id = uploads.create("a", None).await.unwrap();
    let piece = futures_util::stream::iter([Ok::<_, StreamError>(bytes::Bytes::from_static(b"abc"))]);
    uploads.append(id, 0, piece).await.unwrap();
    assert!(uploads.finished(SystemTime::UNIX_EPOCH).await.unwrap().is_empty());
    let (hash, _) = finish(&uploads, id).await.unwrap();
    assert_eq!(
        (uploads.finished(SystemTime::UNIX_EPOCH).await.unwrap(), hash),
        (vec![hash], BlobHash::of(b"abc"))
    );
    assert_eq!(uploads.expirable(far()).await.unwrap(), 1);
    assert_eq!(uploads.expire(far()).await.unwrap(), 1);
    assert!(uploads.finished(SystemTime::UNIX_EPOCH).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_promised_during_a_collection_is_there_after_it() {
    let (_folder, store) = fresh().await;
    let done = Arc::new(AtomicBool::new(false));
    let freed = Arc::new(AtomicU64::new(0));
    let collecting = tokio::spawn({
        let (store, done, freed) = (store.clone(), done.clone(), freed.clone());
        async move {
            while !done.load(Ordering::Relaxed) {
                // As if the promise were over at once for all that is older than this very moment.
                let went = store.collect(|_| false, SystemTime::now()).await.unwrap();
                freed.fetch_add(went.blobs, Ordering::Relaxed);
            }
        }
    });
    let (mut kept, mut lost) = (0, 0);
    let started = Instant::now();
    for turn in 0_u64.. {
        // However the two threads happen to take turns: until blobs were collected under the promises.
        if turn >= 2000 && freed.load(Ordering::Relaxed) > 0 && lost > 0 {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(120), "nothing was collected: nothing was tested");
        let bytes = format!("blob {}", turn % 7);
        let hash = BlobHash::of(bytes.as_bytes());
        // The one who asks and the one who puts get a file that can be opened after the answer, or know that it
        // is not there. The collector's "now" may have passed by then: only a renewed time may save it.
        match store.promise(&hash).await.unwrap() {
            Some(len) => {
                assert_eq!(len, bytes.len() as u64);
                kept += 1;
            }
            None => {
                assert_eq!(store.put_bytes(bytes).await.unwrap(), hash);
                lost += 1;
            }
        }
    }
    done.store(true, Ordering::Relaxed);
    collecting.await.unwrap();
    let freed = freed.load(Ordering::Relaxed);
    assert!(freed <= lost, "{freed} of {lost}, kept {kept}");
}
