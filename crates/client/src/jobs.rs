//! Requests about jobs and workers.

use std::fmt::Display;

use kiln_api::{
    AttemptView, AttemptsPage, ChangeJob, Collect, Collected, Explanation, ExtendJob, Fetched, JobList,
    JobReport, JobView, OutputsPage, ReopenedJob, RerenderJob, RunningList, StepFilesPage, SubmitJob,
    TasksPage, WorkerList, WorkerView,
};
use kiln_types::{
    ArchivedFilter, AttemptId, AttemptState, FrameSet, JobId, JobState, Owner, Project, StepIndex, StepSpec,
    TaskIndex, TaskState,
};
use reqwest::Method;

use crate::{Client, ClientError, routes};

/// The selection of a page of jobs, newest first.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// Empty for every state.
    pub states: Vec<JobState>,
    pub user: Option<Owner>,
    pub project: Option<Project>,
    pub archived: ArchivedFilter,
    /// The most jobs; up to 500.
    pub limit: Option<u32>,
    /// Only older ones than this.
    pub before: Option<JobId>,
}

/// The selection of a page of attempts, newest first.
#[derive(Debug, Clone, Default)]
pub struct AttemptFilter {
    pub frame: Option<i32>,
    /// Only attempts that failed, or were lost with their worker.
    pub failed: bool,
    pub state: Option<AttemptState>,
    /// Only older ones than this.
    pub before: Option<AttemptId>,
    /// The most attempts; up to [`AttemptFilter::MOST`].
    pub limit: Option<u32>,
}

impl AttemptFilter {
    /// The most attempts of one page.
    pub const MOST: u32 = 5000;
}

impl Client {
    /// Submits a job.
    pub async fn submit(&self, job: &SubmitJob) -> Result<JobView, ClientError> {
        self.post(&routes::jobs(), job).await
    }

    /// Returns a page of jobs.
    pub async fn jobs(&self, which: &JobFilter) -> Result<JobList, ClientError> {
        let JobFilter { states, user, project, archived, limit, before } = which;
        let states: Vec<&str> = states.iter().map(|state| state.as_str()).collect();
        let states = (!states.is_empty()).then(|| states.join(","));
        let archived = (*archived != ArchivedFilter::default()).then_some(*archived);
        let (user, project) = (user.as_ref().map(|user| &user.0), project.as_ref().map(|project| &project.0));
        let parameters = [
            ("state", shown(&states)),
            ("user", shown(&user)),
            ("project", shown(&project)),
            ("archived", shown(&archived)),
            ("limit", shown(limit)),
            ("before", shown(before)),
        ];
        self.get(&routes::with(routes::jobs(), &parameters)).await
    }

    pub async fn job(&self, id: JobId) -> Result<JobView, ClientError> {
        self.get(&routes::job(id)).await
    }

    /// Returns the reasons why a job waits, and the time that it will take.
    pub async fn explain(&self, id: JobId) -> Result<Explanation, ClientError> {
        self.get(&routes::of_job(id, "explain")).await
    }

    pub async fn cancel(&self, id: JobId) -> Result<(), ClientError> {
        self.tell(Method::POST, &routes::of_job(id, "cancel")).await
    }

    pub async fn pause(&self, id: JobId) -> Result<(), ClientError> {
        self.tell(Method::POST, &routes::of_job(id, "pause")).await
    }

    pub async fn resume(&self, id: JobId) -> Result<(), ClientError> {
        self.tell(Method::POST, &routes::of_job(id, "resume")).await
    }

    /// Tries the failed frames again.
    pub async fn retry(&self, id: JobId) -> Result<(), ClientError> {
        self.tell(Method::POST, &routes::of_job(id, "retry")).await
    }

    /// Renders frames again, or all if `frames` is `None`.
    pub async fn rerender(&self, id: JobId, frames: Option<FrameSet>) -> Result<(), ClientError> {
        self.render_again(id, RerenderJob { frames, bake: false }).await
    }

    /// Bakes a job's simulations again, and renders all its frames from them.
    pub async fn rebake(&self, id: JobId) -> Result<(), ClientError> {
        self.render_again(id, RerenderJob { frames: None, bake: true }).await
    }

    async fn render_again(&self, id: JobId, what: RerenderJob) -> Result<(), ClientError> {
        let request = self.request(Method::POST, &routes::of_job(id, "rerender")).json(&what);
        self.send(request).await.map(drop)
    }

    /// Changes the scheduling options of a job.
    pub async fn change(&self, id: JobId, change: &ChangeJob) -> Result<JobView, ClientError> {
        self.answered(self.request(Method::PATCH, &routes::job(id)).json(change)).await
    }

    /// Adds frames.
    pub async fn extend(&self, id: JobId, frames: FrameSet) -> Result<(), ClientError> {
        let request = self.request(Method::POST, &routes::of_job(id, "extend")).json(&ExtendJob { frames });
        self.send(request).await.map(drop)
    }

    /// Deletes a job that has ended, with its outputs; with `force`, one that has not is cancelled first.
    pub async fn delete(&self, id: JobId, force: bool) -> Result<(), ClientError> {
        let force = force.then_some(true);
        self.tell(Method::DELETE, &routes::with(routes::job(id), &[("force", shown(&force))])).await
    }

    /// Archives a job that has ended.
    pub async fn archive(&self, id: JobId) -> Result<(), ClientError> {
        self.tell(Method::POST, &routes::of_job(id, "archive")).await
    }

    pub async fn unarchive(&self, id: JobId) -> Result<(), ClientError> {
        self.tell(Method::POST, &routes::of_job(id, "unarchive")).await
    }

    /// Reports that all outputs up to this sequence are on this machine's disk.
    pub async fn fetched(&self, id: JobId, sequence: u64) -> Result<(), ClientError> {
        let request = self.request(Method::POST, &routes::of_job(id, "fetched")).json(&Fetched { sequence });
        self.send(request).await.map(drop)
    }

    /// Deletes what has expired, or only returns what would be deleted.
    pub async fn collect(&self, dry_run: bool) -> Result<Collected, ClientError> {
        self.post(&routes::collect(), &Collect { dry_run }).await
    }

    /// Returns the tasks of a step, or else the frames, from the index `from` on; with `state`, only those in it.
    pub async fn tasks(
        &self,
        id: JobId,
        step: Option<StepIndex>,
        state: Option<TaskState>,
        from: Option<TaskIndex>,
    ) -> Result<TasksPage, ClientError> {
        let parameters = [("step", shown(&step)), ("state", shown(&state)), ("from", shown(&from))];
        self.get(&routes::with(routes::of_job(id, "tasks"), &parameters)).await
    }

    /// Returns a page of attempts, newest first.
    pub async fn attempts(&self, id: JobId, which: &AttemptFilter) -> Result<AttemptsPage, ClientError> {
        let AttemptFilter { frame, failed, state, before, limit } = which;
        let failed = failed.then_some(true);
        let parameters = [
            ("frame", shown(frame)),
            ("failed", shown(&failed)),
            ("state", shown(state)),
            ("before", shown(before)),
            ("limit", shown(limit)),
        ];
        self.get(&routes::with(routes::of_job(id, "attempts"), &parameters)).await
    }

    /// Returns all attempts, newest first.
    pub async fn all_attempts(
        &self,
        id: JobId,
        mut which: AttemptFilter,
    ) -> Result<Vec<AttemptView>, ClientError> {
        which.limit = Some(AttemptFilter::MOST);
        let mut all = Vec::new();
        loop {
            let page = self.attempts(id, &which).await?;
            all.extend(page.attempts);
            which.before = page.next;
            if which.before.is_none() {
                return Ok(all);
            }
        }
    }

    /// Returns the running tasks of a job, at most `limit` of them in full.
    pub async fn running(&self, id: JobId, limit: u32) -> Result<RunningList, ClientError> {
        self.get(&routes::with(routes::of_job(id, "running"), &[("limit", Some(&limit))])).await
    }

    /// Returns the running tasks of all jobs.
    pub async fn running_everywhere(&self) -> Result<RunningList, ClientError> {
        self.get(&routes::running()).await
    }

    /// Returns the outputs that were committed after this sequence; 0 for all.
    pub async fn outputs(&self, id: JobId, after: u64) -> Result<OutputsPage, ClientError> {
        self.get(&routes::with(routes::of_job(id, "outputs"), &[("after", Some(&after))])).await
    }

    /// Returns the committed files of a step after this sequence, 0 for all; with a frame, only those of that frame.
    pub async fn step_files(
        &self,
        id: JobId,
        step: StepIndex,
        frame: Option<i32>,
        after: u64,
    ) -> Result<StepFilesPage, ClientError> {
        let parameters = [("frame", shown(&frame)), ("after", Some(&after as _))];
        self.get(&routes::with(routes::of_job(id, &format!("steps/{step}/files")), &parameters)).await
    }

    pub async fn report(&self, id: JobId) -> Result<JobReport, ClientError> {
        self.get(&routes::of_job(id, "report")).await
    }

    /// Adds a step to a job, which reopens it if it has ended.
    pub async fn add_step(&self, id: JobId, step: &StepSpec) -> Result<ReopenedJob, ClientError> {
        self.post(&routes::of_job(id, "steps"), step).await
    }

    /// Returns what Blender printed in one attempt.
    pub async fn attempt_log(&self, job: JobId, attempt: AttemptId) -> Result<String, ClientError> {
        let response = self.send(self.request(Method::GET, &routes::attempt_log(job, attempt))).await?;
        let bytes = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    pub async fn workers(&self) -> Result<Vec<WorkerView>, ClientError> {
        self.get(&routes::workers()).await.map(|list: WorkerList| list.workers)
    }

    pub async fn worker(&self, name: &str) -> Result<WorkerView, ClientError> {
        self.get(&routes::worker(name)).await
    }

    /// Sends a verb to a worker: `pause`, `resume`, `drain`, `stop`, `wake` or `unquarantine`.
    pub async fn tell_worker(&self, name: &str, verb: &str) -> Result<(), ClientError> {
        self.tell(Method::POST, &routes::of_worker(name, verb)).await
    }

    /// Forgets a worker that is offline.
    pub async fn remove_worker(&self, name: &str) -> Result<(), ClientError> {
        self.tell(Method::DELETE, &routes::worker(name)).await
    }
}

fn shown<T: Display + Sync>(value: &Option<T>) -> Option<&(dyn Display + Sync)> {
    value.as_ref().map(|value| value as &(dyn Display + Sync))
}
