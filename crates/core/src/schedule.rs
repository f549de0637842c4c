//! Which task goes to which slot.
//!
//! Slots that changed choose among the steps that wait; steps that came choose among the workers that are vacant.
//! Then queues are filled, so that no slot waits for the network between two frames; and at the end of a step, idle
//! slots take over what others would finish late ([`crate::tail`]).

use std::collections::BTreeSet;

use kiln_types::{AttemptId, SlotIndex, WorkerId};

use crate::{
    Config, Core, Moment, Outbox,
    choose::LOOK_AT,
    give::{Given, Seat, task_of},
    index::Near,
    job::Job,
    needs::Need,
    ready::{Shelf, StepId},
    worker::{AttemptPhase, Slot},
};

/// Tasks handed out in one turn, about: what comes with a turn is not told before all of it is on disk. Queues wait for
/// the next turn first.
const GIVEN_AT_ONCE: usize = 512;

impl Core {
    /// Hands out work. Call it after each batch of inputs.
    pub fn schedule(&mut self, now: Moment, out: &mut impl Outbox) {
        for job in std::mem::take(&mut self.unsettled) {
            self.settle(job, out);
        }
        self.end_pauses(now);
        self.end_convalescences(now);
        self.start_due(now);
        self.release_devices(out);
        let changed = self.by_speed();
        self.indexes.unserved.extend(changed);
        self.reindex();
        self.free_needs();
        let mut given = Given::new();
        let mut refill = std::mem::take(&mut self.indexes.refill);
        while given.len() < GIVEN_AT_ONCE
            && let Some(worker) = self.indexes.unserved.pop_front()
        {
            self.serve_worker(worker, &mut refill, &mut given, out);
            if given.len() >= GIVEN_AT_ONCE {
                self.indexes.unserved.push_front(worker);
            }
        }
        let mut left = Vec::new();
        while let Some(need) = self.indexes.fresh.pop_first() {
            if given.len() < GIVEN_AT_ONCE {
                self.serve_need(need, &mut refill, &mut given, out);
            }
            if given.len() >= GIVEN_AT_ONCE {
                left.push(need);
            }
        }
        while given.len() < GIVEN_AT_ONCE
            && let Some((worker, slot)) = refill.pop_first()
        {
            self.fill_queue(worker, slot, &mut given, out);
        }
        let served = left.is_empty() && self.indexes.unserved.is_empty();
        self.indexes.more = !served || !refill.is_empty();
        self.indexes.refill = refill;
        self.give_trials(&mut given, out);
        // What was handed out is sent before any of it is asked back.
        self.send(std::mem::take(&mut given), out);
        // Whoever is not served yet may find room without anybody's making way.
        if served {
            self.make_way(out);
        }
        self.indexes.fresh.extend(left);
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

    /// A task for each of its vacant slots, as far as the turn goes, and a note of those whose queues run low.
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
            if given.len() >= GIVEN_AT_ONCE {
                return;
            }
            let Some(found) = self.slot((id, slot)) else { return };
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
        let mut near = Near::default();
        while refused.len() < LOOK_AT && given.len() < GIVEN_AT_ONCE {
            let state = &self.needs[need];
            if state.ready.is_empty() || state.vacant.is_empty() || self.lacking_limit(need).is_some() {
                return;
            }
            let Some((worker, slot)) = self.best_vacant(need, &refused, &mut near) else { return };
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
    fn best_vacant(&self, need: Need, refused: &BTreeSet<WorkerId>, near: &mut Near) -> Option<Seat> {
        let state = &self.needs[need];
        let priority = state.ready.priorities().next()?;
        let account = state.ready.accounts(priority).min_by_key(|account| self.accounts.turn(*account))?;
        let (job, step) = state.ready.after(Shelf { priority, account }, None)?;
        let session = self.step_of((job, step))?.plan.session;
        let is_vacant = |id: &WorkerId| {
            let standpoint = self.workers.get(id).and_then(|worker| worker.standpoints.get(need.0));
            standpoint.is_some_and(|standpoint| standpoint.vacant.is_some()) && !refused.contains(id)
        };
        let warm = self.indexes.warm.get(&session).into_iter().flatten();
        let still = |seat: &&Seat| {
            let open = |slot: &Slot| slot.is_vacant() && slot.session == Some(session);
            is_vacant(&seat.0) && self.slot(**seat).is_some_and(open)
        };
        if let Some(place) = warm.take(LOOK_AT).find(still) {
            return Some(*place);
        }
        let had = self.indexes.had.get(&session).and_then(|had| near.next(session, had, is_vacant));
        let worker =
            had.or_else(|| state.vacant.iter().map(|(_, id)| *id).find(|id| !refused.contains(id)))?;
        let mut slots = self.workers.get(&worker)?.vacant_slots();
        // One that would have to close nothing is best.
        let first = slots.next()?;
        let cold =
            if first.1.session.is_none() { None } else { slots.find(|(_, slot)| slot.session.is_none()) };
        Some((worker, cold.unwrap_or(first).0))
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
            let depth = self.depth(step, (id, slot));
            if wanted.is_none() && queued > 1 + depth / 2 || queued > depth {
                return;
            }
            wanted = Some(depth);
            self.give(task_of(step, index), (id, slot), given, out);
        }
    }

    /// How many tasks of the step the slot should have behind the one that runs: about as many as last
    /// [`Config::ahead_ms`] there, and no more than half of its part of what waits.
    fn depth(&self, step: StepId, seat: Seat) -> usize {
        let Some(found) = self.step_of(step) else { return 0 };
        let here = self.slot(seat).filter(|slot| slot.session == Some(found.plan.session));
        let measured = here.and_then(|slot| slot.frame_ms);
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
}

impl Config {
    /// How many frames of so many milliseconds a slot should have queued behind the one that runs.
    fn ahead(&self, frame_ms: u64) -> usize {
        let most = usize::from(self.max_queue.max(1));
        usize::try_from(self.ahead_ms.div_ceil(frame_ms.max(1))).unwrap_or(most).clamp(1, most)
    }
}
