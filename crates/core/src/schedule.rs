//! Which task goes to which slot.
//!
//! Slots that changed choose among the steps that wait; steps that came choose among the workers that are vacant.
//! Then queues are filled, so that no slot waits for the network between two frames; and at the end of a step, idle
//! slots take over what others would finish late ([`crate::tail`]).

use std::collections::BTreeSet;

use kiln_types::{AttemptId, JobId, SlotIndex, TaskId, TaskIndex, WorkerId};

use crate::{
    Assigned, Config, Core, Moment, Outbox, Push, Record,
    accounts::{AccountId, Turn},
    estimate::UNMEASURED_MS,
    job::{Job, Step, Trouble},
    needs::{self, Need},
    ready::{Shelf, StepId},
    worker::{Attempt, AttemptPhase, Worker},
};

/// How far another's turn may be ahead for a slot to stay with its scene; milliseconds of share.
const RELOAD_MS: u64 = 20_000;
/// Steps that cannot be served here and now, looked at for one decision.
pub(crate) const LOOK_AT: usize = 256;
/// Tasks handed out in one turn, about: what comes with a turn is not told before all of it is on disk. Queues wait for
/// the next turn first.
const GIVEN_AT_ONCE: usize = 1024;
/// One part in so many of the time goes to lower priorities, so that nothing starves.
const TRICKLE: u64 = 20;

/// What was handed out in this turn and is not sent yet.
pub(crate) type Given = Vec<(WorkerId, SlotIndex, Assigned)>;
/// A slot of a worker.
pub(crate) type Seat = (WorkerId, SlotIndex);

impl Core {
    /// Hands out work. Call it after each batch of inputs.
    pub fn schedule(&mut self, now: Moment, out: &mut impl Outbox) {
        for job in std::mem::take(&mut self.unsettled) {
            self.settle(job, out);
        }
        self.end_pauses(now);
        self.end_convalescences(now);
        self.start_due(now);
        let dirty: Vec<WorkerId> = self.by_speed();
        self.reindex();
        let mut given = Given::new();
        let mut refill = std::mem::take(&mut self.indexes.refill);
        for worker in dirty {
            self.serve_worker(worker, &mut refill, &mut given, out);
        }
        let mut unserved = Vec::new();
        while let Some(need) = self.indexes.fresh.pop_first() {
            if given.len() < GIVEN_AT_ONCE {
                self.serve_need(need, &mut refill, &mut given, out);
            }
            if given.len() >= GIVEN_AT_ONCE {
                unserved.push(need);
            }
        }
        while given.len() < GIVEN_AT_ONCE
            && let Some((worker, slot)) = refill.pop_first()
        {
            self.fill_queue(worker, slot, &mut given, out);
        }
        self.indexes.more = !unserved.is_empty() || !refill.is_empty();
        self.indexes.refill = refill;
        self.give_trials(&mut given, out);
        // What was handed out is sent before any of it is asked back.
        self.send(std::mem::take(&mut given), out);
        // Whoever is not served yet may find room without anybody's making way.
        if unserved.is_empty() {
            self.make_way(out);
        }
        self.indexes.fresh.extend(unserved);
        self.reindex();
        self.tail(now, &mut given, out);
        self.send(given, out);
        self.record_workers(out);
    }

    /// Workers that changed, the fastest first.
    fn by_speed(&self) -> Vec<WorkerId> {
        let mut dirty: Vec<WorkerId> = self.indexes.dirty.iter().copied().collect();
        let speed = |id: &WorkerId| self.workers.get(id).map_or(0.0, |worker| worker.speed);
        dirty.sort_by(|a, b| speed(b).total_cmp(&speed(a)).then(a.cmp(b)));
        dirty
    }

    /// A task for each of its vacant slots, and a note of those whose queues run low.
    fn serve_worker(
        &mut self,
        id: WorkerId,
        refill: &mut BTreeSet<Seat>,
        given: &mut Given,
        out: &mut impl Outbox,
    ) {
        let Some(worker) = self.workers.get(&id).filter(|worker| worker.takes_work()) else { return };
        let offered = usize::from(worker.offer.slots).min(worker.slots.len());
        for slot in (0..offered).map(|index| SlotIndex(index as u16)) {
            let Some(found) = self.workers.get(&id).and_then(|worker| worker.slots.get(usize::from(slot.0)))
            else {
                return;
            };
            if !found.queue.is_empty() {
                refill.insert((id, slot));
            } else if found.is_vacant()
                && let Some((step, index)) = self.choose(id, slot)
            {
                self.give(task_of(step, index), (id, slot), given, out);
                refill.insert((id, slot));
            }
        }
    }

    /// Vacant workers for what waits for this need, until one or the other is used up.
    fn serve_need(
        &mut self,
        need: Need,
        refill: &mut BTreeSet<Seat>,
        given: &mut Given,
        out: &mut impl Outbox,
    ) {
        let mut refused: BTreeSet<WorkerId> = BTreeSet::new();
        while refused.len() < LOOK_AT && given.len() < GIVEN_AT_ONCE {
            let state = &self.needs[need];
            if state.ready.is_empty() || state.vacant.is_empty() || self.lacking_limit(need).is_some() {
                return;
            }
            let Some((worker, slot)) = self.best_vacant(need, &refused) else { return };
            match self.choose(worker, slot) {
                Some((step, index)) => {
                    self.give(task_of(step, index), (worker, slot), given, out);
                    refill.insert((worker, slot));
                }
                None => {
                    refused.insert(worker);
                }
            }
        }
    }

    /// The vacant slot that is closest to what is first in line: with the scene open, with its files, the fastest.
    fn best_vacant(&self, need: Need, refused: &BTreeSet<WorkerId>) -> Option<(WorkerId, SlotIndex)> {
        let state = &self.needs[need];
        let priority = state.ready.priorities().next()?;
        let account = state.ready.accounts(priority).min_by_key(|account| self.accounts.turn(*account))?;
        let (job, step) = state.ready.after(Shelf { priority, account }, None)?;
        let session = self.jobs.get(&job)?.steps.get(usize::from(step.0))?.plan.session;
        let is_vacant = |id: &WorkerId| {
            let standpoint = self.workers.get(id).and_then(|worker| worker.standpoints.get(need.0));
            standpoint.is_some_and(|standpoint| standpoint.vacant.is_some()) && !refused.contains(id)
        };
        let warm = self.indexes.warm.get(&session).into_iter().flatten();
        let still = |(worker, slot): &&(WorkerId, SlotIndex)| {
            let slot = self.workers.get(worker).and_then(|known| known.slots.get(usize::from(slot.0)));
            is_vacant(worker) && slot.is_some_and(|slot| slot.is_vacant() && slot.session == Some(session))
        };
        if let Some(place) = warm.take(LOOK_AT).find(still) {
            return Some(*place);
        }
        let had = self.indexes.had.get(&session).into_iter().flatten();
        let had = had.take(LOOK_AT).find(|worker| is_vacant(worker)).copied();
        let worker =
            had.or_else(|| state.vacant.iter().map(|(_, id)| *id).find(|id| !refused.contains(id)))?;
        let mut slots = self.workers.get(&worker)?.vacant_slots();
        // One that would have to close nothing is best.
        let first = slots.next()?;
        let cold =
            if first.1.session.is_none() { None } else { slots.find(|(_, slot)| slot.session.is_none()) };
        Some((worker, cold.unwrap_or(first).0))
    }

    /// The task that this slot should do next.
    fn choose(&mut self, id: WorkerId, slot: SlotIndex) -> Option<(StepId, TaskIndex)> {
        let worker = self.workers.get(&id)?;
        let fitting = |need: &Need| {
            worker.fits(*need)
                && !self.needs[*need].ready.is_empty()
                && (self.lacking_limit(*need).is_none() || self.has_licence(worker, slot, *need))
        };
        let fitting: Vec<Need> = self.needs.all().filter(fitting).collect();
        let levels: BTreeSet<u8> =
            fitting.iter().flat_map(|need| self.needs[*need].ready.priorities()).collect();
        let mut levels: Vec<u8> = levels.into_iter().rev().collect();
        // What is owed to those below goes past the highest.
        if levels.len() > 1 && self.owed_ms >= UNMEASURED_MS {
            levels.rotate_left(1);
        }
        let mut tried = 0;
        for priority in levels {
            let accounts: BTreeSet<AccountId> =
                fitting.iter().flat_map(|need| self.needs[*need].ready.accounts(priority)).collect();
            let mut heads: Vec<(Turn, AccountId)> = accounts
                .into_iter()
                .filter(|account| !self.accounts.is_full(*account) || self.holds(id, slot, *account))
                .map(|account| (self.accounts.turn(account), account))
                .collect();
            heads.sort_unstable();
            if let Some(found) = self.stay(id, slot, priority, heads.first().copied()) {
                return Some(found);
            }
            for (_, account) in heads {
                let shelf = Shelf { priority, account };
                let mut last = None;
                while let Some(step) =
                    fitting.iter().filter_map(|need| self.needs[*need].ready.after(shelf, last)).min()
                {
                    last = Some(step);
                    match self.takes(id, slot, step) {
                        Takes::Task(index) => return Some((step, index)),
                        Takes::WhenThereIsRoom => return None,
                        Takes::Nothing => {}
                    }
                    tried += 1;
                    if tried >= LOOK_AT {
                        return None;
                    }
                }
            }
        }
        None
    }

    /// The next task of the scene that the slot has open, where its account's turn is at most a reload away.
    fn stay(
        &mut self,
        id: WorkerId,
        slot: SlotIndex,
        priority: u8,
        first: Option<(Turn, AccountId)>,
    ) -> Option<(StepId, TaskIndex)> {
        let (turn, account) = first?;
        let step = self.workers.get(&id)?.slots.get(usize::from(slot.0))?.last?;
        let found = self.jobs.get(&step.0)?.steps.get(usize::from(step.1.0))?;
        let (need, shelf) = found.shelf?;
        let mine = self.accounts.turn(shelf.account);
        let close = shelf.priority == priority && shelf.account != account && mine.is_within(RELOAD_MS, turn);
        let capped = self.accounts.is_full(shelf.account) && !self.holds(id, slot, shelf.account);
        if !close || capped || !self.workers[&id].fits(need) {
            return None;
        }
        match self.takes(id, slot, step) {
            Takes::Task(index) => Some((step, index)),
            Takes::WhenThereIsRoom | Takes::Nothing => None,
        }
    }

    /// Whether the slot can take a task of this step now, and which.
    pub(crate) fn takes(&mut self, id: WorkerId, slot: SlotIndex, (job, index): StepId) -> Takes {
        let Some((found, worker)) = self.jobs.get(&job).zip(self.workers.get(&id)) else {
            return Takes::Nothing;
        };
        let Some(step) = found.steps.get(usize::from(index.0)) else { return Takes::Nothing };
        let Some(place) = worker.slots.get(usize::from(slot.0)) else { return Takes::Nothing };
        let need = step.need;
        if self.lacking_limit(need).is_some() && !place.counted.contains(&(job, index)) {
            return Takes::Nothing;
        }
        if !self.may_serve(id, found, step) {
            return Takes::Nothing;
        }
        if let Some(task) = self.outgrown(id, step) {
            if place.queue.is_empty() && worker.claims(Some(slot)).is_empty() {
                return Takes::Task(task);
            }
            match self.needs[need].reserved {
                Some(reserved) if reserved == id => return Takes::WhenThereIsRoom,
                None => return self.reserve(id, need),
                Some(_) => {}
            }
        }
        let room = self.needs[need].requirement.room;
        if place.queue.is_empty() {
            let elsewhere = worker.reserved.is_some_and(|reserved| reserved != need);
            if elsewhere {
                return Takes::Nothing;
            }
            if needs::claim(worker, &worker.claims(Some(slot)), room).is_none() {
                // Kept free only for what it may be given then.
                let served =
                    !found.on.is_empty() || step.next(|trouble| self.may_take(id, need, trouble)).is_none();
                return match self.needs[need].reserved {
                    Some(reserved) if reserved == id => Takes::WhenThereIsRoom,
                    None if !served => self.reserve(id, need),
                    _ => Takes::Nothing,
                };
            }
        } else {
            // Behind others, only what claims the same: the slot is sized anew when it is vacant.
            let behind = place.counted.first().and_then(|(job, step)| {
                self.jobs.get(job)?.steps.get(usize::from(step.0)).map(|step| step.need)
            });
            let same = behind.is_some_and(|behind| self.needs[behind].requirement.room == room);
            // Frames that turned out to take more than there is must not go on beside each other.
            let still = || needs::claim(worker, &worker.claims(Some(slot)), room).is_some();
            if !same || worker.reserved.is_some() || !still() {
                return Takes::WhenThereIsRoom;
            }
        }
        let task = step.next(|trouble| self.has_place_for(id, need, trouble));
        if task.is_none() && worker.is_unclaimed() && worker.reserved == Some(need) {
            // What it was kept free for had better go elsewhere by now, or has gone.
            self.unreserve(id, need);
            self.indexes.dirty.insert(id);
        }
        task.map_or(Takes::Nothing, Takes::Task)
    }

    /// Whether the worker may be given work of the step, as far as the most workers of its job and pauses go.
    pub(crate) fn may_serve(&self, id: WorkerId, job: &Job, step: &Step) -> bool {
        let one_too_many = job.is_full() && !job.on.contains_key(&id);
        !(one_too_many || self.is_held_off(id, step.need, step.plan.session))
    }

    /// Whether the worker may be given now a task of which so much went wrong. What ran out of memory beside others
    /// gets the machine for itself.
    pub(crate) fn has_place_for(&self, id: WorkerId, need: Need, trouble: &Trouble) -> bool {
        let alone = || self.workers.get(&id).is_some_and(Worker::is_unclaimed);
        (trouble.outgrew.is_none() || alone()) && self.may_take(id, need, trouble)
    }

    /// Whether the worker may be given a task of which so much went wrong: not where it would tell nothing new, on a
    /// worker that it befell, or on one with which something else is the matter, while there are others.
    pub(crate) fn may_take(&self, id: WorkerId, need: Need, trouble: &Trouble) -> bool {
        let Some(worker) = self.workers.get(&id) else { return false };
        // Nor is one that is too small for it somewhere else to go. It is tried so often and no more.
        if trouble.outgrew.is_some() {
            return Self::is_large_enough(worker, trouble);
        }
        let again = trouble.befell(id) && self.can_go_elsewhere(need, trouble);
        let doubtful =
            trouble.is_blamed() && self.is_struck(id) && self.can_go_to_the_unstruck(need, trouble);
        !again && !doubtful
    }

    /// The worker takes nothing else until there is room on it for this need.
    fn reserve(&mut self, id: WorkerId, need: Need) -> Takes {
        if self.workers.get(&id).is_none_or(|worker| worker.reserved.is_some()) {
            return Takes::Nothing;
        }
        self.needs[need].reserved = Some(id);
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.reserved = Some(need);
        }
        self.indexes.dirty.insert(id);
        Takes::WhenThereIsRoom
    }

    /// It is there for others again.
    pub(crate) fn unreserve(&mut self, id: WorkerId, need: Need) {
        self.needs[need].reserved = None;
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.reserved = None;
        }
        self.look_again();
    }

    /// The limit that keeps the steps of this need back.
    pub(crate) fn lacking_limit(&self, need: Need) -> Option<&str> {
        let limits = &self.needs[need].requirement.limits;
        let lacks = |(name, count): &(&String, &u32)| {
            let limit = self.limits.get(*name).copied().unwrap_or_default();
            limit.used.saturating_add(**count) > limit.total
        };
        limits.iter().find(lacks).map(|(name, _)| name.as_str())
    }

    /// Whether the slot is at work for a step of this need already: more of that step uses no more of its limits.
    fn has_licence(&self, worker: &Worker, slot: SlotIndex, need: Need) -> bool {
        let counted = worker.slots.get(usize::from(slot.0)).map_or(&[][..], |slot| &slot.counted);
        let mut needs = counted.iter().filter_map(|(job, step)| {
            self.jobs.get(job)?.steps.get(usize::from(step.0)).map(|step| step.need)
        });
        needs.any(|known| known == need)
    }

    /// Whether the slot is at work for this account already: more of the same takes no other slot.
    fn holds(&self, worker: WorkerId, slot: SlotIndex, account: AccountId) -> bool {
        let slot = self.workers.get(&worker).and_then(|worker| worker.slots.get(usize::from(slot.0)));
        let counted = slot.map_or(&[][..], |slot| &slot.counted);
        counted.iter().any(|(job, _)| self.jobs.get(job).is_some_and(|job| job.account == account))
    }

    /// Opens an attempt of the task on this slot.
    pub(crate) fn give(&mut self, task: TaskId, seat: Seat, given: &mut Given, out: &mut impl Outbox) {
        let TaskId { job, step, index } = task;
        let (worker, slot) = seat;
        let attempt = AttemptId { epoch: self.epoch, counter: self.next_attempt };
        let Some(found) = self.step(task) else { return };
        let (need, session, generation) = (found.need, found.plan.session, found.generations.get(index));
        let place = self.workers.get(&worker).and_then(|worker| worker.slots.get(usize::from(slot.0)));
        let cold = place.is_none_or(|slot| slot.session != Some(session));
        let frame_ms = self.frame_ms(found, index, worker, place).unwrap_or(UNMEASURED_MS);
        self.next_attempt += 1;
        if let Some(step) = self.step_mut(task) {
            step.remove_waiting(index);
            let first = !step.live.contains_key(&index);
            if first {
                step.live.insert(index, attempt)
            } else {
                step.twins.insert(index, attempt)
            };
        }
        self.pay(job, frame_ms);
        let phase = AttemptPhase::Assigned { recalled: false };
        let charged_ms = u32::try_from(frame_ms).unwrap_or(u32::MAX);
        self.attempts.insert(
            attempt,
            Attempt { task, worker, generation, slot, phase, charged_ms, cold, frame_ms: None },
        );
        let room = self.room_of(task, need);
        if let Some(known) = self.workers.get_mut(&worker) {
            let claim = needs::claim(known, &known.claims(Some(slot)), room);
            if known.reserved.take_if(|reserved| *reserved == need).is_some() {
                self.needs[need].reserved = None;
            }
            if let Some(place) = known.slot_mut(slot) {
                if place.queue.is_empty() {
                    place.claim = claim.unwrap_or_default();
                    place.claim_guessed = false;
                }
                let left = place.session.filter(|open| *open != session);
                place.queue.push_back(attempt);
                place.set_session(session);
                place.last = Some((job, step));
                if let Some(warm) = left.and_then(|left| self.indexes.warm.get_mut(&left)) {
                    warm.remove(&(worker, slot));
                }
            }
        }
        self.indexes.had.entry(session).or_default().insert(worker);
        self.touch(worker);
        self.reindex_worker(worker);
        self.file(job);
        out.record(Record::AttemptOpened { attempt, task, generation, worker, slot });
        given.push((worker, slot, Assigned { attempt, task, generation }));
    }

    /// The account of the job advances; a part of it is owed to those whom its priority passes by.
    fn pay(&mut self, job: JobId, ms: u64) {
        let Some(job) = self.jobs.get(&job) else { return };
        let (account, priority) = (job.account, job.standing.priority);
        self.accounts.charge(account, i64::try_from(ms).unwrap_or(i64::MAX));
        let others = self.needs.all().flat_map(|need| self.needs[need].ready.priorities());
        let (below, above) = others.fold((false, false), |(below, above), other| {
            (below || other < priority, above || other > priority)
        });
        if above {
            self.owed_ms = self.owed_ms.saturating_sub(ms);
        } else if below {
            self.owed_ms = self.owed_ms.saturating_add(ms / TRICKLE);
        }
    }

    /// Tasks behind the one that runs, where its queue is half empty.
    fn fill_queue(&mut self, id: WorkerId, slot: SlotIndex, given: &mut Given, out: &mut impl Outbox) {
        let mut wanted: Option<usize> = None;
        loop {
            let Some(worker) = self.workers.get(&id).filter(|worker| worker.takes_work()) else { return };
            let Some(place) = worker.slots.get(usize::from(slot.0)) else { return };
            let queued = place.queue.len();
            if queued == 0 || !place.closing.is_empty() || place.is_behind() || worker.reserved.is_some() {
                return;
            }
            if wanted.is_some_and(|wanted| queued > wanted) {
                return;
            }
            let Some((step, index)) = self.choose(id, slot) else { return };
            let depth = self.depth(step, id, slot);
            if wanted.is_none() && queued > 1 + depth / 2 || queued > depth {
                return;
            }
            wanted = Some(depth);
            self.give(task_of(step, index), (id, slot), given, out);
        }
    }

    /// How many tasks of the step the slot should have behind the one that runs: about as many as last
    /// [`Config::ahead_ms`] there, and no more than half of its part of what waits.
    fn depth(&self, (job, step): StepId, worker: WorkerId, slot: SlotIndex) -> usize {
        let Some(found) = self.jobs.get(&job).and_then(|job| job.steps.get(usize::from(step.0))) else {
            return 0;
        };
        let place = self.workers.get(&worker).and_then(|worker| worker.slots.get(usize::from(slot.0)));
        let measured =
            place.filter(|slot| slot.session == Some(found.plan.session)).and_then(|slot| slot.frame_ms);
        let Some(frame) = measured else { return 1 };
        let slots = self.needs[found.need].slots.max(1) as usize;
        let part = found.waiting_len() as usize / (2 * slots);
        self.config.ahead(u64::from(frame)).min(part.max(1))
    }

    /// Asks back what is queued of lower priorities, as much as waits above them.
    fn make_way(&mut self, out: &mut impl Outbox) {
        for (job, step) in std::mem::take(&mut self.indexes.arrived) {
            let Some(found) = self.jobs.get(&job) else { continue };
            let Some((need, shelf)) = found.steps.get(usize::from(step.0)).and_then(|step| step.shelf) else {
                continue;
            };
            let wanted = found.steps[usize::from(step.0)].waiting_len() as usize;
            let lower = self.active.iter().filter(|id| **id != job).filter_map(|id| self.jobs.get(id));
            let lower = lower.filter(|other| other.standing.priority < shelf.priority);
            let queued = lower.flat_map(Job::live).filter(|id| {
                self.attempts.get(id).is_some_and(|attempt| {
                    attempt.phase == AttemptPhase::Assigned { recalled: false }
                        && self.workers.get(&attempt.worker).is_some_and(|worker| {
                            worker.fits(need)
                                && worker.slots[usize::from(attempt.slot.0)].queue.front() != Some(id)
                        })
                })
            });
            let queued: Vec<AttemptId> = queued.take(wanted).collect();
            for attempt in queued {
                self.recall(attempt, out);
            }
        }
    }

    /// Whether the task has gone wrong on fewer than all workers that may take work and fit.
    fn can_go_elsewhere(&self, need: Need, trouble: &Trouble) -> bool {
        let befell: BTreeSet<WorkerId> = trouble.workers().collect();
        let failed = befell.iter().filter(|id| self.is_willing(**id, need)).count();
        self.willing(need) > failed
    }

    /// What was handed out, one message for neighbouring tasks of one step on one slot, in the order of the frames.
    fn send(&self, given: Given, out: &mut impl Outbox) {
        let mut given = given;
        // Of equal places, in the order in which they were handed out.
        given.sort_by_key(|(worker, slot, _)| (*worker, *slot));
        let same = |a: &(WorkerId, SlotIndex, Assigned), b: &(WorkerId, SlotIndex, Assigned)| {
            (a.0, a.1, a.2.task.job, a.2.task.step) == (b.0, b.1, b.2.task.job, b.2.task.step)
        };
        for tasks in given.chunk_by(same) {
            let Some((worker, slot, _)) = tasks.first().copied() else { continue };
            let place = self.workers.get(&worker).and_then(|worker| worker.slots.get(usize::from(slot.0)));
            let claim = place.map(|slot| slot.claim).unwrap_or_default();
            let tasks = tasks.iter().map(|(_, _, assigned)| *assigned).collect();
            self.push(worker, Push::Assign { slot, claim, tasks }, out);
        }
    }
}

pub(crate) fn task_of((job, step): StepId, index: TaskIndex) -> TaskId {
    TaskId { job, step, index }
}

/// Whether a slot takes a task of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    Task(TaskIndex),
    /// Not while others are at work there; and nothing that comes later goes before it.
    WhenThereIsRoom,
    Nothing,
}

impl Config {
    /// How many frames of so many milliseconds a slot should have queued behind the one that runs.
    fn ahead(&self, frame_ms: u64) -> usize {
        let most = usize::from(self.max_queue.max(1));
        usize::try_from(self.ahead_ms.div_ceil(frame_ms.max(1))).unwrap_or(most).clamp(1, most)
    }
}

impl Job {
    /// Whether it is on as many workers as it may be.
    pub fn is_full(&self) -> bool {
        self.standing.max_workers.is_some_and(|most| self.on.len() >= most as usize)
    }
}

impl Step {
    /// How many attempts wait in queues.
    pub fn queued(&self) -> u32 {
        (self.live.len() as u32).saturating_sub(self.running)
    }
}
