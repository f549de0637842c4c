//! The memory that frames take: learned from those that went well, and from those that ran out of it.

use std::num::NonZeroU64;

use kiln_types::{AttemptId, Failure, FailureCause, JobId, StepIndex, TaskId, TaskIndex, WorkerId};

use crate::{
    Core, Outbox, Record, Room,
    job::{Step, Trouble},
    needs::{self, Need},
    worker::{Attempt, Worker},
};

/// What frames of a step took of their machines; bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Peak {
    /// The most that one took, or was seen not to be enough for one of several at once.
    pub most: u64,
    /// The smallest machine on which one went well, where one is known.
    fine_on: Option<NonZeroU64>,
    /// The largest machine that one had for itself and that was too small.
    too_small: u64,
}

impl Core {
    /// A frame of the task's step held so much memory at most, and was delivered.
    pub fn learn_memory(&mut self, task: TaskId, worker: WorkerId, bytes: u64) {
        let on = self.workers.get(&worker).map_or(0, |worker| worker.offer.memory);
        self.learn_peak(task.job, task.step, bytes, on);
    }

    /// A frame of the step held so much memory at most, on a machine that has `on`; 0 where that is not known.
    pub fn learn_peak(&mut self, job: JobId, step: StepIndex, bytes: u64, on: u64) {
        // No machine has more; a worker that says so is not believed.
        let bytes = bytes.min(1 << 50);
        let found = self.jobs.get_mut(&job).and_then(|job| job.steps.get_mut(usize::from(step.0)));
        let Some(found) = found else { return };
        // Of a machine that is not known nothing is learned of machines.
        let fine_on = found.peak.fine_on.into_iter().chain(NonZeroU64::new(on)).min();
        let peak = Peak { most: found.peak.most.max(bytes), fine_on, ..found.peak };
        if std::mem::replace(&mut found.peak, peak) != peak {
            self.size_step(job, step);
        }
    }

    /// The attempt, off its slot already, ran out of memory. From now on its task gets a machine for itself: a larger
    /// one, or where others were at work beside it, one as large. Why the task fails, where none is connected.
    pub(crate) fn ran_out_of_memory(
        &mut self,
        id: AttemptId,
        attempt: &Attempt,
        out: &mut impl Outbox,
    ) -> Option<Failure> {
        let worker = self.workers.get(&attempt.worker).filter(|worker| worker.offer.memory > 0)?;
        let (task, has) = (attempt.task, worker.offer.memory);
        let others = worker
            .slots
            .iter()
            .enumerate()
            .filter(|(index, slot)| *index != usize::from(attempt.slot.0) && !slot.queue.is_empty());
        let (mut alone, mut like_it) = (true, 1);
        for (_, slot) in others {
            alone = false;
            like_it += u64::from(slot.counted.contains(&(task.job, task.step)));
        }
        let least = has + u64::from(alone);
        let step = self.step_mut(task)?;
        let need = step.need;
        if alone {
            step.peak.too_small = step.peak.too_small.max(has);
        } else if like_it > 1 {
            // So many of them at once are too many.
            step.peak.most = step.peak.most.max(has / like_it + 1);
        }
        let trouble = step.troubles.entry(task.index).or_default();
        trouble.outgrew = trouble.outgrew.max(Some(least));
        out.record(Record::AttemptOutgrew { attempt: id, task, bytes: least });
        self.size_step(task.job, task.step);
        let mut rest = self.needs[need].requirement.clone();
        rest.room.memory = 0;
        let connected = self.workers.values().filter(|worker| worker.presence.is_connected());
        let sizes = connected.filter(|worker| needs::fits(&worker.offer, &rest));
        let sizes: Vec<u64> = sizes.map(|worker| worker.offer.memory).collect();
        let goes_on = sizes.iter().any(|memory| *memory == 0 || *memory >= least);
        (!goes_on).then(|| {
            let most = sizes.into_iter().max().unwrap_or(has).max(has);
            let gib = most as f64 / f64::from(1 << 30);
            let what =
                format!("it needs more memory than any worker has that is connected and fits ({gib:.1} GiB)");
            Failure::new(FailureCause::OutOfMemory, what)
        })
    }

    /// Whether the task may be given to a worker of so much memory, where it ran out of memory before.
    pub(crate) fn is_large_enough(worker: &Worker, trouble: &Trouble) -> bool {
        trouble.outgrew.is_none_or(|least| worker.offer.memory == 0 || worker.offer.memory >= least)
    }

    /// A task of the step that is to have this worker for itself.
    pub(crate) fn outgrown(&self, id: WorkerId, step: &Step) -> Option<TaskIndex> {
        let worker = self.workers.get(&id)?;
        let outgrew = |index: &TaskIndex| {
            let trouble = step.troubles.get(index);
            trouble.is_some_and(|t| t.outgrew.is_some() && self.may_take(id, step.need, t))
        };
        let all = step.retry.iter().map(|spot| spot.index).take(crate::choose::LOOK_AT);
        (worker.offer.memory > 0).then(|| all.into_iter().find(outgrew)).flatten()
    }

    /// What a slot claims for this task.
    pub(crate) fn room_of(&self, task: TaskId, need: Need) -> Room {
        let trouble = self.step(task).and_then(|step| step.troubles.get(&task.index));
        let alone = trouble.is_some_and(|trouble| trouble.outgrew.is_some());
        let room = self.needs[need].requirement.room;
        Room { whole: room.whole || alone, ..room }
    }

    /// Files the step under the need that its asked room and what its frames took make.
    pub(crate) fn size_step(&mut self, job: JobId, step: StepIndex) {
        let Some(known) = self.jobs.get(&job) else { return };
        let Some(of) = known.steps.get(usize::from(step.0)) else { return };
        let (peak, mut requirement) = (of.peak, of.plan.requires.clone());
        // A tenth more than the most so far, in steps of an eighth of a power of two: needs stay few.
        let grain = (peak.most.next_power_of_two() / 8).max(1);
        requirement.room.learned = (peak.most + peak.most / 10).div_ceil(grain).saturating_mul(grain);
        // One heavy frame must not keep the others from machines on which such went well, nor from the largest.
        let larger =
            || self.workers.values().any(|w| w.presence.is_connected() && w.offer.memory > peak.too_small);
        let fine_on_it = peak.fine_on.is_some_and(|fine_on| fine_on.get() <= peak.too_small);
        if peak.too_small > 0 && !fine_on_it && larger() {
            requirement.room.memory = requirement.room.memory.max(peak.too_small + 1);
        }
        // What runs takes it already, whatever it was given for.
        let learned = requirement.room.learned;
        for id in known.on.keys() {
            let Some(worker) = self.workers.get_mut(id) else { continue };
            let most = if worker.offer.memory > 0 { worker.offer.memory } else { u64::MAX };
            for slot in worker.slots.iter_mut().filter(|slot| slot.counted.contains(&(job, step))) {
                slot.claim.memory = slot.claim.memory.max(learned.min(most));
            }
            self.indexes.dirty.insert(*id);
        }
        let need = self.hold_need(&requirement);
        let Some(found) = self.jobs.get_mut(&job).and_then(|job| job.steps.get_mut(usize::from(step.0)))
        else {
            return self.needs.release(need);
        };
        let before = std::mem::replace(&mut found.need, need);
        self.needs.release(before);
        if before != need {
            self.indexes.changed.insert(job);
        }
    }
}
