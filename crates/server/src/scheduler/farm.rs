//! The live state of the farm: the core, and what the core need not know.

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
/// Milliseconds between two searches for jobs that have ended that long ago.
const SWEEP_MS: u64 = 1000;

pub(crate) struct FarmState {
    pub core: Core,
    pub clock: Clock,
    pub epoch: Epoch,
    pub heartbeat_ms: u64,
    pub last_job: JobId,
    /// The jobs that the core holds.
    pub jobs: HashMap<JobId, LiveJob>,
    pub attempts: LiveAttempts,
    pub workers: Workers,
    pub shares: BTreeMap<Account, Share>,
    /// The totals of limits.
    pub limits: BTreeMap<String, u32>,
    /// The time of the last search for jobs that have ended long ago.
    pub swept: Moment,
}

pub(crate) struct LiveJob {
    pub spec: Arc<JobSpec>,
    pub steps: JobSteps,
    /// The sum over all finished frames.
    pub seconds: f64,
    pub finished: u32,
    pub notices: HashSet<String>,
    pub ended: Option<Moment>,
    /// Unix milliseconds.
    pub ended_ms: Option<i64>,
    pub archived: bool,
    /// The time at which its input files were removed; Unix milliseconds.
    pub inputs_gone_ms: Option<i64>,
    pub paths: Paths,
    /// The newest bundle that each step made.
    pub bundles: BTreeMap<StepIndex, BundleId>,
    /// The tasks that are done and whose intermediate files were removed.
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

    /// Returns the session that a slot opens for the step; `None` if the step whose bundle it opens is not done, or the
    /// device of the job is not chosen yet.
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

    /// Notes that the intermediate files of this task were removed.
    pub(super) fn note_files_removed(&mut self, task: TaskId) {
        self.without_files.entry(task.step).or_default().insert(task.index);
    }

    /// Notes that the intermediate files of this task are stored.
    pub(super) fn note_files_stored(&mut self, task: TaskId) {
        if let Some(tasks) = self.without_files.get_mut(&task.step) {
            tasks.remove(task.index);
        }
    }

    pub(crate) fn mean_frame_s(&self) -> Option<f64> {
        (self.finished > 0).then(|| self.seconds / f64::from(self.finished))
    }
}

impl FarmState {
    /// Notes that the intermediate files that a task made in this generation were removed; a task that was reset since has
    /// others.
    pub(super) fn note_files_removed(&mut self, (task, generation): ProductKey) {
        let status = self.core.task(task);
        let has_them = status.is_some_and(|now| (now.state, now.generation) == (TaskState::Done, generation));
        if has_them && let Some(live) = self.jobs.get_mut(&task.job) {
            live.note_files_removed(task);
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.core.next_deadline().map(|moment| self.clock.instant(moment))
    }

    /// Sends a message to a worker. If its queue is full, closes its connection: it connects again and reports its attempts.
    pub(super) fn send(&self, worker: WorkerId, down: Down) {
        let Some(link) = self.workers.get(&worker).and_then(|known| known.link.as_ref()) else { return };
        if let Err(mpsc::error::TrySendError::Full(_)) = link.out.try_send(down) {
            tracing::warn!(%worker, "worker disconnected: it does not read its messages");
            link.end.cancel();
        }
    }

    pub(crate) fn name_of(&self, worker: WorkerId) -> String {
        self.workers.get(&worker).map_or_else(|| worker.to_string(), |known| known.name.clone())
    }

    /// Returns the kind of product of a worker's attempt, and its job; `None` if the worker has no such attempt.
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

    /// Sets the time at which each connected worker was last seen, and returns the writes.
    pub(super) fn touch_workers(&mut self) -> impl Iterator<Item = Write> {
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
