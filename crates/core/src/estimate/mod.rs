//! Estimates: the work and the memory of a step's frames, and the speed of workers, all learned.

pub(crate) mod frame_times;
pub(crate) mod frames;
pub(crate) mod memory_use;
pub(crate) mod speed;
