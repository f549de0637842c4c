//! Real servers on free ports, with folders of their own, and workers that speak the real protocol.
#![allow(clippy::unwrap_used)]

mod bakes;
mod chunks;
mod devices;
mod disk;
mod events;
mod gate;
mod jobs;
mod killed;
mod loads;
mod openapi;
mod order;
mod race;
mod retention;
mod running;
mod schemathesis;
mod sending;
mod starting;
mod steps;
mod submission;
mod submitting;
mod support;
mod uploads;
mod wake;
mod workers;
