//! The documented cases of failure origins.

use kiln_types::{AttemptId, Epoch, Failure, FailureCause, JobId, StepIndex, TaskId, TaskIndex, WorkerId};

use super::w;
use crate::{
    Config, Moment,
    failure::classify::{FailureFacts, FailureOrigin, classify, worker_reason},
    state::{FailureHistory, Incident, IncidentKind},
};

fn attempt(counter: u64) -> AttemptId {
    AttemptId { epoch: Epoch(1), counter }
}

/// A history of attempts that failed, and of attempts that were lost, on these workers.
fn history(cause: FailureCause, failed_on: &[u64], lost_on: &[u64]) -> FailureHistory {
    let mut history = FailureHistory::default();
    for (number, worker) in failed_on.iter().enumerate() {
        history.note_failure(attempt(number as u64 + 1), w(*worker), Failure::new(cause, "no"));
    }
    for (number, worker) in lost_on.iter().enumerate() {
        history.note_loss(attempt(number as u64 + 100), w(*worker));
    }
    history
}

struct Case {
    name: &'static str,
    failed_on: &'static [u64],
    lost_on: &'static [u64],
    least_memory: Option<u64>,
    facts: FailureFacts,
    origin: FailureOrigin,
}

use FailureCause::{BlackFrame, CannotStart, Crashed, NoCamera, OutOfMemory};
use FailureOrigin::{Job, Task, Unknown, Worker};

fn failed(name: &'static str, cause: FailureCause, failed_on: &'static [u64], origin: FailureOrigin) -> Case {
    let facts = FailureFacts { cause: Some(cause), has_untried_worker: true, ..FailureFacts::default() };
    Case { name, failed_on, lost_on: &[], least_memory: None, facts, origin }
}

fn lost(
    name: &'static str,
    lost_on: &'static [u64],
    has_untried_worker: bool,
    origin: FailureOrigin,
) -> Case {
    let facts = FailureFacts { has_untried_worker, ..FailureFacts::default() };
    Case { name, failed_on: &[], lost_on, least_memory: None, facts, origin }
}

impl Case {
    fn with(mut self, change: impl FnOnce(&mut FailureFacts)) -> Self {
        change(&mut self.facts);
        self
    }

    fn needs(mut self, bytes: u64) -> Self {
        self.least_memory = Some(bytes);
        self
    }
}

fn cases() -> Vec<Case> {
    let alone = |facts: &mut FailureFacts| facts.has_untried_worker = false;
    vec![
        failed("every attempt of the job would fail so", NoCamera, &[1], Job),
        failed("the same, on a worker in quarantine", NoCamera, &[1], Job).with(|f| f.is_forgiven = true),
        failed("a first failure", Crashed, &[1], Unknown),
        failed("a second one", Crashed, &[1, 2], Unknown),
        failed("as often as a task may", Crashed, &[1, 2, 3], Task),
        failed("as often as it may, on one worker", Crashed, &[1, 1, 1], Task).with(alone),
        failed("the first tasks failed alike", Crashed, &[1], Job).with(|f| f.failed_alike = true),
        failed("the same at the limit", Crashed, &[1, 2, 3], Job).with(|f| f.failed_alike = true),
        failed("on a worker that is the origin", Crashed, &[], Worker).with(|f| f.is_forgiven = true),
        failed("a fault of the worker", CannotStart, &[1], Unknown),
        failed("faults of workers, and there is another", CannotStart, &[1, 2, 3, 4], Unknown),
        failed("faults of workers, and there is none left", CannotStart, &[1, 2, 3], Task).with(alone),
        failed("a black frame", BlackFrame, &[1], Unknown),
        failed("a black frame on a second worker", BlackFrame, &[1, 2], Task),
        failed("a black frame, and there is no other worker", BlackFrame, &[1], Task).with(alone),
        failed("out of memory, and there is a larger worker", OutOfMemory, &[1, 2, 3], Unknown).needs(8),
        failed("out of memory everywhere", OutOfMemory, &[1], Task)
            .needs(8)
            .with(|f| f.exceeds_all_workers = true),
        failed("out of memory far too often", OutOfMemory, &[1, 2, 3, 4, 5, 6], Task).needs(8),
        failed("out of memory on workers that do not say how much they have", OutOfMemory, &[1, 2, 3], Task),
        lost("a first loss", &[1], true, Unknown),
        lost("three workers lost", &[1, 2, 3], true, Task),
        lost("one worker lost three times, and there is another", &[1, 1, 1], true, Unknown),
        lost("one worker lost three times, and there is no other", &[1, 1, 1], false, Task),
        lost("one worker lost six times", &[1, 1, 1, 1, 1, 1], true, Task),
        lost("lost with a worker that is the origin", &[], true, Worker).with(|f| f.is_forgiven = true),
        lost("lost like the first tasks of the job", &[1, 2, 3], true, Job).with(|f| f.failed_alike = true),
    ]
}

#[test]
fn each_documented_case_has_its_origin() {
    for case in cases() {
        let cause = case.facts.cause.unwrap_or(Crashed);
        let mut history = history(cause, case.failed_on, case.lost_on);
        if let Some(bytes) = case.least_memory {
            history.require_memory(bytes);
        }
        assert_eq!(classify(&history, case.facts, &Config::default()), case.origin, "{}", case.name);
    }
}

fn task(index: u32) -> TaskId {
    TaskId { job: JobId(1), step: StepIndex(0), index: TaskIndex(index) }
}

fn failure(number: u64, index: u32) -> Incident {
    let kind = IncidentKind::Failed(format!("it went wrong, {number}"));
    Incident { attempt: attempt(number), task: task(index), at: Moment(0), kind, shared: false }
}

fn loss(number: u64, index: u32) -> Incident {
    let kind = IncidentKind::Lost { loss: number };
    Incident { attempt: attempt(number), task: task(index), at: Moment(0), kind, shared: false }
}

#[test]
fn a_worker_is_the_origin_of_what_it_alone_fails() {
    let reason = |incidents: &[Incident]| worker_reason(incidents, |_| true);
    let three = || vec![failure(1, 0), failure(2, 1), failure(3, 1)];
    assert_eq!(
        reason(&three()).as_deref(),
        Some("it failed 3 times in a row where others render; the last: it went wrong, 3")
    );
    assert_eq!(worker_reason(&three(), |_| false), None, "nobody has shown that it can be done");
    assert_eq!(reason(&three()[..2]), None, "two are few");
    assert_eq!(reason(&[failure(1, 0), failure(2, 0), failure(3, 0)]), None, "it may be the task");
    let mut shared = three();
    shared[0].shared = true;
    assert_eq!(reason(&shared), None, "one of them went wrong elsewhere, too");

    let twice = [loss(1, 0), loss(1, 1), loss(2, 2)];
    assert_eq!(
        reason(&twice).as_deref(),
        Some("it went down 2 times, with other frames each time, where others render")
    );
    assert_eq!(reason(&twice[..2]), None, "that is one loss of two frames");
    assert_eq!(reason(&[loss(1, 0), loss(2, 0)]), None, "it may be the task");
    assert!(reason(&[loss(1, 0), loss(2, 0), loss(3, 1)]).is_some());
}

#[test]
fn a_forgiven_attempt_no_longer_counts_and_is_forgiven_once() {
    let mut history = history(Crashed, &[1, 2], &[2]);
    assert!(history.counts(attempt(1)) && history.counts(attempt(100)));
    assert!(history.forgive(attempt(1), w(1)));
    assert!(!history.forgive(attempt(1), w(1)), "it is forgiven already");
    assert_eq!((history.failed_on(), history.lost_on()), (&[w(2)][..], &[w(2)][..]));
    assert!(history.forgive(attempt(2), w(2)) && history.forgive(attempt(100), w(2)));
    assert!(history.is_empty());
    let of_an_earlier_epoch: Vec<WorkerId> = vec![w(1), w(2)];
    let mut restored = FailureHistory::restored(Vec::new(), of_an_earlier_epoch, None);
    assert!(!restored.forgive(attempt(1), w(1)));
    restored.forgive_restored_loss(w(1));
    assert_eq!(restored.lost_on(), [w(2)]);
}
