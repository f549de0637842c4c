//! Tasks that run out of memory are dispatched to machines with more.

use kiln_types::{AttemptId, Failure, FailureCause, JobId};

use crate::{
    Core, Outbox, Record, WorkerOffer,
    ids::StepRef,
    state::{Attempt, slot_refs},
};

impl Core {
    /// Learns from the peak memory of a frame on a machine that has `on` bytes; 0 if that is not known.
    pub(crate) fn note_memory(&mut self, of: StepRef, bytes: u64, on: u64) {
        if self.state.find_step(of).is_some() && self.state.step_quietly(of).memory.note_frame(bytes, on) {
            self.widen_requirement(of);
        }
    }

    /// A closed attempt ran out of memory. From now on its task gets a machine for itself: a larger one, or one as large if
    /// others were at work beside it. Returns the task's failure, if no connected machine is large enough.
    pub(super) fn note_out_of_memory(
        &mut self,
        id: AttemptId,
        attempt: &Attempt,
        out: &mut impl Outbox,
    ) -> Option<Failure> {
        let worker = self.state.worker(attempt.worker);
        let (task, of, has) = (attempt.task, attempt.step(), worker.offer.memory);
        if has == 0 {
            return None;
        }
        let slots = slot_refs(attempt.worker, worker).filter(|(place, _)| Some(*place) != attempt.place());
        let others: Vec<_> = slots.map(|(_, slot)| slot).filter(|slot| !slot.queue().is_empty()).collect();
        let frames = 1 + others.iter().filter(|slot| slot.counted.contains(&of)).count() as u64;
        let alone = others.is_empty();
        let least = has + u64::from(alone);
        let step = self.state.step_mut(of);
        step.memory.note_too_small(has, alone, frames);
        step.tasks.update_history(task.index, |history| history.require_memory(least));
        let mut rest = self.requirements[step.requirement].requirement.clone();
        out.record(Record::MemoryExceeded { attempt: id, task, bytes: least });
        self.widen_requirement(of);
        rest.room.memory = 0;
        let fitting = self.connected_offers().filter(|offer| rest.is_met_by(offer));
        let sizes: Vec<u64> = fitting.map(|offer| offer.memory).collect();
        if sizes.iter().any(|memory| *memory == 0 || *memory >= least) {
            return None;
        }
        let gib = sizes.into_iter().fold(has, u64::max) as f64 / f64::from(1 << 30);
        let what =
            format!("it needs more memory than any worker has that is connected and fits ({gib:.1} GiB)");
        Some(Failure::new(FailureCause::OutOfMemory, what))
    }

    /// Sets the requirement of every step of the job by its plan and the memory of its frames.
    pub(crate) fn widen_requirements(&mut self, job: JobId) {
        let steps = self.state.job(job).steps.len();
        (0..steps).for_each(|place| self.widen_requirement(StepRef::new(job, place)));
    }

    fn connected_offers(&self) -> impl Iterator<Item = &WorkerOffer> {
        let connected = self.state.workers().values().filter(|worker| worker.presence.is_connected());
        connected.map(|worker| &worker.offer)
    }

    fn widen_requirement(&mut self, of: StepRef) {
        let step = self.state.step(of);
        let mut requirement = step.plan.requires.clone();
        let has_larger = |bytes: u64| self.connected_offers().any(|offer| offer.memory > bytes);
        step.memory.widen(&mut requirement.room, has_larger);
        // Slots at work take that memory already, whatever they claimed. Streams run nothing yet and keep their claim: one
        // that then lacks room for its slot reserves its worker (`capacity_for`), or is displaced for other streams.
        let on: Vec<_> = self.state.job(of.job).on.keys().copied().collect();
        for id in on {
            self.state.changed_workers.insert(id);
            let worker = self.state.worker_mut(id);
            let most = if worker.offer.memory > 0 { worker.offer.memory } else { u64::MAX };
            for slot in worker.slots_mut().iter_mut().filter(|slot| slot.counted.contains(&of)) {
                slot.claim.memory = slot.claim.memory.max(requirement.room.learned.min(most));
            }
        }
        let new = self.hold_requirement(&requirement);
        let before = std::mem::replace(&mut self.state.step_quietly(of).requirement, new);
        self.requirements.release(before);
        if before != new {
            self.state.changed_jobs.insert(of.job);
        }
    }
}
