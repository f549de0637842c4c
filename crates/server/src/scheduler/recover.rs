//! Recovery of a scheduler that contradicts itself: it begins again from the records, as after a restart of the
//! server.

use std::any::Any;

use kiln_core::BrokenInvariant;
use kiln_types::{Failure, FailureCause};

use super::{
    actor::Scheduler,
    batch::Batch,
    broken::{Remedy, Taken},
    reading::Loading,
    restore,
};
use crate::error::ServerError;

impl Scheduler {
    /// Drops the batch of the turn that panicked and begins again from the records: a new epoch, without links.
    /// Requests that wait for an answer are told to try again. A job that does it a second time is paused.
    ///
    /// The next turn goes on with the inputs that were not applied yet.
    pub(super) async fn recover(&mut self, panic: Box<dyn Any + Send>) -> Result<(), ServerError> {
        let (job, what) = match panic.downcast::<BrokenInvariant>() {
            Ok(broken) => (broken.job, broken.what),
            Err(other) => (None, text_of(&*other)),
        };
        for Taken { what, job, worker } in self.taken.drain(..) {
            tracing::error!(what, ?job, ?worker, "input dropped");
        }
        let remedy = self.broken.note(job);
        tracing::error!(
            ?job,
            what,
            ?remedy,
            "scheduler contradicts itself; it begins again from the records"
        );
        if remedy == Remedy::End {
            return Err(ServerError::Inside(what));
        }
        // Dropping them answers those who wait, see `SchedulerHandle::ask`.
        self.batch = Batch::default();
        self.loading = Loading::new(self.loading.store());
        // Each says that it is gone, connects again and says what it holds.
        for (_, known) in self.farm.workers.iter_mut() {
            if let Some(link) = known.link.take() {
                link.end.cancel();
            }
        }
        self.store.begin_epoch().await?;
        let (clock, heartbeat_ms) = (self.farm.clock, self.farm.heartbeat_ms);
        self.farm = restore::farm(&self.store, clock, self.config.clone(), heartbeat_ms).await?;
        if let Remedy::Pause(job) = remedy {
            let message = format!(
                "it was paused: the scheduler contradicted itself about it twice ({what}); please report this"
            );
            let reason = Failure::new(FailureCause::Other, message);
            // It may have ended, or is gone.
            let _ = self.farm.core.suspend_job(job, reason, &mut self.batch.outbox);
        }
        Ok(self.commit().await?)
    }
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without words".to_owned())
}
