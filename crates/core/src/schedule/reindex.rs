//! The update of the indexes by the marks of inputs.

use kiln_types::{JobId, WorkerId};

use crate::{
    Claim, Core, Requirement,
    claims::{claim, largest_claim},
    ids::{QueueKey, RequirementId, SlotRef, StepRef},
    state::{Match, Rank, slot_refs},
};

impl Core {
    /// The requirement of one more step, which is added if it is new.
    /// [`super::requirements::Requirements::release`] releases it.
    pub(crate) fn hold_requirement(&mut self, requirement: &Requirement) -> RequirementId {
        let (id, is_new) = self.requirements.hold(requirement);
        if is_new {
            let places = self.requirements.len();
            for (_, known) in self.state.workers_mut() {
                known.matches.resize_with(places, Match::default);
                known.matches[id.0] = Match { fits: requirement.is_met_by(&known.offer), ..Match::default() };
            }
            let workers: Vec<WorkerId> = self.state.workers().keys().copied().collect();
            self.state.changed_workers.extend(workers);
        }
        id
    }

    /// Frees the requirements that no step has. Not while work is dispatched: a slot may still refer to one.
    pub(crate) fn free_requirements(&mut self) {
        for id in self.requirements.free_unused() {
            self.state.workers_mut().for_each(|(_, worker)| worker.matches[id.0] = Match::default());
            self.indexes.fresh.remove(&id);
        }
    }

    /// Brings every index up to date.
    pub(crate) fn reindex(&mut self) {
        while let Some(job) = self.state.changed_jobs.pop_first() {
            self.reindex_job(job);
        }
        while let Some(worker) = self.state.changed_workers.pop_first() {
            self.reindex_worker(worker);
        }
    }

    pub(crate) fn reindex_worker(&mut self, id: WorkerId) {
        let Some(worker) = self.state.find_worker(id) else { return };
        for place in 0..worker.slots().len() {
            self.recount_slot(SlotRef::new(id, place));
        }
        let worker = self.state.worker(id);
        let is_over = |of: &RequirementId| {
            !worker.takes_work() || !worker.fits(*of) || self.requirements[*of].ready.is_empty()
        };
        if let Some(requirement) = worker.reserved.filter(is_over) {
            self.unreserve(id, requirement);
        }
        let worker = self.state.worker_mut(id);
        let offered = worker.offer.slots;
        for (of, slot) in slot_refs(id, worker) {
            if let Some(session) = slot.session() {
                self.indexes.set_warm(session, of, of.slot.0 < offered && slot.is_vacant());
            }
        }
        let (takes_work, speed) = (worker.takes_work(), worker.speed.get());
        let busy = worker.slots().iter().filter(|slot| !slot.queue().is_empty()).count() as u16;
        let rank = Rank { busy, slowness: (1000.0 / speed) as u32 };
        let beside = worker.claimed(None);
        let has_incidents = !worker.incidents.is_empty();
        let has_vacant = worker.vacant_slots().next().is_some();
        for requirement in self.requirements.all() {
            let old = worker.matches[requirement.0];
            let slots = if old.fits && takes_work { offered } else { 0 };
            let is_open = worker.reserved.is_none_or(|reserved| reserved == requirement);
            let room = self.requirements[requirement].requirement.room;
            let is_vacant =
                slots > 0 && has_vacant && is_open && claim(&worker.offer, beside, room).is_some();
            let new = Match {
                fits: old.fits,
                slots,
                has_incidents: has_incidents && slots > 0,
                power: (speed * 1000.0) as u64 * u64::from(slots),
                vacant: is_vacant.then_some(rank),
            };
            if old != new {
                worker.matches[requirement.0] = new;
                self.requirements[requirement].recount(id, old, new);
            }
        }
    }

    /// Counts the slot as at work for the steps of its attempts, and for no others.
    fn recount_slot(&mut self, of: SlotRef) {
        let slot = self.state.slot(of);
        let mut steps = slot.queue().iter().map(|attempt| self.state.attempt(*attempt).step());
        let mut known = (!slot.is_at_work()).then_some((Claim::default(), false));
        let is_unknown = slot.claim_is_guessed || slot.claim == Claim::default();
        if let Some(first) = steps.clone().next().filter(|_| is_unknown) {
            // The attempt was resumed after a restart or an expiry. The worker's offer may not be known yet.
            let room = self.requirements[self.state.step(first).requirement].requirement.room;
            known = Some((largest_claim(&self.state.worker(of.worker).offer, room), true));
        }
        // Nearly always the slot goes on with the one step that it is counted for.
        let goes_on = slot.limits.is_empty()
            && match slot.counted[..] {
                [] => slot.queue().is_empty(),
                [counted] => !slot.queue().is_empty() && steps.all(|step| step == counted),
                _ => false,
            };
        let slot = self.state.slot_mut(of);
        if let Some(known) = known {
            (slot.claim, slot.claim_is_guessed) = known;
        }
        if goes_on {
            return;
        }
        let mut now: Vec<StepRef> = Vec::new();
        for attempt in self.state.slot(of).queue() {
            let step = self.state.attempt(*attempt).step();
            if !now.contains(&step) {
                now.push(step);
            }
        }
        let before = std::mem::replace(&mut self.state.slot_mut(of).counted, now.clone());
        if before != now || !self.state.slot(of).limits.is_empty() {
            self.recount_limits(of);
        }
        for step in before.iter().filter(|step| !now.contains(step)) {
            self.leave_slot(of.worker, step.job);
        }
        for step in now.iter().filter(|step| !before.contains(step)) {
            let job = self.state.job_quietly(step.job);
            *job.on.entry(of.worker).or_default() += 1;
            self.fair_share.hold_slot(job.member);
        }
    }

    fn leave_slot(&mut self, worker: WorkerId, job: JobId) {
        // The job may be forgotten since, and has released its slots then.
        if self.state.find_job(job).is_none() {
            return;
        }
        let job = self.state.job_quietly(job);
        let was_full = job.is_full();
        if let Some(slots) = job.on.get_mut(&worker) {
            *slots -= 1;
            if *slots == 0 {
                job.on.remove(&worker);
            }
        }
        let has_room = was_full && !job.is_full();
        let has_share = self.fair_share.free_slot(job.member);
        if has_room || has_share {
            self.look_again();
        }
    }

    /// Puts each step of the job into the indexes that it belongs to.
    pub(crate) fn reindex_job(&mut self, id: JobId) {
        let Some(job) = self.state.find_job(id) else { return };
        let (is_open, has_ended) = (job.is_open(), job.has_ended());
        let key = QueueKey { priority: job.options.priority, member: job.member };
        for place in 0..job.steps.len() {
            let job = self.state.job_quietly(id);
            let is_ready = is_open && job.has_ready_tasks(place);
            let of = StepRef::new(id, place);
            let step = &mut job.steps[place];
            let tasks = &step.tasks;
            let waits = tasks.waiting_len() + tasks.blocked().len() + tasks.streaming().len() > 0;
            if is_open && !waits && tasks.live_len() > 0 {
                self.indexes.ending.insert(of);
            } else {
                self.indexes.ending.remove(&of);
            }
            if is_open && step.may_stream && tasks.blocked().len() + tasks.waiting_len() > 0 {
                self.indexes.streamable.insert(of);
            }
            let new = is_ready.then_some((step.requirement, key));
            let offered = if is_ready { step.tasks.waiting_len() } else { 0 };
            let old = std::mem::replace(&mut step.queued, new);
            let had = std::mem::replace(&mut step.offered, offered);
            if let Some((requirement, key)) = old.filter(|_| old != new) {
                let entry = &mut self.requirements[requirement];
                entry.ready.remove(key, of);
                // No step waits for the reserved worker any longer.
                let kept = entry.reserved.filter(|_| entry.ready.is_empty());
                self.state.changed_workers.extend(kept);
            }
            if let Some((requirement, key)) = new.filter(|_| old != new) {
                self.requirements[requirement].ready.insert(key, of);
                self.indexes.arrived.insert(of);
            }
            if let Some((requirement, _)) = new.filter(|_| old != new || offered > had) {
                self.indexes.fresh.insert(requirement);
            }
        }
        let job = self.state.job_quietly(id);
        if std::mem::replace(&mut job.is_counted, !has_ended) == has_ended {
            if has_ended {
                self.fair_share.leave(key.member);
            } else {
                self.fair_share.enter(key.member);
            }
        }
    }

    /// Takes an ended job out of every index, before it is forgotten.
    pub(crate) fn unindex_job(&mut self, id: JobId) {
        self.reindex_job(id);
        for place in 0..self.state.job(id).steps.len() {
            self.indexes.arrived.remove(&StepRef::new(id, place));
            self.indexes.streamable.remove(&StepRef::new(id, place));
        }
        self.stop_waiting(id);
    }
}
