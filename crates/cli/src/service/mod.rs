//! Kiln as a service of systemd: what the unit says, and how systemd is asked.

pub mod arguments;
pub mod program;
mod quoting;
pub mod ready;
mod role;
pub mod systemd;
pub mod unit;

pub use role::ServiceRole;
