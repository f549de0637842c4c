//! Workers that fail, or go down, where others deliver: they are *sick*.
//!
//! What goes wrong on a worker without a delivery between is noted ([`Strike`]). Three failures of at least two tasks,
//! or two downfalls with different tasks within half an hour, make it sick, if another worker delivers tasks of the
//! same steps, if these tasks went wrong nowhere else, and if somebody is left to do its work: else it is the tasks.
//! What it failed counts against the tasks no more. It gets nothing but a single task on trial after a pause, which
//! doubles with each that goes wrong; the first that it delivers heals it, as do other workers that fail as it did.
//!
//! Who is sick survives a restart; strikes do not, and the pause begins anew.

use std::collections::BTreeSet;

use kiln_types::{AttemptId, SlotIndex, TaskId, TaskIndex, WorkerId};

use crate::{
    Core, Moment, Outbox, Record,
    accounts::AccountId,
    choose::{LOOK_AT, Takes},
    estimate::UNMEASURED_MS,
    give::{Given, task_of},
    job::Trouble,
    needs::{Need, Standpoint},
    ready::{Shelf, StepId},
    worker::{Presence, Worker},
};

/// Failures without a delivery between that make a worker sick, and the tasks that they must be of.
const FAILURES: usize = 3;
const TASKS: usize = 2;
/// Milliseconds within which two downfalls make it sick.
const DOWNFALLS_WITHIN_MS: u64 = 30 * 60_000;
/// Milliseconds until a sick worker is first tried again, and at most.
const FIRST_PAUSE_MS: u64 = 60_000;
const LONGEST_PAUSE_MS: u64 = 30 * 60_000;
/// Strikes kept of one worker.
const MOST_STRIKES: usize = 16;

/// Why a worker is set aside, and how often it has been tried in vain since.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Sickness {
    /// One sentence for a person.
    pub why: String,
    pub trials: u32,
}

impl Sickness {
    fn pause_ms(&self) -> u64 {
        FIRST_PAUSE_MS.saturating_mul(1 << self.trials.min(16)).min(LONGEST_PAUSE_MS)
    }
}

/// A worker's sickness, and how its trial stands.
#[derive(Debug)]
pub(crate) struct Sick {
    pub sickness: Sickness,
    pub trial: Trial,
    /// What it was last given on trial.
    tried: Option<AttemptId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trial {
    /// Not before.
    At(Moment),
    /// As soon as there is something for it.
    Due,
    Runs(AttemptId),
}

/// Something that went wrong on a worker.
#[derive(Debug)]
pub(crate) struct Strike {
    attempt: AttemptId,
    task: TaskId,
    at: Moment,
    how: How,
    /// The same task has gone wrong on another worker too, and none has delivered it.
    shared: bool,
}

#[derive(Debug)]
pub(crate) enum How {
    /// And this is what it said.
    Failed(String),
    /// The worker was lost with it; several tasks may share one downfall.
    Down { downfall: u64 },
}

impl Strike {
    pub fn new(attempt: AttemptId, task: TaskId, at: Moment, how: How) -> Self {
        Self { attempt, task, at, how, shared: false }
    }

    fn step(&self) -> StepId {
        (self.task.job, self.task.step)
    }
}

impl Core {
    /// A person says that the worker is well. Whether it was sick.
    pub fn heal_worker(&mut self, id: WorkerId, out: &mut impl Outbox) -> bool {
        let was_sick = self.infirmary.sick.contains(&id);
        self.clear_strikes(id);
        self.recover(id, out);
        self.record_workers(out);
        was_sick
    }

    /// It was sick when an earlier reign ended; its pause begins anew.
    pub fn restore_sick(&mut self, now: Moment, id: WorkerId, sickness: Sickness) {
        self.know(id);
        let at = now.after(sickness.pause_ms());
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.sick = Some(Sick { sickness, trial: Trial::At(at), tried: None });
            self.infirmary.sick.insert(id);
            self.infirmary.list(id, Trial::At(at));
            self.touch(id);
        }
    }

    /// Something went wrong on the worker. [`Core::assess`] says what that means.
    pub(crate) fn strike(&mut self, now: Moment, id: WorkerId, mut strike: Strike, out: &mut impl Outbox) {
        strike.shared = self.share(id, strike.task, out);
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker
            .strikes
            .retain(|old| matches!(old.how, How::Failed(_)) || now.since(old.at) <= DOWNFALLS_WITHIN_MS);
        if worker.strikes.len() >= MOST_STRIKES {
            worker.strikes.remove(0);
        }
        worker.strikes.push(strike);
        self.set_struck(id, true);
        self.doubt(id);
    }

    /// Others' deliveries tell of the worker in the steps in which it has gone wrong as far as is remembered.
    fn doubt(&mut self, id: WorkerId) {
        let doubts = self.workers.get(&id).into_iter().flat_map(Worker::doubts).collect();
        self.infirmary.set_doubts(id, doubts);
    }

    /// Whether the worker has strikes, as each need counts it.
    fn set_struck(&mut self, id: WorkerId, struck: bool) {
        let set = &mut self.infirmary.struck;
        let changed = if struck { set.insert(id) } else { set.remove(&id) };
        let Some(worker) = self.workers.get_mut(&id).filter(|_| changed) else { return };
        for need in self.needs.all() {
            let old = worker.standpoints[need.0];
            let new = Standpoint { struck: struck && old.slots > 0, ..old };
            worker.standpoints[need.0] = new;
            self.needs[need].moved(id, old, new);
        }
    }

    /// The worker is lost with these attempts, which are live yet.
    pub(crate) fn went_down(
        &mut self,
        now: Moment,
        id: WorkerId,
        suspects: &BTreeSet<AttemptId>,
        out: &mut impl Outbox,
    ) {
        if suspects.is_empty() {
            return;
        }
        self.infirmary.downfalls += 1;
        let downfall = self.infirmary.downfalls;
        for attempt in suspects {
            if let Some(task) = self.attempts.get(attempt).map(|known| known.task) {
                self.strike(now, id, Strike::new(*attempt, task, now, How::Down { downfall }), out);
            }
        }
        self.assess(now, id, out);
        for attempt in suspects {
            self.setback(now, id, *attempt, out);
        }
    }

    /// Whether the task has gone wrong on others than this worker. Those of them that are sick have one fault less
    /// of their own, which may heal them.
    fn share(&mut self, id: WorkerId, task: TaskId, out: &mut impl Outbox) -> bool {
        let trouble = self.step(task).and_then(|step| step.troubles.get(&task.index));
        let mut others: BTreeSet<WorkerId> =
            trouble.into_iter().flat_map(|trouble| trouble.workers()).collect();
        others.remove(&id);
        let mut shared = !others.is_empty();
        others.extend(self.infirmary.sick.iter().filter(|sick| **sick != id));
        for other in others {
            let strikes = self.workers.get_mut(&other).into_iter().flat_map(|worker| &mut worker.strikes);
            let mut has = false;
            for strike in strikes.filter(|strike| strike.task == task) {
                strike.shared = true;
                has = true;
            }
            shared |= has;
            if has && self.infirmary.sick.contains(&other) && self.grounds(other).is_none() {
                self.recover(other, out);
            }
        }
        shared
    }

    /// Sets the worker aside where it is at fault.
    pub(crate) fn assess(&mut self, now: Moment, id: WorkerId, out: &mut impl Outbox) {
        if self.infirmary.sick.contains(&id) {
            return;
        }
        let Some(why) = self.grounds(id).filter(|_| self.is_dispensable(id)) else { return };
        let sickness = Sickness { why, trials: 0 };
        let at = now.after(sickness.pause_ms());
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let strikes: Vec<(AttemptId, TaskId)> =
            worker.strikes.iter().map(|strike| (strike.attempt, strike.task)).collect();
        worker.sick = Some(Sick { sickness: sickness.clone(), trial: Trial::At(at), tried: None });
        self.doubt(id);
        self.infirmary.sick.insert(id);
        self.infirmary.list(id, Trial::At(at));
        self.touch(id);
        out.record(Record::WorkerHealth { worker: id, sickness: Some(sickness) });
        for (attempt, task) in strikes {
            self.excuse(id, attempt, task, out);
        }
        self.recall_misplaced(id, out);
    }

    /// What speaks against the worker, where it is enough to call it sick.
    fn grounds(&self, id: WorkerId) -> Option<String> {
        let strikes = &self.workers.get(&id)?.strikes;
        let standing =
            || strikes.iter().filter(|strike| !strike.shared && self.others_deliver(id, strike.step()));
        let failed: Vec<(&Strike, &str)> = standing()
            .filter_map(|strike| match &strike.how {
                How::Failed(message) => Some((strike, message.as_str())),
                How::Down { .. } => None,
            })
            .collect();
        let tasks: BTreeSet<TaskId> = failed.iter().map(|(strike, _)| strike.task).collect();
        if failed.len() >= FAILURES
            && tasks.len() >= TASKS
            && let Some((_, last)) = failed.last()
        {
            return Some(format!(
                "it failed {} times in a row where others render; the last: {last}",
                failed.len()
            ));
        }
        let downfall = |strike: &Strike| match strike.how {
            How::Down { downfall } => Some(downfall),
            How::Failed(_) => None,
        };
        let down: BTreeSet<u64> = standing().filter_map(downfall).collect();
        let victims = |of: u64| -> BTreeSet<TaskId> {
            strikes.iter().filter(|strike| downfall(strike) == Some(of)).map(|strike| strike.task).collect()
        };
        let last = victims(*down.last()?);
        // With the same task twice, it may be the task.
        let apart = down.iter().rev().skip(1).any(|earlier| victims(*earlier).is_disjoint(&last));
        apart.then(|| {
            format!("it went down {} times, with other frames each time, where others render", down.len())
        })
    }

    fn others_deliver(&self, id: WorkerId, (job, step): StepId) -> bool {
        let step = self.jobs.get(&job).and_then(|job| job.steps.get(usize::from(step.0)));
        step.is_some_and(|step| step.delivered_by.iter().any(|by| *by != id))
    }

    /// Whether others are there to do what went wrong on the worker.
    fn is_dispensable(&self, id: WorkerId) -> bool {
        let strikes = self.workers.get(&id).map_or(&[][..], |worker| &worker.strikes);
        let needs: Vec<Need> =
            strikes.iter().filter_map(|strike| self.step(strike.task)).map(|step| step.need).collect();
        needs.iter().all(|need| self.willing(*need) > usize::from(self.is_willing(id, *need)))
    }

    /// The worker has delivered: it is well. Others that fail in this step may be seen to be sick.
    pub(crate) fn delivered_on(&mut self, now: Moment, id: WorkerId, step: StepId, out: &mut impl Outbox) {
        self.clear_strikes(id);
        self.recover(id, out);
        let (job, index) = step;
        if let Some(found) = self.jobs.get_mut(&job).and_then(|job| job.steps.get_mut(usize::from(index.0))) {
            found.firsts.close();
            found.delivered_by.insert(id);
        }
        let from = (step, WorkerId::MIN);
        let doubtful = self.infirmary.doubtful.range(from..).take_while(|(of, _)| *of == step);
        let doubtful: Vec<WorkerId> = doubtful.map(|(_, worker)| *worker).collect();
        for worker in doubtful {
            self.assess(now, worker, out);
        }
    }

    /// The task is delivered after all: whatever befell it was the fault of the workers.
    pub(crate) fn was_no_fault_of(&mut self, task: TaskId, trouble: &Trouble) {
        for id in trouble.workers() {
            let strikes = self.workers.get_mut(&id).into_iter().flat_map(|worker| &mut worker.strikes);
            strikes.filter(|strike| strike.task == task).for_each(|strike| strike.shared = false);
        }
    }

    /// Whether something went wrong on the worker since it last delivered.
    pub(crate) fn is_struck(&self, id: WorkerId) -> bool {
        self.infirmary.struck.contains(&id)
    }

    /// Whether a worker on which nothing has gone wrong lately may take the task: it tells best what is to blame.
    pub(crate) fn can_go_to_the_unstruck(&self, need: Need, trouble: &Trouble) -> bool {
        let befell: BTreeSet<WorkerId> = trouble.workers().filter(|id| !self.is_struck(*id)).collect();
        let befell = befell.iter().filter(|id| self.is_willing(**id, need)).count();
        self.willing(need) > self.willing_and_struck(need) + befell
    }

    /// How many workers that take work and fit the need have strikes.
    fn willing_and_struck(&self, need: Need) -> usize {
        let counted = self.needs[need].struck as usize;
        // Those that changed since they were counted.
        self.indexes.dirty.iter().filter_map(|id| self.workers.get_key_value(id)).fold(
            counted,
            |sum, (id, worker)| {
                let was = worker.standpoints.get(need.0).is_some_and(|standpoint| standpoint.struck);
                sum + usize::from(self.is_struck(*id) && self.is_willing(*id, need)) - usize::from(was)
            },
        )
    }

    fn clear_strikes(&mut self, id: WorkerId) {
        if !self.is_struck(id) {
            return;
        }
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.strikes.clear();
        }
        self.set_struck(id, false);
        self.doubt(id);
    }

    /// The worker went down with the attempt and has it still: that was no downfall.
    pub(crate) fn withdraw_strike(&mut self, id: WorkerId, attempt: AttemptId, out: &mut impl Outbox) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let before = worker.strikes.len();
        worker.strikes.retain(|strike| strike.attempt != attempt);
        if worker.strikes.len() != before {
            let struck = !worker.strikes.is_empty();
            self.set_struck(id, struck);
            self.doubt(id);
            if self.infirmary.sick.contains(&id) && self.grounds(id).is_none() {
                self.recover(id, out);
            }
        }
    }

    fn recover(&mut self, id: WorkerId, out: &mut impl Outbox) {
        if !self.end_sickness(id) {
            return;
        }
        self.doubt(id);
        self.touch(id);
        out.record(Record::WorkerHealth { worker: id, sickness: None });
    }

    /// Ends the worker's sickness; whether it was sick.
    fn end_sickness(&mut self, id: WorkerId) -> bool {
        let sick = self.workers.get_mut(&id).and_then(|worker| worker.sick.take());
        if let Some(sick) = sick {
            self.infirmary.unlist(id, sick.trial);
        }
        self.infirmary.sick.remove(&id)
    }

    /// Of a worker that is about to be forgotten.
    pub(crate) fn forget_health(&mut self, id: WorkerId) {
        self.clear_strikes(id);
        self.end_sickness(id);
        self.infirmary.set_doubts(id, BTreeSet::new());
    }

    fn set_trial(&mut self, id: WorkerId, trial: Trial) {
        let Some(sick) = self.workers.get_mut(&id).and_then(|worker| worker.sick.as_mut()) else { return };
        let before = std::mem::replace(&mut sick.trial, trial);
        self.infirmary.unlist(id, before);
        self.infirmary.list(id, trial);
    }

    /// The attempt went wrong: where it was the worker's trial, the next is later.
    pub(crate) fn setback(&mut self, now: Moment, id: WorkerId, attempt: AttemptId, out: &mut impl Outbox) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let last = worker.strikes.last().map(|strike| &strike.how);
        let again = match last {
            Some(How::Failed(message)) => Some(format!("it failed again when it was tried: {message}")),
            Some(How::Down { .. }) => Some("it went down again when it was tried".to_owned()),
            None => None,
        };
        let Some(sick) = worker.sick.as_mut().filter(|sick| sick.tried == Some(attempt)) else { return };
        sick.tried = None;
        sick.sickness.trials = sick.sickness.trials.saturating_add(1);
        if let Some(again) = again {
            sick.sickness.why = again;
        }
        let sickness = sick.sickness.clone();
        self.set_trial(id, Trial::At(now.after(sickness.pause_ms())));
        out.record(Record::WorkerHealth { worker: id, sickness: Some(sickness) });
    }

    /// The worker is back: if it went down, its pause begins now.
    pub(crate) fn convalesce(&mut self, now: Moment, id: WorkerId) {
        let Some(worker) = self.workers.get(&id) else { return };
        let went_down = worker.strikes.last().is_some_and(|strike| matches!(strike.how, How::Down { .. }));
        if let Some(Sick { sickness, trial: Trial::At(_), .. }) = worker.sick.as_ref().filter(|_| went_down) {
            let at = now.after(sickness.pause_ms());
            self.set_trial(id, Trial::At(at));
        }
    }

    /// Pauses that are over by now end.
    pub(crate) fn end_convalescences(&mut self, now: Moment) {
        while let Some(&(at, id)) = self.infirmary.trials.first().filter(|(at, _)| *at <= now) {
            self.infirmary.unlist(id, Trial::At(at));
            self.set_trial(id, Trial::Due);
        }
    }

    /// The attempt is off its slot. What ends without a verdict on the worker is tried with another.
    pub(crate) fn trial_is_over(&mut self, id: WorkerId, attempt: AttemptId) {
        if self.workers.get(&id).is_some_and(|worker| worker.is_trial(attempt)) {
            self.set_trial(id, Trial::Due);
        }
    }

    /// One task for each sick worker whose pause is over and that has nothing else.
    pub(crate) fn give_trials(&mut self, given: &mut Given, out: &mut impl Outbox) {
        let due: Vec<WorkerId> = self.infirmary.due.iter().copied().collect();
        for id in due {
            let Some(worker) = self.workers.get(&id) else { continue };
            let here = matches!(worker.presence, Presence::Here { .. }) && worker.is_to_work();
            if !here || worker.live().next().is_some() {
                continue;
            }
            let Some(slot) = worker.vacant_slots().next().map(|(slot, _)| slot) else { continue };
            let Some((step, index)) = self.trial_task(id, slot) else { continue };
            let attempt = AttemptId { epoch: self.epoch, counter: self.next_attempt };
            self.give(task_of(step, index), (id, slot), given, out);
            self.set_trial(id, Trial::Runs(attempt));
            if let Some(sick) = self.workers.get_mut(&id).and_then(|worker| worker.sick.as_mut()) {
                sick.tried = Some(attempt);
            }
        }
    }

    /// The task that tells soonest whether the worker is well: of a step that others deliver, with short frames.
    fn trial_task(&mut self, id: WorkerId, slot: SlotIndex) -> Option<(StepId, TaskIndex)> {
        let worker = self.workers.get(&id)?;
        let mut steps: Vec<(bool, u64, StepId)> = Vec::new();
        for need in self.needs.all().filter(|need| worker.fits(*need) && self.lacking_limit(*need).is_none())
        {
            let ready = &self.needs[need].ready;
            for priority in ready.priorities() {
                let open = |account: &AccountId| !self.accounts.is_full(*account);
                for account in ready.accounts(priority).filter(open) {
                    let (shelf, mut last) = (Shelf { priority, account }, None);
                    while let Some(step) = ready.after(shelf, last)
                        && steps.len() < LOOK_AT
                    {
                        last = Some(step);
                        let found =
                            self.jobs.get(&step.0).and_then(|job| job.steps.get(usize::from(step.1.0)));
                        let frame = found.and_then(|found| {
                            let first = found.waiting.first().map(|spot| spot.index);
                            self.frame_ms(found, first.unwrap_or_default(), id, None)
                        });
                        let unproven = !self.others_deliver(id, step);
                        steps.push((unproven, frame.unwrap_or(UNMEASURED_MS), step));
                    }
                }
            }
        }
        steps.sort_unstable();
        steps.into_iter().find_map(|(_, _, step)| match self.takes(id, slot, step) {
            Takes::Task(index) => Some((step, index)),
            Takes::WhenThereIsRoom | Takes::Nothing => None,
        })
    }
}

impl Worker {
    /// The steps in which what others deliver may show that it is sick: it has several strikes, and is not called so.
    pub fn doubts(&self) -> impl Iterator<Item = StepId> {
        let doubtful = self.strikes.len() >= 2 && self.sick.is_none();
        self.strikes.iter().filter(move |_| doubtful).map(Strike::step)
    }

    /// Whether the attempt is what a sick worker is tried with.
    pub fn is_trial(&self, attempt: AttemptId) -> bool {
        self.sick.as_ref().is_some_and(|sick| sick.trial == Trial::Runs(attempt))
    }
}
