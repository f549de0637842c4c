//! Jobs that are held after their first frames.

use std::collections::BTreeSet;

use kiln_types::{FailureCause, JobId, JobState, Order, StepIndex, TaskId, TaskIndex};
use proptest::prelude::*;

use super::{Farm, frames::frames, frames::same_frame, job, order::orders};
use crate::{DependencyEnd, IndexSet, JobPlan, PlanError, Record, StepPlan, WaitCause, first_in_order};

const ID: JobId = JobId(1);

/// A job of `count` frames of one task each, held after the first of them in this order.
fn held(count: u32, order: Order, first: u32) -> JobPlan {
    let steps =
        frames(1, count, &[(1, &[])]).steps().iter().map(|step| StepPlan { order, ..step.clone() }).collect();
    JobPlan::new(ID, steps).unwrap().held_after(first_in_order(order, count, first)).unwrap()
}

/// The frames that were dispatched.
fn dispatched(farm: &Farm) -> BTreeSet<u32> {
    let opened = farm.records.iter().filter_map(|record| match record {
        Record::AttemptOpened { task, .. } => Some(task.index.0),
        _ => None,
    });
    opened.collect()
}

fn resume(farm: &mut Farm) {
    farm.act(|core, _, out| core.resume_job(ID, out)).unwrap();
}

fn task(index: u32) -> TaskId {
    TaskId { job: ID, step: StepIndex(0), index: TaskIndex(index) }
}

#[test]
fn a_job_is_paused_after_its_first_frames_and_never_again() {
    let mut farm = Farm::new();
    farm.submit(held(9, Order::Coarse, 3));
    farm.join(1, 9);
    farm.drain();
    assert_eq!((farm.state(1), farm.counts(1).done), (JobState::Paused, 3));
    assert_eq!(dispatched(&farm), [0, 4, 8].into(), "the first of its order");
    let waits = farm.core.explainer(farm.now).explain(ID);
    assert_eq!(waits, [(StepIndex(0), vec![WaitCause::Held])]);
    farm.restart();
    farm.join(1, 9);
    farm.drain();
    assert_eq!((farm.state(1), farm.counts(1).done), (JobState::Paused, 3), "nor does a restart end it");
    resume(&mut farm);
    farm.restart();
    farm.join(1, 9);
    farm.drain();
    assert_eq!((farm.state(1), farm.counts(1).done), (JobState::Completed, 9));
    farm.act(|core, _, out| core.extend(ID, StepIndex(0), 4, out)).unwrap();
    farm.drain();
    assert_eq!((farm.state(1), farm.counts(1).done), (JobState::Completed, 13));
}

#[test]
fn a_pause_before_the_hold_leaves_it_and_resuming_a_job_that_goes_on_lifts_it() {
    let mut farm = Farm::new();
    farm.submit(held(6, Order::Sequential, 2));
    farm.act(|core, _, out| core.pause_job(ID, out)).unwrap();
    resume(&mut farm);
    farm.join(1, 1);
    farm.drain();
    assert_eq!((farm.state(1), farm.counts(1).done), (JobState::Paused, 2));

    let mut farm = Farm::new();
    farm.submit(held(6, Order::Sequential, 2));
    resume(&mut farm);
    farm.join(1, 1);
    farm.drain();
    assert_eq!((farm.state(1), farm.counts(1).done), (JobState::Completed, 6));
}

#[test]
fn a_frame_that_failed_counts_once_and_is_retried_within_the_hold() {
    let mut farm = Farm::new();
    farm.submit(held(6, Order::Sequential, 2));
    farm.join(1, 1);
    for _ in 0..3 {
        farm.schedule();
        farm.fail(1, task(0), FailureCause::Crashed);
    }
    farm.drain();
    assert_eq!((farm.counts(1).failed, farm.counts(1).done), (1, 1));
    farm.drain();
    assert_eq!((farm.state(1), dispatched(&farm)), (JobState::Paused, [0, 1].into()));
    farm.act(|core, _, out| core.retry_failed(ID, out)).unwrap();
    assert_ne!(farm.state(1), JobState::Paused, "its first frames are rendered");
    farm.drain();
    assert_eq!((farm.state(1), farm.counts(1).done), (JobState::Paused, 2), "and it is held as before");
    resume(&mut farm);
    farm.drain();
    assert_eq!((farm.state(1), farm.counts(1).done), (JobState::Completed, 6));
}

#[test]
fn frames_that_are_added_are_held_and_a_cancelled_job_ends() {
    let mut farm = Farm::new();
    farm.submit(held(4, Order::Reverse, 1));
    farm.join(1, 4);
    farm.drain();
    farm.act(|core, _, out| core.extend(ID, StepIndex(0), 3, out)).unwrap();
    farm.drain();
    assert_eq!((farm.state(1), dispatched(&farm)), (JobState::Paused, [3].into()));
    farm.act(|core, _, out| core.cancel_job(ID, out)).unwrap();
    assert_eq!((farm.state(1), farm.counts(1).cancelled), (JobState::Cancelled, 6));
    farm.act(|core, _, out| core.retry_failed(ID, out)).unwrap();
    farm.drain();
    assert_eq!((farm.state(1), dispatched(&farm)), (JobState::Paused, [3].into()));
}

#[test]
fn later_steps_of_the_first_frames_go_on() {
    let mut farm = Farm::new();
    let plan = frames(1, 5, &[(2, &[]), (1, &[same_frame(0, DependencyEnd::Done)])]);
    farm.submit(plan.held_after(first_in_order(Order::Sequential, 5, 2)).unwrap());
    farm.join(1, 3);
    farm.drain();
    assert_eq!(
        (farm.state(1), farm.counts(1).done),
        (JobState::Paused, 6),
        "two parts of each, and what makes one"
    );
    resume(&mut farm);
    farm.drain();
    assert_eq!((farm.state(1), farm.counts(1).done), (JobState::Completed, 15));
}

#[test]
fn a_job_is_not_held_after_frames_that_it_does_not_have() {
    let of_frames = |frame_count| frames(1, frame_count, &[(2, &[])]).held_after(IndexSet::first(4));
    assert_eq!(of_frames(3), Err(PlanError::NoSuchFrames), "its six tasks are of three frames");
    assert_eq!(of_frames(4).map(|plan| plan.hold().cloned()), Ok(Some(IndexSet::first(4))));
    assert_eq!(job(1, 9).held_after(IndexSet::first(1)), Err(PlanError::NoSuchFrames), "tasks are no frames");
}

proptest! {
    #[test]
    fn the_first_frames_are_those_that_the_order_names_first(order in orders(), count in 1u32..40, first in 1u32..45) {
        let found = first_in_order(order, count, first);
        prop_assert_eq!(found.len(), first.min(count));
        let mut farm = Farm::new();
        farm.submit(held(count, order, first));
        farm.join(1, 1);
        farm.drain();
        let done: IndexSet = dispatched(&farm).into_iter().map(TaskIndex).collect();
        let all = if first >= count { IndexSet::first(count) } else { found };
        prop_assert_eq!(done, all);
        let state = if first >= count { JobState::Completed } else { JobState::Paused };
        prop_assert_eq!(farm.state(1), state);
    }
}
