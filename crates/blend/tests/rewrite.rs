//! Copies with other names: what a real Blender says of them, and that nothing else is changed.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use kiln_blend::{ExternalFile, RenamedPath, RewriteFault, inspect, rewrite};
use kiln_testkit::{Blender, fluid_blenders, skip, temp_dir};

type Names = Vec<(String, String)>;

struct Made {
    blender: Blender,
    folder: PathBuf,
    names: Names,
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/names.py")
}

impl Made {
    fn by(blender: Blender) -> Self {
        let folder = blender.build(&script(), &[], "names.json");
        let names = serde_json::from_slice(&fs::read(folder.join("names.json")).unwrap()).unwrap();
        Self { blender, folder, names }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The names in a file, as Blender sees them.
    fn told(&self, blend: &Path) -> Names {
        let out = blend.with_extension("json");
        let output = self.blender.script(&script()).args([blend, &out]).output().expect("Blender starts");
        let names = fs::read(&out).unwrap_or_else(|_| panic!("Blender told no names: {output:?}"));
        serde_json::from_slice(&names).unwrap()
    }
}

/// By each Blender there is.
static MADE: LazyLock<Vec<Made>> = LazyLock::new(|| fluid_blenders().into_iter().map(Made::by).collect());

/// Other names, of other lengths.
fn moved(name: &str) -> String {
    match name.strip_prefix("//") {
        Some(below) if below.len() % 2 == 0 => format!("//m/{below}"),
        Some(below) => format!("//a folder/with a longer name é/{below}"),
        None => format!("//{}", name.replace(['/', '\\', ':'], "_")),
    }
}

/// Images of strips keep sharing a folder.
fn moved_file(file: &ExternalFile) -> Option<Vec<u8>> {
    Some(moved_path(&file.path).into_bytes())
}

fn moved_path(path: &str) -> String {
    match path.rsplit_once("/s_") {
        Some((folder, number)) => format!("{}/s_{number}", moved(folder)),
        None => moved(path),
    }
}

fn unpacked(path: &Path) -> Vec<u8> {
    let bytes = fs::read(path).unwrap();
    if !bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        return bytes;
    }
    let mut out = Vec::new();
    zstd::Decoder::new(&bytes[..]).unwrap().read_to_end(&mut out).unwrap();
    out
}

#[test]
fn blender_reads_the_new_names_and_no_other() {
    for made in &*MADE {
        let folder = temp_dir();
        for name in ["main.blend", "packed.blend"] {
            let (source, copy) = (made.path(name), folder.path().join("copy.blend"));
            let mut out = fs::File::create(&copy).unwrap();
            let rewritten = rewrite(&source, &mut out, moved_file).unwrap();
            assert_eq!(rewritten.bytes, fs::metadata(&copy).unwrap().len());
            let expected: Names =
                made.names.iter().map(|(label, name)| (label.clone(), moved_path(name))).collect();
            assert_eq!(made.told(&copy), expected, "{:?}", made.blender);
            let least = if let Blender::Executable(_) = made.blender { 20 } else { 22 };
            assert!(expected.len() >= least, "{} kinds of names: {expected:?}", expected.len());
        }
    }
}

#[test]
fn a_copy_without_a_new_name_is_the_unpacked_file() {
    for made in &*MADE {
        for name in ["main.blend", "packed.blend", "lib/props.blend"] {
            let mut copy = Vec::new();
            let rewritten = rewrite(&made.path(name), &mut copy, |_| None).unwrap();
            assert!(copy == unpacked(&made.path(name)), "{name} of {:?}", made.blender);
            assert_eq!(rewritten.renamed, []);
        }
    }
}

/// Blocks of a file with 8-byte pointers: head and payload.
fn blocks(file: &[u8]) -> Vec<(&[u8], &[u8])> {
    let large = file.starts_with(b"BLENDER17");
    let (mut rest, head, size) = if large { (&file[17..], 32, 16..24) } else { (&file[12..], 24, 4..8) };
    let mut blocks = Vec::new();
    while !rest.is_empty() {
        let len = rest[size.clone()].iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte));
        let (block, after) = rest.split_at(head + len);
        blocks.push(block.split_at(head));
        rest = after;
    }
    blocks
}

/// All that may differ: names, their folders and ends in strips, and what tells their lengths.
fn differences(renamed: &[RenamedPath]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut pairs = Vec::new();
    for one in renamed {
        let text = |text: &str| [text.as_bytes(), b"\0"].concat();
        pairs.push((text(&one.from), text(&one.to)));
        if let (Some((from, old)), Some((to, new))) = (one.from.rsplit_once('/'), one.to.rsplit_once('/')) {
            pairs.push((text(&format!("{from}/")), text(&format!("{to}/"))));
            pairs.push((text(old), text(new)));
        }
        let length = |text: &str| (text.len() as u32 + 1).to_le_bytes().to_vec();
        pairs.push((length(&one.from), length(&one.to)));
    }
    pairs
}

#[test]
fn nothing_but_names_is_changed() {
    for made in &*MADE {
        let source = made.path("packed.blend");
        let mut copy = Vec::new();
        let renamed = rewrite(&source, &mut copy, moved_file).unwrap().renamed;
        let pairs = differences(&renamed);
        let original = unpacked(&source);
        let (before, after) = (blocks(&original), blocks(&copy));
        assert_eq!(before.len(), after.len());
        let mut changes = 0;
        for ((old_head, old), (new_head, new)) in before.iter().zip(&after) {
            if old.len() != new.len() {
                let end = |bytes: &[u8]| bytes.iter().position(|byte| *byte == 0).unwrap() + 1;
                let pair = (old[..end(old)].to_vec(), new[..end(new)].to_vec());
                assert!(pairs.contains(&pair), "{:?}", pair.1.escape_ascii().to_string());
                changes += 1;
                continue;
            }
            assert_eq!(old_head, new_head);
            let mut at = 0;
            while let Some(next) = (at..old.len()).find(|at| old[*at] != new[*at]) {
                let (begin, length) = (at..=next)
                    .rev()
                    .find_map(|begin| {
                        let (old, new) = (&old[begin..], &new[begin..]);
                        let pair =
                            pairs.iter().find(|(from, to)| old.starts_with(from) && new.starts_with(to))?;
                        Some((begin, pair.0.len().max(pair.1.len())))
                    })
                    .unwrap_or_else(|| {
                        panic!("byte {next} of {:?}", old_head[..4].escape_ascii().to_string())
                    });
                changes += 1;
                at = begin + length;
                // What lay behind a name in its field is gone.
                at += new[at..].iter().take_while(|byte| **byte == 0).count();
            }
        }
        assert!(changes >= renamed.len(), "{changes} changes for {} names", renamed.len());
    }
}

#[test]
fn a_name_longer_than_its_field_is_told() {
    let Some(made) = MADE.first() else { return skip("no Blender here makes the files") };
    let long =
        |length: usize| move |file: &ExternalFile| (file.owner == "IMwood").then(|| vec![b'a'; length]);
    let source = made.path("main.blend");
    let error = rewrite(&source, &mut Vec::new(), long(1024)).unwrap_err();
    let RewriteFault::TooLong { owner, room, .. } = &error.fault else { panic!("{error}") };
    assert_eq!((owner.as_str(), *room), ("IMwood", 1023));
    assert!(error.to_string().contains("main.blend"), "{error}");
    let folder = temp_dir();
    let copy = folder.path().join("long.blend");
    rewrite(&source, &mut fs::File::create(&copy).unwrap(), long(1023)).unwrap();
    let found = inspect(&copy).unwrap().external;
    assert_eq!(found.iter().find(|file| file.owner == "IMwood").unwrap().path.len(), 1023);
    let none = rewrite(&source, &mut Vec::new(), |_| Some(b"a\0b".to_vec())).unwrap_err();
    assert!(matches!(none.fault, RewriteFault::NoName { .. }), "{none}");
}
