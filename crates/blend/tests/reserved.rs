//! The properties of a scene that are read before it renders: none of them can be set past the reader.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, fs, path::Path};

use kiln_blend::{Border, ChoiceError, ChoiceRequest, Inspection, SceneInfo, ViewInfo, choose};
use kiln_types::{DeviceChoice, Properties, RenderSettings, Simulations};
use serde_json::json;

fn file() -> Inspection {
    serde_json::from_value(json!({
        "written_by": "4.2.0", "compression": "none", "active_scene": "Shot", "external": [], "simulations": [],
        "cameras": ["Camera"],
        "scenes": [{
            "name": "Shot", "frame_start": 1, "frame_end": 10, "frame_step": 1, "fps": 24.0, "engine": "CYCLES",
            "device": "cpu", "width": 64, "height": 36, "percent": 100, "denoiser": "OPTIX", "camera": "Camera",
            "cameras": ["Camera"], "camera_markers": [], "view_layers": [{ "name": "ViewLayer", "renders": true }],
            "output_path": "//", "format_name": "PNG", "format": "png", "is_movie": false, "multiview": false,
            "views": [], "views_apart": false, "use_file_extension": true,
        }],
    }))
    .unwrap()
}

/// The denoiser that is chosen with these properties, or the refusal.
fn chosen(properties: &serde_json::Value) -> Result<Option<String>, String> {
    let properties: Properties = serde_json::from_value(properties.clone()).unwrap();
    let settings = RenderSettings { properties, ..RenderSettings::default() };
    let (device, simulations) = (DeviceChoice::Auto, Simulations::Bake);
    let asked =
        ChoiceRequest { settings: &settings, frames: None, step: None, blender: None, device, simulations };
    match choose(&file(), &asked) {
        Ok(chosen) => Ok(chosen.denoiser),
        Err(ChoiceError::Setting(why)) => Err(why),
        Err(error) => panic!("{error}"),
    }
}

const IN_THE_FILE: &str = "set it in Blender and save";

#[test]
fn each_field_of_a_scene_is_refused_with_its_option_or_taken_into_account() {
    let file = file();
    let SceneInfo {
        name: _,
        frame_start: _,
        frame_end: _,
        frame_step: _,
        fps: _,
        engine: _,
        device: _,
        width: _,
        height: _,
        percent: _,
        samples: _,
        denoiser: _,
        camera: _,
        cameras: _,
        camera_markers: _,
        view_layers: _,
        output_path: _,
        format_name: _,
        format: _,
        depth: _,
        is_movie: _,
        border: _,
        multiview: _,
        views: _,
        views_apart: _,
        use_file_extension: _,
        burns_in_path: _,
    } = &file.scenes[0];
    // A field that is new above needs a line here.
    let refused = [
        ("name", "--scene"),
        ("frame_start", "--frames"),
        ("frame_end", "--frames"),
        ("frame_step", "--step"),
        ("render.fps", IN_THE_FILE),
        ("render.fps_base", IN_THE_FILE),
        ("render.engine", "--engine"),
        ("cycles.device", "--device"),
        ("render.resolution_x", "--resolution"),
        ("render.resolution_y", "--resolution"),
        ("render.resolution_percentage", "--resolution"),
        ("cycles.samples", "--samples"),
        ("eevee.taa_render_samples", "--samples"),
        ("camera", "--camera"),
        ("objects", IN_THE_FILE),
        ("timeline_markers", "--camera"),
        ("view_layers", "--view-layer"),
        ("render.filepath", "--out"),
        ("render.image_settings.file_format", "--format"),
        ("render.image_settings.media_type", "--format"),
        ("render.image_settings.jpeg2k_codec", "--format"),
        ("render.image_settings.color_depth", "--depth"),
        ("render.image_settings.use_jpeg2k_cinema_preset", IN_THE_FILE),
        ("render.use_border", IN_THE_FILE),
        ("render.use_crop_to_border", IN_THE_FILE),
        ("render.border_min_x", IN_THE_FILE),
        ("render.border_max_x", IN_THE_FILE),
        ("render.border_min_y", IN_THE_FILE),
        ("render.border_max_y", IN_THE_FILE),
        ("render.use_multiview", IN_THE_FILE),
        ("render.views_format", IN_THE_FILE),
        ("render.views", IN_THE_FILE),
        ("render.stereo_views", IN_THE_FILE),
        ("render.image_settings.views_format", IN_THE_FILE),
        ("render.use_file_extension", IN_THE_FILE),
    ];
    for (path, words) in refused {
        let why = chosen(&json!({ path: 1 })).expect_err(path);
        assert!(why.contains(words) && why.contains(path), "{why}");
    }
    // The denoiser is what workers are chosen by. Stamps are looked at where frames are named (client/src/prepared.rs).
    let off = json!({ "cycles.use_denoising": false });
    let other = json!({ "cycles.denoiser": "OPENIMAGEDENOISE" });
    let own = json!({ "cycles.max_bounces": 4, "render.use_stamp": true, "render.use_stamp_filename": true });
    for (properties, denoiser) in [(off, None), (other, Some("OPENIMAGEDENOISE")), (own, Some("OPTIX"))] {
        assert_eq!(chosen(&properties), Ok(denoiser.map(str::to_owned)), "{properties}");
    }
    // These have parts, and their fields are covered by the lines above.
    let ViewInfo { name: _, suffix: _ } = ViewInfo { name: String::new(), suffix: String::new() };
    let Border { min_x: _, max_x: _, min_y: _, max_y: _, crop: _ } =
        Border { min_x: 0.0, max_x: 1.0, min_y: 0.0, max_y: 1.0, crop: false };
}

/// Fields of Blender's `Scene` that the reader names in its sources, and the properties that are stored in them.
const STORED: &[(&str, &[&str])] = &[
    ("r.border.xmax", &["render.border_max_x"]),
    ("r.border.xmin", &["render.border_min_x"]),
    ("r.border.ymax", &["render.border_max_y"]),
    ("r.border.ymin", &["render.border_min_y"]),
    ("r.efra", &["frame_end"]),
    ("r.engine", &["render.engine"]),
    ("r.frame_step", &["frame_step"]),
    ("r.frs_sec", &["render.fps"]),
    ("r.frs_sec_base", &["render.fps_base"]),
    ("r.im_format.depth", &["render.image_settings.color_depth"]),
    ("r.im_format.imtype", &["render.image_settings.file_format"]),
    ("r.im_format.jp2_codec", &["render.image_settings.jpeg2k_codec"]),
    ("r.im_format.jp2_flag", &["render.image_settings.use_jpeg2k_cinema_preset"]),
    ("r.im_format.views_format", &["render.image_settings.views_format"]),
    ("r.layers.first", &["view_layers"]),
    // Motion blur, the third of its bits that are read, only decides whether particles need a bake (decision 028).
    ("r.mode", &["render.use_border", "render.use_crop_to_border"]),
    ("r.pic", &["render.filepath"]),
    (
        "r.scemode",
        &[
            "render.use_sequencer",
            "render.use_compositing",
            "render.use_file_extension",
            "render.use_multiview",
            "render.use_single_layer",
        ],
    ),
    ("r.sfra", &["frame_start"]),
    ("r.size", &["render.resolution_percentage"]),
    // Taken into account (client/src/prepared.rs).
    ("r.stamp", &[]),
    ("r.views.first", &["render.views"]),
    ("r.views_format", &["render.views_format"]),
    ("r.xsch", &["render.resolution_x"]),
    ("r.ysch", &["render.resolution_y"]),
    ("eevee.taa_render_samples", &["eevee.taa_render_samples"]),
    ("view_layers.first", &["view_layers"]),
    ("markers.first", &["timeline_markers"]),
    ("camera", &["camera"]),
    ("set", &["background_set"]),
    ("nodetree", &["node_tree"]),
    ("use_nodes", &["use_nodes"]),
    ("compositing_node_group", &["compositing_node_group"]),
    ("rigidbody_world", &["rigidbody_world", "rigidbody_world.enabled"]),
    ("master_collection", &["collection"]),
];

#[test]
fn each_stored_setting_that_the_reader_names_is_refused() {
    let mut named = BTreeSet::new();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        named.extend(
            STORED
                .iter()
                .map(|(field, _)| *field)
                .filter(|field| text.contains(&format!("\"{field}\"")))
                .map(str::to_owned),
        );
        let settings = text.match_indices("\"r.").filter_map(|(at, _)| text[at + 1..].split('"').next());
        named.extend(settings.map(str::to_owned));
    }
    let listed: BTreeSet<String> = STORED.iter().map(|(field, _)| (*field).to_owned()).collect();
    assert_eq!(named, listed, "a field that the reader names, and one of the list that it does not");
    for path in STORED.iter().flat_map(|(_, paths)| *paths) {
        assert!(chosen(&json!({ *path: 1 })).is_err(), "{path}");
    }
}
