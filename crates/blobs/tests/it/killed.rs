//! A process is killed while it stores: whatever it acknowledged is there, and nothing half.

use std::collections::HashSet;
use std::path::Path;

use futures_util::future::join_all;
use kiln_blobs::{BlobStore, Durability, Uploads};
use kiln_testkit::kill_midway;
use kiln_types::{BlobHash, UploadId};

use crate::{chunks, files_below, finish, noise, pieces};

const FOLDER: &str = "KILN_TEST_KILLED_FOLDER";
const ROUNDS: usize = 6;

fn content(number: usize) -> Vec<u8> {
    let mut bytes = noise(1000 + number * 7919 % 600_000);
    bytes[..8].copy_from_slice(&(number as u64).to_le_bytes());
    bytes
}

/// Stores blobs without end, and bytes of an upload between them; reports the bytes that are safe.
#[tokio::test]
#[ignore = "runs in a process of its own, started and killed by the test below"]
async fn child() {
    let folder = std::env::var_os(FOLDER).unwrap();
    let folder = Path::new(&folder);
    let store = BlobStore::open(folder, Durability::Durable).await.unwrap();
    let uploads = Uploads::open(folder, store.clone(), u64::MAX).await.unwrap();
    let id = uploads.create("shot.blend", None).await.unwrap();
    let bytes = noise(1 << 20);
    let mut offset = 0;
    for number in 0_usize.. {
        let hash = store.put_bytes(content(number)).await.unwrap();
        println!("acked blob {hash}");
        let piece = &bytes[offset as usize..(offset as usize + 1 + number * 31 % 5000).min(bytes.len())];
        offset = uploads.append(id, offset, pieces([piece])).await.unwrap();
        println!("acked upload {id} {offset}");
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = noise(1 << 20);
    let mut safe = Vec::new();
    for _ in 0..ROUNDS {
        let mut upload = None;
        let enough = rand::random_range(1..120);
        let mut read = |line: &str| {
            let Some((_, acked)) = line.split_once("acked ") else { return false };
            match acked.split(' ').collect::<Vec<_>>()[..] {
                ["blob", hash] => safe.push(hash.parse::<BlobHash>().unwrap()),
                ["upload", id, offset] => {
                    upload = Some((id.parse::<UploadId>().unwrap(), offset.parse::<u64>().unwrap()));
                }
                _ => panic!("{line}"),
            }
            true
        };
        kill_midway("killed::child", (FOLDER, folder.path()), enough, &mut read);

        let store = BlobStore::open(folder.path(), Durability::Durable).await.unwrap();
        for hash in &safe {
            store.verify(hash).await.unwrap();
        }
        for (hash, _) in store.list().await.unwrap() {
            store.verify(&hash).await.expect("also what was not acknowledged is whole");
        }
        assert!(files_below(folder.path()).iter().all(|path| !path.starts_with("tmp")));
        if let Some((id, acked)) = upload {
            let uploads = Uploads::open(folder.path(), store.clone(), u64::MAX).await.unwrap();
            let offset = uploads.offset(id).await.unwrap();
            assert!(offset >= acked, "{offset} bytes of {acked}");
            let (hash, len) = finish(&uploads, id).await.unwrap();
            assert_eq!((hash, len), (BlobHash::of(&bytes[..offset as usize]), offset));
        }
    }
    assert!(!safe.is_empty());
}

/// A collection keeps these.
fn is_needed(hash: &BlobHash) -> bool {
    hash.as_bytes()[0] & 1 == 0
}

/// Puts chunks and small blobs, makes blobs of chunks, splits others and collects, without end; reports what is safe.
#[tokio::test]
#[ignore = "runs in a process of its own, started and killed by the test below"]
async fn child_with_chunks() {
    let folder = std::env::var_os(FOLDER).unwrap();
    let blobs = chunks::open(Path::new(&folder), Durability::Durable).await;
    let store = blobs.chunks().unwrap();
    for number in rand::random::<u32>().into().. {
        let small = number % 4 == 1;
        let len = if small { 1000 + number as usize % 2000 } else { 60_000 + number as usize % 90_000 };
        let (bytes, hash, recipe, frames) = chunks::file(len, number);
        if number.is_multiple_of(4) {
            blobs.put_stream(Some(hash), u64::MAX, pieces([&bytes[..]])).await.unwrap();
            println!("acked {hash}");
            store.convert(blobs.whole(), &hash).await.unwrap();
        } else {
            store.put(pieces([&chunks::wire(&frames)[..]])).await.unwrap();
            // A chunk is a blob by itself.
            if !small {
                store.put_recipe(hash, recipe, u64::MAX).await.unwrap();
            }
        }
        println!("acked {hash}");
        let outputs = (0..number % 20).map(async |output| {
            let bytes = noise(100 + 97 * output as usize);
            let bytes = [&number.to_le_bytes()[..], &bytes].concat();
            let hash = BlobHash::of(&bytes);
            blobs.put_bytes(hash, bytes.into()).await.unwrap();
            println!("acked {hash}");
        });
        join_all(outputs).await;
        if number.is_multiple_of(7) {
            println!("acked collection");
            blobs.collect(is_needed, chunks::far()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn chunks_that_were_acknowledged_survive_also_a_collection_that_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut safe = HashSet::new();
    let mut read = |line: &str| match line.split_once("acked ") {
        Some((_, "collection")) => {
            safe.retain(is_needed);
            true
        }
        Some((_, hash)) => safe.insert(hash.parse::<BlobHash>().unwrap()),
        None => false,
    };
    for _ in 0..ROUNDS {
        let enough = rand::random_range(1..300);
        kill_midway("killed::child_with_chunks", (FOLDER, folder.path()), enough, &mut read);
    }
    let blobs = chunks::open(folder.path(), Durability::Durable).await;
    let all: HashSet<_> = blobs.list().await.unwrap().into_iter().map(|(hash, _)| hash).collect();
    assert!(!safe.is_empty());
    for hash in all.into_iter().chain(safe) {
        let bytes = chunks::read(&blobs, &hash).await;
        assert_eq!(BlobHash::of(&bytes), hash, "also what was not acknowledged is whole");
    }
    assert!(
        files_below(folder.path()).iter().all(|path| !path.starts_with("tmp") && !path.ends_with(".part"))
    );
}
