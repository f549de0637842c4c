//! The farm's live state: the core, and around it what the core need not know.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

use kiln_api::Down;
use kiln_core::{Account, Core, IndexSet, Moment, Share};
use kiln_store::{ProductKey, Write};
use kiln_types::{
    AccountKind, AttemptId, BundleId, DeviceClass, Epoch, JobId, JobSpec, JobSteps, ProductKind, SessionSpec,
    StepIndex, StepInput, StepSpec, TaskId, TaskName, TaskState, WorkerId,
};
use tokio::sync::mpsc;

use super::{
    paths::Paths,
    roster::{LiveAttempts, Workers},
};
use crate::clock::{Clock, unix_ms};

/// Milliseconds for which an ended job stays in memory, so that late reports of it are still understood.
const KEEP_ENDED_MS: u64 = 10 * 60 * 1000;
/// Between two looks for those that have.
const SWEEP_MS: u64 = 1000;
pub(crate) struct FarmState {
    pub core: Core,
    pub clock: Clock,
    pub epoch: Epoch,
    pub heartbeat_ms: u64,
    pub last_job: JobId,
    /// Those that the core holds.
    pub jobs: HashMap<JobId, LiveJob>,
    pub attempts: LiveAttempts,
    pub workers: Workers,
    /// The settings of users and projects.
    pub shares: BTreeMap<Account, Share>,
    /// The number of each thing that the farm has a limit of.
    pub limits: BTreeMap<String, u32>,
    /// When it was last looked which jobs have ended long ago.
    pub swept: Moment,
}

pub(crate) struct LiveJob {
    pub spec: Arc<JobSpec>,
    pub steps: JobSteps,
    /// Over the finished frames.
    pub seconds: f64,
    pub finished: u32,
    pub notices: HashSet<String>,
    pub ended: Option<Moment>,
    /// Unix milliseconds.
    pub ended_ms: Option<i64>,
    pub archived: bool,
    /// Since when it can render nothing more.
    pub inputs_gone_ms: Option<i64>,
    pub paths: Paths,
    /// The bundles that its steps made last.
    pub bundles: BTreeMap<StepIndex, BundleId>,
    /// The tasks that are done, and whose intermediate files are gone.
    pub without_files: BTreeMap<StepIndex, IndexSet>,
}

impl LiveJob {
    pub(crate) fn new(spec: Arc<JobSpec>, steps: JobSteps) -> Self {
        Self {
            spec,
            steps,
            seconds: 0.0,
            finished: 0,
            notices: HashSet::new(),
            ended: None,
            ended_ms: None,
            archived: false,
            inputs_gone_ms: None,
            paths: Paths::default(),
            bundles: BTreeMap::new(),
            without_files: BTreeMap::new(),
        }
    }

    /// The session that a slot opens for the step; `None` where the step whose bundle it opens is not done, and for a job
    /// that is pinned to no device yet.
    pub(super) fn session(&self, step: &StepSpec) -> Option<SessionSpec> {
        let mut session = self.spec.session.clone();
        if session.device == DeviceClass::Gpu {
            return None;
        }
        if let StepInput::Step(before) = step.opens {
            session.bundle = *self.bundles.get(&before)?;
        }
        Some(session)
    }

    /// The intermediate files of this task are gone.
    pub(super) fn remove_files(&mut self, task: TaskId) {
        self.without_files.entry(task.step).or_default().insert(task.index);
    }

    /// The intermediate files of this task are there.
    pub(super) fn restore_files(&mut self, task: TaskId) {
        if let Some(tasks) = self.without_files.get_mut(&task.step) {
            tasks.remove(task.index);
        }
    }

    /// Seconds, where a frame has finished.
    pub(crate) fn mean_frame_s(&self) -> Option<f64> {
        (self.finished > 0).then(|| self.seconds / f64::from(self.finished))
    }
}

impl FarmState {
    /// The intermediate files are gone that this task made in this generation; if it was reset since, it has others.
    pub(super) fn remove_files(&mut self, (task, generation): ProductKey) {
        let status = self.core.task(task);
        let has_them = status.is_some_and(|now| (now.state, now.generation) == (TaskState::Done, generation));
        if has_them && let Some(live) = self.jobs.get_mut(&task.job) {
            live.remove_files(task);
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.core.next_deadline().map(|moment| self.clock.instant(moment))
    }

    /// A worker that does not take what it is sent is cut off: it comes back and says what it holds.
    pub(super) fn send(&self, worker: WorkerId, down: Down) {
        let Some(link) = self.workers.get(&worker).and_then(|known| known.link.as_ref()) else { return };
        if let Err(mpsc::error::TrySendError::Full(_)) = link.out.try_send(down) {
            tracing::warn!(%worker, "the worker does not read what it is sent; its connection is closed");
            link.end.cancel();
        }
    }

    pub(crate) fn name_of(&self, worker: WorkerId) -> String {
        self.workers.get(&worker).map_or_else(|| worker.to_string(), |known| known.name.clone())
    }

    /// The purpose of what this attempt of this worker makes, and its job; `None` if the worker has no such attempt.
    pub(crate) fn product_of(
        &self,
        worker: WorkerId,
        attempt: AttemptId,
    ) -> Option<(ProductKind, Arc<JobSpec>)> {
        let (task, _, owner) = self.core.attempt_task(attempt)?;
        let live = self.jobs.get(&task.job).filter(|_| owner == worker)?;
        Some((live.steps.get(task.step)?.product, live.spec.clone()))
    }

    pub(crate) fn name_of_task(&self, task: TaskId) -> TaskName {
        let job = self.jobs.get(&task.job);
        job.and_then(|live| live.steps.name_of(&live.spec.frames, task.step, task.index))
            .unwrap_or(TaskName::UNKNOWN)
    }

    pub(super) fn forget_ended_jobs(&mut self) {
        let now = self.clock.now();
        if now.since(self.swept) < SWEEP_MS {
            return;
        }
        self.swept = now;
        let old: Vec<JobId> = self
            .jobs
            .iter()
            .filter(|(_, job)| job.ended.is_some_and(|ended| now.since(ended) > KEEP_ENDED_MS))
            .map(|(id, _)| *id)
            .collect();
        for job in old {
            if self.core.forget(job).is_ok() {
                self.jobs.remove(&job);
            }
        }
    }

    /// Notes when each connected worker was last heard of; returned for the records.
    pub(super) fn touch_all(&mut self) -> impl Iterator<Item = Write> {
        let at_ms = unix_ms();
        let connected = self.workers.iter_mut().filter(|(_, known)| known.link.is_some());
        connected.map(move |(worker, known)| {
            known.last_seen_ms = at_ms;
            Write::TouchWorker { worker, at_ms }
        })
    }
}

pub(crate) fn account(kind: AccountKind, name: String) -> Account {
    match kind {
        AccountKind::User => Account::User(name),
        AccountKind::Project => Account::Project(name),
    }
}

pub(super) fn kind_and_name(account: &Account) -> (AccountKind, &str) {
    match account {
        Account::User(name) => (AccountKind::User, name),
        Account::Project(name) => (AccountKind::Project, name),
    }
}
