//! What a person asks for, held against what the file has.

use std::path::{Path, PathBuf};

use kiln_blend::{BlendError, Inspection, LinkedSimulation, Missing, NoFrames, SceneInfo, SharedRoot};
use kiln_types::{BlenderSeries, DeviceChoice, FileFormat, FrameSet, FrameSetError, Policy, RenderSettings};

use crate::{ClientError, Extras, ExtrasError, HashCache};

/// What a person asks for.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The scene's own range where `None`.
    pub frames: Option<FrameSet>,
    /// Every which of the frames; the scene's own step where neither this nor `frames` is there.
    pub step: Option<u32>,
    /// The series that wrote the file where `None`.
    pub blender: Option<BlenderSeries>,
    /// What is asked for, and `auto` unless told otherwise.
    pub device: DeviceChoice,
    pub settings: RenderSettings,
    pub policy: Policy,
    /// Folders that the workers reach too: what lies below them is not sent.
    pub shared: Vec<SharedRoot>,
    /// Whether workers compare such files by their hash instead of their time.
    pub hash_shared: bool,
    /// What goes along because the person names it.
    pub extras: Extras,
    pub transfer: Transfer,
    pub hashes: HashCache,
}

/// How the files go to the server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Transfer {
    /// In chunks, of which only those are sent that the server lacks.
    #[default]
    Chunks,
    /// As whole files, to a server on this very disk: splitting would only take time.
    Whole,
}

/// Why a request is no job.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    #[error(transparent)]
    Blend(#[from] BlendError),
    #[error("{} holds no scene to render; name a .blend that has one", .0.display())]
    NoScene(PathBuf),
    #[error("there is no {what} “{name}” in the file; it has {}", listed(.there))]
    NoSuch { what: &'static str, name: String, there: Vec<String> },
    #[error("{0}")]
    Setting(String),
    #[error(
        "the scene writes {format}, which Kiln cannot check; choose another with --format, such as --format png"
    )]
    Format { format: String },
    #[error(
        "the file was saved by Blender {written_by}, which Blender {asked} cannot read as it is meant; leave \
         --blender-version out, or name a newer one"
    )]
    TooOld { asked: BlenderSeries, written_by: BlenderSeries },
    #[error(
        "{} lies too deep: its path has {} bytes, and Blender opens none of more than {}; move it, or shorten the names \
         of its folders",
        .0.display(),
        .0.as_os_str().len(),
        kiln_blend::LONGEST_PATH
    )]
    TooDeep(PathBuf),
    #[error(transparent)]
    Frames(#[from] FrameSetError),
    #[error(transparent)]
    NoFrames(#[from] NoFrames),
    #[error(
        "{} missing: {}; bring {them} back, or render without {them} with --allow-missing",
        if .0.len() == 1 { "a file that the scene needs is".to_owned() }
            else { format!("{} files that the scene needs are", .0.len()) },
        first(.0),
        them = if .0.len() == 1 { "it" } else { "them" }
    )]
    Missing(Vec<Missing>),
    #[error(
        "not baked: {}; what a library holds can only be baked there: open {}, bake and save, or render it standing \
         still with --no-bake",
        listed(&.0.iter().map(ToString::to_string).collect::<Vec<_>>()),
        libraries(.0)
    )]
    Unbaked(Vec<LinkedSimulation>),
    #[error(
        "the bake is not whole: {}; put the missing files back, or bake again in Blender and save, or go on all the same \
         with --no-bake",
        listed(.0)
    )]
    Incomplete(Vec<String>),
    #[error(
        "the colour configuration names tables that are not there ({}); bring them back, or render without them with \
         --allow-missing",
        listed(.0)
    )]
    Tables(Vec<String>),
    #[error("add-ons run Python of their own on the workers; say with --trust that this may be")]
    Untrusted,
    #[error(transparent)]
    Extras(#[from] ExtrasError),
    #[error(
        "{} keeps changing while it is read; wait until whatever writes it has ended, then run the command again",
        .0.display()
    )]
    Changing(PathBuf),
    #[error("{0} came apart while it was read ({1}); run the command again")]
    Broken(String, String),
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl PrepareError {
    /// Missing files that the sentence names.
    pub const NAMED: usize = 3;
}

fn listed(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        names => {
            let shown: Vec<&str> = names.iter().take(8).map(String::as_str).collect();
            format!("{}{}", shown.join(", "), if names.len() > 8 { ", …" } else { "" })
        }
    }
}

/// Each once.
fn libraries(linked: &[LinkedSimulation]) -> String {
    let mut paths: Vec<String> = linked.iter().map(|one| one.library.display().to_string()).collect();
    paths.dedup();
    listed(&paths)
}

fn first(missing: &[Missing]) -> String {
    let shown: Vec<String> = missing.iter().take(PrepareError::NAMED).map(ToString::to_string).collect();
    format!("{}{}", shown.join(", "), if missing.len() > PrepareError::NAMED { ", …" } else { "" })
}

pub(crate) fn choose_scene(
    blend: &Path,
    inspection: &Inspection,
    settings: &RenderSettings,
) -> Result<SceneInfo, PrepareError> {
    let scene = match &settings.scene {
        Some(name) => inspection.scenes.iter().find(|scene| scene.name == *name).ok_or_else(|| {
            let there = inspection.scenes.iter().map(|scene| scene.name.clone()).collect();
            PrepareError::NoSuch { what: "scene", name: name.clone(), there }
        })?,
        None => inspection.active().ok_or_else(|| PrepareError::NoScene(blend.to_owned()))?,
    };
    if let Some(name) = &settings.view_layer
        && !scene.view_layers.iter().any(|layer| layer.name == *name)
    {
        let there = scene.view_layers.iter().map(|layer| layer.name.clone()).collect();
        return Err(PrepareError::NoSuch { what: "view layer", name: name.clone(), there });
    }
    // A camera may also come from a library, whose names are not read here.
    let linked = inspection.external.iter().any(|file| file.kind == kiln_blend::ExternalKind::Library);
    if let Some(name) = &settings.camera
        && !linked
        && !inspection.cameras.contains(name)
    {
        let there = inspection.cameras.clone();
        return Err(PrepareError::NoSuch { what: "camera", name: name.clone(), there });
    }
    Ok(scene.clone())
}

/// A film is rendered as frames, PNG unless told otherwise.
pub(crate) fn choose_format(
    scene: &SceneInfo,
    settings: &RenderSettings,
) -> Result<FileFormat, PrepareError> {
    match (settings.format, scene.format) {
        (Some(format), _) | (None, Some(format)) => Ok(format),
        (None, None) if scene.is_movie => Ok(FileFormat::Png),
        (None, None) => Err(PrepareError::Format { format: scene.format_name.clone() }),
    }
}

pub(crate) fn choose_frames(scene: &SceneInfo, request: &Request) -> Result<FrameSet, PrepareError> {
    match (&request.frames, request.step) {
        (Some(frames), None | Some(0 | 1)) => Ok(frames.clone()),
        (Some(frames), Some(step)) => Ok(FrameSet::from_frames(frames.iter().step_by(step as usize))?),
        (None, step) => Ok(scene.frames(step)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scene(first: i32, last: i32, step: i32) -> SceneInfo {
        serde_json::from_value(serde_json::json!({
            "name": "Shot", "frame_start": first, "frame_end": last, "frame_step": step, "fps": 24.0,
            "engine": "CYCLES", "device": "cpu", "width": 1920, "height": 1080, "percent": 100,
            "camera_markers": [], "view_layers": [], "output_path": "//", "format_name": "PNG", "is_movie": false,
            "multiview": false, "views": [], "views_apart": false, "use_file_extension": true,
        }))
        .unwrap()
    }

    fn request(frames: Option<&str>, step: Option<u32>) -> Request {
        Request { frames: frames.map(|frames| frames.parse().unwrap()), step, ..Request::default() }
    }

    #[test]
    fn frames_are_those_that_are_named_or_the_scenes_own() {
        let cases = [
            (None, None, "1-9x2"),
            (None, Some(3), "1-10x3"),
            (Some("5-20"), None, "5-20"),
            (Some("5-20"), Some(5), "5-20x5"),
        ];
        for (named, step, want) in cases {
            let frames = choose_frames(&scene(1, 10, 2), &request(named, step)).unwrap();
            let want: FrameSet = want.parse().unwrap();
            assert!(frames.iter().eq(want.iter()), "{named:?} by {step:?}: {frames}");
        }
    }

    #[test]
    fn a_scene_that_ends_before_it_starts_is_refused_unless_frames_are_named() {
        let backwards = scene(250, 1, 1);
        for step in [None, Some(1), Some(2)] {
            let error = choose_frames(&backwards, &request(None, step)).unwrap_err();
            assert!(matches!(&error, PrepareError::NoFrames(_)), "{error}");
            let text = error.to_string();
            assert!(
                text.contains("frame 1,") && text.contains("frame 250") && text.contains("--frames"),
                "{text}"
            );
        }
        let named = choose_frames(&backwards, &request(Some("3-1"), None)).unwrap();
        assert_eq!(named.iter().collect::<Vec<_>>(), [3, 2, 1]);
    }
}
