//! The result of a job that was followed: its report, its failures and its outcome.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use kiln_api::{JobReport, JobView, TaskView};
use kiln_types::{JobState, RelPath, TaskState};

use super::{
    channel::EventSender,
    error::SubmissionError,
    event::{FollowEnd, JobOutcome, SubmissionEvent, SubmissionResult},
};
use crate::{AttemptFilter, Backoff, Client, ClientError, ToRender};

/// The longest wait for a server that is away when the job has ended.
const PATIENCE: Duration = Duration::from_secs(25);
/// The longest wait between two tries.
const LONGEST_WAIT: Duration = Duration::from_secs(13);

/// A job that was followed until its end, or until the caller stopped that.
pub struct FollowedJob {
    pub(crate) end: FollowEnd,
    pub(crate) job: JobView,
    /// Frames whose files were fetched, or were found here.
    pub(crate) landed: u32,
    /// Frames among them that replaced those of an earlier save or of other settings.
    pub(crate) replaced: u32,
    /// Files that were not replaced, each with its frame.
    pub(crate) left: Vec<(i32, RelPath)>,
    /// Frames that were not asked for here are left on the farm.
    pub(crate) leaves_others: bool,
    /// The reason why frames were not fetched.
    pub(crate) fetch_error: Option<SubmissionError>,
    pub(crate) out: Option<PathBuf>,
    pub(crate) before: Option<ToRender>,
    pub(crate) notices: Vec<String>,
    pub(crate) client: Client,
    pub(crate) events: EventSender,
}

impl FollowedJob {
    pub fn end(&self) -> FollowEnd {
        self.end
    }

    pub fn outcome(&self) -> JobOutcome {
        match (self.end, self.job.state) {
            (FollowEnd::Detached, _) => JobOutcome::Detached,
            (FollowEnd::Held, _) if self.fetch_error.is_none() && self.left.is_empty() => JobOutcome::Held,
            (FollowEnd::Stopped, _) | (_, JobState::Cancelled) => JobOutcome::Cancelled,
            _ if self.fetch_error.is_some() || !self.left.is_empty() => JobOutcome::Failed,
            (_, JobState::Completed) => JobOutcome::Done,
            _ => JobOutcome::Failed,
        }
    }

    /// Reads the report and the failures of the job, if it has ended.
    pub async fn finish(self) -> Result<SubmissionResult, SubmissionError> {
        let outcome = self.outcome();
        let (report, failed) = if self.end == FollowEnd::Ended {
            (self.report().await?, failed_tasks(&self.client, &self.job).await?)
        } else {
            (None, Vec::new())
        };
        let log_tail = self.log_tail(&failed).await?;
        let before = self.before.as_ref();
        let mut suspicious = before.map(|before| before.suspicious.clone()).unwrap_or_default();
        if let Some(report) = &report {
            suspicious = suspicious.and(report.suspicious.clone());
        }
        Ok(SubmissionResult {
            outcome,
            end: self.end,
            out: self.out,
            landed: self.landed,
            kept: before.map_or(0, |before| before.kept),
            skipped: before.map_or(0, |before| before.skipped),
            replaced: self.replaced,
            older: before.map_or(0, |before| before.older),
            left: self.left.into_iter().map(|(_, path)| path).collect(),
            fetch_error: self.fetch_error.map(|error| error.to_string()),
            failed,
            log_tail,
            report,
            suspicious,
            notices: self.notices,
            job: Some(self.job),
        })
    }

    /// Reads the report of a job that has ended. If the server stays away, there is none, because the frames are here all the
    /// same.
    async fn report(&self) -> Result<Option<JobReport>, SubmissionError> {
        let mut backoff = Backoff::new(Duration::from_millis(200), LONGEST_WAIT);
        let begun = Instant::now();
        loop {
            match self.client.report(self.job.id).await {
                Ok(report) => return Ok(Some(report)),
                Err(error) if error.is_transient() && begun.elapsed() < PATIENCE => {
                    tokio::time::sleep(backoff.failed()).await;
                }
                Err(error) if error.is_transient() => {
                    self.events.tell(SubmissionEvent::NoReport { reason: error.to_string() });
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Returns Blender's last lines of the failure that stopped the job, or else of the first frame that failed.
    async fn log_tail(&self, failed: &[TaskView]) -> Result<Vec<String>, SubmissionError> {
        if let Some(reason) = &self.job.reason {
            return Ok(reason.log_tail.clone());
        }
        let Some(first) = failed.first() else { return Ok(Vec::new()) };
        let which = AttemptFilter { frame: first.name.frame, ..AttemptFilter::default() };
        let attempts = self.client.attempts(self.job.id, &which).await?.attempts;
        let mut failures = attempts.into_iter().rev().filter_map(|attempt| attempt.failure);
        Ok(failures.next().map(|failure| failure.log_tail).unwrap_or_default())
    }
}

/// Returns every failed task of a job.
pub async fn failed_tasks(client: &Client, job: &JobView) -> Result<Vec<TaskView>, ClientError> {
    let mut all = Vec::new();
    for step in job.steps.iter().filter(|step| step.tasks.failed > 0) {
        let mut from = None;
        loop {
            let page = client.tasks(job.id, Some(step.index), Some(TaskState::Failed), from).await?;
            all.extend(page.tasks);
            from = page.next;
            if from.is_none() {
                break;
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::submission::samples::job;

    fn followed(end: FollowEnd, state: &str) -> FollowedJob {
        FollowedJob {
            end,
            job: job(7, state),
            landed: 0,
            replaced: 0,
            left: Vec::new(),
            leaves_others: false,
            fetch_error: None,
            out: None,
            before: None,
            notices: Vec::new(),
            client: Client::new("http://127.0.0.1:1", "key").unwrap(),
            events: EventSender::silent(),
        }
    }

    #[test]
    fn the_outcome_is_that_of_the_job_unless_its_frames_did_not_come() {
        use FollowEnd::{Detached, Ended, Stopped};
        let outcome = |end, state| followed(end, state).outcome();
        assert_eq!(outcome(Ended, "completed"), JobOutcome::Done);
        assert_eq!(outcome(Ended, "failed"), JobOutcome::Failed);
        assert_eq!(outcome(Ended, "cancelled"), JobOutcome::Cancelled);
        assert_eq!(outcome(Stopped, "running"), JobOutcome::Cancelled);
        assert_eq!(outcome(Detached, "running"), JobOutcome::Detached);
        let mut left = followed(Ended, "completed");
        left.left.push((3, RelPath::new("frames/shot_0003.png").unwrap()));
        assert_eq!(left.outcome(), JobOutcome::Failed);
        let error = SubmissionError::FrameGone { job: left.job.id, frame: 3 };
        let gone = FollowedJob { fetch_error: Some(error), ..followed(Ended, "completed") };
        assert_eq!(gone.outcome(), JobOutcome::Failed);
    }
}
