//! Packs that grow: batches of frames behind each other, each safe, and readable, before the next.
//!
//! Such a pack is `<name>.part` until it ends. Behind its last flush lies what was acknowledged to nobody. That it has
//! an ending is never believed before it has its name: bytes that somebody sent could look like one.

use std::fs::{self, File};
use std::io::{self, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use kiln_chunks::{Frame, FrameError, FrameHead, Unpacker};

use super::index::{Index, PackId, pack_path};
use super::pack::{PACK_LIMIT, ending, frame_len, part};
use crate::disk::{BlobResult, make_safe, sync_folder};
use crate::{BlobError, Durability};

/// Frames in such a pack, about, at most: a pack of tiny ones must not take minutes to look through.
const FRAMES: usize = 1 << 16;

#[derive(Debug)]
pub(crate) struct GrowingPack {
    id: PackId,
    file: File,
    /// The path once it has ended.
    path: PathBuf,
    /// Of the frames that are safe.
    heads: Vec<FrameHead>,
    /// Bytes of those.
    len: u64,
    begun: SystemTime,
}

impl GrowingPack {
    pub fn create(folder: &Path, id: PackId) -> BlobResult<Self> {
        let path = pack_path(folder, id);
        let part = part(&path);
        let file = File::options().write(true).create_new(true).open(&part);
        let file = file.map_err(BlobError::io("create", &part))?;
        Ok(Self { id, file, path, heads: Vec::new(), len: 0, begun: SystemTime::now() })
    }

    /// Resumes a pack of an earlier process: all up to the last frame that is whole. Nothing if a damaged one comes before
    /// that.
    pub fn resume(folder: &Path, id: PackId) -> BlobResult<Option<Self>> {
        let path = pack_path(folder, id);
        let part = part(&path);
        let file = match File::options().read(true).write(true).open(&part) {
            // A pack of another kind that was just about to get its name.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(None),
            file => file.map_err(BlobError::io("open", &part))?,
        };
        let mut reader = BufReader::with_capacity(1 << 20, &file);
        let mut unpacker = Unpacker::new();
        let (mut heads, mut whole) = (Vec::new(), 0);
        loop {
            match Frame::read_from(&mut reader) {
                Ok(Some(frame)) => {
                    heads.push(frame.head());
                    if unpacker.unpack(&frame).is_ok() {
                        if whole + 1 < heads.len() {
                            return Ok(None);
                        }
                        whole += 1;
                    }
                }
                Err(FrameError::Io(error)) => return Err(BlobError::io("read", &part)(error)),
                Ok(None) | Err(_) => break,
            }
        }
        heads.truncate(whole);
        let len = heads.iter().map(frame_len).sum();
        Ok(Some(Self { id, file, path, heads, len, begun: SystemTime::now() }))
    }

    pub fn id(&self) -> PackId {
        self.id
    }

    pub fn heads(&self) -> &[FrameHead] {
        &self.heads
    }

    /// Bytes of frames that are safe.
    pub fn len(&self) -> u32 {
        // Far below: a pack is full long before.
        u32::try_from(self.len).unwrap_or(u32::MAX)
    }

    pub fn begun(&self) -> SystemTime {
        self.begun
    }

    pub fn is_full(&self) -> bool {
        self.len >= PACK_LIMIT || self.heads.len() >= FRAMES
    }

    /// Puts a batch of frames behind the others, safe once this returns. After an error the pack may only end.
    pub fn append(&mut self, frames: &[u8], heads: &[FrameHead], durability: Durability) -> BlobResult<()> {
        let write = |file: &mut File| {
            file.seek(SeekFrom::Start(self.len))?;
            file.write_all(frames)?;
            if durability == Durability::Durable { file.sync_data() } else { Ok(()) }
        };
        write(&mut self.file).map_err(BlobError::io("write", &self.path))?;
        if self.heads.is_empty() {
            sync_folder(self.path.parent().unwrap_or(Path::new(".")), durability)?;
        }
        self.heads.extend_from_slice(heads);
        self.len += frames.len() as u64;
        Ok(())
    }

    /// Cuts off what is not safe, and gives the pack its ending; its name comes with [`GrowingPack::name`]. May be
    /// tried again.
    pub fn end(&mut self, durability: Durability) -> BlobResult<()> {
        let mut write = || {
            self.file.set_len(self.len)?;
            self.file.seek(SeekFrom::Start(self.len))?;
            self.file.write_all(&ending(&self.heads))?;
            if durability == Durability::Durable { self.file.sync_all() } else { Ok(()) }
        };
        write().map_err(BlobError::io("write", &self.path))
    }

    /// Gives an ended pack its name, with the index held: no reader may look for it between the two. After a loss of
    /// power either name is right.
    pub fn name(&self, index: &mut Index) -> BlobResult<()> {
        fs::rename(part(&self.path), &self.path).map_err(BlobError::io("write", &self.path))?;
        index.end(self.id);
        make_safe(&self.file, &self.path, Durability::Ephemeral)
    }
}

impl Drop for GrowingPack {
    fn drop(&mut self) {
        if self.heads.is_empty() {
            // What cannot be removed now is looked through when the store is next opened.
            let _ = fs::remove_file(part(&self.path));
        }
    }
}

#[cfg(test)]
impl GrowingPack {
    /// From now on writing goes well, and flushing fails.
    pub fn break_flush(&mut self) {
        self.file = File::options().write(true).open("/dev/null").unwrap();
    }
}

#[cfg(test)]
mod tests {
    use kiln_chunks::{Coding, pack};

    use super::super::pack::{PackReader, read_heads};
    use super::*;

    /// Frames of these chunks, in batches, in a pack that has its ending and not its name.
    fn ended(folder: &Path, batches: &[&[Frame]]) -> Vec<u8> {
        let mut pack = GrowingPack::create(folder, 3).unwrap();
        for batch in batches {
            let mut frames = Vec::new();
            batch.iter().try_for_each(|frame| frame.write_to(&mut frames)).unwrap();
            let heads: Vec<_> = batch.iter().map(Frame::head).collect();
            pack.append(&frames, &heads, Durability::Durable).unwrap();
        }
        pack.end(Durability::Durable).unwrap();
        fs::read(folder.join("00000003.part")).unwrap()
    }

    /// The number of these frames that are there, all of them at the front, once the store is opened on such bytes.
    fn opened(bytes: &[u8], frames: &[Frame]) -> usize {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        fs::write(folder.join("00000003.part"), bytes).unwrap();
        let mut counts = Vec::new();
        for _ in 0..2 {
            let (index, unended) = Index::load(folder, Durability::Ephemeral).unwrap();
            assert!(unended.is_empty() && !folder.join("00000003.part").exists());
            assert!(fs::read_dir(folder).unwrap().count() <= 1);
            let there = frames.iter().take_while(|frame| index.get(&frame.chunk().hash).is_some()).count();
            assert_eq!(index.len(), there);
            for frame in &frames[..there] {
                let place = index.get(&frame.chunk().hash).unwrap();
                let path = index.path(folder, place.pack);
                let read =
                    PackReader::default().read(&path, place.at.into(), place.len as usize).unwrap().unwrap();
                assert_eq!(Frame::read_from(&mut &read[..]).unwrap().unwrap(), *frame);
            }
            counts.push(there);
        }
        assert_eq!(counts[0], counts[1], "opening it again changes nothing");
        counts[0]
    }

    fn frames() -> Vec<Frame> {
        (0..7_u8).map(|number| pack(&vec![number; 30 + usize::from(number) * 9])).collect()
    }

    #[test]
    fn a_pack_that_is_cut_off_at_any_byte_keeps_what_was_whole_before() {
        let frames = frames();
        let folder = tempfile::tempdir().unwrap();
        let bytes = ended(folder.path(), &[&frames[..1], &frames[1..5], &frames[5..]]);
        let ends: Vec<_> = frames
            .iter()
            .scan(0, |end, frame| {
                *end += frame.len();
                Some(*end)
            })
            .collect();
        for cut in 0..=bytes.len() {
            let whole = ends.iter().filter(|end| **end <= cut).count();
            assert_eq!(opened(&bytes[..cut], &frames), whole, "cut off at {cut}");
            // A disk that had made room for more and not written it.
            if cut.is_multiple_of(7) {
                let zeros = [&bytes[..cut], &[0; 100]].concat();
                assert_eq!(opened(&zeros, &frames), whole, "zeros from {cut}");
            }
        }
    }

    #[test]
    fn what_is_whole_behind_a_damaged_frame_is_kept() {
        let frames = frames();
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = ended(folder.path(), &[&frames]);
        bytes[frames[0].len() + FrameHead::LEN + 2] ^= 1;
        let rest = [&frames[..1], &frames[2..]].concat();
        assert_eq!(opened(&bytes, &rest), rest.len());
    }

    /// A client that sends bytes which look like an ending cannot make others lose theirs.
    #[test]
    fn an_ending_that_was_sent_is_not_believed() {
        let first = pack(b"somebody's frame");
        // As if the pack were one frame, up to here and with the head of this one.
        let head = (0..=255_u8)
            .map(|seed| {
                let noise: Vec<u8> = (0..first.len()).map(|at| (at as u8 ^ seed).wrapping_mul(167)).collect();
                pack(&noise).head()
            })
            .find(|head| head.coding() == Coding::Raw)
            .unwrap();
        assert_eq!(frame_len(&head) as usize, first.len() + FrameHead::LEN);
        let lie = pack(&ending(&[head]));
        assert_eq!(lie.head().coding(), Coding::Raw);
        let mut bytes = Vec::new();
        [&first, &lie].into_iter().try_for_each(|frame| frame.write_to(&mut bytes)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("believed");
        fs::write(&path, &bytes).unwrap();
        assert_eq!(read_heads(&path).unwrap().unwrap(), [head], "it would be, of a pack with its name");
        assert_eq!(opened(&bytes, &[first, lie]), 2);
    }
}
