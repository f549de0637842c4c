//! How long a frame will take: the work of a step's frames, and the speed of workers, both learned.

use kiln_types::{JobId, StepIndex, TaskId, WorkerId};

use crate::{Core, job::Step, worker::Slot};

/// What a frame is taken to last where none was measured; milliseconds.
pub(crate) const UNMEASURED_MS: u64 = 10_000;
/// Frames after which the work of a step is known well enough to tell a worker's speed by it.
const ENOUGH: u32 = 3;
/// Frames of which the middle one is known.
const LATEST: usize = 16;
/// Speeds beyond these are the frames' doing.
const SPEEDS: std::ops::RangeInclusive<f32> = 0.02..=50.0;

/// The work of a step's frames: milliseconds that they take on a worker of speed 1.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pace {
    /// Smoothed.
    mean: f32,
    /// How far frames are from the mean, smoothed.
    spread: f32,
    frames: u32,
    /// Only frames that opened their scene have been measured.
    cold: bool,
    /// The latest, in a ring.
    latest: [f32; LATEST],
}

/// What frames of a step took of their machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peak {
    /// Bytes.
    pub most: u64,
    /// The memory of the machine on which that was; 0 where it is not known.
    pub on: u64,
}

impl Pace {
    fn measured(&mut self, work: f32, cold: bool) {
        if cold && self.frames > 0 && !self.cold {
            return;
        }
        if self.cold && !cold {
            *self = Self::default();
        }
        self.cold = cold;
        self.spread =
            if self.frames == 0 { 0.0 } else { self.spread + ((work - self.mean).abs() - self.spread) / 8.0 };
        self.latest[self.frames as usize % LATEST] = work;
        self.mean = if self.frames == 0 { work } else { self.mean + (work - self.mean) / 8.0 };
        self.frames = self.frames.saturating_add(1);
    }

    /// The mean of the frames to come, in milliseconds at speed 1, and by what part of it that may be off. Frames to come
    /// are not those that were: a tenth of doubt stays.
    pub fn expected(&self) -> Option<(f32, f64)> {
        let mean = self.mean()?;
        if self.cold {
            return Some((mean, 1.0));
        }
        let spread = f64::from(self.spread.max(mean / 10.0) / mean.max(1.0));
        Some((
            mean,
            0.1 + 2.0 * spread / f64::from(self.frames.min(64)).sqrt() + 1.0 / f64::from(self.frames),
        ))
    }

    /// The middle one of the latest frames, at speed 1, and how many those were.
    pub fn median(&self) -> Option<(f32, usize)> {
        let known = LATEST.min(self.frames as usize);
        let mut latest = self.latest;
        let latest = latest.get_mut(..known).filter(|latest| !latest.is_empty())?;
        latest.sort_unstable_by(f32::total_cmp);
        Some((latest[known / 2], known))
    }

    /// Milliseconds at speed 1.
    pub fn mean(&self) -> Option<f32> {
        (self.frames > 0).then_some(self.mean)
    }
}

impl Core {
    /// What a frame of the step takes on this slot of the worker; milliseconds. `None` where nobody knows.
    pub(crate) fn frame_ms(&self, step: &Step, worker: WorkerId, slot: Option<&Slot>) -> Option<u64> {
        let here = slot.filter(|slot| slot.session == Some(step.plan.session)).and_then(|slot| slot.frame_ms);
        here.map(u64::from).or_else(|| {
            let speed = self.workers.get(&worker).map_or(1.0, |worker| worker.speed);
            step.pace.mean().map(|work| ((work / speed) as u64).max(1))
        })
    }

    /// A frame took so long from its start until it left Blender.
    pub(crate) fn learn_time(&mut self, task: TaskId, worker: WorkerId, ms: u64, cold: bool) {
        let Some(known) = self.workers.get(&worker) else { return };
        let speed = known.speed;
        let Some(step) = self.step_mut(task) else { return };
        let ms = ms.max(1) as f32;
        let expected = step.pace.mean().filter(|_| step.pace.frames >= ENOUGH && !step.pace.cold && !cold);
        step.pace.measured(ms * speed, cold);
        if !cold && let Some(known) = self.workers.get_mut(&worker) {
            known.measured = true;
        }
        if let Some(expected) = expected
            && let Some(known) = self.workers.get_mut(&worker)
        {
            // Smoothed as a ratio: twice as fast and half as fast are equally far.
            let ratio = (expected / ms / speed).clamp(0.05, 20.0);
            known.speed = (speed * ratio.powf(0.3)).clamp(*SPEEDS.start(), *SPEEDS.end());
        }
    }

    /// A frame of the task's step held so much memory at most.
    pub fn learn_memory(&mut self, task: TaskId, worker: WorkerId, bytes: u64) {
        let on = self.workers.get(&worker).map_or(0, |worker| worker.offer.memory);
        self.learn_peak(task.job, task.step, bytes, on);
    }

    /// A frame of the step held so much memory at most, on a machine that has `on`; 0 where that is not known.
    pub fn learn_peak(&mut self, job: JobId, step: StepIndex, bytes: u64, on: u64) {
        let found = self.jobs.get_mut(&job).and_then(|job| job.steps.get_mut(usize::from(step.0)));
        let Some(found) = found else { return };
        if found.peak.is_none_or(|peak| bytes > peak.most) {
            found.peak = Some(Peak { most: bytes, on });
            self.size_step(job, step);
        }
    }
}
