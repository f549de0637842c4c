//! Who sleeps, and what waits.

use kiln_core::WaitCause;
use kiln_types::{DesiredState, JobId};

use super::{
    decide::{Sleeper, Waiting},
    packet::Mac,
};
use crate::{
    clock::unix_ms,
    scheduler::{FarmState, Refusal},
};

impl FarmState {
    /// What no worker has taken, and who might be woken for it. Both are empty where nobody may be woken.
    pub(super) fn wakeable(&self) -> (Vec<Waiting>, Vec<Sleeper>) {
        let now_ms = unix_ms();
        let mut sleepers = Vec::new();
        for (worker, known) in self.workers.iter() {
            let said = &known.said;
            // Awake, it would only say that it is not its time.
            let is_asleep = said
                .unavailable
                .as_ref()
                .and_then(|reason| reason.until_ms)
                .is_some_and(|until| until > now_ms);
            if known.link.is_none()
                && said.wakes
                && known.desired == DesiredState::Active
                && !is_asleep
                && !said.macs.is_empty()
            {
                sleepers.push(Sleeper { worker: *worker, offer: known.offer() });
            }
        }
        if sleepers.is_empty() {
            return (Vec::new(), sleepers);
        }
        let mut survey = self.core.explainer(self.clock.now());
        let waits = |job: &JobId| {
            let view = self.core.job(*job)?;
            if view.state.is_end() || view.counts().waiting == 0 {
                return None;
            }
            let steps = survey.explain(*job).into_iter();
            let steps = steps.filter(|(_, waits)| !waits.is_empty() && waits.iter().all(wants_workers));
            let waiting = steps.filter_map(|(step, _)| {
                let tasks = view.steps.get(usize::from(step.0))?.counts.waiting;
                // Of each step its own: a machine may bake that could not render.
                let requirement = self.core.requirement(*job, step)?.clone();
                (tasks > 0).then_some(Waiting { job: *job, step, tasks, requirement })
            });
            Some(waiting.collect::<Vec<_>>())
        };
        let mut waiting: Vec<Waiting> = self.jobs.keys().filter_map(waits).flatten().collect();
        waiting.sort_by_key(|waiting| (waiting.job, waiting.step));
        (waiting, sleepers)
    }

    /// The network cards of a worker that is gone.
    pub(super) fn macs_of(&self, name: &str) -> Result<Vec<Mac>, Refusal> {
        let known = self.workers.named(name).and_then(|id| self.workers.get(&id));
        let known = known.ok_or_else(|| Refusal::NoSuchWorker(name.to_owned()))?;
        if known.link.is_some() {
            return Err(Refusal::WorkerAwake(name.to_owned()));
        }
        let macs: Vec<Mac> = known.said.macs.iter().filter_map(|mac| mac.parse().ok()).collect();
        if macs.is_empty() {
            return Err(Refusal::NoNetworkCards(name.to_owned()));
        }
        Ok(macs)
    }
}

/// Whether what waits for this would not wait if there were more workers.
fn wants_workers(wait: &WaitCause) -> bool {
    match wait {
        WaitCause::NoWorker
        | WaitCause::NoWorkerFits { .. }
        | WaitCause::NotWorking { .. }
        | WaitCause::Cooldown(_)
        | WaitCause::Busy { .. }
        | WaitCause::FailedHere { .. }
        | WaitCause::Room { .. } => true,
        WaitCause::Paused
        | WaitCause::Held
        | WaitCause::Dependencies { .. }
        | WaitCause::Until(_)
        | WaitCause::Limit { .. }
        | WaitCause::JobFull(_)
        | WaitCause::AccountFull(..) => false,
    }
}
