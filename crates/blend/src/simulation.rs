//! A simulation of a file, as it is told.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::caches::FrameRange;

/// The kind of a simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SimulationKind {
    RigidBody,
    Cloth,
    SoftBody,
    DynamicPaint,
    /// The domain of smoke, fire or liquid.
    Fluid,
    /// Geometry nodes with a simulation zone.
    SimulationNodes,
    HairDynamics,
    /// Particles that are emitted. In free fall they render rightly without a bake.
    Particles,
}

impl SimulationKind {
    pub fn noun(self) -> &'static str {
        match self {
            Self::RigidBody => "rigid body",
            Self::Cloth => "cloth",
            Self::SoftBody => "soft body",
            Self::DynamicPaint => "dynamic paint",
            Self::Fluid => "fluid",
            Self::SimulationNodes => "simulation nodes",
            Self::HairDynamics => "hair dynamics",
            Self::Particles => "particles",
        }
    }
}

/// One simulation of one object of the file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Simulation {
    pub kind: SimulationKind,
    /// The name of the object.
    pub owner: String,
    /// Scenes of the file that it takes part in.
    pub scenes: Vec<String>,
    /// Frames are stored, in the file or beside it.
    pub baked: bool,
    /// The simulation shows in renders, or moves what does, is not baked, and would be wrong without a bake.
    pub needs_bake: bool,
    /// Of what is baked and shows: frames of its own range that are not stored.
    #[serde(default)]
    pub missing_frames: Vec<FrameRange>,
}

impl Simulation {
    /// The first of its missing frames: `4-6, 9`.
    pub fn missing_text(&self) -> String {
        const SHOWN: usize = 5;
        let shown: Vec<_> = self.missing_frames.iter().take(SHOWN).map(ToString::to_string).collect();
        let more = if self.missing_frames.len() > SHOWN { ", …" } else { "" };
        format!("{}{more}", shown.join(", "))
    }

    /// The cache lacks what this frame shows.
    pub fn lacks(&self, frame: i32) -> bool {
        self.missing_frames.iter().any(|range| (range.first..=range.last).contains(&frame))
    }
}

/// `cloth of Flag`, `rigid body Crate`: as the worker's host says it.
impl fmt::Display for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = if self.kind == SimulationKind::RigidBody { "" } else { "of " };
        write!(f, "{} {of}{}", self.kind.noun(), self.owner)
    }
}
