//! Common failures: a job whose first tasks fail alike stops before each of them has failed on every worker.

use kiln_types::{Failure, TaskId, WorkerId};

use crate::{
    Core,
    state::Attempt,
    tuning::common_failure::{ATTEMPTS, TASKS, WORKERS},
};

/// The tasks that have failed alike, and the reason for which their job stops.
pub(crate) struct CommonFailure {
    pub tasks: Vec<TaskId>,
    pub reason: Failure,
}

impl Core {
    /// Notes a failure on these workers, and returns the common failure that it completes. Failures are alike by their cause
    /// and `alike_by`.
    pub(super) fn note_first_failure(
        &mut self,
        task: TaskId,
        workers: &[WorkerId],
        failure: &Failure,
        alike_by: &str,
    ) -> Option<CommonFailure> {
        let step = self.state.step_mut(task);
        let (requirement, least) = (step.requirement, TASKS.min(step.tasks.count() as usize));
        let group = step.first_failures.note(task.index, workers, failure.cause, alike_by)?.clone();
        if group.tasks.len() < least.max(2) || group.attempts < ATTEMPTS {
            return None;
        }
        let others = self.workers_besides(group.workers.iter().copied(), requirement);
        let is_enough = group.workers.len() >= WORKERS || others == 0;
        // A fault of a worker says nothing about others; and an attempt that runs elsewhere will soon show it.
        let may_differ = others > 0 && failure.cause.is_worker_failure();
        let mut attempts = self.state.step(task).tasks.attempts().map(|id| self.state.attempt(id));
        let has_begun_it =
            |known: &Attempt| known.phase.has_begun() && !group.workers.contains(&known.worker);
        if !is_enough || may_differ || attempts.any(has_begun_it) {
            return None;
        }
        let on = match group.workers.len() {
            1 => "one worker".to_owned(),
            many => format!("{many} workers"),
        };
        let message =
            format!("the first {} frames failed alike on {on}: {}", group.tasks.len(), failure.message);
        let tasks = group.tasks.into_iter().map(|index| TaskId { index, ..task }).collect();
        Some(CommonFailure { tasks, reason: Failure { message, ..failure.clone() } })
    }
}
