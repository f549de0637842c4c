//! Variants: several files, scenes, cameras and view layers in one submission (decision 027).

use std::path::{Path, PathBuf};

use kiln_testkit::{assert_same_picture, scene};
use serde_json::{Value, json};

use crate::support::{Home, Said};

fn event<'a>(lines: &'a [Value], name: &'a str) -> impl Iterator<Item = &'a Value> {
    lines.iter().filter(move |line| line["event"] == name)
}

/// Renders frame 2 of these choices on this machine.
#[track_caller]
fn render(home: &Home, shot: &str, out: &Path, choices: &[&str]) -> Said {
    let args = ["render", shot, "--local", "--json", "-f", "2", "--out", out.to_str().unwrap()];
    let said = home.run(&[&args[..], choices].concat());
    assert_eq!(said.code, 0, "{}", said.err);
    said
}

/// The frame of the scene alone, rendered by a command of its own.
#[track_caller]
fn alone(home: &Home, shot: &str, choices: &[&str]) -> PathBuf {
    let out = home.work().join(format!("alone {}", choices.join(" ")).replace('/', "_"));
    render(home, shot, &out, choices);
    frame(&out, 2)
}

fn variants(said: &Said) -> Vec<(String, String, u64)> {
    let last = said.json();
    assert_eq!(last["event"], "variants-finished");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let all = last["variants"].as_array().unwrap().iter();
    all.map(|one| (text(&one["variant"]), text(&one["outcome"]), one["frames"].as_u64().unwrap())).collect()
}

#[test]
fn every_combination_is_rendered_as_it_would_be_alone() {
    let home = Home::new();
    let shot = home.copy(&scene("variants"), "shot.blend");
    let shot = shot.to_str().unwrap();
    let out = home.work().join("out");
    let choices = ["--scene", "Night", "--camera", "Near", "--camera", "Above: 1/2"];
    let said = render(&home, shot, &out, &choices);
    let done = |name: &str| (name.to_owned(), "done".to_owned(), 1);
    assert_eq!(variants(&said), [done("Near"), done("Above_ 1_2")]);
    let lines = said.json_lines();
    assert_eq!(event(&lines, "hashing").filter(|line| line["files_done"] == line["files"]).count(), 1);
    assert_eq!(event(&lines, "finished").count(), 2);
    let bundles: Vec<&Value> =
        event(&lines, "submitted").map(|line| &line["job"]["spec"]["session"]["bundle"]).collect();
    assert!(bundles.len() == 2 && bundles[0] == bundles[1], "one upload: {bundles:?}");
    let names: Vec<&Value> = event(&lines, "submitted").map(|line| &line["job"]["name"]).collect();
    assert_eq!(names, [&json!("shot (Near)"), &json!("shot (Above: 1/2)")]);
    for (folder, camera) in [("Near", "Near"), ("Above_ 1_2", "Above: 1/2")] {
        let expected = alone(&home, shot, &["--scene", "Night", "--camera", camera]);
        assert_same_picture(&frame(&out.join(folder), 2), &expected);
    }

    // The same again renders nothing; with more of a scene only what is new.
    let again = render(&home, shot, &out, &choices);
    assert!(event(&again.json_lines(), "submitted").next().is_none());
    assert_eq!(variants(&again), [done("Near"), done("Above_ 1_2")]);
    assert!(home.leftovers().is_empty());
}

#[test]
fn scenes_and_view_layers_may_share_a_folder_by_a_pattern() {
    let home = Home::new();
    let shot = home.copy(&scene("variants"), "shot.blend");
    let shot = shot.to_str().unwrap();
    let pattern = home.work().join("{scene}/{layer}");
    let choices = ["--scene", "Day", "--view-layer", "Beauty", "--view-layer", "Cube alone"];
    render(&home, shot, &pattern, &choices);
    for layer in ["Beauty", "Cube alone"] {
        let expected = alone(&home, shot, &["--scene", "Day", "--view-layer", layer]);
        assert_same_picture(&frame(&home.work().join("Day").join(layer), 2), &expected);
    }
    let two = home.run(&["render", shot, "--local", "-f", "2", "--scene", "Day", "--scene", "Night"]);
    assert_eq!(two.code, 0, "{}", two.err);
    for (word, row) in [("Day", 1), ("Night", 2)] {
        assert!(two.out.lines().nth(row).is_some_and(|line| line.starts_with(word)), "{}", two.out);
        assert!(frame(&home.work().join(word), 2).is_file());
    }
}

#[test]
fn what_cannot_be_is_refused_before_anything_starts() {
    let home = Home::new();
    let shot = home.copy(&scene("variants"), "shot.blend");
    let shot = shot.to_str().unwrap();
    let render = |more: &[&str]| home.run(&[&["render", shot, "--local", "-f", "1"], more].concat());
    let both = ["--scene", "Day", "--scene", "Night"];
    render(&[&both[..], &["--camera", "Far"]].concat())
        .refused(2, &["no camera “Far” in the scene “Night”", "it has", "Near"]);
    render(&[&both[..], &["--out", "frames/{layer}"]].concat())
        .refused(2, &["{layer} has no value", "{camera}"]);
    render(&[&both[..], &["--out", "{file}"]].concat())
        .refused(2, &["Day and Night would both write", "shot/frames/shot_0001.png", "{variant}"]);
    render(&["--scene", "Day", "--scene", "Day"]).refused(2, &["the scene Day is named twice"]);
    render(&["--out", "{nonsense}"]).refused(2, &["{nonsense} has no value here"]);
    let left: Vec<_> =
        std::fs::read_dir(home.work()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["shot.blend"]);
}

#[test]
fn one_variant_that_fails_leaves_the_others_delivered() {
    let home = Home::new();
    let good = home.copy(&scene("basic"), "good.blend");
    let bad = home.copy(&scene("no_camera"), "bad.blend");
    let args = ["render", good.to_str().unwrap(), bad.to_str().unwrap(), "--local", "-f", "1"];
    let said = home.run(&[&args[..], &["--json"]].concat());
    assert_eq!(said.code, 1, "{}", said.err);
    let outcomes = variants(&said);
    assert_eq!(outcomes[0], ("good".to_owned(), "done".to_owned(), 1));
    assert_eq!((&*outcomes[1].0, &*outcomes[1].1), ("bad", "failed"));
    assert!(said.err.contains("bad: the job was stopped"), "{}", said.err);
    assert!(home.work().join("good/frames/shot_0001.png").is_file());
    assert_eq!(said.json()["exit_code"], 1);
}

#[test]
fn variants_at_a_farm_are_submitted_at_once_and_fetched_by_the_same_command() {
    let home = Home::new();
    let server = home.server(&["--worker"]);
    let shot = home.copy(&scene("variants"), "shot.blend");
    let shot = shot.to_str().unwrap();
    let scenes = [shot, "-f", "1-2", "--scene", "Day", "--scene", "Night"];
    let submitted = home.json(&[&["submit", "--json"], &scenes[..]].concat());
    assert_eq!(submitted["event"], "variants-submitted");
    let jobs = submitted["variants"].as_array().unwrap().clone();
    assert_eq!((&jobs[0]["variant"], &jobs[1]["variant"]), (&"Day".into(), &"Night".into()));
    let said = home.run(&[&["render", "--no-local", "--json"], &scenes[..]].concat());
    assert_eq!(said.code, 0, "{}", said.err);
    let ids = |value: &Value| {
        value["variants"].as_array().unwrap().iter().map(|one| one["job"].clone()).collect::<Vec<_>>()
    };
    // A job that had ended meanwhile has nothing left to render.
    for (mine, theirs) in ids(&said.json()).iter().zip(jobs.iter().map(|one| &one["job"])) {
        assert!(mine.is_null() || mine == theirs, "{mine} is another job than {theirs}");
    }
    for name in ["Day", "Night"] {
        assert!(frame(&home.work().join(name), 2).is_file());
    }
    let names: Vec<Value> = home.json(&["jobs", "list", "--json"])["jobs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|job| job["name"].clone())
        .collect();
    assert_eq!(names, ["shot (Night)", "shot (Day)"], "two jobs in all");
    drop(server);
}

fn frame(folder: &Path, frame: u32) -> PathBuf {
    folder.join(format!("frames/shot_{frame:04}.png"))
}
