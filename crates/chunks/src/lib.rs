//! The pieces that files travel and rest in: split by content, named by their hash, packed.
//!
//! ```text
//! file ── unpack_blend ── split ── Chunk, Recipe
//!                           └── pack ── Frame ── the wire, a pack on disk ── unpack ── bytes
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod frame;
mod pack;
mod recipe;
mod split;
mod unpack_blend;

pub use frame::{Coding, Frame, FrameDecoder, FrameError, FrameHead};
pub use pack::{Packer, Unpacker, pack, unpack};
pub use recipe::{BadRecipe, Chunk, Recipe};
pub use split::{Grain, Split, split};
pub use unpack_blend::unpack_blend;

/// Bytes of a chunk at most.
pub const MAX_CHUNK: usize = 2 << 20;
