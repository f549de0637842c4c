//! Recovery from a broken invariant: the scheduler begins again from the records, as after a restart of the server.

use std::any::Any;

use kiln_core::BrokenInvariant;
use kiln_types::{Failure, FailureCause};

use super::{
    actor::Scheduler,
    batch::Batch,
    broken::{AppliedInput, Remedy},
    reading::Loading,
    restore,
};
use crate::error::ServerError;

impl Scheduler {
    /// Drops the batch of the turn that panicked and begins again from the records: a new epoch, without links. The clients
    /// of its requests are asked to try again. After the second time about one job, that job is paused. The next turn applies
    /// the remaining inputs.
    pub(super) async fn recover(&mut self, panic: Box<dyn Any + Send>) -> Result<(), ServerError> {
        let (job, what) = match panic.downcast::<BrokenInvariant>() {
            Ok(broken) => (broken.job, broken.what),
            Err(other) => (None, text_of(&*other)),
        };
        for AppliedInput { what, job, worker } in self.applied.drain(..) {
            tracing::error!(what, ?job, ?worker, "input dropped");
        }
        let remedy = self.broken.note(job);
        tracing::error!(?job, what, ?remedy, "scheduler restarted from the records");
        if remedy == Remedy::End {
            return Err(ServerError::Inside(what));
        }
        // This drops the replies, which answers the requests: see `SchedulerHandle::ask`.
        self.batch = Batch::default();
        self.loading = Loading::new(self.loading.store());
        // The workers connect again and report their attempts.
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
            // The job may have ended or be deleted.
            let _ = self.farm.core.suspend_job(job, reason, &mut self.batch.outbox);
        }
        Ok(self.commit().await?)
    }
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}
