//! The two ends of `bench/transfer loopback`: prints seconds, one number a line.
//!
//! ```text
//! transfer packed FILE OUT          writes the packed chunks of FILE, one after another; prints the hash of all that
//! transfer up URL KEYFILE BLEND     sends the files of a scene, read and hashed before the clock starts
//! transfer down URL KEYFILE BLEND CACHE
//!                                   fetches them as a worker does: the frames alone, then all of it into a cache
//! ```

use std::{error::Error, fs::File, io::Write as _, path::Path, time::Instant};

use futures_util::StreamExt as _;
use kiln_blobs::Cache;
use kiln_chunks::{Packer, split};
use kiln_client::{Client, Prepared, Request};
use kiln_types::BlobHasher;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match &args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["packed", file, out] => packed(Path::new(file), Path::new(out)),
        ["up", url, key, blend] => up(&client(url, key)?, &prepared(blend)?).await,
        ["down", url, key, blend, cache] => {
            down(&client(url, key)?, &prepared(blend)?, Path::new(cache)).await
        }
        _ => Err("packed, up or down; see the head of this file".into()),
    }
}

fn client(url: &str, key: &str) -> Result<Client, Box<dyn Error>> {
    Ok(Client::new(url, std::fs::read_to_string(key)?)?)
}

fn prepared(blend: &str) -> Result<Prepared, Box<dyn Error>> {
    Ok(Prepared::new(Path::new(blend), &Request::default())?)
}

fn packed(file: &Path, out: &Path) -> Result<(), Box<dyn Error>> {
    let (mut out, mut hasher, mut packer) = (File::create(out)?, BlobHasher::new(), Packer::new());
    split(File::open(file)?, None, |chunk, bytes| {
        let mut wire = Vec::new();
        packer.pack(chunk, bytes).write_to(&mut wire)?;
        hasher.update(&wire);
        out.write_all(&wire)
    })?;
    println!("{}", hasher.hash());
    Ok(())
}

async fn up(client: &Client, prepared: &Prepared) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    client.send_bundle(prepared, |_| ()).await?;
    println!("{}", start.elapsed().as_secs_f64());
    Ok(())
}

async fn down(client: &Client, prepared: &Prepared, cache: &Path) -> Result<(), Box<dyn Error>> {
    let bundle = client.bundle(prepared.session.bundle).await?;
    let start = Instant::now();
    for file in &bundle.files {
        let Some(recipe) = client.recipe(file.hash).await? else { continue };
        let mut frames = client.fetch_chunks(recipe.chunks.iter().map(|chunk| chunk.hash).collect()).await?;
        while let Some(piece) = frames.next().await {
            piece?;
        }
    }
    println!("{}", start.elapsed().as_secs_f64());
    let cache = Cache::open(cache, u64::MAX).await?;
    let start = Instant::now();
    for file in &bundle.files {
        let recipe = client.recipe(file.hash).await?.ok_or("the server keeps a file whole")?;
        cache.assemble(file.hash, recipe, file.size, |lacking| client.fetch_chunks(lacking)).await?;
    }
    println!("{}", start.elapsed().as_secs_f64());
    Ok(())
}
