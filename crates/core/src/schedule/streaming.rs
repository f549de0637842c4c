//! Streams: attempts that begin before all that their task depends on is done, each on a worker and on no slot.
//!
//! A stream claims only memory, and is displaced if waiting work lacks that memory: so it never blocks the tasks that it
//! waits for. When those are done, [`Core::select_from`] places it on a slot of its worker before other tasks of its step.
//! If another worker could begin the task sooner, the stream is displaced, and its task waits as any other.

use kiln_types::{AttemptId, TaskId, WorkerId};

use crate::{
    Assigned, Claim, Core, DependencyScope, IndexSet, Outbox, Push, Record, RevokeReason,
    claims::{add, claim, has_memory},
    ids::{RequirementId, StepRef},
    state::{Attempt, AttemptPhase, FailureHistory},
    tuning::CANDIDATES,
};

impl Core {
    /// Marks the workers that have a stream which lacks only a slot.
    pub(crate) fn mark_ready_streams(&mut self) {
        let has_ready = |id: &&WorkerId| self.ready_streams(**id).next().is_some();
        let ready: Vec<WorkerId> = self.state.streaming().iter().filter(has_ready).copied().collect();
        self.state.changed_workers.extend(ready);
    }

    /// The streams of the worker that lack only a slot.
    fn ready_streams(&self, id: WorkerId) -> impl Iterator<Item = AttemptId> {
        self.state.worker(id).streams.live().filter(|attempt| {
            let task = self.state.attempt(*attempt).task;
            let stream = self.state.step(task).tasks.streaming().get(task.index);
            let has_frames = stream.is_some_and(|stream| stream.has_frames);
            has_frames && self.state.job(task.job).is_unlocked(usize::from(task.step.0))
        })
    }

    /// The task of the step that streams on the worker and lacks only a slot, with the memory of its stream.
    pub(crate) fn ready_stream_on(&self, id: WorkerId, of: StepRef) -> Option<(TaskId, u64)> {
        self.state.job(of.job).ready_streams(of.place()).find_map(|(index, attempt)| {
            let Attempt { worker, phase, .. } = *self.state.attempt(attempt);
            let AttemptPhase::Streaming { memory } = phase else { return None };
            (worker == id).then_some((of.task(index), memory))
        })
    }

    /// Tells the workers of the streams that depend on this task that it is done.
    pub(crate) fn announce_done(&mut self, done: TaskId, out: &mut impl Outbox) {
        if self.state.streaming().is_empty() {
            return;
        }
        let job = self.state.job(done.job);
        let before = &job.steps[usize::from(done.step.0)].plan;
        let frame = before.frames_of(&IndexSet::from_iter([done.index]));
        let mut told: Vec<AttemptId> = Vec::new();
        for step in job.steps.iter().filter(|step| step.tasks.streaming().len() > 0) {
            let after = step.plan.after.iter().filter(|after| after.step == done.step);
            let scopes: Vec<DependencyScope> = after.map(|after| after.scope).collect();
            let mine = step.plan.tasks_of(&frame);
            let depends = |task| match scopes.as_slice() {
                [] => false,
                scopes => scopes.contains(&DependencyScope::Step) || mine.contains(task),
            };
            let streams = step.tasks.streaming().iter().filter(|(task, _)| depends(*task));
            told.extend(streams.map(|(_, stream)| stream.attempt));
        }
        for attempt in told {
            self.push(self.state.attempt(attempt).worker, Push::Arrived { attempt }, out);
        }
    }

    /// Ends the streams that keep waiting work off a vacant slot of their worker, and those that lack only a slot if another
    /// worker would begin their task now. Call it after all dispatches of a turn.
    pub(crate) fn displace_streams(&mut self, out: &mut impl Outbox) {
        if self.state.streaming().is_empty() {
            return;
        }
        let mut displaced: Vec<AttemptId> = Vec::new();
        for id in self.state.streaming() {
            displaced.extend(self.ready_streams(*id).filter(|attempt| self.is_sooner_elsewhere(*attempt)));
        }
        for of in self.requirements.all() {
            displaced.extend(self.streams_in_the_way(of));
        }
        for attempt in displaced {
            // An attempt may be listed twice.
            if self.revoke(attempt, RevokeReason::Displaced, out).is_some() {
                self.indexes.is_behind = true;
            }
        }
    }

    /// Returns whether another worker would begin the task of a stream now, or its own may not.
    fn is_sooner_elsewhere(&self, id: AttemptId) -> bool {
        let Attempt { task, worker: own, .. } = *self.state.attempt(id);
        let (job, step) = (self.state.job(task.job), self.state.step(task));
        if !self.may_serve(own, job, step) {
            return true;
        }
        let would_take = |other: &WorkerId| {
            let history = step.tasks.history(task.index);
            *other != own
                && self.may_serve(*other, job, step)
                && history.is_none_or(|history| self.may_retry_now(*other, step, history))
        };
        if self.is_kept_back(task.into()) {
            return false;
        }
        // The step requires more than before, and other streams have that memory: as a waiting task it displaces them.
        let known = self.state.worker(own);
        let lacks_room = known.takes_work() && known.claimed_by_slots(None).is_none();
        let vacant = self.requirements[step.requirement].vacant.iter().map(|(_, other)| *other);
        lacks_room || vacant.take(CANDIDATES).any(|other| would_take(&other))
    }

    /// The streams of one worker that must end before a waiting task of this requirement has room on a vacant slot.
    fn streams_in_the_way(&self, of: RequirementId) -> Vec<AttemptId> {
        if self.requirements[of].ready.is_empty() || self.exhausted_limit(of).is_some() {
            return Vec::new();
        }
        let workers = self.state.streaming().iter().filter_map(|id| self.streams_before(*id, of));
        // If none has to end on a worker, there will be room when its closing ones have ended.
        workers.min_by_key(Vec::len).unwrap_or_default()
    }

    /// The streams that must end before a task of this requirement has room on the worker, the latest first; `None` if it
    /// would have no room without them.
    fn streams_before(&self, id: WorkerId, of: RequirementId) -> Option<Vec<AttemptId>> {
        let worker = self.state.worker(id);
        let may = worker.takes_work()
            && worker.fits(of)
            && worker.reserved.is_none_or(|reserved| reserved == of)
            && worker.vacant_slots().next().is_some();
        let entry = &self.requirements[of];
        let slots = worker.claimed_by_slots(None);
        if !may || claim(&worker.offer, slots, entry.requirement.room).is_none() {
            return None;
        }
        let waits = |step: StepRef| {
            let (job, step) = (self.state.job(step.job), self.state.step(step));
            let may = |history: &FailureHistory| {
                history.least_memory().is_none() && self.may_retry(id, step, history)
            };
            self.may_serve(id, job, step) && step.next(may).is_some()
        };
        // A task that ran out of memory waits until the worker does nothing else.
        let waits_alone = |step: StepRef| {
            let step = self.state.step(step);
            let may = |task| {
                let history = step.tasks.history(task);
                history.is_some_and(|known| known.least_memory().is_some() && self.may_retry(id, step, known))
            };
            slots.is_none() && step.tasks.retries().take(CANDIDATES).any(may)
        };
        let steps = || {
            let all = entry.ready.steps().take(CANDIDATES);
            all.filter(|(member, _)| !self.fair_share.is_full(*member)).map(|(_, step)| step)
        };
        if steps().any(waits_alone) {
            return Some(worker.streams.live().collect());
        }
        if !steps().any(waits) {
            return None;
        }
        let mut rest: Vec<(AttemptId, u64)> = worker.streams.claims().collect();
        let mut ended = Vec::new();
        loop {
            let beside = rest.iter().fold(slots, |sum, (_, memory)| add(sum, Claim::memory(*memory)));
            match rest.pop() {
                Some((latest, _)) if claim(&worker.offer, beside, entry.requirement.room).is_none() => {
                    ended.push(latest);
                }
                // If none has to end, the task waits for something else.
                _ => {
                    return Some(ended)
                        .filter(|ended| !ended.is_empty() || worker.streams.closing().next().is_some());
                }
            }
        }
    }

    /// Opens streams on workers that have the memory. Call it after all dispatches of a turn.
    pub(crate) fn open_streams(&mut self, out: &mut impl Outbox) {
        for of in std::mem::take(&mut self.indexes.streamable) {
            // The job may be forgotten since.
            let Some(job) = self.state.find_job(of.job).filter(|job| job.is_open()) else { continue };
            let mut tasks = job.streamable(of.place());
            // A task that ran out of memory waits for a whole machine.
            let histories = job.steps[of.place()].tasks.histories();
            let too_large = histories.filter(|(_, history)| history.least_memory().is_some());
            tasks.subtract(&too_large.map(|(task, _)| task).collect());
            for task in tasks.iter() {
                match self.stream_worker(of.task(task)) {
                    Some(worker) => self.open_stream(of.task(task), worker, out),
                    None => drop(self.indexes.streamable.insert(of)),
                }
            }
        }
    }

    /// The worker on which a task streams: of those that the job is on, or else of the vacant ones, that with the fewest
    /// streams.
    fn stream_worker(&self, task: TaskId) -> Option<WorkerId> {
        let (job, step) = (self.state.job(task.job), self.state.step(task));
        let entry = &self.requirements[step.requirement];
        let room = entry.requirement.room;
        let history = step.tasks.history(task.index);
        let streams = |id: &WorkerId| self.state.worker(*id).streams.len();
        let may = |id: &WorkerId| {
            let worker = self.state.worker(*id);
            let memory = self.stream_memory(*id, task.into());
            let beside = worker.claimed(None).map_or(0, |claimed| claimed.memory);
            worker.takes_work()
                && worker.fits(step.requirement)
                && worker.reserved.is_none()
                && has_memory(&worker.offer, beside, memory)
                && streams(id) < usize::from(worker.offer.slots)
                && self.may_serve(*id, job, step)
                && history.is_none_or(|history| self.may_retry(*id, step, history))
        };
        if room.whole {
            return None;
        }
        let own = job.on.keys().copied().take(CANDIDATES).filter(may).min_by_key(streams);
        let vacant =
            || entry.vacant.iter().map(|(_, id)| *id).take(CANDIDATES).filter(may).min_by_key(streams);
        own.or_else(vacant)
    }

    fn open_stream(&mut self, task: TaskId, worker: WorkerId, out: &mut impl Outbox) {
        self.pin_device(task.into(), worker, out);
        let memory = self.stream_memory(worker, task.into());
        let attempt = self.next_attempt_id();
        let tasks = &mut self.state.step_mut(task).tasks;
        tasks.stream(task.index, attempt);
        let generation = tasks.generation(task.index);
        let known = Attempt::new(task, worker, generation, AttemptPhase::Streaming { memory });
        self.state.attempts.insert(attempt, known);
        self.state.update_streams(worker, |streams| streams.open(attempt, memory));
        self.state.touch(worker);
        out.record(Record::StreamOpened { attempt, task, generation, worker });
        let task = Assigned { attempt, task, generation };
        self.push(worker, Push::Stream { claim: Claim::memory(memory), task }, out);
    }
}
