//! The request of a user, and the reasons why it cannot be met.

use std::path::{Path, PathBuf};

use kiln_blend::{BlendError, ChoiceError, ChoiceRequest, LinkedSimulation, MissingDependency, SharedRoot};
use kiln_types::{BlenderSeries, DeviceChoice, FrameSet, Policy, RenderSettings};

use crate::{ClientError, Extras, ExtrasError, HashCache};

/// The request of a user.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The scene's own range where `None`.
    pub frames: Option<FrameSet>,
    /// Every Nth of the frames; the scene's own step where neither this nor `frames` is there.
    pub step: Option<u32>,
    /// The series that wrote the file where `None`.
    pub blender: Option<BlenderSeries>,
    /// What is asked for, and `auto` unless told otherwise.
    pub device: DeviceChoice,
    pub settings: RenderSettings,
    pub policy: Policy,
    /// Folders that the workers reach too: what lies below them is not sent.
    pub shared: Vec<SharedRoot>,
    /// Workers compare such files by their hash instead of their time.
    pub hash_shared: bool,
    /// Files that the user adds.
    pub extras: Extras,
    pub transfer: Transfer,
    pub hashes: HashCache,
}

impl Request {
    /// The part of the request that is compared with the .blend.
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
    /// In chunks, of which only those are sent that the server lacks.
    #[default]
    Chunks,
    /// As whole files, to a server on this very disk: splitting would only take time.
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
        "{} lies too deep: its path has {} bytes, and Blender opens none of more than {}; move it, or shorten the names \
         of its folders",
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

/// The error of a choice, and what to do about it on the command line.
fn refusal(blend: &Path, error: &ChoiceError) -> String {
    match error {
        ChoiceError::NoScene => {
            format!("{} holds no scene to render; name a .blend that has one", blend.display())
        }
        ChoiceError::Format { .. } => {
            format!("{error}; choose another with --format, such as --format png")
        }
        ChoiceError::TooOld { .. } => {
            format!("{error}; leave --blender-version out, or name a newer one")
        }
        ChoiceError::Unbaked { .. } => format!(
            "{error}; bake in Blender, leave --only-baked out and Kiln bakes first, or choose --no-bake: then nothing \
             moves"
        ),
        ChoiceError::UnbakedLinked { simulations, .. } => format!(
            "{error}; what a library holds can only be baked there: open {}, bake and save, or render it standing still \
             with --no-bake",
            libraries(simulations)
        ),
        ChoiceError::Incomplete { .. } => format!(
            "{error}; put the missing files back, or bake again in Blender and save, or go on all the same with --no-bake"
        ),
        ChoiceError::Setting(_)
        | ChoiceError::NoSuchScene { .. }
        | ChoiceError::NoSuchViewLayer { .. }
        | ChoiceError::NoSuchCamera { .. }
        | ChoiceError::NoFrames(_)
        | ChoiceError::Frames(_) => error.to_string(),
    }
}

/// Each once.
fn libraries(linked: &[LinkedSimulation]) -> String {
    let mut paths: Vec<String> = linked.iter().map(|one| one.library.display().to_string()).collect();
    paths.dedup();
    listed(&paths)
}

fn first(missing: &[MissingDependency]) -> String {
    let shown: Vec<String> = missing.iter().take(PrepareError::NAMED).map(ToString::to_string).collect();
    format!("{}{}", shown.join(", "), if missing.len() > PrepareError::NAMED { ", …" } else { "" })
}
