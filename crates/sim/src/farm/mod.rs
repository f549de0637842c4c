//! Farms whose machines and frames are known to the simulator and not to the core, to measure the policy.

mod bound;
mod life;
pub mod makespan;
mod naive;
pub mod scenarios;
mod timeline;

use std::collections::{BTreeMap, BTreeSet};

use kiln_core::{Account, JobPlan, Requirement, SchedulingOptions, Share, StepPlan, WorkerOffer};
use kiln_types::{BlobHash, JobId, SessionKey};

pub use bound::lower_bound_ms;
pub use naive::{Naive, naive_ms};
pub use timeline::{Run, RunEnd, Timeline};

/// The latency between server and worker; milliseconds.
pub const LATENCY_MS: u64 = 5;
/// The time from the end of a frame until it is stored; the next frame renders meanwhile.
pub const UPLOAD_MS: u64 = 300;

/// All events of a run but the decisions of the scheduler.
#[derive(Debug, Clone, Default)]
pub struct FarmSetup {
    pub nodes: Vec<Node>,
    pub shots: Vec<Shot>,
    pub limits: BTreeMap<String, u32>,
    pub shares: Vec<(Account, Share)>,
    /// The times at which the server is killed, each with the time that it is down; milliseconds.
    pub outages: Vec<(u64, u64)>,
    /// The end of the run; `None`: the end of the last job.
    pub until: Option<u64>,
}

/// A machine.
#[derive(Debug, Clone)]
pub struct Node {
    pub offer: WorkerOffer,
    /// The speed in hundredths of the average.
    pub speed: u64,
    pub events: Vec<(u64, NodeEvent)>,
}

/// An event of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeEvent {
    /// The machine is gone with all its attempts.
    Dies,
    /// The machine is back, without an attempt.
    Returns,
    /// The machine takes no new work, by its own rules.
    Unavailable,
    Works,
    /// Every frame on the machine fails from now on, quickly.
    Breaks,
    Recovers,
}

/// A job with the properties of its frames.
#[derive(Debug, Clone)]
pub struct Shot {
    /// The time at which it is submitted.
    pub at: u64,
    pub plan: JobPlan,
    /// Milliseconds of each frame on an average slot, by task.
    pub work: Vec<u64>,
    /// Milliseconds that opening the scene takes on an average slot.
    pub opening: u64,
    pub progress: ProgressKind,
    /// The bytes of each frame, by task; empty if memory does not matter.
    pub memory: Vec<u64>,
    /// Frames that fail wherever they run.
    pub broken: BTreeSet<u32>,
    /// Frames that take their machine down.
    pub deadly: BTreeSet<u32>,
}

/// The kind of progress that Blender reports of a frame, eight times while it renders, as it was measured
/// (`bench/progress.py`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ProgressKind {
    /// Samples of a fixed number: off by up to a third, more often too few than too many.
    #[default]
    Samples,
    /// Samples with adaptive sampling: half of the time is over when a fifth is reported.
    Adaptive,
    /// No progress, as of Blender 3.4.
    Nothing,
}

impl ProgressKind {
    pub const ALL: [Self; 3] = [Self::Samples, Self::Adaptive, Self::Nothing];

    pub fn name(self) -> &'static str {
        match self {
            Self::Samples => "samples",
            Self::Adaptive => "adaptive samples",
            Self::Nothing => "nothing",
        }
    }

    /// The progress that is reported of a frame after this many eighths of its time; hundredths.
    fn hundredths(self, frame: u32, eighth: u64) -> Option<u8> {
        let at = eighth as f64 / 8.0;
        let off = 0.74 + (u64::from(frame) * 7 + eighth * 5) as f64 % 38.0 / 100.0;
        match self {
            Self::Samples => Some((100.0 * at * off) as u8),
            Self::Adaptive => Some((100.0 * at.powf(2.4)) as u8),
            Self::Nothing => None,
        }
    }
}

impl Node {
    pub fn new(slots: u16, speed: u64) -> Self {
        let offer = WorkerOffer { slots, ..WorkerOffer::default() };
        Self { offer, speed, events: Vec::new() }
    }

    /// Milliseconds of this work on one slot.
    pub fn ms(&self, work: u64) -> u64 {
        (work * 100).div_ceil(self.speed.max(1))
    }
}

impl FarmSetup {
    /// Sets the progress of the frames of every job.
    pub fn with_progress(mut self, progress: ProgressKind) -> Self {
        self.shots.iter_mut().for_each(|shot| shot.progress = progress);
        self
    }
}

impl Shot {
    /// A job of one step with these frames, submitted at the start.
    pub fn new(id: u64, work: Vec<u64>) -> Self {
        let session = SessionKey(BlobHash::of(&id.to_be_bytes()));
        let step = StepPlan::new(work.len() as u32, session);
        let plan = JobPlan::new(JobId(id), vec![step]).expect("one step of some frames is a job");
        let (memory, broken, deadly) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        Self { at: 0, plan, work, opening: 0, progress: ProgressKind::default(), memory, broken, deadly }
    }

    /// A job of frames that take the same time.
    pub fn even(id: u64, frames: u32, ms: u64) -> Self {
        Self::new(id, vec![ms; frames as usize])
    }

    pub fn at(self, at: u64) -> Self {
        Self { at, ..self }
    }

    pub fn opening(self, opening: u64) -> Self {
        Self { opening, ..self }
    }

    pub fn scheduled(self, options: SchedulingOptions) -> Self {
        Self { plan: self.plan.scheduled(options), ..self }
    }

    pub fn priority(self, priority: u8) -> Self {
        self.scheduled(SchedulingOptions { priority, ..SchedulingOptions::default() })
    }

    /// Sets the requirement of every step.
    pub fn requires(mut self, requires: Requirement) -> Self {
        let steps = self.plan.steps().iter();
        let steps = steps.map(|step| StepPlan { requires: requires.clone(), ..step.clone() }).collect();
        let (id, options) = (self.plan.id(), self.plan.options().clone());
        self.plan = JobPlan::new(id, steps).expect("as valid as before").scheduled(options);
        self
    }

    pub fn id(&self) -> JobId {
        self.plan.id()
    }
}
