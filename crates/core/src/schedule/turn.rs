//! The turn: the assignment of tasks to slots.
//!
//! Slots that changed choose among the steps that wait, new steps among the vacant workers. Then queues are filled, so
//! that no slot waits for the network between two frames. At the end of a step, idle slots take tasks that others would
//! finish late ([`super::speculation`]).

use std::{collections::BTreeSet, ops::Bound};

use kiln_types::{AttemptId, SessionKey, WorkerId};

use crate::{
    Core, Moment, Outbox,
    ids::{QueueKey, RequirementId, SlotRef, StepRef},
    state::{Job, Slot},
    tuning::{CANDIDATES, DISPATCHES_PER_TURN},
};

impl Core {
    /// Dispatches work. Call it after each batch of inputs.
    pub fn schedule(&mut self, now: Moment, out: &mut impl Outbox) {
        for job in std::mem::take(&mut self.indexes.unsettled) {
            // The job may be forgotten since.
            if self.state.find_job(job).is_some() {
                self.settle(job, out);
            }
        }
        self.end_cooldowns(now);
        self.end_pauses(now);
        self.release_due(now);
        self.release_devices(out);
        self.mark_ready_streams();
        let changed = self.by_speed();
        self.indexes.unserved.extend(changed);
        self.reindex();
        self.free_requirements();
        while !self.is_turn_full()
            && let Some(worker) = self.indexes.unserved.pop_front()
        {
            self.serve_worker(worker, out);
            if self.is_turn_full() {
                self.indexes.unserved.push_front(worker);
            }
        }
        while !self.is_turn_full()
            && let Some(requirement) = self.indexes.fresh.pop_first()
        {
            self.serve_requirement(requirement, out);
            if self.is_turn_full() {
                self.indexes.fresh.insert(requirement);
            }
        }
        let all_served = self.indexes.fresh.is_empty() && self.indexes.unserved.is_empty();
        while !self.is_turn_full()
            && let Some(slot) = self.indexes.refill.pop_first()
        {
            self.fill_queue(slot, out);
        }
        self.indexes.is_behind = !all_served || !self.indexes.refill.is_empty();
        self.dispatch_probes(out);
        // What was dispatched is sent before any of it is preempted.
        self.send(out);
        // Steps that are not served yet may get a slot without preemption.
        if all_served {
            self.preempt_lower(out);
            self.reindex();
            self.displace_streams(out);
            self.open_streams(out);
        }
        self.reindex();
        self.speculate(now, out);
        self.send(out);
        self.record_workers(out);
    }

    /// Returns whether the turn has dispatched enough.
    fn is_turn_full(&self) -> bool {
        self.indexes.dispatched.len() >= DISPATCHES_PER_TURN
    }

    /// The workers that changed, the fastest first.
    fn by_speed(&self) -> Vec<WorkerId> {
        let mut changed: Vec<WorkerId> = self.state.changed_workers.iter().copied().collect();
        let speed = |id: &WorkerId| self.state.find_worker(*id).map_or(0.0, |worker| worker.speed.get());
        changed.sort_by(|a, b| speed(b).total_cmp(&speed(a)).then(a.cmp(b)));
        changed
    }

    /// Dispatches a task to each vacant slot of the worker, until the turn is full, and marks the queues that may be short.
    fn serve_worker(&mut self, id: WorkerId, out: &mut impl Outbox) {
        // The worker may be forgotten since.
        let Some(worker) = self.state.find_worker(id).filter(|worker| worker.takes_work()) else { return };
        let offered = usize::from(worker.offer.slots).min(worker.slots().len());
        for of in (0..offered).map(|place| SlotRef::new(id, place)) {
            if self.is_turn_full() {
                return;
            }
            let slot = self.state.slot(of);
            if !slot.queue().is_empty() {
                self.indexes.refill.insert(of);
            } else if slot.is_vacant()
                && let Some(task) = self.select(of)
            {
                self.dispatch(task, of, out);
                self.indexes.refill.insert(of);
            }
        }
    }

    /// Dispatches waiting tasks of this requirement to vacant workers, as long as there are both.
    fn serve_requirement(&mut self, requirement: RequirementId, out: &mut impl Outbox) {
        let mut refused: BTreeSet<WorkerId> = BTreeSet::new();
        let mut search = WorkerSearch::default();
        while refused.len() < CANDIDATES && !self.is_turn_full() {
            if self.requirements[requirement].vacant.is_empty() || self.exhausted_limit(requirement).is_some()
            {
                return;
            }
            let Some(of) = self.best_vacant(requirement, &refused, &mut search) else { return };
            match self.select(of) {
                Some(task) => {
                    self.dispatch(task, of, out);
                    self.indexes.refill.insert(of);
                }
                None => drop(refused.insert(of.worker)),
            }
        }
    }

    /// The best vacant slot for the first step in line: one with the scene open, else on a worker with its files, else on
    /// the fastest worker.
    fn best_vacant(
        &self,
        requirement: RequirementId,
        refused: &BTreeSet<WorkerId>,
        search: &mut WorkerSearch,
    ) -> Option<SlotRef> {
        let entry = &self.requirements[requirement];
        let priority = entry.ready.priorities().next()?;
        let member = entry.ready.members(priority).min_by_key(|member| self.fair_share.rank(*member))?;
        let first = entry.ready.after(QueueKey { priority, member }, None)?;
        let session = self.state.step(first).session();
        let is_vacant = |id: &WorkerId| {
            let known = self.state.find_worker(*id).and_then(|worker| worker.matches.get(requirement.0));
            known.is_some_and(|known| known.vacant.is_some()) && !refused.contains(id)
        };
        let is_open = |of: &&SlotRef| {
            let is_open = |slot: &Slot| slot.is_vacant() && !slot.must_open(session);
            is_vacant(&of.worker) && self.state.find_slot(**of).is_some_and(is_open)
        };
        let warm = session.and_then(|session| self.indexes.warm.get(&session)).into_iter().flatten();
        if let Some(of) = warm.take(CANDIDATES).find(is_open) {
            return Some(*of);
        }
        let had =
            session.and_then(|session| search.next(session, self.indexes.had.get(&session)?, is_vacant));
        let any = || entry.vacant.iter().map(|(_, id)| *id).find(|id| !refused.contains(id));
        let worker = had.or_else(any)?;
        // A slot without an open scene is best.
        let slots = self.state.worker(worker).vacant_slots();
        let (slot, _) = slots.min_by_key(|(_, slot)| slot.session().is_some())?;
        Some(SlotRef { worker, slot })
    }

    /// Fills the queue of the slot, if it is half empty.
    fn fill_queue(&mut self, of: SlotRef, out: &mut impl Outbox) {
        let mut wanted: Option<usize> = None;
        while let Some(queued) = self.open_queue(of)
            && wanted.is_none_or(|wanted| queued <= wanted)
            && let Some(task) = self.select(of)
        {
            let depth = self.queue_depth(task.into(), of);
            if wanted.is_none() && queued > 1 + depth / 2 || queued > depth {
                return;
            }
            wanted = Some(depth);
            self.dispatch(task, of, out);
        }
    }

    /// The length of the slot's queue, if it is at work and may get more. Worker and slot may be gone since.
    fn open_queue(&self, of: SlotRef) -> Option<usize> {
        let worker = self.state.find_worker(of.worker).filter(|worker| worker.takes_work())?;
        let slot = worker.slot(of.slot).filter(|slot| !slot.queue().is_empty())?;
        let is_open = slot.closing().is_empty() && !slot.is_behind() && worker.reserved.is_none();
        is_open.then_some(slot.queue().len())
    }

    /// The number of tasks of the step that the slot should have behind the one that runs: those of
    /// [`crate::Config::ahead_ms`], and at most half of the slot's part of the waiting ones.
    fn queue_depth(&self, step: StepRef, of: SlotRef) -> usize {
        let step = self.state.step(step);
        let Some(frame) = self.state.slot(of).frame_ms(step.session()) else { return 1 };
        let slots = self.requirements[step.requirement].slots.max(1) as usize;
        let part = step.tasks.waiting_len() as usize / (2 * slots);
        self.config.queue_depth(u64::from(frame)).min(part.max(1))
    }

    /// Preempts as many queued attempts of lower priorities as there are waiting tasks of new steps.
    fn preempt_lower(&mut self, out: &mut impl Outbox) {
        for of in std::mem::take(&mut self.indexes.arrived) {
            let step = self.state.step(of);
            let Some((requirement, key)) = step.queued else { continue };
            let wanted = step.tasks.waiting_len() as usize;
            let lower = self.indexes.active.iter().filter(|id| **id != of.job).map(|id| self.state.job(*id));
            let lower = lower.filter(|job| job.options.priority < key.priority);
            let is_queued = |id: &AttemptId| {
                let attempt = self.state.attempt(*id);
                attempt.phase.is_queued()
                    && self.state.worker(attempt.worker).fits(requirement)
                    && self.state.slot_of(*id).queue().front() != Some(id)
            };
            let queued: Vec<AttemptId> = lower.flat_map(Job::live).filter(is_queued).take(wanted).collect();
            for attempt in queued {
                self.preempt(attempt, out);
            }
        }
    }

    /// Records the changed states of workers.
    pub(crate) fn record_workers(&mut self, out: &mut impl Outbox) {
        while let Some(id) = self.state.unrecorded.pop_first() {
            let worker = self.state.worker_mut(id);
            worker.resize();
            let state = worker.state();
            if std::mem::replace(&mut worker.state, state) != state {
                out.record(crate::Record::WorkerState { worker: id, state });
            }
        }
    }
}

/// The search of a turn for a vacant worker that has had the files of a scene. A worker that was passed over stays so: none
/// becomes vacant while work is dispatched.
#[derive(Debug, Default)]
struct WorkerSearch {
    session: Option<SessionKey>,
    passed: Option<WorkerId>,
}

impl WorkerSearch {
    /// The next worker of `had` that is vacant, among the next few.
    fn next(
        &mut self,
        session: SessionKey,
        had: &BTreeSet<WorkerId>,
        is_vacant: impl Fn(&WorkerId) -> bool,
    ) -> Option<WorkerId> {
        if self.session != Some(session) {
            *self = Self { session: Some(session), passed: None };
        }
        let from = self.passed.map_or(Bound::Unbounded, Bound::Excluded);
        for worker in had.range((from, Bound::Unbounded)).take(CANDIDATES) {
            if is_vacant(worker) {
                return Some(*worker);
            }
            self.passed = Some(*worker);
        }
        None
    }
}
