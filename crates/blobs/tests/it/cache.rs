//! The size-limited cache.

use std::collections::BTreeMap;
use std::fs::File;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::Stream;
use kiln_blobs::{BlobError, Cache, StreamError};
use kiln_chunks::{Frame, Recipe, pack};
use kiln_types::BlobHash;
use proptest::prelude::*;

use crate::{chunks, files_below, noise, pieces};

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

/// The answer to a question for these chunks.
async fn bring(
    frames: &[Frame],
    asked: Vec<BlobHash>,
) -> Result<impl Stream<Item = Result<Bytes, StreamError>> + Send + use<>, StreamError> {
    let asked: Vec<_> = frames.iter().filter(|frame| asked.contains(&frame.chunk().hash)).cloned().collect();
    let body = chunks::wire(&asked);
    let cut: Vec<_> = body.chunks(1000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    Ok(futures_util::stream::iter(cut))
}

/// The next version of a file: a few bytes in its middle are other ones.
fn saved_again(mut bytes: Vec<u8>) -> (Vec<u8>, BlobHash, Recipe, Vec<Frame>) {
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    chunks::cut(bytes)
}

#[tokio::test]
async fn a_file_is_assembled_from_cached_chunks_and_fetched_ones() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path(), 10 << 20).await.unwrap();
    let (bytes, hash, recipe, frames) = chunks::file(1_000_000, 1);
    assert_eq!(cache.lacking(&recipe).len(), recipe.chunks.len());
    let fetched =
        cache.assemble(hash, recipe.clone(), 1_000_000, |asked| bring(&frames, asked)).await.unwrap();
    assert_eq!(fetched, chunks::wire(&frames).len() as u64);
    let (after, after_hash, after_recipe, after_frames) = saved_again(bytes.clone());
    drop(cache);
    let cache = Cache::open(folder.path(), 10 << 20).await.unwrap();
    assert!(cache.lacking(&after_recipe).len() <= 2, "also after a restart it is known what is there");
    let fetched = cache
        .assemble(after_hash, after_recipe, 1_000_000, |asked| bring(&after_frames, asked))
        .await
        .unwrap();
    assert!((1..140_000).contains(&fetched), "{fetched} bytes were fetched");
    for (hash, bytes) in [(hash, bytes), (after_hash, after)] {
        assert!(std::fs::read(cache.get(&hash).await.unwrap().unwrap()).unwrap() == bytes);
    }
    assert_eq!(cache.usage().used, 2_000_000);
}

#[tokio::test]
async fn many_small_files_come_as_chunks_and_what_is_wrong_stops_only_what_follows() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path(), 10 << 20).await.unwrap();
    let files: Vec<Vec<u8>> = (0..300_usize).map(|n| noise(1000 + n)).collect();
    let frames: Vec<Frame> = files.iter().map(|bytes| pack(bytes)).collect();
    let wanted: BTreeMap<_, _> =
        files.iter().map(|bytes| (BlobHash::of(bytes), bytes.len() as u64)).collect();
    let wire = chunks::wire(&frames);
    // The last one is damaged on its way, and another is of another length than was said.
    let mut damaged = wire.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let told = cache.put_singles(wanted.clone(), pieces(damaged.chunks(999))).await;
    assert!(matches!(told, Err(BlobError::Frame(_))), "{told:?}");
    let last = BlobHash::of(&files[299]);
    assert!(!cache.contains(&last) && cache.contains(&BlobHash::of(&files[298])));
    let told = cache.put_singles(BTreeMap::from([(last, 1298)]), pieces([&wire[..]])).await;
    assert!(matches!(told, Err(BlobError::WrongLength(hash)) if hash == last), "{told:?}");
    assert!(!cache.contains(&last));
    assert_eq!(cache.put_singles(BTreeMap::from([(last, 1299)]), pieces([&wire[..]])).await.unwrap(), 1);
    let cache = Cache::open(folder.path(), 10 << 20).await.unwrap();
    for bytes in &files {
        let path = cache.get(&BlobHash::of(bytes)).await.unwrap().unwrap();
        assert!(std::fs::read(path).unwrap() == *bytes);
    }
    assert_eq!(files_below(folder.path()).len(), 300, "no drafts are left");
    // A cached file that is one chunk lends it to others.
    assert!(cache.lacking(&Recipe { chunks: vec![frames[0].chunk()] }).is_empty());
}

#[tokio::test]
async fn a_damaged_cached_file_is_dropped_and_its_chunks_are_fetched() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path(), 10 << 20).await.unwrap();
    let (bytes, hash, recipe, frames) = chunks::file(500_000, 2);
    cache.assemble(hash, recipe, u64::MAX, |asked| bring(&frames, asked)).await.unwrap();
    let path = cache.get(&hash).await.unwrap().unwrap();
    let mut damaged = bytes.clone();
    damaged[400_000] ^= 1;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, damaged).unwrap();
    let (after, after_hash, after_recipe, after_frames) = saved_again(bytes);
    cache.assemble(after_hash, after_recipe, u64::MAX, |asked| bring(&after_frames, asked)).await.unwrap();
    assert!(std::fs::read(cache.get(&after_hash).await.unwrap().unwrap()).unwrap() == after);
    assert!(cache.get(&hash).await.unwrap().is_none());
    assert_eq!(files_below(folder.path()).len(), 2, "the new file and the list of its chunks");
}

#[tokio::test]
async fn what_leaves_the_cache_takes_its_list_along() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path(), 500_000).await.unwrap();
    let (_, hash, recipe, frames) = chunks::file(400_000, 3);
    let pin = cache.pin([hash]);
    cache.assemble(hash, recipe.clone(), u64::MAX, |asked| bring(&frames, asked)).await.unwrap();
    assert!(cache.lacking(&recipe).is_empty());
    put(&cache, &noise(200_000)).await;
    assert!(cache.lacking(&recipe).is_empty(), "it is pinned");
    drop(pin);
    put(&cache, &noise(300_000)).await;
    assert_eq!(cache.lacking(&recipe).len(), recipe.chunks.len());
    assert_eq!(files_below(folder.path()).len(), 1);
}

#[tokio::test]
async fn an_assembly_that_fails_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path(), 10 << 20).await.unwrap();
    let (_, hash, recipe, frames) = chunks::file(300_000, 4);
    let fails = async |hash, limit, frames: &[Frame]| {
        cache.assemble(hash, recipe.clone(), limit, |asked| bring(frames, asked)).await.unwrap_err()
    };
    assert!(matches!(fails(hash, u64::MAX, &frames[1..]).await, BlobError::Lacking { count: 1 }));
    assert!(matches!(fails(hash, 299_999, &frames).await, BlobError::TooLarge { limit: 299_999 }));
    let other = BlobHash::of(b"other");
    assert!(matches!(
        fails(other, u64::MAX, &frames).await,
        BlobError::Mismatch { expected, found } if expected == other && found == hash
    ));
    assert!(files_below(folder.path()).is_empty());
    assert!(cache.get(&hash).await.unwrap().is_none());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

    /// Versions of a file come one after another into a cache with room for about two.
    #[test]
    fn every_version_is_assembled_right(
        edits in prop::collection::vec((0_usize..300_000, 0_usize..300, 0_usize..9000, any::<u8>()), 1..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let cache = Cache::open(folder.path(), 700_000).await.unwrap();
            let (mut bytes, ..) = chunks::file(300_000, 5);
            for (at, cut, grown, byte) in edits {
                let at = 8 + at % (bytes.len() - 500);
                bytes.splice(at..at + cut, vec![byte; grown]);
                let (now, hash, recipe, frames) = saved_again(bytes.clone());
                let size = now.len() as u64;
                cache.assemble(hash, recipe, size, |asked| bring(&frames, asked)).await.unwrap();
                assert!(std::fs::read(cache.get(&hash).await.unwrap().unwrap()).unwrap() == now);
                assert!(cache.usage().used <= 700_000);
            }
        });
    }
}
