//! A farm of four machines that differ and fail: one is ten times as slow, one crashes on every frame, one leaves and
//! comes back. The animation is complete all the same, and equal to one that Blender rendered alone.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use kiln_testkit::{assert_same_picture, blender, scene, wait_until};
use serde_json::Value;

use crate::{farm::pictures, netns::Lan, support::Home};

const FRAMES: u64 = 60;
const LIMIT: Duration = Duration::from_secs(300);
/// Makes a frame take about a third of a second on one core.
const WEIGHTY: &str = "import bpy\n\
    scene = bpy.context.scene\n\
    scene.cycles.samples = 48\n\
    scene.render.resolution_percentage = 150\n\
    scene.frame_end = FRAMES\n\
    bpy.ops.wm.save_mainfile()\n";
/// Lets the real Blender run for a tenth of the time: of each half second it is stopped for nine twentieths.
const SLOW: &str = "#!/bin/sh\n\
    exec 3<&0 </dev/null\n\
    'BLENDER' \"$@\" <&3 &\n\
    exec 3<&-\n\
    while sleep 0.05 && kill -STOP $!; do sleep 0.45; kill -CONT $!; done 2>/dev/null\n\
    wait $!\n";
/// The real Blender, which meets a bad address as soon as it renders.
const CRASHES: &str = "#!/bin/sh\n\
    exec 'BLENDER' --background --python-expr '\n\
    import bpy, os, signal\n\
    @bpy.app.handlers.persistent\n\
    def crash(*_):\n\
    \x20   os.kill(os.getpid(), signal.SIGSEGV)\n\
    bpy.app.handlers.render_pre.append(crash)\n\
    ' \"$@\"\n";

/// A program in place of Blender.
fn wrapper(home: &Home, script: &str) -> PathBuf {
    let path = home.work().join("blender");
    fs::write(&path, script.replace("BLENDER", blender().to_str().unwrap())).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn weighty_scene(folder: &Path) -> PathBuf {
    let path = folder.join("shot.blend");
    fs::copy(scene("basic"), &path).unwrap();
    let script = WEIGHTY.replace("FRAMES", &FRAMES.to_string());
    run(Command::new(blender()).arg("--background").arg(&path).args(["--python-expr", &script]));
    path
}

#[track_caller]
fn run(command: &mut Command) {
    let ended = command.stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap();
    assert!(ended.success(), "{command:?} ended with {ended}");
}

impl Lan {
    fn shown(&self, job: &str) -> Value {
        self.json(&["jobs", "show", job, "--json"])
    }

    fn frames_done(&self, job: &str) -> u64 {
        self.shown(job)["job"]["tasks"]["done"].as_u64().unwrap()
    }

    fn one_worker(&self, name: &str) -> Value {
        let mut list = self.json(&["workers", "--json"]);
        let all = list["workers"].as_array_mut().unwrap();
        all.iter_mut().find(|one| one["name"] == name).map(Value::take).unwrap_or_default()
    }

    fn becomes(&self, name: &str, state: &str) {
        wait_until(LIMIT, &format!("{name} is {state}"), || self.one_worker(name)["state"] == state);
    }
}

/// The share of a worker in a job.
fn share(shown: &Value, name: &str) -> (u64, u64, f64) {
    let workers = shown["report"]["workers"].as_array().unwrap();
    let none = Value::Null;
    let of = workers.iter().find(|one| one["worker"] == name).unwrap_or(&none);
    let number = |what: &str| of[what].as_u64().unwrap_or(0);
    (number("frames"), number("errors"), of["seconds"].as_f64().unwrap_or(0.0))
}

#[test]
fn a_farm_of_four_that_differ_and_fail_ends_an_animation_complete() {
    let Some(lan) = Lan::new(4) else { return };
    let blend = weighty_scene(&lan.client.work());
    let homes: [Home; 4] = std::array::from_fn(|_| Home::new());
    let [_, slow_home, broken_home, _] = &homes;
    let (slow, crashes) = (wrapper(slow_home, SLOW), wrapper(broken_home, CRASHES));
    let start = |host: u8, name: &str, program: Option<&Path>| {
        let mut args = vec!["--name", name, "--slots", "1", "--threads", "1"];
        args.extend(program.iter().flat_map(|program| ["--blender", program.to_str().unwrap()]));
        lan.worker(host, &homes[usize::from(host) - 1], &args, None)
    };
    let steady = start(1, "steady", None);
    let tenfold = start(2, "tenfold", Some(&slow));
    let broken = start(3, "broken", Some(&crashes));
    let mut guest = start(4, "guest", None);
    for name in ["steady", "tenfold", "broken", "guest"] {
        lan.becomes(name, "idle");
    }
    let tell = |verb: &str, name: &str| {
        let said = lan.run(&["workers", verb, name]);
        assert_eq!(said.code, 0, "{}", said.err);
    };
    let submit = |more: &[&str]| {
        let submitted = lan.json(&[&["submit", blend.to_str().unwrap(), "--json"], more].concat());
        submitted["job"]["id"].to_string()
    };
    // The slow one has the scene open when the animation comes: else the others might be through before it has begun.
    let others = ["steady", "broken", "guest"];
    others.iter().for_each(|name| tell("pause", name));
    lan.wait(&submit(&["--frames", "0"]), LIMIT);
    others.iter().for_each(|name| tell("resume", name));

    let job = submit(&[]);
    wait_until(LIMIT, "the guest has rendered frames", || share(&lan.shown(&job), "guest").0 >= 3);
    guest.kill();
    let left = Instant::now();
    lan.becomes("guest", "offline");
    let before = lan.shown(&job);
    let done = before["job"]["tasks"]["done"].as_u64().unwrap();
    wait_until(LIMIT, "the others go on without it", || lan.frames_done(&job) >= done + 4);
    let back = start(4, "guest", None);
    wait_until(LIMIT, "the guest is back at work", || {
        share(&lan.shown(&job), "guest").0 > share(&before, "guest").0
    });
    let away = left.elapsed();

    lan.becomes("broken", "quarantined");
    let why = lan.one_worker("broken")["quarantine"]["why"].as_str().unwrap().to_owned();
    assert!(!why.is_empty());
    for name in ["steady", "tenfold", "guest"] {
        assert!(lan.one_worker(name)["quarantine"].is_null(), "{name} is well");
    }
    lan.wait(&job, LIMIT);

    let shown = lan.shown(&job);
    assert_eq!(shown["job"]["tasks"]["done"], FRAMES);
    assert_eq!(shown["failed"].as_array().unwrap().len(), 0);
    let names = ["steady", "tenfold", "broken", "guest"];
    let [of_steady, of_tenfold, of_broken, of_guest] = names.map(|name| share(&shown, name));
    let frames = |share: (u64, u64, f64)| share.0;
    assert_eq!(frames(of_steady) + frames(of_tenfold) + frames(of_guest), FRAMES, "{:#}", shown["report"]);
    assert_eq!(of_broken.0, 0, "it never delivered");
    assert!(of_broken.1 >= 3, "its failures are told: {:#}", shown["report"]);
    assert!(frames(of_tenfold) > 0, "the slow one has its part in it: {:#}", shown["report"]);
    let pace = |(frames, _, seconds): (u64, u64, f64)| seconds / frames.max(1) as f64;
    assert!(pace(of_tenfold) > 1.5 * pace(of_steady), "the slow one was slow: {:#}", shown["report"]);

    let out = lan.client.work().join("frames");
    let said = lan.run(&["jobs", "fetch", &job, "--out", out.to_str().unwrap()]);
    assert_eq!(said.code, 0, "{}", said.err);
    let cold = lan.client.work().join("cold");
    let frames = format!("1..{FRAMES}");
    let mut alone = Command::new(blender());
    alone.args(["--background", "--factory-startup", "--disable-autoexec"]).arg(&blend);
    run(alone.arg("-o").arg(cold.join("####")).args(["-f", &frames]));
    let (ours, theirs) = (pictures(&out), pictures(&cold));
    assert_eq!((ours.len() as u64, theirs.len() as u64), (FRAMES, FRAMES));
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_same_picture(&out.join(ours), &cold.join(theirs));
    }

    // The best of them, with nobody else.
    drop((tenfold, broken, back));
    for name in ["tenfold", "broken", "guest"] {
        lan.becomes(name, "offline");
    }
    let again = submit(&["--out", "again"]);
    lan.wait(&again, LIMIT);
    drop(steady);
    let seconds = |shown: &Value| shown["report"]["wall_s"].as_f64().unwrap();
    println!(
        "{FRAMES} frames in {:.1} s, {:.1} s by the best worker alone; the guest was away for {:.1} s; frames: steady {}, \
         tenfold {} at {:.2} s each ({:.2} s on the steady one), guest {}; broken is quarantined: {why}",
        seconds(&shown),
        seconds(&lan.shown(&again)),
        away.as_secs_f64(),
        of_steady.0,
        of_tenfold.0,
        pace(of_tenfold),
        pace(of_steady),
        of_guest.0,
    );
}
