//! Frames that take long: past the job's own limit, far beyond their neighbours, or without a sign of life.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use kiln_testkit::{blender, scene, wait_until};
use serde_json::Value;

use crate::support::{Home, said};

/// The limits are real: a minute is the least after which a frame is shown as slow, or that it may be silent.
const LIMIT: Duration = Duration::from_secs(180);

/// A frame does what the name of a file says, for as long as the file is there.
const OBEY: &str = r#"
import bpy, os, signal, time
def obey(scene, *_):
    def asked(what):
        return os.path.exists(os.path.join("FOLDER", f"{what}-{scene.frame_current}"))
    if asked("stop-once"):
        os.remove(os.path.join("FOLDER", f"stop-once-{scene.frame_current}"))
        os.kill(os.getpid(), signal.SIGSTOP)
    while asked("sleep"):
        time.sleep(0.1)
    while asked("toil"):
        # A twentieth of a core: not much, and not nothing.
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass
        time.sleep(0.95)
bpy.app.handlers.render_pre.append(obey)
"#;

impl Home {
    /// A scene whose frames follow the orders of [`Home::tell`]; it needs trust.
    fn obedient(&self) -> String {
        let (folder, blend) = (self.orders(), self.work().join("shot.blend"));
        fs::create_dir(&folder).unwrap();
        let obey = OBEY.replace("FOLDER", folder.to_str().unwrap());
        let script = format!(
            "import bpy\n\
             bpy.ops.wm.open_mainfile(filepath={:?})\n\
             text = bpy.data.texts.new('obey.py')\ntext.write({obey:?})\ntext.use_module = True\n\
             bpy.ops.wm.save_as_mainfile(filepath={blend:?}, relative_remap=False)\n",
            scene("basic"),
        );
        let made = Command::new(blender())
            .args(["--background", "--factory-startup", "--python-expr", &script])
            .output()
            .unwrap();
        assert!(blend.is_file(), "{}", said(made).err);
        blend.to_str().unwrap().to_owned()
    }

    fn orders(&self) -> PathBuf {
        self.work().join("orders")
    }

    fn tell(&self, order: &str) {
        fs::write(self.orders().join(order), "").unwrap();
    }

    fn no_longer(&self, order: &str) {
        fs::remove_file(self.orders().join(order)).unwrap();
    }

    /// Every attempt of the job that failed.
    fn failures(&self, job: &str) -> Vec<Value> {
        let mut list = self.json(&["jobs", "failures", job, "--json"]);
        serde_json::from_value(list["attempts"].take()).unwrap()
    }
}

fn why(attempt: &Value) -> &str {
    assert_eq!(attempt["failure"]["cause"], "timed-out", "{attempt:#}");
    attempt["failure"]["message"].as_str().unwrap()
}

#[test]
fn a_frame_past_the_jobs_time_limit_fails_with_its_reasons_and_is_retried_by_one_command() {
    let home = Home::new();
    let server = home.server(&[]);
    let _worker = home.worker(&server.url, "one");
    let shot = home.obedient();
    home.tell("sleep-3");
    let job = home.submit(&[&shot, "--trust", "--frames", "1-5", "--frame-time-limit", "2s"]);
    wait_until(LIMIT, "the job ends", || home.show(&job)["state"] == "failed");
    let tasks = home.show(&job)["tasks"].take();
    assert_eq!((&tasks["done"], &tasks["failed"]), (&4.into(), &1.into()), "the others are done");
    let failures = home.failures(&job);
    assert_eq!(failures.len(), 3, "three tries: {failures:#?}");
    for attempt in &failures {
        assert_eq!(attempt["frame"], 3);
        let wanted = "Blender was still rendering frame 3 after 2 s, the time limit of this job's frames; it was stopped";
        assert_eq!(why(attempt), wanted);
    }
    let listed = home.run(&["jobs", "failures", &job]).out;
    assert_eq!(listed.matches("the time limit of this job's frames").count(), 3, "{listed}");
    let retry = format!("kiln jobs retry {job}");
    for told in [&listed, &home.run(&["jobs", "show", &job]).out] {
        assert!(told.contains("failed for good") && told.contains(&retry), "{told}");
    }

    home.no_longer("sleep-3");
    assert_eq!(home.run(&["jobs", "retry", &job]).code, 0);
    home.completed(&job);
    assert_eq!(home.failures(&job).len(), 3, "what was is still told");
}

#[test]
fn a_frame_that_takes_far_longer_than_the_others_goes_on_and_is_shown_as_slow() {
    let home = Home::new();
    let server = home.server(&[]);
    let _worker = home.worker(&server.url, "one");
    let shot = home.obedient();
    home.tell("toil-8");
    let job = home.submit(&[&shot, "--trust", "--frames", "1-9"]);
    let slow = || home.json(&["workers", "--json"])["workers"][0]["running"][0]["slow"].is_u64();
    wait_until(LIMIT, "the frame is shown as slow", slow);
    let shown = home.run(&["workers"]).out;
    assert!(shown.contains("frame 8") && shown.contains(", slow"), "{shown}");
    home.no_longer("toil-8");
    home.completed(&job);
    assert!(home.failures(&job).is_empty());
}

#[test]
fn a_script_that_never_ends_is_stopped_when_it_has_shown_nothing_for_as_long_as_the_farm_waits() {
    let home = Home::new();
    let server = home.server(&["--stall", "20s"]);
    let _worker = home.worker(&server.url, "one");
    let shot = home.obedient();
    home.tell("toil-1");
    let job = home.submit(&[&shot, "--trust", "--frames", "1"]);
    wait_until(LIMIT, "it is stopped", || !home.failures(&job).is_empty());
    let failures = home.failures(&job);
    assert_eq!(
        why(&failures[0]),
        "it was stopped: its Blender had worked for 20 s and shown nothing for it: no sample, no message, no byte"
    );
    home.no_longer("toil-1");
    home.completed(&job);
}

#[test]
fn a_blender_that_stops_moving_is_ended_and_one_that_works_as_long_is_not() {
    let home = Home::new();
    let server = home.server(&[]);
    let _workers = ["one", "two"].map(|name| home.worker(&server.url, name));
    home.connected(2);
    let shot = home.obedient();
    home.tell("toil-1");
    home.tell("stop-once-2");
    let submit = |frame| home.submit(&[&shot, "--trust", "--frames", frame, "--hang", "60s"]);
    let begun = |job: &str| home.show(job)["tasks"]["running"] == 1;
    let toils = submit("1");
    wait_until(LIMIT, "the frame that takes long has begun", || begun(&toils));
    let stops = submit("2");
    wait_until(LIMIT, "the other is ended", || !home.failures(&stops).is_empty());
    let failures = home.failures(&stops);
    let [stopped] = failures.as_slice() else { panic!("{failures:#?}") };
    assert_eq!(why(stopped), "it was stopped: its Blender had done nothing, and reported nothing, for 60 s");

    let free = stopped["worker"].as_str().unwrap();
    let explained = home.run(&["jobs", "explain", &stops]).out;
    let waits = format!(
        "It has failed on {free}, which is free; the one worker on which it has not failed is busy, with job {toils}"
    );
    assert!(explained.contains(&waits), "{explained}");

    assert!(begun(&toils), "it had begun before, and has had as long");
    home.no_longer("toil-1");
    home.completed(&toils);
    home.completed(&stops);
    assert!(home.failures(&toils).is_empty());
    assert_eq!(home.failures(&stops).len(), 1);
}
