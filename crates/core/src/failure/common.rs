//! Common failures: a job whose first tasks all fail alike stops before each of them has failed on every worker.

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
    /// Notes a failure on these workers, and returns the common failure that it completes. `says` is what makes
    /// failures alike.
    pub(super) fn note_first_failure(
        &mut self,
        task: TaskId,
        workers: &[WorkerId],
        failure: &Failure,
        says: &str,
    ) -> Option<CommonFailure> {
        let step = self.state.step_mut(task);
        let (requirement, least) = (step.requirement, TASKS.min(step.tasks.count() as usize));
        let way = step.first_failures.note(task.index, workers, failure.cause, says)?.clone();
        if way.tasks.len() < least.max(2) || way.attempts < ATTEMPTS {
            return None;
        }
        let others = self.workers_besides(way.workers.iter().copied(), requirement);
        let is_enough = way.workers.len() >= WORKERS || others == 0;
        // A fault of the worker tells nothing of what others would do; and one that is at work will soon tell.
        let may_differ = others > 0 && failure.cause.is_worker_failure();
        let mut attempts = self.state.step(task).tasks.attempts().map(|id| self.state.attempt(id));
        let has_begun_it = |known: &Attempt| known.phase.has_begun() && !way.workers.contains(&known.worker);
        if !is_enough || may_differ || attempts.any(has_begun_it) {
            return None;
        }
        let on = match way.workers.len() {
            1 => "one worker".to_owned(),
            many => format!("{many} workers"),
        };
        let message =
            format!("the first {} frames failed alike on {on}: {}", way.tasks.len(), failure.message);
        let tasks = way.tasks.into_iter().map(|index| TaskId { index, ..task }).collect();
        Some(CommonFailure { tasks, reason: Failure { message, ..failure.clone() } })
    }
}
