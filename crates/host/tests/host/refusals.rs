//! Each cause has its name, and each policy its way on.

use kiln_host::{BlenderInstall, Device, HostOptions, OpenRequest};
use kiln_testkit::{Blender, blenders, bpy_python, picture, scene, skip, temp_dir};
use kiln_types::{
    ColorDepth, DeviceClass, ExternalFiles, FailureCause, FileFormat, Resolution, ScriptPolicy, SessionSpec,
    Simulations,
};

use crate::{Slot, debian, install, session, trusted, trusting};

type Change = fn(&mut SessionSpec);
/// The scene, the cause, words of the message, and what is asked for.
type Stopped<'a> = (&'a str, FailureCause, &'a [&'a str], Change);

#[tokio::test]
async fn what_stops_before_the_first_frame() {
    for blender in blenders() {
        stops(install(&blender)).await;
    }
}

async fn stops(install: BlenderInstall) {
    let mut slot = Slot::start(install, HostOptions::default()).await;
    let has_denoiser = !slot.host.capabilities().denoisers.is_empty();
    let cases: &[Stopped] = &[
        ("no_camera", FailureCause::NoCamera, &["--camera"], |_| {}),
        ("missing_texture", FailureCause::MissingFiles, &["wood.png", "--allow-missing"], |_| {}),
        ("missing_library", FailureCause::MissingFiles, &["tree.blend", "--allow-missing"], |_| {}),
        ("script", FailureCause::ScriptsBlocked, &["move.py", "--trust", "--no-scripts"], |_| {}),
        ("python_driver", FailureCause::ScriptsBlocked, &["--trust"], |_| {}),
        ("rigid_body", FailureCause::Unbaked, &["Cube", "--no-bake"], |_| {}),
        ("denoise", FailureCause::DenoiserMissing, &["OPENIMAGEDENOISE"], |_| {}),
        ("foreign_engine", FailureCause::EngineMissing, &["FOREIGN", "CYCLES"], |_| {}),
        ("basic", FailureCause::BadSetting, &["jp2", "10-bit", "8 or 12 or 16"], |s| {
            s.settings.format = Some(FileFormat::Jp2);
            s.settings.depth = Some(ColorDepth::Ten);
        }),
        // Blender would render them, and then fail to write.
        ("basic", FailureCause::BadSetting, &["JPEG 2000", "64x10", "32 on each side"], |s| {
            s.settings.format = Some(FileFormat::J2c);
            s.settings.resolution = Some(Resolution::Pixels { width: 64, height: 10 });
        }),
        ("gray", FailureCause::BadSetting, &["a cineon of one channel", "RGB"], |s| {
            s.settings.format = Some(FileFormat::Cineon);
        }),
        ("basic", FailureCause::EngineMissing, &["NOTHING"], |s| s.settings.engine = Some("NOTHING".into())),
        ("basic", FailureCause::BadSetting, &["Nobody", "Camera"], |s| {
            s.settings.camera = Some("Nobody".into());
        }),
        ("basic", FailureCause::BadSetting, &["Elsewhere"], |s| s.settings.scene = Some("Elsewhere".into())),
        ("basic", FailureCause::BadSetting, &["Top"], |s| s.settings.view_layer = Some("Top".into())),
        ("basic", FailureCause::DeviceMissing, &["CUDA", "CPU"], |s| s.device = DeviceClass::Cuda),
        ("basic", FailureCause::BadSetting, &["jpeg", "16"], |s| {
            s.settings.format = Some(FileFormat::Jpeg);
            s.settings.depth = Some(ColorDepth::Sixteen);
        }),
    ];
    for (name, cause, words, change) in cases {
        if *name == "denoise" && has_denoiser {
            continue;
        }
        let failure = slot.open_with(name, change).await.expect_err(name);
        assert_eq!(failure.cause, *cause, "{name}: {failure}");
        for word in *words {
            assert!(failure.message.contains(word), "{name}: “{word}” is not in: {failure}");
        }
        assert!(slot.host.is_alive(), "{name}");
    }
    // The process is none the worse for it.
    slot.open("basic").await;
    slot.render(1).await.unwrap();
}

#[tokio::test]
async fn what_a_policy_lets_pass_stays_visible() {
    let mut slot = Slot::start(debian(), HostOptions::default()).await;
    let cases: &[(&str, &str, Change)] = &[
        ("missing_texture", "wood.png", |s| s.policy.external_files = ExternalFiles::MayBeMissing),
        ("missing_library", "tree.blend", |s| s.policy.external_files = ExternalFiles::MayBeMissing),
        ("script", "move.py", |s| s.policy.scripts = ScriptPolicy::Block),
        ("rigid_body", "Cube", |s| s.policy.simulations = Simulations::AsTheyAre),
    ];
    for (name, word, change) in cases {
        let opened = slot.open_with(name, change).await.unwrap();
        let said = opened.notices.iter().any(|notice| notice.contains(word));
        assert!(said, "{name}: {:?}", opened.notices);
        slot.render(2).await.unwrap();
    }
}

#[tokio::test]
async fn a_missing_frame_of_a_sequence_is_named() {
    let mut slot = Slot::start(debian(), HostOptions::default()).await;
    let copy = temp_dir();
    let from = scene("image_sequence");
    let blend = copy.path().join("shot.blend");
    std::fs::copy(&from, &blend).unwrap();
    std::fs::create_dir(copy.path().join("seq")).unwrap();
    for frame in [1, 2, 4] {
        let name = format!("seq/tile_{frame:03}.png");
        std::fs::copy(from.with_file_name(&name), copy.path().join(&name)).unwrap();
    }
    let session = session(&slot.install, &blend);
    let request = OpenRequest::new(blend, session);
    slot.host.open(&request).await.unwrap();
    slot.render(2).await.unwrap();
    let failure = slot.render(3).await.unwrap_err();
    assert_eq!(failure.cause, FailureCause::MissingFiles);
    assert!(failure.message.contains("tile_003.png"), "{failure}");
    slot.render(4).await.unwrap();
}

#[tokio::test]
async fn a_python_error_in_a_handler_fails_its_frame() {
    let mut slot = Slot::start(debian(), trusting()).await;
    slot.open_with("script_error", trusted).await.unwrap();
    slot.render(2).await.unwrap();
    let failure = slot.render(3).await.unwrap_err();
    assert_eq!(failure.cause, FailureCause::PythonError);
    assert!(failure.message.contains("no_such_thing") && failure.message.contains("broken"), "{failure}");
    slot.render(4).await.unwrap();
}

#[tokio::test]
async fn files_that_are_no_blend() {
    let mut slot = Slot::start(debian(), HostOptions::default()).await;
    let folder = temp_dir();
    let whole = std::fs::read(scene("basic")).unwrap();
    for (name, bytes) in
        [("empty.blend", &b""[..]), ("text.blend", b"not a scene"), ("cut.blend", &whole[..2000])]
    {
        let blend = folder.path().join(name);
        std::fs::write(&blend, bytes).unwrap();
        let session = session(&slot.install, &blend);
        let request = OpenRequest::new(blend, session);
        let failure = slot.host.open(&request).await.unwrap_err();
        assert_eq!(failure.cause, FailureCause::CannotOpen, "{failure}");
        assert!(failure.message.contains(name), "{failure}");
    }
}

#[tokio::test]
async fn a_gpu_that_is_only_said_to_be_there_is_no_cpu_render() {
    let made_up = vec![Device { backend: DeviceClass::Optix, name: "Made up".to_owned() }];
    let options = HostOptions { devices_override: Some(made_up), ..HostOptions::default() };
    let mut slot = Slot::start(debian(), options).await;
    assert!(slot.host.capabilities().has(DeviceClass::Optix));
    for device in [DeviceClass::Optix, DeviceClass::Hip, DeviceClass::Gpu] {
        let failure = slot.open_with("basic", |spec| spec.device = device).await.unwrap_err();
        assert_eq!(failure.cause, FailureCause::DeviceMissing, "{failure}");
    }
}

#[tokio::test]
async fn a_file_that_lies_elsewhere_in_the_bundle() {
    for blender in blenders() {
        let mut slot = Slot::start(install(&blender), HostOptions::default()).await;
        let blend = scene("missing_texture");
        let session = session(&slot.install, &blend);
        let tile = scene("image_sequence").with_file_name("seq/tile_008.png");
        let remap = vec![("//wood.png".to_owned(), tile)];
        let request = OpenRequest {
            blend,
            session,
            remap,
            unused: Vec::new(),
            addons: Vec::new(),
            persistent_data: true,
        };
        let opened = slot.host.open(&request).await.unwrap();
        assert!(opened.notices.is_empty(), "{:?}", opened.notices);
        let (out, rendered) = slot.render(1).await.unwrap();
        assert_eq!(picture(&out.join(rendered.planned[0].scratch.to_path())).width, 64);
    }
}

/// A simulation zone: found while it has no bake, whether the bake is packed or lies beside the file.
#[tokio::test]
async fn simulation_nodes_without_a_bake() {
    let Some(python) = bpy_python() else {
        skip("simulation nodes need Blender 4 or newer (KILN_TEST_BPY)");
        return;
    };
    let folder = temp_dir();
    let made = std::process::Command::new(&python)
        .args(["-I", "-c", SIMULATION])
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut slot = Slot::start(install(&Blender::Module(python)), HostOptions::default()).await;
    for (name, baked) in [("none", false), ("packed", true), ("disk", true)] {
        let blend = folder.path().join(format!("{name}.blend"));
        let session = session(&slot.install, &blend);
        let request = OpenRequest::new(blend, session);
        let opened = slot.host.open(&request).await;
        if baked {
            opened.unwrap_or_else(|failure| panic!("{name}: {failure}"));
        } else {
            let failure = opened.unwrap_err();
            assert_eq!(failure.cause, FailureCause::Unbaked, "{name}: {failure}");
            assert!(failure.message.contains("Cube"), "{failure}");
        }
    }
}

const SIMULATION: &str = r#"
import bpy, os, sys
folder = sys.argv[1]
scene = bpy.context.scene
scene.render.engine = "CYCLES"
scene.frame_end = 3
cube = bpy.data.objects["Cube"]
tree = bpy.data.node_groups.new("Sim", "GeometryNodeTree")
for way in ("INPUT", "OUTPUT"):
    tree.interface.new_socket("Geometry", in_out=way, socket_type="NodeSocketGeometry")
new = tree.nodes.new
start, end = new("NodeGroupInput"), new("NodeGroupOutput")
first, last = new("GeometryNodeSimulationInput"), new("GeometryNodeSimulationOutput")
first.pair_with_output(last)
move = new("GeometryNodeTransform")
move.inputs["Translation"].default_value = (0, 0, 0.1)
for a, b in ((start.outputs[0], first.inputs[0]), (first.outputs[1], move.inputs[0]),
             (move.outputs[0], last.inputs[1]), (last.outputs[0], end.inputs[0])):
    tree.links.new(a, b)
modifier = cube.modifiers.new("Sim", "NODES")
modifier.node_group = tree
def save(name):
    bpy.ops.wm.save_as_mainfile(filepath=os.path.join(folder, name + ".blend"))
save("none")
modifier.bake_target = "PACKED"
bpy.ops.object.simulation_nodes_cache_bake(selected=False)
save("packed")
bpy.ops.object.simulation_nodes_cache_delete(selected=False)
modifier.bake_target = "DISK"
modifier.bake_directory = "//bake"
bpy.ops.object.simulation_nodes_cache_bake(selected=False)
save("disk")
os._exit(0)
"#;
