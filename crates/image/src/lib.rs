//! Decodes and verifies what Blender writes.
//!
//! A frame counts as rendered only when its file has been decoded to the last pixel of the last layer and is of
//! the size and format that were asked for. The file comes from a process that is not believed: its format is
//! taken from its bytes, its declared size is compared with the expected one before memory is taken, and every
//! decoder works within [`DecodeLimits`].

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod bmp;
mod cineon;
mod codestream;
mod compare;
mod cut;
mod dpx;
mod exr;
mod fault;
mod format;
mod hdr;
mod iris;
mod jpeg;
mod jpeg2000;
mod picture;
mod png;
mod raster;
mod source;
mod tga;
mod tiff;
mod verify;
mod webp;

pub use compare::{Difference, Picture, PlanePixels, decode, same_pixels};
pub use cut::{is_cut_off, seems_cut_off};
pub use fault::ImageFault;
pub use picture::Layer;
pub use verify::{Checked, DecodeLimits, Expectation, probe, verify, verify_path};
