//! Properties that a person sets by their path.

use std::{collections::BTreeSet, fs, path::Path};

use kiln_host::{HostOptions, OpenRequest, OpenedFile};
use kiln_testkit::{Blender, assert_same_picture, blenders, picture, scene, temp_dir};
use kiln_types::{BlenderVersion, Failure, FailureCause, FileFormat, Properties};
use serde_json::{Value, json};

use crate::{Slot, install, session};

fn properties(json: &Value) -> Properties {
    serde_json::from_value(json.clone()).unwrap()
}

fn copies(blender: &Blender) -> std::path::PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/host/properties.py");
    blender.build(&script, &[&scene("basic")], "done")
}

async fn open(slot: &mut Slot, blend: &Path, set: &Value) -> Result<OpenedFile, Failure> {
    let mut session = session(&slot.install, blend);
    session.settings.properties = properties(set);
    slot.host.open(&OpenRequest::new(blend.to_owned(), session)).await
}

#[tokio::test]
async fn a_frame_is_that_of_a_file_which_is_saved_with_the_values() {
    for blender in blenders() {
        let (copies, folder) = (copies(&blender), temp_dir());
        let mut slot = Slot::start(install(&blender), HostOptions::default()).await;
        let set = json!({
            "cycles.film_exposure": 0.5, "cycles.seed": 7, "cycles.pixel_filter_type": "BOX",
            "render.film_transparent": true, "view_settings.exposure": 1.25, "gravity": [0, 0.1, -3],
        });
        let plain = copies.join("plain.blend");
        // Frames go back in time: the file is opened again on the way, and the values are set again.
        let mut pictures = Vec::new();
        for set in [&json!({}), &set] {
            open(&mut slot, &plain, set).await.unwrap();
            for frame in [3, 2] {
                let (out, rendered) = slot.render(frame).await.unwrap();
                let kept = folder.path().join(format!("{}.png", pictures.len()));
                fs::copy(out.join(rendered.planned[0].scratch.to_path()), &kept).unwrap();
                pictures.push(kept);
            }
        }
        blender.render_cold(&copies.join("set.blend"), 2, Some(&folder.path().join("cold_")), false);
        assert_same_picture(&pictures[3], &folder.path().join("cold_0002.png"));
        assert!(picture(&pictures[1]) != picture(&pictures[3]), "{blender:?}: the values show");
    }
}

#[tokio::test]
async fn what_blender_does_not_take_stops_before_the_first_frame() {
    for blender in blenders() {
        let copies = copies(&blender);
        let (plain, animated) = (copies.join("plain.blend"), copies.join("animated.blend"));
        let install = install(&blender);
        let mut slot = Slot::start(install.clone(), HostOptions::default()).await;
        let cases: &[(Value, &[&str])] = &[
            (
                json!({"cycles.max_bouncs": 4}),
                &["is no property of the scene in Blender", "cycles.max_bounces"],
            ),
            (json!({"render.max_bounces": 4}), &["close to it: cycles.max_bounces"]),
            (json!({"cycle.max_bounces": 4}), &["cycles.max_bounces"]),
            (json!({"rna_type": 4}), &["is no single value"]),
            (json!({"render.rna_type.name": "x"}), &["is no part of the scene"]),
            (json!({"__class__": 4}), &["is no property"]),
            (json!({"render.__init__.x": 4}), &["is no property"]),
            (json!({"cycles.max_bounces": 0.5}), &["takes a whole number, not 0.5"]),
            (json!({"cycles.max_bounces": true}), &["takes a whole number, not true"]),
            (json!({"cycles.max_bounces": "4"}), &["takes a whole number, not “4”"]),
            (json!({"cycles.max_bounces": [4]}), &["is a single value, not a list"]),
            (json!({"cycles.max_bounces": 2000}), &["takes 0 to 1024, not 2000"]),
            (json!({"cycles.max_bounces": -1}), &["takes 0 to 1024, not -1"]),
            (json!({"cycles.max_bounces[0]": 1}), &["has no index"]),
            (json!({"view_settings.exposure": 40.5}), &["takes -32 to 32, not 40.5"]),
            (json!({"render.film_transparent": 1}), &["takes true or false, not 1"]),
            (json!({"render.film_transparent": "True"}), &["takes true or false, not “True”"]),
            (json!({"cycles.pixel_filter_type": "BOXES"}), &["takes one of BOX, GAUSSIAN, BLACKMAN_HARRIS"]),
            (json!({"cycles.pixel_filter_type": true}), &["takes one of BOX, GAUSSIAN, BLACKMAN_HARRIS"]),
            (json!({"view_settings.view_transform": "Nothing"}), &["takes one of", "Standard", "Filmic"]),
            (json!({"render.stamp_note_text": 5}), &["takes a text, not 5", "quote"]),
            (json!({"render.stamp_note_text": "x".repeat(800)}), &["767 bytes at most"]),
            (json!({"gravity": [0, 1]}), &["takes a list of 3 values"]),
            (json!({"gravity": 1}), &["takes a list of 3 values"]),
            (json!({"gravity": [0, 1, "x"]}), &["takes a number, not “x”"]),
            (json!({"gravity[3]": 1}), &["has the indexes 0 to 2"]),
            (json!({"users": 1}), &["cannot be changed"]),
            (json!({"render": 1}), &["is no single value"]),
            (json!({"cycles.dicing_camera": "Camera"}), &["is no single value"]),
            (json!({"cycles.dicing_camera.hide_render": true}), &["is no part of the scene"]),
            (json!({"render.bake.filepath": "/tmp/x"}), &["names a file"]),
        ];
        for (set, words) in cases {
            refused(&mut slot, &plain, set, words).await;
        }
        let curves: &[&str] = &["is animated"];
        for set in [
            json!({"render.film_transparent": true}),
            json!({"cycles.max_bounces": 4}),
            json!({"gravity[0]": 1}),
        ] {
            refused(&mut slot, &animated, &set, curves).await;
        }
        // Other properties of the same scene can be set.
        open(&mut slot, &animated, &json!({"cycles.seed": 4})).await.unwrap();
        slot.render(1).await.unwrap();
    }
}

async fn refused(slot: &mut Slot, blend: &Path, set: &Value, words: &[&str]) {
    let failure = open(slot, blend, set).await.expect_err(&set.to_string());
    assert_eq!(failure.cause, FailureCause::BadSetting, "{set}: {failure}");
    assert!(failure.cause.stops_job() && slot.host.is_alive());
    let path = set.as_object().unwrap().keys().next().unwrap();
    for word in words.iter().copied().chain([path.as_str(), "--set"]) {
        assert!(failure.message.contains(word), "{set}: “{word}” is not in: {failure}");
    }
}

#[tokio::test]
async fn each_version_has_its_own_names_and_one_value_may_need_another() {
    for blender in blenders() {
        let plain = copies(&blender).join("plain.blend");
        let install = install(&blender);
        let is_from = |version: &str| install.version >= version.parse::<BlenderVersion>().unwrap();
        let mut slot = Slot::start(install.clone(), HostOptions::default()).await;
        let (new, old) = (json!({"eevee.use_raytracing": true}), json!({"eevee.use_ssr": true}));
        if is_from("4.2.0") {
            open(&mut slot, &plain, &new).await.unwrap();
            // The look sorts before the transform that has it.
            let look =
                json!({"view_settings.look": "High Contrast", "view_settings.view_transform": "Filmic"});
            open(&mut slot, &plain, &look).await.unwrap();
            slot.render(1).await.unwrap();
            let lacks = json!({"view_settings.look": "High Contrast", "view_settings.view_transform": "AgX"});
            refused(&mut slot, &plain, &lacks, &["view_settings.look takes one of None", "AgX - Punchy"])
                .await;
        } else {
            open(&mut slot, &plain, &old).await.unwrap();
            refused(&mut slot, &plain, &new, &["is no property of the scene in Blender 3."]).await;
        }
        if is_from("5.0.0") {
            refused(&mut slot, &plain, &old, &["is no property of the scene in Blender 5."]).await;
        }
        // A number is the name of an item, and a format that is asked for decides on its own settings.
        let mut session = session(&install, &plain);
        session.settings.format = Some(FileFormat::OpenExr);
        session.settings.properties = properties(
            &json!({"eevee.gi_cubemap_resolution": 512, "render.image_settings.exr_codec": "PIZ"}),
        );
        slot.host.open(&OpenRequest::new(plain.clone(), session)).await.unwrap();
        slot.render(1).await.unwrap();
    }
}

/// Attributes that the host's Python assigns, and that belong to no scene.
const ELSEWHERE: &[&str] = &[
    // Of Python, of Kiln's own objects, of preferences and of the window.
    "abspath",
    "compute_device_type",
    "excepthook",
    "handlers",
    "label",
    "persistent_data",
    "pycache_prefix",
    "renders",
    "save_version",
    "scene",
    "use_negative_frames",
    // Of view layers, which are refused as a whole, and of devices.
    "use",
    // Of modifiers, nodes, caches and strips.
    "bake_target",
    "base_path",
    "cache_directory",
    "cache_type",
    "directory",
    "file_name",
    "filename",
    "use_custom_path",
    "use_disk_cache",
];
/// Calls of `setattr`: of libraries, nodes, caches, strips and objects.
const SETATTRS: usize = 7;

#[test]
fn each_property_that_the_host_writes_is_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../blender/kiln_host");
    let (mut written, mut setattrs) = (BTreeSet::new(), 0);
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let is_source = entry.path().extension().is_some_and(|ending| ending == "py");
        // That one sets what it is given.
        if is_source && entry.file_name() != "properties.py" {
            let text = fs::read_to_string(entry.path()).unwrap();
            written.extend(text.lines().flat_map(assigned));
            setattrs += text.matches("setattr(").count();
        }
    }
    assert_eq!(setattrs, SETATTRS, "a call that is new must write no property of the scene");
    for name in ["resolution_x", "threads", "use_persistent_data", "file_format", "frame_start", "device"] {
        assert!(written.contains(name), "the search finds {name} in {written:?}");
    }
    for name in ELSEWHERE {
        assert!(written.contains(*name), "{name} is no longer written");
    }
    let is_refused = |name: &str| {
        let groups = ["", "render.", "render.image_settings.", "cycles.", "eevee."];
        groups.iter().any(|group| properties(&json!({ format!("{group}{name}"): 1 })).check().is_err())
    };
    let open: Vec<_> =
        written.iter().filter(|name| !ELSEWHERE.contains(&name.as_str()) && !is_refused(name)).collect();
    assert!(open.is_empty(), "{open:?}: reserve them (types/src/reserved.rs), or name them in ELSEWHERE");
}

/// The last names of what a line of Python assigns to, but for the fields of `self`.
fn assigned(line: &str) -> Vec<String> {
    let mut parts: Vec<&str> = line.split(" = ").collect();
    parts.pop();
    let targets = parts.into_iter().flat_map(|part| part.split(','));
    let targets = targets.filter_map(|target| target.trim().rsplit_once('.'));
    let is_name = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    targets
        .filter(|(owner, name)| *owner != "self" && is_name(name))
        .map(|(_, name)| name.to_owned())
        .collect()
}
