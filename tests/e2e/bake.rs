//! Simulations that nobody baked: Kiln bakes them first, and the frames are those of a person who steps through.

use std::{path::Path, process::Command};

use kiln_testkit::{assert_same_picture, blender, picture, scene};
use serde_json::Value;

use crate::support::Home;

/// Opens the file, and goes from its first frame to the last; the frames named are rendered on the way.
const STEPS: &str = "import bpy, sys\n\
    blend, out, *frames = sys.argv[sys.argv.index('--') + 1:]\n\
    frames = [int(frame) for frame in frames]\n\
    bpy.ops.wm.open_mainfile(filepath=blend, load_ui=False)\n\
    scene = bpy.context.scene\n\
    for frame in range(scene.frame_start, max(frames) + 1):\n\
    \x20   scene.frame_set(frame)\n\
    \x20   if frame in frames:\n\
    \x20       scene.render.filepath = f'{out}/shot_{frame:04}.png'\n\
    \x20       bpy.ops.render.render(write_still=True)\n";

fn step_through(blend: &Path, out: &Path, frames: &[&str]) {
    let script = out.with_extension("py");
    std::fs::write(&script, STEPS).unwrap();
    let mut command = Command::new(blender());
    command.args(["--background", "--factory-startup", "--python-exit-code", "1", "--python"]).arg(script);
    let output = command.arg("--").arg(blend).arg(out).args(frames).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn frames_of_a_falling_cube_are_those_of_stepping_through() {
    let home = Home::new();
    let blend = home.copy(&scene("rigid_body"), "shot.blend");
    let (before, by_hand) = (std::fs::read(&blend).unwrap(), home.work().join("by-hand"));
    step_through(&blend, &by_hand, &["2", "6", "8"]);

    // Out of order: each frame is baked all the same.
    let render = ["render", "shot.blend", "--local", "--frames", "8,2,6", "--out", "out"];
    let said = home.run(&[&render[..], &["--json"]].concat());
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.err.contains("rigid body Cube is not baked: that is done first"), "{}", said.err);
    assert!(said.err.contains("simulations baked in 0:"), "{}", said.err);
    let report: Value = serde_json::from_str(&said.out).unwrap();
    let steps = &report["job"]["steps"];
    assert_eq!((&steps[0]["kind"], &steps[0]["progress"]), (&"bake".into(), &1.0.into()));
    assert_eq!((&report["job"]["tasks"]["done"], &report["landed"]), (&3.into(), &3.into()));
    let frame = |folder: &str, number: u32| {
        let folder = home.work().join(folder);
        let name = format!("shot_{number:04}.png");
        [folder.join("frames").join(&name), folder.join(&name)]
            .into_iter()
            .find(|path| path.is_file())
            .unwrap()
    };
    for number in [2, 6, 8] {
        assert_same_picture(&frame("out", number), &frame("by-hand", number));
    }
    assert!(std::fs::read(&blend).unwrap() == before, "the artist's file stays as it was");
    let beside = std::fs::read_dir(home.work()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(beside.into_iter().all(|name| !name.to_string_lossy().contains("cache")), "no cache beside it");

    // The same command finds nothing to do, and so bakes nothing.
    let again = home.run(&render);
    assert_eq!(again.code, 0, "{}", again.err);
    assert!(
        again.out.contains("Nothing is left to render") && !again.err.contains("simulations baked"),
        "{}",
        again.err
    );

    // Without a bake, it hangs in the air.
    let still =
        home.run(&["render", "shot.blend", "--local", "--frames", "8", "--out", "still", "--no-bake"]);
    assert_eq!(still.code, 0, "{}", still.err);
    assert!(still.err.contains("will stand still"), "{}", still.err);
    assert_ne!(picture(&frame("still", 8)), picture(&frame("by-hand", 8)));
}
