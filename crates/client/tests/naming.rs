//! Names that are told before anything renders are those that Blender gives.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, path::Path, process::Command};

use kiln_client::Naming;
use kiln_testkit::{Blender, blenders, temp_dir};

/// Scenes with all sorts of output paths, each below a folder of its own; two frames of each are rendered, and what
/// Blender would call others goes into `names.json`.
const SCRIPT: &str = r##"
import bpy, json, os, sys
folder = sys.argv[-1]
cases = [
    ("render/f_####", "PNG", True, ""), ("f_", "JPEG", True, ""), ("f_", "OPEN_EXR", False, ""),
    ("v1.2_#", "PNG", True, ""), ("f_##_x", "TIFF", True, ""), ("f_#.jpg", "PNG", True, ""),
    ("f_#.jpg", "PNG", False, ""), ("f.", "PNG", True, ""), ("render/", "PNG", False, ""),
    ("stereo_", "PNG", True, "stereo"), ("a.b_####", "OPEN_EXR", False, "stereo"),
    ("v1.2_#", "PNG", True, "stereo"), ("f_#.png", "PNG", True, "stereo"), ("many/", "PNG", True, "many"),
    ("joined_", "PNG", True, "joined"), ("f_", "IRIS", True, ""), ("f_#.png", "CINEON", True, ""),
    ("f_#.rgb", "DPX", True, ""), ("f_#.J2C", "JPEG2000", True, ""), ("f_#.jp2", "J2K", True, ""),
]
camera = bpy.data.objects.new("Eye", bpy.data.cameras.new("Eye"))
for number, (pic, kind, extension, views) in enumerate(cases):
    scene = bpy.data.scenes.new(f"case{number}")
    scene.collection.objects.link(camera)
    scene.camera = camera
    render = scene.render
    render.engine, scene.cycles.samples, scene.cycles.use_denoising = "CYCLES", 1, False
    # Blender writes no JPEG 2000 that is smaller.
    render.resolution_x = render.resolution_y = 32
    render.filepath, render.use_file_extension = f"//{number}/{pic}", extension
    render.image_settings.file_format = "JPEG2000" if kind == "J2K" else kind
    if kind == "J2K":
        render.image_settings.jpeg2k_codec = kind
    render.use_multiview = bool(views)
    if views == "many":
        render.views_format = "MULTIVIEW"
        render.views.new("top").file_suffix = ".top"
        off = render.views.new("off")
        off.file_suffix, off.use = "_off", False
    if views == "joined":
        render.image_settings.views_format = "STEREO_3D"
bpy.ops.wm.save_as_mainfile(filepath=os.path.join(folder, "names.blend"), relative_remap=False)
told = {}
for number in range(len(cases)):
    scene = bpy.data.scenes[f"case{number}"]
    render = scene.render
    told[scene.name] = names = {}
    written = set()
    for frame in (7, 12345):
        scene.frame_start = scene.frame_end = frame
        bpy.ops.render.render(animation=True, scene=scene.name)
        there = {os.path.relpath(os.path.join(at, name), folder)
                 for at, _, files in os.walk(os.path.join(folder, str(number))) for name in files}
        names[frame] = sorted(there - written)
        written = there
    if not render.use_multiview:
        for frame in (1, -5):
            names[frame] = [os.path.relpath(render.frame_path(frame=frame), folder)]
with open(os.path.join(folder, "names.json"), "w") as file:
    json.dump(told, file)
os._exit(0)
"##;

fn make(blender: &Blender, folder: &Path) {
    let script = folder.join("names.py");
    std::fs::write(&script, SCRIPT).unwrap();
    let mut command = Command::new(blender.program());
    match blender {
        Blender::Executable(_) => {
            command.args(["--background", "--factory-startup", "--python-exit-code", "1", "--python"]);
            command.arg(&script).arg("--")
        }
        Blender::Module(_) => command.arg("-I").arg(&script),
    };
    let made = command.arg(folder).output().unwrap();
    assert!(folder.join("names.json").is_file(), "{made:?}");
}

#[test]
fn frames_are_called_as_blender_calls_them() {
    for blender in blenders() {
        let folder = temp_dir();
        let folder = folder.path().canonicalize().unwrap();
        make(&blender, &folder);
        let told: BTreeMap<String, BTreeMap<i32, Vec<String>>> =
            serde_json::from_slice(&std::fs::read(folder.join("names.json")).unwrap()).unwrap();
        let found = kiln_blend::inspect(&folder.join("names.blend")).unwrap();
        let mut compared = 0;
        for scene in found.scenes.iter().filter(|scene| scene.name.starts_with("case")) {
            let format = scene.format.unwrap();
            let naming = Naming::of(scene, folder.to_str().unwrap(), format);
            for (frame, blenders) in &told[&scene.name] {
                let mut ours: Vec<String> = naming.frame(*frame).iter().map(ToString::to_string).collect();
                ours.sort();
                assert_eq!(&ours, blenders, "{} frame {frame}", scene.output_path);
                compared += 1;
            }
        }
        assert_eq!(compared, 20 * 2 + 14 * 2);
    }
}
