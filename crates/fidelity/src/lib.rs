//! The fidelity table: several hundred features of Blender, each rendered by Kiln in every way that it has, and compared
//! pixel by pixel with a cold render.
//!
//! `tests/fidelity` builds the scenes. A cold render is one new Blender process for each frame; it is kept in the cache
//! folder. Kiln's own renders are two warm hosts in this process ([`warm`]), and a real server with a real worker that
//! does not see the artist's folders ([`farm`]).

mod cold;
mod compare;
mod farm;
mod rows;
mod run;
mod table;
mod warm;

pub use farm::can_hide;
pub use rows::{Facts, Known, Verdict};
pub use run::{Options, run};
pub use table::table;
