//! Suspicious frames, which are delivered and reported: black ones, and those with pixels that are not numbers.

use kiln_testkit::scene;
use serde_json::{Value, json};

use crate::support::Home;

fn home() -> Home {
    let home = Home::new();
    home.copy(&scene("suspicious"), "shot.blend");
    home
}

fn found(value: &Value) -> Value {
    let all = &value["suspicious"];
    json!([all["black"], all["transparent"], all["not_finite"], all["most_not_finite"]["frame"]])
}

const LINES: [&str; 3] = [
    "frame 3 is entirely black",
    "frame 5 is entirely transparent",
    "pixels that are not numbers (NaN or infinite)",
];

#[test]
fn suspicious_frames_are_kept_and_reported_each_time() {
    let home = home();
    let render = |frames, more: &[&str]| {
        let args = ["render", "shot.blend", "--local", "--out", "out", "--frames", frames];
        home.run(&[&args, more].concat())
    };
    let first = render("1-5", &["--json"]);
    assert_eq!(first.code, 0, "{}", first.err);
    for line in LINES {
        assert_eq!(first.err.matches(line).count(), 1, "“{line}” once in {}", first.err);
    }
    let first = first.json();
    assert_eq!(found(&first), json!(["3", "5", "4", 4]));
    assert_eq!(first["landed"], 5);

    // Frames that are kept are reported with those that come.
    let second = render("1-6", &[]);
    assert_eq!(second.code, 0, "{}", second.err);
    for line in ["2 frames are entirely black: 3,6", LINES[1], LINES[2]] {
        assert!(second.out.contains(line), "“{line}” is not in {}", second.out);
    }
    let third = render("1-6", &["--json"]).json();
    assert_eq!((found(&third), &third["kept"]), (json!(["3,6", "5", "4", 4]), &json!(6)));
    let third = render("3,6", &[]);
    assert!(third.out.contains("all 2 frames are entirely black"), "{}", third.out);

    // What is empty or cut off is made again, also beside the picture.
    let file = |name: &str| home.work().join("out/frames").join(name);
    let cut = |name: &str| {
        let whole = std::fs::read(file(name)).unwrap();
        std::fs::write(file(name), &whole[..whole.len() / 2]).unwrap();
        whole
    };
    let whole = cut("shot_0001.exr");
    cut("mask_0002.png");
    std::fs::write(file("shot_0003.exr"), b"").unwrap();
    assert_eq!(render("1-6", &["--existing", "error"]).code, 2);
    let again = render("1-6", &["--json"]).json();
    assert_eq!((&again["landed"], &again["kept"]), (&json!(3), &json!(3)));
    assert_eq!(std::fs::read(file("shot_0001.exr")).unwrap().len(), whole.len());
    // What somebody painted over is theirs, of whatever length.
    let mut painted = whole.clone();
    painted[whole.len() / 2] ^= 1;
    std::fs::write(file("shot_0001.exr"), &painted).unwrap();
    let named = render("1-6", &[]);
    assert_eq!(named.code, 2);
    assert!(named.err.contains("(frames/shot_0001.exr)"), "{}", named.err);
    assert_eq!(std::fs::read(file("shot_0001.exr")).unwrap(), painted);

    // If black frames are refused, one that is there is not kept.
    let refused = render("2-3", &["--refuse-black"]);
    assert_eq!(refused.code, 1, "{}", refused.err);
    assert!(
        refused.err.contains("frame 3 failed: frames/shot_0003.exr is entirely black"),
        "{}",
        refused.err
    );
    assert!(home.work().join("out/frames/shot_0003.exr").is_file());
}

#[test]
fn a_farm_reports_them_and_refuses_them_after_one_more_try() {
    let home = home();
    let server = home.server(&[]);
    let _workers = ["one", "two"].map(|name| home.worker(&server.url, name));
    home.connected(2);
    let job = home.submit(&["shot.blend", "--frames", "2-4"]);
    let black = home.submit(&["shot.blend", "--frames", "6-8"]);
    let refusing = home.submit(&["shot.blend", "--frames", "2-3", "--refuse-black"]);
    home.completed(&job);
    home.completed(&black);
    let shown = home.json(&["jobs", "show", &job, "--json"]);
    assert_eq!(found(&shown["report"]), json!(["3", null, "4", 4]));
    let shown = home.run(&["jobs", "show", &black]);
    assert!(shown.out.contains("all 3 frames are entirely black"), "{}", shown.out);
    let waited = home.run(&["jobs", "wait", &job]);
    assert!(waited.out.contains(LINES[0]) && waited.out.contains(LINES[2]), "{}", waited.out);
    let fetched = home.run(&["jobs", "fetch", &black, "--out", "fetched"]);
    assert!(fetched.out.contains("all 3 frames are entirely black"), "{}", fetched.out);

    let cut = home.work().join("fetched/frames/shot_0007.exr");
    let edited = home.work().join("fetched/frames/shot_0008.exr");
    let bytes = std::fs::read(&cut).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    std::fs::write(&edited, b"mine").unwrap();
    let fetched = home.run(&["jobs", "fetch", &black, "--out", "fetched"]);
    assert!(fetched.out.contains("1 frame fetched, 1 there already"), "{}", fetched.out);
    assert!(fetched.err.contains("frames/shot_0008.exr among them"), "{}", fetched.err);
    assert_eq!((fetched.code, std::fs::read(&cut).unwrap()), (1, bytes));
    assert_eq!(std::fs::read(&edited).unwrap(), b"mine");

    let waited = home.run(&["jobs", "wait", &refusing, "--json"]);
    assert_eq!(waited.code, 1, "{}", waited.err);
    let waited = waited.json();
    assert_eq!((&waited["job"]["tasks"]["done"], &waited["failed"][0]["frame"]), (&json!(1), &json!(3)));
    let attempts = home.json(&["jobs", "show", &refusing, "--json"])["attempts"].take();
    let on: Vec<&str> = attempts
        .as_array()
        .unwrap()
        .iter()
        .filter(|attempt| attempt["failure"]["cause"] == "black-frame")
        .map(|attempt| attempt["worker"].as_str().unwrap())
        .collect();
    assert!(on.len() == 2 && on[0] != on[1], "it failed on {on:?}");
}
