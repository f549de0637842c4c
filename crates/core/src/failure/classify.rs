//! The origin of a failure: the task, the worker or the job. The consequences are in the other files of this folder.
//!
//! | facts | origin |
//! |---|---|
//! | every attempt of the job would fail alike (no camera, a missing file) | job |
//! | the task ran out of memory, and no connected worker has more | task |
//! | the first tasks of a step failed alike on several workers, and none was delivered | job |
//! | the task has failed as often as a task may | task |
//! | the same, but by a fault of its workers while another worker would take it, or it needs a larger machine and there is one | unknown |
//! | the task would fail alike again (a black frame), and has failed on two workers, or there is no other | task |
//! | as many workers as may were lost with the task; or as many losses of fewer workers, and there is no other | task |
//! | the worker's new offer no longer fits, or it is in quarantine while others can take its work | worker |
//! | anything else | unknown: the task is tried again |
//!
//! A worker is the origin if it fails where others deliver: see [`worker_reason`].

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
    /// The worker is the origin: the failure does not count against the task.
    pub is_forgiven: bool,
    /// The first tasks of the step have failed alike, this one among them.
    pub failed_alike: bool,
    /// The task needs more memory than any connected worker has.
    pub exceeds_all_workers: bool,
    /// A worker on which the task has not failed or been lost would take it now.
    pub has_untried_worker: bool,
}

/// The origin of a failure or loss, which the history of the task already has.
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

/// Returns whether the task has reached the limit of mishaps, whatever their origin.
pub(crate) fn is_at_limit(history: &FailureHistory, config: &Config) -> bool {
    history.failed_on().len() >= usize::from(config.max_failures)
        || history.lost_on().len() >= usize::from(config.max_losses)
}

/// The reason for which a worker is the origin of its incidents, for a person; `None` if it is not the origin. Only
/// incidents count that no other worker had with the task, in steps that others deliver.
pub(crate) fn worker_reason(
    incidents: &[Incident],
    is_delivered_by_others: impl Fn(StepRef) -> bool,
) -> Option<String> {
    let is_counted = |incident: &&Incident| !incident.shared && is_delivered_by_others(incident.task.into());
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
    // If the losses have a task in common, that may be the origin.
    let is_worker = losses.iter().rev().skip(1).any(|earlier| tasks_of(*earlier).is_disjoint(&last));
    is_worker.then(|| {
        format!("it went down {} times, with other frames each time, where others render", losses.len())
    })
}
