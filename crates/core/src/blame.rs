//! Who is to blame when an attempt ends badly: its task, which fails in the end; its worker, which is sick; or
//! nobody.

use std::collections::BTreeSet;

use kiln_types::{AttemptId, AttemptState, Failure, FailureCause, TaskId, WorkerId};

use crate::{
    Core, Moment, Outbox, Record, RevokeReason,
    health::{How, Strike},
    job::{Fault, JobEnd, Place, Trouble},
    worker::{Attempt, AttemptPhase, Presence, Slot},
};

/// Tasks that take workers down do so alike.
const TAKES_WORKERS_DOWN: &str = "takes workers down";

impl Core {
    /// An attempt, off its slot and its task already, has failed.
    pub(crate) fn failed(
        &mut self,
        now: Moment,
        id: AttemptId,
        attempt: &Attempt,
        failure: Failure,
        out: &mut impl Outbox,
    ) {
        let (task, worker) = (attempt.task, attempt.worker);
        let state = AttemptState::Failed;
        out.record(Record::AttemptClosed { attempt: id, task, state, failure: Some(failure.clone()) });
        self.begin(task.job, out);
        if let Some(step) = self.step_mut(task) {
            let trouble = step.troubles.entry(task.index).or_default();
            trouble.failed_on.push(worker);
            trouble.counted.push((id, Fault::Failed));
            trouble.last = Some(failure.clone());
        }
        if failure.cause.stops_job() {
            return self.stop_job(&[task], failure, out);
        }
        // It has learned meanwhile that it cannot do this, and said so: it is not asked again, and no frame is to blame.
        let taken_back = failure.cause.blames_worker()
            && self
                .step(task)
                .zip(self.workers.get(&worker))
                .is_some_and(|(step, worker)| !worker.fits(step.need));
        if taken_back {
            self.excuse(worker, id, task, out);
        }
        // A machine that is too small is not sick.
        if failure.cause == FailureCause::OutOfMemory
            && let Some(reason) = self.ran_out_of_memory(id, attempt, out)
            && self.step(task).is_some_and(|step| !step.live.contains_key(&task.index))
        {
            self.fail_task(task, reason, out);
            return self.settle(task.job, out);
        }
        if failure.cause != FailureCause::OutOfMemory && !taken_back {
            let how = How::Failed(failure.message.clone());
            self.strike(now, worker, Strike::new(id, task, now, how), out);
            self.assess(now, worker, out);
            self.setback(now, worker, id, out);
        }
        if !self.excuse_sick(worker, id, task, out)
            && let Some((tasks, reason)) =
                self.fails_as_others_did(task, &[worker], &failure, &failure.message)
        {
            return self.stop_job(&tasks, reason, out);
        }
        self.release(task, Some(&failure), out);
        self.settle(task.job, out);
    }

    /// These tasks of one job fail, wherever they wait or run, each with what it said last, and the job with them.
    fn stop_job(&mut self, tasks: &[TaskId], reason: Failure, out: &mut impl Outbox) {
        for task in tasks {
            let place = self.step(*task).and_then(|step| step.place(task.index));
            if !matches!(place, Some(Place::Waiting | Place::Live(_))) {
                continue;
            }
            while let Some(live) = self.step(*task).and_then(|step| step.live.get(&task.index)).copied() {
                self.revoke(live, RevokeReason::Cancelled, AttemptState::Revoked, out);
            }
            if let Some(step) = self.step_mut(*task) {
                step.remove_waiting(task.index);
            }
            let own = self.step(*task).and_then(|step| step.troubles.get(&task.index)?.last.clone());
            self.fail_task(*task, own.unwrap_or_else(|| reason.clone()), out);
        }
        if let Some(task) = tasks.first() {
            self.end_job(task.job, JobEnd::Failed, Some(reason), out);
        }
    }

    /// The task, in no place so far, waits again; or fails, where it has used up its attempts. A failure by which
    /// a worker is to blame is one of them, but not the last one while another worker would take the task; and what
    /// took a worker down is tried on others before it is given up.
    fn release(&mut self, task: TaskId, last: Option<&Failure>, out: &mut impl Outbox) {
        let (max_failures, max_lapses) =
            (usize::from(self.config.max_failures), usize::from(self.config.max_lapses));
        let Some(step) = self.step(task) else { return };
        if step.live.contains_key(&task.index) {
            // Its twin goes on; what becomes of the task is seen when that ends.
            return;
        }
        let none = Trouble::default();
        let trouble = step.troubles.get(&task.index).unwrap_or(&none);
        let lapses = trouble.lapsed_on.len();
        let elsewhere = || self.goes_elsewhere(task);
        let repeated =
            last.is_some_and(|last| last.cause.repeats()) && (trouble.failed_on.len() > 1 || !elsewhere());
        let too_many = trouble.failed_on.len() >= max_failures || repeated;
        // What ran out of memory goes where there is more, as long as there is.
        let few = trouble.failed_on.len() < 2 * max_failures;
        let grows =
            |last: &Failure| last.cause == FailureCause::OutOfMemory && trouble.outgrew.is_some() && few;
        let blamed = |last: &Failure| last.cause.blames_worker() && elsewhere();
        let spared = too_many && last.is_some_and(|last| grows(last) || blamed(last));
        let took_down = lapses >= max_lapses && {
            let workers: BTreeSet<WorkerId> = trouble.lapsed_on.iter().copied().collect();
            workers.len() >= max_lapses || lapses >= 2 * max_lapses || !elsewhere()
        };
        if too_many && !spared {
            let earlier = || trouble.last.clone();
            let unknown = || Failure::new(FailureCause::Other, "failed on every attempt");
            let reason = last.cloned().or_else(earlier).unwrap_or_else(unknown);
            return self.fail_task(task, reason, out);
        }
        if took_down {
            let workers = trouble.lapsed_on.clone();
            let reason = Failure::new(FailureCause::Other, self.took_down(&workers));
            if let Some(trouble) = self.step_mut(task).and_then(|step| step.troubles.get_mut(&task.index)) {
                trouble.last = Some(reason.clone());
            }
            return match self.fails_as_others_did(task, &workers, &reason, TAKES_WORKERS_DOWN) {
                Some((tasks, reason)) => self.stop_job(&tasks, reason, out),
                None => self.fail_task(task, reason, out),
            };
        }
        let spared = too_many || lapses >= max_lapses;
        let Some(step) = self.step_mut(task) else { return };
        if spared && let Some(trouble) = step.troubles.get_mut(&task.index) {
            trouble.spared = true;
        }
        step.put_waiting(task.index);
    }

    /// What is said of a task that took these workers down, a worker for each time.
    fn took_down(&self, workers: &[WorkerId]) -> String {
        let each: BTreeSet<WorkerId> = workers.iter().copied().collect();
        let names: Vec<String> = each.iter().map(|id| self.name_of(*id)).collect();
        match names.as_slice() {
            [name] => format!("took the worker {name} down {} times", in_words(workers.len())),
            names => format!("took {} workers down: {}", in_words(names.len()), names.join(", ")),
        }
    }

    pub(crate) fn name_of(&self, worker: WorkerId) -> String {
        let name = self.workers.get(&worker).map(|known| known.offer.name.clone());
        name.filter(|name| !name.is_empty()).unwrap_or_else(|| worker.to_string())
    }

    /// Whether a worker on which the task has not failed, and that it has not taken down, would take it now.
    fn goes_elsewhere(&self, task: TaskId) -> bool {
        let Some(step) = self.step(task) else { return false };
        let befell: Vec<WorkerId> =
            step.troubles.get(&task.index).into_iter().flat_map(Trouble::workers).collect();
        self.others_take(&befell, step.need, step.plan.session)
    }

    /// The task, in no place so far, is failed.
    fn fail_task(&mut self, task: TaskId, reason: Failure, out: &mut impl Outbox) {
        let Some(step) = self.step_mut(task) else { return };
        step.failed.insert(task.index);
        let generation = step.generations.get(task.index);
        let trouble = step.troubles.remove(&task.index).unwrap_or_default();
        for late in &trouble.late {
            self.attempts.remove(late);
        }
        out.record(Record::TaskFailed { task, generation, reason });
    }

    /// The worker's lease has run out, or it is to be forgotten: every live attempt of it ends and its task is
    /// free. `blame` counts a lapse against the tasks that may have been its end, unless it goes down whatever it
    /// has.
    pub(crate) fn lapse(&mut self, now: Moment, id: WorkerId, blame: bool, out: &mut impl Outbox) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.presence = match worker.presence {
            Presence::Here { .. } | Presence::Silent => Presence::Silent,
            Presence::Away { .. } | Presence::Offline => Presence::Offline,
        };
        let live: Vec<AttemptId> = worker.live().collect();
        let suspects = if blame { self.suspects(id) } else { BTreeSet::new() };
        self.touch(id);
        self.went_down(now, id, &suspects, out);
        for attempt in live {
            self.lose(attempt, suspects.contains(&attempt), true, out);
        }
        if let Some(worker) = self.workers.get_mut(&id)
            && worker.presence == Presence::Offline
        {
            worker.slots.iter_mut().for_each(|slot| slot.closing.clear());
            worker.resize();
        }
    }

    /// The attempts to count against their tasks should the worker be lost now: on each slot the one that ran or
    /// was about to, because loading a scene kills machines too. Not one of an earlier reign that never began:
    /// the server may have died before it was sent.
    pub(crate) fn suspects(&self, id: WorkerId) -> BTreeSet<AttemptId> {
        let foremost = self.workers.get(&id).into_iter().flat_map(|w| &w.slots).flat_map(Slot::foremost);
        let may_have_run = |id: &AttemptId| {
            id.epoch == self.epoch || self.attempts.get(id).is_some_and(|known| known.phase.has_begun())
        };
        foremost.filter(may_have_run).collect()
    }

    /// A live attempt is lost with its worker. `late`: the worker may come back with it.
    pub(crate) fn lose(&mut self, id: AttemptId, blame: bool, late: bool, out: &mut impl Outbox) {
        let Some(attempt) = self.detach(id) else { return };
        let (task, worker) = (attempt.task, attempt.worker);
        let state = if blame { AttemptState::Lapsed } else { AttemptState::HandedBack };
        out.record(Record::AttemptClosed { attempt: id, task, state, failure: None });
        if late {
            let may_run = attempt.phase != AttemptPhase::Delivering;
            if may_run
                && let Some(known) = self.workers.get_mut(&worker)
                && let Some(slot) = known.slot_mut(attempt.slot)
            {
                slot.close(id);
            }
            self.keep_late(id, attempt, blame);
        }
        if blame && let Some(step) = self.step_mut(task) {
            let trouble = step.troubles.entry(task.index).or_default();
            trouble.lapsed_on.push(worker);
            trouble.counted.push((id, Fault::Lapsed));
        }
        if blame {
            self.excuse_sick(worker, id, task, out);
        }
        self.release(task, None, out);
        self.settle(task.job, out);
    }

    /// What befell the task on a sick worker does not count against it, as long as another worker is there that may
    /// take it: without one it must, or it would be tried for ever. Whether it does not count.
    fn excuse_sick(&mut self, worker: WorkerId, id: AttemptId, task: TaskId, out: &mut impl Outbox) -> bool {
        let sick = self.workers.get(&worker).is_some_and(|known| known.sick.is_some());
        if sick && self.step(task).is_some_and(|step| self.willing(step.need) > 0) {
            self.excuse(worker, id, task, out);
        }
        let trouble = self.step(task).and_then(|step| step.troubles.get(&task.index));
        !trouble.is_some_and(|trouble| trouble.counted.iter().any(|(counted, _)| *counted == id))
    }

    /// The attempt of this worker counts against its task no more, where it did.
    pub(crate) fn excuse(&mut self, worker: WorkerId, id: AttemptId, task: TaskId, out: &mut impl Outbox) {
        let Some(step) = self.step_mut(task) else { return };
        let Some(trouble) = step.troubles.get_mut(&task.index) else { return };
        if !trouble.forgive(id, worker) {
            return;
        }
        let over = trouble.is_over();
        // It may wait among those that nothing has befallen from now on.
        let waits = step.waits(task.index);
        if waits {
            step.remove_waiting(task.index);
        }
        if over {
            step.troubles.remove(&task.index);
        }
        if waits {
            step.put_waiting(task.index);
        }
        if let Some(attempt) = self.attempts.get_mut(&id)
            && let AttemptPhase::Late { counted, .. } = &mut attempt.phase
        {
            *counted = false;
        }
        out.record(Record::AttemptExcused { attempt: id, task });
    }
}

fn in_words(number: usize) -> String {
    match number {
        2 => "two".to_owned(),
        3 => "three".to_owned(),
        number => number.to_string(),
    }
}
