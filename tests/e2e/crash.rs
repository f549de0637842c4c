//! The server dies at any moment, twenty times, and nothing acknowledged is lost.

use std::{
    hash::{BuildHasher, RandomState},
    process::Stdio,
    thread::sleep,
    time::Duration,
};

use kiln_testkit::{free_port, scene, wait_until};
use serde_json::Value;

use crate::{
    farm::{assert_same_frames, pictures},
    support::{Home, Running},
};

const KILLS: u32 = 20;
const FRAMES: u64 = 240;

/// A server on this port, ready when this returns.
pub fn start(home: &Home, port: u16) -> Running {
    let listen = format!("127.0.0.1:{port}");
    let child = home
        .kiln(&["server", "--listen", &listen])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut running = Running { child, url: format!("http://{listen}") };
    let pid = running.child.id();
    wait_until(Duration::from_secs(30), "the server is back", || {
        assert!(running.child.try_wait().unwrap().is_none(), "the server ended at its start");
        let text = std::fs::read(home.data().join("server.json")).unwrap_or_default();
        serde_json::from_slice::<Value>(&text).is_ok_and(|value| value["pid"] == u64::from(pid))
    });
    running
}

#[test]
fn a_server_killed_twenty_times_completes_its_job() {
    let home = Home::new();
    let port = free_port();
    let mut server = start(&home, port);
    let _workers = ["one", "two"].map(|name| home.worker(&server.url, name));
    home.connected(2);
    let blend = home.copy(&scene("basic"), "shot.blend");
    let frames = format!("1-{FRAMES}");
    let job = home.submit(&[blend.to_str().unwrap(), "--frames", &frames]);
    let mut done = 0;
    for _ in 0..KILLS {
        // Random moments are the point here; nothing is waited for.
        sleep(Duration::from_millis(RandomState::new().hash_one(done) % 700));
        server.kill();
        server = start(&home, port);
        let now = home.done(&job);
        assert!(now >= done, "{done} frames were done, and now {now}");
        done = now;
    }
    home.completed(&job);
    let view = home.show(&job);
    assert_eq!(view["tasks"]["done"], FRAMES);
    assert_eq!(view["tasks"]["failed"], 0);

    let ours = home.fetch(&job, "ours");
    let names = pictures(&ours);
    assert_eq!(names.len() as u64, FRAMES);

    // The same frames from one undisturbed run.
    let calm = home.work().join("calm");
    let said = home.run(&[
        "render",
        blend.to_str().unwrap(),
        "--local",
        "--frames",
        &frames,
        "--out",
        calm.to_str().unwrap(),
    ]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert_same_frames(&ours, &calm, &names);
}
