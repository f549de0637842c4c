//! The properties that `--set` refuses, because Kiln writes them or reads them before it renders.

use crate::PropertyPath;

/// The source of the value of a reserved property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Instead {
    Option(&'static str),
    /// The .blend: Kiln reads the property to plan the job.
    File,
    /// Kiln sets it for every render.
    Kiln,
}

/// The reserved properties. Each includes the properties below it.
const RESERVED: &[(Instead, &[&str])] = &[
    (Instead::Option("--scene"), &["name"]),
    (Instead::Option("--camera"), &["camera", "timeline_markers"]),
    (
        Instead::Option("--frames"),
        &[
            "frame_start",
            "frame_end",
            "frame_current",
            "frame_subframe",
            "frame_float",
            "frame_current_final",
        ],
    ),
    (Instead::Option("--step"), &["frame_step"]),
    (Instead::Option("--view-layer"), &["view_layers", "render.use_single_layer"]),
    (Instead::Option("--engine"), &["render.engine"]),
    (Instead::Option("--device"), &["cycles.device"]),
    (Instead::Option("--samples"), &["cycles.samples", "eevee.taa_render_samples"]),
    (
        Instead::Option("--resolution"),
        &["render.resolution_x", "render.resolution_y", "render.resolution_percentage"],
    ),
    (Instead::Option("--threads"), &["render.threads", "render.threads_mode"]),
    (Instead::Option("--out"), &["render.filepath"]),
    (Instead::Option("--existing"), &["render.use_overwrite", "render.use_placeholder"]),
    (
        Instead::Option("--format"),
        &[
            "render.image_settings.file_format",
            "render.image_settings.media_type",
            "render.image_settings.jpeg2k_codec",
        ],
    ),
    (Instead::Option("--depth"), &["render.image_settings.color_depth"]),
    (Instead::Kiln, &["render.use_persistent_data", "render.image_settings.use_preview"]),
    (
        Instead::File,
        &[
            "animation_data",
            "background_set",
            "collection",
            "compositing_node_group",
            "node_tree",
            "objects",
            "render.border_max_x",
            "render.border_max_y",
            "render.border_min_x",
            "render.border_min_y",
            "render.fps",
            "render.fps_base",
            "render.image_settings.use_jpeg2k_cinema_preset",
            "render.image_settings.views_format",
            "render.stereo_views",
            "render.use_border",
            "render.use_compositing",
            "render.use_crop_to_border",
            "render.use_file_extension",
            "render.use_multiview",
            "render.use_sequencer",
            "render.views",
            "render.views_format",
            "rigidbody_world",
            "sequence_editor",
            "use_nodes",
            "world",
        ],
    ),
];

/// Refuses a reserved property, and names the source of its value.
pub(crate) fn check(path: &PropertyPath) -> Result<(), String> {
    let covers = |reserved: &&str| {
        path.name().strip_prefix(*reserved).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let Some((instead, _)) = RESERVED.iter().find(|(_, paths)| paths.iter().any(&covers)) else {
        return Ok(());
    };
    Err(match instead {
        Instead::Option(option) => format!("the property {path} has an option of its own: use {option}"),
        Instead::File => {
            format!("the property {path} is read from the file before it renders; set it in Blender and save")
        }
        Instead::Kiln => format!("the property {path} is set by Kiln for every render"),
    })
}
