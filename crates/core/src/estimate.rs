//! How long a frame will take: the work of a step's frames, and the speed of workers, both learned.

use std::num::NonZeroU32;

use kiln_types::{AttemptId, TaskId, TaskIndex, WorkerId};

use crate::{
    Core, Moment,
    job::Step,
    worker::{AttemptPhase, Slot, Told},
};

/// What a frame is taken to last where none was measured; milliseconds.
pub(crate) const UNMEASURED_MS: u64 = 10_000;
/// Frames by which a worker's speed is known better than by what one of its slots measured.
const TRUSTED: u32 = 2;
/// How much of a worker's known speed the next frame changes, once there are many. Frames differ more than a machine
/// does from hour to hour: what is forgotten sooner is the speed, and not the frames.
const STEADY: f32 = 0.05;
/// The least progress by which an attempt's end is foretold.
const FORETELLS: f32 = 0.1;
/// Speeds beyond these are the frames' doing.
const SPEEDS: std::ops::RangeInclusive<f32> = 0.02..=50.0;

impl Core {
    /// What this frame of the step takes on this slot of the worker; milliseconds. `None` where nobody knows.
    pub(crate) fn frame_ms(
        &self,
        step: &Step,
        task: TaskIndex,
        worker: WorkerId,
        slot: Option<&Slot>,
    ) -> Option<u64> {
        let here = slot.filter(|slot| slot.session == Some(step.plan.session)).and_then(|slot| slot.frame_ms);
        let here = here.map(u64::from);
        let worker = self.workers.get(&worker);
        let speed = worker.map_or(1.0, |worker| worker.speed);
        let ms = |work: f32| ((work / speed) as u64).max(1);
        let trusted = worker.is_some_and(|worker| worker.frames >= TRUSTED);
        match (here, step.pace.mean().map(ms)) {
            // A slot has measured few frames, all slots together many. But a worker may be quick at one kind of
            // frame and slow at another.
            (Some(here), Some(mean)) if !(trusted && (here / 2..=here * 2).contains(&mean)) => Some(here),
            (Some(here), None) => Some(here),
            (_, Some(_)) => step.pace.at(task).map(ms),
            (None, None) => None,
        }
    }

    /// What opening the step's scene on the worker is taken to add to a frame there; milliseconds.
    pub(crate) fn opening_ms(&self, step: &Step, worker: WorkerId) -> u64 {
        let speed = self.workers.get(&worker).map_or(1.0, |worker| worker.speed);
        step.pace.opening().map_or(0, |work| (work / speed) as u64)
    }

    /// How long a frame that has run for `elapsed` will run yet, where `frame` is usual there; milliseconds.
    pub(crate) fn left_ms(step: &Step, frame: u64, elapsed: u64) -> u64 {
        if elapsed < frame {
            return frame - elapsed;
        }
        // It may be one of the longest. If it is later than those, it will be later still.
        let longest = (frame as f32 * step.pace.longest()) as u64;
        (longest.saturating_sub(elapsed) / 2).max(elapsed.saturating_sub(longest)).max(1)
    }

    /// How far the frame of a running attempt has come, 0 to 1, as its Blender says. What has hardly begun foretells
    /// little; what a part done means in time is learned from the frames before.
    pub fn learn_progress(&mut self, now: Moment, worker: WorkerId, attempt: AttemptId, part: f32) {
        let Some(known) = self.attempts.get(&attempt).filter(|known| known.worker == worker) else { return };
        let (AttemptPhase::Running { since }, task, cold) = (known.phase, known.task, known.cold) else {
            return;
        };
        let elapsed = now.since(since);
        if !(FORETELLS..=1.0).contains(&part) {
            return;
        }
        let Some(time) = self.step(task).map(|step| step.pace.time_at(part)) else { return };
        if cold {
            self.guess_speed(worker, task, elapsed, time);
        }
        let opening = self.step(task).filter(|_| cold).map_or(0, |step| self.opening_ms(step, worker));
        let rendered = elapsed.saturating_sub(opening);
        if let Some(known) = self.attempts.get_mut(&attempt) {
            known.frame_ms = NonZeroU32::new((rendered as f32 / time) as u32);
            let after = NonZeroU32::new(u32::try_from(rendered).unwrap_or(u32::MAX)).filter(|_| part < 1.0);
            known.told = known.told.or(after.map(|after| Told { after, part }));
        }
    }

    /// How fast a worker is of which nothing better is known, by a frame of it that opened its scene: so long that took
    /// up to this part of its time. A slow worker's opening must not pass for a frame that goes on for ever, and a worker
    /// that nobody has measured not for an ordinary one. Whether such a frame tells more of the worker than of frames.
    fn guess_speed(&mut self, worker: WorkerId, task: TaskId, elapsed: u64, part: f32) -> bool {
        let work = self.step(task).and_then(|step| step.pace.with_opening(task.index, part));
        let stranger = self.workers.get_mut(&worker).filter(|known| known.frames < TRUSTED);
        let Some((work, stranger)) = work.zip(stranger) else { return false };
        if stranger.frames == 0 {
            stranger.speed = (work / elapsed.max(1) as f32).clamp(*SPEEDS.start(), *SPEEDS.end());
            self.indexes.dirty.insert(worker);
        }
        true
    }

    /// What this frame takes on the worker by what an attempt that runs has shown of it; milliseconds.
    pub(crate) fn foretold_ms(&self, step: &Step, task: TaskIndex, worker: WorkerId) -> Option<u64> {
        let running = self.attempts.get(step.live.get(&task)?)?;
        let speed = |id: WorkerId| self.workers.get(&id).map_or(1.0, |worker| worker.speed);
        let ms = running.frame_ms?.get() as f32 * speed(running.worker) / speed(worker);
        // Where the speed of that worker is known badly: it is no longer than the longest.
        let most = step.pace.at(task).map_or(ms, |work| work * step.pace.longest() / speed(worker));
        Some((ms.min(most) as u64).max(1))
    }

    /// So long a frame took on the worker, without opening its scene, as an earlier reign measured it. To be told before
    /// anything is measured anew, the oldest first.
    pub fn learn_past_time(&mut self, task: TaskId, worker: WorkerId, ms: u64) {
        if self.step(task).is_some_and(|step| task.index.0 < step.plan.count) {
            self.know(worker);
            self.learn_time(task, worker, ms, false, None);
        }
    }

    /// A frame took so long from its start until it left Blender, and this was told of it meanwhile.
    pub(crate) fn learn_time(
        &mut self,
        task: TaskId,
        worker: WorkerId,
        ms: u64,
        cold: bool,
        told: Option<Told>,
    ) {
        // By what was guessed from the usual frame, nothing can be learned of the frames.
        if cold && self.guess_speed(worker, task, ms, 1.0) {
            return;
        }
        let Some(step) = self.step(task) else { return };
        let ms = ms.max(1) as f32;
        let expected = step.pace.at(task.index).filter(|_| step.pace.is_known() && !cold);
        let Some(known) = self.workers.get_mut(&worker) else { return };
        known.measured |= !cold;
        if let Some(expected) = expected {
            // Smoothed as a ratio: twice as fast and half as fast are equally far.
            let ratio = (expected / ms / known.speed).clamp(0.05, 20.0);
            known.frames = known.frames.saturating_add(1);
            let part = (1.0 / known.frames as f32).max(STEADY);
            known.speed = (known.speed * ratio.powf(part)).clamp(*SPEEDS.start(), *SPEEDS.end());
        }
        // By its speed as it is known now: a slow worker's first frame must not pass for a long one.
        let work = ms * known.speed;
        if let Some(step) = self.step_mut(task) {
            step.pace.measured(task.index, work, cold);
            if let Some(told) = told.filter(|_| !cold) {
                step.pace.progressed(told.part, told.after.get() as f32 / ms);
            }
        }
    }
}
