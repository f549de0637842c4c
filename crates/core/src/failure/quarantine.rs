//! The quarantine of workers that fail, or are lost, where others deliver.
//!
//! Each failure or loss on a worker since its last delivery is an [`Incident`]. If the worker is the origin of them
//! ([`worker_reason`]) and others can do its work, it is quarantined, and its failures no longer count against the
//! tasks. The worker gets only a probe, a single task, after a pause that doubles with each failed probe. The first
//! delivery ends the quarantine; so does a failure of the same tasks on other workers.
//!
//! A quarantine survives a restart; incidents do not, and the pause begins again.

use std::collections::BTreeSet;

use kiln_types::{AttemptId, Quarantine, TaskId, WorkerId};

use super::classify::worker_reason;
use crate::{
    Core, Moment, Outbox, Record,
    ids::StepRef,
    state::{FailureHistory, Incident, IncidentKind, Match, Probe, Quarantined, probe_pause_ms},
    tuning::quarantine::{INCIDENTS, LOSSES_WITHIN_MS},
};

impl Core {
    /// Notes the failure or loss of these attempts on the worker, and assesses the worker.
    pub(super) fn note_incidents(
        &mut self,
        now: Moment,
        id: WorkerId,
        attempts: &[(AttemptId, TaskId)],
        kind: &IncidentKind,
        out: &mut impl Outbox,
    ) {
        for &(attempt, task) in attempts {
            let shared = self.share_incident(id, task, out);
            let incidents = &mut self.state.worker_mut(id).incidents;
            let is_failure = |old: &Incident| matches!(old.kind, IncidentKind::Failed(_));
            incidents.retain(|old| is_failure(old) || now.since(old.at) <= LOSSES_WITHIN_MS);
            if incidents.len() >= INCIDENTS {
                incidents.remove(0);
            }
            incidents.push(Incident { attempt, task, at: now, kind: kind.clone(), shared });
            self.list_incidents(id);
        }
        self.assess(now, id, out);
        attempts.iter().for_each(|(attempt, _)| self.note_failed_probe(now, id, *attempt, out));
    }

    /// Notes the loss of the worker with these attempts, which are still live, and assesses the worker.
    pub(crate) fn note_loss(&mut self, now: Moment, id: WorkerId, lost: &[AttemptId], out: &mut impl Outbox) {
        if !lost.is_empty() {
            self.quarantine.losses += 1;
            let kind = IncidentKind::Lost { loss: self.quarantine.losses };
            let lost: Vec<_> = lost.iter().map(|id| (*id, self.state.attempt(*id).task)).collect();
            self.note_incidents(now, id, &lost, &kind, out);
        }
    }

    /// Brings up to date whether the worker has incidents, also in the counts of requirements, and the steps in which it is
    /// suspected.
    fn list_incidents(&mut self, id: WorkerId) {
        let worker = self.state.worker_mut(id);
        self.quarantine.set_suspected(id, worker.suspected_in().collect());
        let has = !worker.incidents.is_empty();
        let set = &mut self.quarantine.with_incidents;
        let has_changed = if has { set.insert(id) } else { set.remove(&id) };
        if !has_changed {
            return;
        }
        for requirement in self.requirements.all() {
            let old = worker.matches[requirement.0];
            let new = Match { has_incidents: has && old.slots > 0, ..old };
            worker.matches[requirement.0] = new;
            self.requirements[requirement].recount(id, old, new);
        }
    }

    /// Returns whether the task has failed or been lost on other workers too. Their incidents with the task are shared from
    /// then on, which may end a quarantine.
    fn share_incident(&mut self, id: WorkerId, task: TaskId, out: &mut impl Outbox) -> bool {
        let history = self.state.step(task).tasks.history(task.index);
        let mut others: BTreeSet<WorkerId> = history.into_iter().flat_map(FailureHistory::workers).collect();
        others.remove(&id);
        let mut shared = !others.is_empty();
        others.extend(self.quarantine.quarantined.iter().filter(|known| **known != id));
        for other in others {
            if self.set_shared(other, task, true) {
                shared = true;
                self.end_unfounded_quarantine(other, out);
            }
        }
        shared
    }

    /// Sets whether the incidents of the worker with the task are shared; returns whether there are any.
    fn set_shared(&mut self, id: WorkerId, task: TaskId, shared: bool) -> bool {
        let incidents = self.state.find_worker_mut(id).into_iter().flat_map(|worker| &mut worker.incidents);
        let of_task = incidents.filter(|incident| incident.task == task);
        of_task.map(|incident| incident.shared = shared).count() > 0
    }

    /// Puts the worker in quarantine if it is the origin of its incidents, and others are there to do its work.
    fn assess(&mut self, now: Moment, id: WorkerId, out: &mut impl Outbox) {
        if self.quarantine.quarantined.contains(&id) {
            return;
        }
        let Some(reason) = self.quarantine_reason(id).filter(|_| self.is_dispensable(id)) else { return };
        let quarantine = Quarantine { reason, failed_probes: 0 };
        self.set_quarantine(now, id, quarantine.clone());
        self.list_incidents(id);
        out.record(Record::WorkerQuarantine { worker: id, quarantine: Some(quarantine) });
        let incidents = self.state.worker(id).incidents.iter();
        let attempts: Vec<_> = incidents.map(|incident| (incident.attempt, incident.task)).collect();
        attempts.into_iter().for_each(|(attempt, task)| self.forgive(id, attempt, task, out));
        self.preempt_misplaced(id, out);
    }

    /// Puts a worker in quarantine, and sets the time of its next probe.
    pub(crate) fn set_quarantine(&mut self, now: Moment, id: WorkerId, quarantine: Quarantine) {
        let probe = Probe::NotBefore(now.after(probe_pause_ms(quarantine.failed_probes)));
        self.state.worker_mut(id).quarantined = Some(Quarantined { quarantine, probe, probed_with: None });
        self.quarantine.quarantined.insert(id);
        self.quarantine.list(id, probe);
        self.state.touch(id);
    }

    fn quarantine_reason(&self, id: WorkerId) -> Option<String> {
        worker_reason(&self.state.worker(id).incidents, |step| self.is_delivered_by_others(id, step))
    }

    /// Returns whether another worker has delivered a task of the step.
    pub(crate) fn is_delivered_by_others(&self, id: WorkerId, step: StepRef) -> bool {
        self.state.find_step(step).is_some_and(|step| step.delivered_by.iter().any(|by| *by != id))
    }

    /// Returns whether other workers fit the steps of the worker's incidents.
    fn is_dispensable(&self, id: WorkerId) -> bool {
        let incidents = self.state.worker(id).incidents.iter();
        let mut steps = incidents.filter_map(|known| self.state.find_step(known.task));
        steps.all(|step| self.workers_besides([id], step.requirement) > 0)
    }

    /// Clears the incidents of a worker that has delivered, and assesses the workers that are suspected in the step.
    pub(crate) fn note_delivery(&mut self, now: Moment, id: WorkerId, step: StepRef, out: &mut impl Outbox) {
        if self.state.step(step).session().is_some() {
            self.clear_incidents(id);
        } else {
            self.clear_incidents_without_session(id);
        }
        if !self.has_incidents(id) {
            self.end_quarantine(id, out);
        }
        let delivered = self.state.step_mut(step);
        delivered.first_failures.close();
        delivered.delivered_by.insert(id);
        self.quarantine.suspects(step).into_iter().for_each(|worker| self.assess(now, worker, out));
    }

    /// Stops sharing the incidents of a task that is delivered after all.
    pub(crate) fn unshare_incidents(&mut self, task: TaskId, history: &FailureHistory) {
        for id in history.workers() {
            self.set_shared(id, task, false);
        }
    }

    pub(crate) fn clear_incidents(&mut self, id: WorkerId) {
        if self.has_incidents(id) {
            self.state.worker_mut(id).incidents.clear();
            self.list_incidents(id);
        }
    }

    /// Clears the incidents of steps without a session. The delivery of such a task says nothing about the worker's Blender.
    fn clear_incidents_without_session(&mut self, id: WorkerId) {
        let opens = |of: StepRef| self.state.find_step(of).is_none_or(|step| step.session().is_some());
        let incidents = self.state.worker(id).incidents.iter();
        let gone = incidents.filter(|known| !opens(known.task.into())).map(|known| known.attempt);
        let gone: BTreeSet<AttemptId> = gone.collect();
        if !gone.is_empty() {
            self.state.worker_mut(id).incidents.retain(|known| !gone.contains(&known.attempt));
            self.list_incidents(id);
        }
    }

    /// Withdraws the loss of an attempt that its worker still has.
    pub(crate) fn withdraw_incident(&mut self, id: WorkerId, attempt: AttemptId, out: &mut impl Outbox) {
        let incidents = &mut self.state.worker_mut(id).incidents;
        let before = incidents.len();
        incidents.retain(|incident| incident.attempt != attempt);
        if incidents.len() != before {
            self.list_incidents(id);
            self.end_unfounded_quarantine(id, out);
        }
    }

    /// Ends the quarantine of a worker that is no longer the origin of its incidents.
    fn end_unfounded_quarantine(&mut self, id: WorkerId, out: &mut impl Outbox) {
        if self.quarantine.quarantined.contains(&id) && self.quarantine_reason(id).is_none() {
            self.end_quarantine(id, out);
        }
    }

    /// Ends the quarantine of a worker and records it; returns whether it was in one.
    pub(crate) fn end_quarantine(&mut self, id: WorkerId, out: &mut impl Outbox) -> bool {
        let was_quarantined = self.drop_quarantine(id);
        if was_quarantined {
            self.list_incidents(id);
            self.state.touch(id);
            out.record(Record::WorkerQuarantine { worker: id, quarantine: None });
        }
        was_quarantined
    }

    /// Ends the quarantine of a worker without a record; returns whether it was in one.
    pub(crate) fn drop_quarantine(&mut self, id: WorkerId) -> bool {
        if let Some(known) = self.state.find_worker_mut(id).and_then(|worker| worker.quarantined.take()) {
            self.quarantine.unlist(id, known.probe);
        }
        self.quarantine.quarantined.remove(&id)
    }

    pub(crate) fn set_probe(&mut self, id: WorkerId, probe: Probe) {
        let Some(known) = &mut self.state.worker_mut(id).quarantined else { return };
        let before = std::mem::replace(&mut known.probe, probe);
        self.quarantine.unlist(id, before);
        self.quarantine.list(id, probe);
    }

    /// Delays the next probe, if the failed attempt was the worker's probe.
    fn note_failed_probe(&mut self, now: Moment, id: WorkerId, attempt: AttemptId, out: &mut impl Outbox) {
        let worker = self.state.worker_mut(id);
        let Some(known) = &mut worker.quarantined else { return };
        if known.probed_with.take_if(|probe| *probe == attempt).is_none() {
            return;
        }
        known.quarantine.failed_probes = known.quarantine.failed_probes.saturating_add(1);
        if let Some(last) = worker.incidents.last() {
            known.quarantine.reason = match &last.kind {
                IncidentKind::Failed(message) => format!("it failed again when it was tried: {message}"),
                IncidentKind::Lost { .. } => "it went down again when it was tried".to_owned(),
            };
        }
        let quarantine = known.quarantine.clone();
        self.set_probe(id, Probe::NotBefore(now.after(probe_pause_ms(quarantine.failed_probes))));
        out.record(Record::WorkerQuarantine { worker: id, quarantine: Some(quarantine) });
    }

    /// Begins the pause of a quarantined worker again, which is back after a loss.
    pub(crate) fn restart_quarantine(&mut self, now: Moment, id: WorkerId) {
        let worker = self.state.worker(id);
        let last = worker.incidents.last().map(|incident| &incident.kind);
        if let Some(IncidentKind::Lost { .. }) = last
            && let Some(Quarantined { quarantine, probe: Probe::NotBefore(_), .. }) = &worker.quarantined
        {
            let at = now.after(probe_pause_ms(quarantine.failed_probes));
            self.set_probe(id, Probe::NotBefore(at));
        }
    }

    /// Makes probes due whose pauses are over.
    pub(crate) fn end_pauses(&mut self, now: Moment) {
        while let Some(&(at, id)) = self.quarantine.timers.first().filter(|(at, _)| *at <= now) {
            self.quarantine.unlist(id, Probe::NotBefore(at));
            self.set_probe(id, Probe::Due);
        }
    }

    /// Makes another probe due, if the closed attempt was the worker's probe.
    pub(crate) fn end_probe(&mut self, id: WorkerId, attempt: AttemptId) {
        if self.state.worker(id).is_probe(attempt) {
            self.set_probe(id, Probe::Due);
        }
    }
}
