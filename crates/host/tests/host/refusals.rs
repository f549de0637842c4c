//! Each cause has its name, and each policy its way on.

use kiln_host::{Device, HostOptions};
use kiln_types::{
    ColorDepth, DeviceClass, ExternalFiles, FailureCause, FileFormat, ScriptPolicy, SessionSpec, Simulations,
};

use crate::{Slot, debian, trusted, trusting};

#[tokio::test]
async fn what_stops_before_the_first_frame() {
    let mut slot = Slot::start(debian(), HostOptions::default()).await;
    let cases: &[(&str, FailureCause, &[&str], fn(&mut SessionSpec))] = &[
        ("no_camera", FailureCause::NoCamera, &["--camera"], |_| {}),
        ("missing_texture", FailureCause::MissingFiles, &["wood.png", "--allow-missing"], |_| {}),
        ("missing_library", FailureCause::MissingFiles, &["tree.blend", "--allow-missing"], |_| {}),
        ("script", FailureCause::ScriptsBlocked, &["move.py", "--trust", "--no-scripts"], |_| {}),
        ("python_driver", FailureCause::ScriptsBlocked, &["--trust"], |_| {}),
        ("rigid_body", FailureCause::Unbaked, &["Cube", "--no-bake"], |_| {}),
        ("denoise", FailureCause::DenoiserMissing, &["OPENIMAGEDENOISE"], |_| {}),
        ("foreign_engine", FailureCause::EngineMissing, &["FOREIGN", "CYCLES"], |_| {}),
        ("dpx", FailureCause::BadSetting, &["DPX", "--format"], |_| {}),
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
    let cases: &[(&str, &str, fn(&mut SessionSpec))] = &[
        ("missing_texture", "wood.png", |s| s.policy.external_files = ExternalFiles::MayBeMissing),
        ("missing_library", "tree.blend", |s| s.policy.external_files = ExternalFiles::MayBeMissing),
        ("script", "move.py", |s| s.policy.scripts = ScriptPolicy::Block),
        ("rigid_body", "Cube", |s| s.policy.simulations = Simulations::AsTheyAre),
        ("dpx", "", |s| s.settings.format = Some(FileFormat::Png)),
    ];
    for (name, word, change) in cases {
        let opened = slot.open_with(name, change).await.unwrap();
        let said = word.is_empty() || opened.notices.iter().any(|notice| notice.contains(word));
        assert!(said, "{name}: {:?}", opened.notices);
        slot.render(2).await.unwrap();
    }
}

#[tokio::test]
async fn a_missing_frame_of_a_sequence_is_named() {
    let mut slot = Slot::start(debian(), HostOptions::default()).await;
    let copy = kiln_testkit::temp_dir();
    let from = kiln_testkit::scene("image_sequence");
    let blend = copy.path().join("shot.blend");
    std::fs::copy(&from, &blend).unwrap();
    std::fs::create_dir(copy.path().join("seq")).unwrap();
    for frame in [1, 2, 4] {
        let name = format!("seq/tile_{frame:03}.png");
        std::fs::copy(from.with_file_name(&name), copy.path().join(&name)).unwrap();
    }
    let session = crate::session(&slot.install, &blend);
    let request = kiln_host::OpenRequest { blend, session, remap: Vec::new(), persistent_data: true };
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
    let folder = kiln_testkit::temp_dir();
    let whole = std::fs::read(kiln_testkit::scene("basic")).unwrap();
    for (name, bytes) in
        [("empty.blend", &b""[..]), ("text.blend", b"not a scene"), ("cut.blend", &whole[..2000])]
    {
        let blend = folder.path().join(name);
        std::fs::write(&blend, bytes).unwrap();
        let session = crate::session(&slot.install, &blend);
        let request = kiln_host::OpenRequest { blend, session, remap: Vec::new(), persistent_data: true };
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
    for device in [DeviceClass::Optix, DeviceClass::Hip] {
        let failure = slot.open_with("basic", |spec| spec.device = device).await.unwrap_err();
        assert_eq!(failure.cause, FailureCause::DeviceMissing, "{failure}");
    }
}
