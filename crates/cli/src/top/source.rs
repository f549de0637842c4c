//! Reads the farm from its server.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use kiln_api::{ChangeJob, JobView, WorkerView};
use kiln_client::{AttemptFilter, Client, ClientError, JobFilter};
use kiln_types::{AttemptState, JobId, JobState};

use super::{
    known::FarmCache,
    model::{FarmSnapshot, JobVerb, KeyAction, WorkerVerb},
    rate::SPAN,
};

/// The number of the newest jobs, and of the newest open ones.
const NEWEST: u32 = 60;
const OPEN: u32 = 160;
/// The number of older jobs that render.
const OLDER: usize = 100;
/// The numbers of jobs, and of pages of attempts of each, that are read for the rate of the last minutes.
const HISTORY_JOBS: usize = 8;
const PAGES: usize = 4;

/// The requests to a server.
#[derive(Clone)]
pub struct FarmSource {
    client: Client,
    known: FarmCache,
}

impl FarmSource {
    pub fn new(client: Client) -> Self {
        Self { client, known: FarmCache::default() }
    }

    /// Notes that a worker changed, so that all are read in full.
    pub fn workers_changed(&self) {
        self.known.note_change();
    }

    async fn workers(&self) -> Result<Vec<WorkerView>, ClientError> {
        if self.known.is_current() {
            let running = self.client.running_everywhere().await?;
            if let Some(workers) = self.known.running(running, Timestamp::now().as_millisecond()) {
                return Ok(workers);
            }
        }
        let changes = self.known.changes();
        let workers = self.client.workers().await?;
        self.known.replace(&workers, changes);
        Ok(workers)
    }

    /// Reads jobs and workers.
    pub async fn read(&self) -> Result<FarmSnapshot, ClientError> {
        let newest = JobFilter { limit: Some(NEWEST), ..JobFilter::default() };
        let states = JobState::ALL.iter().copied().filter(|state| !state.is_end()).collect();
        let open = JobFilter { states, limit: Some(OPEN), ..JobFilter::default() };
        let (newest, open, workers) =
            tokio::try_join!(self.client.jobs(&newest), self.client.jobs(&open), self.workers())?;
        let mut jobs: BTreeMap<JobId, JobView> =
            newest.jobs.into_iter().chain(open.jobs).map(|job| (job.id, job)).collect();
        let running: BTreeSet<JobId> =
            workers.iter().flat_map(|worker| &worker.running).map(|run| run.job).collect();
        for id in running.into_iter().filter(|id| !jobs.contains_key(id)).take(OLDER).collect::<Vec<_>>() {
            match self.client.job(id).await {
                Ok(job) => drop(jobs.insert(id, job)),
                // It was deleted.
                Err(ClientError::Problem(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(FarmSnapshot::new(jobs.into_values().collect(), workers))
    }

    /// Returns the times at which frames were done in the last minutes, by the server's clock; `None` if they are too many.
    pub async fn read_history(&self, farm: &FarmSnapshot, now: i64) -> Result<Option<Vec<i64>>, ClientError> {
        let from = now - SPAN;
        let recent = |job: &&JobView| {
            job.tasks.done > 0 && job.ended_ms.is_none_or(|ended| ended > from || !job.state.is_end())
        };
        let jobs: Vec<&JobView> = farm.jobs.iter().filter(recent).collect();
        if jobs.len() > HISTORY_JOBS {
            return Ok(None);
        }
        let mut done = Vec::new();
        for job in jobs {
            let mut before = None;
            for asked in 0..=PAGES {
                if asked == PAGES {
                    return Ok(None);
                }
                let which = AttemptFilter { before, ..AttemptFilter::default() };
                let page = self.client.attempts(job.id, &which).await?;
                let frames = page.attempts.iter().filter(|attempt| attempt.state == AttemptState::Committed);
                done.extend(frames.filter_map(|frame| frame.ended_ms).filter(|at| *at > from));
                let old = page.attempts.last().is_none_or(|oldest| oldest.opened_ms < from);
                before = page.next;
                if before.is_none() || old {
                    break;
                }
            }
        }
        Ok(Some(done))
    }

    /// Carries out the action of a key, and describes it in a sentence.
    pub async fn carry_out(&self, action: &KeyAction) -> Result<String, ClientError> {
        let client = &self.client;
        match action {
            KeyAction::Quit => Ok(String::new()),
            KeyAction::Job(id, JobVerb::Pause) => {
                client.pause(*id).await.map(|()| format!("job {id} is paused"))
            }
            KeyAction::Job(id, JobVerb::Resume) => {
                client.resume(*id).await.map(|()| format!("job {id} continues"))
            }
            KeyAction::Job(id, JobVerb::Cancel) => {
                client.cancel(*id).await.map(|()| format!("job {id} is cancelled"))
            }
            KeyAction::Job(id, JobVerb::Retry) => {
                client.retry(*id).await.map(|()| format!("job {id} tries its failed frames again"))
            }
            KeyAction::Job(id, JobVerb::Priority(priority)) => {
                let change = ChangeJob { priority: Some(*priority), ..ChangeJob::default() };
                client.change(*id, &change).await.map(|_| format!("job {id} has priority {priority}"))
            }
            KeyAction::Worker(name, verb) => {
                let (verb, does) = match verb {
                    WorkerVerb::Pause => ("pause", "gets no further work"),
                    WorkerVerb::Resume => ("resume", "gets work again"),
                    WorkerVerb::Drain => ("drain", "finishes what it renders, then leaves"),
                };
                client.tell_worker(name, verb).await.map(|()| format!("{name} {does}"))
            }
            KeyAction::Explain(id) => {
                let (job, why) = tokio::try_join!(client.job(*id), client.explain(*id))?;
                Ok(crate::output::explain::explanation(&job, &why))
            }
        }
    }
}
