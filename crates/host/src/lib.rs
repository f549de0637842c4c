//! One warm Blender: started, spoken to, killed, never believed.
//!
//! [`Host`] is a Blender process in its own process group, told what to do in lines of JSON over a socket that
//! it inherits. [`discover`] finds the Blenders of a machine, [`collect`] takes what a frame wrote out of its
//! folder, [`gather`] what a bake left in its tree. Nothing here knows of networks or databases, and nothing here trusts what the process says: a
//! scene's script may speak in its place.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod bytecode;
mod collect;
mod death;
mod discover;
mod gather;
mod host;
mod install;
mod log;
mod plan;
mod process;
mod request;
mod root;
mod sources;
mod wire;

pub use collect::{CollectedFile, MAX_FILE_BYTES, collect};
pub use discover::{BlenderInstall, discover, inspect};
pub use gather::{BakedFile, MAX_BAKED_BYTES, MAX_BAKED_ENTRIES, gather, open_gathered};
pub use host::{Host, probe};
pub use install::{InstallError, can_install, install_blender};
pub use log::LogSink;
pub use plan::{OutputPlan, PlannedFile};
pub use process::{Usage, lower_priority};
pub use request::{
    BakeRequest, Baked, Capabilities, Device, HostError, HostOptions, OpenRequest, OpenedFile, RenderRequest,
    Rendered, ReuseMode, SceneReuse,
};
pub use root::SlotRoot;
pub use wire::{ProgressSink, RenderProgress};
