//! The whole program, as a person runs it.

#![allow(clippy::unwrap_used)]

mod again;
mod availability;
mod bad_input;
mod bake;
mod bundle;
mod cli;
mod crash;
mod curl;
mod denoiser;
mod devices;
mod elsewhere;
mod farm;
mod fidelity;
mod first_hour;
mod fixture;
mod formats;
mod four;
mod gaps;
mod health;
mod hold;
mod house;
mod install;
mod layers;
mod limits;
mod names;
mod netns;
mod network;
mod order;
mod reboot;
mod render;
mod sample;
mod service;
mod set;
mod shared;
mod steps;
mod support;
mod suspicious;
mod terminal;
mod top;
mod traffic;
mod unused;
mod user;
mod variants;
mod verbs;

mod words;
mod workflows;
