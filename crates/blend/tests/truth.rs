//! Every value that is read from a file against what Blender says of the same file through Python.

#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use kiln_blend::{SimulationKind, inspect};
use serde_json::Value;

struct Made {
    folder: tempfile::TempDir,
    /// What Blender says, by name of file.
    truth: BTreeMap<String, Value>,
}

impl Made {
    fn by(mut command: Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kiln_host = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../blender/kiln_host");
        let output = command.arg("--").arg(folder.path()).arg(kiln_host).output().expect("Blender starts");
        // Its exit code says little: a wheel may die after all is done.
        let truth = fs::read(folder.path().join("truth.json")).unwrap_or_else(|_| {
            let (out, err) =
                (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            panic!("{command:?} made no truth.json:\n{out}\n{err}")
        });
        Self { truth: serde_json::from_slice(&truth).unwrap(), folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// One run of each Blender there is for all tests.
static MADE: LazyLock<Vec<Made>> = LazyLock::new(|| {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/truth.py");
    let mut system = Command::new("blender");
    system.args(["--background", "--factory-startup", "--python"]).arg(&script);
    let mut made = vec![Made::by(system)];
    for name in ["KILN_TEST_BPY_42", "KILN_TEST_BPY_45", "KILN_TEST_BPY"] {
        match env::var_os(name) {
            Some(python) => {
                let mut wheel = Command::new(python);
                wheel.arg(&script);
                made.push(Made::by(wheel));
            }
            None => println!("not tested: {name} names no Python with the bpy wheel"),
        }
    }
    made
});

/// Every file with what Blender says of it.
fn files() -> impl Iterator<Item = (PathBuf, &'static Value)> {
    MADE.iter().flat_map(|made| made.truth.iter().map(|(name, truth)| (made.path(name), truth)))
}

#[test]
fn what_has_no_bake_is_what_the_host_would_refuse() {
    let (mut unbaked, mut baked) = (BTreeSet::new(), BTreeSet::new());
    for (path, truth) in files() {
        let found = inspect(&path).unwrap();
        let version = &truth["version"];
        for (scene, expected) in truth["unbaked"].as_object().unwrap() {
            let mut ours: Vec<String> = found.unbaked(scene).map(ToString::to_string).collect();
            ours.sort();
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
    assert!(baked.len() + 1 >= unbaked.len(), "{baked:?}");
}
