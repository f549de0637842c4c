//! The consequences of failures for tasks: a task is tried again, fails, or its job stops.

use std::collections::BTreeSet;

use kiln_types::{AttemptId, AttemptState, Failure, FailureCause, TaskId, WorkerId};

use super::{
    classify::{FailureFacts, FailureOrigin, classify, has_failed_enough, is_at_limit, was_lost_enough},
    common::CommonFailure,
};
use crate::{
    Core, Moment, Outbox, Record, RevokeReason,
    state::{Attempt, AttemptPhase, FailureHistory, IncidentKind, JobEnd, TaskPlace},
};

/// All losses of workers count as failures alike.
const LOST_WITH_IT: &str = "takes workers down";

impl Core {
    /// Ends a live attempt that has failed.
    pub(crate) fn attempt_failed(
        &mut self,
        now: Moment,
        id: AttemptId,
        failure: Failure,
        out: &mut impl Outbox,
    ) {
        let Attempt { task, worker, .. } = *self.state.attempt(id);
        self.state.update_history(task, |history| history.note_failure(id, worker, failure.clone()));
        let Some(attempt) = self.close_attempt(id) else { return };
        let state = AttemptState::Failed;
        out.record(Record::AttemptClosed { attempt: id, task, state, failure: Some(failure.clone()) });
        self.begin_job(task.job, out);
        let mut facts = FailureFacts { cause: Some(failure.cause), ..FailureFacts::default() };
        let mut common = CommonFailure { tasks: vec![task], reason: failure.clone() };
        if !failure.cause.stops_job() {
            // A worker that no longer offers what the task requires will not get it again.
            let fits = self.state.worker(worker).fits(self.state.step(task).requirement);
            let cannot_do_it = failure.cause.is_worker_failure() && !fits;
            if cannot_do_it {
                self.forgive(worker, id, task, out);
            }
            if failure.cause == FailureCause::OutOfMemory {
                // A machine that is too small is not faulty.
                let too_much = self.note_out_of_memory(id, &attempt, out);
                let is_live = self.state.step(task).tasks.is_live(task.index);
                if let Some(too_much) = too_much.filter(|_| !is_live) {
                    facts.exceeds_all_workers = true;
                    common.reason = too_much;
                }
            } else if !cannot_do_it {
                let kind = IncidentKind::Failed(failure.message.clone());
                self.note_incidents(now, worker, &[(id, task)], &kind, out);
            }
            if !facts.exceeds_all_workers {
                facts.is_forgiven = self.is_forgiven(worker, id, task, out);
                if !facts.is_forgiven
                    && let Some(alike) = self.note_first_failure(task, &[worker], &failure, &failure.message)
                {
                    facts.failed_alike = true;
                    common = alike;
                }
            }
        }
        self.conclude(task, facts, common, out);
        self.settle(task.job, out);
    }

    /// Ends an attempt that is lost with its worker, or returned, if it is live. `counts`: against its task. `may_return`:
    /// the worker may come back with it, and it may still deliver.
    pub(crate) fn attempt_unfinished(
        &mut self,
        id: AttemptId,
        counts: bool,
        may_return: bool,
        out: &mut impl Outbox,
    ) {
        let known = self.state.find_attempt(id).filter(|known| known.phase.is_live());
        let Some(&Attempt { task, worker, .. }) = known else { return };
        if counts {
            self.state.update_history(task, |history| history.note_loss(id, worker));
        }
        let Some(attempt) = self.close_attempt(id) else { return };
        let state = if counts { AttemptState::Expired } else { AttemptState::Returned };
        out.record(Record::AttemptClosed { attempt: id, task, state, failure: None });
        if may_return {
            self.await_report(id, &attempt);
        }
        if may_return && !attempt.phase.is_streaming() {
            let phase = AttemptPhase::Expired { counted: counts, was: attempt.phase.held() };
            self.state.update_history(task, |history| history.keep_expired(id));
            self.state.attempts.insert(id, Attempt { phase, ..attempt });
        }
        let is_forgiven = counts && self.is_forgiven(worker, id, task, out);
        // A task whose limit was extended is not classified again because an attempt is returned.
        let history = self.state.step(task).tasks.history(task.index);
        if counts || !history.is_some_and(FailureHistory::is_extended) {
            let facts = FailureFacts { is_forgiven, ..FailureFacts::default() };
            let reason = Failure::new(FailureCause::Other, "failed on every attempt");
            self.conclude(task, facts, CommonFailure { tasks: vec![task], reason }, out);
        }
        self.settle(task.job, out);
    }

    /// Stops the job, fails the task or leaves it waiting, by the origin of its failure. `common`: the tasks that fail if
    /// the origin is the job, and the reason, also if the task fails alone.
    fn conclude(
        &mut self,
        task: TaskId,
        mut facts: FailureFacts,
        common: CommonFailure,
        out: &mut impl Outbox,
    ) {
        let none = FailureHistory::default();
        let step = self.state.step(task);
        let history = step.tasks.history(task.index).unwrap_or(&none);
        facts.has_untried_worker = history.has_mishaps()
            && self.has_other_worker(history.workers(), step.requirement, step.session());
        match classify(history, facts, &self.config) {
            FailureOrigin::Job => self.stop_job(common, out),
            // Another attempt goes on: its end decides.
            _ if step.tasks.is_live(task.index) => {}
            FailureOrigin::Task if facts.exceeds_all_workers => self.fail_task(task, common.reason, out),
            FailureOrigin::Task if has_failed_enough(history, facts, &self.config) => {
                let last = history.last_failure().filter(|_| facts.cause.is_none()).cloned();
                self.fail_task(task, last.unwrap_or(common.reason), out);
            }
            FailureOrigin::Task => {
                debug_assert!(was_lost_enough(history, facts, &self.config));
                self.fail_lost_task(task, out);
            }
            FailureOrigin::Worker | FailureOrigin::Unknown if is_at_limit(history, &self.config) => {
                self.state.update_history(task, FailureHistory::extend_limit);
            }
            FailureOrigin::Worker | FailureOrigin::Unknown => {}
        }
    }

    /// Fails a task with which too many workers were lost, or stops its job if that is a common failure.
    fn fail_lost_task(&mut self, task: TaskId, out: &mut impl Outbox) {
        let history = self.state.step(task).tasks.history(task.index);
        let workers = history.map(|history| history.lost_on().to_vec()).unwrap_or_default();
        let reason = Failure::new(FailureCause::Other, self.lost_with(&workers));
        self.state.update_history(task, |history| history.set_last_failure(reason.clone()));
        match self.note_first_failure(task, &workers, &reason, LOST_WITH_IT) {
            Some(common) => self.stop_job(common, out),
            None => self.fail_task(task, reason, out),
        }
    }

    /// Fails these tasks of a job, each with its own last failure, and the job with them.
    fn stop_job(&mut self, common: CommonFailure, out: &mut impl Outbox) {
        let CommonFailure { tasks, reason } = common;
        for &task in &tasks {
            let Some(place) = self.state.find_place(task) else { continue };
            let may_stream = place == TaskPlace::Blocked && self.state.step(task).may_stream;
            if may_stream
                || matches!(place, TaskPlace::Waiting | TaskPlace::Live(_) | TaskPlace::Streaming(_))
            {
                while let Some(live) = self.state.step(task).tasks.any_attempt(task.index) {
                    self.revoke(live, RevokeReason::Cancelled, out);
                }
                let history = self.state.step(task).tasks.history(task.index);
                let own = history.and_then(FailureHistory::last_failure).cloned();
                self.fail_task(task, own.unwrap_or_else(|| reason.clone()), out);
            }
        }
        if let Some(task) = tasks.first() {
            self.end_job(task.job, JobEnd::Failed, Some(reason), out);
        }
    }

    /// Fails a waiting task.
    fn fail_task(&mut self, task: TaskId, reason: Failure, out: &mut impl Outbox) {
        let tasks = &mut self.state.step_mut(task).tasks;
        let (history, generation) = (tasks.fail(task.index), tasks.generation(task.index));
        self.state.job_quietly(task.job).unblock_dependents(task.step, task.index);
        self.state.attempts.remove_all(history.expired().iter().copied());
        out.record(Record::TaskFailed { task, generation, reason });
    }

    /// Returns whether the attempt does not count against its task. A mishap on a quarantined worker does not, as long as
    /// another worker fits: without one, the task would be tried without end.
    fn is_forgiven(&mut self, worker: WorkerId, id: AttemptId, task: TaskId, out: &mut impl Outbox) -> bool {
        let is_quarantined = self.state.worker(worker).quarantined.is_some();
        if is_quarantined && self.workers_for(self.state.step(task).requirement) > 0 {
            self.forgive(worker, id, task, out);
        }
        !self.state.step(task).tasks.history(task.index).is_some_and(|history| history.counts(id))
    }

    /// Stops counting the attempt of this worker against its task.
    pub(super) fn forgive(&mut self, worker: WorkerId, id: AttemptId, task: TaskId, out: &mut impl Outbox) {
        let Some(step) = self.state.find_step_mut(task) else { return };
        if step.tasks.history(task.index).is_some_and(|history| history.counts(id)) {
            step.tasks.update_history(task.index, |history| history.forgive(id, worker));
            if let Some(attempt) = self.state.attempts.get_mut(id)
                && let AttemptPhase::Expired { counted, .. } = &mut attempt.phase
            {
                *counted = false;
            }
            out.record(Record::AttemptForgiven { attempt: id, task });
        }
    }

    /// The message of a task with which these workers were lost, one for each loss.
    fn lost_with(&self, workers: &[WorkerId]) -> String {
        let each: BTreeSet<WorkerId> = workers.iter().copied().collect();
        let names: Vec<String> = each.into_iter().map(|id| self.name_of(id)).collect();
        match names.as_slice() {
            [name] => format!("took the worker {name} down {} times", in_words(workers.len())),
            names => format!("took {} workers down: {}", in_words(names.len()), names.join(", ")),
        }
    }

    fn name_of(&self, worker: WorkerId) -> String {
        let name = self.state.find_worker(worker).map(|known| known.offer.name.clone());
        name.filter(|name| !name.is_empty()).unwrap_or_else(|| worker.to_string())
    }
}

fn in_words(number: usize) -> String {
    match number {
        2 => "two".to_owned(),
        3 => "three".to_owned(),
        number => number.to_string(),
    }
}
