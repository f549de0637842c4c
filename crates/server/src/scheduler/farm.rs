//! The farm's live state: the core, and around it what the core need not know.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

use kiln_api::{BlenderOffer, Down, Hello, Machine, Offered, Rest};
use kiln_core::{Account, Core, IndexSet, Moment, Share, WorkerOffer};
use kiln_store::Write;
use kiln_types::{
    AttemptId, BundleId, DesiredState, DeviceClass, Epoch, JobId, JobSpec, JobSteps, ProductKind,
    SessionSpec, ShortName, SlotIndex, StepIndex, StepInput, StepSpec, TaskId, TaskName, WorkerId,
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    batch::Batch,
    paths::Paths,
    roster::{LiveAttempts, Workers},
};
use crate::clock::{Clock, unix_ms};

/// Milliseconds for which an ended job stays in memory, so that late reports of it are still understood.
const KEEP_ENDED_MS: u64 = 10 * 60 * 1000;
/// Between two looks for those that have.
const SWEEP_MS: u64 = 1000;
/// Tags, or network cards, of one worker.
const MAX_LISTED: usize = 64;
/// Characters of one text that a worker says of itself.
const MAX_TEXT: usize = 120;

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
    /// What a person has set of users and projects.
    pub shares: BTreeMap<Account, Share>,
    /// How many there are of what the farm has only so many.
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

pub(crate) struct LiveAttempt {
    pub task: TaskId,
    pub worker: WorkerId,
    /// `None` while it streams.
    pub slot: Option<SlotIndex>,
    pub started: Option<Started>,
    /// As Blender said.
    pub fraction: Option<f32>,
}

#[derive(Clone, Copy)]
pub(crate) struct Started {
    pub moment: Moment,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// A worker, here or gone.
pub(crate) struct KnownWorker {
    pub name: String,
    pub said: WorkerInfo,
    pub desired: DesiredState,
    /// In which the farm has put it.
    pub pools: BTreeSet<ShortName>,
    pub last_seen_ms: i64,
    pub link: Option<LinkHandle>,
}

impl KnownWorker {
    /// What it brings, by its own word and the farm's.
    pub(super) fn offer(&self) -> WorkerOffer {
        let mut offer = self.said.offer(&self.name);
        offer.labels.extend(self.pools.iter().map(|pool| super::plan::pool_label(pool)));
        offer
    }
}

/// What a worker says of itself, as the records keep it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct WorkerInfo {
    pub build: String,
    pub machine: Machine,
    pub slots: u16,
    pub blenders: Vec<BlenderOffer>,
    pub shared: Vec<String>,
    /// All that the machine has where `None`.
    pub offered: Option<Offered>,
    pub tags: Vec<String>,
    pub resting: Option<Rest>,
    pub wakes: bool,
    pub macs: Vec<String>,
}

impl WorkerInfo {
    pub(super) fn of(hello: Hello) -> Self {
        Self {
            build: hello.build,
            machine: hello.machine,
            slots: hello.slots.min(WorkerOffer::MAX_SLOTS),
            blenders: hello.blenders,
            shared: hello.shared.iter().map(ToString::to_string).collect(),
            offered: hello.offered,
            tags: hello.tags.iter().take(MAX_LISTED).map(ToString::to_string).collect(),
            resting: hello.resting.map(shown),
            wakes: hello.wakes,
            macs: hello.macs.iter().take(MAX_LISTED).map(|mac| short(mac)).collect(),
        }
    }

    pub(super) fn offered(&self) -> Offered {
        self.offered.unwrap_or(Offered { cores: self.machine.cores, memory: self.machine.memory })
    }

    /// The memory of each GPU, 0 where it is not known. One GPU is listed once for each backend: the longest list has
    /// them all.
    fn gpus(&self) -> Vec<u64> {
        let listed = |blender: &BlenderOffer, class: DeviceClass| {
            let devices = blender.devices.iter().filter(|device| device.class == class);
            devices.map(|device| device.memory.unwrap_or(0)).collect::<Vec<u64>>()
        };
        let gpus = DeviceClass::ALL.iter().copied().filter(|class| *class != DeviceClass::Cpu);
        let lists = gpus.flat_map(|class| self.blenders.iter().map(move |blender| listed(blender, class)));
        lists.max_by_key(Vec::len).unwrap_or_default()
    }

    /// The offer, with the labels that [`super::plan::labels`] asks for.
    fn offer(&self, name: &str) -> WorkerOffer {
        let mut labels = BTreeSet::new();
        for blender in &self.blenders {
            let series = blender.version.series();
            labels.insert(super::plan::blender_label(series));
            for device in &blender.devices {
                labels.insert(super::plan::device_label(series, device.class));
                if DeviceClass::BACKENDS.contains(&device.class) {
                    labels.insert(super::plan::device_label(series, DeviceClass::Gpu));
                }
            }
            for engine in &blender.engines {
                labels.insert(super::plan::engine_label(series, engine));
            }
            for denoiser in &blender.denoisers {
                labels.insert(super::plan::denoiser_label(series, denoiser));
            }
        }
        labels.extend(self.shared.iter().map(|name| super::plan::shared_label(name)));
        labels.extend(self.tags.iter().map(|tag| super::plan::tag_label(tag)));
        WorkerOffer {
            name: name.to_owned(),
            slots: self.slots,
            labels,
            unavailable: self.resting.is_some(),
            cores: self.offered().cores,
            memory: self.offered().memory,
            gpus: self.gpus(),
        }
    }
}

/// A text of a worker, fit to be kept and shown.
fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect()
}

pub(super) fn shown(rest: Rest) -> Rest {
    Rest { why: short(&rest.why), ..rest }
}

/// The scheduler's end of a worker's connection.
pub(crate) struct LinkHandle {
    /// Tells connections of one worker apart.
    pub number: u64,
    pub out: mpsc::Sender<Down>,
    /// Ends the connection.
    pub end: CancellationToken,
}

impl FarmState {
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

    /// Notes for the records when each connected worker was last heard of.
    pub(super) fn touch_all(&mut self, batch: &mut Batch) {
        let at_ms = unix_ms();
        for (worker, known) in self.workers.iter_mut() {
            if known.link.is_some() {
                known.last_seen_ms = at_ms;
                batch.writes.push(Write::TouchWorker { worker, at_ms });
            }
        }
    }
}
