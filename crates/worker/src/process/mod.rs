//! Blender processes: the kinds of them, one with its folder, and the pool that starts them.

mod blender;
mod kind;
mod pool;

pub(crate) use blender::BlenderProcess;
pub(crate) use kind::{MachineShare, ProcessKind};
pub(crate) use pool::{PoolOptions, ProbedBlender, ProcessPool};
