//! Reads .blend files without Blender: what a scene renders, and every file it needs.
//!
//! A .blend is a list of blocks; its last one, the DNA, describes the fields of all others. The file is walked
//! twice from its beginning to its end mark: once to find the DNA, so that a cut or lying file is known before
//! anything is believed; once to read the few blocks of interest. Nothing else is held in memory, so a file of
//! any size costs little, packed or not.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod collect;
mod dependencies;
mod disk;
mod dna;
mod expand;
mod external;
mod fault;
mod file;
mod inspect;
mod layout;
mod meaning;
mod parts;
mod places;
mod resolve;
mod scene;
mod simulations;
mod stream;

pub use dependencies::{Dependencies, Dependency, FoundAs, dependencies};
pub use external::{ExternalFile, ExternalKind};
pub use fault::{BlendError, BlendFault};
pub use file::{Peek, peek, peek_reader};
pub use inspect::{Inspection, inspect, inspect_reader};
pub use layout::{Layout, Missing, SharedPlace, SharedRoot, layout};
pub use scene::{Border, CameraMarker, SceneInfo, ViewInfo, ViewLayerInfo};
pub use simulations::{Simulation, SimulationKind};
pub use stream::{Compression, Limits};
