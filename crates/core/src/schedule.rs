//! Which task goes to which slot.
//!
//! First idle slots, job by job; then queues, so that no slot waits for the network between two frames; and
//! when nothing waits any more, idle slots take from the queues of busy ones.

use std::{cmp::Reverse, collections::BinaryHeap};

use kiln_types::{AttemptId, JobId, SessionKey, SlotIndex, StepIndex, TaskId, WorkerId};

use crate::{
    Assigned, Config, Core, Moment, Outbox, Push, Record,
    core::step_index,
    job::{Job, JobPhase, Need, Step, Trouble},
    worker::{Attempt, AttemptPhase, Slot},
};

/// A slot that may be given work, as it stands in this round.
struct Room {
    worker: WorkerId,
    slot: SlotIndex,
    /// Attempts in its queue, the running one too.
    queued: usize,
    /// Milliseconds until it has worked off its queue, as far as known.
    backlog_ms: u64,
    session: Option<SessionKey>,
    frame_ms: Option<u32>,
    /// An earlier job has more for it: later ones do not queue on it.
    claimed: bool,
    given: Vec<Assigned>,
}

/// A step with waiting tasks that may run.
#[derive(Clone, Copy)]
struct Open {
    job: JobId,
    step: StepIndex,
    need: Need,
    session: SessionKey,
}

/// What a frame is taken to last where none was measured; milliseconds.
const UNMEASURED_MS: u64 = 10_000;

impl Core {
    /// Hands out work. Call it after each batch of inputs.
    pub fn schedule(&mut self, now: Moment, out: &mut impl Outbox) {
        for job in std::mem::take(&mut self.unsettled) {
            self.settle(job, out);
        }
        self.pauses.tick(now);
        let open = self.open_steps();
        if !open.is_empty() || !self.attempts.is_empty() {
            let mut rooms = self.rooms(now);
            self.fill_idle(&open, &mut rooms, out);
            self.fill_queues(&open, &mut rooms, out);
            self.steal(&rooms, out);
            for room in rooms {
                self.send(&room, out);
            }
        }
        self.record_workers(out);
    }

    fn open_steps(&self) -> Vec<Open> {
        let mut open = Vec::new();
        for (&id, job) in self.active.iter().filter_map(|id| self.jobs.get_key_value(id)) {
            if job.phase != JobPhase::Active {
                continue;
            }
            for (index, step) in job.steps.iter().enumerate() {
                if job.could_run(index) {
                    let (need, session) = (step.need, step.plan.session);
                    open.push(Open { job: id, step: step_index(index), need, session });
                }
            }
        }
        open
    }

    /// Slots that may be given work, in the order of their ids.
    fn rooms(&self, now: Moment) -> Vec<Room> {
        let mut rooms = Vec::new();
        for (id, worker) in self.workers.iter().filter(|(_, worker)| worker.takes_work()) {
            for (index, slot) in worker.slots.iter().enumerate().take(usize::from(worker.offer.slots)) {
                // Whatever uploads more than it renders should catch up first.
                let is_behind = slot.delivering.len() >= usize::from(self.config.max_queue.max(1));
                if slot.closing.is_empty() && !is_behind {
                    rooms.push(Room {
                        worker: *id,
                        slot: SlotIndex(index as u16),
                        queued: slot.queue.len(),
                        backlog_ms: self.backlog(now, slot),
                        session: slot.session,
                        frame_ms: slot.frame_ms,
                        claimed: false,
                        given: Vec::new(),
                    });
                }
            }
        }
        rooms
    }

    fn backlog(&self, now: Moment, slot: &Slot) -> u64 {
        let frame = slot.frame_ms.map_or(UNMEASURED_MS, u64::from);
        let whole = frame * slot.queue.len() as u64;
        let front = slot.queue.front().and_then(|front| self.attempts.get(front));
        match front.map(|attempt| attempt.phase) {
            Some(AttemptPhase::Running { since }) => whole - now.since(since).min(frame),
            _ => whole,
        }
    }

    /// One task for each idle slot that can take one. The earliest job chooses first, and prefers slots that
    /// have its session open, then ones that have none.
    fn fill_idle(&mut self, open: &[Open], rooms: &mut [Room], out: &mut impl Outbox) {
        let mut idle: Vec<usize> = (0..rooms.len()).filter(|&index| rooms[index].queued == 0).collect();
        for step in open {
            if idle.is_empty() {
                return;
            }
            let mut fitting: Vec<usize> =
                idle.iter().copied().filter(|&i| self.fits(&rooms[i], step)).collect();
            fitting.sort_by_key(|&index| {
                let room = &rooms[index];
                let warmth = match room.session {
                    Some(session) if session == step.session => 0,
                    None => 1,
                    Some(_) => 2,
                };
                (warmth, room.frame_ms.unwrap_or(u32::MAX), index)
            });
            for index in fitting {
                self.give(*step, &mut rooms[index], out);
            }
            idle.retain(|&index| rooms[index].queued == 0);
        }
    }

    /// Tasks behind those that run, each for the slot that will need it first.
    fn fill_queues(&mut self, open: &[Open], rooms: &mut [Room], out: &mut impl Outbox) {
        let mut unclaimed = rooms.len();
        for step in open {
            if unclaimed == 0 {
                return;
            }
            let fitting: Vec<usize> =
                (0..rooms.len()).filter(|&index| self.fits(&rooms[index], step)).collect();
            let waiting = self.waiting(step);
            if fitting.is_empty() || waiting == 0 {
                continue;
            }
            let share = (waiting as usize / (2 * fitting.len())).max(1);
            let has_room = |room: &Room| {
                let ahead = self.config.ahead(step.session, room).min(share);
                !room.claimed && (1..=ahead).contains(&room.queued)
            };
            let with_room = fitting.iter().copied().filter(|&index| has_room(&rooms[index]));
            let mut next: BinaryHeap<_> =
                with_room.map(|index| Reverse((rooms[index].backlog_ms, index))).collect();
            let config = self.config.clone();
            while let Some(Reverse((_, index))) = next.pop() {
                let room = &mut rooms[index];
                if self.give(*step, room, out) {
                    let ahead = config.ahead(step.session, room).min(share);
                    if room.queued <= ahead {
                        next.push(Reverse((room.backlog_ms, index)));
                    }
                } else if self.waiting(step) == 0 {
                    break;
                }
            }
            let more = self.step_at(step).is_some_and(|step| !step.waiting.is_empty());
            for &index in fitting.iter().filter(|_| more) {
                unclaimed -= usize::from(!rooms[index].claimed);
                rooms[index].claimed = true;
            }
        }
    }

    /// Idle slots for which nothing waits ask for what is queued elsewhere, the longest wait first. What comes
    /// back waits again and is handed out as anything else.
    fn steal(&mut self, rooms: &[Room], out: &mut impl Outbox) {
        let mut idle: Vec<&Room> = rooms.iter().filter(|room| room.queued == 0).collect();
        if idle.is_empty() {
            return;
        }
        let mut queued = Vec::new();
        let mut coming = 0;
        for worker in self.workers.values().filter(|worker| worker.presence.is_connected()) {
            for slot in &worker.slots {
                let frame = slot.frame_ms.map_or(UNMEASURED_MS, u64::from);
                // Behind an attempt that closes, even the front waits.
                let ahead = u64::from(!slot.closing.is_empty());
                for (position, id) in slot.queue.iter().enumerate() {
                    let Some(attempt) = self.attempts.get(id) else { continue };
                    let is_active = |job: &Job| job.phase == JobPhase::Active;
                    let active = self.jobs.get(&attempt.task.job).is_some_and(is_active);
                    let wait = (position as u64 + ahead) * frame;
                    match attempt.phase {
                        AttemptPhase::Assigned { recalled: true } if active => coming += 1,
                        AttemptPhase::Assigned { recalled: false }
                            if active && wait > 0 && wait >= self.config.steal_ms =>
                        {
                            queued.push((wait, *id));
                        }
                        _ => {}
                    }
                }
            }
        }
        idle.drain(..usize::min(coming, idle.len()));
        queued.sort_unstable_by(|a, b| b.cmp(a));
        let mut nobody_fits: Vec<Need> = Vec::new();
        for (_, id) in queued {
            if idle.is_empty() {
                return;
            }
            let Some(task) = self.attempts.get(&id).map(|attempt| attempt.task) else { continue };
            let Some(step) = self.step(task) else { continue };
            let need = step.need;
            if nobody_fits.contains(&need) {
                continue;
            }
            let trouble = step.troubles.get(&task.index);
            let failed_there = |room: &Room| trouble.is_some_and(|t| t.failed_on.contains(&room.worker));
            let session = step.plan.session;
            let fits = |room: &Room| self.may_take(room.worker, need, session);
            match idle.iter().position(|room| fits(room) && !failed_there(room)) {
                Some(taker) => {
                    idle.swap_remove(taker);
                    self.recall(id, out);
                }
                None if trouble.is_none() => nobody_fits.push(need),
                None => {}
            }
        }
    }

    /// Opens an attempt of the step's next task on this slot; whether there was one for it.
    fn give(&mut self, from: Open, room: &mut Room, out: &mut impl Outbox) -> bool {
        let Some(step) = self.step_at(&from) else { return false };
        let worker = room.worker;
        let may = |trouble: &Trouble| {
            !trouble.failed_on.contains(&worker) || !self.can_go_elsewhere(from.need, trouble)
        };
        let Some(index) = step.next(may) else { return false };
        let task = TaskId { job: from.job, step: from.step, index };
        let generation = step.generations.get(index);
        let attempt = AttemptId { epoch: self.epoch, counter: self.next_attempt };
        self.next_attempt += 1;
        if let Some(step) = self.step_mut(task) {
            step.remove_waiting(index);
            step.live.insert(index, attempt);
        }
        let slot = room.slot;
        let phase = AttemptPhase::Assigned { recalled: false };
        self.attempts.insert(attempt, Attempt { task, worker, generation, slot, phase });
        if let Some(slot) = self.workers.get_mut(&worker).and_then(|worker| worker.slot_mut(slot)) {
            slot.queue.push_back(attempt);
            slot.set_session(from.session);
            (room.session, room.frame_ms) = (slot.session, slot.frame_ms);
        }
        self.touched.insert(worker);
        out.record(Record::AttemptOpened { attempt, task, generation, worker, slot });
        room.queued += 1;
        room.backlog_ms += room.frame_ms.map_or(UNMEASURED_MS, u64::from);
        room.given.push(Assigned { attempt, task, generation });
        true
    }

    /// Whether a worker that may take work and fits has not failed on the task.
    fn can_go_elsewhere(&self, need: Need, trouble: &Trouble) -> bool {
        self.workers.iter().any(|(id, worker)| {
            worker.takes_work()
                && worker.offer.slots > 0
                && worker.fits(need)
                && !trouble.failed_on.contains(id)
        })
    }

    /// What the room was given, one message for tasks of one step.
    fn send(&self, room: &Room, out: &mut impl Outbox) {
        for tasks in room.given.chunk_by(|a, b| (a.task.job, a.task.step) == (b.task.job, b.task.step)) {
            self.push(room.worker, Push::Assign { slot: room.slot, tasks: tasks.to_vec() }, out);
        }
    }

    fn step_at(&self, open: &Open) -> Option<&Step> {
        self.jobs.get(&open.job)?.steps.get(usize::from(open.step.0))
    }

    fn waiting(&self, open: &Open) -> u32 {
        self.step_at(open).map_or(0, Step::waiting_len)
    }

    fn fits(&self, room: &Room, open: &Open) -> bool {
        self.may_take(room.worker, open.need, open.session)
    }

    fn may_take(&self, worker: WorkerId, need: Need, session: SessionKey) -> bool {
        self.workers.get(&worker).is_some_and(|known| known.fits(need))
            && !self.is_held_off(worker, need, session)
    }
}

impl Config {
    /// How many tasks of this session the room should have queued behind the one that runs.
    fn ahead(&self, session: SessionKey, room: &Room) -> usize {
        let most = usize::from(self.max_queue.max(1));
        match room.frame_ms {
            Some(frame) if room.session == Some(session) => {
                usize::try_from(self.ahead_ms.div_ceil(u64::from(frame.max(1))))
                    .unwrap_or(most)
                    .clamp(1, most)
            }
            _ => 1,
        }
    }
}
