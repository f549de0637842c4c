//! The invariants of the core.

use std::collections::{BTreeMap, BTreeSet};

use kiln_types::{AttemptId, JobId, SessionKey, WorkerId};

use crate::{
    Core,
    ids::{MemberId, RequirementId, StepRef},
    state::{AttemptPhase, Job, Presence, Probe, Step, Worker, slot_refs},
};

impl Core {
    /// Checks the whole state and panics where it contradicts itself. For tests: the cost grows with the farm.
    pub fn sanity_check(&self) {
        let jobs = self.state.jobs();
        jobs.iter().for_each(|(id, job)| self.check_job(*id, job));
        let active: BTreeSet<JobId> =
            jobs.iter().filter(|(_, job)| !job.has_ended()).map(|(id, _)| *id).collect();
        assert_eq!(self.indexes.active, active, "the list of active jobs is wrong");
        self.state.workers().iter().for_each(|(id, worker)| self.check_worker(*id, worker));
        self.check_attempts();
        self.check_requirements();
        self.check_job_indexes();
        self.check_limits();
        self.check_held();
        self.check_quarantine();
    }

    /// Checks that requirements, sessions and accounts are those of the jobs.
    fn check_held(&self) {
        let mut steps: BTreeMap<RequirementId, u32> = BTreeMap::new();
        let mut members: BTreeMap<MemberId, u32> = BTreeMap::new();
        let mut sessions: BTreeMap<SessionKey, u32> = BTreeMap::new();
        for job in self.state.jobs().values() {
            *members.entry(job.member).or_default() += 1;
            for step in &job.steps {
                *steps.entry(step.requirement).or_default() += 1;
                step.plan.all_sessions().for_each(|session| *sessions.entry(session).or_default() += 1);
            }
        }
        assert_eq!(self.indexes.sessions, sessions, "sessions do not match the steps");
        let had = self.indexes.had.keys().all(|session| sessions.contains_key(session));
        assert!(had, "workers are kept for a session that no step has");
        self.requirements.check(&steps);
        self.fair_share.check(&members);
    }

    fn check_quarantine(&self) {
        let workers = self.state.workers();
        let quarantined: BTreeSet<WorkerId> =
            workers.iter().filter(|(_, worker)| worker.quarantined.is_some()).map(|(id, _)| *id).collect();
        assert_eq!(self.quarantine.quarantined, quarantined, "the list of quarantined workers is wrong");
        for (id, worker) in workers {
            let has_incidents = !worker.incidents.is_empty();
            assert_eq!(
                self.has_incidents(*id),
                has_incidents,
                "worker {id} is listed wrongly as with incidents"
            );
            let Some(known) = &worker.quarantined else { continue };
            if let Probe::Runs(attempt) = known.probe {
                let has_it = worker.live().any(|live| live == attempt);
                assert!(has_it, "worker {id} does not have its probe");
            }
            self.quarantine.check(*id, known.probe);
        }
        let suspected = workers.iter().flat_map(|(id, worker)| worker.suspected_in().map(|step| (step, *id)));
        self.quarantine.check_all(&suspected.collect());
        let runs = self.state.attempts.iter().filter(|(_, attempt)| attempt.phase.is_running());
        self.time_limits.check(&runs.map(|(id, _)| *id).collect());
    }

    fn check_requirements(&self) {
        let workers = self.state.workers();
        for requirement in self.requirements.all() {
            let entry = &self.requirements[requirement];
            let matches = || workers.values().map(|worker| worker.matches[requirement.0]);
            let slots: u32 = matches().map(|known| u32::from(known.slots)).sum();
            assert_eq!(entry.slots, slots, "{requirement:?} miscounts its slots");
            let counted = matches().filter(|known| known.slots > 0).count() as u32;
            assert_eq!(entry.workers, counted, "{requirement:?} miscounts its workers");
            let counted = matches().filter(|known| known.has_incidents).count() as u32;
            assert_eq!(entry.with_incidents, counted, "{requirement:?} miscounts its workers with incidents");
            for (rank, id) in &entry.vacant {
                let known = workers[id].matches[requirement.0];
                assert_eq!(known.vacant, Some(*rank), "{id} is not vacant for {requirement:?}");
            }
            let reserved = workers.iter().find(|(_, worker)| worker.reserved == Some(requirement));
            let reserved = reserved.map(|(id, _)| *id);
            assert_eq!(entry.reserved, reserved, "{requirement:?} has a reserved worker that does not know");
        }
        // Workers that did not change since the last turn are where the indexes say.
        for (id, worker) in workers.iter().filter(|(id, _)| !self.state.changed_workers.contains(id)) {
            let has_vacant = worker.takes_work() && worker.vacant_slots().next().is_some();
            for requirement in self.requirements.all() {
                let known = worker.matches[requirement.0];
                let may_be_listed = known.vacant.is_none() || has_vacant && worker.fits(requirement);
                assert!(may_be_listed, "worker {id} is listed as vacant for {requirement:?}");
                let has = known.slots > 0 && !worker.incidents.is_empty();
                assert_eq!(known.has_incidents, has, "worker {id} has incidents for {requirement:?}");
            }
        }
    }

    fn check_job_indexes(&self) {
        let jobs = self.state.jobs().iter().filter(|(id, _)| !self.state.changed_jobs.contains(id));
        for (id, job) in jobs {
            assert_eq!(job.is_counted, !job.has_ended(), "job {id} is counted wrongly");
            for (place, step) in job.steps.iter().enumerate() {
                let is_ready = job.is_open() && job.has_ready_tasks(place);
                assert_eq!(step.queued.is_some(), is_ready, "step {id}.{place} is queued wrongly");
                if let Some((requirement, key)) = step.queued {
                    let has = self.requirements[requirement].ready.contains(key, StepRef::new(*id, place));
                    assert!(has, "step {id}.{place} is not in its queue");
                }
            }
        }
    }

    fn check_limits(&self) {
        for (name, limit) in &self.limits {
            let slots = self.state.workers().values().flat_map(|worker| worker.slots());
            let held: u32 = slots.clone().filter_map(|slot| slot.limits.get(name)).sum();
            assert_eq!(limit.used, held, "the limit {name} is miscounted");
            let of = |step: &StepRef| {
                let limits = self.state.find_step(*step).map(|step| &step.plan.requires.limits);
                limits.and_then(|limits| limits.get(name)).copied().unwrap_or(0)
            };
            let at_work: u32 = slots.flat_map(|slot| &slot.counted).map(of).sum();
            assert!(held >= at_work, "{at_work} of the limit {name} are in use, and {held} are held");
        }
    }

    fn check_job(&self, id: JobId, job: &Job) {
        for (place, step) in job.steps.iter().enumerate() {
            self.check_step(StepRef::new(id, place), job, step);
        }
        self.check_hold(id, job);
        if job.is_device_open() {
            let has_begun = |step: &Step| {
                step.plan.device.is_some() && (!step.tasks.done().is_empty() || step.tasks.live_len() > 0)
            };
            let expired = self.state.attempts.iter().find(|(_, attempt)| {
                attempt.task.job == id && self.state.step(attempt.task).plan.device.is_some()
            });
            assert!(!job.steps.iter().any(has_begun), "job {id} has begun without a device");
            assert!(expired.is_none(), "job {id} has no device, and {expired:?} may deliver");
        }
        if job.has_ended() {
            let goes_on = |step: &Step| step.tasks.counts().waiting + step.tasks.live_len() > 0;
            let goes_on = job.steps.iter().any(goes_on);
            assert!(!goes_on, "job {id} has ended and has tasks that wait or run");
        } else if !self.indexes.unsettled.contains(&id) {
            assert_eq!(job.end(), None, "job {id} should have ended");
            for (place, step) in job.steps.iter().enumerate() {
                assert_eq!(step.state, job.step_state(place), "step {id}.{place} changed unrecorded");
            }
        }
        let is_complete = job.steps.iter().all(|step| step.tasks.are_all_done());
        assert!(!job.is_completed() || is_complete, "job {id} is completed with open tasks");
    }

    fn check_step(&self, of: StepRef, job: &Job, step: &Step) {
        let name = format!("{}.{}", of.job, of.step);
        step.tasks.check(|attempt| self.state.attempt(attempt).phase.has_begun());
        assert_eq!(step.tasks.count(), step.plan.count, "step {name} has two counts");
        let streams = step.tasks.streaming().len() > 0;
        assert!(!streams || step.may_stream && !job.has_ended(), "step {name} streams and must not");
        let second = step.tasks.live().filter_map(|(task, _)| Some((task, step.tasks.second_attempt(task)?)));
        for (task, attempt) in step.tasks.live().chain(second) {
            let known = self.state.attempt(attempt);
            assert!(known.phase.is_live(), "{attempt} is expired, and its task has it as live");
            assert_eq!(known.task, of.task(task), "{attempt} is of another task");
            assert_eq!(known.generation, step.tasks.generation(task), "{attempt} is of an old generation");
            assert!(job.is_unlocked(of.place()), "{attempt} runs before the steps that it waits for");
        }
        if let Some(ready) = job.tasks_with_frames(of.place()) {
            let tasks = &step.tasks;
            assert!(
                tasks.blocked().intersection(&ready).is_empty(),
                "step {name} is blocked by frames that are done"
            );
            let mut begun = tasks.waiting();
            begun.merge(tasks.done());
            begun.extend(tasks.live().map(|(task, _)| task));
            let streams = tasks.streaming();
            begun.extend(streams.with_frames().map(|(task, _)| task));
            assert!(
                ready.contains_all(&begun),
                "step {name} has begun frames before those that they wait for"
            );
            let lacking = streams.iter().find(|(task, stream)| !stream.has_frames && ready.contains(*task));
            assert!(
                lacking.is_none(),
                "step {name} streams {lacking:?} without its frames, and they are done"
            );
        } else {
            assert!(step.tasks.blocked().is_empty(), "step {name} is blocked without a reason");
            let lacking = step.tasks.streaming().iter().any(|(_, stream)| !stream.has_frames);
            assert!(!lacking, "step {name} streams without frames that it does not need");
        }
        for (task, history) in step.tasks.histories() {
            let [failures, losses] = [self.config.max_failures, self.config.max_losses].map(usize::from);
            history.check(&format!("{name}.{task}"), failures, losses, step.tasks.is_live(task));
            for expired in history.expired() {
                let known = self.state.attempt(*expired);
                assert!(!known.phase.is_live(), "{expired} is live and listed as expired");
                let current = step.tasks.generation(task);
                assert_eq!(known.generation, current, "{expired} can no longer deliver");
            }
        }
        if step.plan.device.is_some() {
            let mut pinned = step.plan.clone();
            pinned.set_device(job.pinned.as_ref());
            assert_eq!(pinned, step.plan, "step {name} does not require the device of its job");
        }
    }

    fn check_worker(&self, id: WorkerId, worker: &Worker) {
        assert_eq!(worker.matches.len(), self.requirements.len(), "worker {id} lacks matches");
        assert!(worker.slots().len() >= usize::from(worker.offer.slots), "worker {id} lacks slots");
        let mut seen: BTreeSet<AttemptId> = BTreeSet::new();
        for (of, slot) in slot_refs(id, worker) {
            for (position, attempt) in slot.queue().iter().enumerate() {
                match self.state.attempt(*attempt).phase {
                    AttemptPhase::Running { .. } => assert_eq!(position, 0, "{attempt} runs behind another"),
                    AttemptPhase::Assigned { .. } => {}
                    other => panic!("{attempt} is queued and {other:?}"),
                }
            }
            for attempt in slot.delivering() {
                let phase = self.state.attempt(*attempt).phase;
                assert!(matches!(phase, AttemptPhase::Delivering { .. }), "{attempt} is {phase:?}");
            }
            for attempt in slot.live() {
                assert!(seen.insert(attempt), "{attempt} is on two slots");
                assert_eq!(self.state.attempt(attempt).place(), Some(of), "{attempt} is another slot's");
                assert!(!slot.closing().contains(&attempt), "{attempt} is wanted and revoked");
            }
        }
        for attempt in worker.streams.live() {
            let known = self.state.attempt(attempt);
            assert!(known.phase.is_streaming() && known.worker == id, "{attempt} is no stream of {id}");
            assert!(seen.insert(attempt), "{attempt} streams and is on a slot");
        }
        assert_eq!(
            self.state.streaming().contains(&id),
            !worker.streams.is_empty(),
            "{id} is listed wrongly as streaming"
        );
        if matches!(worker.presence, Presence::Silent | Presence::Offline) {
            assert!(seen.is_empty(), "worker {id} has no lease and live attempts");
        }
        if worker.presence == Presence::Offline {
            let waits = worker.slots().iter().any(|slot| !slot.closing().is_empty());
            assert!(!waits && worker.streams.is_empty(), "worker {id} is gone and waits for reports");
        }
    }

    fn check_attempts(&self) {
        self.state.attempts.check();
        for (id, attempt) in self.state.attempts.iter() {
            let tasks = &self.state.step(attempt.task).tasks;
            let index = attempt.task.index;
            if attempt.phase.is_live() {
                let streams = attempt.phase.is_streaming();
                let of_task = [tasks.any_attempt(index), tasks.second_attempt(index)];
                assert!(of_task.contains(&Some(*id)), "{id} is live, and its task does not have it");
                assert_eq!(
                    streams,
                    tasks.streaming().get(index).is_some(),
                    "{id} and its task disagree on streaming"
                );
                let worker = self.state.worker(attempt.worker);
                let is_there = attempt.place().map_or_else(
                    || worker.streams.contains(*id),
                    |of| self.state.slot(of).live().any(|live| live == *id),
                );
                assert!(is_there, "{id} is live, and its worker does not have it");
            } else {
                let known = tasks.history(index).is_some_and(|history| history.expired().contains(id));
                assert!(known, "{id} is expired and forgotten");
            }
            assert!(self.was_issued(*id), "{id} was never dispatched");
        }
    }
}
