//! Files that are missing stop a job only where a requested frame may use them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use kiln_testkit::{Blender, assert_same_picture, blender, copy_folder};
use serde_json::Value;

use crate::support::Home;

/// Builds the scenes of unused.py, and returns where one of them lies.
pub fn built(home: &Home, name: &str) -> PathBuf {
    let folder = home.work().join("built");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/e2e/unused.py");
    let mut build = Command::new(blender());
    build.args(["--background", "--factory-startup", "--python-exit-code", "3", "--python", script, "--"]);
    let output = build.arg(&folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    folder.join(name).join(format!("{name}.blend"))
}

/// A scene with the files beside it.
fn copy(home: &Home, name: &str) {
    let from = built(home, name);
    home.copy(&from, &format!("{name}.blend"));
    copy_folder(from.parent().unwrap(), &home.work());
    fs::remove_dir_all(home.work().join("built")).unwrap();
}

fn cold(home: &Home, blend: &Path, frame: i32) -> PathBuf {
    let cold = home.work().join("cold-");
    Blender::Executable(blender()).render_cold(blend, frame, Some(&cold), false);
    home.work().join(format!("cold-{frame:04}.png"))
}

/// Each of these words is in one of the notices.
#[track_caller]
fn told(said: &Value, words: &[&str]) {
    let notices: Vec<&str> = said["notices"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    for word in words {
        assert!(notices.iter().any(|notice| notice.contains(word)), "“{word}” is not in {notices:#?}");
    }
}

const UNUSED: &[&str] = &[
    "//hidden.png",
    "//kept.png",
    "//behind.png",
    "//seq/tile_001.png",
    "//held.png",
    "spelled differently on disk",
];

#[test]
fn what_nothing_that_renders_uses_is_told_and_stops_nothing() {
    let home = Home::new();
    copy(&home, "unused");
    let blend = home.work().join("unused.blend");
    let done =
        home.json(&["render", "unused.blend", "--local", "--frames", "1-3", "--out", "here", "--json"]);
    assert_eq!(done["landed"], 3, "{done:#}");
    told(&done, UNUSED);
    assert_eq!(done["notices"].as_array().unwrap().len(), UNUSED.len(), "{done:#}");
    let wood = home.work().join("Wood.png");
    // Cold Blender only finds the one that shows by the name that the file has.
    fs::copy(&wood, home.work().join("wood.png")).unwrap();
    let truth = cold(&home, &blend, 3);
    fs::remove_file(home.work().join("wood.png")).unwrap();
    assert_same_picture(&home.work().join("here/frames/shot_0003.png"), &truth);
    let again =
        home.json(&["render", "unused.blend", "--local", "--frames", "1-3", "--out", "here", "--json"]);
    assert_eq!(again["kept"], 3, "{again:#}");
    told(&again, UNUSED);
    let shown = home.json(&["inspect", "unused.blend", "--json"]);
    assert_eq!(shown["missing"].as_array().unwrap().len(), 0, "{shown:#}");
    assert_eq!(shown["unused"].as_array().unwrap().len(), 5, "{shown:#}");

    let server = home.server(&[]);
    let _oak = home.worker(&server.url, "oak");
    let sent = home.json(&["submit", "unused.blend", "--frames", "1-3", "--json"]);
    told(&sent, UNUSED);
    let job = sent["job"]["id"].to_string();
    home.completed(&job);
    assert_same_picture(&home.fetch(&job, "there").join("frames/shot_0003.png"), &truth);
}

#[test]
fn what_shows_in_another_frame_than_the_saved_one_stops_the_job() {
    let home = Home::new();
    copy(&home, "unused_at_times");
    let render = ["render", "unused_at_times.blend", "--local", "--frames", "1"];
    home.run(&render).refused(2, &["//late.png", "--allow-missing"]);
    let done = home.json(&[&render[..], &["--allow-missing", "--json"]].concat());
    assert_eq!(done["landed"], 1, "{done:#}");
}

/// Neither the scene's files are used, nor the denoiser that it names: not every Blender is built with one.
#[test]
fn a_scene_whose_picture_is_the_sequencers_needs_nothing_else() {
    let home = Home::new();
    copy(&home, "cut");
    let done = home.json(&["render", "cut.blend", "--local", "--frames", "2", "--json"]);
    assert_eq!(done["landed"], 1, "{done:#}");
    told(&done, &["//covered.png", "//muted.png"]);
    let truth = cold(&home, &home.work().join("cut.blend"), 2);
    assert_same_picture(&home.work().join("frames/shot_0002.png"), &truth);
}
