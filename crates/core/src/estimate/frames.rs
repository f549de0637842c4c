//! Estimates of the time of a frame on a worker.

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
    /// Milliseconds that this frame of the step takes on this slot of the worker; `None` if no frame was measured.
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
        // A slot has measured few frames, all slots together many. But a worker's speed may differ with the kind of frame.
        let mean = step.times.mean().map(ms).filter(|_| speed.is_trusted());
        let is_usual = |here: &u64| mean.is_some_and(|mean| (here / 2..=here * 2).contains(&mean));
        here.filter(|here| !is_usual(here)).or_else(|| step.times.at(task).map(ms))
    }

    /// Milliseconds that opening the step's scene adds to a frame on the worker.
    pub(crate) fn opening_ms(&self, step: &Step, worker: WorkerId) -> u64 {
        let speed = self.state.worker(worker).speed;
        step.times.opening().map_or(0, |work| speed.ms(work))
    }

    /// Milliseconds that this frame takes on the worker, by the progress of an attempt that runs elsewhere.
    pub(crate) fn predicted_ms(&self, step: &Step, task: TaskIndex, worker: WorkerId) -> Option<u64> {
        let running = self.state.attempt(step.tasks.first_attempt(task)?);
        let speed = |id: WorkerId| self.state.worker(id).speed.get();
        let ms = running.frame_ms?.get() as f32 * speed(running.worker) / speed(worker);
        // The speed of that worker may be known badly: the longest frames are the limit.
        let most = step.times.at(task).map_or(ms, |work| work * step.times.longest() / speed(worker));
        Some((ms.min(most) as u64).max(1))
    }

    /// The times of a running attempt that takes far longer than other frames of its step on its worker. `None` if it does
    /// not, or too little is known of the step or the worker.
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

    /// Predicts the end of a running attempt from its progress, 0 to 1, as its Blender reports it.
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

    /// Guesses the speed of a worker of which little is known by a frame that opened its scene and took `elapsed`
    /// milliseconds up to this part of its time. Otherwise the slow opening of a scene would look like a late frame.
    /// Returns whether such a frame says more about the worker than about frames.
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

    /// Learns from the time of an attempt from its start until it left Blender, and from its reported progress.
    pub(crate) fn note_attempt(&mut self, id: AttemptId, ms: u64) {
        let Attempt { task, worker, cold, progress, .. } = *self.state.attempt(id);
        // A speed that was guessed from the usual frame teaches nothing about frames.
        if cold && self.guess_speed(worker, task, ms, 1.0) {
            return;
        }
        self.note_time(task, worker, ms, cold);
        if let Some(ProgressSample { after, part }) = progress.filter(|_| !cold) {
            self.state.step_mut(task).times.progressed(part, after.get() as f32 / ms.max(1) as f32);
        }
    }

    /// Learns from the time of a frame on the worker.
    pub(crate) fn note_time(&mut self, task: TaskId, worker: WorkerId, ms: u64, cold: bool) {
        let (times, tells) = (&self.state.step(task).times, self.state.step(task).plan.measures_speed);
        let ms = ms.max(1) as f32;
        let expected = times.at(task.index).filter(|_| tells && times.is_known() && !cold);
        let speed = &mut self.state.worker_mut(worker).speed;
        speed.note_frame(cold || !tells);
        if let Some(expected) = expected {
            speed.learn(expected, ms);
        }
        // By the speed as it is known now: a slow worker's first frame must not count as a long one.
        let work = ms * speed.get();
        self.state.step_mut(task).times.measured(task.index, work, cold);
    }
}
