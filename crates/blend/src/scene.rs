//! The settings of a scene.

use foldhash::HashMap;

use kiln_types::{BlenderVersion, ColorDepth, FileFormat, FrameSet, FrameSetError};
use serde::{Deserialize, Serialize};

use crate::{
    collect::RawScene,
    dna::{Dna, View},
    fault::BlendFault,
    parts::Parts,
};

/// A scene as it is set up to render.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SceneInfo {
    pub name: String,
    pub frame_start: i32,
    pub frame_end: i32,
    pub frame_step: i32,
    /// Frames a second.
    pub fps: f64,
    /// Blender's name: `CYCLES`, `BLENDER_EEVEE`, `BLENDER_EEVEE_NEXT`, `BLENDER_WORKBENCH`, ...
    pub engine: String,
    /// The device of Cycles, whichever engine is chosen.
    pub device: SceneDevice,
    /// Pixels at 100 percent.
    pub width: u32,
    pub height: u32,
    pub percent: u32,
    /// Of Cycles or EEVEE; `None` for other engines.
    pub samples: Option<u32>,
    /// With what Cycles denoises the picture, by Blender's name (`OPENIMAGEDENOISE`, `OPTIX`); `None` where it does not,
    /// for other engines, and where the sequencer's picture takes the place of the scene's.
    pub denoiser: Option<String>,
    /// The object, whichever file it is from.
    pub camera: Option<String>,
    /// Camera objects of the scene that are in this file, by name.
    #[serde(default)]
    pub cameras: Vec<String>,
    /// Markers of the timeline that switch to another camera, by frame.
    pub camera_markers: Vec<CameraMarker>,
    pub view_layers: Vec<ViewLayerInfo>,
    /// As written in the file.
    pub output_path: String,
    /// Blender's name (`PNG`, `FFMPEG`), or a number where this Kiln does not know it.
    pub format_name: String,
    /// The same, where Kiln can check it.
    pub format: Option<FileFormat>,
    pub depth: Option<ColorDepth>,
    /// The scene writes a video, not frames.
    pub is_movie: bool,
    /// The part of the picture that is rendered.
    pub border: Option<Border>,
    pub multiview: bool,
    /// The views that are rendered, where there are several.
    pub views: Vec<ViewInfo>,
    /// Each view is written into a file of its own.
    pub views_apart: bool,
    /// Blender adds the format's extension to names, or puts it in place of another one.
    pub use_file_extension: bool,
    /// Blender burns the path of the .blend into the picture.
    #[serde(default)]
    pub burns_in_path: bool,
}

/// The device that an artist sets for Cycles. Which GPUs those are is a setting of each machine, not of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SceneDevice {
    Cpu,
    Gpu,
}

/// The reason why a scene has no frames of its own to render.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoFrames {
    /// Blender renders nothing then, and reports nothing. Its fields keep the end at or behind the start, so the range is
    /// a mistake of whatever wrote the file.
    #[error(
        "the scene “{scene}” ends at frame {last}, before it starts at frame {first}; set its frame range in \
         Blender, or name frames with --frames"
    )]
    EndsBeforeStart { scene: String, first: i32, last: i32 },
    #[error(
        "the scene “{scene}” has the frames {first} to {last}: {reason}; set its frame range in Blender, or name \
         frames with --frames"
    )]
    OutOfBounds { scene: String, first: i32, last: i32, reason: FrameSetError },
}

impl SceneInfo {
    /// Returns whether the scene has a camera of this name. It may look through any object, as may its markers.
    pub(crate) fn looks_through(&self, camera: &str) -> bool {
        let markers = self.camera_markers.iter().map(|marker| &marker.camera);
        self.cameras.iter().chain(&self.camera).chain(markers).any(|name| name == camera)
    }

    /// All frames of the scene, those that it renders unless others are asked for: by this step, or by the scene's own. A
    /// step below 1 counts as 1.
    ///
    /// # Errors
    /// The range of the scene ends before it starts, or leaves what Blender can render.
    pub fn frames(&self, step: Option<u32>) -> Result<FrameSet, NoFrames> {
        let (first, last) = (self.frame_start, self.frame_end);
        if last < first {
            return Err(NoFrames::EndsBeforeStart { scene: self.name.clone(), first, last });
        }
        let step = step.unwrap_or_else(|| self.frame_step.max(1).unsigned_abs());
        let bounded = FrameSet::range(first, last, step);
        bounded.map_err(|reason| NoFrames::OutOfBounds { scene: self.name.clone(), first, last, reason })
    }

    /// The scene, rendered by this engine or by its own, is set to render on GPUs.
    pub fn is_on_gpu(&self, engine: Option<&str>) -> bool {
        engine.unwrap_or(&self.engine) == "CYCLES" && self.device == SceneDevice::Gpu
    }
}

/// From its frame on, the scene renders through another camera.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CameraMarker {
    pub frame: i32,
    pub name: String,
    pub camera: String,
}

/// A view of a stereo or multi-view scene.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewInfo {
    pub name: String,
    /// The suffix of its file's name, before the extension.
    pub suffix: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewLayerInfo {
    pub name: String,
    pub renders: bool,
}

/// Fractions of the picture's size, from its lower left corner.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Border {
    pub min_x: f64,
    pub max_x: f64,
    pub min_y: f64,
    pub max_y: f64,
    /// The picture is as small as the border, rather than black around it.
    pub crop: bool,
}

/// Blender's number of a format, its name, and whether it is a video.
const FORMATS: &[(i64, &str, bool)] = &[
    (0, "TARGA", false),
    (1, "IRIS", false),
    (4, "JPEG", false),
    (14, "TARGA_RAW", false),
    (15, "AVI_RAW", true),
    (16, "AVI_JPEG", true),
    (17, "PNG", false),
    (20, "BMP", false),
    (21, "HDR", false),
    (22, "TIFF", false),
    (23, "OPEN_EXR", false),
    (24, "FFMPEG", true),
    (26, "CINEON", false),
    (27, "DPX", false),
    (28, "OPEN_EXR_MULTILAYER", false),
    (29, "DDS", false),
    (30, "JPEG2000", false),
    (31, "H264", true),
    (32, "XVID", true),
    (33, "THEORA", true),
    (34, "PSD", false),
    (35, "WEBP", false),
    (36, "AV1", true),
];

const WORKBENCH: &str = "BLENDER_WORKBENCH";

const MODE_BORDER: i64 = 1 << 9;
const MODE_CROP: i64 = 1 << 11;
const SCENE_MODE_EXTENSION: i64 = 1 << 4;
const SCENE_MODE_MULTIVIEW: i64 = 1 << 21;
/// Stamps are drawn, and the path of the file is one (R_STAMP_DRAW and R_STAMP_FILENAME of DNA_scene_types.h).
const STAMP_PATH: i64 = 1 << 6 | 1 << 8;
/// A whole number, or a switch, among what Cycles keeps with a scene or a view layer. A setting at its default is absent.
fn of_cycles(parts: &Parts<'_>, place: Option<u64>, name: &str) -> Option<i64> {
    const INT: i64 = 1;
    const BOOLEAN: i64 = 10;
    let cycles = parts.property(parts.get(place)?, "cycles")?;
    let setting = parts.property(cycles, name)?;
    matches!(setting.int("type"), Some(INT | BOOLEAN)).then(|| setting.int("data.val"))?
}

/// With what Cycles denoises the picture of the scene that keeps its settings at `place`.
fn denoiser(
    parts: &Parts<'_>,
    place: Option<u64>,
    layers: &[(ViewLayerInfo, Option<u64>)],
    version: BlenderVersion,
) -> Option<String> {
    const OPTIX: i64 = 2;
    let denoises = of_cycles(parts, place, "use_denoising").map_or(version.major >= 3, |value| value != 0);
    let layer_does = |(layer, place): &(ViewLayerInfo, Option<u64>)| {
        layer.renders && of_cycles(parts, *place, "use_denoising") != Some(0)
    };
    let name = match of_cycles(parts, place, "denoiser") {
        Some(OPTIX) => "OPTIX",
        _ => "OPENIMAGEDENOISE",
    };
    (denoises && layers.iter().any(layer_does)).then(|| name.to_owned())
}

/// The device on which Cycles renders the scene that keeps its settings at `place`.
fn device(parts: &Parts<'_>, place: Option<u64>) -> SceneDevice {
    const GPU: i64 = 1;
    if of_cycles(parts, place, "device") == Some(GPU) { SceneDevice::Gpu } else { SceneDevice::Cpu }
}

/// The views that are rendered; none where the picture is a single one.
fn views(parts: &Parts<'_>, scene: View<'_>) -> Vec<ViewInfo> {
    const DISABLED: i64 = 1;
    const STEREO: i64 = 0;
    let stereo = scene.int("r.views_format") == Some(STEREO);
    let view = |view: View<'_>| {
        let name = view.text("name").unwrap_or_default();
        let renders = view.int("viewflag").unwrap_or(0) & DISABLED == 0;
        let counts = !stereo || name == "left" || name == "right";
        (renders && counts).then(|| ViewInfo { name, suffix: view.text("suffix").unwrap_or_default() })
    };
    let views: Vec<ViewInfo> = parts.list(scene.pointer("r.views.first")).filter_map(view).collect();
    if views.len() > 1 { views } else { Vec::new() }
}

fn camera_markers(parts: &Parts<'_>, scene: View<'_>, names: &HashMap<u64, String>) -> Vec<CameraMarker> {
    let marker = |marker: View<'_>| {
        let frame = i32::try_from(marker.int("frame")?).ok()?;
        let camera = names.get(&marker.pointer("camera")?)?.clone();
        Some(CameraMarker { frame, name: marker.text("name").unwrap_or_default(), camera })
    };
    let mut found: Vec<CameraMarker> =
        parts.list(scene.pointer("markers.first")).filter_map(marker).collect();
    found.sort_by_key(|marker| marker.frame);
    found
}

/// The format, or the other one of JPEG 2000 where the scene is set to it.
fn jpeg_2000_codec(scene: View<'_>, format: FileFormat) -> FileFormat {
    const CODESTREAM: i64 = 1;
    let is_bare = scene.int("r.im_format.jp2_codec") == Some(CODESTREAM);
    if format == FileFormat::Jp2 && is_bare { FileFormat::J2c } else { format }
}

/// JPEG 2000 by the cinema preset has twelve bits, whatever the depth says.
fn cinema_depth(scene: View<'_>, format: Option<FileFormat>) -> Option<ColorDepth> {
    const CINEMA_PRESET: i64 = 1 << 1;
    let is_preset = scene.int("r.im_format.jp2_flag").is_some_and(|flag| flag & CINEMA_PRESET != 0);
    (is_preset && matches!(format, Some(FileFormat::Jp2 | FileFormat::J2c))).then_some(ColorDepth::Twelve)
}

fn depth(bits: i64) -> Option<ColorDepth> {
    match bits {
        2 => Some(ColorDepth::Eight),
        4 => Some(ColorDepth::Ten),
        8 => Some(ColorDepth::Twelve),
        16 => Some(ColorDepth::Sixteen),
        64 => Some(ColorDepth::ThirtyTwo),
        _ => None,
    }
}

/// The camera objects of the scene and its markers.
pub(crate) fn cameras(parts: &Parts<'_>, scene: View<'_>) -> Vec<u64> {
    let markers = parts.list(scene.pointer("markers.first")).filter_map(|marker| marker.pointer("camera"));
    markers.chain(scene.pointer("camera")).collect()
}

pub(crate) fn engine(scene: View<'_>) -> String {
    scene.text("r.engine").unwrap_or_else(|| "BLENDER_RENDER".to_owned())
}

/// The sequencer's picture replaces the one of the engine, which it does if the engine renders only scenes.
pub(crate) fn is_sequenced(engine: &str) -> bool {
    engine == WORKBENCH || shades_by_results(engine)
}

/// The engine reads only those nodes of a material that lead to its result. Workbench shows the picture that is chosen
/// among them.
pub(crate) fn shades_by_results(engine: &str) -> bool {
    ["CYCLES", "BLENDER_EEVEE", "BLENDER_EEVEE_NEXT"].contains(&engine)
}

/// `is_covered`: the picture of its sequencer is the scene's.
pub(crate) fn read(
    dna: &Dna,
    raw: &RawScene,
    names: &HashMap<u64, String>,
    version: BlenderVersion,
    is_covered: bool,
) -> Result<SceneInfo, BlendFault> {
    let scene = dna.view(raw.block.sdna, &raw.block.bytes);
    let parts = Parts::new(dna, &raw.parts);
    let name = scene.text("id.name").filter(|name| name.starts_with("SC"));
    let name = name.ok_or_else(|| BlendFault::dna("a scene has no name"))?[2..].to_owned();
    let int = |field: &'static str| {
        let value = scene.int(field).and_then(|value| i32::try_from(value).ok());
        value.ok_or_else(|| BlendFault::dna(format!("the scene {name} has no setting {field}")))
    };
    let engine = engine(scene);
    // From 5.0 the settings of add-ons have their own place.
    let (place, layer_place) = match version.major {
        5.. => ("id.system_properties", "system_properties"),
        _ => ("id.properties", "id_properties"),
    };
    let place = scene.pointer(place);
    let samples = match engine.as_str() {
        "CYCLES" => {
            let own = of_cycles(&parts, place, "samples").and_then(|samples| u32::try_from(samples).ok());
            Some(own.unwrap_or(if version.major >= 3 { 4096 } else { 128 }))
        }
        "BLENDER_EEVEE" | "BLENDER_EEVEE_NEXT" => {
            scene.int("eevee.taa_render_samples").and_then(|samples| u32::try_from(samples).ok())
        }
        _ => None,
    };
    let layers = scene.pointer("view_layers.first").or_else(|| scene.pointer("r.layers.first"));
    let layers: Vec<(ViewLayerInfo, Option<u64>)> = parts
        .list(layers)
        .map(|layer| {
            let renders = match layer.int("flag") {
                Some(flag) => flag & 1 != 0,
                // Before 2.80 a set bit disabled the layer.
                None => layer.int("layflag").is_none_or(|flag| flag & (1 << 17) == 0),
            };
            let name = layer.text("name").unwrap_or_default();
            (ViewLayerInfo { name, renders }, layer.pointer(layer_place))
        })
        .collect();
    // What only plays in the sequencer is not denoised.
    let renders = engine == "CYCLES" && (!is_covered || raw.shows_scenes);
    let denoiser = renders.then(|| denoiser(&parts, place, &layers, version)).flatten();
    let view_layers = layers.into_iter().map(|(layer, _)| layer).collect();
    let number = scene.int("r.im_format.imtype").unwrap_or(-1);
    let known = FORMATS.iter().find(|(n, ..)| *n == number);
    let format_name = known.map_or_else(|| number.to_string(), |(_, name, _)| (*name).to_owned());
    let format = FileFormat::from_blender_name(&format_name).map(|format| jpeg_2000_codec(scene, format));
    let depth = cinema_depth(scene, format)
        .or_else(|| scene.int("r.im_format.depth").and_then(depth))
        .filter(|depth| format.is_some_and(|format| format.depths().contains(depth)));
    let mode = scene.int("r.mode").unwrap_or(0);
    let edge = |field: &'static str| scene.float(field).filter(|edge| edge.is_finite()).unwrap_or(0.0);
    let border = (mode & MODE_BORDER != 0).then(|| Border {
        min_x: edge("r.border.xmin"),
        max_x: edge("r.border.xmax"),
        min_y: edge("r.border.ymin"),
        max_y: edge("r.border.ymax"),
        crop: mode & MODE_CROP != 0,
    });
    let rate = scene.float("r.frs_sec").unwrap_or(24.0);
    let base = scene.float("r.frs_sec_base").filter(|base| base.is_finite() && *base > 0.0).unwrap_or(1.0);
    let scene_mode = scene.int("r.scemode").unwrap_or(0);
    let multiview = scene_mode & SCENE_MODE_MULTIVIEW != 0;
    let unsigned = |field: &'static str| int(field).map(i32::unsigned_abs);
    Ok(SceneInfo {
        frame_start: int("r.sfra")?,
        frame_end: int("r.efra")?,
        frame_step: int("r.frame_step").unwrap_or(1).max(1),
        fps: rate / base,
        width: unsigned("r.xsch")?,
        height: unsigned("r.ysch")?,
        percent: unsigned("r.size")?,
        engine,
        samples,
        denoiser,
        device: device(&parts, place),
        camera: scene.pointer("camera").and_then(|camera| names.get(&camera).cloned()),
        cameras: Vec::new(),
        camera_markers: camera_markers(&parts, scene, names),
        view_layers,
        output_path: scene.text("r.pic").unwrap_or_default(),
        is_movie: known.is_some_and(|(_, _, movie)| *movie),
        format_name,
        format,
        depth,
        border,
        multiview,
        views: if multiview { views(&parts, scene) } else { Vec::new() },
        views_apart: scene.int("r.im_format.views_format").unwrap_or(0) == 0,
        use_file_extension: scene_mode & SCENE_MODE_EXTENSION != 0,
        burns_in_path: scene.int("r.stamp").is_some_and(|stamp| stamp & STAMP_PATH == STAMP_PATH),
        name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scene(frame_start: i32, frame_end: i32, frame_step: i32) -> SceneInfo {
        SceneInfo {
            name: "Shot".to_owned(),
            frame_start,
            frame_end,
            frame_step,
            fps: 24.0,
            engine: "CYCLES".to_owned(),
            device: SceneDevice::Cpu,
            width: 1920,
            height: 1080,
            percent: 100,
            samples: None,
            denoiser: None,
            camera: None,
            cameras: Vec::new(),
            camera_markers: Vec::new(),
            view_layers: Vec::new(),
            output_path: "//".to_owned(),
            format_name: "PNG".to_owned(),
            format: Some(FileFormat::Png),
            depth: None,
            is_movie: false,
            border: None,
            multiview: false,
            views: Vec::new(),
            views_apart: false,
            use_file_extension: true,
            burns_in_path: false,
        }
    }

    #[test]
    fn frames_are_those_of_the_range_by_the_step() {
        // Start, end and step of the scene, the step that is asked for, and the frames.
        let cases = [
            ((1, 250, 1), None, "1-250"),
            ((1, 250, 100), None, "1-201x100"),
            ((1, 10, 2), None, "1-9x2"),
            ((1, 10, 2), Some(1), "1-10"),
            ((1, 10, 2), Some(0), "1-10"),
            ((1, 10, 2), Some(5), "1-6x5"),
            ((1, 10, 1), Some(u32::MAX), "1"),
            ((7, 7, 1), None, "7"),
            ((7, 7, 3), Some(2), "7"),
            ((-3, 3, 3), None, "-3-3x3"),
            // No Blender sets such a step; the frames are rendered all the same.
            ((1, 3, 0), None, "1-3"),
            ((1, 3, -2), None, "1-3"),
        ];
        for ((first, last, own), step, want) in cases {
            let frames = scene(first, last, own).frames(step).unwrap();
            assert_eq!(
                frames,
                want.parse::<FrameSet>().unwrap(),
                "{first} to {last} by {own}, asked for {step:?}: {frames}"
            );
        }
    }

    #[test]
    fn a_range_that_cannot_be_rendered_is_refused_by_its_numbers() {
        for (first, last) in [(250, 1), (2, 1), (1, -1)] {
            for step in [None, Some(1), Some(5)] {
                let error = scene(first, last, 1).frames(step).unwrap_err();
                let scene = "Shot".to_owned();
                assert_eq!(error, NoFrames::EndsBeforeStart { scene, first, last });
            }
        }
        let text = scene(250, 1, 1).frames(None).unwrap_err().to_string();
        assert!(text.contains("ends at frame 1, before it starts at frame 250"), "{text}");
        assert!(text.contains("--frames"), "{text}");
        let error = scene(1, 2_000_000, 1).frames(None).unwrap_err();
        assert!(matches!(error, NoFrames::OutOfBounds { first: 1, last: 2_000_000, .. }), "{error}");
        assert!(error.to_string().contains("2000000 is outside"), "{error}");
    }
}
