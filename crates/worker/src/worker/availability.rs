//! The times at which the worker takes no work by its own settings.

use std::time::Instant;

use jiff::Zoned;
use kiln_api::Unavailability;

use super::actor::WorkerActor;
use crate::{
    availability::{ActivityMonitor, OnUnavailable},
    event::WorkerEvent,
    slot::SlotCommand,
};

impl WorkerActor {
    /// Decides for the first time, after a look at the machine if that matters.
    pub(super) async fn look_first(&mut self) -> Option<ActivityMonitor> {
        let mut looked = None;
        if self.availability.watches() {
            let (monitor, seen) = ActivityMonitor::new().look().await;
            self.availability.see(&seen, Instant::now());
            looked = Some(monitor);
        }
        self.update_availability();
        looked
    }

    pub(super) fn update_availability(&mut self) {
        let now = self.availability.unavailable(&Zoned::now());
        if now == self.unavailable || self.leaving.is_some() {
            return;
        }
        let before = std::mem::replace(&mut self.unavailable, now);
        // First the farm hears of it: tasks that are returned then count against nothing.
        self.offer();
        match (before, self.unavailable.clone()) {
            (None, Some(reason)) => self.become_unavailable(reason),
            (Some(before), Some(reason)) if before.why != reason.why => {
                self.emit(WorkerEvent::Unavailable { why: reason.why });
            }
            (Some(_), None) => {
                self.emit(WorkerEvent::Available);
                self.command_all(|| SlotCommand::MakeAvailable);
                // A process that is started now is not ended at once because there was no work before.
                self.busy.1 = Instant::now();
                self.prestart();
            }
            _ => {}
        }
    }

    fn become_unavailable(&mut self, reason: Unavailability) {
        self.emit(WorkerEvent::Unavailable { why: reason.why });
        let running = self.availability.on_unavailable() == OnUnavailable::Stop;
        self.return_streams();
        self.command_all(|| SlotCommand::MakeUnavailable { running });
        self.context.processes.drop_spare();
    }
}
