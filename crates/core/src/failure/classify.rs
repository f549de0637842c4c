//! The origin of a failure: the task, the worker or the job. Pure; the consequences are in the files beside it.
//!
//! | what is known | origin |
//! |---|---|
//! | every attempt of the job would fail so (no camera, a missing file) | job |
//! | the task ran out of memory, and no connected worker has more | task |
//! | the first tasks of a step failed alike on several workers, and none was delivered | job |
//! | it has failed as often as a task may | task |
//! | the same, but by a fault of its workers while another worker would take it, or where it needs a larger machine and there is one | unknown |
//! | it would fail so again (a black frame), and it has failed elsewhere too, or there is no other worker | task |
//! | as many workers as may were lost with it; or fewer, and there is no other | task |
//! | the worker cannot do it and has said so meanwhile, or is in quarantine while others can take its work | worker |
//! | anything else | unknown: it is tried again |
//!
//! A worker is the origin of what it fails where others deliver: see [`worker_reason`].

use std::collections::BTreeSet;

use kiln_types::{FailureCause, TaskId, WorkerId};

use crate::{
    Config,
    ids::StepRef,
    state::{FailureHistory, Incident, IncidentKind},
    tuning::quarantine::{FAILURES, TASKS},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureOrigin {
    Task,
    Worker,
    Job,
    Unknown,
}

/// The facts of a failure besides the history of the task.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct FailureFacts {
    /// The cause of the failure; `None` if the worker was lost with the attempt, or returned it.
    pub cause: Option<FailureCause>,
    /// Its worker is the origin, so that it does not count against the task.
    pub is_forgiven: bool,
    /// The first tasks of its step have failed alike, and this one with them.
    pub failed_alike: bool,
    /// The task needs more memory than any connected worker has.
    pub exceeds_all_workers: bool,
    /// A worker on which the task has not gone wrong would take it now.
    pub has_untried_worker: bool,
}

/// The origin of a failure or loss that the history of its task holds already.
pub(crate) fn classify(history: &FailureHistory, facts: FailureFacts, config: &Config) -> FailureOrigin {
    let is = |of: fn(FailureCause) -> bool| facts.cause.is_some_and(of);
    if is(FailureCause::stops_job) {
        FailureOrigin::Job
    } else if facts.exceeds_all_workers {
        FailureOrigin::Task
    } else if facts.failed_alike {
        FailureOrigin::Job
    } else if has_failed_enough(history, facts, config) || was_lost_enough(history, facts, config) {
        FailureOrigin::Task
    } else if facts.is_forgiven {
        FailureOrigin::Worker
    } else {
        FailureOrigin::Unknown
    }
}

/// Returns whether the task has failed as often as it may.
pub(crate) fn has_failed_enough(history: &FailureHistory, facts: FailureFacts, config: &Config) -> bool {
    let (failures, most) = (history.failed_on().len(), usize::from(config.max_failures));
    let is = |of: fn(FailureCause) -> bool| facts.cause.is_some_and(of);
    let repeats = is(FailureCause::repeats) && (failures > 1 || !facts.has_untried_worker);
    let needs_larger = facts.cause == Some(FailureCause::OutOfMemory)
        && history.least_memory().is_some()
        && failures < 2 * most;
    let by_workers = is(FailureCause::is_worker_failure) && facts.has_untried_worker;
    (failures >= most || repeats) && !needs_larger && !by_workers
}

/// Returns whether enough workers were lost with the task to call it the origin.
pub(crate) fn was_lost_enough(history: &FailureHistory, facts: FailureFacts, config: &Config) -> bool {
    let (losses, most) = (history.lost_on().len(), usize::from(config.max_losses));
    let workers: BTreeSet<WorkerId> = history.lost_on().iter().copied().collect();
    losses >= most && (workers.len() >= most || losses >= 2 * most || !facts.has_untried_worker)
}

/// Returns whether the task has as many mishaps as it may, whatever their origin.
pub(crate) fn is_at_limit(history: &FailureHistory, config: &Config) -> bool {
    history.failed_on().len() >= usize::from(config.max_failures)
        || history.lost_on().len() >= usize::from(config.max_losses)
}

/// Returns why a worker is the origin of its incidents, in a sentence for a person; `None` where it is not. Only
/// incidents of tasks that went wrong nowhere else count, in steps of which others deliver.
pub(crate) fn worker_reason(
    incidents: &[Incident],
    others_deliver: impl Fn(StepRef) -> bool,
) -> Option<String> {
    let is_counted = |incident: &&Incident| !incident.shared && others_deliver(incident.task.into());
    let (mut failures, mut tasks, mut losses) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    for incident in incidents.iter().filter(is_counted) {
        match &incident.kind {
            IncidentKind::Failed(message) => {
                failures.push(message);
                tasks.insert(incident.task);
            }
            IncidentKind::Lost { loss } => drop(losses.insert(*loss)),
        }
    }
    if failures.len() >= FAILURES
        && tasks.len() >= TASKS
        && let Some(last) = failures.last()
    {
        let times = failures.len();
        return Some(format!("it failed {times} times in a row where others render; the last: {last}"));
    }
    let tasks_of = |loss: u64| -> BTreeSet<TaskId> {
        let lost = incidents.iter().filter(|incident| incident.kind == IncidentKind::Lost { loss });
        lost.map(|incident| incident.task).collect()
    };
    let last = tasks_of(*losses.last()?);
    // With the same task twice, it may be the task.
    let is_worker = losses.iter().rev().skip(1).any(|earlier| tasks_of(*earlier).is_disjoint(&last));
    is_worker.then(|| {
        format!("it went down {} times, with other frames each time, where others render", losses.len())
    })
}
