//! The files of a bundle, hashed and split as they are read.

use std::{
    cell::Cell,
    fs::File,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use kiln_blend::ReadLimits;
use kiln_chunks::{Grain, split, unpack_blend};
use kiln_types::{BlobHash, BlobHasher};

use crate::{
    ClientError, PrepareError, Transfer,
    hash_cache::{Content, FileStamp, HashCache},
    submission::{EventSender, SubmissionEvent, Throttle},
};

/// The most reads of a file that changes meanwhile.
pub(crate) const READS: usize = 3;
/// Files that are read at the same time; each takes some 10 MiB of memory.
const AT_ONCE: usize = 8;
const PIECE: usize = 256 << 10;

/// A file on the artist's disk at the time at which it was read.
#[derive(Debug, Clone)]
pub(crate) struct SourceFile {
    pub path: PathBuf,
    pub stamp: FileStamp,
    pub content: Content,
}

/// The progress of reading many files.
struct HashProgress<'a> {
    events: &'a EventSender,
    files: usize,
    bytes: u64,
    done: Mutex<HashDone>,
}

#[derive(Default)]
struct HashDone {
    files: usize,
    bytes: u64,
    throttle: Throttle,
}

impl<'a> HashProgress<'a> {
    fn begin(paths: &[&Path], events: &'a EventSender) -> Self {
        let bytes = paths.iter().map(|path| size(path)).sum();
        let progress = Self { events, files: paths.len(), bytes, done: Mutex::default() };
        progress.add(0, 0);
        progress
    }

    fn add(&self, files: usize, bytes: u64) {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        done.files += files;
        done.bytes += bytes;
        let (files_done, bytes_done) = (done.files, done.bytes);
        if done.throttle.is_due(files_done == self.files) {
            let (files, bytes) = (self.files, self.bytes);
            self.events.tell(SubmissionEvent::Hashing { files_done, files, bytes_done, bytes });
        }
    }

    /// Reads a file with `read`, which gets a function that counts bytes. A file that is read again or decompressed counts at
    /// most its size, and one that is known without being read counts whole.
    fn read_file<T>(&self, path: &Path, read: impl FnOnce(&dyn Fn(u64)) -> T) -> T {
        let left = Cell::new(size(path));
        let done = read(&|bytes| {
            let bytes = bytes.min(left.get());
            left.set(left.get() - bytes);
            self.add(0, bytes);
        });
        self.add(1, left.get());
        done
    }
}

/// Returns the size of a file; 0 if it cannot be read, which fails later.
fn size(path: &Path) -> u64 {
    path.metadata().map_or(0, |meta| meta.len())
}

/// Reads files, several at a time, and returns them in their order.
pub(crate) fn read_all(
    paths: &[&Path],
    transfer: Transfer,
    cache: &HashCache,
    events: &EventSender,
) -> Result<Vec<SourceFile>, PrepareError> {
    let progress = HashProgress::begin(paths, events);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(AT_ONCE).min(paths.len());
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
            let source = progress.read_file(path, |count| read_counting(path, transfer, cache, count));
            if source.is_err() {
                // Ends the other threads.
                next.store(paths.len(), Ordering::Relaxed);
            }
            done.push(source?);
        }
        Ok(done)
    };
    let sources = if threads <= 1 {
        work()?
    } else {
        let parts: Vec<Result<Vec<SourceFile>, PrepareError>> = std::thread::scope(|scope| {
            let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            running.into_iter().filter_map(|thread| thread.join().ok()).collect()
        });
        parts.into_iter().collect::<Result<Vec<_>, _>>()?.concat()
    };
    let by_path: std::collections::HashMap<PathBuf, SourceFile> =
        sources.into_iter().map(|source| (source.path.clone(), source)).collect();
    let lost = || PrepareError::Broken("the bundle".to_owned(), "a file was not read".to_owned());
    // A file may be in several places of a bundle.
    paths.iter().map(|path| by_path.get(*path).cloned().ok_or_else(lost)).collect()
}

/// Reads a file, or takes its content from the cache. A file that changes meanwhile is read again.
pub(crate) fn read(path: &Path, transfer: Transfer, cache: &HashCache) -> Result<SourceFile, PrepareError> {
    read_counting(path, transfer, cache, &|_| {})
}

/// Reads a file as [`read`] does, and calls `count` with the bytes that are read.
fn read_counting(
    path: &Path,
    transfer: Transfer,
    cache: &HashCache,
    count: &dyn Fn(u64),
) -> Result<SourceFile, PrepareError> {
    let fail = |error| PrepareError::Client(ClientError::file(path, "read", error));
    let known = FileStamp::at(path).map_err(fail)?;
    match (cache.get(path, &known), transfer) {
        (Some(content), Transfer::Chunks) if content.recipe.is_some() => {
            return Ok(SourceFile { path: path.to_owned(), stamp: known, content });
        }
        // The chunks are known if the file was sent to another server.
        (Some(content), Transfer::Whole) => {
            let content = Content { recipe: None, ..content };
            return Ok(SourceFile { path: path.to_owned(), stamp: known, content });
        }
        _ => {}
    }
    for _ in 0..READS {
        let read_at = SystemTime::now();
        let file = File::open(path).map_err(fail)?;
        let stamp = FileStamp::of(&file.metadata().map_err(fail)?);
        let content = content(&file, &stamp, transfer, count);
        let after = FileStamp::of(&file.metadata().map_err(fail)?);
        // A save renames a new file over the old one, so that the open file stays the same.
        if after != stamp || FileStamp::at(path).ok() != Some(stamp) {
            continue;
        }
        let content = content.map_err(fail)?;
        cache.put(path, &stamp, read_at, &content);
        return Ok(SourceFile { path: path.to_owned(), stamp, content });
    }
    Err(PrepareError::Changing(path.to_owned()))
}

fn content(file: &File, stamp: &FileStamp, transfer: Transfer, count: &dyn Fn(u64)) -> io::Result<Content> {
    let BundleBytes { packed, bytes } = open(file.try_clone()?, stamp.size())?;
    let mut bytes = CountingReader { bytes, count };
    match transfer {
        Transfer::Chunks => {
            let mut size = 0;
            let split = split(bytes, None::<Grain>, |chunk, _| {
                size += u64::from(chunk.len);
                Ok(())
            })?;
            Ok(Content { hash: split.hash, size, packed, recipe: Some(split.recipe) })
        }
        Transfer::Whole => {
            let (hash, size) = hash_of(&mut bytes)?;
            Ok(Content { hash, size, packed, recipe: None })
        }
    }
}

/// A reader that counts its bytes.
struct CountingReader<'a> {
    bytes: Box<dyn Read + Send>,
    count: &'a dyn Fn(u64),
}

impl Read for CountingReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.bytes.read(buffer)?;
        (self.count)(read as u64);
        Ok(read)
    }
}

/// The bytes that a bundle has of a file.
pub(crate) struct BundleBytes {
    /// The file is a compressed .blend, and the bytes are decompressed.
    pub packed: bool,
    pub bytes: Box<dyn Read + Send>,
}

/// Opens a file of `size` bytes. Bytes that are appended meanwhile are not read.
pub(crate) fn open(mut file: File, size: u64) -> io::Result<BundleBytes> {
    use std::io::Seek as _;
    let mut first = [0];
    let raw = file.read(&mut first)?;
    file.rewind()?;
    let limits = ReadLimits::default();
    let mut bytes = unpack_blend(file.take(size), limits.unpacked.max(size.saturating_mul(limits.ratio)))?;
    let mut unpacked = [0];
    let got = bytes.read(&mut unpacked)?;
    let packed = raw > 0 && unpacked[..got] != first[..raw];
    Ok(BundleBytes { packed, bytes: Box::new(io::Cursor::new(unpacked[..got].to_vec()).chain(bytes)) })
}

/// Returns the hash and the number of bytes.
pub(crate) fn hash_of(bytes: &mut impl Read) -> io::Result<(BlobHash, u64)> {
    let mut hasher = BlobHasher::new();
    io::copy(&mut BufReader::with_capacity(PIECE, bytes), &mut hasher)?;
    Ok((hasher.hash(), hasher.count()))
}

/// Returns the hash and the size of a file. Blocks: call it off the async threads.
pub fn hash_file(path: &Path) -> Result<(BlobHash, u64), ClientError> {
    let read = || hash_of(&mut File::open(path)?);
    read().map_err(|error| ClientError::file(path, "read", error))
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::Write as _,
        sync::atomic::AtomicBool,
        time::{Duration, Instant},
    };

    use super::*;
    use crate::submission::SubmissionMessage;

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn a_file_hashes_as_its_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let bytes = noise(PIECE * 2 + 17);
        fs::write(&path, &bytes).unwrap();
        assert_eq!(hash_file(&path).unwrap(), (BlobHash::of(&bytes), bytes.len() as u64));
    }

    /// The file was submitted to a farm before it is rendered here.
    #[test]
    fn a_file_that_is_known_in_chunks_is_sent_whole_on_request() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.blend");
        fs::write(&path, noise(300_000)).unwrap();
        let cache = HashCache::new(dir.path().join("known"));
        let stamp = FileStamp::at(&path).unwrap();
        let known = content(&File::open(&path).unwrap(), &stamp, Transfer::Chunks, &|_| {}).unwrap();
        cache.put(&path, &stamp, SystemTime::now() + Duration::from_secs(60), &known);
        assert_eq!(cache.get(&path, &stamp).as_ref(), Some(&known), "it is known");
        assert_eq!(read(&path, Transfer::Chunks, &cache).unwrap().content, known);
        let whole = read(&path, Transfer::Whole, &cache).unwrap().content;
        assert_eq!(whole, Content { recipe: None, ..known });
    }

    #[test]
    fn a_packed_blend_is_read_as_what_it_holds_whichever_way_it_travels() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.blend");
        let mut plain = b"BLENDER-v404".to_vec();
        plain.extend(noise(300_000));
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(&plain).unwrap();
        fs::write(&path, packed.finish().unwrap()).unwrap();
        for transfer in [Transfer::Chunks, Transfer::Whole] {
            let content = read(&path, transfer, &HashCache::off()).unwrap().content;
            assert!(content.packed);
            assert_eq!((content.hash, content.size), (BlobHash::of(&plain), plain.len() as u64));
            assert_eq!(content.recipe.is_some(), transfer == Transfer::Chunks);
        }
        fs::write(&path, &plain).unwrap();
        let content = read(&path, Transfer::Chunks, &HashCache::off()).unwrap().content;
        assert!(!content.packed);
        assert_eq!(content.hash, BlobHash::of(&plain));
        assert!(content.recipe.unwrap().chunks.len() > 5);
    }

    #[test]
    fn an_empty_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("empty");
        fs::write(&path, b"").unwrap();
        let content = read(&path, Transfer::Chunks, &HashCache::off()).unwrap().content;
        assert_eq!((content.size, content.packed, content.hash), (0, false, BlobHash::of(b"")));
    }

    #[test]
    fn a_file_that_keeps_changing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("smoke.vdb");
        fs::write(&path, noise(8 << 20)).unwrap();
        /// Ends the writer however the test ends.
        struct Stops<'a>(&'a AtomicBool);
        impl Drop for Stops<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    file.write_all(b"x").unwrap();
                }
            });
            let _stops = Stops(&stop);
            // On a busy machine the file may stay the same while it is read.
            let began = Instant::now();
            let error = loop {
                match read(&path, Transfer::Chunks, &HashCache::off()) {
                    Err(error) => break error,
                    Ok(_) => assert!(began.elapsed() < Duration::from_secs(60), "nobody writes"),
                }
            };
            assert!(matches!(&error, PrepareError::Changing(named) if *named == path), "{error}");
            assert!(error.to_string().contains("smoke.vdb"), "{error}");
        });
        let content = read(&path, Transfer::Chunks, &HashCache::off()).unwrap().content;
        assert_eq!(content.size, path.metadata().unwrap().len());
    }

    #[test]
    fn a_list_with_one_file_twice_keeps_its_order() {
        let dir = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = (0..20).map(|n| dir.path().join(format!("f{}", n % 13))).collect();
        for (n, path) in paths.iter().enumerate() {
            fs::write(path, format!("{}", n % 13)).unwrap();
        }
        let listed: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
        let (events, mut told) = EventSender::channel();
        let sources = read_all(&listed, Transfer::Chunks, &HashCache::off(), &events).unwrap();
        let bytes: u64 = paths.iter().map(|path| size(path)).sum();
        let mut last = None;
        while let Ok(SubmissionMessage::Event(event)) = told.try_recv() {
            last = Some(event);
        }
        let all_done = SubmissionEvent::Hashing { files_done: 20, files: 20, bytes_done: bytes, bytes };
        assert_eq!(last.map(|last| last.event), Some(all_done), "the last step is always told");
        for (n, source) in sources.iter().enumerate() {
            assert_eq!(source.content.hash, BlobHash::of(format!("{}", n % 13).as_bytes()));
        }
        fs::remove_file(&paths[3]).unwrap();
        assert!(read_all(&listed, Transfer::Chunks, &HashCache::off(), &EventSender::silent()).is_err());
    }
}
