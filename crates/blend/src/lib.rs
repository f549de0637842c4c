//! Reads .blend files without Blender: what a scene renders, and every file it needs.
//!
//! A .blend is a list of blocks; its last one, the DNA, describes the fields of all others. It is read first, then
//! the file is walked once from its beginning to its end mark, and the few blocks of interest are read. What lies
//! between them is skipped: in a plain file, and in one packed as Blender packs since 3.0, it is not even read. Where
//! the DNA is not at the end, or a packed file can only be read forward, a first walk looks for it. Nothing else is
//! held in memory, so a file of any size costs little, packed or not.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod addons;
mod animation;
mod bundled;
mod caches;
mod choice;
mod collect;
mod dependencies;
mod disk;
mod dna;
mod expand;
mod external;
mod fault;
mod file;
mod follow;
mod frames;
mod gaps;
mod graph;
mod ids;
mod inspect;
mod layers;
mod layout;
mod libraries;
mod linked;
mod location;
mod meaning;
mod missing;
mod nodes;
mod ocio;
mod particles;
mod parts;
mod pieces;
mod places;
mod pointer_scan;
mod resolve;
mod rewrite;
mod scene;
mod schema;
mod sequence;
mod sequence_users;
mod sequencer;
mod simulated;
mod simulation;
mod simulations;
mod stream;
mod usd;
mod used;
mod uses;

pub use addons::{AddonError, AddonFault, AddonFiles, find_addon_files};
pub use bundled::{BundleSource, find_linked_in_bundle, inspect_bundled};
pub use caches::FrameRange;
pub use choice::{ChoiceError, ChoiceRequest, RenderChoice, check_linked, choose, with_verb};
pub use dependencies::{Dependencies, Dependency, LONGEST_PATH, PathMatch, find_dependencies};
pub use external::{ExternalFile, ExternalKind};
pub use fault::{BlendError, BlendFault};
pub use file::{Peek, peek, peek_reader};
pub use gaps::{AbsentFile, OwnScope, RenderScope};
pub use inspect::{Inspection, inspect, inspect_reader};
pub use layout::{BundleLayout, SharedPlace, SharedRoot, plan_layout};
pub use libraries::point_libraries;
pub use linked::LinkedSimulation;
pub use missing::{MissingDependency, MissingReport, UnusedDependency};
pub use ocio::{OcioError, OcioFault, OcioFiles, find_ocio_files};
pub use rewrite::{RenamedPath, RewriteError, RewriteFault, RewriteReport, rewrite, rewrite_reader};
pub use scene::{Border, CameraMarker, NoFrames, SceneDevice, SceneInfo, ViewInfo, ViewLayerInfo};
pub use sequence::{Clip, FrameDemand, SequenceRule, SequenceUser, VolumeMode};
pub use simulation::{Simulation, SimulationKind};
pub use stream::{Compression, ReadLimits};
pub use used::find_unused_paths;
