//! Tests of the checker: each sequence of records and pushes that breaks a rule of streams is found.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
};

use kiln_core::{
    Claim, DependencyScope, DependencyStart, JobPlan, Moment, Record, StepDependency, StepPlan, WorkerOffer,
};
use kiln_types::{
    AttemptId, AttemptState, Epoch, Generation, JobId, SlotIndex, StepIndex, TaskId, TaskIndex, WorkerId,
};

use crate::check::Checker;

const JOB: JobId = JobId(1);

fn worker() -> WorkerId {
    WorkerId::from_bits(1).unwrap()
}

fn attempt(counter: u64) -> AttemptId {
    AttemptId { epoch: Epoch(1), counter }
}

fn task(step: u16, index: u32) -> TaskId {
    TaskId { job: JOB, step: StepIndex(step), index: TaskIndex(index) }
}

/// A job of two parts and a step that merges them, on a worker with ten bytes.
fn checker() -> Checker {
    let offer = WorkerOffer { slots: 2, memory: 10, ..WorkerOffer::default() };
    let mut checker = Checker::new([(worker(), offer)], &BTreeMap::new(), &[]);
    let on = StepDependency { start: DependencyStart::FirstDone, ..StepIndex(0).into() };
    assert_eq!(on.scope, DependencyScope::Step);
    let steps = vec![StepPlan::new(2, None), StepPlan { after: vec![on], ..StepPlan::new(1, None) }];
    checker.submitted(&JobPlan::new(JOB, steps).unwrap());
    checker
}

enum Step {
    Says(Record),
    Streams(AttemptId, u64),
    Claims(u64),
}

use Step::{Claims, Says, Streams};

fn opened(counter: u64, task: TaskId) -> Step {
    let (attempt, slot) = (attempt(counter), SlotIndex(0));
    Says(Record::AttemptOpened { attempt, task, generation: Generation(0), worker: worker(), slot })
}

fn streams(counter: u64) -> Step {
    let (attempt, task) = (attempt(counter), task(1, 0));
    Says(Record::StreamOpened { attempt, task, generation: Generation(0), worker: worker() })
}

fn placed(counter: u64) -> Step {
    Says(Record::StreamPlaced { attempt: attempt(counter), task: task(1, 0), slot: SlotIndex(1) })
}

fn started(counter: u64, task: TaskId) -> Step {
    Says(Record::AttemptStarted { attempt: attempt(counter), task })
}

fn committed(counter: u64, task: TaskId) -> [Step; 2] {
    let attempt = attempt(counter);
    [
        Says(Record::AttemptClosed { attempt, task, state: AttemptState::Committed, failure: None }),
        Says(Record::TaskCommitted { task, generation: Generation(0), attempt }),
    ]
}

/// The part of this index, by the attempt of the next number.
fn part(index: u32) -> Vec<Step> {
    let counter = u64::from(index) + 1;
    let begins = [opened(counter, task(0, index)), started(counter, task(0, index))];
    begins.into_iter().chain(committed(counter, task(0, index))).collect()
}

/// Returns whether the checker accepts all of these.
fn passes(steps: impl IntoIterator<Item = Step>) -> bool {
    let mut checker = checker();
    let all = || {
        for step in steps {
            match step {
                Says(record) => checker.record(Moment(0), &record),
                Streams(attempt, memory) => checker.streams(worker(), attempt, Claim::memory(memory)),
                Claims(memory) => checker.claims((worker(), SlotIndex(0)), Claim::memory(memory)),
            }
        }
    };
    catch_unwind(AssertUnwindSafe(all)).is_ok()
}

/// The parts, with these steps between them and after them.
fn with_parts(between: Vec<Step>, after: Vec<Step>) -> bool {
    let first = part(0).into_iter().chain(between);
    // The attempts of records have rising numbers.
    let second = [opened(9, task(0, 1)), started(9, task(0, 1))].into_iter().chain(committed(9, task(0, 1)));
    passes(first.chain(second).chain(after))
}

#[test]
fn a_stream_that_keeps_the_rules_passes() {
    let after = [placed(2), started(2, task(1, 0))].into_iter().chain(committed(2, task(1, 0)));
    assert!(with_parts(vec![streams(2)], after.collect()));
}

#[test]
fn a_stream_that_breaks_a_rule_is_seen() {
    assert!(!passes([streams(1)]), "it streams before the first part");
    assert!(!with_parts(vec![], vec![streams(10)]), "it streams after the last part");
    assert!(!with_parts(vec![streams(2), streams(3)], vec![]), "it streams twice");
    assert!(!with_parts(vec![streams(2), placed(2)], vec![]), "it is placed before the last part");
    assert!(!with_parts(vec![streams(2), started(2, task(1, 0))], vec![]), "it starts on no slot");
    assert!(!with_parts(vec![opened(2, task(1, 0))], vec![]), "it is dispatched before the last part");
    let commits = committed(2, task(1, 0)).into_iter().collect();
    assert!(!with_parts(vec![streams(2)], commits), "it commits on no slot");
}

#[test]
fn what_is_made_of_an_outdated_part_is_seen() {
    let (generation, part, counter) = (Generation(1), task(0, 0), attempt(10));
    let tasks = kiln_core::TaskSpan { first: TaskIndex(0), last: TaskIndex(0) };
    let state = AttemptState::Committed;
    let again = [
        Record::TasksReset { job: JOB, step: StepIndex(0), tasks, generation },
        Record::AttemptOpened {
            attempt: counter,
            task: part,
            generation,
            worker: worker(),
            slot: SlotIndex(0),
        },
        Record::AttemptStarted { attempt: counter, task: part },
        Record::AttemptClosed { attempt: counter, task: part, state, failure: None },
        Record::TaskCommitted { task: part, generation, attempt: counter },
    ];
    let again = || again.clone().into_iter().map(Says);
    assert!(with_parts(vec![], again().collect()), "the part is made again as it should be");
    let after = again().chain([placed(2)]);
    assert!(!with_parts(vec![streams(2)], after.collect()), "the part was made again while it streamed");
}

#[test]
fn memory_that_is_claimed_twice_is_seen() {
    let begins = || part(0).into_iter().chain([streams(2), opened(9, task(0, 1))]);
    assert!(passes(begins().chain([Streams(attempt(2), 4), Claims(6)])));
    assert!(!passes(begins().chain([Streams(attempt(2), 4), Claims(7)])), "a slot takes what a stream has");
    assert!(!passes(begins().chain([Claims(7), Streams(attempt(2), 4)])), "a stream takes what a slot has");
}
