//! One thing after another, as people do them over days: on the same files, in the same folders, with the same farm.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use kiln_testkit::wait_until;

use crate::support::Home;

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
