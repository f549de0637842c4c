//! A farm whose machines and frames are known to the simulator and to nobody else: what the policy is judged on.

mod bound;
mod life;
pub mod makespan;
mod naive;
pub mod scenarios;
mod story;

use std::collections::{BTreeMap, BTreeSet};

use kiln_core::{Account, JobPlan, Requirement, SchedulingOptions, Share, StepPlan, WorkerOffer};
use kiln_types::{BlobHash, JobId, SessionKey};

pub use bound::lower_bound_ms;
pub use naive::{Naive, naive_ms};
pub use story::{Run, RunEnd, Story};

/// One way between server and worker; milliseconds.
pub const LATENCY_MS: u64 = 5;
/// From the end of a frame until it is stored; the next frame renders meanwhile.
pub const UPLOAD_MS: u64 = 300;

/// All that is going to happen, but for what the scheduler decides.
#[derive(Debug, Clone, Default)]
pub struct FarmSetup {
    pub nodes: Vec<Node>,
    pub shots: Vec<Shot>,
    pub limits: BTreeMap<String, u32>,
    pub shares: Vec<(Account, Share)>,
    /// The times at which the server is killed, and for how long it is down; milliseconds.
    pub outages: Vec<(u64, u64)>,
    /// The end of the run; `None`: it ends when every job has.
    pub until: Option<u64>,
}

/// A machine.
#[derive(Debug, Clone)]
pub struct Node {
    pub offer: WorkerOffer,
    /// Its speed as a part of an average one, in hundredths.
    pub speed: u64,
    pub fates: Vec<(u64, Fate)>,
}

/// An event of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is gone with all that it held; the server's lease finds out.
    Dies,
    /// It is back, and knows nothing.
    Returns,
    /// It takes nothing new, by its own decision.
    Unavailable,
    Works,
    /// Every frame on it fails, quickly.
    IsQuarantined,
    Recovers,
}

/// A job and what its frames are like.
#[derive(Debug, Clone)]
pub struct Shot {
    /// The time at which it is submitted.
    pub at: u64,
    pub plan: JobPlan,
    /// Milliseconds of each frame on a middling slot, by task; a later step goes on where the list is.
    pub work: Vec<u64>,
    /// Milliseconds that opening the scene takes on a middling slot.
    pub opening: u64,
    pub told: Told,
    /// The memory that each frame takes, in bytes, by task; none where it is empty.
    pub memory: Vec<u64>,
    /// Frames that fail wherever they run.
    pub broken: BTreeSet<u32>,
    /// Frames that take their machine down.
    pub deadly: BTreeSet<u32>,
}

/// The progress that Blender reports of a frame, eight times while it renders. Each is as it was measured
/// (`bench/progress.py`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Told {
    /// Samples of a fixed number: off by up to a third, more often too few than too many.
    #[default]
    Samples,
    /// Samples where Cycles stops early in the parts that are done: half of the time is over when it tells a fifth.
    Adaptive,
    /// Nothing, as Blender 3.4 does.
    Nothing,
}

impl Told {
    pub const ALL: [Self; 3] = [Self::Samples, Self::Adaptive, Self::Nothing];

    pub fn name(self) -> &'static str {
        match self {
            Self::Samples => "samples",
            Self::Adaptive => "adaptive samples",
            Self::Nothing => "nothing",
        }
    }

    /// Returns what is told of a frame when so many eighths of its time are over; hundredths.
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
        Self { offer, speed, fates: Vec::new() }
    }

    /// Milliseconds that so much work takes on one of its slots.
    pub fn ms(&self, work: u64) -> u64 {
        (work * 100).div_ceil(self.speed.max(1))
    }
}

impl FarmSetup {
    /// Blender says this of the frames of every job.
    pub fn told(mut self, told: Told) -> Self {
        self.shots.iter_mut().for_each(|shot| shot.told = told);
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
        Self { at: 0, plan, work, opening: 0, told: Told::default(), memory, broken, deadly }
    }

    /// So many frames that take the same time.
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

    /// Every step asks for this.
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
