//! The state of the scheduler.

use std::{collections::VecDeque, sync::Arc};

use kiln_store::Store;
use tokio::sync::mpsc;

use super::{
    batch::Batch,
    broken::{Broken, Taken},
    farm::FarmState,
    input::Input,
    reading::Loading,
};
use crate::{arrivals::Arrivals, events::Hub, logs::Logs};

/// The loop around the core.
pub(crate) struct Scheduler {
    pub(super) farm: FarmState,
    pub(super) batch: Batch,
    /// Read by a connection of its own.
    pub(super) store: Store,
    pub(super) loading: Loading,
    pub(super) hub: Arc<Hub>,
    pub(super) logs: Logs,
    pub(super) arrivals: Arc<Arrivals>,
    pub(super) told: mpsc::Receiver<Input>,
    pub(super) asked: mpsc::Receiver<Input>,
    pub(super) config: kiln_core::Config,
    /// Inputs of this turn that are not applied yet.
    pub(super) pending: VecDeque<Input>,
    /// Those that are, for the log of a turn that is dropped.
    pub(super) taken: Vec<Taken>,
    pub(super) broken: Broken,
}
