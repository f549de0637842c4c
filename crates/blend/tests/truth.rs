//! Every value that is read from a file against what Blender says of the same file through Python.

#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use kiln_blend::{Simulation, SimulationKind, find_dependencies, inspect};
use kiln_testkit::{Blender, fluid_blenders, skip};
use serde_json::Value;

struct Made {
    folder: PathBuf,
    /// Blender's account, by name of file.
    truth: BTreeMap<String, Value>,
}

impl Made {
    fn by(blender: &Blender) -> Self {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = blender.build(
            &here.join("tests/truth.py"),
            &[&here.join("../../blender/kiln_host")],
            "truth.json",
        );
        let truth = fs::read(folder.join("truth.json")).unwrap();
        Self { truth: serde_json::from_slice(&truth).unwrap(), folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// By each Blender there is.
static MADE: LazyLock<Vec<Made>> = LazyLock::new(|| fluid_blenders().iter().map(Made::by).collect());

/// Every file with what Blender says of it.
fn files() -> impl Iterator<Item = (PathBuf, &'static Value)> {
    MADE.iter().flat_map(|made| made.truth.iter().map(|(name, truth)| (made.path(name), truth)))
}

#[test]
fn what_has_no_bake_is_what_the_host_would_refuse() {
    if MADE.is_empty() {
        return skip("no Blender here makes the files");
    }
    let (mut unbaked, mut baked, mut linked) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut lacking = BTreeSet::new();
    for (path, truth) in files() {
        let found = inspect(&path).unwrap();
        let version = &truth["version"];
        for (scene, expected) in truth["unbaked"].as_object().unwrap() {
            let mut ours: Vec<String> = found.unbaked(scene).map(ToString::to_string).collect();
            ours.sort();
            assert_eq!(serde_json::json!(ours), *expected, "{version} {} scene {scene}", path.display());
        }
        let libraries = find_dependencies(&path).unwrap().linked;
        for (scene, expected) in truth["linked"].as_object().unwrap() {
            let shown = libraries.iter().filter(|one| one.simulation.scenes.contains(scene));
            let mut ours: Vec<String> = shown.map(ToString::to_string).collect();
            ours.sort();
            assert_eq!(serde_json::json!(ours), *expected, "{version} {} scene {scene}", path.display());
            linked.extend(ours);
        }
        for (scene, expected) in truth["missing"].as_object().unwrap() {
            let baked = found.simulations.iter().filter(|one| one.scenes.contains(scene));
            let frames = |one: &Simulation| -> Vec<i32> {
                one.missing_frames.iter().flat_map(|range| range.first..=range.last).collect()
            };
            let ours = baked.map(|one| (one.to_string(), frames(one)));
            let mut ours: Vec<_> = ours.filter(|(_, frames)| !frames.is_empty()).collect();
            ours.sort();
            lacking.extend(ours.iter().map(|(name, _)| name.clone()));
            assert_eq!(serde_json::json!(ours), *expected, "{version} {} scene {scene}", path.display());
        }
        let particles: Vec<(String, bool)> = found
            .simulations
            .iter()
            .filter(|one| one.kind == SimulationKind::Particles)
            .map(|one| (one.owner.clone(), one.baked))
            .collect();
        assert_eq!(serde_json::json!(particles), truth["particles"], "{version} {}", path.display());
        for one in found.simulations {
            let kinds = if one.baked { &mut baked } else { &mut unbaked };
            kinds.insert(one.kind);
        }
    }
    assert_eq!(unbaked.len(), if MADE.len() > 1 { 8 } else { 7 }, "{unbaked:?}");
    assert_eq!(linked.len(), 10, "{linked:?}");
    assert_eq!(lacking.len(), if MADE.len() > 1 { 5 } else { 4 }, "{lacking:?}");
    assert!(baked.len() + 1 >= unbaked.len(), "{baked:?}");
}

/// Blender steps through all of these: what it would do in one step was measured (decision 007).
#[test]
fn particles_need_a_bake_unless_every_birth_can_be_looked_up() {
    let free = ["unmoved", "moves", "child", "grandchild that moves", "subdivided", "shown later"];
    let files = [("emitters.blend", true), ("blurred.blend", false), ("heavier and heavier.blend", false)];
    for (file, is_free) in files {
        for made in MADE.iter() {
            let found = inspect(&made.path(file)).unwrap();
            assert_eq!(found.simulations.len(), 20);
            for one in &found.simulations {
                let needs_bake = !(is_free && free.contains(&one.owner.as_str()));
                assert_eq!(one.needs_bake, needs_bake, "{file}: {one}");
            }
        }
    }
}

/// Compares all that Blender says with our own, field by field; numbers by their value.
fn differences(ours: &Value, truth: &Value, place: &str, found: &mut Vec<String>) {
    match (ours, truth) {
        (Value::Object(ours), Value::Object(truth)) => {
            for (key, truth) in truth {
                differences(ours.get(key).unwrap_or(&Value::Null), truth, &format!("{place}.{key}"), found);
            }
        }
        (Value::Array(ours), Value::Array(truth)) if ours.len() == truth.len() => {
            for (index, (ours, truth)) in ours.iter().zip(truth).enumerate() {
                differences(ours, truth, &format!("{place}[{index}]"), found);
            }
        }
        (Value::Number(ours), Value::Number(truth))
            // Reading JSON rounds the last digit.
            if ours.as_f64().zip(truth.as_f64()).is_some_and(|(a, b)| (a - b).abs() <= 1e-12 * b.abs()) => {}
        (ours, truth) if ours == truth => {}
        (ours, truth) => found.push(format!("{place} is {ours}, Blender says {truth}")),
    }
}

#[test]
fn every_value_of_every_scene_is_what_blender_says() {
    if MADE.is_empty() {
        return skip("no Blender here makes the files");
    }
    let mut engines = BTreeSet::new();
    let mut formats = BTreeSet::new();
    for (path, truth) in files() {
        let found = inspect(&path).unwrap();
        let name = format!("{} by {}", path.file_name().unwrap().display(), truth["version"]);
        let mut wrong = Vec::new();
        let written_by = serde_json::json!([found.written_by.major, found.written_by.minor]);
        let version = truth["version"].as_array().unwrap();
        differences(&written_by, &serde_json::json!(version[..2]), "version", &mut wrong);
        differences(&serde_json::json!(found.subversion), &truth["subversion"], "subversion", &mut wrong);
        differences(&serde_json::json!(found.active_scene), &truth["active"], "active", &mut wrong);
        let sorted = |mut names: Vec<String>| {
            names.sort();
            serde_json::json!(names)
        };
        let cameras = truth["cameras"].as_array().unwrap().iter().map(|n| n.as_str().unwrap().to_owned());
        differences(&sorted(found.cameras.clone()), &sorted(cameras.collect()), "cameras", &mut wrong);
        assert_eq!(found.scenes.len(), truth["scenes"].as_array().unwrap().len(), "{name}");
        for expected in truth["scenes"].as_array().unwrap() {
            let Some(scene) = found.scenes.iter().find(|scene| scene.name == expected["name"]) else {
                wrong.push(format!("no scene {}", expected["name"]));
                continue;
            };
            let mut expected = expected.clone();
            let mut ours = serde_json::to_value(scene).unwrap();
            // Blender turns it round when it opens a file outside Windows.
            ours["output_path"] = scene.output_path.replace('\\', "/").into();
            if scene.depth.is_none() {
                // Formats with one depth have none; nor have videos, and formats that Kiln cannot check.
                assert!(scene.format.is_none_or(|format| format.depths().len() < 2), "{name} {}", scene.name);
                expected["depth"] = Value::Null;
            }
            engines.insert(scene.engine.clone());
            formats.insert(scene.format_name.clone());
            differences(&ours, &expected, &scene.name, &mut wrong);
        }
        assert!(wrong.is_empty(), "{name}:\n{}", wrong.join("\n"));
    }
    assert!(engines.len() >= 3, "{engines:?}");
    assert!(formats.len() >= 14, "{formats:?}");
}

#[test]
fn every_datablock_with_a_file_is_found_with_its_name_and_whether_it_is_packed() {
    for (path, truth) in files() {
        let found = inspect(&path).unwrap();
        let text = |one: &Value| one.to_string();
        let expected: BTreeSet<String> = truth["external"].as_array().unwrap().iter().map(text).collect();
        let kinds = ["image", "library", "sound", "font", "movie-clip", "cache-file", "volume", "text"];
        let ours: BTreeSet<String> = found
            .external
            .iter()
            .filter(|file| kinds.contains(&serde_json::to_value(file.kind).unwrap().as_str().unwrap()))
            .map(|file| serde_json::json!([file.kind, file.owner.get(2..), file.path, file.packed]))
            .map(|one| text(&one))
            .collect();
        assert_eq!(ours, expected, "{} by {}", path.display(), truth["version"]);
    }
}
