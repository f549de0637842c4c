//! Rules of the workspace: dependencies between crates, licences, and the lengths of files.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use serde_json::Value;

pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn metadata() -> Value {
    // What only other systems need is not on this disk.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", &platform])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The edges of ARCHITECTURE.md: each crate and the crates of ours that it depends on.
const EDGES: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("files", &[]),
    ("core", &["types"]),
    ("sim", &["core", "types"]),
    ("api", &["types"]),
    ("store", &["files", "types"]),
    ("blobs", &["chunks", "files", "types"]),
    ("chunks", &["types"]),
    ("blend", &["files", "types"]),
    ("image", &["types"]),
    ("host", &["files", "types"]),
    ("client", &["api", "blend", "chunks", "files", "image", "types"]),
    ("server", &["core", "store", "blobs", "chunks", "files", "blend", "api", "types"]),
    ("worker", &["host", "client", "blend", "blobs", "chunks", "files", "image", "api", "types"]),
    ("testkit", &[]),
    ("fidelity", &["types", "host", "image", "testkit"]),
    ("cli", &["types", "files", "api", "client", "server", "worker", "host", "blend"]),
];

#[test]
fn crates_depend_on_each_other_as_the_map_says() {
    // An edge that the map has and no crate uses is wrong too: it would hide that somebody begins to use it.
    let map: BTreeMap<&str, BTreeSet<&str>> =
        EDGES.iter().map(|(name, uses)| (*name, uses.iter().copied().collect())).collect();
    let metadata = metadata();
    let mut found: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in metadata["packages"].as_array().unwrap() {
        let Some(name) = package["name"].as_str().unwrap().strip_prefix("kiln-") else { continue };
        if !package["source"].is_null() {
            continue;
        }
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        // Tests may use more.
        let used = dependencies.filter(|dependency| dependency["kind"] != "dev");
        let ours = used.filter_map(|dependency| dependency["name"].as_str().unwrap().strip_prefix("kiln-"));
        found.insert(name, ours.collect());
    }
    assert_eq!(found, map, "left: the Cargo.toml files; right: EDGES, as in ARCHITECTURE.md");
}

#[test]
fn the_core_stays_pure() {
    let metadata = metadata();
    let core = metadata["packages"].as_array().unwrap().iter().find(|p| p["name"] == "kiln-core").unwrap();
    let normal: Vec<_> = core["dependencies"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|d| d["kind"].is_null())
        .map(|d| d["name"].as_str().unwrap())
        .collect();
    for name in &normal {
        assert!(["kiln-types", "slab", "thiserror"].contains(name), "core depends on {name}");
    }
    for entry in walk(&root().join("crates/core/src")) {
        let text = std::fs::read_to_string(&entry).unwrap();
        for word in ["std::fs", "std::net", "std::time::Instant", "SystemTime", "std::thread", "std::env"] {
            assert!(!text.contains(word), "{} mentions {word}", entry.display());
        }
    }
}

/// The licences of deny.toml, read from its own text so that there is one list.
#[test]
fn every_licence_is_allowed() {
    let deny = std::fs::read_to_string(root().join("deny.toml")).unwrap();
    let list = deny.split("allow = [").nth(1).unwrap().split(']').next().unwrap();
    let allowed: BTreeSet<_> = list.split('"').skip(1).step_by(2).collect();
    assert!(allowed.contains("MIT"));
    for package in metadata()["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let licence = package["license"].as_str().unwrap_or_else(|| panic!("{name} names no licence"));
        let one_is_fine = licence.replace('/', " OR ").split(" OR ").any(|choice| {
            choice.split(" AND ").all(|part| allowed.contains(part.trim().trim_matches(['(', ')'])))
        });
        assert!(one_is_fine, "{name} is under {licence}, which deny.toml does not allow");
    }
}

#[test]
fn files_stay_short() {
    for folder in ["crates", "blender", "tests"] {
        for file in walk(&root().join(folder)) {
            let lines = std::fs::read_to_string(&file).unwrap().lines().count();
            assert!(lines <= 600, "{} has {lines} lines; split it", file.display());
        }
    }
}

/// Rust and Python files below a folder.
fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(walk(&path));
        } else if path.extension().is_some_and(|e| e == "rs" || e == "py") {
            found.push(path);
        }
    }
    found
}
