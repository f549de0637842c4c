//! What the scheduler does when it contradicts itself: it begins again from the records, as after a restart of the
//! server.

use std::{any::Any, collections::BTreeMap};

use kiln_core::BrokenInvariant;
use kiln_types::{Failure, FailureCause, JobId, WorkerId};

use super::{Input, Scheduler, batch::Batch, loading::Loading, restore};
use crate::ServerError;

/// The broken invariants so far.
#[derive(Debug, Default)]
pub(super) struct Broken {
    by_job: BTreeMap<JobId, u32>,
    without_job: u32,
}

/// What follows from a broken invariant besides a new beginning.
#[derive(Debug, PartialEq, Eq)]
enum Remedy {
    None,
    /// It was about this job before.
    Pause(JobId),
    /// It was about no job before, and would be so again.
    End,
}

impl Broken {
    fn note(&mut self, job: Option<JobId>) -> Remedy {
        let count = match job {
            Some(job) => self.by_job.entry(job).or_default(),
            None => &mut self.without_job,
        };
        *count += 1;
        match (*count, job) {
            (1, _) => Remedy::None,
            (_, Some(job)) => Remedy::Pause(job),
            (_, None) => Remedy::End,
        }
    }
}

/// An input of the batch that is dropped, as the log shows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    what: &'static str,
    job: Option<JobId>,
    worker: Option<WorkerId>,
}

impl Taken {
    pub(super) fn of(input: &Input) -> Self {
        let (what, job, worker) = match input {
            Input::Submit { .. } => ("submit", None, None),
            Input::Job { job, .. } => ("change of a job", Some(*job), None),
            Input::Join { hello, .. } => ("hello", None, Some(hello.id)),
            Input::Up { worker, .. } => ("message", None, Some(*worker)),
            Input::Finished { worker, .. } => ("report", None, Some(*worker)),
            Input::Gone { worker, .. } => ("lost connection", None, Some(*worker)),
            Input::DesiredState { .. } => ("desired state", None, None),
            Input::Set { .. } => ("setting", None, None),
            Input::Heal { .. } => ("end of a quarantine", None, None),
            Input::RemoveWorker { .. } => ("removal of a worker", None, None),
            Input::Fetched { job, .. } => ("fetched outputs", Some(*job), None),
            Input::Expire { .. } => ("expiry", None, None),
            Input::Look(_) => ("look", None, None),
            #[cfg(test)]
            Input::Panic(_) => ("panic", None, None),
        };
        Self { what, job, worker }
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_paused_the_second_time_and_without_a_job_the_server_ends() {
        let mut broken = Broken::default();
        let (one, other) = (Some(JobId(1)), Some(JobId(2)));
        assert_eq!(broken.note(one), Remedy::None);
        assert_eq!(broken.note(other), Remedy::None);
        assert_eq!(broken.note(None), Remedy::None);
        assert_eq!(broken.note(one), Remedy::Pause(JobId(1)));
        assert_eq!(broken.note(one), Remedy::Pause(JobId(1)));
        assert_eq!(broken.note(None), Remedy::End);
    }
}
