//! The files of a frame come home under the artist's names.

use kiln_host::{HostOptions, PlannedFile, RenderRequest};
use kiln_testkit::{all_blenders, assert_same_picture, blenders, picture, scene, temp_dir};
use kiln_types::{ColorDepth, FailureCause, FileFormat, OutputRole, Resolution, SessionSpec};

use crate::{Slot, debian, install, trusted, trusting};

fn paths(planned: &[PlannedFile]) -> Vec<&str> {
    let mut paths: Vec<_> = planned.iter().map(|file| file.path.as_str()).collect();
    paths.sort_unstable();
    paths
}

#[tokio::test]
async fn file_output_nodes_keep_their_folders() {
    for blender in blenders() {
        let mut slot = Slot::start(install(&blender), HostOptions::default()).await;
        let opened = slot.open("file_outputs").await;
        assert!(opened.notices.is_empty(), "{:?}", opened.notices);
        let (out, rendered) = slot.render(5).await.unwrap();
        assert_eq!(
            paths(&rendered.planned),
            [
                "frames/shot_0005.png",
                "passes/layers_0005.exr",
                "passes/sub/alpha_05_x.png",
                "passes/sub/beauty_0005.png"
            ]
        );
        for file in &rendered.planned {
            let found = picture(&out.join(file.scratch.to_path()));
            assert_eq!((found.width, found.height), (file.width, file.height), "{}", file.path);
        }
        let layers =
            rendered.planned.iter().find(|file| file.format == FileFormat::OpenExrMultilayer).unwrap();
        assert!(matches!(&layers.role, OutputRole::FileOutput { node, .. } if node == "Layers"));
        // Cold, in a copy: without -o the nodes write beside the file.
        let copy = temp_dir();
        let blend = copy.path().join("copy.blend");
        std::fs::copy(scene("file_outputs"), &blend).unwrap();
        blender.render_cold(&blend, 5, None, false);
        for file in &rendered.planned {
            assert_same_picture(&out.join(file.scratch.to_path()), &copy.path().join(file.path.to_path()));
        }
    }
}

/// That each file holds what is foretold, the worker sees (`tests/e2e/formats.rs`).
#[tokio::test]
async fn old_formats_are_foretold_with_their_bits() {
    use ColorDepth::{Eight, Sixteen, Ten, Twelve};
    let mut slot = Slot::start(debian(), HostOptions::default()).await;
    slot.open("old_formats").await;
    let (_, rendered) = slot.render(2).await.unwrap();
    let mut planned: Vec<_> =
        rendered.planned.iter().map(|file| (file.path.as_str(), file.format, file.depth)).collect();
    planned.sort_unstable();
    let expected = [
        ("frames/cinema_0002.jp2", FileFormat::Jp2, Twelve),
        ("frames/cineon_0002.cin", FileFormat::Cineon, Ten),
        ("frames/dpx_0002.dpx", FileFormat::Dpx, Sixteen),
        ("frames/iris_0002.rgb", FileFormat::Iris, Eight),
        ("frames/j2c_0002.j2c", FileFormat::J2c, Sixteen),
        ("frames/jp2_0002.jp2", FileFormat::Jp2, Twelve),
        ("frames/shot_0002.dpx", FileFormat::Dpx, Ten),
    ];
    assert_eq!(planned, expected);
    // Asked for by Kiln's names, which tell the two kinds of JPEG 2000 apart.
    for (format, ending) in [(FileFormat::Jp2, "jp2"), (FileFormat::J2c, "j2c"), (FileFormat::Iris, "rgb")] {
        let opened = slot.open_with("basic", |spec| spec.settings.format = Some(format)).await.unwrap();
        let file = &opened.plan.files[0];
        assert_eq!((file.path.as_str(), file.format), (&*format!("frames/shot_0001.{ending}"), format));
        slot.render(1).await.unwrap();
    }
}

/// Newer Blenders write what is no colour with all its bits, whatever the node asks for.
#[tokio::test]
async fn bits_of_data_are_foretold() {
    for blender in all_blenders() {
        let mut slot = Slot::start(install(&blender), HostOptions::default()).await;
        slot.open("data_outputs").await;
        let (out, rendered) = slot.render(1).await.unwrap();
        assert_eq!(rendered.planned.len(), 4);
        for file in &rendered.planned {
            let found = picture(&out.join(file.scratch.to_path()));
            let depth = serde_json::to_value(file.depth).unwrap();
            assert_eq!(depth, found.depth.to_string(), "{blender:?}: {}", file.path);
        }
    }
}

#[tokio::test]
async fn a_node_behind_a_scale_foretells_no_size() {
    for blender in blenders() {
        let mut slot = Slot::start(install(&blender), HostOptions::default()).await;
        slot.open("scaled_output").await;
        let (out, rendered) = slot.render(1).await.unwrap();
        let node = rendered.planned.iter().find(|file| file.path.as_str() == "small/half_0001.png").unwrap();
        assert_eq!((node.width, node.height), (0, 0));
        assert!(picture(&out.join(node.scratch.to_path())).width > 0);
    }
}

#[tokio::test]
async fn views_videos_layers_and_negative_frames() {
    for blender in blenders() {
        let mut slot = Slot::start(install(&blender), HostOptions::default()).await;

        slot.open("stereo").await;
        let (_, stereo) = slot.render(2).await.unwrap();
        assert_eq!(paths(&stereo.planned), ["frames/shot_0002_L.png", "frames/shot_0002_R.png"]);
        let left = OutputRole::Main { view: Some("left".to_owned()) };
        assert!(stereo.planned.iter().any(|file| file.role == left));

        slot.open("side_by_side").await;
        let (out, both) = slot.render(2).await.unwrap();
        assert_eq!(paths(&both.planned), ["frames/shot_0002.png"]);
        let found = picture(&out.join(both.planned[0].scratch.to_path()));
        assert_eq!((found.width, found.height), (128, 36));
        assert_eq!((both.planned[0].width, both.planned[0].height), (128, 36));

        let opened = slot.open("video").await;
        assert!(opened.notices.iter().any(|notice| notice.contains("video")), "{:?}", opened.notices);
        let (out, video) = slot.render(2).await.unwrap();
        assert_eq!(paths(&video.planned), ["video/shot_0002.png"]);
        assert_eq!(video.planned[0].depth, ColorDepth::Sixteen);
        assert_eq!(picture(&out.join(video.planned[0].scratch.to_path())).depth, 16);

        slot.open("multilayer").await;
        let (out, layers) = slot.render(2).await.unwrap();
        assert_eq!(layers.planned[0].format, FileFormat::OpenExrMultilayer);
        assert_eq!(picture(&out.join(layers.planned[0].scratch.to_path())).width, 64);

        slot.open("drivers").await;
        let (out, negative) = slot.render(-5).await.unwrap();
        assert_eq!(paths(&negative.planned), ["frames/shot_-0005.png"]);
        slot.render(5).await.unwrap();
        let copy = temp_dir();
        let name = negative.planned[0].scratch.to_path();
        std::fs::copy(out.join(&name), copy.path().join("first.png")).unwrap();
        let (again, _) = slot.render(-5).await.unwrap();
        assert_same_picture(&again.join(&name), &copy.path().join("first.png"));
        blender.render_cold(&scene("drivers"), -5, Some(&copy.path().join("c_")), false);
        assert_same_picture(&again.join(&name), &copy.path().join("c_-0005.png"));
    }
}

#[tokio::test]
async fn settings_override_the_file() {
    let mut slot = Slot::start(debian(), HostOptions::default()).await;
    let change = |spec: &mut SessionSpec| {
        spec.settings.resolution = Some(Resolution::Pixels { width: 40, height: 24 });
        spec.settings.format = Some(FileFormat::OpenExr);
        spec.settings.depth = Some(ColorDepth::ThirtyTwo);
        spec.settings.samples = Some(1);
        spec.settings.threads = Some(1);
        spec.settings.camera = Some("Camera".to_owned());
        spec.settings.engine = Some("CYCLES".to_owned());
    };
    slot.open_with("basic", change).await.unwrap();
    let (out, rendered) = slot.render(1).await.unwrap();
    let file = &rendered.planned[0];
    assert_eq!(file.path.as_str(), "frames/shot_0001.exr");
    let found = picture(&out.join(file.scratch.to_path()));
    assert_eq!((found.width, found.height, found.depth), (40, 24, 32));

    slot.open_with("basic", |spec| spec.settings.resolution = Some(Resolution::Percent(50))).await.unwrap();
    let (_, half) = slot.render(1).await.unwrap();
    assert_eq!((half.planned[0].width, half.planned[0].height), (32, 18));
}

#[tokio::test]
async fn a_path_outside_is_mapped_and_said() {
    let mut slot = Slot::start(debian(), HostOptions::default()).await;
    let below = |origin: &str| {
        let origin = origin.to_owned();
        move |spec: &mut SessionSpec| spec.origin = Some(origin)
    };
    let opened = slot.open_with("absolute", below("/elsewhere")).await.unwrap();
    assert_eq!(opened.plan.files[0].path.as_str(), "deep/abs_0001.png");
    assert!(opened.notices.is_empty(), "{:?}", opened.notices);
    for outside in ["/else", "/elsewhere/deeper"] {
        let opened = slot.open_with("absolute", below(outside)).await.unwrap();
        assert_eq!(opened.plan.files[0].path.as_str(), "abs_0001.png");
        assert!(opened.notices[0].contains("/elsewhere/deep/abs_"), "{:?}", opened.notices);
    }
}

#[tokio::test]
async fn a_frame_that_cannot_be_written() {
    let mut slot = Slot::start(debian(), HostOptions::default()).await;
    slot.open("basic").await;
    // A folder lies where the picture should; then a file where its folder should.
    let out = slot.root.fresh_out("taken").unwrap();
    std::fs::create_dir_all(out.join("main/shot_0001.png")).unwrap();
    let failure = slot.host.render(RenderRequest { frame: 1, out, time_limit: None }).await.unwrap_err();
    assert_eq!(failure.cause, FailureCause::CannotWrite, "{failure}");
    let out = slot.root.fresh_out("taken").unwrap();
    std::fs::write(out.join("main"), "").unwrap();
    let failure = slot.host.render(RenderRequest { frame: 1, out, time_limit: None }).await.unwrap_err();
    assert_eq!(failure.cause, FailureCause::CannotWrite, "{failure}");
    slot.render(1).await.unwrap();
}

#[tokio::test]
async fn a_script_that_moves_the_output_is_named() {
    let mut slot = Slot::start(debian(), trusting()).await;
    slot.open_with("moved_output", trusted).await.unwrap();
    let failure = slot.render(3).await.unwrap_err();
    assert_eq!(failure.cause, FailureCause::BadSetting, "{failure}");
    assert!(failure.message.contains("moved/shot_"), "{failure}");
}

/// `frame_path(view=...)` would tell others.
#[tokio::test]
async fn a_views_suffix_is_before_the_extension() {
    for blender in blenders() {
        let mut slot = Slot::start(install(&blender), HostOptions::default()).await;
        slot.open("dotted_stereo").await;
        let (_, rendered) = slot.render(3).await.unwrap();
        let names: Vec<_> = rendered.planned.iter().map(|file| file.path.to_string()).collect();
        assert_eq!(names, ["v1.2_0003_L.png", "v1.2_0003_R.png"]);
    }
}
