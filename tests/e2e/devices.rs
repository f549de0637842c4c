//! Scenes that are set to GPU: without one on this machine, and on a farm whose workers have made-up ones.

use std::process::Command;

use kiln_host::Device;
use kiln_testkit::{blender, scene};
use kiln_types::DeviceClass;
use kiln_worker::{RunningWorker, WorkerOptions};
use serde_json::Value;

use crate::{farm::pictures, support::Home};

/// A scene like any other, set to GPU.
fn gpu_scene(home: &Home) -> String {
    let path = home.work().join("gpu.blend");
    let script = format!(
        "import bpy; s = bpy.context.scene; s.render.engine = 'CYCLES'; s.cycles.device = 'GPU'; \
         s.cycles.samples = 1; s.render.resolution_x, s.render.resolution_y = 32, 24; \
         bpy.ops.wm.save_as_mainfile(filepath={:?}, relative_remap=False)",
        path.to_str().unwrap()
    );
    let made = Command::new(blender())
        .args(["--background", "--factory-startup"])
        .arg(scene("basic"))
        .args(["--python-expr", &script])
        .output()
        .unwrap();
    assert!(path.exists(), "{}", String::from_utf8_lossy(&made.stderr));
    path.to_str().unwrap().to_owned()
}

/// The device of the frames' key is the one that the job has in the end.
fn spec(view: &Value) -> (&str, bool) {
    let spec = &view["spec"];
    (spec["session"]["device"].as_str().unwrap(), spec["any_gpu"] == true)
}

/// A worker whose Blender is said to have these, the first of which is no better than the second.
async fn worker(home: &Home, url: &str, name: &str, backends: &[DeviceClass]) -> RunningWorker {
    let key = std::fs::read_to_string(home.data().join("farm.key")).unwrap();
    let mut options = WorkerOptions::new(url, key.trim(), home.work().join(name));
    let device = |backend: &DeviceClass| Device { backend: *backend, name: "Made up".to_owned() };
    options.devices = Some(backends.iter().map(device).collect());
    options.name = Some(name.parse().unwrap());
    options.slots = Some(1);
    RunningWorker::start(options).await.unwrap()
}

#[test]
fn without_a_gpu_here_it_says_so_and_goes_on_with_what_it_began() {
    let home = Home::new();
    let blend = gpu_scene(&home);
    let shown = home.run(&["inspect", &blend]).out;
    assert!(shown.contains("set to GPU"), "{shown}");
    let render = |more: &[&str]| home.run(&[&["render", "--local", "--out", "out", &blend], more].concat());
    let said = render(&["--frames", "1-2"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.err.contains("the scene is set to GPU, and Blender"), "{}", said.err);
    assert!(said.err.contains("it renders on the CPU"), "{}", said.err);
    assert_eq!(pictures(&home.work().join("out")).len(), 2);

    let said = render(&["--frames", "1-3"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.err.contains("it continues on cpu, which made the frames that are there"), "{}", said.err);
    assert!(said.err.contains("2 frames of this scene and these settings are there already"), "{}", said.err);
    // Who asks for the processor by its name finds the same frames.
    let said = render(&["--frames", "1-3", "--device", "cpu"]);
    assert!(said.out.contains("Nothing is left to render"), "{} {}", said.out, said.err);

    render(&["--frames", "9", "--device", "gpu"]).refused(2, &["no GPU that it can use", "--device"]);
    render(&["--frames", "9", "--gpus", "all"]).refused(2, &["--device gpu"]);
    assert!(home.run(&["config"]).out.contains("device"));
}

/// Workbench draws without Cycles and its devices: so frames of a made-up GPU are real frames.
#[test]
fn on_a_farm_it_waits_for_a_gpu_and_then_stays_with_its_backend() {
    let home = Home::new();
    let blend = gpu_scene(&home);
    let server = home.server(&["--worker"]);
    home.connected(1);
    let waits = home.json(&["submit", "--json", &blend, "--frames", "1"]);
    assert_eq!(spec(&waits["job"]), ("gpu", true));
    let id = waits["job"]["id"].to_string();
    let explained = home.run(&["jobs", "explain", &id]).out;
    assert!(explained.contains("has a GPU for Blender"), "{explained}");
    assert!(explained.contains("--device cpu"), "{explained}");
    assert!(home.run(&["jobs", "show", &id]).out.contains("any GPU"));
    assert_eq!(home.run(&["jobs", "cancel", &id]).code, 0);

    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let both = [DeviceClass::Cuda, DeviceClass::Optix];
    let worker = runtime.block_on(worker(&home, &server.url, "gpus", &both));
    home.connected(2);
    assert!(home.run(&["workers", "show", "gpus"]).out.contains("optix Made up"));
    let submit = ["submit", "--wait", "--json", "--out", "farm", &blend, "--device", "gpu"];
    let engine = ["--engine", "BLENDER_WORKBENCH", "--frames"];
    let done = home.json(&[&submit[..], &engine, &["1-2"]].concat());
    assert_eq!(spec(&done["job"]), ("optix", true));
    assert_eq!((done["landed"].as_u64(), done["kept"].as_u64()), (Some(2), Some(0)));

    // The same command continues with the backend that made the frames, and the scene's name says nothing of it.
    let more = home.json(&[&submit[..], &engine, &["1-3"]].concat());
    assert_eq!(spec(&more["job"]), ("optix", false));
    assert_eq!((more["landed"].as_u64(), more["kept"].as_u64()), (Some(1), Some(2)));
    assert_eq!(pictures(&home.work().join("farm")).len(), 3);
    runtime.block_on(worker.stop_hard());
}
