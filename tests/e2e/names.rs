//! Names that few choose and every disk takes: with a line end, no Unicode, as long as a name can be, as deep as Blender
//! opens. What has such a name works like anything else.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use kiln_testkit::{Blender, assert_same_picture, blender, bpy_python, skip, temp_dir};
use serde_json::Value;

use crate::{
    netns::Lan,
    support::{Home, Said, said},
};

const LIMIT: Duration = Duration::from_secs(120);

/// Makes `shot.blend` in a folder: planes that glow in the colours of pictures, whose names and places are unusual, one
/// of them in a library. `PATHS` are the pictures, as hexadecimal digits, each relative to the folder or absolute.
const SCRIPT: &str = r##"
import bpy, os, shutil, struct, sys, tempfile, zlib
folder, *paths = (os.fsdecode(bytes.fromhex(text)) for text in sys.argv[sys.argv.index("--") + 1:])

def png(path, color):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    head = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" + bytes(color))) + chunk(b"IEND", b""))

def plane(scene, at, of, path):
    mesh = bpy.data.meshes.new("Plane")
    mesh.from_pydata([(at / of, 0, 0), ((at + 1) / of, 0, 0), ((at + 1) / of, 1, 0), (at / of, 1, 0)], [], [(0, 1, 2, 3)])
    thing = bpy.data.objects.new("Plane", mesh)
    material = bpy.data.materials.new("Glow")
    material.use_nodes = True
    tree = material.node_tree
    tree.nodes.clear()
    image, glow, end = (tree.nodes.new("ShaderNode" + kind) for kind in ("TexImage", "Emission", "OutputMaterial"))
    image.image = bpy.data.images.new("Picture", 1, 1)
    image.image.source = "FILE"
    image.image.filepath = path
    tree.links.new(image.outputs[0], glow.inputs[0])
    tree.links.new(glow.outputs[0], end.inputs[0])
    mesh.materials.append(material)
    scene.collection.objects.link(thing)
    return thing

bpy.ops.wm.read_factory_settings(use_empty=True)
of = len(paths) + 1
colors = [(250 - 30 * n, 40 + 25 * n, 90) for n in range(of)]
library = os.path.join(folder, os.fsdecode(b"li\nb\xe9"), os.fsdecode(b"l\nib.blend"))
png(os.path.join(os.path.dirname(library), os.fsdecode(b"of\xe9lib.png")), colors[-1])
plane(bpy.context.scene, len(paths), of, "//" + os.fsdecode(b"of\xe9lib.png")).name = "Linked"
# Python can only link what has a name of Unicode.
plain = os.path.join(tempfile.mkdtemp(), "lib.blend")
bpy.ops.wm.save_as_mainfile(filepath=plain, relative_remap=False)
bpy.ops.wm.read_factory_settings(use_empty=True)
scene = bpy.context.scene
with bpy.data.libraries.load(plain, link=True, relative=False) as (there, here):
    here.objects = ["Linked"]
scene.collection.objects.link(here.objects[0])
shutil.move(plain, library)
bpy.data.libraries[0].filepath = "//" + os.path.relpath(library, folder)
for number, path in enumerate(paths):
    png(os.path.join(folder, path), colors[number])
    plane(scene, number, of, path if path.startswith("/") else "//" + path)
scene.camera = bpy.data.objects.new("Eye", bpy.data.cameras.new("Eye"))
scene.camera.data.type, scene.camera.data.ortho_scale = "ORTHO", 1
scene.camera.location = (0.5, 0.5, 2)
scene.collection.objects.link(scene.camera)
scene.render.engine, scene.cycles.samples, scene.cycles.use_denoising = "CYCLES", 1, False
scene.render.resolution_x, scene.render.resolution_y = 8 * of, 8
scene.render.filepath = "//frames/f_"
bpy.ops.wm.save_as_mainfile(filepath=os.path.join(folder, "shot.blend"), relative_remap=False)
print("made")
os._exit(0)
"##;

fn hex(path: &[u8]) -> String {
    path.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A project with a file of every kind of name, in this folder and one beside it.
fn build(folder: &Path) -> PathBuf {
    let long = [b"l".repeat(251), b".png".to_vec()].concat();
    let beside = [folder.as_os_str().as_bytes(), b"-beside/a\nb/w\xe9.png"].concat();
    let paths: [&[u8]; 5] = [b"w\xe9.png", b"a\nb.png", b"t\nx\xe8/wood\x1b[31m.png", &long, &beside];
    fs::create_dir_all(folder).unwrap();
    let script = temp_dir();
    let script = script.path().join("script.py");
    fs::write(&script, SCRIPT).unwrap();
    let mut command = Command::new(blender());
    command.args(["--background", "--factory-startup", "-noaudio", "--python"]).arg(&script).arg("--");
    command.arg(hex(folder.as_os_str().as_bytes())).args(paths.map(hex));
    let said = said(command.output().unwrap());
    let blend = folder.join("shot.blend");
    assert!(blend.is_file(), "{}{}", said.out, said.err);
    blend
}

fn name(bytes: &[u8]) -> OsString {
    OsString::from_vec(bytes.to_vec())
}

/// No control character but the end of a line.
#[track_caller]
fn assert_plain(said: &Said) {
    for text in [&said.out, &said.err] {
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    }
}

#[test]
fn files_of_unusual_names_render_as_at_home() {
    let home = Home::new();
    let work = home.work().join(OsStr::from_bytes(b"fi\nlm \xe9 \x1b[31m"));
    let plain = build(&work.join("project"));
    let folder = plain.parent().unwrap();
    let cold = home.work().join("cold_");
    Blender::Executable(blender()).render_cold(&plain, 1, Some(&cold), false);
    let cold = home.work().join("cold_0001.png");
    let long = [b"s".repeat(249), b".blend".to_vec()].concat();
    let mut first = true;
    for own in [&b"sh\not\x1b[31m.blend"[..], b"sh\xe9t.blend", &long, b"what?: \"a\".blend"] {
        let blend = name(own);
        fs::rename(&plain, folder.join(&blend)).unwrap();
        let run = |args: &[&str], more: &[&str]| -> Said {
            let mut command = home.kiln(args);
            let said = said(command.arg(&blend).args(more).current_dir(folder).output().unwrap());
            assert_eq!(said.code, 0, "{blend:?} {args:?}: {}", said.err);
            assert_plain(&said);
            said
        };
        run(&["render", "--local"], &["--frames", "1"]);
        assert_same_picture(&folder.join("frames/f_0001.png"), &cold);
        let again = run(&["render", "--local"], &["--frames", "1"]);
        assert!(again.out.contains("Nothing is left to render"), "{}", again.out);
        if std::mem::take(&mut first) {
            run(&["inspect"], &[]);
            run(&["bundle"], &["--out", "bundled"]);
            let bundled = home.work().join("bundled_");
            Blender::Executable(blender()).render_cold(
                &the_blend(&folder.join("bundled")),
                1,
                Some(&bundled),
                false,
            );
            assert_same_picture(&home.work().join("bundled_0001.png"), &cold);
        }
        fs::remove_dir_all(folder.join("frames")).unwrap();
        fs::rename(folder.join(&blend), &plain).unwrap();
    }
}

/// The .blend of a bundle, by the file that tells of it.
fn the_blend(bundle: &Path) -> PathBuf {
    let told: Value = serde_json::from_slice(&fs::read(bundle.join("kiln-bundle.json")).unwrap()).unwrap();
    bundle.join(told["blend"].as_str().unwrap())
}

#[test]
fn files_of_unusual_names_render_where_nobody_has_them() {
    let Some(lan) = Lan::new(1) else { return };
    let work = lan.client.work().join(OsStr::from_bytes(b"fi\nlm \xe9"));
    let plain = build(&work.join("project"));
    let folder = plain.parent().unwrap();
    let blend = folder.join(name(b"sh\not\xe9.blend"));
    fs::rename(&plain, &blend).unwrap();
    let cold = lan.client.work().join("cold_");
    Blender::Executable(blender()).render_cold(&blend, 1, Some(&cold), false);
    let home = Home::new();
    let _worker = lan.worker(1, &home, &["--slots", "1"], Some(&work));
    let said = lan.run_with(&["submit", "--json", "--frames", "1"], Some(&blend));
    assert_eq!(said.code, 0, "{}", said.err);
    let submitted = said.json();
    let job = submitted["job"]["id"].to_string();
    lan.wait(&job, LIMIT);
    let said = lan.run(&["jobs", "fetch", &job]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert_same_picture(&folder.join("frames/f_0001.png"), &lan.client.work().join("cold_0001.png"));
}

/// Saves a scene of Blender 5.0 whose frames are called by templates, and one with a path that Blender does not write to.
const TEMPLATES: &str = r#"
import bpy, os, sys
scene = bpy.context.scene
scene.name = "Scene 1"
scene.render.engine, scene.cycles.samples = "CYCLES", 1
scene.render.resolution_x = scene.render.resolution_y = 8
scene.render.filepath = "{blend_dir}out/{scene_name}/{blend_name}-{camera_name}-{resolution_x}_"
tree = scene.compositing_node_group = bpy.data.node_groups.new("Compositor", "CompositorNodeTree")
tree.interface.new_socket("Image", in_out="OUTPUT", socket_type="NodeSocketColor")
layers, result, node = (
    tree.nodes.new(kind) for kind in ("CompositorNodeRLayers", "NodeGroupOutput", "CompositorNodeOutputFile")
)
node.name, node.directory, node.file_name = "Passes", "//out/{node_name}", "{blend_name}_"
node.format.media_type, node.format.file_format = "IMAGE", "PNG"
node.file_output_items.new("RGBA", "image_")
tree.links.new(layers.outputs["Image"], result.inputs[0])
tree.links.new(layers.outputs["Image"], node.inputs[0])
bpy.ops.wm.save_as_mainfile(filepath=os.path.abspath("shot.v1.blend"))
scene.render.filepath = "//{scene}_"
bpy.ops.wm.save_as_mainfile(filepath=os.path.abspath("wrong.blend"))
os._exit(0)
"#;

#[test]
fn path_templates_lead_to_where_blender_writes() {
    let Some(python) = bpy_python() else {
        return skip("KILN_TEST_BPY names no Python with bpy 5.0");
    };
    let home = Home::new();
    let mut command = Command::new(&python);
    let made = said(command.args(["-I", "-c", TEMPLATES]).current_dir(home.work()).output().unwrap());
    assert_eq!(made.code, 0, "{}{}", made.out, made.err);
    let cold = temp_dir();
    let copy = cold.path().join("shot.v1.blend");
    fs::copy(home.work().join("shot.v1.blend"), &copy).unwrap();
    Blender::Module(python.clone()).render_cold(&copy, 1, None, false);
    let render = |file: &str| {
        home.run(&[
            "render",
            file,
            "--local",
            "--frames",
            "1",
            "--json",
            "--blender",
            python.to_str().unwrap(),
        ])
    };
    assert_eq!(render("shot.v1.blend").code, 0);
    for name in ["out/Scene 1/shot.v1-Camera-8_0001.png", "out/Passes/shot.v1_image_0001.png"] {
        assert_same_picture(&home.work().join(name), &cold.path().join(name));
    }
    let again = render("shot.v1.blend").json();
    assert_eq!(again["kept"], 1, "{again}");
    // A frame that Kiln does not know is found before anything renders.
    fs::remove_dir_all(home.work().join(".kiln")).unwrap();
    let foreign = render("shot.v1.blend");
    assert!(foreign.err.contains("out/Scene 1/shot.v1-Camera-8_0001.png"), "{}", foreign.err);
    let wrong = render("wrong.blend");
    assert_eq!(wrong.code, 2, "{}", wrong.err);
    assert!(wrong.err.contains("Blender cannot write to the output path “//{scene}_”"), "{}", wrong.err);
}

/// The folder above a file whose path has `bytes` bytes.
fn deep(above: &Path, name: &str, bytes: usize) -> PathBuf {
    let mut folder = above.to_owned();
    loop {
        let left = bytes - folder.as_os_str().len() - name.len() - 1;
        match left {
            0 => break,
            1..=200 => folder.push("d".repeat(left - 1)),
            _ => folder.push("d".repeat(if left == 202 { 199 } else { 200 })),
        }
    }
    fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn as_deep_as_blender_opens_and_no_deeper() {
    let home = Home::new();
    let render = |blend: &Path| {
        let mut command = home.kiln(&["render", "--local", "--frames", "1"]);
        said(command.args(["--samples", "1", "--resolution", "10%"]).arg(blend).output().unwrap())
    };
    let basic = kiln_testkit::scene("basic");
    let folder = deep(&home.work(), "shot.blend", 1023);
    fs::copy(&basic, folder.join("shot.blend")).unwrap();
    let done = render(&folder.join("shot.blend"));
    assert_eq!(done.code, 0, "{}", done.err);
    // Deeper than Blender itself could write it.
    assert!(folder.join("frames/shot_0001.png").is_file());
    let folder = deep(&home.work(), "shots.blend", 1024);
    fs::copy(&basic, folder.join("shots.blend")).unwrap();
    render(&folder.join("shots.blend"))
        .refused(2, &["has 1024 bytes", "none with more than 1023", "shorten the names"]);
}
