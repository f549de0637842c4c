//! The fuzzer's own check on stable Rust: small files of several Blenders, broken in ways that a seed tells.

#![allow(clippy::unwrap_used)]

use std::{
    env, fs,
    io::Read,
    path::Path,
    time::{Duration, Instant},
};

#[path = "../fuzz/body.rs"]
mod body;

/// Unpacked, sorted by name.
fn seeds() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let unpack = |path| {
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(fs::File::open(path).unwrap()).read_to_end(&mut bytes).unwrap();
        bytes
    };
    paths.into_iter().map(unpack).collect()
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, most: usize) -> usize {
        (self.next() % most.max(1) as u64) as usize
    }
}

const NUMBERS: &[u64] = &[
    0,
    1,
    2,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0x8000,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 40,
    u64::MAX,
];

/// Breaks the bytes in one to eight places.
fn breaks(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    for _ in 0..=random.below(8) {
        if bytes.len() < 64 {
            return;
        }
        // Half of it where the DNA is: a small part of the file, and the one that can lie most.
        let from = if random.below(2) == 0 { bytes.len() / 2 } else { 0 };
        let at = from + random.below(bytes.len() - from - 16);
        match random.below(9) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 | 3 => {
                let number = NUMBERS[random.below(NUMBERS.len())].to_le_bytes();
                let (at, size) = (at & !3, [2, 4, 8][random.below(3)]);
                bytes[at..at + size].copy_from_slice(&number[..size]);
            }
            // Pointers become each other: circles, and blocks that are not what they should be.
            4 | 5 => {
                let (from, to) = (random.below(bytes.len() - 16) & !3, at & !3);
                bytes.copy_within(from..from + 8, to);
            }
            6 => {
                let count = random.below(256).min(bytes.len() - at);
                let from = random.below(other.len() - count.min(other.len()));
                let part = &other[from..(from + count).min(other.len())];
                bytes[at..at + part.len()].copy_from_slice(part);
            }
            7 => {
                let end = (at + random.below(512)).min(bytes.len());
                bytes.drain(at..end);
            }
            _ => {
                let end = (at + random.below(512)).min(bytes.len());
                let twice = bytes[at..end].to_vec();
                bytes.splice(at..at, twice);
            }
        }
    }
    if random.below(32) == 0 {
        bytes.truncate(random.below(bytes.len()));
    }
}

/// As Blender packs, in frames with a table of them at the end.
fn in_frames(bytes: &[u8]) -> Vec<u8> {
    let (mut out, mut table) = (Vec::new(), Vec::new());
    for chunk in bytes.chunks(40_000) {
        let frame = zstd::bulk::compress(chunk, 1).unwrap();
        table.extend([frame.len() as u32, chunk.len() as u32]);
        out.extend(frame);
    }
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    out.extend(words(&[0x184d_2a5e, 4 * table.len() as u32 + 9]));
    out.extend(words(&table));
    out.extend(words(&[table.len() as u32 / 2]));
    out.push(0);
    out.extend(words(&[0x8f92_eab1]));
    out
}

/// `KILN_FUZZ_SECONDS` for a longer run.
#[test]
fn broken_files_of_several_blenders_cost_little_and_never_panic() {
    let seconds = env::var("KILN_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    let seeds = seeds();
    assert!(seeds.len() >= 4);
    seeds.iter().for_each(|seed| {
        body::check(seed);
        assert!(
            kiln_blend::inspect_reader(std::io::Cursor::new(seed), &kiln_blend::ReadLimits::default())
                .is_ok()
        );
    });
    let begun = Instant::now();
    let mut slowest = Duration::ZERO;
    for round in 0.. {
        if begun.elapsed() > Duration::from_secs(seconds) {
            println!("{round} broken files, the slowest took {slowest:?}");
            break;
        }
        let mut random = Random(round);
        let mut bytes = seeds[random.below(seeds.len())].clone();
        breaks(&mut bytes, &seeds[random.below(seeds.len())], &mut random);
        let mut packed = None;
        if random.below(4) == 0 {
            let mut frames = in_frames(&bytes);
            if random.below(2) == 0 {
                breaks(&mut frames, &bytes, &mut random);
            }
            packed = Some(frames);
        }
        let input = packed.as_ref().unwrap_or(&bytes);
        let one = Instant::now();
        let checked = std::panic::catch_unwind(|| body::check(input));
        slowest = slowest.max(one.elapsed());
        assert!(checked.is_ok(), "round {round} fails");
        assert!(one.elapsed() < Duration::from_secs(5), "round {round} took {:?}", one.elapsed());
    }
}
