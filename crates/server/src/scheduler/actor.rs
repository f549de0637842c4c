//! The state of the scheduler.

use std::{collections::VecDeque, sync::Arc};

use kiln_store::Store;
use tokio::sync::mpsc;

use super::{
    batch::Batch,
    broken::{AppliedInput, BrokenCounts},
    farm::FarmState,
    input::Input,
    reading::Loading,
};
use crate::{arrivals::Arrivals, events::Hub, logs::Logs};

pub(crate) struct Scheduler {
    pub(super) farm: FarmState,
    pub(super) batch: Batch,
    /// With a connection of its own.
    pub(super) store: Store,
    pub(super) loading: Loading,
    pub(super) hub: Arc<Hub>,
    pub(super) logs: Logs,
    pub(super) arrivals: Arc<Arrivals>,
    /// Inputs of workers.
    pub(super) messages: mpsc::Receiver<Input>,
    /// Inputs of clients.
    pub(super) requests: mpsc::Receiver<Input>,
    pub(super) config: kiln_core::Config,
    /// Inputs of this turn that are not applied yet.
    pub(super) pending: VecDeque<Input>,
    /// Inputs of this turn that are applied, for the log if the turn is dropped.
    pub(super) applied: Vec<AppliedInput>,
    pub(super) broken: BrokenCounts,
}
