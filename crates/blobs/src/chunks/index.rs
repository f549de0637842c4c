//! The place of each chunk: in memory, made from the packs when the store is opened.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use kiln_chunks::{Chunk, FrameHead};
use kiln_types::BlobHash;

use super::growing::GrowingPack;
use super::pack::{ChunkKey, frame_len, part, read_heads, salvage};
use crate::disk::BlobResult;
use crate::{BlobError, Durability};

/// The time by which a pack's file may be older than its promise.
const LAG: Duration = Duration::from_mins(1);

pub(crate) type PackId = u32;

/// The place of a chunk's frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChunkPlace {
    pub pack: PackId,
    /// The begin of its head.
    pub at: u32,
    /// Bytes with the head.
    pub len: u32,
    /// Bytes of the chunk.
    pub size: u32,
}

#[derive(Debug)]
pub(crate) struct Pack {
    /// The time of the write, or of the last promise of one of the chunks.
    pub promised: SystemTime,
    /// The time of the file.
    written: SystemTime,
    /// The pack has no ending yet, and has the name of one that is being written.
    grows: bool,
}

/// 37 to 74 bytes a chunk.
#[derive(Debug, Default)]
pub(crate) struct Index {
    chunks: HashMap<ChunkKey, ChunkPlace>,
    packs: HashMap<PackId, Pack>,
    next: PackId,
}

impl Index {
    /// Reads what the packs in this folder say of themselves. Those that were not ended are, but for those that the
    /// disk has no room for.
    pub fn load(folder: &Path, durability: Durability) -> BlobResult<(Self, Vec<GrowingPack>)> {
        let mut index = Self::default();
        let (mut whole, mut grown, mut torn) = (Vec::new(), Vec::new(), Vec::new());
        for entry in fs::read_dir(folder).map_err(BlobError::io("read", folder))? {
            let path = entry.map_err(BlobError::io("read", folder))?.path();
            let id = path.file_stem().and_then(|stem| stem.to_str());
            let Some(id) = id.and_then(|id| PackId::from_str_radix(id, 16).ok()) else { continue };
            index.next = index.next.max(id.saturating_add(1));
            match path.extension() {
                None => whole.push((id, path)),
                Some(_) => grown.push((id, path)),
            }
        }
        // The youngest pack's word on a chunk counts: it was sent again because an older one was damaged.
        whole.sort();
        for (id, path) in whole {
            let look = BlobError::io("look at", &path);
            let written = fs::metadata(&path).and_then(|meta| meta.modified()).map_err(look)?;
            match read_heads(&path)? {
                Some(heads) => index.insert(id, &heads, written, written + LAG),
                None => torn.push(path),
            }
        }
        let mut unended = Vec::new();
        grown.sort();
        for (id, path) in grown {
            let named = pack_path(folder, id);
            if path != part(&named) || named.exists() {
                torn.push(path);
                continue;
            }
            match GrowingPack::resume(folder, id)? {
                Some(pack) => unended.extend(index.take_up(pack, durability)?),
                None => torn.push(path),
            }
        }
        for path in torn {
            let id = index.reserve();
            match salvage(&path, pack_path(folder, id), durability) {
                Ok(Some(heads)) => index.insert_now(id, &heads),
                Ok(None) => {}
                // A full disk must not keep the store from opening; with room, it is tried the next time.
                Err(BlobError::NoSpace) => {
                    tracing::warn!(pack = %path.display(), "no room to look through a pack that was not finished");
                }
                Err(error) => return Err(error),
            }
        }
        Ok((index, unended))
    }

    /// A pack that an earlier process did not end, unless it ends now.
    fn take_up(&mut self, mut pack: GrowingPack, durability: Durability) -> BlobResult<Option<GrowingPack>> {
        if pack.heads().is_empty() {
            return Ok(None);
        }
        self.grow(pack.id(), pack.heads(), 0);
        match pack.end(durability) {
            Ok(()) => pack.name(self).map(|()| None),
            // A full disk must not keep the store from opening, nor what is safe from being read.
            Err(BlobError::NoSpace) => {
                tracing::warn!(
                    pack = pack.id(),
                    "no room to end a pack of chunks; it is ended once there is"
                );
                Ok(Some(pack))
            }
            Err(error) => Err(error),
        }
    }

    /// The name of a pack that is not there yet.
    pub fn reserve(&mut self) -> PackId {
        let id = self.next;
        self.next += 1;
        id
    }

    /// A pack that was written just now.
    pub fn insert_now(&mut self, id: PackId, heads: &[FrameHead]) {
        let now = SystemTime::now();
        self.insert(id, heads, now, now);
    }

    fn insert(&mut self, id: PackId, heads: &[FrameHead], written: SystemTime, promised: SystemTime) {
        self.packs.insert(id, Pack { promised, written, grows: false });
        self.place(id, heads, 0);
    }

    /// Frames that were put behind the others of a pack that grows, just now. `at`: where they begin.
    pub fn grow(&mut self, id: PackId, heads: &[FrameHead], at: u32) {
        let now = SystemTime::now();
        self.packs.insert(id, Pack { promised: now, written: now, grows: true });
        self.place(id, heads, at);
    }

    /// Marks the pack as ended.
    pub fn end(&mut self, id: PackId) {
        if let Some(pack) = self.packs.get_mut(&id) {
            pack.grows = false;
        }
    }

    fn place(&mut self, id: PackId, heads: &[FrameHead], at: u32) {
        for (hash, place) in places(id, heads, at) {
            self.chunks.insert(ChunkKey::from(&hash), place);
        }
    }

    /// The path of the pack.
    pub fn path(&self, folder: &Path, id: PackId) -> PathBuf {
        let path = pack_path(folder, id);
        if self.packs.get(&id).is_some_and(|pack| pack.grows) { part(&path) } else { path }
    }

    pub fn get(&self, hash: &BlobHash) -> Option<ChunkPlace> {
        self.chunks.get(&ChunkKey::from(hash)).copied()
    }

    /// Returns true if the chunk is there; from now on its pack is as if it had just been written. Adds the pack to
    /// `stale` if the time of its file has to be renewed.
    pub fn promise(&mut self, hash: &BlobHash, now: SystemTime, stale: &mut Vec<PackId>) -> bool {
        let Some(place) = self.get(hash) else { return false };
        let Some(pack) = self.packs.get_mut(&place.pack) else { return false };
        pack.promised = now;
        if now.duration_since(pack.written).is_ok_and(|lag| lag >= LAG) {
            pack.written = now;
            stale.push(place.pack);
        }
        true
    }

    /// The chunk turned out to be damaged: it is not there, so that it is sent again.
    pub fn forget_chunk(&mut self, hash: &BlobHash, place: ChunkPlace) {
        if let Entry::Occupied(entry) = self.chunks.entry(ChunkKey::from(hash))
            && *entry.get() == place
        {
            entry.remove();
        }
    }

    /// Every ended pack that was neither written nor promised since.
    pub fn unpromised(&self, since: SystemTime) -> Vec<PackId> {
        let old = |pack: &Pack| pack.promised < since && !pack.grows;
        self.packs.iter().filter(|(_, pack)| old(pack)).map(|(id, _)| *id).collect()
    }

    pub fn is_unpromised(&self, id: PackId, since: SystemTime) -> bool {
        self.packs.get(&id).is_some_and(|pack| pack.promised < since)
    }

    /// Forgets a pack and the chunks that lie there.
    pub fn remove(&mut self, id: PackId, heads: &[FrameHead]) {
        self.packs.remove(&id);
        for (hash, place) in places(id, heads, 0) {
            self.forget_chunk(&hash, place);
        }
    }

    /// A pack, made of chunks of others. Only those that still lie in one of `from` are now here.
    pub fn insert_moved(&mut self, id: PackId, heads: &[FrameHead], from: &[PackId], promised: SystemTime) {
        self.packs.insert(id, Pack { promised, written: promised, grows: false });
        for (hash, place) in places(id, heads, 0) {
            if let Some(old) = self.chunks.get_mut(&ChunkKey::from(&hash))
                && from.contains(&old.pack)
            {
                *old = place;
            }
        }
    }

    pub fn len(&self) -> usize {
        self.chunks.len()
    }
}

/// The chunks of a pack with these heads, the first of which lies at `at`.
pub(crate) fn places(
    pack: PackId,
    heads: &[FrameHead],
    at: u32,
) -> impl Iterator<Item = (BlobHash, ChunkPlace)> + '_ {
    heads.iter().scan(at, move |end, head| {
        let len = frame_len(head) as u32;
        let Chunk { hash, len: size } = head.chunk();
        let place = ChunkPlace { pack, at: *end, len, size };
        *end += len;
        Some((hash, place))
    })
}

pub(crate) fn pack_path(folder: &Path, id: PackId) -> PathBuf {
    folder.join(format!("{id:08x}"))
}
