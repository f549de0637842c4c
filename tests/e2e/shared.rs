//! Assets that several jobs use: left on a shared folder, or sent and kept once.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use kiln_testkit::{Blender, assert_same_picture, blender, wait_until};

use crate::support::{Home, Running};

const LIMIT: Duration = Duration::from_secs(120);
/// A large texture that packs badly, and two scenes that show it, by its absolute path.
const SCENES: &str = r#"
import bpy, os, random, sys
folder = sys.argv[-1]
texture = os.path.join(folder, "assets", "maps", "noise.png")
os.makedirs(os.path.dirname(texture))
os.makedirs(os.path.join(folder, "shots"))
noise = random.Random(7)
image = bpy.data.images.new("noise", 512, 512)
image.pixels = [noise.random() for _ in range(512 * 512 * 4)]
image.filepath_raw, image.file_format = texture, "PNG"
image.save()
for name in ("one", "two"):
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.render.engine, scene.cycles.samples, scene.cycles.use_denoising = "CYCLES", 1, False
    scene.render.resolution_x, scene.render.resolution_y = 64, 64
    scene.render.filepath = "//frames/"
    bpy.ops.object.camera_add(location=(0, 0, 5))
    scene.camera = bpy.context.object
    bpy.ops.mesh.primitive_plane_add(size=3 if name == "one" else 2)
    material = bpy.data.materials.new("m")
    material.use_nodes = True
    nodes, links = material.node_tree.nodes, material.node_tree.links
    nodes.clear()
    out, glow, tex = (nodes.new("ShaderNode" + n) for n in ("OutputMaterial", "Emission", "TexImage"))
    tex.image = bpy.data.images.load(texture)
    links.new(tex.outputs[0], glow.inputs[0])
    links.new(glow.outputs[0], out.inputs[0])
    bpy.context.object.data.materials.append(material)
    bpy.ops.wm.save_as_mainfile(filepath=os.path.join(folder, "shots", name + ".blend"), relative_remap=False)
"#;

struct Studio {
    home: Home,
    /// Bytes of the texture.
    texture: u64,
}

impl Studio {
    fn new() -> Self {
        let home = Home::new();
        let script = home.work().join("scenes.py");
        fs::write(&script, SCENES).unwrap();
        let mut make = Command::new(blender());
        make.args(["--background", "--factory-startup", "--python"]).arg(&script).arg("--").arg(home.work());
        let made = make.output().unwrap();
        let texture = fs::metadata(home.work().join("assets/maps/noise.png"));
        let texture = texture.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&made.stderr))).len();
        assert!(texture > 500_000, "{texture}");
        Self { home, texture }
    }

    fn shot(&self, name: &str) -> PathBuf {
        self.home.work().join(format!("shots/{name}.blend"))
    }

    /// The picture at home, while everything is where it belongs.
    fn at_home(&self, name: &str) -> PathBuf {
        let out = self.home.work().join(format!("home-{name}-"));
        Blender::Executable(blender()).render_cold(&self.shot(name), 1, Some(&out), false);
        self.home.work().join(format!("home-{name}-0001.png"))
    }

    fn fetched(&self, job: &str) -> PathBuf {
        let out = self.home.work().join(format!("out-{job}"));
        let said = self.home.run(&["jobs", "fetch", job, "--out", out.to_str().unwrap()]);
        assert_eq!(said.code, 0, "{}", said.err);
        out.join("frames/0001.png")
    }

    fn worker(&self, home: &Home, url: &str, more: &[&str]) -> Running {
        let key = self.home.data().join("farm.key");
        let mut args = vec!["worker", "--server", url, "--slots", "1", "--key-file", key.to_str().unwrap()];
        args.extend(more);
        let child = home.kiln(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Running { child, url: String::new() }
    }
}

/// Regular files below a folder.
fn files(folder: &Path) -> Vec<(PathBuf, fs::Metadata)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => folders.push(entry.path()),
                Ok(meta) if meta.is_file() => found.push((entry.path(), meta)),
                _ => {}
            }
        }
    }
    found
}

fn stored(home: &Home) -> u64 {
    let folders = ["packs", "blobs"].map(|name| home.data().join(name));
    folders.iter().flat_map(|folder| files(folder)).map(|(_, meta)| meta.len()).sum()
}

#[test]
fn a_shared_folder_stays_where_it_is() {
    let studio = Studio::new();
    let expected = studio.at_home("one");
    let (assets, mount) = (studio.home.work().join("assets"), studio.home.work().join("mount"));
    let copied = Command::new("cp").args(["-rp"]).arg(&assets).arg(&mount).status().unwrap();
    assert!(copied.success());
    let server = studio.home.server(&[]);
    let shared = format!("assets={}", assets.display());
    let submit = |name| {
        let shot = studio.shot(name);
        studio.home.submit(&[shot.to_str().unwrap(), "--frames", "1", "--shared", &shared])
    };
    let job = submit("one");
    assert!(stored(&studio.home) < studio.texture, "the texture was sent");
    // Nothing lies any more where the scene says.
    let away = studio.home.work().join("away");
    fs::rename(&assets, &away).unwrap();
    let other = Home::new();
    let mounted = format!("assets={}", mount.display());
    let _worker = studio.worker(&other, &server.url, &["--shared", &mounted]);
    studio.home.completed(&job);
    assert_same_picture(&studio.fetched(&job), &expected);

    // A worker whose file is another one says so, and renders nothing.
    fs::rename(&away, &assets).unwrap();
    fs::write(mount.join("maps/noise.png"), b"something else").unwrap();
    let job = submit("two");
    wait_until(LIMIT, "the job fails", || {
        let state = studio.home.show(&job)["state"].take();
        assert_ne!(state, "completed");
        state == "failed"
    });
    let said = studio.home.run(&["jobs", "show", &job]);
    assert!(said.out.contains("maps/noise.png"), "{}", said.out);
}

#[test]
fn what_two_jobs_share_is_sent_kept_and_brought_once() {
    let studio = Studio::new();
    let expected = ["one", "two"].map(|name| studio.at_home(name));
    let server = studio.home.server(&[]);
    let other = Home::new();
    let _worker = studio.worker(&other, &server.url, &[]);
    // The cache's own copy; a bundle that is laid out has another while it is in use.
    let cached = || -> Vec<u64> {
        let all = files(&other.data()).into_iter();
        let here = all.filter(|(path, _)| !path.components().any(|part| part.as_os_str() == "bundles"));
        here.filter(|(_, meta)| meta.len() == studio.texture).map(|(_, meta)| meta.ino()).collect()
    };
    let mut seen = Vec::new();
    for (name, expected) in ["one", "two"].into_iter().zip(&expected) {
        let before = stored(&studio.home);
        let job = studio.home.submit(&[studio.shot(name).to_str().unwrap(), "--frames", "1"]);
        let new = stored(&studio.home) - before;
        assert_eq!(name == "one", new > studio.texture, "{name}: {new} bytes are new");
        studio.home.completed(&job);
        assert_same_picture(&studio.fetched(&job), expected);
        seen.push(cached());
    }
    assert_eq!(seen[0].len(), 1);
    assert_eq!(seen[0], seen[1], "the worker has the file that it had");
}
