//! Simulations without a bake: Kiln bakes them first, and the frames are those of a person who steps through the scene.

use std::{path::Path, process::Command};

use kiln_testkit::{Blender, assert_same_picture, blender, bpy_python, fluid_blenders, picture, scene, skip};

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
    assert!(said.err.contains("rigid body Cube is not baked: a bake is done first"), "{}", said.err);
    assert!(said.err.contains("simulations baked in 0:"), "{}", said.err);
    let report = said.json();
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
    assert!(still.err.contains("will not move"), "{}", still.err);
    assert_ne!(picture(&frame("still", 8)), picture(&frame("by-hand", 8)));
}

/// Runs the script that writes these scenes of the host's own tests, and steps through them.
fn made(blender: &Blender, home: &Home, verb: &str, folders: &[&Path], names: &[&str]) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../host/tests/host/bakes.py");
    let mut command = Command::new(blender.program());
    if matches!(blender, Blender::Executable(_)) {
        command.args(["--background", "--factory-startup", "--python"]);
    }
    command.arg(script).args(["--", verb]).args(folders).args(names);
    let output = command.current_dir(home.work()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_a_library_simulates_is_refused_before_anything_is_sent_and_so_is_what_must_be_baked() {
    let home = Home::new();
    let scenes = home.work().join("scenes");
    let names = ["linked", "library", "crowd", "holes"];
    made(&Blender::Executable(blender()), &home, "build", &[&scenes], &names);
    for name in ["linked", "library"] {
        let blend = format!("scenes/{name}/{name}.blend");
        let said = home.run(&["render", &blend, "--local", "--frames", "2", "--out", "out"]);
        let library = scenes.join(name).join("wardrobe.blend");
        said.refused(2, &["cloth of Sheet (from wardrobe.blend)", library.to_str().unwrap(), "--no-bake"]);
        let inspected = home.run(&["inspect", &blend]);
        assert!(
            inspected.out.contains("not baked: cloth of Sheet (from wardrobe.blend)"),
            "{}",
            inspected.out
        );
    }
    let blend = "scenes/crowd/crowd.blend";
    let said = home.run(&["render", blend, "--local", "--only-baked", "--frames", "2", "--out", "out"]);
    // From 3.6 on, the crowd has simulation nodes, too.
    said.refused(2, &["cloth of Sheet", "not baked", "bake in Blender", "--no-bake"]);
    assert!(!home.work().join("out").exists() && home.leftovers().is_empty(), "nothing has begun");
    // Frames that a bake has lost are asked for, and others.
    let holes =
        |frames| ["render", "scenes/holes/holes.blend", "--local", "--out", "whole", "--frames", frames];
    home.run(&holes("5-8")).refused(2, &["cloth of Sheet lacks frames 7", "--no-bake"]);
    let inspected = home.run(&["inspect", "scenes/holes/holes.blend"]);
    assert!(inspected.out.contains("cloth of Sheet is baked, but lacks frames 7"), "{}", inspected.out);
    let said = home.run(&holes("6,8"));
    assert_eq!(said.code, 0, "{}", said.err);
    let still =
        ["render", "scenes/library/library.blend", "--local", "--no-bake", "--frames", "2", "--out", "out"];
    let said = home.run(&still);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(
        said.err.contains("cloth of Sheet (from wardrobe.blend) is not baked, and will not move"),
        "{}",
        said.err
    );
}

/// Simulations in instanced collections and of overrides, some that move others and some that only show through others, rigid
/// bodies of which one is in a library, some that the saved frame does not show, some of other scenes, and one without its bake.
const WITH_THE_WHEEL: [&str; 10] =
    ["cloth", "crowd", "costume", "puppet", "swarm", "carried", "keyed", "backdrop", "composited", "lost"];

#[test]
fn the_bpy_wheel_bakes_what_shows_and_what_moves_it() {
    let Some(python) = bpy_python() else {
        skip("KILN_TEST_BPY names no Python with bpy 5.0");
        return;
    };
    let (home, program) = (Home::new(), python.to_str().unwrap().to_owned());
    let (scenes, stepped) = (home.work().join("scenes"), home.work().join("stepped"));
    let wheel = Blender::Module(python);
    made(&wheel, &home, "build", &[&scenes], &WITH_THE_WHEEL);
    let with = ["--local", "--blender", &program, "--blender-version", "5.0"];
    for name in WITH_THE_WHEEL {
        let (blend, out) = (format!("scenes/{name}/{name}.blend"), format!("out_{name}"));
        let said = home.run(&[&["render", &blend, "--frames", "10,3", "--out", &out], &with[..]].concat());
        assert_eq!(said.code, 0, "{name}: {}", said.err);
        assert!(said.err.contains("simulations baked in 0:"), "{}", said.err);
    }
    std::fs::create_dir(&stepped).unwrap();
    made(&wheel, &home, "step", &[&scenes, &stepped], &WITH_THE_WHEEL);
    for name in WITH_THE_WHEEL {
        for frame in [3, 10] {
            let ours = home.work().join(format!("out_{name}/frames/shot_{frame:04}.png"));
            assert_same_picture(&ours, &stepped.join(format!("{name}_{frame}.png")));
        }
    }
}

#[test]
fn a_bake_that_no_blender_of_the_farm_can_do_says_why_and_leaves_no_frame() {
    let Some(python) = bpy_python() else {
        skip("KILN_TEST_BPY names no Python with bpy 5.0");
        return;
    };
    let (home, program) = (Home::new(), python.to_str().unwrap().to_owned());
    let Some(builder @ Blender::Executable(_)) = fluid_blenders().into_iter().next() else {
        skip("no Blender program here makes a fluid");
        return;
    };
    made(&builder, &home, "build", &[&home.work().join("scenes")], &["liquid"]);
    let with = ["--local", "--blender", &program, "--blender-version", "5.0"];
    let blend = ["render", "scenes/liquid/liquid.blend", "--frames", "3,7", "--out", "out"];
    let said = home.run(&[&blend[..], &with[..]].concat());
    assert_eq!(said.code, 1, "{}", said.err);
    for words in ["fluid of Cube cannot be baked by Blender as a Python module", "the Blender program"] {
        assert!(said.err.contains(words), "“{words}” is not in: {}", said.err);
    }
    assert!(!said.err.contains("simulations baked in"), "{}", said.err);
    assert!(!home.work().join("out/frames").exists() && home.leftovers().is_empty(), "{}", said.err);
}
