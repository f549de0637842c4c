//! The hashes of files that were read before, so that unchanged files are not read again.

use std::{
    fs::{self, File, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use kiln_chunks::Recipe;
use kiln_files::{Access, Durability, write_atomically};
use kiln_types::BlobHash;

/// An entry that was not used for this long is removed.
const KEPT: Duration = Duration::from_secs(60 * 24 * 60 * 60);
/// The time between two searches for old entries, and the precision of the time of last use.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// A file that changed this shortly before it was read may change again and keep its time, because some disks have coarse
/// clocks.
const RACY: Duration = Duration::from_secs(2);
/// The kind and the version of an entry.
const MAGIC: &[u8; 8] = b"kilnhsh1";
/// The file whose time is that of the last search for old entries.
const SWEPT: &str = "swept";

/// The identity of a file without its bytes: it shows whether the file is the one that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileStamp {
    /// Bytes.
    size: u64,
    /// The times of the last change of the bytes and of anything, in seconds since 1970 and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
    inode: u64,
    device: u64,
}

impl FileStamp {
    pub fn of(meta: &Metadata) -> Self {
        Self {
            size: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
            inode: meta.ino(),
            device: meta.dev(),
        }
    }

    /// Reads the stamp of the file at a path.
    pub fn at(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|meta| Self::of(&meta))
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    fn to_bytes(self) -> [u8; 56] {
        let mut bytes = [0; 56];
        let words = [
            self.size,
            self.modified.0 as u64,
            self.modified.1 as u64,
            self.changed.0 as u64,
            self.changed.1 as u64,
            self.inode,
            self.device,
        ];
        for (place, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *place = word.to_le_bytes();
        }
        bytes
    }

    /// Returns whether the file could change after `moment` and keep its stamp.
    fn is_racy(&self, moment: SystemTime) -> bool {
        let since = moment.checked_sub(RACY).and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        let since = since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
        self.modified.0.max(self.changed.0) >= since
    }
}

/// The content of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Content {
    pub hash: BlobHash,
    /// The length in bytes; of a compressed .blend, the decompressed length.
    pub size: u64,
    /// The file is a compressed .blend, and the other fields are those of the decompressed bytes.
    pub packed: bool,
    /// The chunks of the file.
    pub recipe: Option<Recipe>,
}

impl Content {
    const HEAD: usize = 32 + 8 + 1 + 1;

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.hash.as_bytes());
        out.extend_from_slice(&self.size.to_le_bytes());
        out.extend_from_slice(&[u8::from(self.packed), u8::from(self.recipe.is_some())]);
        if let Some(recipe) = &self.recipe {
            out.extend_from_slice(&recipe.to_bytes());
        }
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<{ Self::HEAD }>()?;
        let [hash @ .., s0, s1, s2, s3, s4, s5, s6, s7, packed, split] = *head;
        let recipe = match split {
            0 => None,
            _ => Some(Recipe::from_bytes(rest).ok()?),
        };
        Some(Self {
            hash: BlobHash::from_bytes(hash),
            size: u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]),
            packed: packed != 0,
            recipe,
        })
    }
}

/// A folder with an entry for each file that was read, named by the hash of its path. Several programs may use it at once:
/// entries appear whole and are checked when they are read. Damage costs only time: files are read again.
#[derive(Debug, Clone, Default)]
pub struct HashCache {
    folder: Option<PathBuf>,
}

impl HashCache {
    /// Returns a cache in this folder, which is created with the first entry.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: Some(folder.into()) }
    }

    /// Returns a cache that keeps nothing.
    pub fn off() -> Self {
        Self::default()
    }

    /// Returns the content of the file that had this stamp.
    pub(crate) fn get(&self, path: &Path, stamp: &FileStamp) -> Option<Content> {
        let entry = self.entry(path)?;
        let bytes = fs::read(&entry).ok()?;
        let (body, checksum) = bytes.split_last_chunk::<32>()?;
        if blake3::hash(body) != *checksum {
            return None;
        }
        let body = body.strip_prefix(MAGIC)?.strip_prefix(&stamp.to_bytes())?;
        let content = Content::read(body)?;
        let now = SystemTime::now();
        let age =
            entry.metadata().and_then(|meta| meta.modified()).ok().and_then(|at| now.duration_since(at).ok());
        if age.is_some_and(|age| age > DAY) {
            // Marks the entry as used; if that fails, it only expires early.
            let _ = File::open(&entry).and_then(|file| file.set_modified(now));
        }
        Some(content)
    }

    /// Keeps the content of a file. `read_at` is the time at which reading it began.
    pub(crate) fn put(&self, path: &Path, stamp: &FileStamp, read_at: SystemTime, content: &Content) {
        let Some(entry) = self.entry(path) else { return };
        if stamp.is_racy(read_at) {
            return;
        }
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&stamp.to_bytes());
        content.write(&mut bytes);
        let checksum = blake3::hash(&bytes);
        bytes.extend_from_slice(checksum.as_bytes());
        if let Err(error) = write(&entry, &bytes) {
            tracing::debug!(%error, entry = %entry.display(), "hash not cached");
        }
    }

    /// Removes entries that were not used for long, at most once a day.
    pub(crate) fn sweep(&self) {
        let Some(folder) = &self.folder else { return };
        let mark = folder.join(SWEPT);
        let now = SystemTime::now();
        let older = |meta: Metadata, than| {
            meta.modified().ok().and_then(|at| now.duration_since(at).ok()).is_some_and(|age| age > than)
        };
        let due = mark.metadata().map_or(folder.is_dir(), |meta| older(meta, DAY));
        if !due || fs::write(&mark, []).is_err() {
            return;
        }
        let listed = |folder: &Path| fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
        for entry in listed(folder).flat_map(|shard| listed(&shard.path()).collect::<Vec<_>>()) {
            if entry.metadata().is_ok_and(|meta| older(meta, KEPT)) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn entry(&self, path: &Path) -> Option<PathBuf> {
        let name = BlobHash::of(path.as_os_str().as_encoded_bytes()).to_string();
        Some(self.folder.as_ref()?.join(&name[..2]).join(name))
    }
}

/// Writes an entry without a flush: it can be made again after a loss of power.
fn write(entry: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = entry.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    write_atomically(entry, bytes, Access::Owner, Durability::Ephemeral)
}

#[cfg(test)]
mod tests {
    use kiln_chunks::Chunk;

    use super::*;

    struct Bench {
        dir: tempfile::TempDir,
        cache: HashCache,
        file: PathBuf,
    }

    fn content(bytes: &[u8]) -> Content {
        let recipe = Some(Recipe { chunks: vec![Chunk::of(bytes)] });
        Content { hash: BlobHash::of(bytes), size: bytes.len() as u64, packed: false, recipe }
    }

    /// A file that was changed long ago, and kept in the cache.
    fn bench() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let (cache, file) = (HashCache::new(dir.path().join("hashes")), dir.path().join("wood.png"));
        fs::write(&file, b"wood").unwrap();
        // The time of any change cannot be set back: reading later is as good.
        let later = SystemTime::now() + Duration::from_secs(60);
        cache.put(&file, &FileStamp::at(&file).unwrap(), later, &content(b"wood"));
        Bench { dir, cache, file }
    }

    impl Bench {
        fn found(&self) -> Option<Content> {
            self.cache.get(&self.file, &FileStamp::at(&self.file).unwrap())
        }

        fn entry(&self) -> PathBuf {
            self.cache.entry(&self.file).unwrap()
        }
    }

    #[test]
    fn a_file_that_did_not_change_is_known() {
        let bench = bench();
        assert_eq!(bench.found(), Some(content(b"wood")));
        let unsplit = Content { recipe: None, packed: true, ..content(b"wood") };
        let later = SystemTime::now() + Duration::from_secs(60);
        bench.cache.put(&bench.file, &FileStamp::at(&bench.file).unwrap(), later, &unsplit);
        assert_eq!(bench.found(), Some(unsplit));
    }

    #[test]
    fn a_file_that_changed_or_was_replaced_is_not() {
        let bench = bench();
        let time = bench.file.metadata().unwrap().modified().unwrap();
        fs::write(&bench.file, b"dark").unwrap();
        File::open(&bench.file).unwrap().set_modified(time).unwrap();
        assert_eq!(bench.found(), None, "the same size and time, but written to");
        let other = bench.dir.path().join("other");
        fs::write(&other, b"wood").unwrap();
        fs::rename(other, &bench.file).unwrap();
        assert_eq!(bench.found(), None, "another file of that name");
    }

    #[test]
    fn what_changed_just_before_it_was_read_is_not_believed() {
        let bench = bench();
        fs::write(&bench.file, b"new").unwrap();
        bench.cache.put(
            &bench.file,
            &FileStamp::at(&bench.file).unwrap(),
            SystemTime::now(),
            &content(b"new"),
        );
        assert_eq!(bench.found(), None);
    }

    #[test]
    fn damaged_entries_are_no_entries() {
        let bench = bench();
        let good = fs::read(bench.entry()).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(bench.entry(), &bad).unwrap();
            assert_eq!(bench.found(), None, "byte {at}");
            fs::write(bench.entry(), &good[..at]).unwrap();
            assert_eq!(bench.found(), None, "cut at {at}");
        }
        fs::write(bench.entry(), &good).unwrap();
        assert!(bench.found().is_some());
    }

    #[test]
    fn what_nobody_used_for_long_is_forgotten() {
        let bench = bench();
        let age = |path: &Path, age| {
            File::open(path).unwrap().set_modified(SystemTime::now() - age).unwrap();
        };
        age(&bench.entry(), KEPT - DAY);
        bench.cache.sweep();
        assert!(bench.entry().exists());
        age(&bench.entry(), KEPT + DAY);
        bench.cache.sweep();
        assert!(bench.entry().exists(), "looked for a moment ago");
        age(&bench.dir.path().join("hashes").join(SWEPT), DAY * 2);
        bench.cache.sweep();
        assert!(!bench.entry().exists());
    }

    #[test]
    fn use_keeps_an_entry() {
        let bench = bench();
        let old = SystemTime::now() - KEPT * 2;
        File::open(bench.entry()).unwrap().set_modified(old).unwrap();
        assert!(bench.found().is_some());
        bench.cache.sweep();
        assert!(bench.entry().exists());
    }

    #[test]
    fn a_cache_that_cannot_be_written_is_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a");
        fs::write(&file, b"a").unwrap();
        let stamp = FileStamp::at(&file).unwrap();
        for cache in [HashCache::new(file.join("below a file")), HashCache::off()] {
            cache.put(&file, &stamp, SystemTime::now() + Duration::from_secs(60), &content(b"a"));
            cache.sweep();
            assert_eq!(cache.get(&file, &stamp), None);
        }
    }
}
