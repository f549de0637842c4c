//! The dispatching of tasks to slots, and the messages to their workers.

use kiln_types::{AttemptId, JobId, TaskId};

use crate::{
    Assigned, Core, Outbox, Push, Record,
    claims::claim,
    ids::{RequirementId, SlotRef, StepRef},
    schedule::indexes::Dispatched,
    state::{Attempt, AttemptPhase, FailureHistory},
    tuning::{LOWER_PRIORITY_PART, estimate::UNMEASURED_MS},
};

impl Core {
    pub(crate) fn next_attempt_id(&mut self) -> AttemptId {
        let attempt = AttemptId { epoch: self.epoch, counter: self.next_attempt };
        self.next_attempt += 1;
        attempt
    }

    /// Opens an attempt of the task on this slot, or places the one that streams there; returns its id.
    pub(crate) fn dispatch(&mut self, task: TaskId, of: SlotRef, out: &mut impl Outbox) -> AttemptId {
        let SlotRef { worker, slot } = of;
        let asked = self.state.step(task).requirement;
        self.pin_device(task.into(), worker, out);
        let step = self.state.step(task);
        let (requirement, session) = (step.requirement, step.session());
        let generation = step.tasks.generation(task.index);
        let place = self.state.slot(of);
        let cold = place.must_open(session);
        let frame_ms = self.frame_ms(step, task.index, worker, Some(place)).unwrap_or(UNMEASURED_MS);
        let stream = step.tasks.streaming().get(task.index).map(|stream| stream.attempt);
        let mut room = self.requirements[requirement].requirement.room;
        // A task that ran out of memory has the machine for itself.
        room.whole |= step.tasks.history(task.index).and_then(FailureHistory::least_memory).is_some();
        let attempt = stream.unwrap_or_else(|| self.next_attempt_id());
        let tasks = &mut self.state.step_mut(task).tasks;
        if stream.is_some() {
            tasks.place_stream(task.index);
            self.state.update_streams(worker, |streams| streams.detach(attempt));
        } else if tasks.is_live(task.index) {
            tasks.speculate(task.index, attempt);
        } else {
            tasks.dispatch(task.index, attempt);
        }
        self.charge(task.job, frame_ms);
        let charged_ms = u32::try_from(frame_ms).unwrap_or(u32::MAX);
        let known = Attempt {
            charged_ms,
            cold,
            ..Attempt::new(task, worker, generation, AttemptPhase::queued(slot))
        };
        self.state.attempts.insert(attempt, known);
        let known = self.state.worker_mut(worker);
        let claim = claim(&known.offer, known.claimed(Some(slot)), room);
        let is_for_it = |reserved: &mut RequirementId| *reserved == requirement || *reserved == asked;
        let reserved = known.reserved.take_if(is_for_it);
        if let Some(reserved) = reserved {
            self.requirements[reserved].reserved = None;
        }
        let place = self.state.slot_mut(of);
        // Behind tasks of the same step, the task changes nothing that indexes depend on.
        let is_more = !place.queue().is_empty() && place.counted.contains(&task.into()) && reserved.is_none();
        if place.queue().is_empty() {
            place.claim = claim.unwrap_or_default();
            place.claim_is_guessed = false;
        }
        let left = place.session();
        place.push(attempt);
        place.set_session(session);
        if session.is_some() {
            place.last = Some(task.into());
        }
        if let Some(left) = left {
            self.indexes.set_warm(left, of, false);
        }
        if let Some(session) = session {
            self.indexes.had.entry(session).or_default().insert(worker);
        }
        if !is_more {
            self.state.touch(worker);
            self.reindex_worker(worker);
        }
        self.reindex_job(task.job);
        out.record(match stream {
            Some(_) => Record::StreamPlaced { attempt, task, slot },
            None => Record::AttemptOpened { attempt, task, generation, worker, slot },
        });
        let assigned = Assigned { attempt, task, generation };
        self.indexes.dispatched.push(Dispatched { of, assigned, is_stream: stream.is_some() });
        attempt
    }

    /// Charges the account of the job; a part is owed to waiting jobs of lower priority.
    fn charge(&mut self, job: JobId, ms: u64) {
        let job = self.state.job(job);
        let priority = job.options.priority;
        self.fair_share.charge(job.member, i64::try_from(ms).unwrap_or(i64::MAX));
        let others = || self.requirements.all().flat_map(|id| self.requirements[id].ready.priorities());
        if others().any(|other| other > priority) {
            self.owed_ms = self.owed_ms.saturating_sub(ms);
        } else if others().any(|other| other < priority) {
            self.owed_ms = self.owed_ms.saturating_add(ms / LOWER_PRIORITY_PART);
        }
    }

    /// Sends the dispatched tasks in their order, with one message for neighbouring tasks of one step on one slot.
    pub(crate) fn send(&mut self, out: &mut impl Outbox) {
        let mut dispatched = std::mem::take(&mut self.indexes.dispatched);
        dispatched.sort_by_key(|known| known.of);
        let place = |known: &Dispatched| (known.of, StepRef::from(known.assigned.task));
        let is_one = |a: &Dispatched, b: &Dispatched| place(a) == place(b) && !a.is_stream && !b.is_stream;
        for tasks in dispatched.chunk_by(is_one) {
            let Dispatched { of, assigned: Assigned { attempt, .. }, is_stream } = tasks[0];
            let (claim, slot) = (self.state.slot(of).claim, of.slot);
            let tasks = tasks.iter().map(|known| known.assigned).collect();
            let assign = Push::Assign { slot, claim, tasks };
            self.push(of.worker, if is_stream { Push::Place { attempt, slot, claim } } else { assign }, out);
        }
    }
}
