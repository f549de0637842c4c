//! The indexes by which decisions are quick. Events only mark what they touched; this brings the indexes up to date.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Bound,
};

use kiln_types::{JobId, SessionKey, SlotIndex, WorkerId};

use crate::{
    Claim, Core, Requirement, Standing,
    choose::LOOK_AT,
    core::step_index,
    job::{JobEnd, JobPhase},
    needs::{self, Need, Rank, Standpoint},
    ready::{Shelf, StepId},
    worker::{Slot, Worker},
};

/// What changed since the last turn, and what is looked up by it.
#[derive(Debug, Default)]
pub(crate) struct Indexes {
    /// Workers whose slots, offers or wishes changed.
    pub dirty: BTreeSet<WorkerId>,
    /// Jobs of which tasks, steps or the phase changed.
    pub changed: BTreeSet<JobId>,
    /// Needs of which vacant workers are to be looked at again, because more waits or a limit has room.
    pub fresh: BTreeSet<Need>,
    /// Slots whose queues ran low, and that the last turn did not come to.
    pub refill: BTreeSet<(WorkerId, SlotIndex)>,
    /// Workers that changed and that the last turn did not come to.
    pub unserved: VecDeque<WorkerId>,
    /// Whether the last turn left slots or needs for the next.
    pub more: bool,
    /// Steps that were put on offer since the last turn.
    pub arrived: BTreeSet<StepId>,
    /// Slots that hold the scene and do nothing.
    pub warm: BTreeMap<SessionKey, BTreeSet<(WorkerId, SlotIndex)>>,
    /// Workers that have had the session's files, as long as a job has it.
    pub had: BTreeMap<SessionKey, BTreeSet<WorkerId>>,
    /// How many steps may have each session open.
    pub sessions: BTreeMap<SessionKey, u32>,
    /// Steps of which nothing waits and something is out.
    pub tails: BTreeSet<StepId>,
    /// Jobs that wait for one of these to be completed.
    pub dependents: BTreeMap<JobId, BTreeSet<JobId>>,
    /// Jobs of which one that they waited for is completed.
    pub released: BTreeSet<JobId>,
    /// When jobs that wait for a time are due.
    pub starts: BTreeSet<(crate::Moment, JobId)>,
}

impl Indexes {
    /// One more step may have it open.
    pub fn hold_session(&mut self, session: SessionKey) {
        *self.sessions.entry(session).or_default() += 1;
    }

    /// One step less may have it open: where none may, nobody need know who has had it.
    pub fn release_session(&mut self, session: SessionKey) {
        let Some(steps) = self.sessions.get_mut(&session) else { return };
        *steps -= 1;
        if *steps == 0 {
            self.sessions.remove(&session);
            self.had.remove(&session);
        }
    }

    pub fn forget_worker(&mut self, id: WorkerId) {
        self.dirty.remove(&id);
        self.warm.retain(|_, slots| {
            slots.retain(|(worker, _)| *worker != id);
            !slots.is_empty()
        });
        self.had.values_mut().for_each(|workers| {
            workers.remove(&id);
        });
    }
}

/// How far it was looked, in this turn, for a vacant worker that has had the files of a scene. Whoever was passed over
/// stays so: nobody becomes vacant while work is handed out.
#[derive(Debug, Default)]
pub(crate) struct Near {
    session: Option<SessionKey>,
    passed: Option<WorkerId>,
}

impl Near {
    /// The next that is vacant; of so many that are not, none.
    pub fn next(
        &mut self,
        session: SessionKey,
        had: &BTreeSet<WorkerId>,
        is_vacant: impl Fn(&WorkerId) -> bool,
    ) -> Option<WorkerId> {
        if self.session != Some(session) {
            *self = Self { session: Some(session), passed: None };
        }
        let from = self.passed.map_or(Bound::Unbounded, Bound::Excluded);
        for worker in had.range((from, Bound::Unbounded)).take(LOOK_AT) {
            if is_vacant(worker) {
                return Some(*worker);
            }
            self.passed = Some(*worker);
        }
        None
    }
}

/// Farm-wide, by name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Limit {
    pub total: u32,
    pub used: u32,
}

impl Core {
    pub(crate) fn touch(&mut self, worker: WorkerId) {
        self.touched.insert(worker);
        self.indexes.dirty.insert(worker);
    }

    /// The need of one more step, made where it is new. To be given back by [`needs::Needs::release`].
    pub(crate) fn hold_need(&mut self, requirement: &Requirement) -> Need {
        let need = self.needs.find(requirement).unwrap_or_else(|| self.make_need(requirement));
        self.needs.hold(need);
        need
    }

    fn make_need(&mut self, requirement: &Requirement) -> Need {
        let need = self.needs.add(requirement);
        for (id, worker) in &mut self.workers {
            let fits = needs::fits(&worker.offer, requirement);
            worker.standpoints.resize_with(self.needs.len(), Standpoint::default);
            worker.standpoints[need.0] = Standpoint { fits, ..Standpoint::default() };
            self.indexes.dirty.insert(*id);
        }
        need
    }

    /// Frees the needs that no step has any more. Not while work is handed out: whoever holds one must find it.
    pub(crate) fn free_needs(&mut self) {
        for need in self.needs.free_unused() {
            for worker in self.workers.values_mut() {
                worker.standpoints[need.0] = Standpoint::default();
            }
            self.indexes.fresh.remove(&need);
        }
    }

    /// Brings every index up to date.
    pub(crate) fn reindex(&mut self) {
        for job in std::mem::take(&mut self.indexes.changed) {
            self.file(job);
        }
        while let Some(worker) = self.indexes.dirty.pop_first() {
            self.reindex_worker(worker);
        }
    }

    pub(crate) fn reindex_worker(&mut self, id: WorkerId) {
        let slots = self.workers.get(&id).map_or(0, |worker| worker.slots.len());
        for slot in 0..slots {
            self.recount(id, slot);
        }
        let outlived = self.workers.get(&id).and_then(|worker| {
            let is_over = |need: &Need| {
                !worker.takes_work() || !worker.fits(*need) || self.needs[*need].ready.is_empty()
            };
            worker.reserved.filter(is_over)
        });
        if let Some(need) = outlived {
            self.unreserve(id, need);
        }
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let offered = usize::from(worker.offer.slots);
        for (index, slot) in worker.slots.iter().enumerate() {
            let vacant = index < offered && slot.is_vacant();
            if let Some(session) = slot.session {
                let place = (id, SlotIndex(index as u16));
                let warm = self.indexes.warm.entry(session).or_default();
                if vacant {
                    warm.insert(place);
                } else {
                    warm.remove(&place);
                }
                if warm.is_empty() {
                    self.indexes.warm.remove(&session);
                }
            }
        }
        let takes_work = worker.takes_work();
        let power =
            if takes_work { (worker.speed * 1000.0) as u64 * u64::from(worker.offer.slots) } else { 0 };
        let busy = worker.slots.iter().filter(|slot| !slot.queue.is_empty()).count() as u16;
        let slowness = (1000.0 / worker.speed) as u32;
        let rank = Rank { busy, slowness };
        let beside = worker.claims(None);
        let is_struck = !worker.strikes.is_empty();
        let has_vacant = takes_work && worker.vacant_slots().next().is_some();
        for need in self.needs.all() {
            let fits = worker.standpoints[need.0].fits;
            let open = worker.reserved.is_none_or(|reserved| reserved == need);
            let room = self.needs[need].requirement.room;
            let vacant =
                (fits && has_vacant && open && needs::claim(worker, &beside, room).is_some()).then_some(rank);
            let slots = if fits && takes_work { worker.offer.slots } else { 0 };
            let power = if fits { power } else { 0 };
            let new = Standpoint { fits, slots, struck: is_struck && slots > 0, power, vacant };
            let old = std::mem::replace(&mut worker.standpoints[need.0], new);
            if old != new {
                self.needs[need].moved(id, old, new);
            }
        }
    }

    /// Counts the slot as at work for the steps that it has attempts of, and for no others.
    fn recount(&mut self, id: WorkerId, index: usize) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let Some(slot) = worker.slots.get_mut(index) else { return };
        let mut now: Vec<StepId> = Vec::new();
        for attempt in &slot.queue {
            if let Some(known) = self.attempts.get(attempt) {
                let step = (known.task.job, known.task.step);
                if !now.contains(&step) {
                    now.push(step);
                }
            }
        }
        if slot.queue.is_empty() && slot.closing.is_empty() {
            slot.claim = Claim::default();
            slot.claim_guessed = false;
        }
        let unknown = slot.claim_guessed || slot.claim == Claim::default();
        if let Some((job, step)) = now.first().filter(|_| unknown)
            && let Some(step) = self.jobs.get(job).and_then(|job| job.steps.get(usize::from(step.0)))
        {
            // It goes on from before a restart or a lapse. What the worker offers may not be known yet.
            let room = self.needs[step.need].requirement.room;
            slot.claim = needs::most_claimed(&worker.offer, room);
            slot.claim_guessed = true;
        }
        let before = std::mem::replace(&mut slot.counted, now.clone());
        if before != now || !slot.limits.is_empty() {
            self.recount_limits(id, index);
        }
        for step in before.iter().filter(|step| !now.contains(step)) {
            self.leaves_slot(id, *step);
        }
        for step in now.iter().filter(|step| !before.contains(step)) {
            self.enters_slot(id, *step);
        }
    }

    fn enters_slot(&mut self, worker: WorkerId, (job, _): StepId) {
        let Some(found) = self.jobs.get_mut(&job) else { return };
        *found.on.entry(worker).or_default() += 1;
        self.accounts.hold_slot(found.account);
    }

    fn leaves_slot(&mut self, worker: WorkerId, (job, _): StepId) {
        let Some(found) = self.jobs.get_mut(&job) else { return };
        let was_full = found.is_full();
        if let Some(slots) = found.on.get_mut(&worker) {
            *slots -= 1;
            if *slots == 0 {
                found.on.remove(&worker);
            }
        }
        let mut freed = was_full && !found.is_full();
        freed |= self.accounts.free_slot(found.account);
        if freed {
            self.look_again();
        }
    }

    /// The slot holds of limits what its steps ask for, and until all that was revoked on it is gone what it held before:
    /// a Blender that is being killed has its licence yet. A worker whose lease has run out holds nothing.
    fn recount_limits(&mut self, id: WorkerId, index: usize) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let lapsed = worker.presence.lease_end().is_none();
        let Some(slot) = worker.slots.get_mut(index) else { return };
        let mut now: BTreeMap<String, u32> = BTreeMap::new();
        for (job, step) in &slot.counted {
            let step = self.jobs.get(job).and_then(|job| job.steps.get(usize::from(step.0)));
            for (name, count) in step.into_iter().flat_map(|step| &step.plan.requires.limits) {
                *now.entry(name.clone()).or_default() += count;
            }
        }
        if !slot.closing.is_empty() && !lapsed {
            for (name, count) in &slot.limits {
                let held = now.entry(name.clone()).or_default();
                *held = (*held).max(*count);
            }
        }
        if slot.limits == now {
            return;
        }
        let before = std::mem::replace(&mut slot.limits, now.clone());
        for (name, count) in now {
            self.limits.entry(name).or_default().used += count;
        }
        for (name, count) in &before {
            if let Some(limit) = self.limits.get_mut(name) {
                limit.used = limit.used.saturating_sub(*count);
                if *limit == Limit::default() {
                    self.limits.remove(name);
                }
            }
        }
        if !before.is_empty() {
            self.look_again();
        }
    }

    /// Something was let go of that kept steps back: every need with waiting steps is looked at.
    pub(crate) fn look_again(&mut self) {
        let waiting = self.needs.all().filter(|need| !self.needs[*need].ready.is_empty());
        self.indexes.fresh.extend(waiting);
    }

    /// Puts each step of the job where it belongs: on offer, at its end, or nowhere.
    pub(crate) fn file(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        let goes_on = job.phase == JobPhase::Active && job.released;
        let (account, priority) = (job.account, job.standing.priority);
        let (entered, ended) = (job.entered, job.has_ended());
        for index in 0..job.steps.len() {
            let job = &self.jobs[&id];
            let step = &job.steps[index];
            let ready = goes_on && job.could_run(index);
            let place = (id, step_index(index));
            let new = ready.then_some((step.need, Shelf { priority, account }));
            let old = step.shelf;
            if goes_on && step.waiting_len() == 0 && !step.live.is_empty() {
                self.indexes.tails.insert(place);
            } else {
                self.indexes.tails.remove(&place);
            }
            let offered = if ready { step.waiting_len() } else { 0 };
            if let Some((need, _)) = new.filter(|new| old != Some(*new) || offered > step.offered) {
                self.indexes.fresh.insert(need);
            }
            if let Some(job) = self.jobs.get_mut(&id) {
                job.steps[index].offered = offered;
            }
            if old == new {
                continue;
            }
            if let Some((need, shelf)) = old {
                self.take_off(need, shelf, place);
            }
            if let Some((need, shelf)) = new {
                self.needs[need].ready.insert(shelf, place);
                self.indexes.arrived.insert(place);
            }
            if let Some(job) = self.jobs.get_mut(&id) {
                job.steps[index].shelf = new;
            }
        }
        if entered == ended {
            if ended {
                self.accounts.leave(account);
            } else {
                self.accounts.enter(account);
            }
            if let Some(job) = self.jobs.get_mut(&id) {
                job.entered = !ended;
            }
        }
    }

    /// The step is on offer there no more.
    fn take_off(&mut self, need: Need, shelf: Shelf, step: StepId) {
        let state = &mut self.needs[need];
        state.ready.remove(shelf, step);
        // Nothing waits any more for what is kept free: the step is done, or asks for something else by now.
        let kept = state.reserved.filter(|_| state.ready.is_empty());
        self.indexes.dirty.extend(kept);
    }

    /// Takes the job out of every index, before it is forgotten.
    pub(crate) fn unfile(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if job.entered {
            self.accounts.leave(job.account);
        }
        let shelves: Vec<Option<(Need, Shelf)>> =
            job.steps.iter_mut().map(|step| step.shelf.take()).collect();
        for (index, shelf) in shelves.into_iter().enumerate() {
            let place = (id, step_index(index));
            if let Some((need, shelf)) = shelf {
                self.take_off(need, shelf, place);
            }
            self.indexes.tails.remove(&place);
            self.indexes.arrived.remove(&place);
        }
        self.indexes.changed.remove(&id);
        self.stop_waiting(id);
    }

    /// The job waits for nothing any more, as far as the indexes go.
    pub(crate) fn stop_waiting(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        let Standing { after, not_before, .. } = &job.standing;
        for before in after {
            if let Some(waiting) = self.indexes.dependents.get_mut(before) {
                waiting.remove(&id);
                if waiting.is_empty() {
                    self.indexes.dependents.remove(before);
                }
            }
        }
        if let Some(at) = not_before {
            self.indexes.starts.remove(&(*at, id));
        }
    }

    /// Whoever waits for this job and for others waits for those others alone, once it is forgotten.
    pub(crate) fn remember_completed(&mut self, completed: JobId) {
        for job in self.indexes.dependents.remove(&completed).unwrap_or_default() {
            if let Some(job) = self.jobs.get_mut(&job) {
                job.standing.after.remove(&completed);
            }
            self.indexes.released.insert(job);
        }
    }

    /// Whether the job still waits for a time or for other jobs; where it does, it is called when that is over.
    pub(crate) fn release_when_due(&mut self, now: crate::Moment, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        if job.released {
            return;
        }
        let completed = |before: &JobId| {
            self.jobs.get(before).is_some_and(|job| job.phase == JobPhase::Ended(JobEnd::Completed))
        };
        let open: Vec<JobId> =
            job.standing.after.iter().filter(|before| !completed(before)).copied().collect();
        let early = job.standing.not_before.filter(|at| *at > now);
        if open.is_empty() && early.is_none() {
            self.stop_waiting(id);
            if let Some(job) = self.jobs.get_mut(&id) {
                job.released = true;
            }
            self.indexes.changed.insert(id);
            return;
        }
        for before in open {
            self.indexes.dependents.entry(before).or_default().insert(id);
        }
        if let Some(at) = early {
            self.indexes.starts.insert((at, id));
        }
    }

    /// Releases the jobs whose time has come, and those that waited for one that is completed.
    pub(crate) fn start_due(&mut self, now: crate::Moment) {
        while let Some(job) = self.indexes.released.pop_first() {
            self.release_when_due(now, job);
        }
        while let Some(&(at, job)) = self.indexes.starts.first().filter(|(at, _)| *at <= now) {
            self.indexes.starts.remove(&(at, job));
            self.release_when_due(now, job);
        }
    }
}

impl Slot {
    /// Whether it may be given a first task.
    pub fn is_vacant(&self) -> bool {
        self.queue.is_empty() && self.closing.is_empty() && !self.is_behind()
    }

    /// Whatever uploads more than it renders should catch up first.
    pub fn is_behind(&self) -> bool {
        const MOST: usize = 16;
        self.delivering.len() >= MOST
    }
}

impl Worker {
    /// Slots that it offers and that do nothing.
    pub fn vacant_slots(&self) -> impl Iterator<Item = (SlotIndex, &Slot)> {
        let offered = self.slots.iter().take(usize::from(self.offer.slots)).enumerate();
        offered.filter(|(_, slot)| slot.is_vacant()).map(|(index, slot)| (SlotIndex(index as u16), slot))
    }

    /// Whether none of its slots is at work.
    pub fn is_unclaimed(&self) -> bool {
        self.at_work(None).next().is_none()
    }

    /// Whether none of its slots is at work, but perhaps for this one.
    pub fn is_unclaimed_but(&self, slot: SlotIndex) -> bool {
        self.at_work(Some(slot)).next().is_none()
    }

    /// What its slots at work hold, but for one.
    pub fn claims(&self, but: Option<SlotIndex>) -> Vec<Claim> {
        self.at_work(but).map(|slot| slot.claim).collect()
    }

    fn at_work(&self, but: Option<SlotIndex>) -> impl Iterator<Item = &Slot> {
        let slots = self.slots.iter().enumerate();
        let others = slots.filter(move |(index, _)| but.is_none_or(|but| usize::from(but.0) != *index));
        others.map(|(_, slot)| slot).filter(|slot| !slot.queue.is_empty() || !slot.closing.is_empty())
    }
}
