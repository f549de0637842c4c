//! Files that a render does not use: told by what is read from the .blend, and by the pixels that Blender renders without
//! them.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, env, fs, path::Path, process::Stdio};

use kiln_blend::{MissingDependency, MissingReport, RenderScope, find_dependencies, plan_layout};
use kiln_testkit::blenders;

#[test]
fn what_a_reader_calls_unused_changes_no_pixel() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/unused.py");
    let running: Vec<_> = blenders()
        .iter()
        .map(|blender| {
            let folder = tempfile::tempdir().unwrap();
            let mut command = blender.script(&script);
            command.arg(folder.path()).stdout(Stdio::null()).stderr(Stdio::null());
            if env::var_os("KILN_TEST_THOROUGH").is_some() {
                command.arg("thorough");
            }
            let child = command.spawn().unwrap();
            (format!("{command:?}"), folder, child)
        })
        .collect();
    for (command, folder, mut child) in running {
        child.wait().unwrap();
        assert!(folder.path().join("done").is_file(), "{command} did not come to its end");
        let wrong = fs::read_to_string(folder.path().join("wrong.txt")).unwrap_or_default();
        assert_eq!(wrong, "", "by {command}, the pixels do not say so");
        let mut count = 0;
        let mut wrong = Vec::new();
        for entry in fs::read_dir(folder.path()).unwrap() {
            let blend = entry.unwrap().path();
            if blend.extension().is_some_and(|extension| extension == "blend") {
                // The library by itself is another matter: there nothing is linked.
                if blend.file_stem().unwrap() != "held" {
                    wrong.extend(check(&blend));
                }
                count += 1;
            }
        }
        assert!(wrong.is_empty(), "{command}: {wrong:#?}");
        assert_eq!(count, 10, "{command}");
    }
}

fn lacking(blend: &Path, view_layer: Option<&str>) -> MissingReport {
    let frames = "1-2".parse().unwrap();
    let requested = RenderScope { view_layer, ..RenderScope::new("Scene", &frames) };
    find_dependencies(blend).unwrap().find_missing(Some(requested))
}

fn names<'a>(missing: impl Iterator<Item = &'a MissingDependency>) -> BTreeSet<String> {
    missing.map(|one| one.place.file_name().unwrap().to_str().unwrap().to_owned()).collect()
}

/// The errors of the reader, judged by the names of the files.
fn check(blend: &Path) -> Vec<String> {
    let found = lacking(blend, None);
    let used = names(found.missing.iter());
    let unused = names(found.unused.iter().map(|unused| &unused.file));
    assert!(!used.is_empty(), "{}: {unused:?}", blend.display());
    if blend.file_stem().unwrap() == "objects" {
        let other = names(lacking(blend, Some("Second")).missing.iter());
        let in_other_layer = "no_in_layer_that_is_off.png";
        assert!(other.contains(in_other_layer), "the view layer that is asked for: {other:?}");
        let frames = "1-2".parse().unwrap();
        let scene = RenderScope::new("Scene", &frames);
        let both = [scene, RenderScope { view_layer: Some("Second"), ..scene }];
        let both = plan_layout(&find_dependencies(blend).unwrap(), &[], &both);
        assert_eq!(names(both.missing.iter()), used.union(&other).cloned().collect(), "of two renders");
        assert!(!both.unused.iter().any(|name| name.contains(in_other_layer)), "{:?}", both.unused);
        assert!(!both.unused.is_empty());
    }
    if blend.file_stem().unwrap() == "tiles" {
        let absent: Vec<_> = found.missing[0].absent.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(absent, ["yes_tiles.1002.png", "yes_tiles.1011.png"]);
        assert_eq!(
            found.unused[0].to_string(),
            "image //kept/no_tiles.<UVTILE>.png lacks no_tiles.u2_v1.png and 1 more"
        );
    }
    let told = |name: &String, how| format!("{how}: {name} of {}", blend.file_name().unwrap().display());
    let wrong = used.iter().filter(|name| name.starts_with("no_")).map(|name| told(name, "used"));
    let also = unused.iter().filter(|name| !name.starts_with("no_")).map(|name| told(name, "not used"));
    wrong.chain(also).collect()
}
