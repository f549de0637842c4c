//! The order and the requirements of jobs: real Blenders under priorities, dependencies, limits, caps and pools.

use std::time::Duration;

use kiln_testkit::{scene, wait_until};
use serde_json::Value;

use crate::support::{Home, Running};

/// A run of a frame, by the server's clock.
struct Ran {
    worker: String,
    from_ms: i64,
    to_ms: i64,
}

impl Home {
    fn farm_of_two(&self) -> (Running, [Running; 2]) {
        let server = self.server(&[]);
        let workers = ["oak", "ash"].map(|name| {
            let args = ["worker", "--server", &server.url, "--name", name, "--slots", "1", "--data"];
            let data = self.work().join(name);
            let mut command = self.kiln(&args);
            let command = command.arg(data).env("KILN_KEY_FILE", self.data().join("farm.key"));
            let quiet = || std::process::Stdio::null();
            Running { child: command.stdout(quiet()).stderr(quiet()).spawn().unwrap(), url: String::new() }
        });
        self.connected(2);
        (server, workers)
    }

    fn ran(&self, job: &str) -> Vec<Ran> {
        let shown = self.json(&["jobs", "show", job, "--json"]);
        let attempts = shown["attempts"].as_array().unwrap();
        let delivered = attempts.iter().filter(|attempt| attempt["state"] == "committed");
        let ran = delivered.map(|attempt| Ran {
            worker: attempt["worker"].as_str().unwrap().to_owned(),
            from_ms: attempt["started_ms"].as_i64().unwrap(),
            to_ms: attempt["ended_ms"].as_i64().unwrap(),
        });
        ran.collect()
    }

    fn began(&self, job: &str) -> i64 {
        self.ran(job).iter().map(|ran| ran.from_ms).min().unwrap()
    }

    fn ended(&self, job: &str) -> i64 {
        self.ran(job).iter().map(|ran| ran.to_ms).max().unwrap()
    }
}

/// No two workers rendered of it at once.
#[track_caller]
fn assert_one_at_a_time(ran: &[Ran]) {
    for (at, one) in ran.iter().enumerate() {
        for other in ran[at + 1..].iter().filter(|other| other.worker != one.worker) {
            let apart = one.to_ms <= other.from_ms || other.to_ms <= one.from_ms;
            assert!(apart, "{} and {} rendered at once", one.worker, other.worker);
        }
    }
}

#[test]
fn jobs_take_their_turns_and_keep_to_limits_caps_and_pools() {
    let home = Home::new();
    let (_server, _workers) = home.farm_of_two();
    for worker in ["oak", "ash"] {
        home.json(&["workers", "pause", worker, "--json"]);
    }
    let shot = home.copy(&scene("basic"), "shot.blend");
    let shot = shot.to_str().unwrap();
    let submit = |frames: &str, out: &str, more: &[&str]| {
        let out = home.work().join(out);
        let args = [&[shot, "--frames", frames, "--out", out.to_str().unwrap()], more].concat();
        home.submit(&args)
    };

    home.json(&["limits", "set", "licence", "1", "--json"]);
    home.json(&["users", "set", "ada", "--max-slots", "1", "--weight", "200", "--json"]);
    let pooled = home.json(&["workers", "pool", "ash", "--add", "night", "--json"]);
    assert_eq!(pooled["worker"]["pools"], serde_json::json!(["night"]));

    let low = submit("1-2", "low", &["--priority", "10"]);
    let high = submit("1-2", "high", &["--priority", "90"]);
    let after = submit("1", "after", &["--after", &low, "--priority", "100"]);
    let licensed = submit("1-4", "licensed", &["--limit", "licence", "--priority", "80"]);
    let capped = submit("1-4", "capped", &["--user", "ada", "--project", "film", "--priority", "70"]);
    let night = submit("1-3", "night", &["--pool", "night", "--priority", "60"]);
    let at_ms = jiff::Timestamp::now().as_millisecond() + 4_000;
    let at = jiff::Timestamp::from_millisecond(at_ms).unwrap().to_string();
    let later = submit("1", "later", &["--at", &at, "--priority", "100"]);
    let past = submit("1", "past", &["--at", "2020-01-01", "--priority", "100"]);
    let held = submit("1", "held", &["--hold", "--priority", "100"]);
    assert_eq!(home.show(&held)["state"], "paused");
    let waits = home.show(&after)["waits_for"].take();
    assert_eq!(
        waits,
        serde_json::json!({ "code": "dependencies", "open": [low.parse::<u64>().unwrap()], "ended": [] })
    );

    // A single worker begins the jobs in their order. Two would not always: a frame may wait in the queue of the one whose
    // Blender starts late.
    home.json(&["workers", "resume", "oak", "--json"]);
    wait_until(Duration::from_secs(60), "the job of the highest priority runs", || {
        home.show(&high)["tasks"]["done"].as_u64().is_some_and(|done| done > 0)
    });
    home.json(&["workers", "resume", "ash", "--json"]);
    for job in [&low, &high, &after, &licensed, &capped, &night, &later, &past] {
        home.completed(job);
    }
    assert!(home.began(&high) < home.began(&low), "the higher priority began later");
    assert!(home.ended(&low) <= home.began(&after), "it did not wait");
    assert!(home.began(&later) >= at_ms, "it began before its time");
    assert_one_at_a_time(&home.ran(&licensed));
    assert_one_at_a_time(&home.ran(&capped));
    assert!(home.ran(&night).iter().all(|ran| ran.worker == "ash"));

    assert_eq!(home.show(&held)["tasks"]["done"], 0);
    home.json(&["jobs", "release", &held, "--json"]);
    home.completed(&held);
    let limits = home.json(&["limits", "--json"]);
    assert_eq!(limits["limits"], serde_json::json!([{"name": "licence", "total": 1, "in_use": 0}]));
    let users = home.json(&["users", "--json"]);
    let ada = users["users"].as_array().unwrap().iter().find(|user| user["name"] == "ada").unwrap();
    assert_eq!((&ada["weight"], &ada["max_slots"], &ada["slots"]), (&200.into(), &1.into(), &0.into()));
}

#[test]
fn what_is_set_of_jobs_users_and_limits_is_told_and_refused_in_words() {
    let home = Home::new();
    let _server = home.server(&[]);
    let shot = home.copy(&scene("basic"), "shot.blend");
    let shot = shot.to_str().unwrap();
    let job = home.submit(&[shot, "--user", "ada", "--memory", "2G", "--cores", "2", "--tag", "fast"]);
    let shown = home.show(&job);
    assert_eq!(
        (&shown["owner"], &shown["spec"]["requirements"]["memory"]),
        (&"ada".into(), &(2_u64 << 30).into())
    );
    let set = home.json(&["jobs", "set", &job, "--priority", "77", "--max-workers", "3", "--json"]);
    let scheduling = &set["spec"]["scheduling"];
    assert_eq!((&scheduling["priority"], &scheduling["max_workers"]), (&77.into(), &3.into()));
    let free = home.json(&["jobs", "set", &job, "--max-workers", "none", "--json"]);
    assert_eq!(free["spec"]["scheduling"]["max_workers"], Value::Null);
    let told = home.run(&["jobs", "show", &job]).out;
    for words in ["priority 77", "2 cores, 2 GiB of memory, the tag fast", "Owner"] {
        assert!(told.contains(words), "“{words}” is not in {told}");
    }
    let listed = home.run(&["jobs"]).out;
    assert!(listed.contains("ada") && listed.contains("77"), "{listed}");
    assert!(home.run(&["users"]).out.contains("ada"));
    assert!(home.run(&["projects"]).out.contains("default"));
    assert!(home.run(&["limits"]).out.contains("kiln limits set"));

    home.run(&["jobs", "set", &job]).refused(2, &["--priority"]);
    home.run(&["jobs", "set", &job, "--priority", "101"]).refused(2, &["0 to 100"]);
    home.run(&["jobs", "set", &job, "--after", &job]).refused(1, &["wait for itself"]);
    home.run(&["jobs", "set", &job, "--at", "noon"]).refused(2, &["22:00"]);
    home.run(&["submit", "--quiet", shot, "--limit", "nuke"]).refused(2, &["kiln limits set"]);
    home.run(&["submit", "--quiet", shot, "--after", "99"]).refused(2, &["no job 99"]);
    home.run(&["submit", shot, "--gpus", "all"]).refused(2, &["--device"]);
    home.run(&["users", "set", "ada"]).refused(2, &["--weight"]);
    home.run(&["users", "set", "ada", "--weight", "0"]).refused(2, &["between 1 and 10000"]);
    home.run(&["limits", "remove", "nuke"]).refused(2, &["no limit"]);
    home.run(&["workers", "pool", "attic", "--add", "night"]).refused(2, &["no worker named"]);
}
