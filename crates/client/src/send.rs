//! Sends the bytes of a bundle that the server lacks. An interrupted upload continues where it ended.

use std::{
    cell::Cell,
    collections::{HashMap, HashSet},
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use kiln_api::{JobView, MAX_RECIPE, ProblemCode, SubmitJob};
use kiln_chunks::{Chunk, FrameHead, Packer, Recipe};
use kiln_types::BlobHash;
use tokio::sync::mpsc;

use crate::{
    Client, ClientError, Prepared,
    reading::{self, SourceFile},
    tries::Tries,
};

/// Requests with bytes at the same time.
const AT_ONCE: usize = 3;
/// Bytes of chunks, before compression, in one request. An interruption costs at most [`AT_ONCE`] times as much.
const BATCH: usize = 4 << 20;
/// The new bytes of a file above which the server gets its list of chunks first.
const ANNOUNCED: u64 = 8 << 20;
/// Chunks in one request.
const BATCH_CHUNKS: usize = 4096;

/// The progress of an upload, in bytes of files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UploadProgress {
    /// Bytes that were sent and stored.
    pub done: u64,
    /// Bytes to send in all.
    pub total: u64,
    /// Bytes that need not be sent: the server has them, or another file contains them.
    pub there: u64,
}

impl Client {
    /// Sends the bytes that the server lacks, and creates the bundle. Continues after an interruption; after an error, the same
    /// call continues where this one ended. `report` is called with every step.
    pub async fn send_bundle(
        &self,
        prepared: &Prepared,
        mut report: impl FnMut(UploadProgress),
    ) -> Result<(), ClientError> {
        let (mut done, mut tries) = (0, Tries::default());
        loop {
            let before = done;
            let failed = match self.send_lacking(prepared, &mut done, &mut report).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if done > before {
                tries.progress();
            }
            if !tries.again(&failed).await {
                return Err(failed);
            }
            tracing::debug!(error = %failed, "upload interrupted");
        }
    }

    /// Sends a bundle and submits its job.
    pub async fn submit_prepared(
        &self,
        prepared: &Prepared,
        job: &SubmitJob,
        report: impl FnMut(UploadProgress),
    ) -> Result<JobView, ClientError> {
        self.send_bundle(prepared, report).await?;
        self.submit(job).await
    }

    /// Tries once to send everything. `done` grows by the bytes that arrive.
    async fn send_lacking(
        &self,
        prepared: &Prepared,
        done: &mut u64,
        report: &mut impl FnMut(UploadProgress),
    ) -> Result<(), ClientError> {
        let plan = self.plan(&prepared.sources).await?;
        let total = *done + plan.bytes();
        let there = prepared.size().saturating_sub(total);
        report(UploadProgress { done: *done, total, there });
        let arrived = |bytes| {
            *done += bytes;
            report(UploadProgress { done: *done, total, there });
        };
        for (hash, recipe) in plan.announced() {
            match self.put_recipe(hash, recipe).await {
                Err(error) if error.code() != Some(ProblemCode::Conflict) => return Err(error),
                _ => {}
            }
        }
        self.send_all(&plan, arrived).await?;
        let recipes = plan.recipes().map(|(hash, recipe)| self.put_recipe(hash, recipe));
        let mut recipes = stream::iter(recipes.collect::<Vec<_>>()).buffer_unordered(AT_ONCE);
        while recipes.try_next().await?.is_some() {}
        let id = self.create_bundle(&prepared.bundle).await?;
        if id == prepared.session.bundle { Ok(()) } else { Err(ClientError::Damaged { hash: id.0 }) }
    }

    /// Asks which files are missing, then which chunks of them.
    async fn plan(&self, sources: &Arc<[SourceFile]>) -> Result<Plan, ClientError> {
        let mut first: HashMap<BlobHash, usize> = HashMap::new();
        for (at, source) in sources.iter().enumerate() {
            first.entry(source.content.hash).or_insert(at);
        }
        let hashes: Vec<BlobHash> = first.keys().copied().collect();
        let mut lacking: Vec<usize> =
            self.missing(&hashes).await?.iter().filter_map(|hash| first.get(hash)).copied().collect();
        lacking.sort_unstable();
        let mut plan = Plan { sources: Arc::clone(sources), whole: Vec::new(), split: Vec::new() };
        let mut chunks = HashSet::new();
        for at in lacking {
            match recipe(&sources[at]) {
                None => plan.whole.push(at),
                Some(recipe) => {
                    chunks.extend(recipe.chunks.iter().map(|chunk| chunk.hash));
                    plan.split.push((at, HashSet::new()));
                }
            }
        }
        let chunks: Vec<BlobHash> = chunks.into_iter().collect();
        let mut missing: HashSet<BlobHash> = self.missing_chunks(&chunks).await?.into_iter().collect();
        for (at, wanted) in &mut plan.split {
            let recipe = recipe(&sources[*at]).into_iter().flat_map(|recipe| &recipe.chunks);
            // A chunk is read from the first file that has it.
            wanted.extend(recipe.filter(|chunk| missing.remove(&chunk.hash)));
        }
        Ok(plan)
    }

    /// Sends all of a plan. After a failure, only the requests that have begun are finished.
    async fn send_all(&self, plan: &Plan, mut arrived: impl FnMut(u64)) -> Result<(), ClientError> {
        let failed = Cell::new(false);
        let sending = plan.loads().take_while(|_| std::future::ready(!failed.get()));
        let mut sending =
            std::pin::pin!(sending.map(|load| self.send_load(plan, load)).buffer_unordered(AT_ONCE));
        let mut first = None;
        while let Some(sent) = sending.next().await {
            match sent {
                Ok(bytes) => arrived(bytes),
                Err(error) => {
                    failed.set(true);
                    first.get_or_insert(error);
                }
            }
        }
        first.map_or(Ok(()), Err)
    }

    async fn send_load(&self, plan: &Plan, load: Load) -> Result<u64, ClientError> {
        let batch = match load {
            Load::Whole(at) => return self.send_whole(&plan.sources[at]).await,
            Load::Failed(error) => return Err(error),
            Load::Batch(batch) => batch,
        };
        let bytes = batch.bytes;
        let sources = Arc::clone(&plan.sources);
        let (batch, frames) = self
            .blocking(move || {
                let frames = batch.pack(&sources)?;
                Ok((batch, frames))
            })
            .await?;
        let Err(refused) = self.put_frames(frames).await else { return Ok(bytes) };
        if refused.code() == Some(ProblemCode::HashMismatch) {
            let sources = Arc::clone(&plan.sources);
            self.blocking(move || batch.check_unchanged(&sources)).await?;
        }
        Err(refused)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ClientError> + Send + 'static,
    ) -> Result<T, ClientError> {
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
            let why = format!("packing ended early: {error}");
            Err(ClientError::Broken { url: self.url().to_owned(), why })
        })
    }

    async fn send_whole(&self, source: &SourceFile) -> Result<u64, ClientError> {
        let (hash, size) = (source.content.hash, source.content.size);
        if !source.content.packed {
            self.put_blob_file(hash, size, &source.path).await?;
            return Ok(size);
        }
        let body = unpacked(source.clone());
        self.put_stream(hash, size, &source.path, body).await?;
        Ok(size)
    }
}

/// Returns the chunks of a file that is sent in chunks. If their list is too long, it is sent whole.
fn recipe(source: &SourceFile) -> Option<&Recipe> {
    let recipe = source.content.recipe.as_ref();
    recipe.filter(|recipe| recipe.chunks.len() <= MAX_RECIPE / Recipe::ENTRY)
}

/// Returns the bytes of a compressed .blend as its bundle has them.
fn unpacked(source: SourceFile) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(2);
    tokio::task::spawn_blocking(move || {
        let read = || -> io::Result<()> {
            let mut bytes = reading::open(File::open(&source.path)?, source.stamp.size())?.bytes;
            loop {
                let mut piece = Vec::with_capacity(1 << 20);
                if bytes.by_ref().take(1 << 20).read_to_end(&mut piece)? == 0 {
                    return Ok(());
                }
                if sender.blocking_send(Ok(piece.into())).is_err() {
                    return Ok(());
                }
            }
        };
        if let Err(error) = read() {
            let _ = sender.blocking_send(Err(error));
        }
    });
    stream::unfold(
        receiver,
        |mut receiver| async move { receiver.recv().await.map(|piece| (piece, receiver)) },
    )
}

/// The files and chunks to send.
struct Plan {
    sources: Arc<[SourceFile]>,
    whole: Vec<usize>,
    /// Sources, each with the chunks of it that are sent.
    split: Vec<(usize, HashSet<Chunk>)>,
}

/// The content of one request.
enum Load {
    Whole(usize),
    Batch(Batch),
    Failed(ClientError),
}

impl Plan {
    fn bytes(&self) -> u64 {
        let whole: u64 = self.whole.iter().map(|at| self.sources[*at].content.size).sum();
        let split: u64 =
            self.split.iter().flat_map(|(_, wanted)| wanted).map(|chunk| u64::from(chunk.len)).sum();
        whole + split
    }

    /// Returns the recipes of files with several chunks: a file of one chunk is that chunk.
    fn recipes(&self) -> impl Iterator<Item = (BlobHash, &Recipe)> {
        self.split.iter().filter_map(|(at, _)| {
            let source = &self.sources[*at];
            let recipe = recipe(source).filter(|recipe| recipe.chunks.len() > 1)?;
            Some((source.content.hash, recipe))
        })
    }

    /// Returns the recipes of large files that are mostly new. The server hashes their chunks as they arrive, and does not read
    /// them again at the end.
    fn announced(&self) -> impl Iterator<Item = (BlobHash, &Recipe)> {
        let large = self.split.iter().filter(|(at, wanted)| {
            let source = &self.sources[*at];
            let chunks = recipe(source).into_iter().flat_map(|recipe| &recipe.chunks);
            let fresh: u64 =
                chunks.filter(|chunk| wanted.contains(chunk)).map(|chunk| u64::from(chunk.len)).sum();
            fresh >= ANNOUNCED.max(source.content.size / 2)
        });
        large.filter_map(|(at, _)| Some((self.sources[*at].content.hash, recipe(&self.sources[*at])?)))
    }

    fn loads(&self) -> impl Stream<Item = Load> + '_ {
        let whole = self.whole.iter().map(|at| Load::Whole(*at));
        let plain = stream::iter(whole.chain(self.plain().into_iter().map(Load::Batch)));
        let packed =
            self.split.iter().filter(|(at, wanted)| self.sources[*at].content.packed && !wanted.is_empty());
        plain.chain(stream::iter(packed).flat_map(|(at, wanted)| self.packed(*at, wanted)))
    }

    /// Returns batches of chunks that are in the files as they are.
    fn plain(&self) -> Vec<Batch> {
        let mut batches = Vec::new();
        let mut batch = Batch::default();
        for (at, wanted) in self.split.iter().filter(|(at, _)| !self.sources[*at].content.packed) {
            let mut wanted = wanted.clone();
            for (offset, chunk) in recipe(&self.sources[*at]).into_iter().flat_map(Recipe::offsets) {
                if wanted.remove(&chunk) {
                    batch.add(Piece { source: *at, chunk, bytes: PieceBytes::At(offset) });
                    if batch.is_full() {
                        batches.push(std::mem::take(&mut batch));
                    }
                }
            }
        }
        if batch.bytes > 0 {
            batches.push(batch);
        }
        batches
    }

    /// Decompresses a .blend again, up to the last chunk that is wanted, and returns batches of its chunks.
    fn packed(&self, at: usize, wanted: &HashSet<Chunk>) -> impl Stream<Item = Load> + use<> {
        let (source, wanted) = (self.sources[at].clone(), wanted.clone());
        let (sender, receiver) = mpsc::channel(1);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = unpack(at, &source, wanted, &sender) {
                let _ = sender.blocking_send(Load::Failed(error));
            }
        });
        stream::unfold(
            receiver,
            |mut receiver| async move { receiver.recv().await.map(|load| (load, receiver)) },
        )
    }
}

fn unpack(
    at: usize,
    source: &SourceFile,
    mut wanted: HashSet<Chunk>,
    loads: &mpsc::Sender<Load>,
) -> Result<(), ClientError> {
    let fail = |error: io::Error| match error.kind() {
        // The file is shorter, or is no longer compressed.
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => {
            ClientError::Changed { path: source.path.clone() }
        }
        _ => ClientError::file(&source.path, "read", error),
    };
    let file = File::open(&source.path).map_err(fail)?;
    let mut bytes = reading::open(file, source.stamp.size()).map_err(fail)?.bytes;
    let mut batch = Batch::default();
    for chunk in recipe(source).into_iter().flat_map(|recipe| &recipe.chunks) {
        let mut piece = vec![0; chunk.len as usize];
        bytes.read_exact(&mut piece).map_err(fail)?;
        if wanted.remove(chunk) {
            batch.add(Piece { source: at, chunk: *chunk, bytes: PieceBytes::Here(piece) });
        }
        if (batch.is_full() || wanted.is_empty())
            && loads.blocking_send(Load::Batch(std::mem::take(&mut batch))).is_err()
        {
            // The upload has ended.
            return Ok(());
        }
        if wanted.is_empty() {
            return Ok(());
        }
    }
    Ok(())
}

/// Chunks that go in one request.
#[derive(Default)]
struct Batch {
    pieces: Vec<Piece>,
    /// The bytes of the chunks before compression.
    bytes: u64,
}

struct Piece {
    /// The file that contains it.
    source: usize,
    chunk: Chunk,
    bytes: PieceBytes,
}

enum PieceBytes {
    /// At this place in the file.
    At(u64),
    Here(Vec<u8>),
}

impl Batch {
    fn add(&mut self, piece: Piece) {
        self.bytes += u64::from(piece.chunk.len);
        self.pieces.push(piece);
    }

    fn is_full(&self) -> bool {
        self.bytes >= BATCH as u64 || self.pieces.len() >= BATCH_CHUNKS
    }

    /// Returns the body of the request. The server checks the hash of each chunk. Blocks.
    fn pack(&self, sources: &[SourceFile]) -> Result<Bytes, ClientError> {
        let (mut packer, mut reader) = (Packer::new(), PieceReader::default());
        let most = self.bytes as usize + self.pieces.len() * FrameHead::LEN;
        let mut body = Vec::with_capacity(most);
        for piece in &self.pieces {
            let path = &sources[piece.source].path;
            packer.pack_into(piece.chunk, &mut body, |body| reader.read(piece, path, body))?;
        }
        Ok(body.into())
    }

    /// Fails with the name of a file whose bytes have changed. Blocks.
    fn check_unchanged(&self, sources: &[SourceFile]) -> Result<(), ClientError> {
        let (mut reader, mut bytes) = (PieceReader::default(), Vec::new());
        for piece in &self.pieces {
            let path = &sources[piece.source].path;
            bytes.clear();
            reader.read(piece, path, &mut bytes)?;
            if Chunk::of(&bytes) != piece.chunk {
                return Err(ClientError::Changed { path: path.clone() });
            }
        }
        Ok(())
    }
}

/// A reader of pieces, which keeps the last file open.
#[derive(Default)]
struct PieceReader {
    open: Option<OpenSource>,
}

struct OpenSource {
    source: usize,
    file: File,
    /// The byte at which the next read begins.
    at: u64,
}

impl PieceReader {
    /// Appends the bytes of a piece, which is in the file at `path`.
    fn read(&mut self, piece: &Piece, path: &Path, into: &mut Vec<u8>) -> Result<(), ClientError> {
        let offset = match &piece.bytes {
            PieceBytes::Here(bytes) => {
                into.extend_from_slice(bytes);
                return Ok(());
            }
            PieceBytes::At(offset) => *offset,
        };
        let fail = |error| ClientError::file(path, "read", error);
        let open = match &mut self.open {
            Some(open) if open.source == piece.source => open,
            other => {
                let file = File::open(path).map_err(fail)?;
                other.insert(OpenSource { source: piece.source, file, at: 0 })
            }
        };
        if open.at != offset {
            open.file.seek(SeekFrom::Start(offset)).map_err(fail)?;
        }
        let len = u64::from(piece.chunk.len);
        let read = (&open.file).take(len).read_to_end(into).map_err(fail)? as u64;
        open.at = offset + read;
        if read == len { Ok(()) } else { Err(ClientError::Changed { path: path.to_owned() }) }
    }
}
