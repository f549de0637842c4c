//! The time of a frame on a worker.

use std::num::NonZeroU32;

use kiln_types::{AttemptId, TaskId, TaskIndex, WorkerId};

use crate::{
    Core, Moment,
    state::{Attempt, AttemptPhase, ProgressSample, Slot, Step},
    tuning::{
        estimate::LEAST_PROGRESS,
        time_limit::{SLOW_FRAMES, SLOW_MS, SLOW_TIMES},
    },
};

/// An attempt that takes far longer than other frames of its step; milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlowAttempt {
    pub ran_ms: u64,
    pub usual_ms: u64,
}

impl Core {
    /// Milliseconds that this frame of the step takes on this slot of the worker; `None` where nobody knows.
    pub(crate) fn frame_ms(
        &self,
        step: &Step,
        task: TaskIndex,
        worker: WorkerId,
        slot: Option<&Slot>,
    ) -> Option<u64> {
        let here = slot.and_then(|slot| slot.frame_ms(step.session())).map(u64::from);
        let speed = self.state.worker(worker).speed;
        let ms = |work: f32| speed.ms(work).max(1);
        // A slot has measured few frames, all slots together many. But a worker may be quick at one kind of frame and
        // slow at another.
        let mean = step.times.mean().map(ms).filter(|_| speed.is_trusted());
        let is_usual = |here: &u64| mean.is_some_and(|mean| (here / 2..=here * 2).contains(&mean));
        here.filter(|here| !is_usual(here)).or_else(|| step.times.at(task).map(ms))
    }

    /// Milliseconds that opening the step's scene is taken to add to a frame on the worker.
    pub(crate) fn opening_ms(&self, step: &Step, worker: WorkerId) -> u64 {
        let speed = self.state.worker(worker).speed;
        step.times.opening().map_or(0, |work| speed.ms(work))
    }

    /// Milliseconds that this frame takes on the worker by what an attempt that runs has shown of it.
    pub(crate) fn foretold_ms(&self, step: &Step, task: TaskIndex, worker: WorkerId) -> Option<u64> {
        let running = self.state.attempt(step.tasks.first_attempt(task)?);
        let speed = |id: WorkerId| self.state.worker(id).speed.get();
        let ms = running.frame_ms?.get() as f32 * speed(running.worker) / speed(worker);
        // The speed of that worker may be known badly: it is no longer than the longest.
        let most = step.times.at(task).map_or(ms, |work| work * step.times.longest() / speed(worker));
        Some((ms.min(most) as u64).max(1))
    }

    /// The running attempt, where it takes far longer than other frames of its step take on its worker. `None` also
    /// where too little is known of the step or the worker.
    pub fn slow(&self, now: Moment, id: AttemptId) -> Option<SlowAttempt> {
        let attempt = self.state.find_attempt(id)?;
        let AttemptPhase::Running { slot, since } = attempt.phase else { return None };
        let step = self.state.step(attempt.task);
        let (median, frames) = step.times.median()?;
        let worker = self.state.worker(attempt.worker);
        let here = worker.slot(slot).and_then(|slot| slot.frame_ms(step.session()));
        if frames < SLOW_FRAMES || !(worker.speed.is_measured() || here.is_some()) {
            return None;
        }
        let usual = (median / worker.speed.get()).max(here.unwrap_or(0) as f32);
        let most = ((usual * SLOW_TIMES) as u64).max(SLOW_MS);
        let opening = if attempt.cold { self.opening_ms(step, attempt.worker) } else { 0 };
        let ran_ms = now.since(since);
        (ran_ms > most.saturating_add(opening)).then_some(SlowAttempt { ran_ms, usual_ms: usual as u64 })
    }

    /// Learns from the progress of a running attempt, 0 to 1, as its Blender reports it. What has hardly begun
    /// foretells little; what a part done means in time is learned from the frames before.
    pub(crate) fn note_progress(&mut self, now: Moment, id: AttemptId, part: f32) {
        let Attempt { task, worker, phase, cold, .. } = *self.state.attempt(id);
        let AttemptPhase::Running { since, .. } = phase else { return };
        if !(LEAST_PROGRESS..=1.0).contains(&part) {
            return;
        }
        let elapsed = now.since(since);
        let time = self.state.step(task).times.time_at(part);
        if cold {
            self.guess_speed(worker, task, elapsed, time);
        }
        let opening = if cold { self.opening_ms(self.state.step(task), worker) } else { 0 };
        let rendered = elapsed.saturating_sub(opening);
        let attempt = self.state.attempt_mut(id);
        attempt.frame_ms = NonZeroU32::new((rendered as f32 / time) as u32);
        let after = NonZeroU32::new(u32::try_from(rendered).unwrap_or(u32::MAX)).filter(|_| part < 1.0);
        attempt.progress = attempt.progress.or(after.map(|after| ProgressSample { after, part }));
    }

    /// Guesses the speed of a worker of which little is known by a frame that opened its scene: that took `elapsed`
    /// milliseconds up to this part of its time. The opening of a slow worker must not pass for a frame that never
    /// ends, and a worker that nobody has measured not for an ordinary one. Returns whether such a frame tells more of
    /// the worker than of frames.
    fn guess_speed(&mut self, worker: WorkerId, task: TaskId, elapsed: u64, part: f32) -> bool {
        let step = self.state.step(task);
        let work = step.times.with_opening(task.index, part).filter(|_| step.plan.measures_speed);
        let speed = &mut self.state.worker_mut(worker).speed;
        let Some(work) = work.filter(|_| !speed.is_trusted()) else { return false };
        if speed.guess(work, elapsed) {
            self.state.changed_workers.insert(worker);
        }
        true
    }

    /// Learns from an attempt whose frame took so long from its start until it left Blender, and from what was reported
    /// of it meanwhile.
    pub(crate) fn note_attempt(&mut self, id: AttemptId, ms: u64) {
        let Attempt { task, worker, cold, progress, .. } = *self.state.attempt(id);
        // By what was guessed from the usual frame, nothing can be learned of the frames.
        if cold && self.guess_speed(worker, task, ms, 1.0) {
            return;
        }
        self.note_time(task, worker, ms, cold);
        if let Some(ProgressSample { after, part }) = progress.filter(|_| !cold) {
            self.state.step_mut(task).times.progressed(part, after.get() as f32 / ms.max(1) as f32);
        }
    }

    /// Learns from a frame that took so long on the worker.
    pub(crate) fn note_time(&mut self, task: TaskId, worker: WorkerId, ms: u64, cold: bool) {
        let (times, tells) = (&self.state.step(task).times, self.state.step(task).plan.measures_speed);
        let ms = ms.max(1) as f32;
        let expected = times.at(task.index).filter(|_| tells && times.is_known() && !cold);
        let speed = &mut self.state.worker_mut(worker).speed;
        speed.note_frame(cold || !tells);
        if let Some(expected) = expected {
            speed.learn(expected, ms);
        }
        // By its speed as it is known now: a slow worker's first frame must not pass for a long one.
        let work = ms * speed.get();
        self.state.step_mut(task).times.measured(task.index, work, cold);
    }
}
