//! A new file from chunks of cached ones and from those that are fetched.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use kiln_chunks::{Chunk, Frame, Recipe, Unpacker};
use kiln_types::BlobHash;

use super::{Cache, Inner, shared};
use crate::chunks::PackReader;
use crate::disk::{BlobResult, Draft, blocking, pour_frames};
use crate::ordered_chunks::OrderedChunks;
use crate::{BlobError, StreamError};

impl Cache {
    /// Those of a blob's chunks that no cached file is known to hold, each once, in their order.
    pub fn lacking(&self, recipe: &Recipe) -> Vec<BlobHash> {
        let index = self.inner.lock();
        let mut seen = HashSet::new();
        let lacking = recipe.chunks.iter().filter(|chunk| index.find(chunk).is_none());
        lacking.filter(|chunk| seen.insert(chunk.hash)).map(|chunk| chunk.hash).collect()
    }

    /// Makes the blob of chunks that cached files hold and of those that `fetch` brings: it is told which are
    /// lacking, and gives their frames, in any order. The blob is checked by its hash, and with it all that is in it;
    /// a cached file that turns out to be damaged is dropped. Else as [`Cache::put_stream`]. Returns the bytes of
    /// the frames that were fetched.
    ///
    /// # Errors
    /// [`BlobError::Lacking`] where not all that was asked for came, [`BlobError::Frame`],
    /// [`BlobError::Mismatch`], [`BlobError::TooLarge`] above `limit` bytes, [`BlobError::NoSpace`],
    /// [`BlobError::Stream`]; nothing is left of it then.
    pub async fn assemble<F, S, E>(
        &self,
        expected: BlobHash,
        recipe: Recipe,
        limit: u64,
        fetch: impl FnOnce(Vec<BlobHash>) -> F + Send,
    ) -> BlobResult<u64>
    where
        F: Future<Output = std::result::Result<S, E>> + Send,
        S: Stream<Item = std::result::Result<Bytes, E>> + Send,
        E: Into<StreamError>,
    {
        if recipe.size() > limit {
            return Err(BlobError::TooLarge { limit });
        }
        let inner = self.inner.clone();
        let (lacking, assembling) = blocking(move || Assembling::begin(inner, recipe)).await?;
        let assembling = if lacking.is_empty() {
            assembling
        } else {
            let frames = fetch(lacking).await.map_err(|error| BlobError::Stream(error.into()))?;
            let (assembling, broken) = pour_frames(frames, assembling, Assembling::take).await?;
            match broken {
                Some(error) => return Err(error),
                None => assembling,
            }
        };
        let (fetched, len) = blocking(move || assembling.finish(expected)).await?;
        self.added(expected, len).await?;
        Ok(fetched)
    }
}

struct Assembling {
    inner: Arc<Inner>,
    draft: Draft,
    /// In order, a file is written in large pieces and hashed while its bytes are at hand.
    turns: OrderedChunks,
    /// The positions of each chunk that is missing.
    wanted: HashMap<BlobHash, Vec<u64>>,
    unpacker: Unpacker,
    fetched: u64,
}

impl Assembling {
    /// Takes from cached files what they have; returns what is lacking, in the order of the file.
    fn begin(inner: Arc<Inner>, recipe: Recipe) -> BlobResult<(Vec<BlobHash>, Self)> {
        let mut draft = Draft::create(inner.store.draft_path())?;
        let mut source = PackReader::default();
        let mut lacking = Vec::new();
        let mut wanted: HashMap<_, Vec<_>> = HashMap::new();
        let mut turns = OrderedChunks::new(recipe.clone(), &inner.room);
        for (at, chunk) in recipe.offsets() {
            let known = inner.lock().find(&chunk).filter(|_| !wanted.contains_key(&chunk.hash));
            let bytes = match known {
                Some((file, from)) => inner.read_chunk(&mut source, &file, from, &chunk)?,
                None => None,
            };
            match bytes {
                Some(bytes) => {
                    draft.place(at, &bytes)?;
                    turns.pass(&chunk);
                }
                None => {
                    let places = wanted.entry(chunk.hash).or_default();
                    if places.is_empty() {
                        lacking.push(chunk.hash);
                    }
                    places.push(at);
                }
            }
        }
        let unpacker = Unpacker::new();
        Ok((lacking, Self { inner, draft, turns, wanted, unpacker, fetched: 0 }))
    }

    fn take(&mut self, frames: Vec<Frame>) -> BlobResult<()> {
        for frame in frames {
            // One that nobody asked for, or that came twice.
            let Some(places) = self.wanted.remove(&frame.chunk().hash) else { continue };
            // A scene has many a chunk in several places.
            let bytes = self.unpacker.unpack_unchecked(&frame)?;
            if !self.turns.came(frame.chunk(), bytes, |at, bytes| self.draft.place(at, bytes))? {
                self.turns.pass(&frame.chunk());
                for at in places {
                    self.draft.place(at, bytes)?;
                }
            }
            self.fetched += frame.len() as u64;
        }
        Ok(())
    }

    /// Bytes that were fetched, bytes of the blob.
    fn finish(mut self, expected: BlobHash) -> BlobResult<(u64, u64)> {
        if !self.wanted.is_empty() {
            return Err(BlobError::Lacking { count: self.wanted.len() });
        }
        self.draft.hash_rest()?;
        let (found, len) = self.draft.hash();
        if found != expected {
            return Err(BlobError::Mismatch { expected, found });
        }
        let Inner { store, .. } = &*self.inner;
        store.keep(self.draft)?;
        shared::write_list(&store.path(&expected), &store.draft_path(), self.turns.recipe())?;
        self.inner.lock().shared.insert(expected, self.turns.recipe());
        Ok((self.fetched, len))
    }
}

impl Inner {
    /// A chunk of a cached file. Nothing where the file is gone, or damaged: then it is dropped.
    fn read_chunk(
        &self,
        source: &mut PackReader,
        file: &BlobHash,
        at: u64,
        chunk: &Chunk,
    ) -> BlobResult<Option<Vec<u8>>> {
        let read = source.read(&self.store.path(file), at, chunk.len as usize);
        match read {
            Ok(Some(bytes)) if BlobHash::of(&bytes) == chunk.hash => return Ok(Some(bytes)),
            Ok(None) => return Ok(None),
            Ok(Some(_)) => tracing::warn!(blob = %file, "a cached file was damaged; it is dropped"),
            Err(error) => tracing::warn!(blob = %file, %error, "a cached file cannot be read; it is dropped"),
        }
        self.drop_file(&mut self.lock(), file)?;
        Ok(None)
    }
}
