//! Names that are told before anything renders are those that Blender gives.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, path::Path, process::Command};

use kiln_client::{NamedFor, Naming};
use kiln_testkit::{Blender, all_blenders, temp_dir};
use kiln_types::{FileFormat, RenderSettings, Resolution};

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
    ("{braces}_", "PNG", False, ""), ("nbsp\u00a0\u3000_", "PNG", True, ""),
]
if bpy.app.version >= (4, 5, 0):
    cases[-2:-1] = [
        (f"{path}_", "PNG", True, "") for path in (
            "{blend_name}/{blend_name}", "{fps}", "{fps:###}-{fps:.##}-{fps:####.###}", "{{fps}}{{{fps}}}",
            "{resolution_x}x{resolution_y}", "{resolution_x:######}-{resolution_y:##.##}-{resolution_y:.#}",
        )
    ]
if bpy.app.version >= (5, 0, 0):
    cases += [
        (path, "PNG", True, "") for path in (
            "{scene_name}_", "{camera_name}/f_", "{blend_dir}f_", "{blend_name_lib}{blend_dir_lib}f_",
        )
    ]
camera, other = (bpy.data.objects.new(name, bpy.data.cameras.new(name)) for name in ("Eye", "Other: 1/2"))
for number, (pic, kind, extension, views) in enumerate(cases):
    scene = bpy.data.scenes.new(f"case{number}" if number < 15 else f"case{number}: a/#")
    scene.collection.objects.link(camera)
    scene.camera = camera
    scene.collection.objects.link(other)
    for frame, chosen in ((100, other), (3, camera), (100, camera)):
        scene.timeline_markers.new("marker", frame=frame).camera = chosen
    render = scene.render
    render.engine, scene.cycles.samples, scene.cycles.use_denoising = "CYCLES", 1, False
    # Blender writes no JPEG 2000 of less than 32 pixels.
    render.resolution_x, render.resolution_y, render.resolution_percentage = 67, 65, 50
    render.fps, render.fps_base = 30, 1.001
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
bpy.ops.wm.save_as_mainfile(filepath=os.path.join(folder, "na{m}es.v1.blend"), relative_remap=False)
told = {}
for scene in [scene for scene in bpy.data.scenes if scene.name.startswith("case")]:
    number = int("".join(filter(str.isdigit, scene.name.split(":")[0])))
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
    # Its own function names the camera of now.
    if not render.use_multiview and "camera" not in render.filepath:
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
    for blender in all_blenders() {
        let folder = temp_dir();
        let folder = folder.path().canonicalize().unwrap();
        make(&blender, &folder);
        let told: BTreeMap<String, BTreeMap<i32, Vec<String>>> =
            serde_json::from_slice(&std::fs::read(folder.join("names.json")).unwrap()).unwrap();
        let blend = folder.join("na{m}es.v1.blend");
        let found = kiln_blend::inspect(&blend).unwrap();
        let mut compared = 0;
        for scene in found.scenes.iter().filter(|scene| scene.name.starts_with("case")) {
            let format = scene.format.unwrap();
            let series = found.written_by.series();
            let settings = &RenderSettings::default();
            let named = NamedFor { blend: &blend, written_by: series, blender: series, settings, format };
            let naming = Naming::of(scene, &named);
            for (frame, blenders) in &told[&scene.name] {
                let mut ours: Vec<String> = naming.frame(*frame).iter().map(ToString::to_string).collect();
                ours.sort();
                assert_eq!(&ours, blenders, "{} frame {frame}", scene.output_path);
                compared += 1;
            }
        }
        assert_eq!(compared, told.values().map(BTreeMap::len).sum::<usize>());
        assert!(compared >= 22 * 2 + 16 * 2, "{compared}");
    }
}

#[test]
fn what_is_asked_for_shows_in_names_and_older_files_have_plain_braces() {
    let scene = kiln_blend::inspect(&kiln_testkit::scene("basic")).unwrap().scenes.remove(0);
    let name = |path: &str, written_by: &str, blender: &str, settings: &RenderSettings| {
        let scene = kiln_blend::SceneInfo { output_path: path.to_owned(), ..scene.clone() };
        let (written_by, blender) = (written_by.parse().unwrap(), blender.parse().unwrap());
        let blend = Path::new("/work/basic.blend");
        let named = NamedFor { blend, written_by, blender, settings, format: FileFormat::Png };
        let naming = Naming::of(&scene, &named);
        let names: Vec<String> = naming.frame(7).iter().map(ToString::to_string).collect();
        assert_eq!(names.is_empty(), naming.fault(7).is_some(), "{path}");
        names.join(" ")
    };
    let none = RenderSettings::default();
    let asked = RenderSettings {
        resolution: Some(Resolution::Pixels { width: 40, height: 30 }),
        camera: Some("Other".to_owned()),
        ..RenderSettings::default()
    };
    let path = "//{resolution_x}x{resolution_y}-{camera_name}_";
    assert_eq!(name(path, "5.0", "5.0", &asked), "40x30-Other_0007.png");
    assert_eq!(name("//{scene_name}_", "4.4", "5.0", &none), "{scene_name}_0007.png");
    assert_eq!(name("//{scene_name}_", "4.5", "4.5", &none), "", "4.5 has no value for it");
    assert_eq!(name("//{scene_name}_", "4.5", "5.0", &none), "Scene_0007.png");
    assert_eq!(name("//{blend_dir}_", "5.0", "5.0", &none), "work/_0007.png");
    assert_eq!(name("{blend_dir}../../f_", "5.0", "5.0", &none), "f_0007.png", "nothing leads out");
}
