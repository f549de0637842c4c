//! The sample animation of this repository, with every Blender that the tests have, against cold Blenders.

use std::{path::Path, process::Command};

use kiln_testkit::{Blender, assert_same_picture, blender, bpy_python, skip};

use crate::support::Home;

pub fn sample() -> &'static str {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/sample.blend")
}

/// The settings that the tests render the sample with, for Kiln and for Blender.
pub const SETTINGS: &[&str] = &["--resolution", "25%", "--samples", "2"];
const SETTINGS_IN_PYTHON: &str = "import bpy\n\
    scene = bpy.context.scene\n\
    scene.render.resolution_percentage = 25\n\
    scene.cycles.samples = 2\n";

/// One process, one frame, with [`SETTINGS`].
#[track_caller]
pub fn cold_sample(which: &Blender, frame: i32, out: &Path) {
    let prefix = out.join("vase_####");
    let mut command = Command::new(which.program());
    match which {
        Blender::Executable(_) => {
            command.args([
                "--background",
                "--factory-startup",
                sample(),
                "--python-expr",
                SETTINGS_IN_PYTHON,
            ]);
            command.arg("--render-output").arg(prefix).args(["--render-frame", &frame.to_string()]);
        }
        Blender::Module(_) => {
            let script = format!(
                "import bpy, os, sys\nbpy.ops.wm.open_mainfile(filepath=sys.argv[1])\n{SETTINGS_IN_PYTHON}\
                 scene.render.filepath = sys.argv[2]\nscene.frame_start = scene.frame_end = {frame}\n\
                 bpy.ops.render.render(animation=True)\nos._exit(0)\n"
            );
            command.args(["-I", "-c", &script, sample()]).arg(prefix);
        }
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

fn renders_like(which: &Blender, more: &[&str]) {
    let home = Home::new();
    let (ours, cold) = (home.work().join("ours"), home.work().join("cold"));
    let mut args = vec!["render", sample(), "--frames", "9,3,5,4", "--out", ours.to_str().unwrap()];
    args.extend(SETTINGS.iter().chain(more));
    let said = home.run(&args);
    assert_eq!(said.code, 0, "{}", said.err);
    for frame in [9, 3, 5, 4] {
        cold_sample(which, frame, &cold);
        let name = format!("vase_{frame:04}.png");
        assert_same_picture(&ours.join("frames").join(&name), &cold.join(&name));
    }
    assert!(home.leftovers().is_empty(), "{:?}", home.leftovers());
}

#[test]
fn with_the_blender_program() {
    renders_like(&Blender::Executable(blender()), &[]);
}

#[test]
fn with_the_bpy_wheel() {
    let Some(python) = bpy_python() else {
        skip("KILN_TEST_BPY names no Python with bpy 5.0");
        return;
    };
    let program = python.to_str().unwrap().to_owned();
    renders_like(&Blender::Module(python), &["--blender", &program, "--blender-version", "5.0"]);
}

/// On a machine with a GPU that Blender can use: the job is pinned to it, and the frames are whole. Elsewhere this
/// test is left out; that a GPU is never replaced in silence is tested with a made-up list of devices.
#[test]
fn on_a_real_gpu() {
    let home = Home::new();
    let found =
        kiln_host::discover(&bpy_python().into_iter().collect::<Vec<_>>(), &home.data(), &home.work());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let gpu = found.iter().find_map(|install| {
        let capabilities = runtime.block_on(kiln_host::probe(install)).unwrap();
        let device = capabilities.devices.into_iter().find(|d| d.backend != kiln_types::DeviceClass::Cpu)?;
        Some((install.clone(), device))
    });
    let Some((install, device)) = gpu else {
        skip("no Blender of this machine finds a GPU");
        return;
    };
    let (program, series) = (install.program.to_str().unwrap(), install.version.series().to_string());
    let out = home.work().join("frames");
    let mut args = vec!["render", sample(), "--frames", "1-2", "--out", out.to_str().unwrap()];
    args.extend(["--blender", program, "--blender-version", &series, "--device", device.backend.as_str()]);
    args.extend(SETTINGS);
    let said = home.run(&args);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(out.join("frames/vase_0002.png").exists());
}
