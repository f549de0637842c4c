//! Blobs, whichever form they are kept in.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::{Stream, stream};
use kiln_types::BlobHash;
use tokio::task::JoinHandle;

use crate::chunks::{ChunkReader, ChunkStore, SMALL, Sweep};
use crate::disk::{BlobResult, blocking, joined};
use crate::{BlobError, BlobStore, FreedSpace, StreamError};

/// The blobs of a server: whole files, and, where there is a store of chunks, recipes and single chunks, each of
/// which is a blob by its own hash. Cheap to clone. Readers need not know which.
#[derive(Debug, Clone)]
pub struct Blobs {
    whole: BlobStore,
    chunks: Option<ChunkStore>,
}

/// A blob to read and to seek in.
#[derive(Debug)]
pub enum BlobReader {
    Whole(File, u64),
    Chunks(Box<ChunkReader>),
}

/// Bytes read at once for a stream.
const PIECE: usize = 512 << 10;

impl Blobs {
    /// Without a store of chunks, all blobs are whole.
    pub fn new(whole: BlobStore, chunks: Option<ChunkStore>) -> Self {
        Self { whole, chunks }
    }

    /// The blobs that are kept as whole files.
    pub fn whole(&self) -> &BlobStore {
        &self.whole
    }

    pub fn chunks(&self) -> Option<&ChunkStore> {
        self.chunks.as_ref()
    }

    /// Bytes, if the blob is there. It may go: who is going to need it asks [`Blobs::promise`].
    pub async fn size(&self, hash: &BlobHash) -> BlobResult<Option<u64>> {
        if let Some(size) = self.chunks.as_ref().and_then(|chunks| chunks.single_size(hash)) {
            return Ok(Some(size));
        }
        if let Some(size) = self.whole.size(hash).await? {
            return Ok(Some(size));
        }
        let Some(chunks) = &self.chunks else { return Ok(None) };
        chunks.size(hash).await
    }

    pub async fn contains(&self, hash: &BlobHash) -> BlobResult<bool> {
        Ok(self.size(hash).await?.is_some())
    }

    /// Bytes, if the blob is there; from now on it is as if it had just been put. Ask this before a job is made
    /// that needs it.
    pub async fn promise(&self, hash: &BlobHash) -> BlobResult<Option<u64>> {
        // One form is enough. That of small files, of which there are many, is found without the disk.
        if let Some(chunks) = &self.chunks
            && chunks.single_size(hash).is_some()
            && let Some(size) = chunks.promise_blob(hash).await?
        {
            return Ok(Some(size));
        }
        if let Some(size) = self.whole.promise(hash).await? {
            return Ok(Some(size));
        }
        let Some(chunks) = &self.chunks else { return Ok(None) };
        chunks.promise_blob(hash).await
    }

    /// As [`BlobStore::put_stream`]; one that is kept as chunks is only checked.
    pub async fn put_stream<S, E>(
        &self,
        expected: Option<BlobHash>,
        limit: u64,
        stream: S,
    ) -> BlobResult<(BlobHash, u64)>
    where
        S: Stream<Item = std::result::Result<Bytes, E>> + Send,
        E: Into<StreamError>,
    {
        if let (Some(hash), Some(chunks)) = (expected, &self.chunks)
            && let Some(size) = chunks.promise_blob(&hash).await?
        {
            // The bytes are not wanted, but a wrong one is told.
            return crate::store::check(hash, size, limit, stream).await;
        }
        self.whole.put_stream(expected, limit, stream).await
    }

    /// Stores bytes that are at hand. Where there is a store of chunks, small ones share a flush of the disk with
    /// others that come at the same time.
    ///
    /// # Errors
    /// [`BlobError::Mismatch`], [`BlobError::NoSpace`], or where the disk fails.
    pub async fn put_bytes(&self, hash: BlobHash, bytes: Bytes) -> BlobResult<()> {
        match &self.chunks {
            Some(chunks) if bytes.len() <= SMALL => chunks.put_small(hash, bytes).await,
            _ => {
                let one = stream::iter([Ok::<_, StreamError>(bytes)]);
                self.put_stream(Some(hash), u64::MAX, one).await.map(drop)
            }
        }
    }

    /// The blob to read, for threads that may block.
    ///
    /// # Errors
    /// [`BlobError::NotFound`], or where the disk fails.
    pub async fn reader(&self, hash: &BlobHash) -> BlobResult<BlobReader> {
        let (blobs, hash) = (self.clone(), *hash);
        blocking(move || blobs.open_reader(&hash)).await
    }

    /// [`Blobs::reader`], for who is on such a thread already.
    pub fn open_reader(&self, hash: &BlobHash) -> BlobResult<BlobReader> {
        // That of small blobs, of which there are many, is found without the disk.
        if let Some(chunks) = self.chunks.as_ref().filter(|chunks| chunks.single_size(hash).is_some()) {
            return Ok(BlobReader::Chunks(Box::new(chunks.open_reader(hash)?)));
        }
        match (self.whole.open_file(hash), &self.chunks) {
            (Ok((file, len)), _) => Ok(BlobReader::Whole(file, len)),
            // Where it is being split just now, the recipe is there before the file goes.
            (Err(BlobError::NotFound(_)), Some(chunks)) => {
                Ok(BlobReader::Chunks(Box::new(chunks.open_reader(hash)?)))
            }
            (Err(error), _) => Err(error),
        }
    }

    /// The bytes of a part of the blob, which must lie within it. Reads ahead by one piece.
    ///
    /// # Errors
    /// [`BlobError::NotFound`]; in the stream where the disk fails or [`BlobError::Damaged`].
    pub async fn stream(
        &self,
        hash: &BlobHash,
        range: Range<u64>,
    ) -> BlobResult<impl Stream<Item = BlobResult<Bytes>> + Send + 'static> {
        let (blobs, hash) = (self.clone(), *hash);
        let path = self.whole.path(&hash);
        let left = range.end.saturating_sub(range.start);
        let reader = blocking(move || {
            let mut reader = blobs.open_reader(&hash)?;
            reader.seek(SeekFrom::Start(range.start)).map_err(BlobError::io("read", &path))?;
            Ok(reader)
        })
        .await?;
        let ahead = |mut reader: BlobReader, left: u64| -> Ahead {
            tokio::task::spawn_blocking(move || {
                let piece = reader.piece(left.min(PIECE as u64) as usize)?;
                Ok((reader, piece))
            })
        };
        let first = (left > 0).then(|| (ahead(reader, left), left));
        Ok(stream::try_unfold(first, move |state| async move {
            let Some((task, left)) = state else { return Ok(None) };
            let (reader, mut piece) = joined(task).await?;
            if piece.is_empty() {
                return Err(BlobError::NotFound(hash));
            }
            piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            let left = left - piece.len() as u64;
            Ok(Some((piece, (left > 0).then(|| (ahead(reader, left), left)))))
        }))
    }

    /// The whole of a small blob.
    ///
    /// # Errors
    /// [`BlobError::NotFound`], [`BlobError::TooLarge`] above `limit` bytes, or where the disk fails.
    pub async fn read(&self, hash: &BlobHash, limit: u64) -> BlobResult<Bytes> {
        let (blobs, hash) = (self.clone(), *hash);
        blocking(move || {
            let mut reader = blobs.open_reader(&hash)?;
            let size = reader.size();
            if size > limit {
                return Err(BlobError::TooLarge { limit });
            }
            let mut bytes = Vec::with_capacity(size as usize);
            loop {
                let piece = reader.piece(PIECE)?;
                if piece.is_empty() {
                    return Ok(bytes.into());
                }
                bytes.extend_from_slice(&piece);
            }
        })
        .await
    }

    /// Returns true if it was there, whole or as a recipe. Its chunks, and a blob that is one, go with the next collection.
    pub async fn delete(&self, hash: &BlobHash) -> BlobResult<bool> {
        let whole = self.whole.delete(hash).await?;
        let Some(chunks) = &self.chunks else { return Ok(whole) };
        Ok(chunks.delete_recipe(hash).await? || whole)
    }

    /// Every blob with its length, in no order; but for those that are single chunks, which are not told apart from
    /// chunks of others.
    pub async fn list(&self) -> BlobResult<Vec<(BlobHash, u64)>> {
        let mut all: HashMap<_, _> = self.whole.list().await?.into_iter().collect();
        if let Some(chunks) = &self.chunks {
            all.extend(chunks.list().await?);
        }
        Ok(all.into_iter().collect())
    }

    /// Removes blobs that are not needed, and then chunks that no blob needs; never what was put or promised
    /// since, so that who was told that something is there finds it there. `promised_since` must lie at least as
    /// far back as any request lasts, and as anybody may take to make a job of what was promised. What is needed
    /// and what is being put may change meanwhile. Nothing is lost where the process is killed in the middle.
    ///
    /// # Errors
    /// [`BlobError::NoSpace`] where there is no room to rewrite packs in, or where the disk fails; what was
    /// collected until then is gone.
    pub async fn collect(
        &self,
        needed: impl Fn(&BlobHash) -> bool + Clone + Send + 'static,
        promised_since: SystemTime,
    ) -> BlobResult<FreedSpace> {
        let whole = self.whole.collect(needed.clone(), promised_since).await?;
        Ok(whole + self.sweep(needed, promised_since, false).await?)
    }

    /// The blobs that [`Blobs::collect`] would remove.
    pub async fn collectable(
        &self,
        needed: impl Fn(&BlobHash) -> bool + Clone + Send + 'static,
        promised_since: SystemTime,
    ) -> BlobResult<FreedSpace> {
        let whole = self.whole.collectable(needed.clone(), promised_since).await?;
        Ok(whole + self.sweep(needed, promised_since, true).await?)
    }

    async fn sweep(
        &self,
        needed: impl Fn(&BlobHash) -> bool + Send + 'static,
        promised_since: SystemTime,
        dry: bool,
    ) -> BlobResult<FreedSpace> {
        let Some(chunks) = self.chunks.clone() else { return Ok(FreedSpace::default()) };
        blocking(move || chunks.sweep(&Sweep { needed: &needed, promised_since, dry })).await
    }
}

/// The next piece, being read.
type Ahead = JoinHandle<BlobResult<(BlobReader, Bytes)>>;

impl BlobReader {
    /// Bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Whole(_, len) => *len,
            Self::Chunks(reader) => reader.size(),
        }
    }

    /// The next bytes, about as many as wanted; none at the end.
    fn piece(&mut self, want: usize) -> BlobResult<Bytes> {
        match self {
            Self::Whole(file, _) => {
                let mut bytes = vec![0; want];
                let count = loop {
                    match file.read(&mut bytes) {
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        count => break count,
                    }
                };
                bytes.truncate(count.map_err(BlobError::io("read", "a blob".as_ref()))?);
                Ok(bytes.into())
            }
            Self::Chunks(reader) => reader.next_pieces(want),
        }
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Whole(file, _) => file.read(buffer),
            Self::Chunks(reader) => reader.read(buffer),
        }
    }
}

impl Seek for BlobReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match self {
            Self::Whole(file, _) => file.seek(to),
            Self::Chunks(reader) => reader.seek(to),
        }
    }
}
