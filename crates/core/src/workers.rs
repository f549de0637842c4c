//! Reactions to workers that come, go and give signs of life.

use std::collections::{BTreeMap, BTreeSet};

use kiln_types::{AttemptId, AttemptState, SlotIndex, WorkerId, WorkerWish};

use crate::{
    Core, HeldAttempt, HeldPhase, Moment, Outbox, Push, Record, RevokeReason, WorkerOffer,
    job::{JobPhase, Place},
    worker::{AttemptPhase, Presence, Worker},
};

impl Core {
    /// The worker is connected, for the first time or again. `held` is everything it still has of earlier
    /// connections: what is still wanted goes on, the rest is revoked, and what it should have and does not
    /// is lost.
    pub fn worker_joined(
        &mut self,
        now: Moment,
        id: WorkerId,
        offer: WorkerOffer,
        held: &[HeldAttempt],
        out: &mut impl Outbox,
    ) {
        let until = self.renewed(now);
        let suspects = self.suspects(id);
        let worker = self.workers.entry(id).or_insert_with(|| Worker::unseen(Presence::Offline));
        let was_gone = worker.presence == Presence::Offline;
        let mut missing: BTreeSet<AttemptId> = worker.live().collect();
        for slot in &mut worker.slots {
            slot.queue.clear();
            slot.delivering.clear();
            slot.closing.clear();
        }
        worker.presence = Presence::Here { until };
        worker.set_offer(offer, &self.needs);
        if worker.wish != WorkerWish::Work {
            out.push(id, Push::Wish(worker.wish));
        }
        self.touch(id);

        // Each attempt once, in the order the worker names them: the order of its queues.
        let mut seen = BTreeSet::new();
        for held in held.iter().filter(|held| seen.insert(held.attempt)) {
            if self.is_as_given(id, held) && missing.remove(&held.attempt) {
                self.go_on(now, held.attempt, held.slot, held.phase, out);
            } else {
                self.reconcile(now, id, held, out);
            }
        }
        let lost: BTreeSet<AttemptId> = missing.intersection(&suspects).copied().collect();
        self.went_down(now, id, &lost, out);
        if was_gone {
            self.convalesce(now, id);
        }
        for attempt in missing {
            self.lose(attempt, suspects.contains(&attempt), false, out);
        }
        let gone = |attempt: &AttemptId| !seen.contains(attempt);
        for attempt in self.late_of(id).into_iter().map(|late| late.0).filter(gone) {
            self.drop_late(attempt);
        }
        self.watch_slots(now, id);
        self.recall_misplaced(id, out);
    }

    /// The connection is lost. The leases of its attempts go on, so that it may come back.
    pub fn worker_left(&mut self, _now: Moment, id: WorkerId, out: &mut impl Outbox) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        match worker.presence {
            Presence::Here { until } if worker.live().next().is_some() => {
                worker.presence = Presence::Away { until };
            }
            Presence::Here { .. } | Presence::Silent => {
                worker.presence = Presence::Offline;
                worker.slots.iter_mut().for_each(|slot| slot.closing.clear());
            }
            Presence::Away { .. } | Presence::Offline => {}
        }
        self.touch(id);
        self.record_workers(out);
    }

    /// The worker has other slots or labels than it said, or rests, or does so no more. What it has begun goes on.
    pub fn worker_offer_changed(
        &mut self,
        _now: Moment,
        id: WorkerId,
        offer: WorkerOffer,
        out: &mut impl Outbox,
    ) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.set_offer(offer, &self.needs);
        self.touch(id);
        self.recall_misplaced(id, out);
    }

    /// Something of the worker arrived at this time, which may have passed, and the core is told of it later: its leases
    /// run from then. One whose lease has run out already comes back by what it says.
    pub fn renew_lease(&mut self, arrived: Moment, id: WorkerId) {
        let end = arrived.after(self.config.lease_ms);
        if let Some(worker) = self.workers.get_mut(&id)
            && let Presence::Here { until } | Presence::Away { until } = &mut worker.presence
        {
            *until = end.max(*until);
        }
    }

    /// A sign of life that arrived at this time: the leases of all its attempts run from then. What lapsed while it was
    /// silent goes on, where nobody else has begun it.
    pub fn heartbeat(&mut self, now: Moment, id: WorkerId, out: &mut impl Outbox) {
        let until = self.renewed(now);
        let Some(worker) = self.workers.get_mut(&id) else { return };
        match worker.presence {
            Presence::Here { .. } => self.renew_lease(now, id),
            // Only a join says what it holds.
            Presence::Away { .. } | Presence::Offline => {}
            Presence::Silent => {
                worker.presence = Presence::Here { until };
                let mut closing = BTreeMap::new();
                for (index, slot) in worker.slots.iter_mut().enumerate() {
                    let index = SlotIndex(index as u16);
                    closing.extend(std::mem::take(&mut slot.closing).into_iter().map(|id| (id, index)));
                }
                let mut back = self.late_of(id);
                // What ran comes before what was queued behind it.
                back.sort_by_key(|(attempt, slot, was)| (*slot, *was == HeldPhase::Queued, *attempt));
                for (attempt, slot, was) in back {
                    closing.remove(&attempt);
                    self.resume_or_revoke(now, id, attempt, slot, was, out);
                }
                for (attempt, slot) in closing {
                    self.revoke_foreign(id, attempt, slot, out);
                }
                self.touch(id);
                self.watch_slots(now, id);
                self.recall_misplaced(id, out);
            }
        }
    }

    /// What a person wants of the worker. It is remembered for one that is not there, too.
    pub fn set_wish(&mut self, _now: Moment, id: WorkerId, wish: WorkerWish, out: &mut impl Outbox) {
        let worker = self.know(id);
        if worker.wish == wish {
            return;
        }
        worker.wish = wish;
        self.touch(id);
        self.push(id, Push::Wish(wish), out);
        self.recall_misplaced(id, out);
        self.record_workers(out);
    }

    /// The worker, made where nothing is known of it yet.
    pub(crate) fn know(&mut self, id: WorkerId) -> &mut Worker {
        self.workers.entry(id).or_insert_with(|| {
            let mut worker = Worker::unseen(Presence::Offline);
            worker.set_offer(WorkerOffer::default(), &self.needs);
            worker
        })
    }

    /// Its attempts end without blame, and the core knows it no more. Whether it did.
    pub fn forget_worker(&mut self, now: Moment, id: WorkerId, out: &mut impl Outbox) -> bool {
        if !self.workers.contains_key(&id) {
            return false;
        }
        self.lapse(now, id, false, out);
        for (attempt, _, _) in self.late_of(id) {
            self.drop_late(attempt);
        }
        // Whatever counts it lets go of it.
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.set_offer(WorkerOffer::default(), &self.needs);
        }
        self.forget_health(id);
        self.reindex_worker(id);
        self.workers.remove(&id);
        self.pauses.forget(id);
        self.touched.remove(&id);
        self.indexes.forget_worker(id);
        true
    }

    /// Whether the worker names the attempt as it was given.
    fn is_as_given(&self, worker: WorkerId, held: &HeldAttempt) -> bool {
        self.attempts.get(&held.attempt).is_some_and(|known| {
            known.worker == worker && known.task == held.task && known.generation == held.generation
        })
    }

    /// Puts a live attempt, on no slot so far, where its worker has it.
    fn go_on(
        &mut self,
        now: Moment,
        id: AttemptId,
        slot: SlotIndex,
        phase: HeldPhase,
        out: &mut impl Outbox,
    ) {
        let Some(known) = self.attempts.get_mut(&id) else { return };
        let (task, had_begun) = (known.task, known.phase.has_begun());
        if slot.0 < WorkerOffer::MAX_SLOTS {
            known.slot = slot;
        }
        known.phase = match (phase, known.phase) {
            (HeldPhase::Queued, _) => AttemptPhase::Assigned { recalled: false },
            (HeldPhase::Running, AttemptPhase::Running { since }) => AttemptPhase::Running { since },
            (HeldPhase::Running, _) => AttemptPhase::Running { since: now },
            (HeldPhase::Finished, _) => AttemptPhase::Delivering,
        };
        let (slot, phase, owner) = (known.slot, known.phase, known.worker);
        if let Some(step) = self.step_mut(task)
            && !step.is_twin(task.index, id)
        {
            step.running = step.running - u32::from(had_begun) + u32::from(phase.has_begun());
        }
        if phase.has_begun() && !had_begun {
            out.record(Record::AttemptStarted { attempt: id, task });
            self.begin(task.job, out);
        }
        let Some(slot) = self.workers.get_mut(&owner).and_then(|worker| worker.slot_mut(slot)) else {
            return;
        };
        match phase {
            AttemptPhase::Delivering => slot.delivering.push(id),
            AttemptPhase::Running { .. } => slot.runs(id, &mut self.attempts),
            AttemptPhase::Assigned { .. } | AttemptPhase::Late { .. } => slot.queue.push_back(id),
        }
    }

    /// The worker holds something that is not an open attempt of its own.
    fn reconcile(&mut self, now: Moment, worker: WorkerId, held: &HeldAttempt, out: &mut impl Outbox) {
        let known = self.is_as_given(worker, held);
        if known && self.attempts.get(&held.attempt).is_some_and(|known| !known.phase.is_live()) {
            self.resume_or_revoke(now, worker, held.attempt, held.slot, held.phase, out);
        } else if held.phase == HeldPhase::Finished {
            // Its report is on the way and will be answered.
        } else {
            self.revoke_foreign(worker, held.attempt, held.slot, out);
        }
    }

    /// A late attempt whose worker is back: its task is its own again where nobody has taken it.
    fn resume_or_revoke(
        &mut self,
        now: Moment,
        worker: WorkerId,
        id: AttemptId,
        slot: SlotIndex,
        phase: HeldPhase,
        out: &mut impl Outbox,
    ) {
        let Some(known) = self.attempts.get(&id) else { return };
        let AttemptPhase::Late { counted, .. } = known.phase else { return };
        if self.open_place(known) != Some(Place::Waiting) {
            if phase != HeldPhase::Finished {
                self.revoke_foreign(worker, id, slot, out);
            }
            return;
        }
        let task = known.task;
        let Some(step) = self.step_mut(task) else { return };
        step.remove_waiting(task.index);
        step.live.insert(task.index, id);
        if let Some(trouble) = step.troubles.get_mut(&task.index) {
            trouble.late.retain(|late| *late != id);
            if counted && !trouble.forgive(id, worker) {
                // Of an earlier reign: which lapse it was is not known, but whose.
                if let Some(at) = trouble.lapsed_on.iter().position(|of| *of == worker) {
                    trouble.lapsed_on.remove(at);
                }
            }
            if trouble.is_over() {
                step.troubles.remove(&task.index);
            }
        }
        let begun = phase != HeldPhase::Queued;
        step.running += u32::from(begun);
        let resumed = match phase {
            HeldPhase::Queued => AttemptPhase::Assigned { recalled: false },
            HeldPhase::Running => AttemptPhase::Running { since: now },
            HeldPhase::Finished => AttemptPhase::Delivering,
        };
        self.attempts.resume(id, resumed);
        let state = if begun { AttemptState::Running } else { AttemptState::Assigned };
        out.record(Record::AttemptResumed { attempt: id, task, state });
        if begun {
            self.begin(task.job, out);
        }
        self.withdraw_strike(worker, id, out);
        self.go_on(now, id, slot, phase, out);
    }

    /// Tells the worker to stop something that nobody wants; the slot waits for its report.
    fn revoke_foreign(
        &mut self,
        worker: WorkerId,
        attempt: AttemptId,
        slot: SlotIndex,
        out: &mut impl Outbox,
    ) {
        if let Some(known) = self.workers.get_mut(&worker)
            && let Some(slot) = known.slot_mut(slot)
        {
            slot.close(attempt);
        }
        self.push(worker, Push::Revoke { attempt, why: RevokeReason::Stale }, out);
    }

    /// Asks back what the worker has queued and should not begin: its job or itself is paused, it rests or is sick,
    /// its slot is gone, or it does not fit any more.
    pub(crate) fn recall_misplaced(&mut self, id: WorkerId, out: &mut impl Outbox) {
        let Some(worker) = self.workers.get(&id) else { return };
        let misplaced = |attempt: &AttemptId| {
            let Some(known) = self.attempts.get(attempt) else { return false };
            let paused = self.jobs.get(&known.task.job).is_some_and(|job| job.phase == JobPhase::Paused);
            let fits = self.step(known.task).is_some_and(|step| worker.fits(step.need));
            let set_aside = worker.sick.is_some() && !worker.is_trial(*attempt);
            paused || !fits || set_aside || !worker.is_to_work() || !worker.is_offered(known.slot)
        };
        let misplaced: Vec<AttemptId> = worker.live().filter(misplaced).collect();
        for attempt in misplaced {
            self.recall(attempt, out);
        }
    }

    /// Closed attempts of the worker that may yet deliver.
    fn late_of(&self, worker: WorkerId) -> Vec<(AttemptId, SlotIndex, HeldPhase)> {
        self.attempts.late_of(worker).map(|(id, known)| (id, known.slot, known.phase.held())).collect()
    }
}
