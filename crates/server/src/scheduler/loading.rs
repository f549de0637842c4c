//! Work that grows with the records, and so runs beside the loop or in parts: reading jobs, and removing what is due.

use kiln_api::Change;
use kiln_store::{Due, Expired, Expiry, NewEvent, StoreError};
use kiln_types::JobId;

use super::{
    actor::Scheduler,
    input::{Input, JobCommand, Reply},
    reading::{PendingJob, ReadJob},
    refusal::Refusal,
    restore,
};
use crate::{clock::unix_ms, events::new_event};

impl Scheduler {
    /// Applies a command for a job. If the core has forgotten the job, reads it first: a retry continues an ended job.
    pub(super) async fn begin_command(&mut self, job: JobId, command: JobCommand, reply: Reply<u32>) {
        if let Some(waiting) = self.loading.jobs.get_mut(&job) {
            waiting.commands.push((command, reply));
        // A job that was deleted in this turn is still in the records.
        } else if self.farm.jobs.contains_key(&job) || self.batch.deleted.contains(&job) {
            self.apply_command(job, command, reply).await;
        } else {
            self.loading.begin(job, command, reply);
        }
    }

    async fn apply_command(&mut self, job: JobId, command: JobCommand, reply: Reply<u32>) {
        if let JobCommand::Change(change) = command {
            let answer = match self.completed_before(job, &change).await {
                Ok(completed) => self.change_job(job, change, &completed).map(|()| 0),
                Err(refusal) => Err(refusal),
            };
            self.batch.answer(reply, answer);
        } else {
            self.apply(Input::Job { job, command, reply });
        }
    }

    /// Adds a job that was read to the farm, and applies the commands that waited for it.
    pub(super) async fn finish_loading(&mut self, (job, read): ReadJob) {
        let Some(PendingJob { commands, inputs_gone_ms, without_files }) = self.loading.jobs.remove(&job)
        else {
            return;
        };
        let restored = match read {
            Ok(Some(loaded)) => {
                restore::job(&mut self.farm, &self.store, loaded).await.map_err(|error| error.to_string())
            }
            // The commands are refused: there is no such job.
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Some(live) = self.farm.jobs.get_mut(&job) {
            live.inputs_gone_ms = inputs_gone_ms.or(live.inputs_gone_ms);
        }
        without_files.into_iter().for_each(|key| self.farm.note_files_removed(key));
        for (command, reply) in commands {
            match &restored {
                Ok(()) => self.apply_command(job, command, reply).await,
                Err(error) => {
                    let refusal = Refusal::failed("the job could not be read from the records", error);
                    self.batch.answer(reply, Err(refusal));
                }
            }
        }
    }

    /// Removes what is due from the records, in a transaction of its own between two turns: it sees all earlier decisions,
    /// and later decisions see what it removed.
    pub(super) async fn expire(
        &mut self,
        expiry: Expiry,
        due: &Due,
        reply: Reply<Expired>,
    ) -> Result<(), StoreError> {
        self.turn().await?;
        let (expired, events) = self.store.expire(&expiry, due, events_of).await?;
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
            self.farm.note_files_removed(*key);
            if let Some(waiting) = self.loading.jobs.get_mut(&key.0.job) {
                waiting.without_files.push(*key);
            }
        }
        self.batch.answer(reply, Ok(expired));
        Ok(())
    }
}

/// Returns an event for each job of which something was removed.
fn events_of(expired: &Expired) -> Vec<NewEvent> {
    let at_ms = unix_ms();
    let mut jobs: Vec<JobId> =
        [&expired.inputs, &expired.outputs, &expired.logs].into_iter().flatten().copied().collect();
    jobs.sort_unstable();
    jobs.dedup();
    let event = |job: JobId| {
        let change = Change::JobExpired {
            inputs: expired.inputs.contains(&job),
            outputs: expired.outputs.contains(&job),
            logs: expired.logs.contains(&job),
        };
        new_event(at_ms, Some(job), None, &change)
    };
    jobs.into_iter().map(event).collect()
}

#[cfg(test)]
impl Scheduler {
    /// Waits until all jobs that are being read are in the farm.
    pub(super) async fn settle(&mut self) {
        while let Some(read) = self.loading.next().await {
            self.finish_loading(read).await;
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
        /// Starts a scheduler with a job that ended so long ago that the core has forgotten it.
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
            let mut cancelled = world.command(job, JobCommand::Cancel);
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
            self.handle.requests.try_send(input(reply)).ok().unwrap();
            answer
        }

        fn submit(&self) -> oneshot::Receiver<Result<JobId, Refusal>> {
            let spec = Box::new(spec(9, "sequential", false));
            self.ask(|reply| Input::Submit { spec, notices: Vec::new(), held: false, reply })
        }

        fn command(&self, job: JobId, command: JobCommand) -> oneshot::Receiver<Result<u32, Refusal>> {
            self.ask(|reply| Input::Job { job, command, reply })
        }

        async fn state(&self, job: JobId) -> JobState {
            self.scheduler.store.job(job).await.unwrap().unwrap().state
        }
    }

    #[tokio::test]
    async fn reading_a_job_delays_no_other_request_and_its_commands_keep_their_order() {
        let (mut world, old) = World::with_an_old_job().await;
        let mut retried = world.command(old, JobCommand::Retry);
        let mut submitted = world.submit();
        world.round().await;
        // The turn has not waited for the job to be read.
        assert_eq!(retried.try_recv().unwrap_err(), TryRecvError::Empty);
        submitted.try_recv().unwrap().unwrap();
        let mut paused = world.command(old, JobCommand::Pause);
        world.round().await;
        world.scheduler.settle().await;
        world.round().await;
        retried.try_recv().unwrap().unwrap();
        paused.try_recv().unwrap().unwrap();
        assert_eq!(world.state(old).await, JobState::Paused);
        // A command for a job that does not exist is answered, too.
        let mut none = world.command(JobId(77), JobCommand::Pause);
        world.round().await;
        world.scheduler.settle().await;
        world.round().await;
        let refused = none.try_recv().unwrap().unwrap_err();
        assert_eq!(refused, JobError::NoSuchJob(JobId(77)).into());
        world.scheduler.farm.core.sanity_check();
    }

    #[tokio::test]
    async fn the_loop_itself_adds_a_job_that_was_read() {
        let (world, old) = World::with_an_old_job().await;
        let World { scheduler, handle, folder: _folder } = world;
        let stop = tokio_util::sync::CancellationToken::new();
        let running = tokio::spawn(scheduler.run(stop.clone()));
        let retried = handle.ask(|reply| Input::Job { job: old, command: JobCommand::Retry, reply });
        let retried = tokio::time::timeout(std::time::Duration::from_secs(20), retried).await;
        retried.expect("nothing else wakes the loop").unwrap();
        stop.cancel();
        running.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn files_that_are_removed_while_a_job_is_read_are_known_to_be_gone() {
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
        let found = world.scheduler.store.reading_by(ReadPool::Scans).find_due(&expiry).await.unwrap();
        let before = world.scheduler.store.last_event().await.unwrap();
        let mut retried = world.command(old, JobCommand::Retry);
        world.round().await;
        assert!(world.scheduler.loading.jobs.contains_key(&old));
        let (reply, _answer) = oneshot::channel();
        world.scheduler.take(Input::Expire { expiry, due: Box::new(found), reply }).await.unwrap();
        // The event is recorded in the same transaction.
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
