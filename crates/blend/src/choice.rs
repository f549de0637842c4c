//! The choices of a submission: scene, frames, format, Blender and device, resolved from what is asked for and
//! what the file says. Client and server both ask here, so that neither accepts what the other refuses.

use kiln_types::{
    BlenderSeries, DeviceChoice, DeviceClass, FileFormat, FrameSet, FrameSetError, RenderSettings,
    Simulations,
};

use crate::{ExternalKind, Inspection, LinkedSimulation, NoFrames, SceneInfo, Simulation};

/// The part of a request that is compared with the .blend.
#[derive(Debug, Clone, Copy)]
pub struct ChoiceRequest<'a> {
    pub settings: &'a RenderSettings,
    /// The scene's own range where `None`.
    pub frames: Option<&'a FrameSet>,
    /// Every which of the frames; the scene's own step where neither this nor `frames` is there.
    pub step: Option<u32>,
    /// The series that wrote the file where `None`.
    pub blender: Option<BlenderSeries>,
    pub device: DeviceChoice,
    pub simulations: Simulations,
}

/// The result of [`choose`].
#[derive(Debug, Clone, PartialEq)]
pub struct RenderChoice<'a> {
    pub scene: &'a SceneInfo,
    pub frames: FrameSet,
    /// Of the main files.
    pub format: FileFormat,
    pub blender: BlenderSeries,
    /// `Gpu` where the GPUs of any backend will do.
    pub device: DeviceClass,
    /// With what Cycles denoises the picture, where that is known.
    pub denoiser: Option<String>,
    /// The simulations that are baked before the first frame.
    pub bake: Vec<&'a Simulation>,
}

/// The reason why what is asked for cannot be rendered from the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    #[error("{0}")]
    Setting(String),
    #[error("the file has no scene to render")]
    NoScene,
    #[error("there is no scene “{name}” in the file; it has {}", listed(.there))]
    NoSuchScene { name: String, there: Vec<String> },
    #[error("there is no view layer “{name}” in the scene “{scene}”; it has {}", listed(.there))]
    NoSuchViewLayer { scene: String, name: String, there: Vec<String> },
    #[error("there is no camera “{name}” in the scene “{scene}”; it has {}", listed(.there))]
    NoSuchCamera { scene: String, name: String, there: Vec<String> },
    #[error("the scene writes {format}, which Kiln cannot check")]
    Format { format: String },
    #[error("the file was saved by Blender {written_by}, which Blender {asked} cannot read as it is meant")]
    TooOld { asked: BlenderSeries, written_by: BlenderSeries },
    #[error(transparent)]
    NoFrames(#[from] NoFrames),
    #[error(transparent)]
    Frames(#[from] FrameSetError),
    /// Of the scene itself; they could be baked.
    #[error("{} not baked", with_verb(.simulations))]
    Unbaked { scene: String, simulations: Vec<String> },
    /// Of libraries; only those can bake them.
    #[error("not baked: {}", listed(&.simulations.iter().map(ToString::to_string).collect::<Vec<_>>()))]
    UnbakedLinked { scene: String, simulations: Vec<LinkedSimulation> },
    #[error("the bake is not whole: {}", listed(.lacking))]
    Incomplete { scene: String, lacking: Vec<String> },
}

/// Names that an error lists.
const LISTED: usize = 8;
/// Simulations that a sentence names.
const NAMED: usize = 5;

fn listed(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        names if names.len() > LISTED => format!("{}, …", names[..LISTED].join(", ")),
        names => names.join(", "),
    }
}

/// `rigid body Cube and 3 more simulations are`: the subject of a sentence, with its verb.
pub fn with_verb(simulations: &[String]) -> String {
    let named = simulations[..simulations.len().min(NAMED)].join(", ");
    match simulations.len().saturating_sub(NAMED) {
        0 if simulations.len() == 1 => format!("{named} is"),
        0 => format!("{named} are"),
        1 => format!("{named} and 1 more simulation are"),
        more => format!("{named} and {more} more simulations are"),
    }
}

/// Resolves what is rendered.
///
/// # Errors
/// The file lacks something that is asked for, or it cannot be rendered as it is meant.
pub fn choose<'a>(file: &'a Inspection, asked: &ChoiceRequest<'_>) -> Result<RenderChoice<'a>, ChoiceError> {
    let settings = asked.settings;
    settings.check().map_err(ChoiceError::Setting)?;
    let scene = scene_of(file, settings)?;
    check_names(file, scene, settings)?;
    let written_by = file.written_by.series();
    let blender = asked.blender.unwrap_or(written_by);
    if blender < written_by {
        return Err(ChoiceError::TooOld { asked: blender, written_by });
    }
    let format = format_of(scene, settings)?;
    let frames = frames_of(scene, asked.frames, asked.step)?;
    let bake = check_simulations(file, scene, &frames, asked.simulations)?;
    Ok(RenderChoice {
        scene,
        frames,
        format,
        blender,
        device: asked.device.resolve(scene.is_on_gpu(settings.engine.as_deref())),
        denoiser: denoiser_of(scene, settings),
        bake,
    })
}

/// Refuses what moves in libraries and is not baked there: no other file can bake it.
///
/// # Errors
/// The scene shows such a simulation, and has to be rendered with it.
pub fn check_linked<'a>(
    scene: &str,
    linked: impl IntoIterator<Item = &'a LinkedSimulation>,
    simulations: Simulations,
) -> Result<(), ChoiceError> {
    let shown = linked.into_iter().filter(|one| one.simulation.scenes.iter().any(|name| name == scene));
    let shown: Vec<LinkedSimulation> = shown.cloned().collect();
    if shown.is_empty() || simulations == Simulations::AsTheyAre {
        return Ok(());
    }
    Err(ChoiceError::UnbakedLinked { scene: scene.to_owned(), simulations: shown })
}

fn scene_of<'a>(file: &'a Inspection, settings: &RenderSettings) -> Result<&'a SceneInfo, ChoiceError> {
    let Some(name) = &settings.scene else { return file.active().ok_or(ChoiceError::NoScene) };
    file.scenes.iter().find(|scene| scene.name == *name).ok_or_else(|| {
        let there = file.scenes.iter().map(|scene| scene.name.clone()).collect();
        ChoiceError::NoSuchScene { name: name.clone(), there }
    })
}

fn check_names(file: &Inspection, scene: &SceneInfo, settings: &RenderSettings) -> Result<(), ChoiceError> {
    if let Some(name) = &settings.view_layer
        && !scene.view_layers.iter().any(|layer| layer.name == *name)
    {
        let there = scene.view_layers.iter().map(|layer| layer.name.clone()).collect();
        return Err(ChoiceError::NoSuchViewLayer { scene: scene.name.clone(), name: name.clone(), there });
    }
    // A camera may also come from a library, whose names are not read here; and any object can be the scene's own.
    let has_libraries = file.external.iter().any(|file| file.kind == ExternalKind::Library);
    if let Some(name) = &settings.camera
        && !has_libraries
        && !scene.looks_through(name)
    {
        let there = scene.cameras.clone();
        return Err(ChoiceError::NoSuchCamera { scene: scene.name.clone(), name: name.clone(), there });
    }
    Ok(())
}

/// A scene that is set to a video is rendered as frames, PNG unless another format is named.
fn format_of(scene: &SceneInfo, settings: &RenderSettings) -> Result<FileFormat, ChoiceError> {
    match (settings.format, scene.format) {
        (Some(format), _) | (None, Some(format)) => Ok(format),
        (None, None) if scene.is_movie => Ok(FileFormat::Png),
        (None, None) => Err(ChoiceError::Format { format: scene.format_name.clone() }),
    }
}

/// With what Cycles denoises, where the file says so or a property does. Of another engine than the file's, and of a file
/// that does not denoise by itself, it is not read here: the host looks again.
fn denoiser_of(scene: &SceneInfo, settings: &RenderSettings) -> Option<String> {
    let is_own_engine = settings.engine.as_ref().is_none_or(|engine| *engine == scene.engine);
    let is_on = settings.properties.switch("cycles.use_denoising").unwrap_or(scene.denoiser.is_some());
    let named = settings.properties.text("cycles.denoiser").or(scene.denoiser.as_deref());
    named.filter(|_| scene.engine == "CYCLES" && is_own_engine && is_on).map(str::to_owned)
}

fn frames_of(
    scene: &SceneInfo,
    named: Option<&FrameSet>,
    step: Option<u32>,
) -> Result<FrameSet, ChoiceError> {
    match (named, step) {
        (Some(frames), None | Some(0 | 1)) => Ok(frames.clone()),
        (Some(frames), Some(step)) => Ok(FrameSet::from_frames(frames.iter().step_by(step as usize))?),
        (None, step) => Ok(scene.frames(step)?),
    }
}

/// Returns the simulations to bake first. A frame that a bake lacks would show no motion.
fn check_simulations<'a>(
    file: &'a Inspection,
    scene: &SceneInfo,
    frames: &FrameSet,
    simulations: Simulations,
) -> Result<Vec<&'a Simulation>, ChoiceError> {
    if simulations == Simulations::AsTheyAre {
        return Ok(Vec::new());
    }
    let lacking = file.incomplete(&scene.name, frames);
    let lacking: Vec<String> =
        lacking.map(|one| format!("{one} lacks frames {}", one.missing_text())).collect();
    if !lacking.is_empty() {
        return Err(ChoiceError::Incomplete { scene: scene.name.clone(), lacking });
    }
    let unbaked: Vec<&Simulation> = file.unbaked(&scene.name).collect();
    if simulations == Simulations::MustBeBaked && !unbaked.is_empty() {
        let simulations = unbaked.iter().map(ToString::to_string).collect();
        return Err(ChoiceError::Unbaked { scene: scene.name.clone(), simulations });
    }
    Ok(unbaked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(scene: serde_json::Value) -> Inspection {
        let mut whole = serde_json::json!({
            "name": "Shot", "frame_start": 1, "frame_end": 10, "frame_step": 2, "fps": 24.0,
            "engine": "CYCLES", "device": "gpu", "width": 1920, "height": 1080, "percent": 100,
            "denoiser": "OPTIX", "camera": "Rig", "cameras": ["Camera"], "camera_markers": [],
            "view_layers": [{ "name": "ViewLayer", "renders": true }],
            "output_path": "//", "format_name": "PNG", "format": "png", "is_movie": false,
            "multiview": false, "views": [], "views_apart": false, "use_file_extension": true,
        });
        whole.as_object_mut().unwrap().extend(scene.as_object().unwrap().clone());
        serde_json::from_value(serde_json::json!({
            "written_by": "4.2.0", "compression": "none", "scenes": [whole], "active_scene": "Shot",
            "cameras": ["Camera"], "external": [], "simulations": [],
        }))
        .unwrap()
    }

    fn asked(settings: &RenderSettings) -> ChoiceRequest<'_> {
        ChoiceRequest {
            settings,
            frames: None,
            step: None,
            blender: None,
            device: DeviceChoice::Auto,
            simulations: Simulations::Bake,
        }
    }

    #[test]
    fn frames_are_those_that_are_named_or_the_scenes_own() {
        let (file, settings) = (file(serde_json::json!({})), RenderSettings::default());
        let cases = [
            (None, None, "1-9x2"),
            (None, Some(3), "1-10x3"),
            (Some("5-20"), None, "5-20"),
            (Some("5-20"), Some(5), "5-20x5"),
            // A range that is named backwards is rendered backwards.
            (Some("3-1"), None, "3,2,1"),
        ];
        for (named, step, want) in cases {
            let named: Option<FrameSet> = named.map(|frames| frames.parse().unwrap());
            let asked = ChoiceRequest { frames: named.as_ref(), step, ..asked(&settings) };
            let frames = choose(&file, &asked).unwrap().frames;
            let want: FrameSet = want.parse().unwrap();
            assert!(frames.iter().eq(want.iter()), "{named:?} by {step:?}: {frames}");
        }
    }

    #[test]
    fn a_scene_that_ends_before_it_starts_is_refused_unless_frames_are_named() {
        let backwards = file(serde_json::json!({ "frame_start": 250, "frame_end": 1 }));
        let (settings, named): (_, FrameSet) = (RenderSettings::default(), "3-1".parse().unwrap());
        for step in [None, Some(1), Some(2)] {
            let error = choose(&backwards, &ChoiceRequest { step, ..asked(&settings) }).unwrap_err();
            assert!(matches!(&error, ChoiceError::NoFrames(_)), "{error}");
            let text = error.to_string();
            assert!(
                text.contains("frame 1,") && text.contains("frame 250") && text.contains("--frames"),
                "{text}"
            );
        }
        let chosen = choose(&backwards, &ChoiceRequest { frames: Some(&named), ..asked(&settings) }).unwrap();
        assert_eq!(chosen.frames.iter().collect::<Vec<_>>(), [3, 2, 1]);
    }

    #[test]
    fn names_that_the_file_lacks_are_refused_with_those_that_it_has() {
        let file = file(serde_json::json!({}));
        let refused = |settings: RenderSettings| choose(&file, &asked(&settings)).unwrap_err();
        let scene = refused(RenderSettings { scene: Some("Nowhere".to_owned()), ..Default::default() });
        assert_eq!(scene.to_string(), "there is no scene “Nowhere” in the file; it has Shot");
        let layer = refused(RenderSettings { view_layer: Some("None".to_owned()), ..Default::default() });
        assert_eq!(layer.to_string(), "there is no view layer “None” in the scene “Shot”; it has ViewLayer");
        let camera = refused(RenderSettings { camera: Some("Nobody".to_owned()), ..Default::default() });
        assert_eq!(camera.to_string(), "there is no camera “Nobody” in the scene “Shot”; it has Camera");
        // Any object can be the camera of its scene.
        let own = RenderSettings { camera: Some("Rig".to_owned()), ..Default::default() };
        assert!(choose(&file, &asked(&own)).is_ok());
    }

    #[test]
    fn a_format_that_cannot_be_checked_is_refused_unless_another_is_named() {
        let own = RenderSettings::default();
        let png = RenderSettings { format: Some(FileFormat::Png), ..RenderSettings::default() };
        let dds = file(serde_json::json!({ "format_name": "DDS", "format": null }));
        let error = choose(&dds, &asked(&own)).unwrap_err();
        assert_eq!(error, ChoiceError::Format { format: "DDS".to_owned() });
        assert_eq!(choose(&dds, &asked(&png)).unwrap().format, FileFormat::Png);
        let video = file(serde_json::json!({ "format_name": "FFMPEG", "format": null, "is_movie": true }));
        assert_eq!(choose(&video, &asked(&own)).unwrap().format, FileFormat::Png, "it is rendered as frames");
    }

    #[test]
    fn the_engine_decides_on_device_and_denoiser_and_an_older_blender_is_refused() {
        let (file, own) = (file(serde_json::json!({})), RenderSettings::default());
        let chosen = choose(&file, &asked(&own)).unwrap();
        assert_eq!((chosen.device, chosen.denoiser.as_deref()), (DeviceClass::Gpu, Some("OPTIX")));
        let other =
            RenderSettings { engine: Some("BLENDER_WORKBENCH".to_owned()), ..RenderSettings::default() };
        let chosen = choose(&file, &asked(&other)).unwrap();
        assert_eq!((chosen.device, chosen.denoiser), (DeviceClass::Cpu, None));
        let older = ChoiceRequest { blender: Some("3.6".parse().unwrap()), ..asked(&own) };
        assert!(matches!(choose(&file, &older).unwrap_err(), ChoiceError::TooOld { .. }));
    }

    #[test]
    fn many_names_are_cut_short() {
        let names: Vec<String> = (1..=9).map(|number| format!("S{number}")).collect();
        assert_eq!(listed(&names), "S1, S2, S3, S4, S5, S6, S7, S8, …");
        assert_eq!(listed(&names[..2]), "S1, S2");
        assert_eq!(with_verb(&names[..1]), "S1 is");
        assert_eq!(with_verb(&names[..6]), "S1, S2, S3, S4, S5 and 1 more simulation are");
        assert_eq!(with_verb(&names), "S1, S2, S3, S4, S5 and 4 more simulations are");
    }
}
