//! One thing after another, as people do them over days: on the same files, in the same folders, with the same farm.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use kiln_testkit::{is_blender_3_4, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{
    support::{Home, said},
    terminal::Terminal,
};

const LIMIT: Duration = Duration::from_secs(60);
/// The sample, as small as it can be.
const QUICK: &[&str] = &["--samples", "1", "--resolution", "5%", "--frames", "1"];

/// A file whose last change is so long ago that Kiln remembers what it has read of it.
fn settled(path: &Path) {
    let changed = std::fs::metadata(path).unwrap().modified().unwrap();
    let age = || SystemTime::now().duration_since(changed).unwrap_or_default();
    wait_until(LIMIT, "the file has not changed for a while", || age() > Duration::from_secs(4));
}

fn shot(home: &Home) -> PathBuf {
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/sample.blend");
    let shot = home.copy(Path::new(sample), "shot.blend");
    settled(&shot);
    shot
}

#[test]
fn what_was_submitted_renders_here_as_well_and_the_other_way_round() {
    let home = Home::new();
    shot(&home);
    let server = home.server(&[]);
    let submit = || {
        let submit = ["submit", "shot.blend", "--server", &server.url, "--json"];
        let job = home.json(&[&submit, QUICK].concat());
        assert!(job["job"]["id"].is_u64(), "{job}");
    };
    let render = |out: &str| {
        let done = home.json(&[&["render", "shot.blend", "--local", "--out", out, "--json"], QUICK].concat());
        assert_eq!(done["landed"], 1, "{done}");
    };
    // Its chunks are remembered from here on.
    submit();
    render("here");
    submit();
    render("again");
}

/// Linux takes any bytes for a name: old archives, and disks of other systems, have such.
#[test]
fn a_folder_whose_name_is_no_unicode_works_like_any_other() {
    // Without a worker, the job is for the Blender that saved the file.
    if !is_blender_3_4() {
        return;
    }
    let home = Home::new();
    let folder = home.work().join(OsStr::from_bytes(b"f\xe9lm"));
    std::fs::create_dir(&folder).unwrap();
    std::fs::rename(shot(&home), folder.join("shot.blend")).unwrap();
    let run = |args: &[&str]| -> Value {
        let said = said(home.kiln(args).current_dir(&folder).output().unwrap());
        assert_eq!(said.code, 0, "{args:?}: {}", said.err);
        said.json()
    };
    let frame = "frames/vase_0001.png";
    let render = [&["render", "shot.blend", "--local", "--json"], QUICK].concat();
    assert_eq!(run(&render)["landed"], 1);
    assert!(folder.join(frame).is_file());
    assert_eq!(run(&render)["kept"], 1, "the same command finds it");
    let shown = run(&["inspect", "shot.blend", "--json"]);
    assert!(shown["file"].as_str().unwrap().ends_with("/f\u{fffd}lm/shot.blend"), "{}", shown["file"]);
    run(&["bundle", "shot.blend", "--out", "shot.zip", "--json"]);
    assert!(folder.join("shot.zip").is_file());

    let server = home.server(&[]);
    let _worker = home.worker(&server.url, "one");
    std::fs::remove_file(folder.join(frame)).unwrap();
    let job = run(&[&["submit", "shot.blend", "--json"], QUICK].concat())["job"]["id"].to_string();
    assert_eq!(run(&["jobs", "wait", &job, "--json"])["exit_code"], 0);
    // The output folder was saved.
    assert_eq!(run(&["jobs", "fetch", &job, "--json"])["exit_code"], 0);
    assert!(folder.join(frame).is_file());
}

/// A file that says it is from the Blender before the one that is here.
fn of_3_3(home: &Home) {
    let mut bytes = std::fs::read(kiln_testkit::scene("basic")).unwrap();
    let version = b"BLENDER-v304";
    assert!(bytes.starts_with(version), "it is not packed, and from 3.4");
    bytes[version.len() - 1] = b'3';
    std::fs::write(home.work().join("old.blend"), bytes).unwrap();
}

#[test]
fn a_file_of_an_older_blender_renders_with_a_newer_one_where_a_person_says_so() {
    if !is_blender_3_4() {
        return;
    }
    let home = Home::new();
    of_3_3(&home);
    let here = ["render", "old.blend", "--local", "--frames", "1"];
    home.run(&here).refused(
        2,
        &[
            "old.blend was saved by Blender 3.3, and this machine has",
            "--blender-version 3.4",
            "`blender_newer = true` in kiln.toml",
        ],
    );
    let may = |args: &[&str]| -> Value {
        let said = said(home.kiln(args).arg("--json").env("KILN_BLENDER_NEWER", "true").output().unwrap());
        assert_eq!(said.code, 0, "{args:?}: {}", said.err);
        said.json()
    };
    assert_eq!(may(&here)["landed"], 1);

    // Who can be asked is asked.
    let command = home.kiln(&["render", "old.blend", "--local", "--frames", "3"]);
    for (answer, code) in [("n\n", 2), ("y\n", 0)] {
        let mut terminal = Terminal::run(&command, 200, 30);
        terminal.shows("Render with 3.4?");
        terminal.press(answer);
        assert_eq!(terminal.ended(), code, "{}", terminal.text());
    }
    assert!(home.work().join("frames/shot_0003.png").is_file());

    let server = home.server(&[]);
    let submit = ["submit", "old.blend", "--frames", "2"];
    let waits = home.json(&[&submit[..], &["--json"]].concat());
    assert_eq!(waits["job"]["spec"]["session"]["blender"], "3.3", "nobody is there yet who could have it");
    let _worker = home.worker(&server.url, "one");
    wait_until(LIMIT, "the worker is there", || {
        home.json(&["workers", "--json"])["workers"][0]["blenders"][0].is_object()
    });
    home.run(&submit).refused(2, &["the farm has 3.4", "--blender-version 3.4", "--blender-version 3.3"]);
    let job = may(&submit)["job"]["id"].to_string();
    assert_eq!(home.json(&["jobs", "wait", &job, "--json"])["exit_code"], 0);
    let waits = home.json(&[&submit[..], &["--blender-version", "3.3", "--out", "waits", "--json"]].concat());
    assert_eq!(waits["job"]["spec"]["session"]["blender"], "3.3");
}

/// Ctrl-C comes from somebody who can answer. What else ends a command does not wait for one.
#[test]
fn only_who_sits_at_the_terminal_is_asked() {
    let home = Home::new();
    home.copy(&kiln_testkit::scene("basic"), "shot.blend");
    let _server = home.server(&[]);
    let command = home.kiln(&["render", "shot.blend", "--no-local", "--hold", "--frames", "1"]);
    let mut terminal = Terminal::run(&command, 200, 30);
    terminal.shows("job 1 at");
    terminal.shows("0/1 frames");
    kill_process(Pid::from_child(&terminal.child), Signal::TERM).unwrap();
    assert_eq!(terminal.ended(), 130, "{}", terminal.text());
    terminal.shows("job 1 continues");
    assert!(!terminal.text().contains("[d]etach"), "{}", terminal.text());
    let mut terminal = Terminal::run(&command, 200, 30);
    terminal.shows("0/1 frames");
    terminal.press("\x03");
    terminal.shows("[d]etach");
    terminal.press("c\n");
    assert_eq!(terminal.ended(), 4, "{}", terminal.text());
}

/// A job that is joined may make more than this command asks for.
#[test]
fn what_is_in_the_way_of_frames_that_nobody_asked_for_is_no_failure() {
    let home = Home::new();
    home.copy(&kiln_testkit::scene("basic"), "shot.blend");
    let server = home.server(&[]);
    let _worker = home.worker(&server.url, "one");
    let job = home.submit(&["shot.blend", "--frames", "1-2", "--hold"]);
    let mine = home.work().join("frames/shot_0002.png");
    std::fs::create_dir(mine.parent().unwrap()).unwrap();
    std::fs::write(&mine, b"mine").unwrap();
    let render = home.kiln(&["render", "shot.blend", "--no-local", "--frames", "1", "--json"]);
    let mut render = Terminal::run(&render, 200, 40);
    render.shows(&format!("job {job} at"));
    home.json(&["jobs", "resume", &job, "--json"]);
    assert_eq!(render.ended(), 0, "{}", render.text());
    assert_eq!(std::fs::read(&mine).unwrap(), b"mine");
    // The output folder is still known.
    std::fs::remove_file(&mine).unwrap();
    assert_eq!(home.json(&["jobs", "fetch", &job, "--json"])["fetched"], 1);
    assert!(mine.is_file());
}
