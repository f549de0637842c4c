//! The availability of workers: sleep, the person at the machine, priority, and being woken.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime},
};

use kiln_testkit::{scene, wait_until};
use serde_json::Value;

use crate::{
    farm::children,
    netns::Lan,
    support::{Home, Running},
};

const LIMIT: Duration = Duration::from_secs(120);

impl Home {
    fn worker_of(&self, url: &str, name: &str, more: &[&str]) -> Running {
        let mut args = vec!["worker", "--server", url, "--name", name, "--slots", "1"];
        args.extend(more);
        let mut command = self.kiln(&args);
        command.env("TZ", "UTC").stdout(Stdio::null()).stderr(Stdio::null());
        Running { child: command.spawn().unwrap(), url: String::new() }
    }

    fn worker_view(&self, name: &str) -> Value {
        self.json(&["workers", "show", name, "--json"])["worker"].take()
    }

    fn job_of_basic(&self, frames: &str) -> String {
        let blend = self.copy(&scene("basic"), "shot.blend");
        self.submit(&[blend.to_str().unwrap(), "--frames", frames])
    }
}

/// The time in `hours` hours, as `07:05`, by the clock of Greenwich.
fn clock(hours: u64) -> String {
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() + hours * 3600;
    format!("{:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60)
}

#[test]
fn a_worker_that_sleeps_says_until_when_and_another_takes_the_job() {
    let home = Home::new();
    let server = home.server(&[]);
    // It began twenty hours ago, and ends in two.
    let until = clock(2);
    let _sleeper = home.worker_of(&server.url, "sleeper", &["--sleep", &format!("{}-{until}", clock(4))]);
    home.connected(1);
    let job = home.job_of_basic("1-3");
    let view = home.worker_view("sleeper");
    assert_eq!(view["state"], "unavailable");
    assert_eq!(view["unavailable"]["why"], format!("asleep until {until}"));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as i64;
    let left = view["unavailable"]["until_ms"].as_i64().unwrap() - now;
    assert!((1..=2 * 3_600_000).contains(&left), "{left} ms");
    let table = home.run(&["workers"]).out;
    assert!(table.contains(&format!("unavailable: asleep until {until}")), "{table}");
    let why = home.show(&job)["waits_for"].take();
    assert_eq!((&why["code"], &why["unavailable"]), (&"not-working".into(), &1.into()), "{why}");
    let _awake = home.worker_of(&server.url, "awake", &["--sleep", &format!("{}-{}", clock(4), clock(5))]);
    home.completed(&job);
    let report = home.json(&["jobs", "show", &job, "--json"]);
    assert!(!report.to_string().contains("sleeper"), "{report}");
}

/// A program named `blender` that runs without `--background`.
struct Open(Child);

impl Open {
    fn new(home: &Home) -> Self {
        let program: PathBuf = home.work().join("blender");
        fs::copy("/bin/sleep", &program).unwrap();
        Self(Command::new(program).arg("600").spawn().unwrap())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_worker_leaves_its_machine_to_a_blender_on_the_screen_and_comes_back() {
    let home = Home::new();
    let server = home.server(&[]);
    // The person who runs this test may type meanwhile, and compile.
    let yields = ["--yield", "--yield-idle", "0s", "--yield-load", "1000"];
    let _worker = home.worker_of(&server.url, "desk", &yields);
    home.connected(1);
    let is = |state: &str| {
        wait_until(LIMIT, &format!("the worker is {state} (no other Blender may be open)"), || {
            home.worker_view("desk")["state"] == state
        });
    };
    is("idle");
    let open = Open::new(&home);
    is("unavailable");
    assert_eq!(home.worker_view("desk")["unavailable"]["why"], "a Blender is open on its screen");
    let job = home.job_of_basic("1-2");
    assert_eq!(home.done(&job), 0);
    drop(open);
    home.completed(&job);
    is("idle");
}

#[test]
fn blenders_of_a_nice_worker_are_nice() {
    let home = Home::new();
    let server = home.server(&[]);
    let worker = home.worker_of(&server.url, "nice", &["--nice", "10", "--cores", "1", "--tag", "attic"]);
    home.connected(1);
    let view = home.worker_view("nice");
    assert_eq!((view["offered"]["cores"].as_u64(), &view["tags"][0]), (Some(1), &Value::from("attic")));
    let job = home.job_of_basic("1-3");
    home.completed(&job);
    // The process waits for more, with the scene open.
    let blenders: Vec<u32> = children(worker.child.id());
    assert!(!blenders.is_empty());
    for blender in blenders {
        let stat = fs::read_to_string(format!("/proc/{blender}/stat")).unwrap();
        let nice = stat.rsplit(')').next().unwrap().split_whitespace().nth(16).unwrap().to_owned();
        assert_eq!(nice, "10", "{stat}");
    }
}

/// The call is a broadcast in the network of the machines; who listens for it is in the sleeper's place.
#[test]
fn a_sleeping_machine_is_called_over_the_network() {
    let Some(lan) = Lan::new(1) else { return };
    let home = Home::new();
    let worker = lan.worker(1, &home, &["--name", "attic", "--slots", "1", "--wake"], None);
    let is = |state: &str| {
        wait_until(LIMIT, &format!("the worker is {state}"), || {
            let list = lan.json(&["workers", "--json"]);
            list["workers"].as_array().unwrap().iter().any(|worker| worker["state"] == state)
        });
    };
    is("idle");
    assert_eq!(worker.interrupt(), 0);
    is("offline");
    let mac = lan.mac(1);
    let call = format!("{}{}", "ff".repeat(6), mac.repeat(16));

    let card = lan.card(1);
    assert_eq!(lan.run(&["workers", "wake", "attic"]).code, 0);
    assert_eq!(card.heard(), call, "at a person's request");

    let card = lan.card(1);
    lan.json(&["submit", scene("basic").to_str().unwrap(), "--frames", "1-2", "--json"]);
    assert_eq!(card.heard(), call, "by itself, when work has waited");
}
