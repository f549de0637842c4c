//! The whole program, as a person runs it.

#![allow(clippy::unwrap_used)]

mod bad_input;
mod cli;
mod house;
mod support;
