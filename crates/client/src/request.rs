//! The request of a user, and the reasons why it cannot be met.

use std::path::{Path, PathBuf};

use kiln_blend::{BlendError, ChoiceError, ChoiceRequest, LinkedSimulation, MissingDependency, SharedRoot};
use kiln_types::{BlenderSeries, DeviceChoice, FrameSet, Policy, RenderSettings};

use crate::{ClientError, Extras, ExtrasError, HashCache};

/// The request of a user.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The frames; the scene's own range if `None`.
    pub frames: Option<FrameSet>,
    /// Every Nth of the frames; the scene's own step if neither this nor `frames` is given.
    pub step: Option<u32>,
    /// The series of Blender; the one that wrote the file if `None`.
    pub blender: Option<BlenderSeries>,
    pub device: DeviceChoice,
    pub settings: RenderSettings,
    pub policy: Policy,
    /// Folders that the workers reach too. The files below them are not sent.
    pub shared: Vec<SharedRoot>,
    /// Workers compare shared files by their hash instead of their time.
    pub hash_shared: bool,
    /// Files that the user adds.
    pub extras: Extras,
    pub transfer: Transfer,
    pub hashes: HashCache,
}

impl Request {
    /// Returns the part of the request that is compared with the .blend.
    pub(crate) fn asked<'a>(&'a self, settings: &'a RenderSettings) -> ChoiceRequest<'a> {
        ChoiceRequest {
            settings,
            frames: self.frames.as_ref(),
            step: self.step,
            blender: self.blender,
            device: self.device,
            simulations: self.policy.simulations,
        }
    }
}

/// The form in which files go to the server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Transfer {
    /// In chunks, of which the server gets those that it lacks.
    #[default]
    Chunks,
    /// As whole files, for a server on the same disk: splitting would only take time.
    Whole,
}

/// The reasons why a request cannot become a job.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    #[error(transparent)]
    Blend(#[from] BlendError),
    #[error("{}", refusal(.blend, .error))]
    Choice { blend: PathBuf, error: Box<ChoiceError> },
    #[error(
        "the path of {} has {} bytes, and Blender opens none with more than {}; move the file, or shorten the names of its \
         folders",
        .0.display(),
        .0.as_os_str().len(),
        kiln_blend::LONGEST_PATH
    )]
    TooDeep(PathBuf),
    /// Blender would not write to the output path of the scene.
    #[error("{0}")]
    OutputPath(String),
    #[error(
        "{} missing: {}; bring {them} back, or render without {them} with --allow-missing",
        if .0.len() == 1 { "a file that the scene needs is".to_owned() }
            else { format!("{} files that the scene needs are", .0.len()) },
        first(.0),
        them = if .0.len() == 1 { "it" } else { "them" }
    )]
    Missing(Vec<MissingDependency>),
    #[error(
        "the colour configuration names tables that are not there ({}); bring them back, or render without them with \
         --allow-missing",
        listed(.0)
    )]
    Tables(Vec<String>),
    #[error("add-ons run Python of their own on the workers; allow this with --trust")]
    Untrusted,
    #[error(transparent)]
    Extras(#[from] ExtrasError),
    #[error(
        "{} keeps changing while it is read; wait until it is written, then run the command again",
        .0.display()
    )]
    Changing(PathBuf),
    #[error("{0} changed while it was read ({1}); run the command again")]
    Broken(String, String),
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl PrepareError {
    /// The number of missing files that the sentence names.
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

/// Returns the sentence of a refused choice, with what to do on the command line.
fn refusal(blend: &Path, error: &ChoiceError) -> String {
    match error {
        ChoiceError::NoScene => {
            format!("{} holds no scene to render; name a .blend that has one", blend.display())
        }
        ChoiceError::Format { .. } => {
            format!("{error}; choose another with --format, such as --format png")
        }
        ChoiceError::TooOld { .. } => {
            format!("{error}; omit --blender-version, or name a newer one")
        }
        ChoiceError::Unbaked { .. } => format!(
            "{error}; bake in Blender, omit --only-baked to let Kiln bake first, or choose --no-bake: then nothing \
             moves"
        ),
        ChoiceError::UnbakedLinked { simulations, .. } => format!(
            "{error}; simulations of a library can only be baked there: open {}, bake and save, or render them without \
             motion with --no-bake",
            libraries(simulations)
        ),
        ChoiceError::Incomplete { .. } => format!(
            "{error}; put the missing files back, or bake again in Blender and save, or continue with --no-bake"
        ),
        ChoiceError::Setting(_)
        | ChoiceError::NoSuchScene { .. }
        | ChoiceError::NoSuchViewLayer { .. }
        | ChoiceError::NoSuchCamera { .. }
        | ChoiceError::NoFrames(_)
        | ChoiceError::Frames(_) => error.to_string(),
    }
}

/// Lists each library once.
fn libraries(linked: &[LinkedSimulation]) -> String {
    let mut paths: Vec<String> = linked.iter().map(|one| one.library.display().to_string()).collect();
    paths.dedup();
    listed(&paths)
}

fn first(missing: &[MissingDependency]) -> String {
    let shown: Vec<String> = missing.iter().take(PrepareError::NAMED).map(ToString::to_string).collect();
    format!("{}{}", shown.join(", "), if missing.len() > PrepareError::NAMED { ", …" } else { "" })
}
