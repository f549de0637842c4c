//! Chunks, recipes, and blobs in either form.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use kiln_blobs::{BlobError, BlobStore, Blobs, ChunkStore, Durability};
use kiln_chunks::{Chunk, Frame, FrameDecoder, Recipe, pack, split};
use kiln_testkit::SmallDisk;
use kiln_types::BlobHash;

use crate::{breaking, files_below, noise, pieces};

pub async fn open(root: &Path, durability: Durability) -> Blobs {
    let whole = BlobStore::open(root, durability).await.unwrap();
    Blobs::new(whole, Some(ChunkStore::open(root, durability).await.unwrap()))
}

pub fn far() -> SystemTime {
    SystemTime::now() + Duration::from_secs(1000)
}

pub fn wire(frames: &[Frame]) -> Vec<u8> {
    let mut wire = Vec::new();
    for frame in frames {
        frame.write_to(&mut wire).unwrap();
    }
    wire
}

/// A file of some chunks, its recipe, and its frames.
pub fn file(len: usize, seed: u64) -> (Vec<u8>, BlobHash, Recipe, Vec<Frame>) {
    let mut bytes = noise(len);
    bytes[..8].copy_from_slice(b"BLENDER-");
    for at in (8..len - 8).step_by(50_000) {
        bytes[at..at + 8].copy_from_slice(&seed.to_le_bytes());
    }
    cut(bytes)
}

/// A file with its hash, its recipe, and its frames.
pub fn cut(bytes: Vec<u8>) -> (Vec<u8>, BlobHash, Recipe, Vec<Frame>) {
    let mut frames = Vec::new();
    let done = split(&bytes[..], None, |_, piece| {
        frames.push(pack(piece));
        Ok(())
    })
    .unwrap();
    (bytes, done.hash, done.recipe, frames)
}

pub fn hashes(recipe: &Recipe) -> Vec<BlobHash> {
    recipe.chunks.iter().map(|chunk| chunk.hash).collect()
}

pub async fn read(blobs: &Blobs, hash: &BlobHash) -> Vec<u8> {
    let size = blobs.size(hash).await.unwrap().unwrap();
    let all: Vec<Bytes> = blobs.stream(hash, 0..size).await.unwrap().try_collect().await.unwrap();
    all.concat()
}

#[tokio::test]
async fn what_is_missing_is_sent_and_makes_a_blob() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = open(folder.path(), Durability::Durable).await;
    let chunks = blobs.chunks().unwrap();
    let (bytes, hash, recipe, frames) = file(1_000_000, 1);
    let all = hashes(&recipe);
    assert_eq!(chunks.missing(all.clone()).await.unwrap(), all);
    assert!(matches!(
        chunks.put_recipe(hash, recipe.clone(), u64::MAX).await,
        Err(BlobError::Lacking { count }) if count == all.len()
    ));
    let put = chunks.put(pieces(wire(&frames[..5]).chunks(700))).await.unwrap();
    assert_eq!((put.stored, put.known), (5, 0));
    assert_eq!(chunks.missing(all.clone()).await.unwrap(), all[5..]);
    let put = chunks.put(pieces([&wire(&frames)[..]])).await.unwrap();
    assert_eq!((put.stored, put.known), (all.len() as u64 - 5, 5));
    assert!(matches!(
        chunks.put_recipe(BlobHash::of(b"other"), recipe.clone(), u64::MAX).await,
        Err(BlobError::Mismatch { found, .. }) if found == hash
    ));
    assert!(matches!(
        chunks.put_recipe(hash, recipe.clone(), 999_999).await,
        Err(BlobError::TooLarge { limit: 999_999 })
    ));
    assert!(!blobs.contains(&hash).await.unwrap());
    chunks.put_recipe(hash, recipe.clone(), 1_000_000).await.unwrap();
    for blobs in [blobs, open(folder.path(), Durability::Durable).await] {
        assert_eq!(blobs.size(&hash).await.unwrap(), Some(1_000_000));
        assert!(read(&blobs, &hash).await == bytes);
        assert_eq!(blobs.list().await.unwrap(), [(hash, 1_000_000)]);
        assert_eq!(blobs.chunks().unwrap().recipe(&hash).await.unwrap(), Some(recipe.clone()));
        let again = blobs.put_stream(Some(hash), u64::MAX, pieces(bytes.chunks(9999))).await.unwrap();
        assert_eq!(again, (hash, 1_000_000));
        assert!(files_below(&folder.path().join("blobs")).is_empty(), "one form is enough");
    }
}

/// The frames of a file whose first and last thirds are the same, once each; they come in any order, some before the
/// recipe, some not at all until the end.
#[tokio::test]
async fn an_awaited_blob_is_right_whatever_the_order_of_its_chunks() {
    let third = noise(400_000);
    let (bytes, hash, recipe, mut frames) = cut([&b"BLENDER-"[..], &third, &noise(300_000), &third].concat());
    for seed in 0..24 {
        let folder = tempfile::tempdir().unwrap();
        let blobs = open(folder.path(), Durability::Ephemeral).await;
        let chunks = blobs.chunks().unwrap();
        // In order, from the back, and shuffled.
        match seed {
            0 => {}
            1 => frames.reverse(),
            _ => frames
                .sort_by_key(|frame| BlobHash::of(&[frame.chunk().hash.as_bytes(), &[seed][..]].concat())),
        }
        let before = usize::from(seed) % 5;
        chunks.put(pieces([&wire(&frames[..before])[..]])).await.unwrap();
        let told = chunks.put_recipe(hash, recipe.clone(), u64::MAX).await;
        assert!(matches!(told, Err(BlobError::Lacking { .. })), "{told:?}");
        let mut wrong = recipe.clone();
        wrong.chunks.swap(0, 1);
        let other = BlobHash::of(&[seed]);
        assert!(chunks.put_recipe(other, wrong.clone(), u64::MAX).await.is_err());
        for part in frames[before..].chunks(1 + usize::from(seed)) {
            chunks.put(pieces([&wire(part)[..]])).await.unwrap();
        }
        let told = chunks.put_recipe(other, wrong, u64::MAX).await;
        assert!(matches!(told, Err(BlobError::Mismatch { .. })), "{told:?}");
        chunks.put_recipe(hash, recipe.clone(), u64::MAX).await.unwrap();
        assert!(read(&blobs, &hash).await == bytes);
    }
}

#[tokio::test]
async fn an_awaited_blob_is_not_read_again() {
    for awaited in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let blobs = open(folder.path(), Durability::Ephemeral).await;
        let chunks = blobs.chunks().unwrap();
        let (_, hash, recipe, frames) = file(1_000_000, 3);
        if awaited {
            chunks.put_recipe(hash, recipe.clone(), u64::MAX).await.unwrap_err();
        }
        for part in [&frames[7..], &frames[..7]] {
            chunks.put(pieces([&wire(part)[..]])).await.unwrap();
        }
        for pack in fs::read_dir(folder.path().join("packs")).unwrap() {
            fs::remove_file(pack.unwrap().path()).unwrap();
        }
        let told = chunks.put_recipe(hash, recipe, u64::MAX).await;
        assert_eq!(told.is_ok(), awaited, "{told:?}");
    }
}

#[tokio::test]
async fn a_chunk_is_a_blob_and_so_is_nothing_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = open(folder.path(), Durability::Durable).await;
    let chunks = blobs.chunks().unwrap();
    let (small, other) = (noise(3000), noise(5000));
    let frames = [pack(&small), pack(&other)];
    let [hash, gone] = frames.each_ref().map(|frame| frame.chunk().hash);
    assert_eq!(blobs.size(&hash).await.unwrap(), None);
    chunks.put(pieces([&wire(&frames)[..]])).await.unwrap();
    let recipe = Recipe { chunks: vec![frames[0].chunk()] };
    let empty = BlobHash::of(b"");
    // It need not be said of what it is made; nothing comes of saying it, but what is wrong is told.
    chunks.put_recipe(hash, recipe.clone(), u64::MAX).await.unwrap();
    chunks.put_recipe(empty, Recipe::default(), u64::MAX).await.unwrap();
    assert!(files_below(&folder.path().join("recipes")).is_empty());
    for (name, recipe) in [(gone, &recipe), (hash, &Recipe::default()), (empty, &recipe)] {
        let told = chunks.put_recipe(name, recipe.clone(), u64::MAX).await;
        assert!(matches!(told, Err(BlobError::Mismatch { .. })), "{told:?}");
    }
    let long = Recipe { chunks: vec![Chunk { len: 3001, ..frames[0].chunk() }] };
    assert!(matches!(chunks.put_recipe(hash, long, u64::MAX).await, Err(BlobError::WrongLength(_))));
    blobs.collect(move |needed| *needed == hash, far()).await.unwrap();
    for blobs in [blobs, open(folder.path(), Durability::Durable).await] {
        assert_eq!(blobs.size(&gone).await.unwrap(), None, "nobody needs it");
        assert_eq!(blobs.promise(&gone).await.unwrap(), None);
        assert!(matches!(blobs.reader(&gone).await, Err(BlobError::NotFound(_))));
        for (hash, bytes, recipe) in [(hash, &small[..], &recipe), (empty, &[], &Recipe::default())] {
            assert_eq!(blobs.promise(&hash).await.unwrap(), Some(bytes.len() as u64));
            assert!(read(&blobs, &hash).await == bytes);
            let mut reader = blobs.reader(&hash).await.unwrap();
            let mut found = Vec::new();
            reader.read_to_end(&mut found).unwrap();
            assert!(found == bytes);
            assert_eq!(blobs.chunks().unwrap().recipe(&hash).await.unwrap().as_ref(), Some(recipe));
            let put = blobs.put_stream(Some(hash), u64::MAX, pieces([bytes])).await.unwrap();
            assert_eq!(put, (hash, bytes.len() as u64));
        }
        assert!(files_below(&folder.path().join("blobs")).is_empty());
    }
}

#[tokio::test]
async fn a_made_up_hash_that_begins_as_a_chunks_does_harms_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = open(folder.path(), Durability::Ephemeral).await;
    let chunks = blobs.chunks().unwrap();
    let (bytes, hash, recipe, frames) = file(300_000, 1);
    chunks.put(pieces([&wire(&frames)[..]])).await.unwrap();
    chunks.put_recipe(hash, recipe.clone(), u64::MAX).await.unwrap();
    let mut made_up = *recipe.chunks[0].hash.as_bytes();
    made_up[31] ^= 1;
    let made_up = BlobHash::from_bytes(made_up);
    let mut lying = recipe.clone();
    lying.chunks[0].hash = made_up;
    assert!(chunks.put_recipe(BlobHash::of(b"lie"), lying, u64::MAX).await.is_err());
    let mut reader = blobs.reader(&made_up).await.unwrap();
    assert!(reader.read_to_end(&mut Vec::new()).is_err());
    assert!(read(&blobs, &hash).await == bytes);
    assert!(chunks.missing(hashes(&recipe)).await.unwrap().is_empty());
}

#[tokio::test]
async fn frames_go_out_as_they_lie() {
    let folder = tempfile::tempdir().unwrap();
    let chunks = ChunkStore::open(folder.path(), Durability::Ephemeral).await.unwrap();
    let (_, _, recipe, frames) = file(3_000_000, 2);
    chunks.put(pieces([&wire(&frames)[..]])).await.unwrap();
    let mut wanted = frames.clone();
    wanted.reverse();
    wanted.extend(frames.iter().cloned());
    let order = wanted.iter().map(|frame| frame.chunk().hash).collect();
    let mut decoder = FrameDecoder::default();
    let mut stream = std::pin::pin!(chunks.frames(order).await.unwrap());
    let mut found = Vec::new();
    while let Some(bytes) = stream.next().await {
        decoder.push(&bytes.unwrap());
        while let Some(frame) = decoder.take().unwrap() {
            found.push(frame);
        }
    }
    decoder.finish().unwrap();
    assert!(found == wanted);
    let mut lacking = hashes(&recipe);
    lacking.push(BlobHash::of(b"not there"));
    assert!(matches!(chunks.frames(lacking).await.err(), Some(BlobError::Lacking { count: 1 })));
}

#[tokio::test]
async fn what_came_whole_before_a_break_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = open(folder.path(), Durability::Durable).await;
    let chunks = blobs.chunks().unwrap();
    let (_, _, recipe, frames) = file(600_000, 3);
    let all = hashes(&recipe);
    let body = wire(&frames[..8]);
    assert!(matches!(chunks.put(breaking(&body[..body.len() - 1])).await, Err(BlobError::Stream(_))));
    assert_eq!(chunks.missing(all.clone()).await.unwrap(), all[7..]);
    assert!(matches!(chunks.put(pieces([&body[..body.len() - 1]])).await, Err(BlobError::Frame(_))));
    let mut lies = wire(&frames[7..12]);
    let last = lies.len() - 1;
    lies[last] ^= 1;
    assert!(matches!(chunks.put(pieces([&lies[..]])).await, Err(BlobError::Frame(_))));
    assert_eq!(chunks.missing(all.clone()).await.unwrap(), all[11..]);
    // Also where the request is simply dropped.
    let large = noise(3 << 20);
    let large: Vec<_> = large.chunks(1 << 20).map(pack).collect();
    let asked: Vec<_> = large.iter().map(|frame| frame.chunk().hash).collect();
    let (rest, large) = (wire(&frames[11..14]), wire(&large));
    let endless = pieces([&rest[..], &large]).chain(futures_util::stream::pending());
    assert!(tokio::time::timeout(Duration::from_millis(500), chunks.put(endless)).await.is_err());
    tokio::time::timeout(Duration::from_secs(20), async {
        while !chunks.missing(asked.clone()).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("what had been taken in is kept");
}

#[tokio::test]
async fn a_recipe_that_lies_about_a_length_harms_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = open(folder.path(), Durability::Ephemeral).await;
    let chunks = blobs.chunks().unwrap();
    let (bytes, hash, recipe, frames) = file(300_000, 4);
    chunks.put(pieces([&wire(&frames)[..]])).await.unwrap();
    chunks.put_recipe(hash, recipe.clone(), u64::MAX).await.unwrap();
    let mut lie = recipe.clone();
    lie.chunks[1].len -= 1;
    let error = chunks.put_recipe(hash, lie, u64::MAX).await.unwrap_err();
    assert!(matches!(error, BlobError::WrongLength(_)), "{error}");
    assert!(read(&blobs, &hash).await == bytes);
}

#[tokio::test]
async fn parts_of_a_blob_are_read_from_either_form() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = open(folder.path(), Durability::Ephemeral).await;
    let (bytes, hash, recipe, _) = file(1_500_000, 5);
    assert_eq!(blobs.whole().put_bytes(bytes.clone()).await.unwrap(), hash);
    let mut open_before = blobs.reader(&hash).await.unwrap();
    for split in [false, true] {
        if split {
            let stored = blobs.chunks().unwrap().convert(blobs.whole(), &hash).await.unwrap();
            assert!(stored > 0);
            assert_eq!(blobs.chunks().unwrap().recipe(&hash).await.unwrap(), Some(recipe.clone()));
        }
        assert_eq!(files_below(&folder.path().join("blobs")).is_empty(), split);
        for range in [0..1_500_000, 0..1, 1_499_999..1_500_000, 7..7, 400_000..1_100_001] {
            let part: Vec<Bytes> =
                blobs.stream(&hash, range.clone()).await.unwrap().try_collect().await.unwrap();
            assert!(part.concat() == bytes[range.start as usize..range.end as usize], "{range:?}");
        }
        let mut reader = blobs.reader(&hash).await.unwrap();
        for at in [1_400_000, 3, 700_000, 699_990] {
            let mut some = [0; 5000];
            reader.seek(SeekFrom::Start(at)).unwrap();
            reader.read_exact(&mut some).unwrap();
            assert!(some == bytes[at as usize..][..5000]);
        }
        assert_eq!(reader.seek(SeekFrom::End(10)).unwrap(), 1_500_010);
        assert_eq!(reader.read(&mut [0; 9]).unwrap(), 0);
        assert!(blobs.read(&hash, 1_500_000).await.unwrap() == bytes);
        assert!(matches!(blobs.read(&hash, 1_499_999).await, Err(BlobError::TooLarge { .. })));
    }
    let mut all = Vec::new();
    open_before.read_to_end(&mut all).unwrap();
    assert!(all == bytes, "who had the whole file open reads on");
    assert!(blobs.delete(&hash).await.unwrap());
    assert!(!blobs.contains(&hash).await.unwrap());
    assert!(matches!(blobs.reader(&hash).await, Err(BlobError::NotFound(_))));
}

#[tokio::test]
async fn a_damaged_chunk_is_told_and_can_be_sent_again() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = open(folder.path(), Durability::Ephemeral).await;
    let chunks = blobs.chunks().unwrap();
    let (bytes, hash, recipe, frames) = file(400_000, 6);
    chunks.put(pieces([&wire(&frames)[..]])).await.unwrap();
    chunks.put_recipe(hash, recipe.clone(), u64::MAX).await.unwrap();
    let path =
        folder.path().join(files_below(folder.path()).into_iter().find(|p| p.starts_with("packs")).unwrap());
    let mut stored = fs::read(&path).unwrap();
    let at: usize = frames[..3].iter().map(Frame::len).sum();
    stored[at + 100] ^= 1;
    replace(&path, &stored);
    let error = blobs.read(&hash, u64::MAX).await.unwrap_err();
    assert!(matches!(error, BlobError::Damaged(damaged) if damaged == hash), "{error}");
    assert!(!blobs.contains(&hash).await.unwrap());
    assert_eq!(chunks.missing(hashes(&recipe)).await.unwrap(), [recipe.chunks[3].hash]);
    chunks.put(pieces([&wire(&frames[3..4])[..]])).await.unwrap();
    chunks.put_recipe(hash, recipe, u64::MAX).await.unwrap();
    for blobs in [blobs, open(folder.path(), Durability::Ephemeral).await] {
        assert!(read(&blobs, &hash).await == bytes);
    }
}

fn replace(path: &Path, bytes: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn of_a_torn_pack_what_is_whole_is_kept() {
    let (_, _, recipe, frames) = file(200_000, 7);
    let all = hashes(&recipe);
    let ends: Vec<usize> = frames
        .iter()
        .scan(0, |end, frame| {
            *end += frame.len();
            Some(*end)
        })
        .collect();
    for (name, extra) in [("0000000a", 30), ("0000000a.part", 30), ("0000000a.part", 0)] {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("packs")).unwrap();
        let body = wire(&frames);
        fs::write(folder.path().join("packs").join(name), &body[..ends[2] + extra]).unwrap();
        for _ in 0..2 {
            let chunks = ChunkStore::open(folder.path(), Durability::Durable).await.unwrap();
            assert_eq!(chunks.missing(all.clone()).await.unwrap(), all[3..]);
        }
        assert_eq!(files_below(folder.path()).len(), 1);
    }
}

#[tokio::test]
async fn a_full_disk_is_told_and_what_was_there_stays() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(folder.path(), 6) else { return };
    let root = folder.path().join("data");
    fs::create_dir(&root).unwrap();
    let blobs = open(&root, Durability::Durable).await;
    let chunks = blobs.chunks().unwrap();
    let (bytes, hash, recipe, frames) = file(1_000_000, 8);
    chunks.put(pieces([&wire(&frames)[..]])).await.unwrap();
    disk.fill_but(200_000);
    let (_, other, other_recipe, other_frames) = file(1_000_000, 9);
    let body = wire(&other_frames);
    assert!(matches!(chunks.put(pieces([&body[..]])).await, Err(BlobError::NoSpace)));
    assert!(files_below(&root).iter().all(|path| !path.ends_with(".part")), "nothing is left of it");
    chunks.put_recipe(hash, recipe, u64::MAX).await.unwrap();
    assert!(read(&blobs, &hash).await == bytes);
    disk.make_room();
    chunks.put(pieces([&body[..]])).await.unwrap();
    chunks.put_recipe(other, other_recipe, u64::MAX).await.unwrap();
    drop(blobs);
    assert!(read(&open(&root, Durability::Durable).await, &hash).await == bytes);
}

#[tokio::test]
async fn packs_that_are_mostly_dead_are_rewritten() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = open(folder.path(), Durability::Durable).await;
    let chunks = blobs.chunks().unwrap();
    let size = || -> u64 {
        let packs = folder.path().join("packs");
        fs::read_dir(packs).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
    };
    let (small, small_hash, small_recipe, small_frames) = file(200_000, 10);
    let (_, large_hash, large_recipe, large_frames) = file(3_000_000, 11);
    chunks.put(pieces([&wire(&large_frames)[..], &wire(&small_frames)])).await.unwrap();
    chunks.put_recipe(small_hash, small_recipe.clone(), u64::MAX).await.unwrap();
    chunks.put_recipe(large_hash, large_recipe.clone(), u64::MAX).await.unwrap();
    let mut gone = hashes(&large_recipe);
    gone.retain(|hash| !hashes(&small_recipe).contains(hash));
    let both = move |hash: &BlobHash| *hash == small_hash || *hash == large_hash;
    let before = size();
    assert_eq!(blobs.collect(both, far()).await.unwrap().bytes, 0);
    assert_eq!(size(), before);
    let one = move |hash: &BlobHash| *hash == small_hash;
    let past = SystemTime::now() - Duration::from_secs(60);
    assert_eq!(blobs.collect(one, past).await.unwrap().blobs, 0, "all is promised");
    let would = blobs.collectable(one, far()).await.unwrap();
    assert_eq!(size(), before);
    let freed = blobs.collect(one, far()).await.unwrap();
    assert_eq!((freed.blobs, freed.bytes), (1, before - size()));
    assert!(would.blobs == 1 && would.bytes.abs_diff(freed.bytes) < 10_000, "{would:?} {freed:?}");
    assert!(size() < 300_000);
    for blobs in [blobs, open(folder.path(), Durability::Durable).await] {
        assert!(read(&blobs, &small_hash).await == small);
        assert_eq!(blobs.chunks().unwrap().missing(hashes(&large_recipe)).await.unwrap(), gone);
    }
}
