//! Small blobs that come at the same time share a pack and a flush of the disk.
//!
//! Who comes while nothing is being written starts writing; who comes meanwhile is in the next batch. So nobody waits
//! for others that may come, and the longer a flush takes, the more share the next.

use std::collections::HashSet;
use std::io;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use kiln_chunks::{Chunk, FrameHead, Packer};
use kiln_types::BlobHash;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::growing::GrowingPack;
use super::{ChunkStore, Inner};
use crate::BlobError;
use crate::disk::BlobResult;

/// Bytes of a small blob at most.
pub(crate) const SMALL: usize = 64 << 10;

/// Bytes that wait to be written, and are being written, at most.
const ROOM: usize = 16 << 20;

impl ChunkStore {
    /// Stores a blob of at most [`SMALL`] bytes as a chunk; one that is there is promised. Where this is dropped in
    /// the middle, the blob may be stored all the same.
    ///
    /// # Errors
    /// [`BlobError::Mismatch`], [`BlobError::NoSpace`], or where the disk fails.
    pub(crate) async fn put_small(&self, hash: BlobHash, bytes: Bytes) -> BlobResult<()> {
        debug_assert!(bytes.len() <= SMALL);
        let small = &self.inner.small;
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let room = small.room.clone().acquire_many_owned(len).await.map_err(|_| broke_off())?;
        let (done, told) = oneshot::channel();
        if small.join(WaitingBlob { hash, bytes, done, room }) {
            let writing = Writing { inner: self.inner.clone(), ended: false };
            tokio::task::spawn_blocking(move || writing.run());
        }
        told.await.unwrap_or_else(|_| Err(broke_off()))
    }
}

fn broke_off() -> BlobError {
    BlobError::io("finish writing to", "a pack".as_ref())(io::ErrorKind::Interrupted.into())
}

/// Blobs on their way into packs.
#[derive(Debug)]
pub(super) struct SmallBlobs {
    room: Arc<Semaphore>,
    waiting: Mutex<WaitingBlobs>,
    packs: Mutex<Packs>,
    /// The next batch begins a new pack.
    new_pack: AtomicBool,
}

#[derive(Debug, Default)]
struct WaitingBlobs {
    next: Vec<WaitingBlob>,
    /// Somebody writes, and takes these next.
    writing: bool,
}

/// A blob whose sender waits.
#[derive(Debug)]
struct WaitingBlob {
    hash: BlobHash,
    bytes: Bytes,
    done: oneshot::Sender<BlobResult<()>>,
    room: OwnedSemaphorePermit,
}

impl WaitingBlob {
    fn tell(self, told: BlobResult<()>) {
        drop(self.room);
        // Its request may have been dropped.
        let _ = self.done.send(told);
    }
}

#[derive(Debug, Default)]
struct Packs {
    growing: Option<GrowingPack>,
    /// Packs that are full and have no ending yet: there was no room, or the disk failed.
    unended: Vec<GrowingPack>,
    packer: Packer,
    /// Flushes so far.
    batches: u64,
}

impl SmallBlobs {
    /// `unended`: packs that an earlier process left, and that there was no room to end.
    pub fn new(unended: Vec<GrowingPack>) -> Self {
        Self {
            room: Arc::new(Semaphore::new(ROOM)),
            waiting: Mutex::default(),
            packs: Mutex::new(Packs { unended, ..Packs::default() }),
            new_pack: AtomicBool::new(false),
        }
    }

    /// Puts later blobs into a pack that is younger than all that there are.
    pub fn start_new_pack(&self) {
        self.new_pack.store(true, Ordering::Relaxed);
    }

    /// Ends the pack that grows where it was begun before this, so that what is in it can be collected one day; also
    /// those that could not be ended earlier.
    pub fn end_older(&self, inner: &Inner, since: SystemTime) {
        let mut packs = self.packs();
        let ended = packs.growing.take_if(|pack| pack.begun() < since);
        let unended = mem::take(&mut packs.unended);
        for pack in unended.into_iter().chain(ended) {
            packs.end(inner, pack);
        }
    }

    /// Returns true if the one who joins has to write.
    fn join(&self, coming: WaitingBlob) -> bool {
        let mut waiting = self.waiting();
        waiting.next.push(coming);
        !mem::replace(&mut waiting.writing, true)
    }

    fn waiting(&self) -> MutexGuard<'_, WaitingBlobs> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn packs(&self) -> MutexGuard<'_, Packs> {
        self.packs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes batch after batch, until nobody waits.
struct Writing {
    inner: Arc<Inner>,
    ended: bool,
}

impl Writing {
    fn run(mut self) {
        while let Some(batch) = self.take() {
            self.inner.store_batch(batch);
        }
    }

    fn take(&mut self) -> Option<Vec<WaitingBlob>> {
        let mut waiting = self.inner.small.waiting();
        self.ended = waiting.next.is_empty();
        waiting.writing = !self.ended;
        (!self.ended).then(|| mem::take(&mut waiting.next))
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        // It never ran, or broke off: who waits is told by the end of the channel, and who comes next writes.
        if !self.ended {
            *self.inner.small.waiting() = WaitingBlobs::default();
        }
    }
}

impl Inner {
    /// Stores these, and tells each of them.
    fn store_batch(&self, batch: Vec<WaitingBlob>) {
        let right = |coming: WaitingBlob| {
            let found = BlobHash::of(&coming.bytes);
            if found == coming.hash {
                return Some(coming);
            }
            let expected = coming.hash;
            coming.tell(Err(BlobError::Mismatch { expected, found }));
            None
        };
        let batch: Vec<_> = batch.into_iter().filter_map(right).collect();
        // The empty blob is always there.
        let hashes = batch.iter().filter(|coming| !coming.bytes.is_empty()).map(|coming| &coming.hash);
        let (lacking, stored) = match self.promise(hashes) {
            Ok(lacking) => {
                let lacking = HashSet::from_iter(lacking);
                let stored = self.store_new(&batch, lacking.clone());
                (lacking, stored)
            }
            Err(error) => (batch.iter().map(|coming| coming.hash).collect(), Err(error)),
        };
        for coming in batch {
            let told = match &stored {
                Err(error) if lacking.contains(&coming.hash) => Err(again(error)),
                _ => Ok(()),
            };
            coming.tell(told);
        }
    }

    /// Stores those of a batch that are lacking, each once.
    fn store_new(&self, batch: &[WaitingBlob], mut lacking: HashSet<BlobHash>) -> BlobResult<()> {
        if lacking.is_empty() {
            return Ok(());
        }
        let packs = &mut *self.small.packs();
        let (mut frames, mut heads) = (Vec::new(), Vec::new());
        for coming in batch {
            if lacking.remove(&coming.hash) {
                let chunk = Chunk { hash: coming.hash, len: coming.bytes.len() as u32 };
                let frame = packs.packer.pack(chunk, &coming.bytes);
                heads.push(frame.head());
                // Memory does not fail.
                let _ = frame.write_to(&mut frames);
            }
        }
        packs.append(self, &frames, &heads)
    }
}

impl Packs {
    fn append(&mut self, inner: &Inner, frames: &[u8], heads: &[FrameHead]) -> BlobResult<()> {
        let is_new = inner.small.new_pack.swap(false, Ordering::Relaxed);
        if let Some(full) = self.growing.take_if(|pack| is_new || pack.is_full()) {
            self.end(inner, full);
        }
        let mut pack = match self.growing.take() {
            Some(pack) => pack,
            None => {
                let id = inner.index().reserve();
                GrowingPack::create(&inner.packs, id)?
            }
        };
        let at = pack.len();
        let appended = pack.append(frames, heads, inner.durability);
        self.batches += 1;
        match appended {
            Ok(()) => {
                inner.index().grow(pack.id(), heads, at);
                self.growing = Some(pack);
                Ok(())
            }
            Err(error) => {
                self.end(inner, pack);
                Err(error)
            }
        }
    }

    /// If it cannot end now, it does later; the safe part of it is read as before.
    fn end(&mut self, inner: &Inner, mut pack: GrowingPack) {
        if pack.heads().is_empty() {
            return;
        }
        let ended = pack.end(inner.durability).and_then(|()| pack.name(&mut inner.index()));
        if let Err(error) = ended {
            tracing::warn!(pack = pack.id(), %error, "a pack of small blobs cannot be ended now; the next collection tries again");
            self.unended.push(pack);
        }
    }
}

/// An error that is told to many.
fn again(error: &BlobError) -> BlobError {
    match error {
        BlobError::NoSpace => BlobError::NoSpace,
        BlobError::Io { doing, path, source } => {
            let source = source.raw_os_error().map_or_else(
                || io::Error::new(source.kind(), source.to_string()),
                io::Error::from_raw_os_error,
            );
            BlobError::Io { doing, path: path.clone(), source }
        }
        other => BlobError::io("write", "a pack".as_ref())(io::Error::other(other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::runtime::Runtime;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::Durability;

    struct Bench {
        runtime: Runtime,
        store: ChunkStore,
        folder: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Self {
            let runtime = Runtime::new().unwrap();
            let folder = tempfile::tempdir().unwrap();
            let store = runtime.block_on(open(folder.path()));
            Self { runtime, store, folder }
        }

        fn put(&self, number: u32) -> JoinHandle<BlobResult<()>> {
            let (store, bytes) = (self.store.clone(), content(number));
            self.runtime.spawn(async move { store.put_small(BlobHash::of(&bytes), bytes).await })
        }

        fn told(&self, puts: Vec<JoinHandle<BlobResult<()>>>) -> Vec<BlobResult<()>> {
            puts.into_iter().map(|put| self.runtime.block_on(put).unwrap()).collect()
        }

        /// Puts these as if others were being written just now, so that all of them are in one batch.
        fn put_together(
            &self,
            numbers: impl Iterator<Item = u32>,
            meanwhile: impl FnOnce(&[JoinHandle<BlobResult<()>>]),
        ) -> Vec<JoinHandle<BlobResult<()>>> {
            self.wait_until(|waiting| !mem::replace(&mut waiting.writing, true));
            let puts: Vec<_> = numbers.map(|number| self.put(number)).collect();
            self.wait_until(|waiting| waiting.next.len() == puts.len());
            meanwhile(&puts);
            Writing { inner: self.store.inner.clone(), ended: false }.run();
            puts
        }

        /// The writer looks once more for others after it told the last.
        fn wait_until(&self, mut so: impl FnMut(&mut WaitingBlobs) -> bool) {
            while !so(&mut self.store.inner.small.waiting()) {
                std::thread::yield_now();
            }
        }

        fn break_flush(&self) {
            self.store.inner.small.packs().growing.as_mut().unwrap().break_flush();
        }

        fn batches(&self) -> u64 {
            self.store.inner.small.packs().batches
        }

        fn has(&self, store: &ChunkStore, number: u32) -> bool {
            let bytes = content(number);
            let hash = BlobHash::of(&bytes);
            let missing = self.runtime.block_on(store.missing(vec![hash])).unwrap();
            missing.is_empty() && {
                let mut read = Vec::new();
                io::Read::read_to_end(&mut store.open_reader(&hash).unwrap(), &mut read).unwrap();
                assert_eq!(read, bytes);
                true
            }
        }
    }

    async fn open(folder: &Path) -> ChunkStore {
        ChunkStore::open(folder, Durability::Durable).await.unwrap()
    }

    fn content(number: u32) -> Bytes {
        number.to_le_bytes().repeat(60 + number as usize % 100).into()
    }

    #[test]
    fn many_at_the_same_time_share_a_flush_and_one_alone_waits_for_nobody() {
        let bench = Bench::new();
        for number in 0..3 {
            bench.told(vec![bench.put(number)]).into_iter().for_each(Result::unwrap);
        }
        assert_eq!(bench.batches(), 3);
        bench.wait_until(|waiting| !waiting.writing);
        let held = bench.store.inner.small.packs();
        let mut puts = vec![bench.put(3)];
        bench.wait_until(|waiting| waiting.writing && waiting.next.is_empty());
        puts.extend((4..67).map(|number| bench.put(number)));
        bench.wait_until(|waiting| waiting.next.len() == 63);
        drop(held);
        bench.told(puts).into_iter().for_each(Result::unwrap);
        assert_eq!(bench.batches(), 5, "one that came first, and 63 that came meanwhile");
        assert_eq!(std::fs::read_dir(bench.folder.path().join("packs")).unwrap().count(), 1);
        assert!((0..67).all(|number| bench.has(&bench.store, number)));
        assert_eq!(bench.store.inner.small.room.available_permits(), ROOM);
    }

    #[test]
    fn a_request_that_is_dropped_and_one_that_lies_harm_no_other() {
        let bench = Bench::new();
        let mut liar = None;
        let puts = bench.put_together(0..20, |puts| {
            puts[7].abort();
            let store = bench.store.clone();
            let lying = async move { store.put_small(BlobHash::of(b"else"), content(50)).await };
            liar = Some(bench.runtime.spawn(lying));
            bench.wait_until(|waiting| waiting.next.len() == 21);
        });
        for (number, put) in (0..).zip(puts) {
            let told = bench.runtime.block_on(put);
            assert!(number == 7 || told.unwrap().is_ok(), "{number}");
        }
        let told = bench.runtime.block_on(liar.unwrap()).unwrap();
        assert!(matches!(told, Err(BlobError::Mismatch { .. })), "{told:?}");
        assert!((0..20).filter(|number| *number != 7).all(|number| bench.has(&bench.store, number)));
        assert!(!bench.has(&bench.store, 50));
    }

    #[test]
    fn a_flush_that_fails_is_told_to_all_who_wait_for_it_and_takes_nothing_else_along() {
        let bench = Bench::new();
        bench.told((0..5).map(|number| bench.put(number)).collect()).into_iter().for_each(Result::unwrap);
        // One of these is there already.
        let told = bench.told(bench.put_together((2..3).chain(5..30), |_| bench.break_flush()));
        assert!(told[0].is_ok(), "it was there");
        for told in &told[1..] {
            let Err(BlobError::Io { source, .. }) = told else { panic!("{told:?}") };
            assert_eq!(source.raw_os_error(), Some(22), "each hears why");
        }
        assert!((5..30).all(|number| !bench.has(&bench.store, number)), "they were not acknowledged");
        // The next ones have a new pack, which breaks, too.
        bench.told((5..10).map(|number| bench.put(number)).collect()).into_iter().for_each(Result::unwrap);
        let told = bench.told(bench.put_together(10..20, |_| bench.break_flush()));
        assert!(told.iter().all(Result::is_err));
        // Those packs lie unended; what was acknowledged is there, now and when the store is opened again.
        assert_eq!(bench.store.inner.small.packs().unended.len(), 2);
        bench.told((20..30).map(|number| bench.put(number)).collect()).into_iter().for_each(Result::unwrap);
        let acknowledged = || (0..10).chain(20..30);
        assert!(acknowledged().all(|number| bench.has(&bench.store, number)));
        let again = bench.runtime.block_on(open(bench.folder.path()));
        assert!(acknowledged().all(|number| bench.has(&again, number)));
    }

    #[test]
    fn who_waits_for_a_writer_that_never_ran_is_told_and_the_next_one_writes() {
        let bench = Bench::new();
        let inner = &bench.store.inner;
        let room = inner.small.room.clone().try_acquire_many_owned(4).unwrap();
        let (done, told) = oneshot::channel();
        let bytes = Bytes::from_static(b"lost");
        assert!(inner.small.join(WaitingBlob { hash: BlobHash::of(&bytes), bytes, done, room }));
        drop(Writing { inner: inner.clone(), ended: false });
        assert!(bench.runtime.block_on(told).is_err());
        bench.told(vec![bench.put(1)]).into_iter().for_each(Result::unwrap);
        assert_eq!(inner.small.room.available_permits(), ROOM);
    }

    #[test]
    fn a_chunk_that_was_damaged_is_sent_again_into_a_younger_pack() {
        let bench = Bench::new();
        bench.told(vec![bench.put(0), bench.put(1)]).into_iter().for_each(Result::unwrap);
        let inner = &bench.store.inner;
        let hash = BlobHash::of(&content(0));
        let place = inner.index().get(&hash).unwrap();
        let path = inner.index().path(&inner.packs, place.pack);
        let mut stored = std::fs::read(&path).unwrap();
        stored[(place.at + place.len) as usize - 1] ^= 1;
        std::fs::write(&path, stored).unwrap();
        let mut read = Vec::new();
        let mut reader = bench.store.open_reader(&hash).unwrap();
        assert!(io::Read::read_to_end(&mut reader, &mut read).is_err());
        assert_eq!(bench.runtime.block_on(bench.store.missing(vec![hash])).unwrap(), [hash]);
        bench.told(vec![bench.put(0), bench.put(2)]).into_iter().for_each(Result::unwrap);
        for _ in 0..2 {
            let again = bench.runtime.block_on(open(bench.folder.path()));
            assert!((0..3).all(|number| bench.has(&again, number)));
        }
    }
}
