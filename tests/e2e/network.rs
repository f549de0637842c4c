//! Three workers in three network namespaces, each with its own address; one is killed midway, one joins late.

use std::time::Duration;

use kiln_testkit::{Blender, assert_same_picture, blender, wait_until};

use crate::{
    netns::Lan,
    sample::{SETTINGS, cold_sample, sample},
    support::Home,
};

const LIMIT: Duration = Duration::from_secs(240);

#[test]
fn three_machines_one_killed_one_late() {
    let Some(lan) = Lan::new(3) else { return };
    let homes: Vec<Home> = (0..3).map(|_| Home::new()).collect();
    let worker = |host: u8, name: &str| {
        lan.worker(host, &homes[usize::from(host) - 1], &["--name", name, "--slots", "1"], None)
    };
    let _first = worker(1, "first");
    let mut second = worker(2, "second");
    wait_until(LIMIT, "two workers are connected", || {
        lan.json(&["workers", "--json"])["workers"].as_array().unwrap().len() == 2
    });
    let mut submit = vec!["submit", sample(), "--frames", "1-40", "--json"];
    submit.extend(SETTINGS);
    let job = lan.json(&submit)["job"]["id"].to_string();
    let done = || lan.json(&["jobs", "show", &job, "--json"])["job"]["tasks"]["done"].as_u64().unwrap();
    let renders = |name: &str| {
        let workers = lan.json(&["workers", "--json"]);
        let found =
            workers["workers"].as_array().unwrap().iter().find(|worker| worker["name"] == name).cloned();
        found.is_some_and(|worker| !worker["running"].as_array().unwrap().is_empty())
    };
    wait_until(LIMIT, "the job is under way on the second worker", || done() >= 4 && renders("second"));
    // `ip netns exec` becomes the worker, so this is the worker's own process.
    second.kill();
    let _third = worker(3, "third");

    lan.wait(&job, LIMIT);
    let out = lan.client.work().join("frames");
    let said = lan.run(&["jobs", "fetch", &job, "--out", out.to_str().unwrap()]);
    assert_eq!(said.code, 0, "{}", said.err);
    let cold = lan.client.work().join("cold");
    for frame in 1..=40 {
        let name = format!("vase_{frame:04}.png");
        assert!(out.join("frames").join(&name).exists(), "{name} is missing");
        // A process a frame is slow: every fifth is compared to the pixel, all were decoded when they came.
        if frame % 5 == 0 {
            cold_sample(&Blender::Executable(blender()), frame, &cold);
            assert_same_picture(&out.join("frames").join(&name), &cold.join(&name));
        }
    }
}
