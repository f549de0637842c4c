//! Files that are cut, that lie, or that unpack to more than there is: each is told, in time and in little memory.

#![allow(clippy::unwrap_used)]

mod made;

use std::{
    env, fs,
    io::{Cursor, Read, Write},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use kiln_blend::{BlendFault, ReadLimits, inspect_reader};
use made::{
    Maker, STRUCTS,
    Value::{Int, Text},
};

fn seed(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(fs::File::open(path).unwrap()).read_to_end(&mut bytes).unwrap();
    bytes
}

fn inspect(bytes: &[u8]) -> Result<(), BlendFault> {
    inspect_reader(Cursor::new(bytes), &ReadLimits::default()).map(|_| ())
}

/// Bytes at which blocks begin, the end mark's and the end of the file among them.
fn boundaries(file: &[u8]) -> Vec<usize> {
    let large = file.starts_with(b"BLENDER17");
    let (mut at, head, size) = if large { (17, 32, 16..24) } else { (12, 24, 4..8) };
    let mut found = Vec::new();
    while at < file.len() {
        found.push(at);
        let len =
            file[at..][size.clone()].iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte));
        at += head + len;
    }
    assert_eq!(at, file.len());
    found.push(at);
    found
}

/// As Blender packs, in frames with a table of them at the end; the table may claim other lengths.
fn in_frames(bytes: &[u8], claim: impl Fn(u32) -> u32) -> Vec<u8> {
    let (mut out, mut table) = (Vec::new(), Vec::new());
    for chunk in bytes.chunks(40_000) {
        let frame = zstd::bulk::compress(chunk, 1).unwrap();
        table.extend([frame.len() as u32, claim(chunk.len() as u32)]);
        out.extend(frame);
    }
    let count = table.len() as u32;
    let word = |out: &mut Vec<u8>, word: u32| out.extend(word.to_le_bytes());
    word(&mut out, 0x184d_2a5e);
    word(&mut out, 4 * count + 9);
    table.iter().for_each(|number| word(&mut out, *number));
    word(&mut out, count / 2);
    out.push(0);
    word(&mut out, 0x8f92_eab1);
    out
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

#[test]
fn a_file_cut_at_any_block_or_beside_it_is_told_to_be_cut_off() {
    for name in ["v34.blend", "v50.blend"] {
        let file = seed(name);
        inspect(&file).unwrap();
        let blocks = boundaries(&file);
        assert!(blocks.len() > 300, "{name} has {} blocks", blocks.len());
        let cuts = blocks.iter().flat_map(|at| [at - 1, *at, at + 1]).filter(|cut| *cut < file.len());
        for cut in cuts {
            let fault = inspect(&file[..cut]).unwrap_err();
            // It says where the block began that is not all there.
            let block = blocks.iter().rev().find(|at| **at <= cut && **at < file.len()).copied().unwrap_or(0);
            let told = matches!(fault, BlendFault::Truncated { at, .. } if at == block as u64);
            assert!(told, "{name} cut at {cut} in the block at {block}: {fault}");
        }
    }
}

#[test]
fn a_packed_file_cut_anywhere_is_an_error() {
    for name in ["v34.blend", "v50.blend"] {
        let file = seed(name);
        let packed = [in_frames(&file, |len| len), zstd::encode_all(&file[..], 1).unwrap(), gzip(&file)];
        for (index, packed) in packed.iter().enumerate() {
            inspect(packed).unwrap();
            let step = packed.len() / 150;
            let ends = (1..40).map(|back| packed.len() - back);
            for cut in (0..packed.len()).step_by(step).chain(ends) {
                assert!(inspect(&packed[..cut]).is_err(), "{name}, packing {index}, cut at {cut} passes");
            }
        }
    }
}

#[test]
fn lengths_of_blocks_that_lie_are_told() {
    for name in ["v34.blend", "v50.blend"] {
        let file = seed(name);
        let (place, size) = if name == "v50.blend" { (16, 8) } else { (4, 4) };
        for at in boundaries(&file).into_iter().filter(|at| *at < file.len()) {
            for lie in [u64::MAX, i64::MAX as u64, 0x7fff_ffff, file.len() as u64 + 1] {
                let mut lies = file.clone();
                lies[at + place..at + place + size].copy_from_slice(&lie.to_le_bytes()[..size]);
                let checked = inspect(&lies);
                // Nobody asks how long the end mark is, if it is not negative.
                let is_end = file[at..].starts_with(b"ENDB");
                assert!(is_end || checked.is_err(), "{name}: {lie} bytes in the block at {at} pass");
            }
        }
    }
}

/// The cost of reading a file, in a process of its own.
struct Cost {
    /// Of all its memory at once, in KiB.
    peak: u64,
    took: Duration,
    said: String,
}

/// The child of [`cost`].
#[test]
#[ignore = "reads the file that KILN_TEST_HOSTILE names"]
fn reads_one_file() {
    let path = env::var_os("KILN_TEST_HOSTILE").unwrap();
    let said =
        kiln_blend::inspect(Path::new(&path)).map_or_else(|error| error.to_string(), |_| "read".into());
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    println!("peak {}", peak.trim().trim_end_matches(" kB"));
    println!("said {said}");
}

fn cost(bytes: &[u8]) -> Cost {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let begun = Instant::now();
    let mut child = Command::new(env::current_exe().unwrap());
    child
        .args(["--exact", "reads_one_file", "--ignored", "--nocapture"])
        .env("KILN_TEST_HOSTILE", file.path());
    let output = String::from_utf8(child.output().unwrap().stdout).unwrap();
    let line = |start: &str| output.lines().find_map(|line| line.strip_prefix(start)).unwrap_or_default();
    Cost { peak: line("peak ").parse().unwrap(), took: begun.elapsed(), said: line("said ").to_owned() }
}

#[track_caller]
fn costs_little(name: &str, bytes: &[u8], says: &str) {
    // Half of what may be held, of which a packed file takes a copy at most, and the process itself.
    const MOST: u64 = 128 << 10;
    let Cost { peak, took, said } = cost(bytes);
    println!("{name}: {} bytes, {took:?}, {} MiB: {said}", bytes.len(), peak >> 10);
    assert!(said.contains(says), "{name}: {said}");
    assert!(peak < MOST, "{name} takes {peak} KiB");
    assert!(took < Duration::from_secs(60), "{name} takes {took:?}");
}

const MAKER: Maker = Maker { header: "BLENDER-v279", structs: STRUCTS };
const BOMB: &str = "unpack";

#[cfg(target_os = "linux")]
#[test]
fn what_unpacks_to_more_than_a_machine_has_costs_little() {
    // Blocks of zeros, one after another without end, each packed by itself.
    let len = 32 << 20;
    let head =
        [b"DATA\0\0\0\0".to_vec(), vec![1; 8], (len as u64).to_le_bytes().to_vec(), vec![0; 8]].concat();
    let block = [head, vec![0; len]].concat();
    let mut best = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    best.write_all(&block).unwrap();
    let header = b"BLENDER17-01v0500";
    let gzip = [gzip(header), best.finish().unwrap().repeat(60)].concat();
    costs_little("gzip", &gzip, BOMB);
    let pack = |bytes| zstd::encode_all(bytes, 3).unwrap();
    let zstd = [pack(&header[..]), pack(&block).repeat(60)].concat();
    costs_little("zstd", &zstd, BOMB);
    // One block that claims to be longer than all memory.
    let endless =
        [&header[..], b"DATA\0\0\0\0", &[1; 8], &i64::MAX.to_le_bytes(), &[0; 8], &[0; 999]].concat();
    costs_little("endless", &pack(&endless), "cut off");
    let file = MAKER.file(&[]);
    costs_little("a table that claims 16 TiB", &in_frames(&vec![0; 80 << 20], |_| 16 << 20), BOMB);
    costs_little("a table that claims too much of a frame", &in_frames(&file, |_| 16 << 20), "damaged");
    costs_little("a table that claims too little of a frame", &in_frames(&file, |len| len - 1), "damaged");
}

#[cfg(target_os = "linux")]
#[test]
fn what_holds_more_than_a_scene_can_costs_little() {
    let scene = |values: &[_]| {
        MAKER.block(b"SC\0\0", "Scene", 0x20, &[&[("id.name", Text("SCOne"))], values].concat())
    };
    let of_scene = |strukt, count: u64| {
        let blocks = (1..=count).map(|old| {
            MAKER.block(b"DATA", strukt, 0x1000 + old, &[("next", Int(0x1000 + old.cast_signed() + 1))])
        });
        let first =
            [("base.first", Int(0x1001)), ("r.layers.first", Int(0x1001)), ("markers.first", Int(0x1001))];
        MAKER.file(&[vec![scene(&first)], blocks.collect()].concat())
    };
    let scenes: Vec<Vec<u8>> = (0..60_000).map(|_| scene(&[])).collect();
    for (name, file) in [
        ("layers", of_scene("SceneRenderLayer", 600_000)),
        ("markers", of_scene("TimeMarker", 600_000)),
        ("bases", of_scene("Base", 900_000)),
        ("scenes", MAKER.file(&scenes)),
    ] {
        costs_little(name, &file, "it holds more");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn scenes_that_share_many_cameras_cost_little() {
    const SCENES: i64 = 5_000;
    const CAMERAS: i64 = 20_000;
    let (shared, member, camera) = (0x10, 0x100_0000, 0x200_0000);
    let data = |strukt, old: i64, values: &[_]| MAKER.block(b"DATA", strukt, old.cast_unsigned(), values);
    let mut blocks = Vec::new();
    for scene in (1..=SCENES).map(|scene| 0x10_0000 + 0x10 * scene) {
        let own = [("id.name", Text("SCOne")), ("master_collection", Int(scene + 1))];
        blocks.push(MAKER.block(b"SC\0\0", "Scene", scene.cast_unsigned(), &own));
        blocks.push(data("Collection", scene + 1, &[("children.first", Int(scene + 2))]));
        blocks.push(data("CollectionChild", scene + 2, &[("collection", Int(shared))]));
    }
    let all = [("id.name", Text("GRAll")), ("gobject.first", Int(member))];
    blocks.push(MAKER.block(b"GR\0\0", "Collection", shared.cast_unsigned(), &all));
    for place in 0..CAMERAS {
        let next = if place + 1 < CAMERAS { member + place + 1 } else { 0 };
        let values = [("next", Int(next)), ("ob", Int(camera + place))];
        blocks.push(data("CollectionObject", member + place, &values));
    }
    for place in 0..CAMERAS {
        let name = format!("OB{place:060}");
        let values = [("id.name", Text(&name)), ("type", Int(11))];
        blocks.push(MAKER.block(b"OB\0\0", "Object", (camera + place).cast_unsigned(), &values));
    }
    costs_little("cameras", &MAKER.file(&blocks), "it holds more");
}
