//! Kiln as a systemd service: its unit, and the calls of systemd.

pub mod arguments;
pub mod program;
mod quoting;
pub mod ready;
mod role;
pub mod systemd;
pub mod unit;

pub use role::ServiceRole;
