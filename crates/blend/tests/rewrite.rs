//! Copies with other names: what a real Blender says of them, and that nothing else is changed.

#![allow(clippy::unwrap_used)]

use std::{
    env, fs,
    io::Read,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use kiln_blend::{ExternalFile, Renamed, RewriteFault, inspect, rewrite};

type Names = Vec<(String, String)>;

struct Made {
    program: PathBuf,
    folder: tempfile::TempDir,
    names: Names,
}

fn blender(program: &Path, args: &[&Path]) -> String {
    let mut command = Command::new(program);
    if program.ends_with("blender") {
        command.args(["--background", "--factory-startup", "--python"]);
    }
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/names.py")).arg("--").args(args);
    let output = command.output().expect("Blender starts");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn read_names(path: &Path, said: &str) -> Names {
    let names = fs::read(path).unwrap_or_else(|_| panic!("Blender told no names:\n{said}"));
    serde_json::from_slice(&names).unwrap()
}

impl Made {
    fn by(program: PathBuf) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let said = blender(&program, &[Path::new("make"), folder.path()]);
        let names = read_names(&folder.path().join("names.json"), &said);
        Self { program, folder, names }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The names in a file, as Blender sees them.
    fn told(&self, blend: &Path) -> Names {
        let out = self.path("told.json");
        let said = blender(&self.program, &[Path::new("tell"), blend, &out]);
        read_names(&out, &said)
    }
}

/// One run of each Blender there is for all tests.
static MADE: LazyLock<Vec<Made>> = LazyLock::new(|| {
    let mut made = vec![Made::by("blender".into())];
    for name in ["KILN_TEST_BPY_42", "KILN_TEST_BPY_45", "KILN_TEST_BPY"] {
        match env::var_os(name) {
            Some(python) => made.push(Made::by(python.into())),
            None => println!("not tested: {name} names no Python with the bpy wheel"),
        }
    }
    made
});

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
        for name in ["main.blend", "packed.blend"] {
            let (source, copy) = (made.path(name), made.path("copy.blend"));
            let mut out = fs::File::create(&copy).unwrap();
            let rewritten = rewrite(&source, &mut out, moved_file).unwrap();
            assert_eq!(rewritten.bytes, fs::metadata(&copy).unwrap().len());
            let expected: Names =
                made.names.iter().map(|(label, name)| (label.clone(), moved_path(name))).collect();
            assert_eq!(made.told(&copy), expected, "{}", made.program.display());
            let least = if made.program.ends_with("blender") { 20 } else { 22 };
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
            assert!(copy == unpacked(&made.path(name)), "{name} of {}", made.program.display());
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
fn differences(renamed: &[Renamed]) -> Vec<(Vec<u8>, Vec<u8>)> {
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
    let made = &MADE[0];
    let long =
        |length: usize| move |file: &ExternalFile| (file.owner == "IMwood").then(|| vec![b'a'; length]);
    let source = made.path("main.blend");
    let error = rewrite(&source, &mut Vec::new(), long(1024)).unwrap_err();
    let RewriteFault::TooLong { owner, room, .. } = &error.fault else { panic!("{error}") };
    assert_eq!((owner.as_str(), *room), ("IMwood", 1023));
    assert!(error.to_string().contains("main.blend"), "{error}");
    let copy = made.path("long.blend");
    rewrite(&source, &mut fs::File::create(&copy).unwrap(), long(1023)).unwrap();
    let found = inspect(&copy).unwrap().external;
    assert_eq!(found.iter().find(|file| file.owner == "IMwood").unwrap().path.len(), 1023);
    let none = rewrite(&source, &mut Vec::new(), |_| Some(b"a\0b".to_vec())).unwrap_err();
    assert!(matches!(none.fault, RewriteFault::NoName { .. }), "{none}");
}
