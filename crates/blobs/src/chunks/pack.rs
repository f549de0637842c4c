//! Packs: files of many chunks, written once.
//!
//! A pack is frames, one after another; then, so that opening a store reads little, their heads once more; then
//! how many they are and the hash of those heads. Without a right ending, the frames are found one by one.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use kiln_chunks::{Frame, FrameError, FrameHead, Unpacker};
use kiln_types::BlobHash;

use crate::disk::{BlobResult, make_safe, move_in, remove};
use crate::{BlobError, Durability};

/// Bytes of frames in a pack, about, at most.
pub(crate) const PACK_LIMIT: u64 = 256 << 20;

/// Bytes of small frames that are written at once; a larger one is not copied before.
const GATHERED: usize = 128 << 10;

/// The hash of the heads, how many they are (8 bytes, little endian), the mark.
const ENDING: usize = 48;
const MARK: &[u8; 8] = b"KILNPACK";

/// A pack being written, at `<name>.part`; removed when it is dropped before it was finished.
#[derive(Debug)]
pub(crate) struct PackWriter {
    file: BufWriter<File>,
    path: PathBuf,
    heads: Vec<FrameHead>,
    len: u64,
    finished: bool,
}

impl PackWriter {
    /// `path`: its name once it is finished.
    pub fn create(path: PathBuf) -> BlobResult<Self> {
        let part = part(&path);
        let file = File::options()
            .write(true)
            .create_new(true)
            .open(&part)
            .map_err(BlobError::io("create", &part))?;
        let file = BufWriter::with_capacity(GATHERED, file);
        Ok(Self { file, path, heads: Vec::new(), len: 0, finished: false })
    }

    pub fn push(&mut self, frame: &Frame) -> BlobResult<()> {
        frame.write_to(&mut self.file).map_err(BlobError::io("write", &self.path))?;
        self.heads.push(frame.head());
        self.len += frame.len() as u64;
        Ok(())
    }

    /// Bytes of frames.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Gives the pack its name, and returns the heads of its frames in their order.
    pub fn finish(mut self, durability: Durability) -> BlobResult<Vec<FrameHead>> {
        let mut write = || {
            self.file.write_all(&ending(&self.heads))?;
            self.file.flush()
        };
        write().map_err(BlobError::io("write", &self.path))?;
        make_safe(self.file.get_ref(), &self.path, durability)?;
        move_in(&part(&self.path), &self.path, durability)?;
        self.finished = true;
        Ok(std::mem::take(&mut self.heads))
    }
}

impl Drop for PackWriter {
    fn drop(&mut self) {
        if !self.finished {
            // What cannot be removed now is looked through when the store is next opened.
            let _ = fs::remove_file(part(&self.path));
        }
    }
}

/// The ending of a pack with these frames.
pub(crate) fn ending(heads: &[FrameHead]) -> Vec<u8> {
    let mut bytes: Vec<u8> = heads.iter().flat_map(|head| head.to_bytes()).collect();
    let hash = blake3::hash(&bytes);
    bytes.extend_from_slice(hash.as_bytes());
    bytes.extend_from_slice(&(heads.len() as u64).to_le_bytes());
    bytes.extend_from_slice(MARK);
    bytes
}

pub(crate) fn part(path: &Path) -> PathBuf {
    path.with_extension("part")
}

/// The heads of a pack's frames, in their order; nothing where its ending is not right.
pub(crate) fn read_heads(path: &Path) -> BlobResult<Option<Vec<FrameHead>>> {
    let mut file = File::open(path).map_err(BlobError::io("open", path))?;
    let read = BlobError::io("read", path);
    match heads_of(&mut file) {
        Ok(heads) => Ok(heads),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(read(error)),
    }
}

fn heads_of(file: &mut File) -> io::Result<Option<Vec<FrameHead>>> {
    let len = file.metadata()?.len();
    let Some(body) = len.checked_sub(ENDING as u64) else { return Ok(None) };
    let mut ending = [0; ENDING];
    file.seek(SeekFrom::Start(body))?;
    file.read_exact(&mut ending)?;
    let [hash @ .., c0, c1, c2, c3, c4, c5, c6, c7, _, _, _, _, _, _, _, _] = ending;
    let count = u64::from_le_bytes([c0, c1, c2, c3, c4, c5, c6, c7]);
    let table = count.checked_mul(FrameHead::LEN as u64).filter(|table| *table <= body);
    let (Some(table), true) = (table, ending.ends_with(MARK)) else { return Ok(None) };
    file.seek(SeekFrom::Start(body - table))?;
    let mut bytes = vec![0; table as usize];
    file.read_exact(&mut bytes)?;
    if *blake3::hash(&bytes).as_bytes() != hash {
        return Ok(None);
    }
    let (entries, _) = bytes.as_chunks();
    let heads: std::result::Result<Vec<_>, FrameError> = entries.iter().map(FrameHead::parse).collect();
    let fills = |heads: &Vec<FrameHead>| heads.iter().map(frame_len).sum::<u64>() == body - table;
    Ok(heads.ok().filter(fills))
}

/// Bytes of the frame with this head.
pub(crate) fn frame_len(head: &FrameHead) -> u64 {
    (FrameHead::LEN + head.stored()) as u64
}

/// A pack that was not finished, or whose ending is damaged: what is whole in it goes into a new one, and the
/// old one is removed. The heads of the new one, unless nothing was whole.
pub(crate) fn salvage(
    from: &Path,
    to: PathBuf,
    durability: Durability,
) -> BlobResult<Option<Vec<FrameHead>>> {
    let file = File::open(from).map_err(BlobError::io("open", from))?;
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut writer = PackWriter::create(to)?;
    let mut unpacker = Unpacker::new();
    loop {
        let frame = match Frame::read_from(&mut reader) {
            Ok(Some(frame)) => frame,
            Err(FrameError::Io(error)) => return Err(BlobError::io("read", from)(error)),
            Ok(None) | Err(_) => break,
        };
        if unpacker.unpack(&frame).is_ok() {
            writer.push(&frame)?;
        }
    }
    let heads = if writer.len() == 0 { None } else { Some(writer.finish(durability)?) };
    tracing::warn!(
        pack = %from.display(),
        chunks = heads.as_ref().map_or(0, Vec::len),
        "a pack of chunks was not finished; what is whole in it is kept"
    );
    remove(from)?;
    Ok(heads)
}

/// Reads frames where they lie; keeps the last pack open.
#[derive(Debug, Default)]
pub(crate) struct PackReader {
    open: Option<(PathBuf, File)>,
}

impl PackReader {
    /// `len` bytes from `at`. Nothing where the pack is gone.
    pub fn read(&mut self, path: &Path, at: u64, len: usize) -> BlobResult<Option<Vec<u8>>> {
        let file = match &mut self.open {
            Some((open, file)) if open == path => file,
            open => match File::open(path) {
                Ok(file) => &mut open.insert((path.to_owned(), file)).1,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(BlobError::io("open", path)(error)),
            },
        };
        let mut bytes = vec![0; len];
        file.seek(SeekFrom::Start(at))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(BlobError::io("read", path))?;
        Ok(Some(bytes))
    }
}

/// The start of a chunk's hash: as many bits as nobody finds two chunks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ChunkKey([u8; 16]);

impl From<&BlobHash> for ChunkKey {
    fn from(hash: &BlobHash) -> Self {
        let [key @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = *hash.as_bytes();
        Self(key)
    }
}
