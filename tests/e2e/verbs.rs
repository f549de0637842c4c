//! Every verb of jobs and workers, on a farm that renders meanwhile.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use kiln_testkit::{scene, wait_until};
use serde_json::Value;

use crate::{
    farm::{children, pictures},
    support::{Home, Running, Said},
};

const SOON: Duration = Duration::from_secs(60);
/// The time that a user waits who has cancelled something.
const AT_ONCE: Duration = Duration::from_secs(2);
/// A frame of the basic scene that takes minutes.
const HEAVY: &[&str] = &["--samples", "100000", "--resolution", "400%"];

/// A farm with a basic scene to render.
fn home() -> Home {
    let home = Home::new();
    home.copy(&scene("basic"), "shot.blend");
    home
}

fn heavy(home: &Home, frames: &str) -> String {
    home.submit(&[&["shot.blend", "--frames", frames], HEAVY].concat())
}

impl Home {
    #[track_caller]
    fn did(&self, args: &[&str]) -> Said {
        let said = self.run(args);
        assert_eq!(said.code, 0, "{args:?}: {}", said.err);
        said
    }

    fn running(&self, job: &str) -> u64 {
        self.show(job)["tasks"]["running"].as_u64().unwrap()
    }

    fn state_of(&self, worker: &str) -> Option<String> {
        let list = self.json(&["workers", "--json"]);
        let found = list["workers"].as_array().unwrap().iter().find(|one| one["name"] == worker)?;
        Some(found["state"].as_str().unwrap().to_owned())
    }

    fn becomes(&self, worker: &str, state: &str) {
        wait_until(SOON, state, || self.state_of(worker).as_deref() == Some(state));
    }
}

/// Processor time of a process, in hundredths of a second; `None` once it is gone.
fn ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    // State is the first field after the name; utime and stime are the twelfth and thirteenth.
    (!matches!(fields[0], "Z" | "X"))
        .then(|| fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap())
}

/// The Blender that renders: more work than a start takes.
fn busy_blender(worker: &Running) -> u32 {
    let mut busy = None;
    wait_until(SOON, "a Blender is busy", || {
        busy =
            children(worker.child.id()).into_iter().find(|pid| ticks(*pid).is_some_and(|ticks| ticks > 250));
        busy.is_some()
    });
    busy.unwrap()
}

fn signal(running: &Running, name: &str) {
    let status = Command::new("kill").args([name, &running.child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

fn code(running: &mut Running, limit: Duration) -> i32 {
    let mut ended = None;
    wait_until(limit, "the process ends", || {
        ended = running.child.try_wait().unwrap();
        ended.is_some()
    });
    ended.unwrap().code().unwrap_or(-1)
}

#[test]
fn a_job_is_steered_while_a_frame_renders() {
    let home = home();
    let server = home.server(&[]);
    let worker = home.worker(&server.url, "one");
    let job = heavy(&home, "1-3");
    let blender = busy_blender(&worker);
    // What Blender has printed so far can be read while it is silent.
    wait_until(SOON, "the log of a running frame", || {
        home.run(&["jobs", "logs", &job]).out.contains("Fra:1")
    });
    let shown = home.did(&["jobs", "show", &job]).out;
    for words in ["running", "0 done of 3", "1 running", "samples 100000, resolution 400%"] {
        assert!(shown.contains(words), "{shown}");
    }
    home.run(&["jobs", "delete", &job]).refused(1, &["has not ended", "cancel"]);
    home.run(&["jobs", "retry", &job]).refused(1, &["no failed or cancelled"]);
    home.run(&["jobs", "rerender", &job, "--frames", "1"]).refused(1, &["nothing to render again"]);
    home.run(&["jobs", "extend", &job, "--frames", "2"]).refused(1, &["Nothing was added"]);

    home.did(&["jobs", "pause", &job]);
    assert_eq!((home.show(&job)["state"].as_str(), home.running(&job)), (Some("paused"), 1));
    assert!(ticks(blender).is_some(), "what runs goes on");
    home.did(&["jobs", "resume", &job]);
    assert_eq!(home.show(&job)["state"], "running");

    let asked = Instant::now();
    home.did(&["jobs", "cancel", &job]);
    wait_until(AT_ONCE, "its Blender is gone", || ticks(blender).is_none());
    assert!(asked.elapsed() < AT_ONCE);
    assert_eq!((home.show(&job)["state"].as_str(), home.running(&job)), (Some("cancelled"), 0));
    for verb in ["cancel", "pause", "resume"] {
        home.run(&["jobs", verb, &job]).refused(1, &["has ended (cancelled)"]);
    }

    // A cancelled job can be taken up again; then it goes for good.
    home.did(&["jobs", "retry", &job]);
    wait_until(SOON, "it renders again", || home.running(&job) == 1);
    home.did(&["jobs", "cancel", &job]);
    home.did(&["jobs", "delete", &job]);
    home.run(&["jobs", "show", &job]).refused(2, &[&job, "kiln jobs"]);

    // A job that grows and changes its mind while it runs.
    let job = home.submit(&["shot.blend", "--frames", "1-30"]);
    wait_until(SOON, "a frame is done", || home.done(&job) > 0);
    home.did(&["jobs", "extend", &job, "--frames", "31-32"]);
    home.did(&["jobs", "rerender", &job, "--frames", "1"]);
    home.completed(&job);
    assert_eq!(home.done(&job), 32);
    assert_eq!(pictures(&home.fetch(&job, "all")).len(), 32);
    let first = home.did(&["jobs", "logs", &job, "--frame", "32"]).out;
    assert!(first.contains("Saved") && first.contains("shot_0032.png"), "{first}");
}

#[test]
fn workers_are_steered_while_they_render() {
    let home = home();
    let server = home.server(&[]);
    // Two on one machine, side by side.
    let mut one = home.worker(&server.url, "one");
    let mut two = home.worker(&server.url, "two");
    home.connected(2);
    home.did(&["workers", "pause", "one"]);
    home.becomes("one", "paused");
    let job = heavy(&home, "1-2");
    wait_until(SOON, "the other one renders", || home.state_of("two").as_deref() == Some("rendering"));
    let blender = busy_blender(&two);
    assert_eq!(home.running(&job), 1, "a paused worker gets nothing");
    home.did(&["workers", "resume", "one"]);
    home.becomes("one", "rendering");
    home.run(&["workers", "remove", "one"]).refused(1, &["one is connected", "stop or drain"]);

    // Drained, it finishes what it renders; stopped, it hands that back and leaves.
    home.did(&["workers", "drain", "two"]);
    home.becomes("two", "draining");
    assert!(ticks(blender).is_some());
    home.did(&["workers", "stop", "two"]);
    assert_eq!(code(&mut two, SOON), 0);
    assert!(ticks(blender).is_none());
    home.becomes("two", "offline");
    home.did(&["workers", "remove", "two"]);
    assert_eq!(home.state_of("two"), None);
    assert_eq!((home.show(&job)["state"].as_str(), home.running(&job)), (Some("running"), 1));

    home.did(&["jobs", "cancel", &job]);
    let short = home.submit(&["shot.blend", "--frames", "1-4"]);
    home.completed(&short);
    home.did(&["workers", "drain", "one"]);
    assert_eq!(code(&mut one, SOON), 0);
}

#[test]
fn a_worker_at_ctrl_c_returns_its_frames_and_at_the_second_stops_hard() {
    let home = home();
    let server = home.server(&[]);
    let mut worker = home.worker(&server.url, "one");
    let job = heavy(&home, "1-2");
    let blender = busy_blender(&worker);
    signal(&worker, "-INT");
    assert_eq!(code(&mut worker, Duration::from_secs(5)), 0);
    wait_until(SOON, "it takes its Blenders along", || ticks(blender).is_none());
    let show = home.json(&["jobs", "show", &job, "--json"]);
    assert_eq!(home.running(&job), 0, "{show}");
    assert!(home.did(&["jobs", "show", &job]).out.contains("No worker is connected"));

    // With a server that answers nothing, the frames cannot be returned at once.
    let args = ["worker", "--server", &server.url, "--name", "one", "--slots", "1"];
    let mut child = home.kiln(&args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let said = lines(child.stderr.take().unwrap());
    let mut worker = Running { child, url: String::new() };
    let blender = busy_blender(&worker);
    signal(&server, "-STOP");
    signal(&worker, "-INT");
    while !said.recv_timeout(SOON).unwrap().contains("again to stop at once") {}
    signal(&worker, "-INT");
    let exit = code(&mut worker, Duration::from_secs(6));
    signal(&server, "-CONT");
    assert_eq!(exit, 130);
    // It was killed, and may take a moment to be gone.
    wait_until(SOON, "it takes its Blenders along", || ticks(blender).is_none());
}

fn lines(pipe: impl std::io::Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            // Nobody may be reading any more.
            let _ = sender.send(line);
        }
    });
    lines
}

#[test]
fn what_cannot_render_says_what_lacks() {
    let home = home();
    let _server = home.server(&["--worker"]);
    home.connected(1);
    for (flag, value, lacks) in
        [("--blender-version", "9.9", "Blender 9.9"), ("--device", "cuda", "a cuda device for Blender")]
    {
        let job = home.submit(&["shot.blend", "--frames", "1", flag, value]);
        let shown = home.did(&["jobs", "show", &job]).out;
        assert!(shown.contains(&format!("No worker of the farm has {lacks}")), "{shown}");
        assert!(shown.contains(&format!("lacks {lacks}")), "{shown}");
        assert!(home.did(&["jobs"]).out.contains("queued (waits)"));
        home.did(&["jobs", "cancel", &job]);
        // Alone there is nothing to wait for, and nothing else renders in its place.
        let alone =
            home.run(&["render", "shot.blend", "--local", "--out", "alone", "--frames", "1", flag, value]);
        alone.refused(2, &[value]);
    }
    assert!(!home.work().join("alone").exists());

    let limited =
        ["submit", "shot.blend", "--frames", "1", "--out", "long", "--frame-time-limit", "1s", "--wait"];
    let said = home.run(&[&limited, HEAVY].concat());
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(said.err.contains("still rendering frame 1 after 1 s, the time limit"), "{}", said.err);
    assert!(!home.work().join("long").exists());
}

/// A fault that Blender would pass over in silence stops the job, names the cause and the way on, which then is taken.
#[test]
fn what_changes_the_picture_is_asked_for() {
    let home = Home::new();
    let _server = home.server(&["--worker"]);
    // The scene, words of the refusal, the way on, what stays to be read.
    let cases = [
        ("rigid_body", "rigid body Cube is not baked", "--no-bake", "without a bake: rigid body Cube"),
        ("missing_texture", "missing: image //wood.png", "--allow-missing", "wood.png"),
        ("script", "wants to run scripts (Text 'move.py')", "--no-scripts", "did not run: Text 'move.py'"),
        ("python_driver", "wants to run scripts (Driver", "--trust", ""),
    ];
    for (name, words, flag, notice) in cases {
        home.copy(&scene(name), &format!("{name}.blend"));
        let file = format!("{name}.blend");
        let render = ["submit", &file, "--frames", "1-2", "--out", name, "--wait"];
        // Kiln would bake by itself.
        let strict: &[&str] = if name == "rigid_body" { &["--only-baked"] } else { &[] };
        let refused = home.run(&[&render[..], strict].concat());
        assert!(matches!(refused.code, 1 | 2), "{name}: {}", refused.err);
        assert!(refused.err.contains(words) && refused.err.contains(flag), "{name}: {}", refused.err);
        assert!(!refused.err.contains("last lines"), "Blender has nothing to add: {}", refused.err);
        if let Some(failed) = newest(&home) {
            assert_eq!(failed["state"], "failed", "{name}");
            let shown = home.did(&["jobs", "show", &failed["id"].to_string()]).out;
            assert!(shown.contains(words) && shown.contains(flag), "{name}: {shown}");
            home.did(&["jobs", "delete", &failed["id"].to_string()]);
        }

        let allowed = home.run(&[&render[..], &[flag]].concat());
        assert_eq!(allowed.code, 0, "{name}: {}", allowed.err);
        assert_eq!(pictures(&home.work().join(name)).len(), 2, "{name}");
        let job = newest(&home).unwrap()["id"].to_string();
        let shown = home.did(&["jobs", "show", &job]).out;
        assert!(shown.contains(notice), "it stays visible: {shown}");
        home.did(&["jobs", "delete", &job]);
    }

    home.copy(&scene("no_camera"), "blind.blend");
    let blind = home.run(&["submit", "blind.blend", "--frames", "1", "--wait"]);
    assert_eq!(blind.code, 1);
    assert!(blind.err.contains("has no camera") && blind.err.contains("--camera"), "{}", blind.err);

    home.copy(&scene("video"), "video.blend");
    let video = home.did(&["submit", "video.blend", "--frames", "1-2", "--out", "video", "--wait"]);
    assert!(video.err.contains("it is rendered as frames (PNG)"), "{}", video.err);
    assert_eq!(pictures(&home.work().join("video")), ["video/shot_0001.png", "video/shot_0002.png"]);
}

fn newest(home: &Home) -> Option<Value> {
    home.json(&["jobs", "--json"])["jobs"].as_array().unwrap().first().cloned()
}

#[test]
fn server_and_worker_speak_json_lines() {
    let home = home();
    let args = ["server", "--worker", "--json", "--listen", "127.0.0.1:0"];
    let mut child = home.kiln(&args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let said = lines(child.stdout.take().unwrap());
    let server = Running { child, url: String::new() };
    let next = || -> Value {
        let line = said.recv_timeout(SOON).unwrap();
        let value: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(value["at_ms"].as_i64().unwrap() > 1_600_000_000_000, "{line}");
        value
    };
    let until = |kind: &str| -> Value {
        loop {
            let value = next();
            if value["kind"] == kind {
                return value;
            }
        }
    };
    let started = next();
    assert_eq!(started["kind"], "started");
    assert!(started["url"].as_str().unwrap().starts_with("http://127.0.0.1:"));
    assert!(Path::new(started["key_file"].as_str().unwrap()).is_file());
    let connected = until("connected");
    assert!(connected["slots"].as_u64().unwrap() >= 1);
    let job = home.submit(&["shot.blend", "--frames", "7"]);
    assert_eq!(until("job-created")["job"].to_string(), job);
    let rendered = until("rendered");
    assert_eq!((&rendered["job"].to_string(), &rendered["frame"]), (&job, &7.into()));
    assert!(rendered["seconds"].as_f64().unwrap() > 0.0);
    let done = until("task-done");
    assert_eq!((&done["job"].to_string(), &done["frame"]), (&job, &7.into()));
    assert_eq!(server.interrupt(), 0);
}
