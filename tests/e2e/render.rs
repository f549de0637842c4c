//! `kiln render`, `submit` and `fetch` with a real Blender: the frames that are written, kept, and left by an interruption.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use kiln_testkit::{is_blender_3_4, wait_until};
use serde_json::Value;

use crate::support::{Home, Running, Said, said};

const LONG: Duration = Duration::from_secs(120);
/// The sample, as small as it can be.
const QUICK: &[&str] = &["--samples", "1", "--resolution", "5%"];

fn sample() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/sample.blend")).to_owned()
}

fn home() -> Home {
    let home = Home::new();
    home.copy(&sample(), "shot.blend");
    home
}

fn with<'a>(args: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [args, more].concat()
}

/// Every file below a folder that is no note of Kiln's own, sorted.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in std::fs::read_dir(next).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                if !path.ends_with(".kiln") {
                    waiting.push(path);
                }
            } else {
                found.push(path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

fn frames(numbers: &[u32]) -> Vec<String> {
    numbers.iter().map(|number| format!("frames/vase_{number:04}.png")).collect()
}

#[track_caller]
fn done(said: &Said) -> Value {
    assert_eq!(said.code, 0, "{}", said.err);
    said.json()
}

#[test]
fn progress_is_json_lines_and_the_last_one_is_the_result() {
    let home = home();
    let render = ["render", "shot.blend", "--local", "--out", "out", "--json", "--frames", "1-2"];
    let names = |said: &Said| -> Vec<String> {
        said.json_lines().iter().map(|line| line["event"].as_str().unwrap().to_owned()).collect()
    };
    let said = home.run(&with(&render, QUICK));
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(said.out.lines().count(), said.json_lines().len(), "a line each");
    let events = names(&said);
    let at = |name: &str| {
        events.iter().position(|one| one == name).unwrap_or_else(|| panic!("{name}: {events:?}"))
    };
    assert_eq!(at("reading"), 0, "{events:?}");
    for (first, then) in [
        ("hashing", "inputs"),
        ("inputs", "planned"),
        ("planned", "submitted"),
        ("submitted", "frame-finished"),
    ] {
        assert!(at(first) < at(then), "{first} before {then}: {events:?}");
    }
    for name in ["frame-finished", "frame-fetched"] {
        assert_eq!(events.iter().filter(|one| *one == name).count(), 2, "{name}: {events:?}");
    }
    assert_eq!(at("finished"), events.len() - 1);
    let ended = said.json();
    assert_eq!((&ended["outcome"], &ended["exit_code"]), (&"done".into(), &0.into()));

    // Nothing is left to render.
    let again = home.run(&with(&render, QUICK));
    assert_eq!(names(&again).last().unwrap(), "finished");
    assert_eq!((&again.json()["kept"], &again.json()["job"]), (&2.into(), &Value::Null));

    // What cannot go on says why, in the last line.
    let refused = home.run(&with(&render, &["--camera", "Nobody"]));
    let error = refused.json();
    assert_eq!((refused.code, &error["error"]["exit_code"]), (2, &2.into()), "{error}");
    assert!(error["error"]["message"].as_str().unwrap().contains("no camera “Nobody”"), "{error}");

    // A job that is left alone, and fetched later.
    if !is_blender_3_4() {
        return;
    }
    let _server = home.server(&["--worker"]);
    let submitted =
        home.run(&with(&["submit", "shot.blend", "--out", "far", "--json", "--frames", "1"], QUICK));
    assert_eq!(names(&submitted).last().unwrap(), "submitted");
    let job = submitted.json()["job"]["id"].to_string();
    assert_eq!(names(&home.run(&["jobs", "wait", &job, "--json"])).last().unwrap(), "finished");
    let fetched = home.run(&["jobs", "fetch", &job, "--out", "again", "--json"]);
    assert_eq!(names(&fetched), ["frame-fetched", "fetched"]);
}

#[test]
fn the_same_command_continues_and_nothing_is_overwritten_unasked() {
    let home = home();
    let out = home.work().join("out");
    let render = |frames: &'static str, more: &[&'static str]| {
        let base = ["render", "shot.blend", "--out", "out", "--json", "--frames", frames];
        home.run(&with(&with(&base, QUICK), more))
    };
    let first = done(&render("1-3", &[]));
    assert_eq!((&first["landed"], &first["kept"]), (&3.into(), &0.into()));
    assert_eq!(first["report"]["workers"][0]["frames"], 3);
    assert_eq!(files(&out), frames(&[1, 2, 3]));
    let times = || -> Vec<_> {
        let time = |name: &String| std::fs::metadata(out.join(name)).unwrap().modified().unwrap();
        frames(&[1, 3]).iter().map(time).collect()
    };
    let before = times();

    // A frame that is gone comes back, the others stay as they are; more frames join.
    std::fs::remove_file(out.join("frames/vase_0002.png")).unwrap();
    let second = done(&render("1-4", &[]));
    assert_eq!((&second["landed"], &second["kept"]), (&2.into(), &2.into()));
    assert_eq!(files(&out), frames(&[1, 2, 3, 4]));
    assert_eq!(times(), before);
    assert_eq!(done(&render("1-4", &[]))["kept"], 4);

    // Other settings are another picture.
    let other = render("1-4", &["--depth", "16"]);
    assert_eq!(other.code, 2);
    assert!(other.err.contains("4 of the files are already there"), "{}", other.err);
    assert_eq!(times(), before);
    let skipped = done(&render("3-5", &["--depth", "16", "--existing", "skip"]));
    assert_eq!((&skipped["landed"], &skipped["skipped"]), (&1.into(), &2.into()));
    assert_eq!(times(), before);
    let replaced = done(&render("1,3", &["--depth", "16", "--existing", "overwrite"]));
    assert_eq!(replaced["landed"], 2);
    assert!(times().iter().zip(&before).all(|(after, before)| after > before));
    assert_eq!(home.leftovers(), Vec::<PathBuf>::new());
}

/// Returns the processes with this parent: Blenders that an ended command left behind.
fn children(pid: u32) -> Vec<u32> {
    let said = Command::new("pgrep").args(["-P", &pid.to_string()]).output().unwrap();
    String::from_utf8(said.stdout).unwrap().lines().filter_map(|line| line.parse().ok()).collect()
}

fn alive(pid: u32) -> bool {
    // A process that has ended but was not collected is gone as well.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z'))
}

/// A render that has a frame home and more to do.
fn underway(home: &Home, out: &str, more: &[&str]) -> Running {
    let args = ["render", "shot.blend", "--out", out, "--frames", "1-48", "--samples", "64"];
    let child = home.kiln(&with(&args, more)).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let running = Running { child, url: String::new() };
    wait_until(LONG, "a frame is home", || {
        files(&home.work().join(out)).iter().any(|name| name.ends_with(".png"))
    });
    running
}

/// Interrupts a render, and checks that whole frames are left and nothing else.
#[track_caller]
fn interrupt(home: &Home, running: Running) {
    let blenders = children(running.child.id());
    assert!(!blenders.is_empty());
    assert_eq!(running.interrupt(), 4);
    for blender in blenders {
        wait_until(LONG, "its Blenders are gone", || !alive(blender));
    }
    assert_eq!(home.leftovers(), Vec::<PathBuf>::new());
    let there = files(&home.work().join("out"));
    let frames: Vec<_> = there.iter().filter(|name| name.ends_with(".png")).collect();
    assert!(!frames.is_empty());
    for frame in frames {
        kiln_testkit::picture(&home.work().join("out").join(frame));
    }
}

#[test]
fn an_interrupted_render_leaves_whole_frames_and_nothing_else() {
    let home = home();
    let running = underway(&home, "out", &[]);
    interrupt(&home, running);
}

#[test]
fn one_interruption_ends_all_jobs_of_a_render() {
    let home = home();
    std::fs::copy(home.work().join("shot.blend"), home.work().join("second.blend")).unwrap();
    let running = underway(&home, "out", &["second.blend"]);
    interrupt(&home, running);
}

#[test]
fn a_killed_render_is_cleaned_up_by_the_next() {
    let home = home();
    let mut running = underway(&home, "out", &[]);
    let blenders = children(running.child.id());
    running.kill();
    for blender in blenders {
        wait_until(LONG, "its Blenders are gone", || !alive(blender));
    }
    assert_eq!(home.leftovers().len(), 1);
    let args = with(&["render", "shot.blend", "--out", "other", "--frames", "1", "--json"], QUICK);
    done(&home.run(&args));
    assert_eq!(home.leftovers(), Vec::<PathBuf>::new());
    assert_eq!(files(&home.work().join("other")), frames(&[1]));
}

#[test]
fn a_job_is_left_with_the_farm_and_its_frames_are_fetched() {
    // Where no worker is there yet, the job is for the Blender that saved the file.
    if !is_blender_3_4() {
        return;
    }
    let home = home();
    let _server = home.server(&["--worker"]);
    let submit = with(&["submit", "shot.blend", "--out", "out", "--frames", "1-3", "--json"], QUICK);
    let id = home.json(&submit)["job"]["id"].to_string();
    // Attaching brings the frames to the folder that was named.
    let ended = home.json(&["jobs", "wait", &id, "--json"]);
    assert_eq!(ended["job"]["state"], "completed");
    assert_eq!(files(&home.work().join("out")), frames(&[1, 2, 3]));

    let fetched = home.json(&["jobs", "fetch", &id, "--out", "again", "--json"]);
    assert_eq!((&fetched["fetched"], &fetched["there"]), (&3.into(), &0.into()));
    std::fs::remove_file(home.work().join("again/frames/vase_0002.png")).unwrap();
    std::fs::write(home.work().join("again/frames/vase_0003.png"), b"mine").unwrap();
    let partly = home.run(&["jobs", "fetch", &id, "--out", "again", "--json"]);
    let value = partly.json();
    assert_eq!((&value["fetched"], &value["there"]), (&1.into(), &1.into()));
    assert_eq!(value["left"][0], "frames/vase_0003.png");
    assert_eq!(partly.code, 1, "a file that is not this job's stays, and that is said: {}", partly.err);
    assert_eq!(std::fs::read(home.work().join("again/frames/vase_0003.png")).unwrap(), b"mine");
    home.json(&["jobs", "fetch", &id, "--out", "again", "--existing", "overwrite", "--json"]);
    kiln_testkit::picture(&home.work().join("again/frames/vase_0003.png"));

    // The verbs of a job that has ended.
    assert_eq!(home.run(&["jobs", "extend", &id, "--frames", "4"]).code, 0);
    assert_eq!(home.run(&["jobs", "rerender", &id, "--frames", "1"]).code, 0);
    let waited = home.json(&["jobs", "wait", &id, "--out", "all", "--json"]);
    assert_eq!(waited["job"]["tasks"]["done"], 4);
    assert_eq!(files(&home.work().join("all")), frames(&[1, 2, 3, 4]));
    // A log is there before its frame: Blender's own words, to the last line.
    for frame in 1..=4 {
        let said = home.run(&["jobs", "logs", &id, "--frame", &frame.to_string()]);
        let attempts = home.json(&["jobs", "show", &id, "--json"])["attempts"].to_string();
        assert!(said.out.contains("Saved"), "frame {frame}: {}{}\n{attempts}", said.out, said.err);
        assert!(said.out.contains(&format!("vase_{frame:04}.png")), "frame {frame}: {}", said.out);
    }
    assert!(home.run(&["jobs"]).out.contains("completed"));
    assert_eq!(home.run(&["jobs", "delete", &id]).code, 0);
    home.run(&["jobs", "show", &id]).refused(2, &[&id]);
}

#[test]
fn the_farm_goes_on_when_its_client_is_interrupted() {
    let home = home();
    let _server = home.server(&[]);
    let args = with(&["submit", "shot.blend", "--out", "out", "--frames", "1-2", "--wait"], QUICK);
    let child = home.kiln(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let waiting = Running { child, url: String::new() };
    let jobs = || home.json(&["jobs", "--json"])["jobs"].as_array().unwrap().clone();
    wait_until(LONG, "the job is there", || !jobs().is_empty());
    assert_eq!(waiting.interrupt(), 130);
    let job = &jobs()[0];
    assert_eq!(job["state"], "queued");
    let id = job["id"].to_string();
    let shown = home.run(&["jobs", "show", &id]);
    assert!(shown.out.contains("Waits"), "{}", shown.out);
    assert_eq!(home.run(&["jobs", "cancel", &id]).code, 0);
    assert_eq!(home.run(&["jobs", "wait", &id]).code, 4, "the exit code is the job's");
}

#[test]
fn a_render_joins_the_farm_and_leaves_it() {
    let home = home();
    let _server = home.server(&[]);
    let args = with(&["render", "shot.blend", "--out", "out", "--frames", "1-3", "--json"], QUICK);
    let ended = done(&home.run(&args));
    assert_eq!(ended["job"]["state"], "completed");
    assert_eq!(files(&home.work().join("out")), frames(&[1, 2, 3]));
    let worker = &home.json(&["workers", "--json"])["workers"][0];
    assert_eq!(worker["state"], "offline");
    // Alone, whatever farm there is.
    let alone =
        with(&["render", "shot.blend", "--local", "--out", "alone", "--frames", "1", "--json"], QUICK);
    done(&home.run(&alone));
    assert_eq!(home.json(&["jobs", "--json"])["jobs"].as_array().unwrap().len(), 1);
}

#[test]
fn a_scene_that_lacks_a_file_says_which() {
    let home = Home::new();
    let blend = home.work().join("broken.blend");
    let script = "import bpy\n\
        image = bpy.data.images.new('wood', 4, 4)\nimage.source = 'FILE'\nimage.filepath = '//wood.png'\n\
        image.use_fake_user = True\n\
        mat = bpy.data.materials.new('m')\nmat.use_nodes = True\n\
        node = mat.node_tree.nodes.new('ShaderNodeTexImage')\nnode.image = image\n\
        mat.node_tree.links.new(node.outputs[0], mat.node_tree.nodes['Principled BSDF'].inputs[0])\n\
        bpy.data.objects['Cube'].data.materials.clear()\nbpy.data.objects['Cube'].data.materials.append(mat)\n\
        bpy.context.scene.frame_end = 2\n\
        bpy.context.scene.render.engine = 'CYCLES'\nbpy.context.scene.cycles.use_denoising = False\n\
        bpy.ops.wm.save_as_mainfile(filepath='PATH', relative_remap=False)\n"
        .replace("PATH", blend.to_str().unwrap());
    let made = Command::new(kiln_testkit::blender())
        .args(["--background", "--factory-startup", "--python-expr", &script])
        .output()
        .unwrap();
    assert!(blend.is_file(), "{}", said(made).err);
    let args = ["render", "broken.blend", "--out", "out", "--samples", "1", "--resolution", "5%"];
    home.run(&args).refused(2, &["wood.png", "--allow-missing"]);
    assert!(!home.work().join("out").exists());
    assert_eq!(home.run(&["inspect", "broken.blend"]).out.matches("missing: image //wood.png").count(), 1);
    let allowed = home.run(&with(&args, &["--allow-missing"]));
    assert_eq!(allowed.code, 0, "{}", allowed.err);
    assert!(allowed.err.contains("wood.png"), "it stays visible: {}", allowed.err);
}
