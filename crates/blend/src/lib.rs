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
mod chosen;
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
mod ids;
mod inspect;
mod layers;
mod layout;
mod libraries;
mod linked;
mod meaning;
mod missing;
mod nodes;
mod ocio;
mod particles;
mod parts;
mod pieces;
mod places;
mod reach;
mod resolve;
mod rewrite;
mod scene;
mod schema;
mod sequence;
mod sequencer;
mod shown;
mod simulated;
mod simulation;
mod simulations;
mod spot;
mod stream;
mod ties;
mod usd;
mod used;
mod uses;

pub use addons::{AddonError, AddonFault, AddonFiles, addon_files};
pub use bundled::{Bundled, inspect_bundled, linked_in_bundle};
pub use caches::FrameRange;
pub use chosen::{Asked, ChoiceError, Chosen, check_linked, choose, with_verb};
pub use dependencies::{Dependencies, Dependency, FoundAs, LONGEST_PATH, dependencies};
pub use external::{ExternalFile, ExternalKind};
pub use fault::{BlendError, BlendFault};
pub use file::{Peek, peek, peek_reader};
pub use gaps::{Absent, OwnFrames, Requested};
pub use inspect::{Inspection, inspect, inspect_reader};
pub use layout::{Layout, SharedPlace, SharedRoot, layout};
pub use libraries::point_libraries;
pub use linked::LinkedSimulation;
pub use missing::{Lacking, Missing, Unused};
pub use ocio::{OcioError, OcioFault, OcioFiles, ocio_files};
pub use rewrite::{Renamed, RewriteError, RewriteFault, Rewritten, rewrite, rewrite_reader};
pub use scene::{Border, CameraMarker, NoFrames, SceneDevice, SceneInfo, ViewInfo, ViewLayerInfo};
pub use sequence::{Clip, SequenceRule, SequenceUser, VolumeMode, Wanted};
pub use simulation::{Simulation, SimulationKind};
pub use stream::{Compression, Limits};
pub use used::unused_alone;
