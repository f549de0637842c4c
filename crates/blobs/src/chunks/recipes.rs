//! Recipes: blobs made of chunks. A blob of one chunk is that chunk and needs none, nor does the empty blob.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::SystemTime;

use kiln_chunks::{Chunk, Packer, Recipe, split};
use kiln_types::BlobHash;

use super::announced::HashedPrefix;
use super::index::PackId;
use super::put::Filling;
use super::reader::ChunkReader;
use super::{ChunkStore, Inner};
use crate::disk::{BlobResult, Draft, blocking, remove, sharded, walk};
use crate::promise::{forgotten, renew};
use crate::{BlobError, BlobStore};

/// Before the chunks of a stored recipe: the size of the blob (8 bytes, little endian).
const SIZE: usize = 8;

impl ChunkStore {
    /// Makes a blob of chunks that are there, once their bytes hash to its name. `limit`: bytes of it at most.
    /// One that is there is promised, with its chunks. One whose chunks are missing is awaited: they are hashed as
    /// they come, so that the same recipe, put again, makes it at once.
    ///
    /// # Errors
    /// [`BlobError::Lacking`] where chunks are missing, [`BlobError::Mismatch`], [`BlobError::TooLarge`],
    /// [`BlobError::NoSpace`], or where the disk fails.
    pub async fn put_recipe(&self, hash: BlobHash, recipe: Recipe, limit: u64) -> BlobResult<()> {
        let store = self.clone();
        blocking(move || {
            if recipe.size() > limit {
                return Err(BlobError::TooLarge { limit });
            }
            let inner = &store.inner;
            if let Err(error) = inner.promise_all(&recipe) {
                if let BlobError::Lacking { .. } = error {
                    inner.awaited.announce(hash, recipe);
                }
                return Err(error);
            }
            if let [] | [_] = recipe.chunks[..] {
                return inner.check_single(&hash, recipe.chunks.first());
            }
            if inner.renew_recipe(&hash)?.is_some() && inner.recipe(&hash)?.is_some_and(|old| old == recipe) {
                return Ok(());
            }
            let hashed = inner.awaited.take(&hash, &recipe);
            let mut reader = ChunkReader::new(store.clone(), hash, recipe);
            let found = reader.hash_rest(hashed, false)?;
            if found != hash {
                // A damaged chunk explains it, if there is one.
                reader.hash_rest(HashedPrefix::default(), true)?;
                return Err(BlobError::Mismatch { expected: hash, found });
            }
            let recipe = reader.into_recipe();
            // Reading took a while; from here it is promised again.
            inner.promise_all(&recipe)?;
            inner.write_recipe(hash, &recipe)
        })
        .await
    }

    /// The recipe of a blob, if it is kept as chunks.
    pub async fn recipe(&self, hash: &BlobHash) -> BlobResult<Option<Recipe>> {
        let (inner, hash) = (self.inner.clone(), *hash);
        blocking(move || inner.recipe(&hash)).await
    }

    pub(crate) async fn size(&self, hash: &BlobHash) -> BlobResult<Option<u64>> {
        let (inner, hash) = (self.inner.clone(), *hash);
        blocking(move || match inner.single(&hash) {
            Some(single) => Ok(Some(single.size())),
            None => inner.recipe_size(&hash),
        })
        .await
    }

    /// Bytes of a blob that is one chunk, or empty; asks no disk.
    pub(crate) fn single_size(&self, hash: &BlobHash) -> Option<u64> {
        self.inner.single(hash).map(|recipe| recipe.size())
    }

    /// Bytes of a blob that is there; it is promised then. Of one chunk, or empty, it is found and promised in memory,
    /// without a thread that may block: each report of a frame asks this of its files.
    pub(crate) async fn promise_blob(&self, hash: &BlobHash) -> BlobResult<Option<u64>> {
        let mut stale = Vec::new();
        let promised = self.inner.promise_single(hash, &mut stale);
        if promised.is_some() && stale.is_empty() {
            return Ok(promised);
        }
        let (inner, hash) = (self.inner.clone(), *hash);
        blocking(move || {
            inner.renew_packs(&stale)?;
            if promised.is_some() { Ok(promised) } else { inner.renew_recipe(&hash) }
        })
        .await
    }

    pub(crate) async fn delete_recipe(&self, hash: &BlobHash) -> BlobResult<bool> {
        let (inner, hash) = (self.inner.clone(), *hash);
        blocking(move || inner.remove_recipe(&hash)).await
    }

    /// Blocks.
    pub(crate) fn open_reader(&self, hash: &BlobHash) -> BlobResult<ChunkReader> {
        let recipe = self.inner.recipe(hash)?.ok_or(BlobError::NotFound(*hash))?;
        Ok(ChunkReader::new(self.clone(), *hash, recipe))
    }

    /// Every blob that is kept as a recipe, with its length.
    pub(crate) async fn list(&self) -> BlobResult<Vec<(BlobHash, u64)>> {
        let inner = self.inner.clone();
        blocking(move || {
            let mut all = Vec::new();
            for (hash, _) in walk(&inner.recipes)? {
                all.extend(inner.recipe_size(&hash)?.map(|size| (hash, size)));
            }
            Ok(all)
        })
        .await
    }

    /// Splits a blob that is kept whole, and then removes the whole file; who has it open reads on. Bytes of
    /// the frames that were stored for it.
    ///
    /// # Errors
    /// [`BlobError::NotFound`], [`BlobError::Damaged`], [`BlobError::NoSpace`], or where the disk fails; but for
    /// a damaged one, the whole file stays.
    pub async fn convert(&self, whole: &BlobStore, hash: &BlobHash) -> BlobResult<u64> {
        let (inner, whole, hash) = (self.inner.clone(), whole.clone(), *hash);
        blocking(move || {
            let (file, _) = whole.open_file(&hash)?;
            let (mut filling, mut packer) = (Filling::new(inner.clone()), Packer::new());
            let mut failed = None;
            let done = split(file, None, |chunk, bytes| {
                filling.add(&mut packer, chunk, bytes).map_err(|error| {
                    failed = Some(error);
                    io::Error::other("the chunk cannot be stored")
                })
            });
            let done = match (done, failed) {
                (_, Some(error)) => return Err(error),
                (done, None) => done.map_err(BlobError::io("read", &whole.path(&hash)))?,
            };
            let put = filling.finish()?;
            if done.hash != hash {
                remove(&whole.path(&hash))?;
                return Err(BlobError::Damaged(hash));
            }
            inner.promise_all(&done.recipe)?;
            if done.recipe.chunks.len() > 1 {
                inner.write_recipe(hash, &done.recipe)?;
            }
            remove(&whole.path(&hash))?;
            Ok(put.bytes)
        })
        .await
    }
}

impl Inner {
    fn recipe_path(&self, hash: &BlobHash) -> PathBuf {
        sharded(&self.recipes, hash)
    }

    pub(super) fn promise_all(&self, recipe: &Recipe) -> BlobResult<()> {
        let lacking = self.promise(recipe.chunks.iter().map(|chunk| &chunk.hash))?;
        if lacking.is_empty() { Ok(()) } else { Err(BlobError::Lacking { count: lacking.len() }) }
    }

    /// Of a blob that is one chunk, or empty.
    fn single(&self, hash: &BlobHash) -> Option<Recipe> {
        if *hash == BlobHash::of(&[]) {
            return Some(Recipe::default());
        }
        let place = self.index().get(hash)?;
        Some(Recipe { chunks: vec![Chunk { hash: *hash, len: place.size }] })
    }

    /// Promises a blob that is one chunk, or empty, as the index does its chunk. Returns its bytes.
    fn promise_single(&self, hash: &BlobHash, stale: &mut Vec<PackId>) -> Option<u64> {
        if *hash == BlobHash::of(&[]) {
            return Some(0);
        }
        let mut index = self.index();
        let place = index.get(hash)?;
        index.promise(hash, SystemTime::now(), stale).then_some(u64::from(place.size))
    }

    /// A blob of at most one chunk needs no recipe: the chunk was checked when it was put.
    fn check_single(&self, hash: &BlobHash, chunk: Option<&Chunk>) -> BlobResult<()> {
        let found = chunk.map_or_else(|| BlobHash::of(&[]), |chunk| chunk.hash);
        if found != *hash {
            return Err(BlobError::Mismatch { expected: *hash, found });
        }
        match chunk {
            Some(chunk) if self.index().get(hash).is_some_and(|place| place.size != chunk.len) => {
                Err(BlobError::WrongLength(*hash))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn recipe(&self, hash: &BlobHash) -> BlobResult<Option<Recipe>> {
        match self.single(hash) {
            Some(recipe) => Ok(Some(recipe)),
            None => self.stored_recipe(hash),
        }
    }

    /// One that cannot be read is no recipe: it is removed, so that the blob is sent again.
    pub(super) fn stored_recipe(&self, hash: &BlobHash) -> BlobResult<Option<Recipe>> {
        let path = self.recipe_path(hash);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes.map_err(BlobError::io("read", &path))?,
        };
        let recipe = bytes.split_first_chunk::<SIZE>().and_then(|(size, chunks)| {
            let recipe = Recipe::from_bytes(chunks).ok()?;
            (recipe.size() == u64::from_le_bytes(*size)).then_some(recipe)
        });
        if recipe.is_none() {
            tracing::warn!(blob = %hash, "the list of a blob's chunks was damaged; the blob is removed");
            remove(&path)?;
        }
        Ok(recipe)
    }

    fn write_recipe(&self, hash: BlobHash, recipe: &Recipe) -> BlobResult<()> {
        let draft = self.drafts.join(format!("{:032x}", rand::random::<u128>()));
        let mut draft = Draft::create(draft)?;
        draft.write(&recipe.size().to_le_bytes())?;
        draft.write(&recipe.to_bytes())?;
        draft.keep(&self.recipe_path(&hash), self.durability)
    }

    /// Bytes of the blob.
    pub(crate) fn recipe_size(&self, hash: &BlobHash) -> BlobResult<Option<u64>> {
        let path = self.recipe_path(hash);
        let mut size = [0; SIZE];
        match File::open(&path).and_then(|mut file| file.read_exact(&mut size)) {
            Ok(()) => Ok(Some(u64::from_le_bytes(size))),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof => Ok(None),
                _ => Err(BlobError::io("read", &path)(error)),
            },
        }
    }

    /// The blob is there as if it had just been put. Its size, if it is there.
    pub(crate) fn renew_recipe(&self, hash: &BlobHash) -> BlobResult<Option<u64>> {
        let _shared = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        match renew(&self.recipe_path(hash))? {
            Some(_) => self.recipe_size(hash),
            None => Ok(None),
        }
    }

    pub(crate) fn remove_recipe(&self, hash: &BlobHash) -> BlobResult<bool> {
        remove(&self.recipe_path(hash))
    }

    /// The recipe was neither put nor promised since.
    pub(super) fn is_forgotten(&self, hash: &BlobHash, since: SystemTime) -> BlobResult<bool> {
        Ok(forgotten(&self.recipe_path(hash), since)?.is_some())
    }

    /// Returns true if it was removed.
    pub(super) fn remove_forgotten(&self, hash: &BlobHash, since: SystemTime) -> BlobResult<bool> {
        let _alone = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        Ok(self.is_forgotten(hash, since)? && self.remove_recipe(hash)?)
    }

    pub(crate) fn walk_recipes(&self) -> BlobResult<Vec<(BlobHash, fs::Metadata)>> {
        walk(&self.recipes)
    }
}
