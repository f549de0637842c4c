//! What takes as long as the records are large, and so happens beside the loop or in parts: reading jobs back, and letting
//! go of what is due.

use kiln_api::Change;
use kiln_store::{Due, Expired, Expiry, NewEvent, StoreError};
use kiln_types::JobId;

use super::{
    actor::Scheduler,
    input::{Input, JobAction, Reply},
    reading::{PendingJob, ReadJob},
    refusal::Refusal,
    restore,
};
use crate::{clock::unix_ms, events::new_event};

impl Scheduler {
    /// Applies what a person wants of a job, or has it wait until the job is read: a verb may lead an ended one back to
    /// life.
    pub(super) async fn begin_verb(&mut self, job: JobId, verb: JobAction, reply: Reply<u32>) {
        if let Some(waiting) = self.loading.jobs.get_mut(&job) {
            waiting.verbs.push((verb, reply));
        // One deleted in this very turn is in the records still.
        } else if self.farm.jobs.contains_key(&job) || self.batch.deleted.contains(&job) {
            self.apply_verb(job, verb, reply).await;
        } else {
            self.loading.begin(job, verb, reply);
        }
    }

    async fn apply_verb(&mut self, job: JobId, verb: JobAction, reply: Reply<u32>) {
        if let JobAction::Change(change) = verb {
            let answer = match self.completed_before(job, &change).await {
                Ok(completed) => self.change(job, change, &completed).map(|()| 0),
                Err(refusal) => Err(refusal),
            };
            self.batch.answer(reply, answer);
        } else {
            self.apply(Input::Job { job, verb, reply });
        }
    }

    /// Takes up a job that was read, with all that waited for it.
    pub(super) async fn take_up(&mut self, (job, read): ReadJob) {
        let Some(PendingJob { verbs, inputs_gone_ms, without_files }) = self.loading.jobs.remove(&job) else {
            return;
        };
        let there = match read {
            Ok(Some(loaded)) => {
                restore::job(&mut self.farm, &self.store, loaded).await.map_err(|error| error.to_string())
            }
            // Each is told that there is no such job.
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Some(live) = self.farm.jobs.get_mut(&job) {
            live.inputs_gone_ms = inputs_gone_ms.or(live.inputs_gone_ms);
        }
        without_files.into_iter().for_each(|key| self.farm.remove_files(key));
        for (verb, reply) in verbs {
            match &there {
                Ok(()) => self.apply_verb(job, verb, reply).await,
                Err(error) => {
                    let refusal = Refusal::failed("the job could not be read from the records", error);
                    self.batch.answer(reply, Err(refusal));
                }
            }
        }
    }

    /// A transaction of its own between two turns: whatever was decided before is in the records that it judges by,
    /// and whatever is decided later knows what went.
    pub(super) async fn expire(
        &mut self,
        expiry: Expiry,
        due: &Due,
        reply: Reply<Expired>,
    ) -> Result<(), StoreError> {
        self.turn().await?;
        let (expired, events) = self.store.expire(&expiry, due, told).await?;
        self.hub.publish(&events);
        for job in &expired.inputs {
            if let Some(live) = self.farm.jobs.get_mut(job) {
                live.inputs_gone_ms = Some(expiry.at_ms);
            }
            if let Some(waiting) = self.loading.jobs.get_mut(job) {
                waiting.inputs_gone_ms = Some(expiry.at_ms);
            }
        }
        for key in &expired.intermediates {
            self.farm.remove_files(*key);
            if let Some(waiting) = self.loading.jobs.get_mut(&key.0.job) {
                waiting.without_files.push(*key);
            }
        }
        self.batch.answer(reply, Ok(expired));
        Ok(())
    }
}

/// An event for each job of which something went.
fn told(expired: &Expired) -> Vec<NewEvent> {
    let at_ms = unix_ms();
    let mut jobs: Vec<JobId> =
        [&expired.inputs, &expired.outputs, &expired.logs].into_iter().flatten().copied().collect();
    jobs.sort_unstable();
    jobs.dedup();
    let event = |job: JobId| {
        let went = |of: &[JobId]| of.contains(&job);
        let change = Change::JobExpired {
            inputs: went(&expired.inputs),
            outputs: went(&expired.outputs),
            logs: went(&expired.logs),
        };
        new_event(at_ms, Some(job), None, &change)
    };
    jobs.into_iter().map(event).collect()
}

#[cfg(test)]
impl Scheduler {
    /// Waits until all that is being read is taken up.
    pub(super) async fn settle(&mut self) {
        while let Some(read) = self.loading.next().await {
            self.take_up(read).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kiln_core::{Config, JobError};
    use kiln_store::{Durability, ReadPool, Store, Write};
    use kiln_types::{EventNumber, JobState};
    use tempfile::TempDir;
    use tokio::sync::oneshot::{self, error::TryRecvError};

    use super::super::{
        SchedulerHandle,
        tests::{new_bundle, spec},
    };
    use super::*;
    use crate::{events::Hub, logs::Logs, space};

    struct World {
        scheduler: Scheduler,
        handle: SchedulerHandle,
        folder: TempDir,
    }

    impl World {
        /// With a job that ended so long ago that the core has forgotten it.
        async fn with_an_old_job() -> (Self, JobId) {
            let folder = tempfile::tempdir().unwrap();
            let (store, _) = Store::open(folder.path(), Durability::Ephemeral).await.unwrap();
            store.commit(vec![Write::InsertBundle { bundle: new_bundle(9), at_ms: 1 }]).await.unwrap();
            let logs = Logs::open(folder.path().join("logs"), space::of(folder.path())).unwrap();
            let (scheduler, handle) =
                Scheduler::open(store, Arc::new(Hub::new()), logs, Config::default(), 5_000).await.unwrap();
            let mut world = Self { scheduler, handle, folder };
            let mut submitted = world.submit();
            world.round().await;
            let job = submitted.try_recv().unwrap().unwrap();
            let mut cancelled = world.verb(job, JobAction::Cancel);
            world.round().await;
            cancelled.try_recv().unwrap().unwrap();
            world.scheduler.farm.core.forget(job).unwrap();
            world.scheduler.farm.jobs.remove(&job);
            (world, job)
        }

        async fn round(&mut self) {
            self.scheduler.round(&mut Vec::new(), &mut Vec::new()).await.unwrap();
        }

        fn ask<T>(&self, input: impl FnOnce(Reply<T>) -> Input) -> oneshot::Receiver<Result<T, Refusal>> {
            let (reply, answer) = oneshot::channel();
            self.handle.asked.try_send(input(reply)).ok().unwrap();
            answer
        }

        fn submit(&self) -> oneshot::Receiver<Result<JobId, Refusal>> {
            let spec = Box::new(spec(9, "sequential", false));
            self.ask(|reply| Input::Submit { spec, notices: Vec::new(), held: false, reply })
        }

        fn verb(&self, job: JobId, verb: JobAction) -> oneshot::Receiver<Result<u32, Refusal>> {
            self.ask(|reply| Input::Job { job, verb, reply })
        }

        async fn state(&self, job: JobId) -> JobState {
            self.scheduler.store.job(job).await.unwrap().unwrap().state
        }
    }

    #[tokio::test]
    async fn a_job_that_must_be_read_holds_up_nobody_else_and_what_is_wanted_of_it_keeps_its_order() {
        let (mut world, old) = World::with_an_old_job().await;
        let mut retried = world.verb(old, JobAction::Retry);
        let mut submitted = world.submit();
        world.round().await;
        // The turn has not waited for the job to be read.
        assert_eq!(retried.try_recv().unwrap_err(), TryRecvError::Empty);
        submitted.try_recv().unwrap().unwrap();
        let mut paused = world.verb(old, JobAction::Pause);
        world.round().await;
        world.scheduler.settle().await;
        world.round().await;
        retried.try_recv().unwrap().unwrap();
        paused.try_recv().unwrap().unwrap();
        assert_eq!(world.state(old).await, JobState::Paused);
        // A job that there is not is not waited for for ever.
        let mut none = world.verb(JobId(77), JobAction::Pause);
        world.round().await;
        world.scheduler.settle().await;
        world.round().await;
        let refused = none.try_recv().unwrap().unwrap_err();
        assert_eq!(refused, JobError::NoSuchJob(JobId(77)).into());
        world.scheduler.farm.core.sanity_check();
    }

    #[tokio::test]
    async fn the_loop_itself_takes_up_what_was_read() {
        let (world, old) = World::with_an_old_job().await;
        let World { scheduler, handle, folder: _folder } = world;
        let stop = tokio_util::sync::CancellationToken::new();
        let running = tokio::spawn(scheduler.run(stop.clone()));
        let retried = handle.ask(|reply| Input::Job { job: old, verb: JobAction::Retry, reply });
        let retried = tokio::time::timeout(std::time::Duration::from_secs(20), retried).await;
        retried.expect("nothing else wakes the loop").unwrap();
        stop.cancel();
        running.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn files_that_go_while_a_job_is_read_are_gone_and_that_is_in_the_records_with_them() {
        let (mut world, old) = World::with_an_old_job().await;
        let due = Some(i64::MAX);
        let expiry = Expiry {
            at_ms: 7,
            inputs_ms: due,
            outputs_ms: due,
            logs_ms: due,
            promised_ms: i64::MAX,
            ..Expiry::default()
        };
        let found = world.scheduler.store.reading_by(ReadPool::Scans).due(&expiry).await.unwrap();
        let before = world.scheduler.store.last_event().await.unwrap();
        let mut retried = world.verb(old, JobAction::Retry);
        world.round().await;
        assert!(world.scheduler.loading.jobs.contains_key(&old));
        let (reply, _answer) = oneshot::channel();
        world.scheduler.take(Input::Expire { expiry, due: Box::new(found), reply }).await.unwrap();
        // Whatever happens to the server now.
        let events = world.scheduler.store.events_after(before, 9, Some(old)).await.unwrap();
        assert_eq!(events.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>(), ["job-expired"]);
        assert!(events[0].number > EventNumber(0));
        world.scheduler.settle().await;
        world.round().await;
        let refused = retried.try_recv().unwrap().unwrap_err();
        assert!(matches!(refused, Refusal::FilesRemoved { job, .. } if job == old), "{refused:?}");
        assert_eq!(world.state(old).await, JobState::Cancelled);
    }
}
