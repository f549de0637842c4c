//! Probes: single tasks for workers in quarantine.

use kiln_types::TaskId;

use crate::{
    Core, Outbox,
    ids::{SlotRef, StepRef},
    state::Probe,
    tuning::{CANDIDATES, estimate::UNMEASURED_MS},
};

impl Core {
    /// Dispatches one task to each quarantined worker whose probe is due and that has no attempt.
    pub(crate) fn dispatch_probes(&mut self, out: &mut impl Outbox) {
        for id in self.quarantine.due.clone() {
            let worker = self.state.worker(id);
            if !worker.is_probeable() || worker.live().next().is_some() {
                continue;
            }
            let Some((slot, _)) = worker.vacant_slots().next() else { continue };
            let of = SlotRef { worker: id, slot };
            let Some(task) = self.select_probe(of) else { continue };
            let attempt = self.dispatch(task, of, out);
            self.set_probe(id, Probe::Runs(attempt));
            if let Some(known) = &mut self.state.worker_mut(id).quarantined {
                known.probed_with = Some(attempt);
            }
        }
    }

    /// The task that shows soonest whether the worker is sound: of a step that others deliver, with short frames. A step
    /// without a session shows least, and is left to other workers.
    fn select_probe(&mut self, on: SlotRef) -> Option<TaskId> {
        let worker = self.state.worker(on.worker);
        let fits = |of: &_| worker.fits(*of) && self.exhausted_limit(*of).is_none();
        let steps = self.requirements.all().filter(fits).flat_map(|of| self.requirements[of].ready.steps());
        let steps = steps.filter(|(member, _)| !self.fair_share.is_full(*member)).take(CANDIDATES);
        let steps = steps.map(|(_, of)| {
            let step = self.state.step(of);
            let task = step.tasks.first_fresh().unwrap_or_default();
            let frame = self.frame_ms(step, task, on.worker, None).unwrap_or(UNMEASURED_MS);
            (step.session().is_none(), !self.is_delivered_by_others(on.worker, of), frame, of)
        });
        let is_left = |of: StepRef| self.workers_for(self.state.step(of).requirement) > 0;
        let steps = steps.filter(|(opens_nothing, .., of)| !(*opens_nothing && is_left(*of)));
        let mut steps: Vec<(bool, bool, u64, StepRef)> = steps.collect();
        steps.sort_unstable();
        steps.into_iter().find_map(|(.., step)| self.select_from(on, step).task())
    }
}
