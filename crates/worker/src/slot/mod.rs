//! One slot: an actor that carries out the effects of its state machine.

mod actor;
mod advance;
mod context;
mod effects;
mod requests;
mod state;
mod task;
#[cfg(test)]
mod tests;

pub(crate) use actor::start;
pub(crate) use context::{FinishedTask, SlotCommand, SlotContext, SlotEvent};
pub(crate) use effects::SlotNotice;
pub(crate) use task::{BlenderAction, BlenderTask, SlotTask};
