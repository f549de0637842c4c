//! A Blender that crashes on every frame, on one worker of a farm and on all.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use kiln_testkit::{blender, scene, wait_until};
use serde_json::Value;

use crate::support::{Home, Running};

const SOON: Duration = Duration::from_secs(120);

/// Waits until Blender begins a frame, and ends it as a broken driver does, until somebody mends that.
const CRASH: &str = "
import bpy, os, signal
@bpy.app.handlers.persistent
def crash(*_):
    if os.path.exists('MENDED'):
        return
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGSEGV)
bpy.app.handlers.render_init.append(crash)
";

/// A program that is this machine's Blender until it renders.
fn crashing_blender(home: &Home) -> PathBuf {
    let (script, program) = (home.work().join("crash.py"), home.work().join("crashing/blender"));
    fs::write(&script, CRASH.replace("MENDED", mended(home).to_str().unwrap())).unwrap();
    fs::create_dir_all(program.parent().unwrap()).unwrap();
    let real = blender();
    let text = format!(
        "#!/bin/sh\nif [ \"$1\" = --version ]; then exec {real} \"$@\"; fi\n\
         exec {real} --background --factory-startup --python {script} \"$@\"\n",
        real = real.display(),
        script = script.display()
    );
    fs::write(&program, text).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program
}

/// Once this is there, the driver is as good as new.
fn mended(home: &Home) -> PathBuf {
    home.work().join("mended")
}

fn crashing_worker(home: &Home, url: &str, name: &str, program: &Path) -> Running {
    let args =
        ["worker", "--server", url, "--name", name, "--slots", "1", "--blender", program.to_str().unwrap()];
    let child = home.kiln(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    Running { child, url: String::new() }
}

fn worker(home: &Home, name: &str) -> Value {
    home.json(&["workers", "show", name, "--json"])["worker"].take()
}

#[test]
fn a_worker_whose_blender_crashes_on_every_frame_is_set_aside_and_named() {
    let home = Home::new();
    let server = home.server(&[]);
    let program = crashing_blender(&home);
    let _workers =
        [home.worker(&server.url, "sound"), crashing_worker(&home, &server.url, "broken", &program)];
    home.connected(2);
    let blend = home.copy(&scene("basic"), "shot.blend");
    let job = home.submit(&[blend.to_str().unwrap(), "--frames", "1-240"]);
    wait_until(SOON, "the broken worker is set aside", || worker(&home, "broken")["state"] == "quarantined");
    home.completed(&job);
    assert_eq!(home.show(&job)["tasks"]["failed"], 0);

    let why = worker(&home, "broken")["quarantine"]["why"].as_str().unwrap().to_owned();
    assert!(why.contains("in a row where others render; the last: "), "{why}");
    let listed = home.run(&["workers"]).out;
    assert!(listed.contains("quarantined: it failed"), "{listed}");
    let failures = home.json(&["jobs", "failures", &job, "--json"]);
    let attempts = failures["attempts"].as_array().unwrap();
    assert!((3..=6).contains(&attempts.len()), "{attempts:#?}");
    assert!(attempts.iter().all(|attempt| attempt["worker"] == "broken"), "{attempts:#?}");
    assert!(attempts.iter().all(|attempt| attempt["failure"]["cause"] == "crashed"), "{attempts:#?}");
    let told = home.run(&["jobs", "failures", &job]).out;
    assert!(told.contains("broken") && told.contains("crashed") && told.contains("tried again"), "{told}");

    assert_eq!(home.run(&["workers", "unquarantine", "broken"]).code, 0);
    assert_eq!(worker(&home, "broken")["state"], "idle");
    let twice = home.run(&["workers", "unquarantine", "broken"]);
    assert!(twice.code != 0 && twice.err.contains("is not quarantined"), "{}", twice.err);
}

#[test]
fn a_job_whose_first_frames_crash_on_every_worker_stops_and_goes_on_when_told_to() {
    let home = Home::new();
    let server = home.server(&[]);
    let program = crashing_blender(&home);
    let _workers = ["one", "two"].map(|name| crashing_worker(&home, &server.url, name, &program));
    home.connected(2);
    let blend = home.copy(&scene("basic"), "shot.blend");
    let job = home.submit(&[blend.to_str().unwrap(), "--frames", "1-20"]);
    wait_until(SOON, "the job ends", || home.show(&job)["state"] == "failed");
    let view = home.show(&job);
    let reason = view["reason"]["message"].as_str().unwrap();
    assert!(reason.contains("frames failed alike on 2 workers: "), "{reason}");
    let shown = home.json(&["jobs", "show", &job, "--json"]);
    let attempts = shown["attempts"].as_array().unwrap();
    let failed = attempts.iter().filter(|attempt| attempt["state"] == "failed").count();
    assert!((3..=6).contains(&failed), "{failed} attempts for 20 frames");
    let told = home.run(&["jobs", "show", &job]).out;
    assert!(told.contains("failed alike") && told.contains("crashed"), "{told}");
    let retry = format!("kiln jobs retry {job}");
    assert!(told.contains(&retry), "{told}");
    let told = home.run(&["jobs", "failures", &job]).out;
    assert_eq!(told.lines().filter(|line| line.starts_with("frame ")).count(), failed, "{told}");
    assert!(told.contains("failed for good") && told.contains(&retry), "{told}");

    fs::write(mended(&home), "").unwrap();
    assert_eq!(home.run(&["jobs", "retry", &job]).code, 0);
    home.completed(&job);
    assert_eq!(home.done(&job), 20);
}
