//! The file of a sequence that a frame shows: by Blender, by Kiln's host, and by the .blend alone.

#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use kiln_blend::{
    ExternalFile, ExternalKind, FrameDemand, RenderScope, SequenceRule, SequenceUser, find_dependencies,
    inspect,
};
use kiln_testkit::{Blender, all_blenders};
use serde::Deserialize;

#[derive(Deserialize)]
struct Shown {
    blend: String,
    /// As the host names the sequence: `image wood`.
    label: String,
    rule: Option<String>,
    moves: Option<String>,
    frames: BTreeMap<i32, Frame>,
}

#[derive(Deserialize)]
struct Frame {
    /// Blender was asked.
    asked: bool,
    blender: Option<String>,
    /// The name, and how much it is needed.
    kiln: Option<(String, String)>,
}

#[test]
fn blender_the_host_and_the_file_agree_on_every_frame() {
    for blender in all_blenders() {
        check(&blender, if let Blender::Executable(_) = blender { 55 } else { 57 });
    }
}

fn check(blender: &Blender, least: usize) {
    let mut command = blender.script(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sequences.py"));
    let folder = tempfile::tempdir().unwrap();
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../blender");
    let output = command.arg(folder.path()).arg(home).output().expect("Blender starts");
    let truth = fs::read(folder.path().join("truth.json")).unwrap_or_else(|_| {
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        panic!("{command:?} made no truth.json:\n{out}\n{err}")
    });
    let truth: Vec<Shown> = serde_json::from_slice(&truth).unwrap();
    assert!(truth.len() >= least, "{command:?} made {} sequences", truth.len());
    let mut rules = BTreeSet::new();
    let mut users: BTreeMap<&str, BTreeMap<String, (ExternalFile, SequenceUser)>> = BTreeMap::new();
    for shown in &truth {
        let ours = users.entry(&shown.blend).or_insert_with(|| of_file(&folder.path().join(&shown.blend)));
        let name = format!("{command:?}, {}: {}", shown.blend, shown.label);
        let (file, user) = ours.remove(&shown.label).unwrap_or_else(|| panic!("{name} is not found"));
        rules.extend(shown.rule.clone());
        let is_told = shown.rule.is_some() && shown.moves.is_none();
        assert_eq!(user.rule != SequenceRule::Unknown, is_told, "{name}: {user:?}");
        for (frame, expected) in &shown.frames {
            let kiln = expected.kiln.as_ref().map(|(name, _)| name);
            if expected.asked {
                assert_eq!(kiln, expected.blender.as_ref(), "the host, {name}, frame {frame}");
            }
            if !is_told {
                continue;
            }
            let wanted = user.rule.wanted(*frame);
            let how = match wanted {
                FrameDemand::Nothing => None,
                FrameDemand::Needed(_) => Some("needed"),
                FrameDemand::Between(_) => Some("between"),
            };
            let ours = file.picture(wanted).map(|name| String::from_utf8(name).unwrap());
            assert_eq!(ours.as_ref(), kiln, "the file, {name}, frame {frame}");
            assert_eq!(how, expected.kiln.as_ref().map(|(_, how)| how.as_str()), "{name}, frame {frame}");
        }
    }
    let found = find_dependencies(&folder.path().join("linking.blend")).unwrap();
    let frames = "1-4".parse().unwrap();
    let missing = found.find_missing(Some(RenderScope::new("Scene", &frames))).missing;
    let absent: BTreeSet<_> =
        missing.iter().flat_map(|one| &one.absent).map(|one| (one.name.as_str(), one.frame)).collect();
    let expected = [("far_0003.png", 3), ("near_0003.png", 3)];
    assert!(
        absent.iter().eq(&expected),
        "{command:?}, of what nothing leads to, nothing is missing: {missing:?}"
    );
    let clip = found.items.iter().find(|item| item.file.kind == ExternalKind::MovieClip).unwrap();
    assert_eq!(clip.files.len(), 3, "{command:?}: all pictures of a clip that is stored as a movie");
    let left: Vec<_> = users.values().flat_map(BTreeMap::keys).collect();
    assert!(left.is_empty(), "{command:?}: the host does not know of {left:?}");
    let all = ["cache", "clip", "clip-strip", "image", "input", "scene-time", "volume"];
    let expected = all.iter().filter(|rule| **rule != "cache" || least > 55);
    assert!(rules.iter().map(String::as_str).eq(expected.copied()), "{rules:?}");
}

/// By the host's label. No two users of these files show one datablock.
fn of_file(blend: &Path) -> BTreeMap<String, (ExternalFile, SequenceUser)> {
    let mut found = BTreeMap::new();
    for file in inspect(blend).unwrap().external {
        let noun = match &file.owner[..2] {
            "IM" => "image",
            "MC" => "movie clip",
            "VO" => "volume",
            _ => "cache",
        };
        let label = format!("{noun} {}", &file.owner[2..]);
        for user in file.shown_by.clone() {
            let other = found.insert(label.clone(), (file.clone(), user));
            assert!(other.is_none(), "{label} of {} is shown twice: {other:?}", blend.display());
        }
    }
    found
}
