//! Several workers, one job: frames equal, to the pixel, those of a Blender started for each frame alone.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use kiln_testkit::{Blender, assert_same_picture, blender, copy_folder, scene, wait_until};
use serde_json::Value;

use crate::support::{Home, Running};

/// The time that a small job may take on a busy machine.
const JOB: Duration = Duration::from_secs(240);

impl Home {
    /// A worker with one slot.
    pub fn worker(&self, url: &str, name: &str) -> Running {
        let args = ["worker", "--server", url, "--name", name, "--slots", "1"];
        let child = self.kiln(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Running { child, url: String::new() }
    }

    /// Submits, and returns the job's id.
    #[track_caller]
    pub fn submit(&self, args: &[&str]) -> String {
        let mut all = vec!["submit", "--json"];
        all.extend(args);
        let view = self.json(&all);
        view["job"]["id"].as_u64().unwrap_or_else(|| panic!("no id in {view}")).to_string()
    }

    pub fn show(&self, job: &str) -> Value {
        self.json(&["jobs", "show", job, "--json"])["job"].take()
    }

    pub fn done(&self, job: &str) -> u64 {
        self.show(job)["tasks"]["done"].as_u64().unwrap()
    }

    /// Waits for the end and demands that every frame is there.
    #[track_caller]
    pub fn completed(&self, job: &str) {
        wait_until(JOB, "the job ends", || {
            let view = self.show(job);
            match view["state"].as_str() {
                Some("completed") => true,
                Some("queued" | "running" | "paused") => false,
                _ => panic!("the job ended otherwise: {view:#}"),
            }
        });
    }

    pub fn connected(&self, count: usize) {
        wait_until(Duration::from_secs(60), "the workers are connected", || {
            let list = self.json(&["workers", "--json"]);
            let workers = list["workers"].as_array().unwrap();
            workers.iter().filter(|worker| worker["state"] != "offline").count() == count
        });
    }

    /// Fetches a job's frames into a new folder.
    #[track_caller]
    pub fn fetch(&self, job: &str, folder: &str) -> PathBuf {
        let out = self.work().join(folder);
        let said = self.run(&["jobs", "fetch", job, "--out", out.to_str().unwrap()]);
        assert_eq!(said.code, 0, "{}", said.err);
        out
    }
}

/// Every picture below a folder, by its path there.
pub fn pictures(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap_or_else(|e| panic!("{}: {e}", next.display())) {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                folders.push(path);
            } else if [".png", ".exr", ".jpg"].iter().any(|ending| name.ends_with(ending)) {
                found.push(name);
            }
        }
    }
    found.sort();
    found
}

#[track_caller]
pub fn assert_same_frames(ours: &Path, cold: &Path, names: &[String]) {
    for name in names {
        assert_same_picture(&ours.join(name), &cold.join(name));
    }
}

const FRAMES: &[i32] = &[6, 2, 5, 1, 7, 3];

/// The scenes where a warm process could go wrong, on three workers, in an order that jumps back.
#[test]
fn scenes_on_three_workers_equal_cold_blenders() {
    let home = Home::new();
    let server = home.server(&[]);
    let _workers = ["one", "two", "three"].map(|name| home.worker(&server.url, name));
    home.connected(3);
    let frames = FRAMES.map_text();
    let scenes = ["particles", "image_sequence", "drivers", "motion_blur", "stereo", "file_outputs"];
    let jobs = scenes.map(|name| {
        let folder = home.work().join(format!("{name}-scene"));
        copy_folder(scene(name).parent().unwrap(), &folder);
        let blend = folder.join(format!("{name}.blend"));
        let job = home.submit(&[blend.to_str().unwrap(), "--frames", &frames]);
        (name, blend, job)
    });
    for (name, blend, job) in jobs {
        home.completed(&job);
        let ours = home.fetch(&job, &format!("{name}-ours"));
        let cold = home.work().join(format!("{name}-cold"));
        copy_folder(scene(name).parent().unwrap(), &cold);
        // The scene's own textures are not frames.
        let before = pictures(&cold);
        let cold_blend = cold.join(blend.file_name().unwrap());
        for frame in FRAMES {
            Blender::Executable(blender()).render_cold(&cold_blend, *frame, None, false);
        }
        let mut made = pictures(&cold);
        made.retain(|picture| !before.contains(picture));
        let files_a_frame = match name {
            "stereo" => 2,
            "file_outputs" => 3,
            _ => 1,
        };
        assert!(made.len() >= files_a_frame * FRAMES.len(), "{name}: {made:?}");
        assert_eq!(pictures(&ours), made, "{name}");
        assert_same_frames(&ours, &cold, &made);
    }
}

trait FramesText {
    fn map_text(&self) -> String;
}

impl FramesText for [i32] {
    fn map_text(&self) -> String {
        self.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }
}

/// A worker that is killed takes its Blender with it, and the farm goes on.
#[test]
fn a_killed_worker_leaves_no_blender_and_loses_no_frame() {
    let home = Home::new();
    let server = home.server(&[]);
    let mut first = home.worker(&server.url, "first");
    home.connected(1);
    let blend = home.copy(&scene("basic"), "shot.blend");
    let job = home.submit(&[blend.to_str().unwrap(), "--frames", "1-40"]);
    wait_until(JOB, "some frames are done", || home.done(&job) >= 3);
    let blenders = children(first.child.id());
    assert!(!blenders.is_empty(), "the worker has no Blender");
    first.kill();
    wait_until(Duration::from_secs(20), "its Blender is gone", || {
        blenders.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists() || is_zombie(*pid))
    });
    let _second = home.worker(&server.url, "second");
    home.completed(&job);
    assert_eq!(pictures(&home.fetch(&job, "frames")).len(), 40);
}

/// Child processes of a process, by /proc.
pub fn children(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(child) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // pid (name) state parent ...: the name may hold spaces and brackets.
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
        if parent == Some(&pid.to_string()) {
            found.push(child);
        }
    }
    found
}

fn is_zombie(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_none_or(|rest| rest.trim_start().starts_with(['Z', 'X']))
}

/// On one slot, frames are dispatched in the order that was asked for; an unknown order is refused.
#[test]
fn frames_come_in_the_order_that_was_asked_for() {
    let home = Home::new();
    home.copy(&scene("basic"), "shot.blend");
    let server = home.server(&[]);
    let orders = [
        ("coarse", [1, 9, 5, 3, 7, 2, 4, 6, 8]),
        ("every-4", [1, 5, 9, 2, 3, 4, 6, 7, 8]),
        ("reverse", [9, 8, 7, 6, 5, 4, 3, 2, 1]),
    ];
    let jobs = orders.map(|(order, _)| home.submit(&["shot.blend", "--frames", "1-9", "--order", order]));
    let _worker = home.worker(&server.url, "one");
    for (job, (order, frames)) in jobs.iter().zip(orders) {
        home.completed(job);
        let shown = home.json(&["jobs", "show", job, "--json"]);
        let attempts = shown["attempts"].as_array().unwrap();
        let of = |attempt: &Value, field: &str| attempt[field].as_i64().unwrap();
        // The newest attempt is listed first.
        let dispatched: Vec<i64> = attempts.iter().rev().map(|attempt| of(attempt, "frame")).collect();
        assert_eq!(dispatched, frames, "{order}");
        // Frames that are dispatched together may be rendered in another order, so that the scene goes forward in time.
        let begun = |frame| attempts.iter().find(|a| of(a, "frame") == frame).map(|a| of(a, "started_ms"));
        let later = &frames[2..];
        assert!(later.iter().all(|later| begun(frames[0]) <= begun(*later)), "{order}: {attempts:#?}");
        let shown = home.run(&["jobs", "show", job]).out;
        let line = shown.lines().find_map(|line| line.strip_prefix("Order"));
        assert_eq!(line.map(str::trim), Some(order), "{shown}");
    }
    let refused = home.run(&["submit", "shot.blend", "--order", "random"]);
    assert_eq!(refused.code, 2);
    assert!(refused.err.contains("every-10"), "{}", refused.err);
}
