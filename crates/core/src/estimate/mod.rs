//! Estimates of frame times: the work of a step's frames, and the speed of workers, both learned.

pub(crate) mod frame_times;
pub(crate) mod frames;
pub(crate) mod memory_use;
pub(crate) mod speed;
