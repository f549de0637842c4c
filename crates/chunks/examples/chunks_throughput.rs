//! Measures the speed of splitting, packing and unpacking files on one core; started by `bench/chunks`.

use std::hint::black_box;
use std::io::{self, Cursor};
use std::time::Instant;

use kiln_chunks::{Chunk, Packer, Recipe, Unpacker, split};

const RUNS: usize = 5;

fn main() -> io::Result<()> {
    for path in std::env::args_os().skip(1) {
        let bytes = std::fs::read(&path)?;
        let mut recipe = Recipe::default();
        let split_s = best(|| {
            recipe = split(Cursor::new(&bytes), None, |_, piece| {
                black_box(piece);
                Ok(())
            })?
            .recipe;
            Ok(())
        })?;
        let pieces: Vec<(Chunk, &[u8])> = recipe
            .offsets()
            .map(|(at, chunk)| (chunk, &bytes[at as usize..][..chunk.len as usize]))
            .collect();
        let mut packer = Packer::new();
        let mut frames = Vec::new();
        let pack_s = best(|| {
            frames.clear();
            frames.extend(pieces.iter().map(|(chunk, piece)| packer.pack(*chunk, piece)));
            Ok(())
        })?;
        let mut unpacker = Unpacker::new();
        let unpack_s = best(|| {
            for frame in &frames {
                black_box(unpacker.unpack(frame).map_err(io::Error::other)?);
            }
            Ok(())
        })?;
        let stored: usize = frames.iter().map(|frame| frame.len()).sum();
        let rate = |seconds: f64| bytes.len() as f64 / 1e9 / seconds;
        println!(
            "{}: {} MB in {} chunks; split and hash {:.2} GB/s, pack {:.2} GB/s to {:.1} %, unpack and hash {:.2} GB/s",
            path.to_string_lossy(),
            bytes.len() / 1_000_000,
            recipe.chunks.len(),
            rate(split_s),
            rate(pack_s),
            100.0 * stored as f64 / bytes.len() as f64,
            rate(unpack_s),
        );
    }
    Ok(())
}

/// Seconds of the fastest run.
fn best(mut work: impl FnMut() -> io::Result<()>) -> io::Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..RUNS {
        let start = Instant::now();
        work()?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}
