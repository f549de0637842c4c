//! The workers that can be woken, and the tasks that wait for workers.

use kiln_core::WaitCause;
use kiln_types::{DesiredState, JobId};

use super::{
    decide::{SleepingWorker, UnservedTasks},
    packet::Mac,
};
use crate::{
    clock::unix_ms,
    scheduler::{FarmState, KnownWorker, Refusal},
};

impl FarmState {
    /// Returns the tasks that wait for workers, and the workers that can be woken. Both are empty if no worker can be.
    pub(super) fn wakeable(&self) -> (Vec<UnservedTasks>, Vec<SleepingWorker>) {
        let now_ms = unix_ms();
        let can_be_woken = |known: &KnownWorker| {
            // A worker outside its schedule would be unavailable when awake.
            let until_ms = known.info.unavailable.as_ref().and_then(|reason| reason.until_ms);
            known.link.is_none()
                && known.info.wakes
                && known.desired == DesiredState::Active
                && until_ms.is_none_or(|until| until <= now_ms)
                && !known.info.macs.is_empty()
        };
        let sleeping = self.workers.iter().filter(|(_, known)| can_be_woken(known));
        let sleeping: Vec<SleepingWorker> = sleeping
            .map(|(worker, known)| SleepingWorker { worker: *worker, offer: known.offer() })
            .collect();
        if sleeping.is_empty() {
            return (Vec::new(), sleeping);
        }
        let mut survey = self.core.explainer(self.clock.now());
        let waits = |job: &JobId| {
            let view = self.core.job(*job)?;
            if view.state.is_end() || view.counts().waiting == 0 {
                return None;
            }
            let steps = survey.explain(*job).into_iter();
            let steps = steps.filter(|(_, causes)| !causes.is_empty() && causes.iter().all(needs_workers));
            let waiting = steps.filter_map(|(step, _)| {
                let tasks = view.steps.get(usize::from(step.0))?.counts.waiting;
                // Each step has its own requirement: a machine that cannot render may bake.
                let requirement = self.core.requirement(*job, step)?.clone();
                (tasks > 0).then_some(UnservedTasks { job: *job, step, tasks, requirement })
            });
            Some(waiting.collect::<Vec<_>>())
        };
        let mut waiting: Vec<UnservedTasks> = self.jobs.keys().filter_map(waits).flatten().collect();
        waiting.sort_by_key(|waiting| (waiting.job, waiting.step));
        (waiting, sleeping)
    }

    /// Returns the network cards of a worker that is offline.
    pub(super) fn macs_of(&self, name: &str) -> Result<Vec<Mac>, Refusal> {
        let known = self.workers.by_name(name).and_then(|id| self.workers.get(&id));
        let known = known.ok_or_else(|| Refusal::NoSuchWorker(name.to_owned()))?;
        if known.link.is_some() {
            return Err(Refusal::WorkerAwake(name.to_owned()));
        }
        let macs: Vec<Mac> = known.info.macs.iter().filter_map(|mac| mac.parse().ok()).collect();
        if macs.is_empty() {
            return Err(Refusal::NoNetworkCards(name.to_owned()));
        }
        Ok(macs)
    }
}

/// Returns whether tasks that wait for this reason could run on further workers.
fn needs_workers(cause: &WaitCause) -> bool {
    match cause {
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
