//! Measures the speed at which a store takes, makes and reads blobs of chunks; started by `bench/chunks`.

use std::error::Error;
use std::io::Cursor;
use std::time::Instant;

use bytes::Bytes;
use futures_util::{TryStreamExt, stream};
use kiln_blobs::{BlobStore, Blobs, Cache, ChunkStore, Durability, PutMode, StreamError};
use kiln_chunks::{Packer, split};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    for path in std::env::args_os().skip(1) {
        let bytes = std::fs::read(&path)?;
        let folder = tempfile::tempdir()?;
        let whole = BlobStore::open(folder.path(), Durability::Durable).await?;
        let blobs = Blobs::new(whole, Some(ChunkStore::open(folder.path(), Durability::Durable).await?));
        let chunks = blobs.chunks().ok_or("no chunks")?;
        let (mut packer, mut body) = (Packer::new(), Vec::new());
        let done =
            split(Cursor::new(&bytes), None, |chunk, piece| packer.pack(chunk, piece).write_to(&mut body))?;
        let hashes: Vec<_> = done.recipe.chunks.iter().map(|chunk| chunk.hash).collect();
        let pieces: Vec<_> =
            body.chunks(64 << 10).map(|piece| Ok::<_, StreamError>(Bytes::copy_from_slice(piece))).collect();
        println!(
            "{}: {} MB, {} MB packed",
            path.to_string_lossy(),
            bytes.len() / 1_000_000,
            body.len() / 1_000_000
        );
        let report = |what: &str, start: Instant| {
            println!("  {what} {:.2} GB/s", bytes.len() as f64 / 1e9 / start.elapsed().as_secs_f64());
        };

        let start = Instant::now();
        chunks.put(stream::iter(pieces)).await?;
        report("chunks taken and checked", start);
        let start = Instant::now();
        chunks.missing(hashes.clone()).await?;
        println!("  {} chunks asked for in {:.1} ms", hashes.len(), start.elapsed().as_secs_f64() * 1e3);
        let start = Instant::now();
        chunks.put_recipe(done.hash, done.recipe.clone(), u64::MAX).await?;
        report("blob checked as a whole", start);
        let start = Instant::now();
        chunks.frames(hashes).await?.try_for_each(|_| async { Ok(()) }).await?;
        report("frames given", start);
        let start = Instant::now();
        blobs.stream(&done.hash, 0..bytes.len() as u64).await?.try_for_each(|_| async { Ok(()) }).await?;
        report("bytes given", start);

        let cache = Cache::open(&folder.path().join("cache"), u64::MAX).await?;
        let start = Instant::now();
        cache.assemble(done.hash, done.recipe.clone(), u64::MAX, |asked| chunks.frames(asked)).await?;
        report("assembled from frames", start);
        let start = Instant::now();
        cache.assemble(done.hash, done.recipe.clone(), u64::MAX, |asked| chunks.frames(asked)).await?;
        report("assembled from cached chunks", start);

        let other = tempfile::tempdir()?;
        let whole = BlobStore::open(other.path(), Durability::Durable).await?;
        let (hash, _) = whole.put_file(path.as_ref(), PutMode::Copy).await?;
        let chunks = ChunkStore::open(other.path(), Durability::Durable).await?;
        let start = Instant::now();
        chunks.convert(&whole, &hash).await?;
        report("whole file split and packed", start);
        drop(chunks);
        let start = Instant::now();
        ChunkStore::open(other.path(), Durability::Durable).await?;
        println!("  opened in {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(())
}
