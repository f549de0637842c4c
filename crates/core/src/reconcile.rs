//! The comparison of the attempts that a worker reports with those that the core has dispatched to it.

use std::collections::{BTreeMap, BTreeSet};

use kiln_types::{AttemptId, AttemptState, WorkerId};

use crate::{
    Core, Finish, HeldAttempt, HeldPhase, Moment, Outbox, Push, Record, ReportOutcome, RevokeReason,
    WorkerOffer,
    ids::SlotRef,
    state::{Attempt, AttemptPhase, CooldownCause, JobPhase, TaskPlace, Worker},
};

impl Core {
    /// The worker, which is added if it is not known yet.
    pub(crate) fn known_worker(&mut self, id: WorkerId) -> &mut Worker {
        if self.state.find_worker(id).is_none() {
            self.state.add_worker(id, Worker::unknown());
            self.set_offer(id, WorkerOffer::default());
        }
        self.state.worker_mut(id)
    }

    pub(crate) fn set_offer(&mut self, id: WorkerId, offer: WorkerOffer) {
        self.state.worker_mut(id).set_offer(offer, |offer| self.requirements.met_by(offer));
    }

    /// Puts the attempts that the worker holds and should hold on its slots again; revokes the others, and forgets expired
    /// ones that it no longer holds. Returns those of `missing` that it does not hold.
    pub(crate) fn reconcile(
        &mut self,
        now: Moment,
        id: WorkerId,
        mut missing: BTreeSet<AttemptId>,
        held: &[HeldAttempt],
        out: &mut impl Outbox,
    ) -> BTreeSet<AttemptId> {
        // Each attempt once, in the worker's order, which is that of its queues.
        let mut named = BTreeSet::new();
        for held in held.iter().filter(|held| named.insert(held.attempt)) {
            let known = self.state.find_attempt(held.attempt).filter(|known| {
                known.worker == id && known.task == held.task && known.generation == held.generation
            });
            let is_expired = known.is_some_and(|known| !known.phase.is_live());
            let goes_on = known.is_some_and(|known| self.may_resume(held.attempt, known, held.phase));
            if goes_on && missing.remove(&held.attempt) {
                self.resume(now, *held, out);
            } else if is_expired {
                self.resume_or_revoke(now, *held, out);
            } else {
                self.revoke_foreign(id, *held, out);
            }
        }
        for expired in self.expired_of(id).iter().filter(|expired| !named.contains(&expired.attempt)) {
            self.drop_expired(expired.attempt);
        }
        missing
    }

    /// Resumes the attempts that expired while the worker was silent, or revokes those whose tasks are not free.
    pub(crate) fn resume_expired(&mut self, now: Moment, id: WorkerId, out: &mut impl Outbox) {
        let worker = self.state.worker_mut(id);
        let mut closing: BTreeMap<AttemptId, SlotRef> = BTreeMap::new();
        for (place, slot) in worker.slots_mut().iter_mut().enumerate() {
            closing.extend(slot.reopen_all().into_iter().map(|attempt| (attempt, SlotRef::new(id, place))));
        }
        let streams: Vec<AttemptId> = worker.streams.closing().collect();
        let mut expired = self.expired_of(id);
        // An attempt that ran comes before those that were queued behind it.
        let is_queued = |held: &HeldAttempt| matches!(held.phase, HeldPhase::Queued { .. });
        expired.sort_by_key(|held| (held.phase.slot(), is_queued(held), held.attempt));
        for held in expired {
            closing.remove(&held.attempt);
            self.resume_or_revoke(now, held, out);
        }
        for (attempt, of) in closing {
            self.state.slot_mut(of).close(attempt);
            self.push(id, Push::Revoke { attempt, why: RevokeReason::Stale }, out);
        }
        for attempt in streams {
            self.push(id, Push::Revoke { attempt, why: RevokeReason::Stale }, out);
        }
    }

    /// Returns whether a live attempt can be in the phase that its worker reports. A streaming one is on a slot only after
    /// it was placed; one that was placed and has not begun may still stream, if its worker was not told.
    fn may_resume(&self, id: AttemptId, known: &Attempt, held: HeldPhase) -> bool {
        match (known.phase, held) {
            (AttemptPhase::Streaming { .. }, held) => held == HeldPhase::Streaming,
            (AttemptPhase::Assigned { .. }, HeldPhase::Streaming) => {
                let tasks = &self.state.step(known.task).tasks;
                tasks.first_attempt(known.task.index) == Some(id)
                    && tasks.second_attempt(known.task.index).is_none()
            }
            (_, held) => held != HeldPhase::Streaming,
        }
    }

    /// Puts a live attempt that is on no slot where its worker has it.
    fn resume(&mut self, now: Moment, held: HeldAttempt, out: &mut impl Outbox) {
        let HeldAttempt { attempt: id, task, phase, .. } = held;
        let Attempt { worker, phase: known, .. } = *self.state.attempt(id);
        let had_begun = known.has_begun();
        let memory = self.stream_memory(worker, task.into());
        // A slot that no worker can have is not believed.
        let is_possible = phase.slot().is_none_or(|slot| slot.0 < WorkerOffer::MAX_SLOTS);
        let slot = if is_possible { phase.slot() } else { known.slot() };
        let phase = match (known, AttemptPhase::resumed(phase, now, memory)) {
            (AttemptPhase::Running { since, .. }, AttemptPhase::Running { slot, .. }) => {
                AttemptPhase::Running { slot, since }
            }
            (_, resumed) => resumed,
        };
        let phase = slot.map_or(phase, |slot| phase.on(slot));
        self.state.attempt_mut(id).phase = phase;
        let Some(slot) = slot else {
            if !known.is_streaming() {
                self.state.step_mut(task).tasks.stream_again(task.index);
            }
            return self.state.update_streams(worker, |streams| streams.open(id, memory));
        };
        let of = SlotRef { worker, slot };
        self.state.step_mut(task).tasks.set_begun(task.index, id, phase.has_begun());
        if phase.has_begun() && !had_begun {
            out.record(Record::AttemptStarted { attempt: id, task });
            self.begin_job(task.job, out);
        }
        let (slot, attempts) = self.state.slot_and_attempts(of);
        match phase {
            AttemptPhase::Delivering { .. } => slot.push_delivering(id),
            AttemptPhase::Running { .. } => drop(slot.run(id, attempts)),
            _ => slot.push(id),
        }
    }

    /// Resumes an expired attempt whose worker is back, if its task waits; else revokes it.
    fn resume_or_revoke(&mut self, now: Moment, held: HeldAttempt, out: &mut impl Outbox) {
        let HeldAttempt { attempt: id, task, phase, .. } = held;
        let attempt = self.state.attempt(id);
        let worker = attempt.worker;
        let AttemptPhase::Expired { counted, .. } = attempt.phase else { return };
        let waits = self.state.find_place(task) == Some(TaskPlace::Waiting);
        let is_on_slot = phase != HeldPhase::Streaming;
        if !(waits && is_on_slot && self.may_deliver(attempt)) {
            return self.revoke_foreign(worker, held, out);
        }
        let resumed = AttemptPhase::resumed(phase, now, 0);
        let tasks = &mut self.state.step_mut(task).tasks;
        tasks.dispatch(task.index, id);
        tasks.update_history(task.index, |history| {
            history.drop_expired(id);
            if counted && !history.forgive(id, worker) {
                history.forgive_restored_loss(worker);
            }
        });
        self.state.attempts.resume(id, resumed);
        let state = if resumed.has_begun() { AttemptState::Running } else { AttemptState::Assigned };
        out.record(Record::AttemptResumed { attempt: id, task, state });
        if resumed.has_begun() {
            self.begin_job(task.job, out);
        }
        self.withdraw_incident(worker, id, out);
        self.resume(now, held, out);
    }

    /// Tells the worker to stop an attempt that is not wanted; its slot or memory stays taken until it is reported. The
    /// report of one that has left its slot is on the way.
    fn revoke_foreign(&mut self, id: WorkerId, held: HeldAttempt, out: &mut impl Outbox) {
        let attempt = held.attempt;
        match held.phase {
            HeldPhase::Finished { .. } => return,
            HeldPhase::Queued { slot } | HeldPhase::Running { slot } => {
                if let Some(slot) = self.state.worker_mut(id).slot_mut(slot) {
                    slot.close(attempt);
                }
            }
            HeldPhase::Streaming => {
                let memory = self.stream_memory(id, held.task.into());
                self.state.update_streams(id, |streams| streams.close(attempt, memory));
            }
        }
        self.push(id, Push::Revoke { attempt, why: RevokeReason::Stale }, out);
    }

    /// Preempts the queued attempts that the worker should not begin: the job is paused, the worker is not available, in
    /// quarantine or no longer fits, or the slot is gone.
    pub(crate) fn preempt_misplaced(&mut self, id: WorkerId, out: &mut impl Outbox) {
        let worker = self.state.worker(id);
        let is_misplaced = |of: &AttemptId| {
            let attempt = self.state.attempt(*of);
            self.state.job(attempt.task.job).phase == JobPhase::Paused
                || !worker.fits(self.state.step(attempt.task).requirement)
                || worker.quarantined.is_some() && !worker.is_probe(*of)
                || !worker.is_available()
                || attempt.phase.slot().is_some_and(|slot| slot.0 >= worker.offer.slots)
        };
        let misplaced: Vec<AttemptId> = worker.live().filter(is_misplaced).collect();
        misplaced.into_iter().for_each(|attempt| self.preempt(attempt, out));
    }

    /// The expired attempts of the worker, each in the phase in which the worker had it.
    pub(crate) fn expired_of(&self, worker: WorkerId) -> Vec<HeldAttempt> {
        let held = |(attempt, known): (AttemptId, &Attempt)| {
            let Attempt { task, generation, phase, .. } = *known;
            HeldAttempt { attempt, task, generation, phase: phase.held() }
        };
        self.state.attempts.expired_of(worker).map(held).collect()
    }

    /// The slot began a queued attempt; the one that ran there before has left Blender.
    pub(crate) fn begin_attempt(&mut self, now: Moment, id: AttemptId, out: &mut impl Outbox) {
        let attempt = self.state.attempt_mut(id);
        let Some(of) = attempt.place() else { return };
        attempt.phase = AttemptPhase::Running { slot: of.slot, since: now };
        let task = attempt.task;
        let step = self.state.step_mut(task);
        step.tasks.set_begun(task.index, id, true);
        let session = step.session();
        self.state.touch(of.worker);
        out.record(Record::AttemptStarted { attempt: id, task });
        self.end_cooldown(of.worker, session, CooldownCause::Refused);
        self.begin_job(task.job, out);
        let (slot, attempts) = self.state.slot_and_attempts(of);
        if let Some((before, since)) = slot.run(id, attempts) {
            self.time_limits.end(before);
            self.learn_time(now.since(since), before);
        }
        let slot = self.state.slot_mut(of);
        if slot.session().is_none() {
            slot.set_session(session);
        }
        self.begin_time_limit(now, id);
    }

    /// Learns from the milliseconds after which an attempt has left Blender.
    fn learn_time(&mut self, ms: u64, id: AttemptId) {
        let attempt = self.state.attempt(id);
        let opens = self.state.step(attempt.task).session().is_some();
        if let Some(of) = attempt.place().filter(|_| opens) {
            self.state.slot_mut(of).measure(ms);
        }
        self.note_attempt(id, ms);
    }

    /// Starts or ends a cooldown of the worker by the report of an attempt.
    pub(crate) fn update_cooldown(&mut self, now: Moment, id: AttemptId, finish: &Finish) {
        let attempt = self.state.attempt(id);
        let worker = attempt.worker;
        let was_asked = !(attempt.phase.is_queued() || attempt.phase.is_streaming());
        let step = self.state.step(attempt.task);
        let (session, is_first) = (step.session(), step.first_failures.is_open());
        match finish {
            // Before the first delivery, attempts on other workers show whether the worker or the scene is the origin.
            Finish::Failed(failure) if is_first || failure.cause.is_worker_failure() => {
                self.cooldowns.start(now, worker, session, CooldownCause::Faulty);
            }
            Finish::Delivered | Finish::Failed(_) => {
                self.end_cooldown(worker, session, CooldownCause::Faulty)
            }
            // A worker that drains or is not available returns attempts rightly.
            Finish::Returned if !was_asked && self.state.worker(worker).is_available() => {
                self.cooldowns.start(now, worker, session, CooldownCause::Refused);
            }
            Finish::Returned => {}
        }
    }

    /// Commits the delivery of an attempt, if its generation is open, and revokes the other attempts of its task.
    pub(crate) fn deliver(&mut self, now: Moment, id: AttemptId, out: &mut impl Outbox) -> ReportOutcome {
        let attempt = self.state.attempt(id);
        let (task, worker, generation) = (attempt.task, attempt.worker, attempt.generation);
        if let AttemptPhase::Running { since, .. } = attempt.phase {
            self.learn_time(now.since(since), id);
        }
        let is_open = self.may_deliver(self.state.attempt(id));
        // The task of a live attempt is live: only an expired attempt can meet a task that has ended.
        if self.close_attempt(id).is_none() {
            self.drop_expired(id);
        }
        if !is_open {
            let state = AttemptState::Superseded;
            out.record(Record::AttemptClosed { attempt: id, task, state, failure: None });
            return ReportOutcome::Superseded;
        }
        // The speculative attempt, or the one that was dispatched after this one had expired.
        while let Some(other) = self.state.step(task).tasks.first_attempt(task.index) {
            self.revoke(other, RevokeReason::Stale, out);
        }
        let state = AttemptState::Committed;
        out.record(Record::AttemptClosed { attempt: id, task, state, failure: None });
        out.record(Record::TaskCommitted { task, generation, attempt: id });
        let step = self.state.step_mut(task);
        step.replaced.remove(&task.index);
        let history = step.tasks.finish(task.index);
        self.state.job_quietly(task.job).unblock_dependents(task.step, task.index);
        self.announce_done(task, out);
        self.state.attempts.remove_all(history.expired().iter().copied());
        self.unshare_incidents(task, &history);
        self.begin_job(task.job, out);
        self.note_delivery(now, worker, task.into(), out);
        self.settle(task.job, out);
        ReportOutcome::Committed
    }
}
