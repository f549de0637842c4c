//! `--set`: a property of the scene by its path and a value.

use std::path::Path;

use kiln_testkit::{Blender, assert_same_picture, blender, picture, scene};
use serde_json::json;

use crate::support::Home;

const SET: [&str; 4] = ["--set", "cycles.film_exposure=0.5", "--set", "render.film_transparent=true"];

/// Saves the scene with the values, and renders a frame of it as a person would.
fn saved_and_rendered(home: &Home, blend: &Path, frame: i32) -> std::path::PathBuf {
    let script = home.work().join("save.py");
    let code = "import bpy, sys\n\
        bpy.ops.wm.open_mainfile(filepath=sys.argv[-1])\n\
        scene = bpy.context.scene\n\
        scene.cycles.film_exposure, scene.render.film_transparent = 0.5, True\n\
        bpy.ops.wm.save_mainfile()\n";
    std::fs::write(&script, code).unwrap();
    let (blender, saved) = (Blender::Executable(blender()), home.copy(blend, "saved.blend"));
    assert!(blender.script(&script).arg(&saved).output().unwrap().status.success());
    blender.render_cold(&saved, frame, Some(&home.work().join("cold_")), false);
    home.work().join(format!("cold_{frame:04}.png"))
}

#[test]
fn a_frame_is_that_of_the_saved_file_and_other_values_are_other_frames() {
    let home = Home::new();
    let blend = home.copy(&scene("basic"), "shot.blend");
    let render = |more: &[&str]| {
        let args = ["render", "shot.blend", "--local", "--out", "out", "--frames", "1-2", "--json"];
        home.run(&[&args, more].concat())
    };
    let counts = |said: crate::support::Said| {
        assert_eq!(said.code, 0, "{}", said.err);
        let report = said.json();
        (report["landed"].as_i64(), report["kept"].as_i64())
    };
    assert_eq!(counts(render(&SET)), (Some(2), Some(0)));
    let frame = home.work().join("out/frames/shot_0002.png");
    assert_same_picture(&frame, &saved_and_rendered(&home, &blend, 2));
    // In whatever order, and however a number is written.
    let same = ["--set", "render.film_transparent=true", "--set", "cycles.film_exposure=5e-1"];
    assert_eq!(counts(render(&same)), (Some(0), Some(2)));
    let other = ["--set", "cycles.film_exposure=0.25", "--set", "render.film_transparent=true"];
    let refused = render(&other);
    assert_eq!(refused.code, 2, "{}", refused.err);
    assert!(refused.err.contains("set cycles.film_exposure: 0.5, now 0.25"), "{}", refused.err);
    let before = picture(&frame);
    assert_eq!(counts(render(&[&other[..], &["--existing", "replace"]].concat())), (Some(2), Some(0)));
    assert!(before != picture(&frame));
    let plain = render(&[]);
    assert!(plain.err.contains("set render.film_transparent: true, now the file's own"), "{}", plain.err);
}

#[test]
fn what_kiln_decides_is_refused_at_once_and_what_blender_refuses_before_the_first_frame() {
    let home = Home::new();
    home.copy(&scene("basic"), "shot.blend");
    let cases: [(&str, i32, &[&str]); 9] = [
        ("render.resolution_x=64", 2, &["render.resolution_x", "use --resolution"]),
        ("render.use_persistent_data=true", 2, &["is set by Kiln"]),
        ("render.use_compositing=false", 2, &["set it in Blender and save"]),
        ("cycles.max_bounces", 2, &["write PROPERTY=VALUE"]),
        ("__import__('os').system('touch x')=1", 2, &["is not the path of a property"]),
        ("cycles.max_bouncs=4", 1, &["cycles.max_bouncs is no property", "cycles.max_bounces"]),
        ("cycles.max_bounces=many", 1, &["takes a whole number, not “many”"]),
        ("cycles.max_bounces=5000", 1, &["takes 0 to 1024, not 5000"]),
        ("cycles.pixel_filter_type=ROUND", 1, &["takes one of BOX, GAUSSIAN, BLACKMAN_HARRIS"]),
    ];
    for (set, code, words) in cases {
        let said = home.run(&["render", "shot.blend", "--local", "--out", "out", "--set", set]);
        assert_eq!(said.code, code, "{set}: {}{}", said.out, said.err);
        for word in words {
            assert!(said.err.contains(word), "{set}: “{word}” is not in {}", said.err);
        }
        assert!(!home.work().join("out/frames").exists(), "{set}");
    }
}

#[test]
fn a_farm_takes_properties_by_the_command_line_and_by_the_api() {
    let home = Home::new();
    let blend = home.copy(&scene("basic"), "shot.blend");
    let server = home.server(&[]);
    let _worker = home.worker(&server.url, "one");
    let job = home.submit(&[&["shot.blend", "--frames", "2"], &SET[..]].concat());
    home.completed(&job);
    let fetched = home.fetch(&job, "fetched").join("frames/shot_0002.png");
    assert_same_picture(&fetched, &saved_and_rendered(&home, &blend, 2));
    let shown = home.run(&["jobs", "show", &job]).out;
    assert!(
        shown.contains("cycles.film_exposure=0.5") && shown.contains("render.film_transparent=true"),
        "{shown}"
    );
    let view = home.json(&["jobs", "show", &job, "--json"]);
    let properties = json!({"cycles.film_exposure": 0.5, "render.film_transparent": true});
    assert!(view.to_string().contains(&format!("\"properties\":{properties}")), "{view}");
}
