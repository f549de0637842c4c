//! The size-limited cache.

use std::fs::File;
use std::time::{Duration, SystemTime};

use kiln_blobs::Cache;
use kiln_types::BlobHash;

use crate::{noise, pieces};

async fn put(cache: &Cache, bytes: &[u8]) -> BlobHash {
    let hash = BlobHash::of(bytes);
    cache.put_stream(hash, u64::MAX, pieces([bytes])).await.unwrap();
    hash
}

/// Three blobs of 1,000 bytes.
fn three() -> [Vec<u8>; 3] {
    let bytes = noise(3000);
    [bytes[..1000].to_vec(), bytes[1000..2000].to_vec(), bytes[2000..].to_vec()]
}

#[tokio::test]
async fn what_was_used_longest_ago_goes() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path(), 2500).await.unwrap();
    let [a, b, c] = three();
    let (a, b) = (put(&cache, &a).await, put(&cache, &b).await);
    assert!(cache.get(&a).await.unwrap().is_some());
    let c = put(&cache, &c).await;
    assert!(cache.get(&b).await.unwrap().is_none(), "b was used longest ago");
    let path = cache.get(&a).await.unwrap().unwrap();
    assert_eq!(path.metadata().unwrap().len(), 1000);
    assert!(cache.get(&c).await.unwrap().is_some());
    assert_eq!(cache.usage().used, 2000);
}

#[tokio::test]
async fn pinned_blobs_stay_and_the_cache_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path(), 1500).await.unwrap();
    let [a, b, c] = three();
    let hashes = [&a, &b].map(|bytes| BlobHash::of(bytes));
    let pin = cache.pin(hashes);
    let twice = cache.pin(hashes);
    put(&cache, &a).await;
    put(&cache, &b).await;
    let usage = cache.usage();
    assert_eq!((usage.used, usage.pinned, usage.max), (2000, 2000, 1500));
    drop(twice);
    // Another one finds no room, and goes again at once.
    let c = put(&cache, &c).await;
    assert!(cache.get(&c).await.unwrap().is_none());
    assert!(cache.get(&hashes[0]).await.unwrap().is_some());
    drop(pin);
    assert_eq!(cache.usage().pinned, 0);
    put(&cache, b"more").await;
    assert!(cache.usage().used <= 1500);
}

#[tokio::test]
async fn the_order_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b, c] = three();
    let cache = Cache::open(folder.path(), 10_000).await.unwrap();
    let hashes = [put(&cache, &a).await, put(&cache, &b).await, put(&cache, &c).await];
    for (hash, age) in hashes.iter().zip([10, 30, 20]) {
        let file = File::open(cache.get(hash).await.unwrap().unwrap()).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
    }
    drop(cache);
    // A smaller limit holds from the start on.
    let cache = Cache::open(folder.path(), 1000).await.unwrap();
    assert_eq!(cache.usage().used, 1000);
    assert!(cache.get(&hashes[0]).await.unwrap().is_some(), "the youngest stays");
}

#[tokio::test]
async fn a_blob_that_other_hands_removed_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path(), 10_000).await.unwrap();
    let hash = put(&cache, b"kiln").await;
    std::fs::remove_file(cache.get(&hash).await.unwrap().unwrap()).unwrap();
    assert!(cache.get(&hash).await.unwrap().is_none());
    assert_eq!(cache.usage().used, 0);
    put(&cache, b"kiln").await;
    assert!(cache.get(&hash).await.unwrap().is_some());
}
