//! Every invariant of the core in one place.

use std::collections::{BTreeMap, BTreeSet};

use kiln_types::{AttemptId, JobId, SessionKey, TaskId, WorkerId};

use crate::{
    Core, IndexSet,
    accounts::AccountId,
    core::step_index,
    health::Trial,
    job::{Fault, Job, JobEnd, JobPhase, Place, Step, Trouble},
    needs::Need,
    worker::{AttemptPhase, Presence, Worker},
};

impl Core {
    /// Walks everything and panics, naming what is wrong, where the core contradicts itself. For tests: it
    /// costs as much as the farm is large.
    pub fn sanity_check(&self) {
        for (id, job) in &self.jobs {
            self.check_job(*id, job);
        }
        let active: BTreeSet<JobId> =
            self.jobs.iter().filter(|(_, job)| !job.has_ended()).map(|(id, _)| *id).collect();
        assert_eq!(self.active, active, "the list of active jobs is wrong");
        for (id, worker) in &self.workers {
            self.check_worker(*id, worker);
        }
        self.check_attempts();
        self.check_indexes();
        self.check_held();
        self.check_health();
    }

    /// Needs, sessions and accounts are those of the jobs.
    fn check_held(&self) {
        let mut steps: BTreeMap<Need, u32> = BTreeMap::new();
        let mut jobs: BTreeMap<AccountId, u32> = BTreeMap::new();
        let mut sessions: BTreeMap<SessionKey, u32> = BTreeMap::new();
        for job in self.jobs.values() {
            *jobs.entry(job.account).or_default() += 1;
            for step in &job.steps {
                *steps.entry(step.need).or_default() += 1;
                step.plan.all_sessions().for_each(|session| *sessions.entry(session).or_default() += 1);
            }
        }
        assert_eq!(self.indexes.sessions, sessions, "sessions are kept for other steps than there are");
        let had = self.indexes.had.keys().all(|session| sessions.contains_key(session));
        assert!(had, "who had a session is remembered, and no step has it");
        self.needs.check(&steps);
        self.accounts.check(&jobs);
    }

    /// Who is sick, and what runs, is what is thought of.
    fn check_health(&self) {
        let sick: BTreeSet<WorkerId> =
            self.workers.iter().filter(|(_, worker)| worker.sick.is_some()).map(|(id, _)| *id).collect();
        assert_eq!(self.infirmary.sick, sick, "the list of the sick is wrong");
        for (id, worker) in &self.workers {
            assert_eq!(
                self.is_struck(*id),
                !worker.strikes.is_empty(),
                "worker {id} is thought struck wrongly"
            );
            let Some(sick) = &worker.sick else { continue };
            if let Trial::Runs(attempt) = sick.trial {
                assert!(
                    worker.live().any(|live| live == attempt),
                    "worker {id} is tried with what it has not"
                );
            }
            self.infirmary.check(*id, sick.trial);
        }
        self.infirmary.check_trials();
        let doubts = self.workers.iter().flat_map(|(id, worker)| worker.doubts().map(|step| (step, *id)));
        self.infirmary.check_doubts(&doubts.collect());
        let runs = self.attempts.iter().filter(|(_, attempt)| attempt.runs()).map(|(id, _)| *id);
        let (runs, watched) = (runs.collect::<BTreeSet<_>>(), self.watch.attempts().collect::<BTreeSet<_>>());
        assert_eq!(runs, watched, "others run than are watched");
        self.watch.check();
    }

    /// What was not touched since the last turn is where the indexes say.
    fn check_indexes(&self) {
        for need in self.needs.all() {
            let state = &self.needs[need];
            let counted = self.workers.values().map(|worker| u32::from(worker.standpoints[need.0].slots));
            assert_eq!(state.slots, counted.sum::<u32>(), "{need:?} miscounts its slots");
            let willing = self.workers.values().filter(|worker| worker.standpoints[need.0].slots > 0).count();
            assert_eq!(state.willing as usize, willing, "{need:?} miscounts its workers");
            let struck = self.workers.values().filter(|worker| worker.standpoints[need.0].struck).count();
            assert_eq!(
                state.struck as usize, struck,
                "{need:?} miscounts its workers on which something went wrong"
            );
            for (rank, id) in &state.vacant {
                assert_eq!(
                    self.workers[id].standpoints[need.0].vacant,
                    Some(*rank),
                    "{id} is not vacant for {need:?}"
                );
            }
            let reserved =
                self.workers.iter().find(|(_, worker)| worker.reserved == Some(need)).map(|(id, _)| *id);
            assert_eq!(state.reserved, reserved, "{need:?} has a reserved worker that does not know");
        }
        for (id, worker) in self.workers.iter().filter(|(id, _)| !self.indexes.dirty.contains(id)) {
            for need in self.needs.all() {
                let vacant = worker.standpoints[need.0].vacant.is_some();
                let takes =
                    worker.takes_work() && worker.fits(need) && worker.vacant_slots().next().is_some();
                assert!(!vacant || takes, "worker {id} is thought vacant for {need:?}");
                let standpoint = worker.standpoints[need.0];
                let struck = standpoint.slots > 0 && !worker.strikes.is_empty();
                assert_eq!(standpoint.struck, struck, "worker {id} is thought struck wrongly for {need:?}");
            }
        }
        for (id, job) in self.jobs.iter().filter(|(id, _)| !self.indexes.changed.contains(id)) {
            assert_eq!(job.entered, !job.has_ended(), "job {id} is not counted as it stands");
            for (index, step) in job.steps.iter().enumerate() {
                let ready = job.phase == JobPhase::Active && job.released && job.could_run(index);
                assert_eq!(step.shelf.is_some(), ready, "step {id}.{index} is filed wrongly");
                if let Some((need, shelf)) = step.shelf {
                    let place = (*id, step_index(index));
                    assert!(
                        self.needs[need].ready.contains(shelf, place),
                        "step {id}.{index} is not on its shelf"
                    );
                }
            }
        }
        for (name, limit) in &self.limits {
            let slots = self.workers.values().flat_map(|worker| &worker.slots);
            let held = slots.clone().filter_map(|slot| slot.limits.get(name)).sum::<u32>();
            assert_eq!(limit.used, held, "the limit {name} is miscounted");
            let of = |step: &crate::ready::StepId| {
                let limits = self.step_of(*step).map(|step| &step.plan.requires.limits);
                limits.and_then(|limits| limits.get(name)).copied().unwrap_or(0)
            };
            let at_work = slots.flat_map(|slot| &slot.counted).map(of).sum::<u32>();
            assert!(held >= at_work, "{at_work} of the limit {name} are at work, and {held} are held");
        }
    }

    fn check_job(&self, id: JobId, job: &Job) {
        for (index, step) in job.steps.iter().enumerate() {
            check_sets(step, &format!("step {id}.{index}"));
            let running =
                step.live.values().filter(|attempt| self.attempts[attempt].phase.has_begun()).count();
            assert_eq!(step.running as usize, running, "step {id}.{index} miscounts its running tasks");
            for task in step.twins.keys() {
                assert!(
                    step.live.contains_key(task),
                    "{id}.{index}.{task} has a second attempt and no first"
                );
            }
            for (&task, attempt) in step.live.iter().chain(&step.twins) {
                let known = &self.attempts[attempt];
                assert!(known.phase.is_live(), "{attempt} is late and its task thinks it live");
                let place = TaskId { job: id, step: step_index(index), index: task };
                assert_eq!(known.task, place, "{attempt} is of another task");
                assert_eq!(known.generation, step.generations.get(task), "{attempt} is of an old generation");
                assert!(job.is_unlocked(index), "{attempt} runs before the steps that it waits for");
            }
            for (task, trouble) in &step.troubles {
                assert!(!trouble.is_over(), "nothing is the matter with {id}.{index}.{task}");
                assert_ne!(
                    step.place(*task),
                    Some(Place::Done),
                    "{id}.{index}.{task} is done and in trouble"
                );
                for late in &trouble.late {
                    assert!(!self.attempts[late].phase.is_live(), "{late} is live and thought late");
                    let current = step.generations.get(*task);
                    assert_eq!(self.attempts[late].generation, current, "{late} cannot deliver any more");
                }
                let failures = trouble.failed_on.len();
                // While one attempt is out, the task is not given up for what befell its twin.
                let is_out = step.live.contains_key(task);
                let may_go_on = trouble.spared || failures < usize::from(self.config.max_failures);
                assert!(may_go_on || is_out, "should have failed");
                let may_lapse =
                    trouble.spared || trouble.lapsed_on.len() < usize::from(self.config.max_lapses);
                assert!(may_lapse || is_out, "should have failed");
                let counted = |of: Fault| trouble.counted.iter().filter(|(_, fault)| *fault == of).count();
                assert!(counted(Fault::Failed) <= failures, "{id}.{index}.{task} forgives too much");
                assert!(
                    counted(Fault::Lapsed) <= trouble.lapsed_on.len(),
                    "{id}.{index}.{task} forgives too much"
                );
            }
        }
        if job.is_open() {
            let began = job.steps.iter().any(|step| !step.done.is_empty() || !step.live.is_empty());
            let late = self.attempts.iter().find(|(_, attempt)| attempt.task.job == id);
            assert!(!began, "job {id} has begun on no device");
            assert!(late.is_none(), "job {id} is on no device, and may be delivered by {late:?}");
        }
        for (index, step) in job.steps.iter().enumerate().filter(|(_, step)| step.plan.device.is_some()) {
            let mut pinned = step.plan.clone();
            pinned.set_device(job.pinned.as_ref());
            assert_eq!(pinned, step.plan, "step {id}.{index} does not require the device of its job");
        }
        if job.has_ended() {
            let left: u32 = job.steps.iter().map(|step| step.waiting_len() + step.live.len() as u32).sum();
            assert_eq!(left, 0, "job {id} has ended and has tasks that wait or run");
        } else if !self.unsettled.contains(&id) {
            assert_eq!(job.end(), None, "job {id} should have ended");
            for (index, step) in job.steps.iter().enumerate() {
                assert_eq!(step.state, job.step_state(index), "step {id}.{index} changed unrecorded");
            }
        }
        let complete = job.steps.iter().all(Step::is_complete);
        let completed = job.phase == JobPhase::Ended(JobEnd::Completed);
        assert!(!completed || complete, "job {id} is called completed and is not");
    }

    fn check_worker(&self, id: WorkerId, worker: &Worker) {
        assert_eq!(worker.standpoints.len(), self.needs.len(), "worker {id} was not asked what it fits");
        assert!(worker.slots.len() >= usize::from(worker.offer.slots), "worker {id} lacks slots");
        let mut seen: BTreeSet<AttemptId> = BTreeSet::new();
        for (index, slot) in worker.slots.iter().enumerate() {
            for (position, attempt) in slot.queue.iter().enumerate() {
                let known = &self.attempts[attempt];
                match known.phase {
                    AttemptPhase::Running { .. } => assert_eq!(position, 0, "{attempt} runs behind another"),
                    AttemptPhase::Assigned { .. } => {}
                    other => panic!("{attempt} is queued and {other:?}"),
                }
            }
            for attempt in &slot.delivering {
                assert_eq!(self.attempts[attempt].phase, AttemptPhase::Delivering, "{attempt}");
            }
            for attempt in slot.live() {
                assert!(seen.insert(attempt), "{attempt} is on two slots");
                assert_eq!(self.attempts[&attempt].worker, id, "{attempt} is another worker's");
                assert_eq!(usize::from(self.attempts[&attempt].slot.0), index, "{attempt} is another slot's");
                assert!(!slot.closing.contains(&attempt), "{attempt} is wanted and revoked");
            }
        }
        if matches!(worker.presence, Presence::Silent | Presence::Offline) {
            assert!(seen.is_empty(), "worker {id} has no lease and live attempts");
        }
        if worker.presence == Presence::Offline {
            assert!(worker.slots.iter().all(|slot| slot.closing.is_empty()), "worker {id} is gone");
        }
    }

    fn check_attempts(&self) {
        self.attempts.check();
        for (id, attempt) in self.attempts.iter() {
            let step = self.step(attempt.task).unwrap_or_else(|| panic!("{id} is of no step"));
            let worker = self.workers.get(&attempt.worker).unwrap_or_else(|| panic!("{id} is nobody's"));
            let index = attempt.task.index;
            if attempt.phase.is_live() {
                let ours = step.live.get(&index) == Some(id) || step.is_twin(index, *id);
                assert!(ours, "{id} is live and its task does not know");
                let slot = &worker.slots[usize::from(attempt.slot.0)];
                assert!(slot.live().any(|live| live == *id), "{id} is live and on no slot");
            } else {
                assert!(step.troubles[&index].late.contains(id), "{id} is late and forgotten");
            }
            let issued = id.epoch < self.epoch || id.counter < self.next_attempt;
            assert!(issued, "{id} was never given out");
        }
    }
}

/// Every task is in exactly one place.
fn check_sets(step: &Step, name: &str) {
    let live: IndexSet = step.live.keys().copied().collect();
    let retry: IndexSet = step.retry.iter().map(|spot| spot.index).collect();
    let sets = [step.waiting.set(), &retry, &live, &step.done, &step.failed, &step.cancelled];
    let mut all = IndexSet::new();
    for set in sets {
        all.merge(set);
    }
    let total: u32 = sets.iter().map(|set| set.len()).sum();
    assert_eq!(total, step.plan.count, "{name}: a task is in two places, or in none");
    assert_eq!(all, IndexSet::first(step.plan.count), "{name}: a task is in no place");
    step.waiting.check(name);
    for spot in &step.retry {
        let index = &spot.index;
        assert_eq!(*spot, step.waiting.spot(*index), "{name}.{index} is to be retried and stands elsewhere");
        let failed = step.troubles.get(index).is_some_and(Trouble::is_blamed);
        assert!(failed, "{name}.{index} is to be retried and has not failed");
    }
    for index in step.waiting.set().iter().filter(|_| !step.troubles.is_empty()) {
        let failed = step.troubles.get(&index).is_some_and(Trouble::is_blamed);
        assert!(!failed, "{name}.{index} has failed and waits as if it had not");
    }
}
