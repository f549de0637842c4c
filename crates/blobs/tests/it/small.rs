//! Small blobs, which share packs and flushes.

use std::fs;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{FutureExt, StreamExt, stream};
use kiln_blobs::{BlobError, Blobs, Durability};
use kiln_testkit::SmallDisk;
use kiln_types::BlobHash;

use crate::chunks::{far, open, read};
use crate::{files_below, noise};

/// Many small blobs, no two alike.
fn outputs(count: u32, len: usize) -> Vec<(BlobHash, Bytes)> {
    let output = |number: u32| {
        let mut bytes = noise(len);
        bytes[..4].copy_from_slice(&number.to_le_bytes());
        (BlobHash::of(&bytes), bytes.into())
    };
    (0..count).map(output).collect()
}

async fn put_all(blobs: &Blobs, all: &[(BlobHash, Bytes)]) -> Vec<Result<(), BlobError>> {
    join_all(all.iter().map(|(hash, bytes)| blobs.put_bytes(*hash, bytes.clone()))).await
}

#[tokio::test]
async fn small_blobs_come_back_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = open(folder.path(), Durability::Durable).await;
    let mut all: Vec<(BlobHash, Bytes)> = Vec::new();
    for len in [0, 1, 40, 100, 4096, 65_535, 65_536, 65_537] {
        for bytes in [noise(len), vec![7; len]] {
            all.push((BlobHash::of(&bytes), bytes.into()));
        }
    }
    // Twice, at the same time and after each other.
    for _ in 0..2 {
        let twice: Vec<_> = all.iter().chain(&all).cloned().collect();
        put_all(&blobs, &twice).await.into_iter().for_each(Result::unwrap);
        let (_, wrong) = &all[9];
        let told = blobs.put_bytes(BlobHash::of(b"other"), wrong.clone()).await;
        assert!(matches!(told, Err(BlobError::Mismatch { found, .. }) if found == all[9].0));
    }
    let files = files_below(folder.path());
    assert_eq!(files.iter().filter(|name| name.starts_with("blobs/")).count(), 2, "the larger two are files");
    assert_eq!(files.len(), 3, "the others share a pack: {files:?}");
    let stored = fs::metadata(folder.path().join(&files[2])).unwrap().len();
    assert!((135_000..140_000).contains(&stored), "each lies there once, packed: {stored}");
    let mut blobs = blobs;
    for reopened in [false, true] {
        if reopened {
            drop(blobs);
            blobs = open(folder.path(), Durability::Durable).await;
        }
        for (hash, bytes) in &all {
            assert_eq!(blobs.size(hash).await.unwrap(), Some(bytes.len() as u64));
            assert_eq!(blobs.promise(hash).await.unwrap(), Some(bytes.len() as u64));
            assert!(read(&blobs, hash).await == *bytes);
            assert!(blobs.read(hash, 1 << 20).await.unwrap() == bytes);
        }
        assert!(!blobs.contains(&BlobHash::of(b"other")).await.unwrap());
    }
    assert!(
        files_below(folder.path()).iter().all(|name| !name.ends_with(".part")),
        "it ended when it was opened"
    );
}

#[tokio::test]
async fn a_small_blob_is_promised_at_once_and_its_pack_within_a_minute() {
    let folder = tempfile::tempdir().unwrap();
    let all = outputs(2, 4096);
    put_all(&open(folder.path(), Durability::Ephemeral).await, &all)
        .await
        .into_iter()
        .for_each(Result::unwrap);
    // Opening it again ends the pack; once more, it is one of an hour ago.
    drop(open(folder.path(), Durability::Ephemeral).await);
    let [pack] = &files_below(folder.path())[..] else { panic!("one pack") };
    let pack = folder.path().join(pack);
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    fs::File::open(&pack).unwrap().set_modified(hour_ago).unwrap();
    let blobs = open(folder.path(), Durability::Ephemeral).await;
    let time = || fs::metadata(&pack).unwrap().modified().unwrap();
    assert!(time() < SystemTime::now() - Duration::from_secs(3000));
    assert_eq!(blobs.promise(&all[0].0).await.unwrap(), Some(4096));
    assert!(time() > SystemTime::now() - Duration::from_secs(60), "a restart must find the promise");
    // Now the file is young: the next promises wait for nothing.
    for (hash, _) in &all {
        let answer = blobs.promise(hash).now_or_never().expect("a promise in memory needs no other thread");
        assert_eq!(answer.unwrap(), Some(4096));
    }
    blobs.collect(|_| false, SystemTime::now() - Duration::from_secs(60)).await.unwrap();
    assert!(blobs.contains(&all[1].0).await.unwrap());
}

#[tokio::test]
async fn room_of_outputs_that_are_deleted_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut blobs = open(folder.path(), Durability::Durable).await;
    let size = || -> u64 {
        let packs = fs::read_dir(folder.path().join("packs")).unwrap();
        packs.map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
    };
    let all = outputs(120, 4096);
    for day in all.chunks(40) {
        put_all(&blobs, day).await.into_iter().for_each(Result::unwrap);
        // Packs that a collection ends, and those that a start does.
        if day[0].0 == all[0].0 {
            blobs.collect(|_| true, far()).await.unwrap();
        } else {
            drop(blobs);
            blobs = open(folder.path(), Durability::Durable).await;
        }
    }
    assert_eq!(files_below(folder.path()).len(), 3);
    let full = size();
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    put_all(&blobs, &outputs(121, 4096)[120..]).await.into_iter().for_each(Result::unwrap);
    assert_eq!(blobs.collect(|_| false, hour_ago).await.unwrap().bytes, 0, "all is promised");
    assert!(files_below(folder.path())[3].ends_with(".part"), "a young pack goes on growing");

    let kept: Vec<_> = all.iter().step_by(10).cloned().collect();
    let needed: Vec<_> = kept.iter().map(|(hash, _)| *hash).collect();
    let would = blobs
        .collectable(
            {
                let needed = needed.clone();
                move |hash| needed.contains(hash)
            },
            far(),
        )
        .await
        .unwrap();
    let freed = blobs.collect(move |hash| needed.contains(hash), far()).await.unwrap();
    assert!(freed.bytes > full * 8 / 10 && size() < full / 8, "{freed:?} of {full}, {} left", size());
    assert!(would.bytes.abs_diff(freed.bytes) < 4096, "{would:?} {freed:?}");
    assert_eq!(files_below(folder.path()).len(), 1, "what is left of four packs is one");
    for blobs in [&blobs, &open(folder.path(), Durability::Durable).await] {
        for (hash, bytes) in &all {
            match kept.iter().any(|(kept, _)| kept == hash) {
                true => assert!(read(blobs, hash).await == *bytes),
                false => assert!(!blobs.contains(hash).await.unwrap()),
            }
        }
    }
    blobs.collect(|_| false, far()).await.unwrap();
    assert!(files_below(folder.path()).is_empty());
    put_all(&blobs, &all).await.into_iter().for_each(Result::unwrap);
    assert!(read(&blobs, &all[7].0).await == all[7].1, "it may come again");
}

#[tokio::test]
async fn a_full_disk_is_told_to_those_it_concerns() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(folder.path(), 8) else { return };
    let root = folder.path().join("data");
    fs::create_dir(&root).unwrap();
    let mut blobs = open(&root, Durability::Durable).await;
    let all = outputs(150, 60_000);
    let (before, rest) = all.split_at(10);
    put_all(&blobs, before).await.into_iter().for_each(Result::unwrap);
    disk.fill_but(300_000);
    // One after the other until there is no room, and then many together.
    let mut safe = before.to_vec();
    let mut full = false;
    for (hash, bytes) in rest.iter().take(20) {
        match blobs.put_bytes(*hash, bytes.clone()).await {
            Ok(()) => safe.push((*hash, bytes.clone())),
            Err(error) => {
                assert!(matches!(error, BlobError::NoSpace), "{error}");
                full = true;
            }
        }
    }
    assert!(full && safe.len() > before.len());
    for told in put_all(&blobs, &rest[20..]).await {
        assert!(matches!(told, Err(BlobError::NoSpace)), "{told:?}");
    }
    put_all(&blobs, before).await.into_iter().for_each(Result::unwrap);
    for _ in 0..2 {
        for (hash, bytes) in &safe {
            assert!(read(&blobs, hash).await == *bytes, "what was acknowledged is there");
        }
        // Also where it cannot be tidied for want of room.
        drop(blobs);
        blobs = open(&root, Durability::Durable).await;
    }
    disk.make_room();
    put_all(&blobs, &all[..60]).await.into_iter().for_each(Result::unwrap);
    blobs.collect(|_| true, far()).await.unwrap();
    assert!(files_below(&root).iter().all(|name| !name.ends_with(".part")), "with room, all packs end");
    for blobs in [&blobs, &open(&root, Durability::Durable).await] {
        for (hash, bytes) in &all[..60] {
            assert!(read(blobs, hash).await == *bytes);
        }
    }
}

#[tokio::test]
async fn what_cannot_be_tidied_for_want_of_room_is_read_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(folder.path(), 8) else { return };
    let root = folder.path().join("data");
    fs::create_dir(&root).unwrap();
    // The ending of their pack takes more than is left of a page.
    let all = outputs(300, 50);
    let blobs = open(&root, Durability::Durable).await;
    put_all(&blobs, &all).await.into_iter().for_each(Result::unwrap);
    drop(blobs);
    disk.fill_but(0);
    let unended = || files_below(&root).iter().filter(|name| name.ends_with(".part")).count();
    for _ in 0..2 {
        let blobs = open(&root, Durability::Durable).await;
        assert_eq!(unended(), 1);
        for (hash, bytes) in &all {
            assert!(read(&blobs, hash).await == *bytes);
            assert_eq!(blobs.promise(hash).await.unwrap(), Some(50));
        }
        let told = put_all(&blobs, &outputs(3, 60_000)).await;
        assert!(told.iter().all(|told| matches!(told, Err(BlobError::NoSpace))), "{told:?}");
        blobs.collect(|_| false, far()).await.unwrap();
        assert_eq!(unended(), 1, "there is still no room");
    }
    let blobs = open(&root, Durability::Durable).await;
    disk.make_room();
    blobs.collect(|_| true, far()).await.unwrap();
    assert_eq!(unended(), 0);
    for (hash, bytes) in &all {
        assert!(read(&blobs, hash).await == *bytes);
    }
    blobs.collect(|_| false, far()).await.unwrap();
    assert!(files_below(&root).is_empty());
}

/// People put, drop what they asked for and read, beside a collector that keeps what is even.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_readers_and_a_collector_get_along() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = open(folder.path(), Durability::Durable).await;
    let all = outputs(2000, 700);
    let is_needed = |hash: &BlobHash| hash.as_bytes()[5] & 1 == 0;
    let collecting = tokio::spawn({
        let blobs = blobs.clone();
        async move {
            loop {
                blobs.collect(is_needed, far()).await.unwrap();
            }
        }
    });
    stream::iter(all.iter().enumerate())
        .for_each_concurrent(64, async |(number, (hash, bytes))| {
            let put = blobs.put_bytes(*hash, bytes.clone());
            if number % 7 == 3 {
                // Begun, and dropped.
                let _ = tokio::time::timeout(Duration::ZERO, put).await;
                return;
            }
            put.await.unwrap();
            if is_needed(hash) {
                assert!(blobs.read(hash, 1 << 20).await.unwrap() == bytes);
            }
        })
        .await;
    collecting.abort();
    let _ = collecting.await;
    blobs.collect(is_needed, far()).await.unwrap();
    for blobs in [&blobs, &open(folder.path(), Durability::Durable).await] {
        for (number, (hash, bytes)) in all.iter().enumerate() {
            if number % 7 != 3 && is_needed(hash) {
                assert!(blobs.read(hash, 1 << 20).await.unwrap() == bytes);
            }
        }
    }
}
