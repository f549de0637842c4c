//! A Blender that was built without the denoiser which a scene uses renders none of its frames, and says so.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use kiln_testkit::{
    Blender, assert_same_picture, blender, bpy_python, scene, skip, skip_in_part, wait_until,
};

use crate::support::{Home, Running};

const SOON: Duration = Duration::from_secs(120);
const LACKS: &str = "the denoiser OpenImageDenoise in Blender";

/// Debian's is not; those of blender.org are.
fn can_denoise() -> bool {
    let ask = "import _cycles; print('denoises:', _cycles.with_openimagedenoise)";
    let asked = Command::new(blender())
        .args(["--background", "--factory-startup", "--python-expr", ask])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&asked.stdout).into_owned();
    assert!(said.contains("denoises: "), "{said}");
    said.contains("denoises: True")
}

#[test]
fn a_scene_that_denoises_waits_for_a_blender_that_can() {
    if can_denoise() {
        skip(&format!("{} was built with a denoiser", blender().display()));
        return;
    }
    let home = Home::new();
    let shot = home.copy(&scene("denoise"), "shot.blend");
    let shot = shot.to_str().unwrap();
    let alone = home.run(&["render", shot, "--local", "--frames", "1-3", "--out", "out"]);
    assert_eq!(alone.code, 1, "{}", alone.err);
    assert!(alone.err.contains(&format!("Nothing here has {LACKS}")), "{}", alone.err);
    assert!(alone.err.contains("--blender-version"), "{}", alone.err);
    assert!(alone.err.contains("--set cycles.use_denoising=false"), "{}", alone.err);
    assert!(!alone.err.contains("of the farm"), "there is no farm: {}", alone.err);
    let second = home.copy(&scene("denoise"), "second.blend");
    let both = ["render", shot, second.to_str().unwrap(), "--local", "--out", "both", "--frames", "1"];
    let failed = home.run(&both);
    assert_eq!(failed.code, 1, "{}", failed.err);
    assert_eq!(failed.err.matches("Nothing here has").count(), 2, "each variant: {}", failed.err);
    let without = home.run(&[&both[..], &["--set", "cycles.use_denoising=False"]].concat());
    assert_eq!(without.code, 0, "{}", without.err);
    assert!(!home.work().join("out/frames").exists() && home.leftovers().is_empty());

    let server = home.server(&[]);
    let _oak = home.worker(&server.url, "oak");
    home.connected(1);
    let job = home.submit(&[shot, "--frames", "1-3"]);
    let nobody = format!("No worker of the farm has {LACKS}");
    wait_until(SOON, "it is told what is missing", || {
        home.run(&["jobs", "explain", &job]).out.contains(&nobody)
    });
    let tasks = home.show(&job)["tasks"].take();
    assert_eq!((&tasks["done"], &tasks["failed"]), (&0.into(), &0.into()), "it waits");
    let shown = home.run(&["jobs", "show", &job]).out;
    assert!(shown.contains(&nobody) && shown.contains(&format!("oak lacks {LACKS}")), "{shown}");

    let Some(python) = bpy_python() else {
        skip_in_part("KILN_TEST_BPY names no Python with bpy 5.0");
        return;
    };
    let mut ash =
        home.kiln(&["worker", "--server", &server.url, "--name", "ash", "--slots", "1", "--blender"]);
    ash.arg(&python).env("PATH", home.work()).stdout(Stdio::null()).stderr(Stdio::null());
    let _ash = Running { child: ash.spawn().unwrap(), url: String::new() };
    home.connected(2);
    let newer = home.submit(&[shot, "--frames", "1-3", "--blender-version", "5.0"]);
    home.completed(&newer);
    let ran = home.json(&["jobs", "show", &newer, "--json"])["attempts"].take();
    assert!(ran.as_array().unwrap().iter().all(|attempt| attempt["worker"] == "ash"), "{ran:#}");
    let ours = home.fetch(&newer, "newer");
    let cold = home.work().join("cold-");
    Blender::Module(python).render_cold(shot.as_ref(), 2, Some(&cold), false);
    assert_same_picture(&ours.join("frames/shot_0002.png"), &home.work().join("cold-0002.png"));
    let explained = home.run(&["jobs", "explain", &job]).out;
    assert!(explained.contains(&nobody), "another series is no help: {explained}");
}
