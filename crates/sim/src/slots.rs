//! The work of the simulated workers' slots.

use kiln_core::Finish;
use kiln_types::{AttemptId, Failure, FailureCause, SlotIndex, TaskId};
use rand::RngExt;

use crate::{
    check::STOPPER,
    worker::ToServer,
    world::{SimEvent, World},
};

impl World {
    /// Starts the first attempt in the queue of an idle slot.
    pub fn start_next(&mut self, worker: usize, slot: SlotIndex) {
        let known = &mut self.workers[worker];
        let place = &mut known.slots[usize::from(slot.0)];
        if place.running.is_some() {
            return;
        }
        let Some(next) = place.queue.pop_front() else { return };
        place.running = Some(next);
        self.report_to_server(worker, ToServer::Started(next.attempt));
        let (life, attempt) = (self.workers[worker].life, next.attempt);
        if self.workers[worker].broken_until > self.now {
            self.checker.report.false_starts += 1;
            let known = &mut self.workers[worker];
            known.slots[usize::from(slot.0)].running = None;
            let finish = Finish::Failed(Failure::new(FailureCause::CannotStart, "no Blender"));
            known.unsettled.insert(attempt, (Some(slot), next, finish));
            self.report_end(worker, attempt);
            return self.start_next(worker, slot);
        }
        if self.is_poison(next.task) {
            self.kill_worker(worker);
            return;
        }
        let base = self.about(self.scenario.frame_ms);
        let frame = base * self.workers[worker].speed / 100;
        self.later(frame.max(1), SimEvent::Rendered { worker, life, slot, attempt });
    }

    fn is_poison(&self, task: TaskId) -> bool {
        let mixed = (task.job.0 * 31 + u64::from(task.step.0) * 7 + u64::from(task.index.0)) * 0x9E37_79B9;
        let one_in = u64::from(self.scenario.kills_one_in);
        one_in > 0 && (mixed >> 8).is_multiple_of(one_in)
    }

    pub fn rendered(&mut self, worker: usize, slot: SlotIndex, attempt: AttemptId) {
        let known = &mut self.workers[worker];
        let place = &mut known.slots[usize::from(slot.0)];
        if place.killing || place.running.is_none_or(|running| running.attempt != attempt) {
            return;
        }
        let Some(assigned) = place.running.take() else { return };
        let life = known.life;
        if self.one_in(self.scenario.fails_one_in) {
            let cause = match self.rng.random_range(0..20) {
                0 => STOPPER,
                1..6 => FailureCause::OutOfMemory,
                _ => FailureCause::Crashed,
            };
            let finish = Finish::Failed(Failure::new(cause, "it went wrong"));
            self.workers[worker].unsettled.insert(attempt, (Some(slot), assigned, finish));
            self.report_end(worker, attempt);
        } else {
            // The next frame renders while this one is uploaded.
            self.workers[worker].uploading.insert(attempt, (slot, assigned));
            let wait = self.rng.random_range(1..2_000);
            self.later(wait, SimEvent::Uploaded { worker, life, attempt });
        }
        self.start_next(worker, slot);
    }
}
