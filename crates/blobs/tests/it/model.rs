//! The store of chunks against a model of it, and against a collector that never pauses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use kiln_blobs::{BlobError, Durability, PutReport};
use kiln_chunks::{Chunk, Recipe, pack};
use kiln_types::BlobHash;
use proptest::prelude::*;

use crate::chunks::{far, file, hashes, open, read, wire};
use crate::{files_below, noise, pieces};

/// The actions of a user, over sixteen chunks.
#[derive(Debug, Clone)]
enum Act {
    Put(BTreeSet<usize>),
    Blob(Vec<usize>),
    Whole(Vec<usize>),
    Small(BTreeSet<usize>),
    Split,
    /// Needs every blob whose bit is set.
    Collect(u64),
    Reopen,
}

fn act() -> impl Strategy<Value = Act> {
    let list = || prop::collection::vec(0_usize..16, 0..6);
    prop_oneof![
        4 => prop::collection::btree_set(0_usize..16, 0..8).prop_map(Act::Put),
        4 => list().prop_map(Act::Blob),
        2 => list().prop_map(Act::Whole),
        2 => prop::collection::btree_set(0_usize..16, 0..5).prop_map(Act::Small),
        1 => Just(Act::Split),
        2 => any::<u64>().prop_map(Act::Collect),
        1 => Just(Act::Reopen),
    ]
}

fn chunk(number: usize) -> Vec<u8> {
    let mut bytes = noise(300 + 97 * number);
    bytes[0] = number as u8;
    bytes
}

async fn play(acts: Vec<Act>) {
    let folder = tempfile::tempdir().unwrap();
    let mut blobs = open(folder.path(), Durability::Ephemeral).await;
    // What must be there; of chunks, more may.
    let mut certain = BTreeSet::new();
    let mut possible = BTreeSet::new();
    let mut there: BTreeMap<BlobHash, (Vec<u8>, Vec<usize>)> = BTreeMap::new();
    for act in acts {
        let chunks = blobs.chunks().unwrap().clone();
        match act {
            Act::Put(numbers) => {
                let frames: Vec<_> = numbers.iter().map(|number| pack(&chunk(*number))).collect();
                let lacking =
                    chunks.missing(frames.iter().map(|frame| frame.chunk().hash).collect()).await.unwrap();
                let PutReport { stored, known, .. } = chunks.put(pieces([&wire(&frames)[..]])).await.unwrap();
                assert_eq!((stored as usize, known as usize), (lacking.len(), frames.len() - lacking.len()));
                certain.extend(numbers.iter().copied());
                for number in numbers {
                    possible.insert(number);
                    // A chunk is a blob, too.
                    there.insert(BlobHash::of(&chunk(number)), (chunk(number), vec![number]));
                }
            }
            Act::Blob(list) => {
                let all: Vec<_> = list.iter().map(|number| chunk(*number)).collect();
                let recipe = Recipe { chunks: all.iter().map(|bytes| Chunk::of(bytes)).collect() };
                let bytes = all.concat();
                let hash = BlobHash::of(&bytes);
                match chunks.put_recipe(hash, recipe, u64::MAX).await {
                    Ok(()) => {
                        assert!(list.iter().all(|number| possible.contains(number)));
                        there.insert(hash, (bytes, list));
                    }
                    Err(BlobError::Lacking { .. }) => {
                        assert!(!list.iter().all(|number| certain.contains(number)));
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            Act::Whole(list) => {
                let bytes = list.iter().flat_map(|number| chunk(*number)).collect::<Vec<_>>();
                let hash = blobs.put_stream(None, u64::MAX, pieces([&bytes[..]])).await.unwrap().0;
                // Split, a small file is its one chunk.
                if let [number] = list[..] {
                    possible.insert(number);
                }
                there.entry(hash).or_insert((bytes, Vec::new()));
            }
            Act::Small(numbers) => {
                let put = |number: &usize| {
                    let bytes = chunk(*number);
                    blobs.put_bytes(BlobHash::of(&bytes), bytes.into())
                };
                join_all(numbers.iter().map(put)).await.into_iter().for_each(Result::unwrap);
                certain.extend(numbers.iter().copied());
                for number in numbers {
                    possible.insert(number);
                    there.insert(BlobHash::of(&chunk(number)), (chunk(number), vec![number]));
                }
            }
            Act::Split => {
                for (hash, _) in blobs.whole().list().await.unwrap() {
                    chunks.convert(blobs.whole(), &hash).await.unwrap();
                }
            }
            Act::Collect(bits) => {
                let order: Vec<_> = there.keys().copied().collect();
                let needed: BTreeSet<_> = order
                    .iter()
                    .enumerate()
                    .filter(|(at, _)| bits >> (at % 64) & 1 == 1)
                    .map(|(_, h)| *h)
                    .collect();
                there.retain(|hash, _| needed.contains(hash));
                blobs.collect(move |hash| needed.contains(hash), far()).await.unwrap();
                certain = there.values().flat_map(|(_, list)| list.iter().copied()).collect();
                if there.is_empty() {
                    assert_eq!(chunks.count(), 0);
                    assert!(files_below(folder.path()).is_empty());
                    possible.clear();
                }
            }
            Act::Reopen => {
                drop(blobs);
                blobs = open(folder.path(), Durability::Ephemeral).await;
            }
        }
        let chunks = blobs.chunks().unwrap();
        let all: Vec<_> = (0..16).map(|number| BlobHash::of(&chunk(number))).collect();
        let lacking: BTreeSet<_> = chunks.missing(all.clone()).await.unwrap().into_iter().collect();
        for (number, hash) in all.iter().enumerate() {
            let found = !lacking.contains(hash);
            assert!(found || !certain.contains(&number), "chunk {number} was lost");
        }
        let listed: BTreeSet<_> = blobs.list().await.unwrap().into_iter().map(|(hash, _)| hash).collect();
        assert!(listed.iter().all(|hash| there.contains_key(hash)));
        for (hash, (bytes, _)) in &there {
            assert!(read(&blobs, hash).await == *bytes);
            assert_eq!(blobs.promise(hash).await.unwrap(), Some(bytes.len() as u64));
            if let Some(recipe) = chunks.recipe(hash).await.unwrap() {
                assert_eq!(recipe.size(), bytes.len() as u64);
            } else {
                assert!(blobs.whole().contains(hash).await.unwrap());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(100) })]

    #[test]
    fn the_store_does_what_the_model_does(acts in prop::collection::vec(act(), 1..25)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(play(acts));
    }
}

/// People ask, send, make blobs and jobs of them, and finish jobs, while what is not needed is collected without
/// a pause. The promise is short, but longer than any of them takes from the answer to the job.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_that_was_promised_or_is_needed_is_ever_collected() {
    const PROMISE: Duration = Duration::from_millis(1500);
    let folder = tempfile::tempdir().unwrap();
    let blobs = open(folder.path(), Durability::Ephemeral).await;
    let needed: Arc<Mutex<BTreeMap<BlobHash, usize>>> = Arc::default();
    let done = Arc::new(AtomicBool::new(false));
    let collecting = tokio::spawn({
        let (blobs, needed, done) = (blobs.clone(), needed.clone(), done.clone());
        async move {
            let mut freed = 0;
            while !done.load(Ordering::Relaxed) {
                let needed = needed.clone();
                let is_needed = move |hash: &BlobHash| needed.lock().unwrap().contains_key(hash);
                freed += blobs.collect(is_needed, SystemTime::now() - PROMISE).await.unwrap().bytes;
            }
            freed
        }
    });
    let [known, jobs] = [0, 0].map(|none| Arc::new(AtomicUsize::new(none)));
    let people = (0..4_u64).map(|person| {
        let (blobs, needed, known, jobs) = (blobs.clone(), needed.clone(), known.clone(), jobs.clone());
        tokio::spawn(async move {
            let chunks = blobs.chunks().unwrap();
            let end = tokio::time::Instant::now() + Duration::from_secs(6);
            let mut turn = 0_u64;
            while tokio::time::Instant::now() < end {
                turn += 1;
                // Some are of a single chunk.
                let len = if turn % 7 < 3 { 3000 } else { 150_000 };
                let (bytes, hash, recipe, frames) = file(len, (person + turn) % 9);
                let asked = tokio::time::Instant::now();
                let made = if turn.is_multiple_of(5) {
                    blobs.put_stream(Some(hash), u64::MAX, pieces([&bytes[..]])).await.map(|_| ())
                } else if turn.is_multiple_of(3) {
                    blobs.put_bytes(hash, bytes.clone().into()).await
                } else {
                    let lacking: BTreeSet<_> =
                        chunks.missing(hashes(&recipe)).await.unwrap().into_iter().collect();
                    known.fetch_add(recipe.chunks.len() - lacking.len(), Ordering::Relaxed);
                    let fresh: Vec<_> =
                        frames.into_iter().filter(|frame| lacking.contains(&frame.chunk().hash)).collect();
                    tokio::time::sleep(Duration::from_millis(turn * 37 % 90)).await;
                    chunks.put(pieces([&wire(&fresh)[..]])).await.unwrap();
                    if recipe.chunks.len() > 1 {
                        chunks.put_recipe(hash, recipe, u64::MAX).await
                    } else {
                        Ok(())
                    }
                };
                if turn.is_multiple_of(3) && blobs.whole().contains(&hash).await.unwrap() {
                    // Another may have done it at the same time.
                    let _ = chunks.convert(blobs.whole(), &hash).await;
                }
                let there = blobs.promise(&hash).await.unwrap();
                *needed.lock().unwrap().entry(hash).or_default() += 1;
                // On a machine that is busy with other things the promise may be over: then nothing was promised.
                let in_time = asked.elapsed() < PROMISE;
                if in_time {
                    made.expect("all was promised or sent");
                    assert_eq!(there, Some(bytes.len() as u64));
                    jobs.fetch_add(1, Ordering::Relaxed);
                }
                tokio::time::sleep(Duration::from_millis(turn * 53 % 400)).await;
                if in_time {
                    assert!(read(&blobs, &hash).await == bytes, "a job's blob was collected");
                }
                let mut needed = needed.lock().unwrap();
                let count = needed.get_mut(&hash).unwrap();
                *count -= 1;
                if *count == 0 {
                    needed.remove(&hash);
                }
            }
        })
    });
    for person in people.collect::<Vec<_>>() {
        person.await.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    assert!(collecting.await.unwrap() > 0, "nothing was collected: nothing was tested");
    assert!(known.load(Ordering::Relaxed) > 0, "nothing was promised: nothing was tested");
    assert!(jobs.load(Ordering::Relaxed) > 0, "no promise lasted: nothing was tested");
}
