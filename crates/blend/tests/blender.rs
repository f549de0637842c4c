//! Real files of a real Blender, compared with what Blender itself says of them through Python.

#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    fs,
    io::Cursor,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use kiln_blend::{
    BlendFault, Compression, ExternalKind, Inspection, ReadLimits, find_dependencies, inspect,
    inspect_reader, peek, plan_layout,
};
use kiln_testkit::{Blender, blenders, scene};
use serde::Deserialize;

#[derive(Deserialize)]
struct Truth {
    paths: BTreeSet<String>,
}

struct Project {
    folder: PathBuf,
    truth: Truth,
}

impl Project {
    fn by(blender: &Blender) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenes.py");
        let folder = blender.build(&script, &[], "truth.json").canonicalize().unwrap();
        let truth = fs::read(folder.join("truth.json")).unwrap();
        Self { truth: serde_json::from_slice(&truth).unwrap(), folder }
    }

    fn root(&self) -> PathBuf {
        self.folder.join("studio/project")
    }

    fn blend(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }
}

/// By the oldest Blender and the newest.
static PROJECTS: LazyLock<Vec<Project>> = LazyLock::new(|| blenders().iter().map(Project::by).collect());

fn projects() -> impl Iterator<Item = &'static Project> {
    PROJECTS.iter()
}

fn inspect_bytes(bytes: &[u8]) -> Result<Inspection, BlendFault> {
    inspect_reader(Cursor::new(bytes), &ReadLimits::default())
}

#[test]
fn a_compressed_file_says_the_same() {
    for project in projects() {
        let plain = inspect(&project.blend("shots/main.blend")).unwrap();
        let packed = inspect(&project.blend("shots/packed.blend")).unwrap();
        assert_eq!((plain.compression, packed.compression), (Compression::None, Compression::Zstd));
        assert_eq!(plain.scenes, packed.scenes);
        assert_eq!(plain.external, packed.external);
        let json = serde_json::to_string(&plain).unwrap();
        assert_eq!(serde_json::from_str::<Inspection>(&json).unwrap().scenes, plain.scenes);
        assert_eq!(peek(&project.blend("shots/packed.blend")).unwrap().written_by, plain.written_by);
        // As Blender before 3.0 packed its files.
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::copy(&mut fs::File::open(project.blend("shots/main.blend")).unwrap(), &mut gzip).unwrap();
        let gzip = inspect_bytes(&gzip.finish().unwrap()).unwrap();
        assert_eq!(gzip.compression, Compression::Gzip);
        assert_eq!(gzip.scenes, plain.scenes);
    }
}

#[test]
fn every_path_that_blender_sees_is_found() {
    for project in projects() {
        let found = inspect(&project.blend("shots/main.blend")).unwrap();
        let ours: BTreeSet<_> =
            found.external.iter().filter(|f| !f.packed).map(|f| f.path.replace('\\', "/")).collect();
        let missed: Vec<_> = project.truth.paths.difference(&ours).collect();
        assert!(missed.is_empty(), "missed {missed:?} of {ours:?}");
        let kind = |path: &str| found.external.iter().find(|f| f.path == path).map(|f| f.kind);
        for (path, expected) in [
            ("//../tex/wood.png", ExternalKind::Image),
            ("//../lib/a.blend", ExternalKind::Library),
            ("//../tex/v.vdb", ExternalKind::Volume),
            ("//../tex/n.txt", ExternalKind::Text),
            ("//../tex/snd.wav", ExternalKind::Sound),
            ("//../tex/m.mdd", ExternalKind::MeshCache),
            ("//../tex/a.ies", ExternalKind::LightProfile),
            ("//../tex/s.osl", ExternalKind::Shader),
            ("//../seq/s_0002.png", ExternalKind::Strip),
        ] {
            assert_eq!(kind(path), Some(expected), "{path} in {:?}", found.external);
        }
        let packed = found.external.iter().find(|f| f.path == "//../tex/packed.png").unwrap();
        assert!(packed.packed && packed.owner.starts_with("IM"));
    }
}

#[test]
fn dependencies_go_through_libraries_and_lie_well_in_a_bundle() {
    for project in projects() {
        let main = project.blend("shots/main.blend");
        let before = fs::read(&main).unwrap();
        let found = find_dependencies(&main).unwrap();
        assert!(found.broken.is_empty(), "{:?}", found.broken);
        let has = |path: &str| found.items.iter().any(|item| item.files.contains(&project.root().join(path)));
        for path in ["lib/a.blend", "lib/b.blend", "lib/tex/brick.png", "seq/s_0003.png", "tex/tile.1002.png"]
        {
            assert!(has(path), "{path} is not among the dependencies");
        }
        let layout = plan_layout(&found, &[], &[]);
        assert_eq!(layout.blend.as_str(), "shots/main.blend");
        let names: BTreeSet<&str> = layout.files.iter().map(|(place, _)| place.as_str()).collect();
        for name in [
            "shots/main.blend",
            "lib/a.blend",
            "lib/b.blend",
            "lib/tex/brick.png",
            "tex/wood.png",
            "seq/s_0001.png",
            "seq/s_0002.png",
            "seq/s_0003.png",
            "tex/tile.1001.png",
            "tex/tile.1002.png",
        ] {
            assert!(names.contains(name), "{name} is not in {names:?}");
        }
        assert!(!names.contains("tex/packed.png"));
        let far = project.folder.join("elsewhere/far.png");
        let far = far.to_str().unwrap();
        assert_eq!(layout.remap.keys().collect::<Vec<_>>(), [far], "only the absolute path needs a new name");
        assert!(
            layout.remap[far].as_str().starts_with("_external/")
                && layout.remap[far].file_name() == "far.png"
        );
        let missing: Vec<_> = layout.missing.iter().map(|missing| missing.path.as_str()).collect();
        assert_eq!(missing, ["//gone.png", "C:\\textures\\oak.png"]);
        assert_eq!(fs::read(&main).unwrap(), before);
    }
}

/// Byte offsets at which blocks begin, of a plain file.
fn boundaries(bytes: &[u8]) -> Vec<usize> {
    let large = bytes[7].is_ascii_digit();
    let mut at = if large { 17 } else { 12 };
    let mut found = Vec::new();
    loop {
        found.push(at);
        if bytes[at..].starts_with(b"ENDB") {
            return found;
        }
        let len = if large {
            u64::from_le_bytes(bytes[at + 16..at + 24].try_into().unwrap()) as usize + 32
        } else {
            u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize + 24
        };
        at += len;
    }
}

fn random(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize
}

/// Returns the byte at which Blender's table of frames begins: 8 bytes of head, 8 for each frame, and 9 at the end that
/// begin with the number of frames (zstd's `seekable_format`).
fn seek_table(packed: &[u8]) -> usize {
    let count = u32::from_le_bytes(packed[packed.len() - 9..][..4].try_into().unwrap());
    packed.len() - 17 - 8 * count as usize
}

#[test]
fn a_cut_file_is_an_error_wherever_it_is_cut() {
    let mut state = 7;
    for project in projects() {
        let plain = fs::read(project.blend("shots/main.blend")).unwrap();
        let mut cuts = boundaries(&plain);
        // The whole walk for each of thousands of blocks would take minutes.
        let step = cuts.len().div_ceil(400);
        cuts = cuts.into_iter().step_by(step).chain([plain.len() - 1]).collect();
        cuts.extend((0..200).map(|_| random(&mut state) % plain.len()));
        for cut in cuts {
            let fault = inspect_bytes(&plain[..cut]).unwrap_err();
            let fits = match cut {
                0 => matches!(fault, BlendFault::Empty),
                1..7 => matches!(fault, BlendFault::NotABlend),
                _ => matches!(fault, BlendFault::Truncated { at, .. } if at <= cut as u64),
            };
            assert!(fits, "cut at {cut}: {fault}");
        }
        let packed = fs::read(project.blend("shots/packed.blend")).unwrap();
        let table = seek_table(&packed);
        let whole = inspect_bytes(&packed).unwrap();
        assert_eq!(inspect_bytes(&packed[..table]).unwrap().scenes, whole.scenes);
        let cuts: Vec<_> = (0..60).map(|_| 12 + random(&mut state) % (packed.len() - 12)).collect();
        // Cut right before its table of frames, a file still holds every block.
        for cut in cuts.into_iter().filter(|cut| *cut != table).chain([table - 1, table + 1]) {
            let fault = inspect_bytes(&packed[..cut]).unwrap_err();
            assert!(
                matches!(fault, BlendFault::Truncated { .. } | BlendFault::NotABlend),
                "cut at {cut}: {fault}"
            );
        }
        assert!(inspect_bytes(&packed[..packed.len() - 1]).is_err());
    }
}

#[test]
fn flipped_bytes_never_panic() {
    let mut state = 11;
    for project in projects() {
        let plain = fs::read(project.blend("shots/main.blend")).unwrap();
        let heads = boundaries(&plain);
        let dna = heads[heads.len() - 2];
        for round in 0..300 {
            let mut broken = plain.clone();
            // A third each: anywhere, in a block head, in the DNA.
            let place = match round % 3 {
                0 => random(&mut state) % plain.len(),
                1 => heads[random(&mut state) % heads.len()] + random(&mut state) % 24,
                _ => dna + random(&mut state) % (plain.len() - dna),
            };
            let place = place.min(plain.len() - 1);
            broken[place] ^= 1 << (random(&mut state) % 8);
            let _ = inspect_bytes(&broken);
        }
        let packed = fs::read(project.blend("shots/packed.blend")).unwrap();
        for _ in 0..60 {
            let mut broken = packed.clone();
            let place = random(&mut state) % packed.len();
            broken[place] ^= 1 << (random(&mut state) % 8);
            let _ = inspect_bytes(&broken);
        }
    }
}

#[test]
fn what_is_no_blend_is_told_in_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let check = |name: &str, bytes: &[u8], expected: &str| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let error = inspect(&path).unwrap_err().to_string();
        assert_eq!(error, format!("{} cannot be used: {expected}", path.display()));
    };
    check("empty.blend", b"", "it is empty");
    check("text.blend", b"I am a text file, not a scene.", "it is not a .blend file");
    check("zip.blend", b"PK\x03\x04aaaaaaaaaaaaaaaaaaaaaaaa", "it is not a .blend file");
    check(
        "new.blend",
        b"BLENDER19-02v0700xx",
        "it has a file format newer than this Kiln knows; update Kiln",
    );
    check(
        "old.blend",
        b"BLENDER_v249ENDB",
        "it was written by Blender 2.49.0, and files from before 2.50 cannot be read; save it again with a newer one",
    );
    check(
        "head.blend",
        b"BLENDER-v304REND",
        "it is cut off: a block head before the end mark at byte 12 is not all there; save or copy it again",
    );
    let inspected = |path: &Path| inspect(path).unwrap_err().to_string();
    assert!(inspected(folder.path()).ends_with("it is a folder; name the .blend inside it"));
    assert!(inspected(&folder.path().join("none.blend")).ends_with("it does not exist"));
}

#[test]
fn a_bomb_is_refused() {
    let mut zeros = Cursor::new(b"BLENDER-v304DATA\x00\x00\x00\x7f".to_vec());
    zeros.set_position(0);
    let bomb = std::io::Read::chain(zeros, std::io::Read::take(std::io::repeat(0), 64 << 20));
    let bomb = zstd::encode_all(bomb, 3).unwrap();
    assert!(bomb.len() < 100_000);
    let limits = ReadLimits { unpacked: 16 << 20, ..ReadLimits::default() };
    let fault = inspect_reader(Cursor::new(&bomb), &limits).unwrap_err();
    assert!(matches!(fault, BlendFault::Bomb(_)), "{fault}");
}

#[test]
fn each_scene_has_the_cameras_that_are_in_it() {
    let found = inspect(&scene("variants")).unwrap();
    let of = |name: &str| {
        let mut cameras = found.scenes.iter().find(|scene| scene.name == name).unwrap().cameras.clone();
        cameras.sort();
        cameras
    };
    assert_eq!(of("Day"), ["Far", "Near"]);
    assert_eq!(of("Night"), ["Above: 1/2", "Near"], "in a collection of it, too");
}
