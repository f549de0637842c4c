//! Collection: what no blob needs, and is none that is needed, goes. Mark over the recipes, sweep over the packs.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::PoisonError;
use std::time::SystemTime;

use kiln_chunks::{Frame, FrameHead, Unpacker};
use kiln_types::BlobHash;

use super::index::{PackId, pack_path, places};
use super::pack::{PACK_LIMIT, PackReader, PackWriter, frame_len, read_heads};
use super::{ChunkStore, Inner};
use crate::disk::{BlobResult, remove, sync_folder};
use crate::{BlobError, FreedSpace};

/// The chunks that are needed: the start of each one's hash. Two that start alike keep each other, which costs
/// nothing but room.
struct Marks(Vec<u64>);

impl Marks {
    fn new(mut all: Vec<u64>) -> Self {
        all.sort_unstable();
        all.dedup();
        Self(all)
    }

    fn has(&self, hash: &BlobHash) -> bool {
        self.0.binary_search(&prefix(hash)).is_ok()
    }
}

fn prefix(hash: &BlobHash) -> u64 {
    let [p @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = *hash.as_bytes();
    u64::from_be_bytes(p)
}

/// The chunks that stay: those of blobs that do, and those that are blobs themselves.
struct Live<'a> {
    marks: Marks,
    needed: &'a dyn Fn(&BlobHash) -> bool,
}

impl Live<'_> {
    fn has(&self, hash: &BlobHash) -> bool {
        self.marks.has(hash) || (self.needed)(hash)
    }
}

/// A pack that is mostly dead.
struct Waste {
    id: PackId,
    heads: Vec<FrameHead>,
    size: u64,
}

/// One collection.
pub(crate) struct Sweep<'a> {
    pub needed: &'a dyn Fn(&BlobHash) -> bool,
    pub promised_since: SystemTime,
    /// Nothing is removed, only counted.
    pub dry: bool,
}

impl ChunkStore {
    /// Removes recipes that are not needed, and then packs; never what was put or promised since. Blocks.
    pub(crate) fn sweep(&self, sweep: &Sweep<'_>) -> BlobResult<FreedSpace> {
        let inner = &self.inner;
        let _one = inner.sweeping.lock().unwrap_or_else(PoisonError::into_inner);
        inner.small.end_older(inner, sweep.promised_since);
        let mut freed = FreedSpace::default();
        let live = Live { marks: inner.mark(sweep, &mut freed)?, needed: sweep.needed };
        let unpromised = inner.index().unpromised(sweep.promised_since);
        let mut wasted = Vec::new();
        for id in unpromised {
            let Some(waste) = inner.look(id)? else { continue };
            let used: u64 = inner.used(&waste, &live).iter().map(|(head, _)| frame_len(head)).sum();
            if used >= waste.size / 2 {
                continue;
            }
            if sweep.dry {
                freed.bytes += waste.size - used;
            } else if used == 0 {
                freed.bytes += inner.remove_pack(&waste, sweep.promised_since)?;
            } else {
                wasted.push(waste);
            }
        }
        inner.rewrite(wasted, &live, sweep.promised_since, &mut freed)?;
        Ok(freed)
    }
}

impl Inner {
    /// Removes recipes, and gathers the chunks of those that stay. A recipe that is put meanwhile has its packs
    /// promised.
    fn mark(&self, sweep: &Sweep<'_>, freed: &mut FreedSpace) -> BlobResult<Marks> {
        let since = sweep.promised_since;
        let mut all = Vec::new();
        let mut touched = BTreeSet::new();
        for (hash, meta) in self.walk_recipes()? {
            let promised = meta.modified().is_ok_and(|at| at >= since);
            if !promised && !(sweep.needed)(&hash) {
                let goes = if sweep.dry {
                    self.is_forgotten(&hash, since)?
                } else {
                    self.remove_forgotten(&hash, since)?
                };
                if goes {
                    freed.blobs += 1;
                    touched.insert(hash.as_bytes()[0]);
                    continue;
                }
            }
            if let Some(recipe) = self.stored_recipe(&hash)? {
                all.extend(recipe.chunks.iter().map(|chunk| prefix(&chunk.hash)));
            }
        }
        // After a loss of power, no recipe may come back whose chunks are gone.
        for shard in touched {
            sync_folder(&self.recipes.join(format!("{shard:02x}")), self.durability)?;
        }
        Ok(Marks::new(all))
    }

    fn look(&self, id: PackId) -> BlobResult<Option<Waste>> {
        let path = pack_path(&self.packs, id);
        // One that cannot be read is looked through when the store is next opened.
        let Some(heads) = read_heads(&path)? else { return Ok(None) };
        let size = fs::metadata(&path).map_err(BlobError::io("look at", &path))?.len();
        Ok(Some(Waste { id, heads, size }))
    }

    /// The frames of a pack that are needed, and needed from here, with where they lie.
    fn used(&self, waste: &Waste, live: &Live<'_>) -> Vec<(FrameHead, u64)> {
        let all = waste.heads.iter().zip(places(waste.id, &waste.heads, 0));
        let mut used: Vec<_> = all.filter(|(_, (hash, _))| live.has(hash)).collect();
        let index = self.index();
        used.retain(|(_, (hash, place))| index.get(hash) == Some(*place));
        used.into_iter().map(|(head, (_, place))| (*head, u64::from(place.at))).collect()
    }

    /// Bytes, if it went.
    fn remove_pack(&self, waste: &Waste, since: SystemTime) -> BlobResult<u64> {
        let mut index = self.index();
        if !index.is_unpromised(waste.id, since) {
            return Ok(0);
        }
        index.remove(waste.id, &waste.heads);
        drop(index);
        remove(&pack_path(&self.packs, waste.id))?;
        Ok(waste.size)
    }

    /// Puts what is needed of these packs into new ones. Each old one stays as it is where it was promised
    /// meanwhile; then what was copied of it lies there twice, until the next time.
    fn rewrite(
        &self,
        wasted: Vec<Waste>,
        live: &Live<'_>,
        since: SystemTime,
        freed: &mut FreedSpace,
    ) -> BlobResult<()> {
        let mut wasted = wasted.into_iter().peekable();
        while wasted.peek().is_some() {
            let (mut copied, mut bytes) = (Vec::new(), 0);
            while let Some(waste) = wasted.next_if(|_| bytes < PACK_LIMIT) {
                bytes += self.used(&waste, live).iter().map(|(head, _)| frame_len(head)).sum::<u64>();
                copied.push(waste);
            }
            // Until the old ones go, both are there.
            let _room = match self.space.get().map(|space| space.reserve(bytes)).transpose() {
                Ok(room) => room,
                Err(error) => {
                    tracing::warn!(%error, bytes, "half-empty packs stay until there is room to write them again");
                    return Ok(());
                }
            };
            let id = self.index().reserve();
            let mut writer = PackWriter::create(pack_path(&self.packs, id))?;
            for waste in &copied {
                self.copy_used(waste, live, &mut writer)?;
            }
            let heads = writer.finish(self.durability)?;
            let path = pack_path(&self.packs, id);
            let size = fs::metadata(&path).map_err(BlobError::io("look at", &path))?.len();
            let mut index = self.index();
            copied.retain(|waste| index.is_unpromised(waste.id, since));
            let from: Vec<_> = copied.iter().map(|waste| waste.id).collect();
            index.insert_moved(id, &heads, &from, since);
            for waste in &copied {
                index.remove(waste.id, &waste.heads);
            }
            drop(index);
            let mut gone = 0;
            for waste in copied {
                remove(&pack_path(&self.packs, waste.id))?;
                gone += waste.size;
            }
            freed.bytes += gone.saturating_sub(size);
        }
        Ok(())
    }

    fn copy_used(&self, waste: &Waste, live: &Live<'_>, writer: &mut PackWriter) -> BlobResult<()> {
        let path = pack_path(&self.packs, waste.id);
        let (mut reader, mut unpacker) = (PackReader::default(), Unpacker::new());
        for (head, at) in self.used(waste, live) {
            match read_frame(&mut reader, &path, at, head)? {
                Some(frame) if unpacker.unpack(&frame).is_ok() => writer.push(&frame)?,
                // It goes with its pack; a reader of its blob gets an error.
                _ => {
                    tracing::warn!(chunk = %head.chunk().hash, pack = %path.display(), "a stored chunk was damaged")
                }
            }
        }
        Ok(())
    }
}

fn read_frame(reader: &mut PackReader, path: &Path, at: u64, head: FrameHead) -> BlobResult<Option<Frame>> {
    let stored = reader.read(path, at + FrameHead::LEN as u64, head.stored())?;
    Ok(stored.and_then(|stored| Frame::join(head, stored.into()).ok()))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::stream;
    use kiln_chunks::pack;

    use super::*;
    use crate::{Durability, StreamError};

    #[tokio::test]
    async fn packs_are_rewritten_only_where_there_is_room_for_both() {
        let folder = tempfile::tempdir().unwrap();
        let store = ChunkStore::open(folder.path(), Durability::Ephemeral).await.unwrap();
        // Of three chunks in one pack one is needed.
        let frames = [1, 2, 3].map(|byte| {
            let mut bytes = vec![0; 9000];
            blake3::Hasher::new().update(&[byte]).finalize_xof().fill(&mut bytes);
            pack(&bytes)
        });
        let hashes = frames.each_ref().map(|frame| frame.chunk().hash);
        let mut body = Vec::new();
        frames.iter().try_for_each(|frame| frame.write_to(&mut body)).unwrap();
        store.put(stream::iter([Ok::<_, StreamError>(Bytes::from(body))])).await.unwrap();
        let needed = move |hash: &BlobHash| *hash == hashes[0];
        let sweep = || Sweep { needed: &needed, promised_since: SystemTime::now(), dry: false };
        let space = crate::DiskSpace::of(folder.path(), 0);
        store.keep_free(space.clone());
        // More is promised to others than there is.
        *space.promised() = u64::MAX;
        assert_eq!(store.sweep(&sweep()).unwrap(), FreedSpace::default());
        assert_eq!(store.count(), 3);
        *space.promised() = 0;
        assert!(store.sweep(&sweep()).unwrap().bytes > 9000);
        assert_eq!(store.count(), 1);
    }

    #[tokio::test]
    async fn a_pack_that_is_promised_after_it_was_judged_stays() {
        let folder = tempfile::tempdir().unwrap();
        let store = ChunkStore::open(folder.path(), Durability::Ephemeral).await.unwrap();
        let frames = [pack(&[1; 9000]), pack(&[2; 9000])];
        let hashes = frames.each_ref().map(|frame| frame.chunk().hash);
        let mut body = Vec::new();
        frames.iter().try_for_each(|frame| frame.write_to(&mut body)).unwrap();
        let put = async || {
            let body = stream::iter([Ok::<_, StreamError>(Bytes::from(body.clone()))]);
            store.put(body).await.unwrap();
        };
        put().await;
        let first_needed = Live { marks: Marks::new(vec![prefix(&hashes[0])]), needed: &|_| false };
        let inner = &store.inner;
        let judge = |id| inner.look(id).unwrap().unwrap();
        let since = SystemTime::now();
        assert_eq!(inner.index().unpromised(since), [0]);
        let judged = [judge(0), judge(0)];
        // Somebody asks for the second chunk just now.
        assert!(store.missing(vec![hashes[1]]).await.unwrap().is_empty());
        let [removed, rewritten] = judged;
        assert_eq!(inner.remove_pack(&removed, since).unwrap(), 0);
        inner.rewrite(vec![rewritten], &first_needed, since, &mut FreedSpace::default()).unwrap();
        assert!(store.missing(hashes.to_vec()).await.unwrap().is_empty());
        // With nobody asking, it goes; the chunk that is needed lies elsewhere.
        let since = SystemTime::now();
        inner.rewrite(vec![judge(0)], &first_needed, since, &mut FreedSpace::default()).unwrap();
        assert_eq!(store.missing(hashes.to_vec()).await.unwrap(), [hashes[1]]);
        assert!(!pack_path(&inner.packs, 0).exists());
    }
}
