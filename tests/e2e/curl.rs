//! Plain curl is enough.

use std::process::Command;

use kiln_testkit::scene;

use crate::{farm::pictures, support::Home, unused};

#[test]
fn a_job_with_nothing_but_curl() {
    let home = Home::new();
    let server = home.server(&["--worker"]);
    let key = std::fs::read_to_string(home.data().join("farm.key")).unwrap();
    let out = home.work().join("frames");
    let done = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/curl-job.sh"))
        .args([&server.url, key.trim(), scene("basic").to_str().unwrap(), out.to_str().unwrap(), "2-4"])
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(pictures(&out), ["frames/shot_0002.png", "frames/shot_0003.png", "frames/shot_0004.png"]);
    // A file's own files are not sent, and files that no render uses are not missed.
    let out = home.work().join("unused");
    let done = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/curl-job.sh"))
        .args([
            &server.url,
            key.trim(),
            unused::built(&home, "unused_alone").to_str().unwrap(),
            out.to_str().unwrap(),
            "1",
        ])
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(pictures(&out), ["frames/shot_0001.png"]);
}
