//! Steps whose tasks wait for the same frame of another step.

use std::num::NonZeroU32;

use kiln_types::{
    BlobHash, FailureCause, Generation, JobId, JobState, SessionKey, StepIndex, TaskId, TaskIndex,
};

use super::{Farm, w};
use crate::{
    DependencyEnd, DependencyScope, DependencyStart, JobError, JobPlan, Record, StepDependency, StepPlan,
    StepState,
};

const ID: JobId = JobId(1);

pub fn same_frame(step: u16, until: DependencyEnd) -> StepDependency {
    StepDependency {
        step: StepIndex(step),
        scope: DependencyScope::Frame,
        until,
        start: DependencyStart::Met,
    }
}

/// A dependency whose tasks stream until it is met.
pub fn streaming(on: StepDependency) -> StepDependency {
    StepDependency { start: DependencyStart::FirstDone, ..on }
}

/// A job of frames. Each step has a number of tasks for each frame, and dependencies.
pub fn frames(id: u64, frames: u32, steps: &[(u32, &[StepDependency])]) -> JobPlan {
    let plan = |(tasks, after): &(u32, &[StepDependency])| StepPlan {
        per_frame: NonZeroU32::new(*tasks),
        after: after.to_vec(),
        ..StepPlan::new(frames * tasks, SessionKey(BlobHash::of(&id.to_be_bytes())))
    };
    JobPlan::new(JobId(id), steps.iter().map(plan).collect()).unwrap()
}

/// Three frames of two parts each, and what makes one of them.
fn parts(until: DependencyEnd) -> JobPlan {
    frames(1, 3, &[(2, &[]), (1, &[same_frame(0, until)])])
}

fn task(step: u16, index: u32) -> TaskId {
    TaskId { job: ID, step: StepIndex(step), index: TaskIndex(index) }
}

fn out(farm: &Farm, step: u16) -> Vec<u32> {
    let mut out: Vec<u32> = farm
        .held
        .values()
        .map(|held| held.assigned.task)
        .filter(|task| task.step.0 == step)
        .map(|task| task.index.0)
        .collect();
    out.sort_unstable();
    out
}

fn generations(farm: &Farm, step: u16, tasks: u32) -> Vec<u32> {
    (0..tasks).map(|index| farm.core.task(task(step, index)).unwrap().generation.0).collect()
}

#[test]
fn a_task_waits_for_its_own_frame_and_for_no_other() {
    let mut farm = Farm::new();
    farm.submit(parts(DependencyEnd::Done));
    farm.join(1, 9);
    farm.schedule();
    assert_eq!((out(&farm, 0), out(&farm, 1)), ((0..6).collect(), vec![]));
    assert_eq!(farm.counts(1).waiting, 3, "what is blocked counts as waiting");
    farm.deliver(1, task(0, 3));
    farm.schedule();
    assert!(out(&farm, 1).is_empty(), "half a frame");
    farm.deliver(1, task(0, 2));
    farm.schedule();
    assert_eq!(out(&farm, 1), [1]);
    assert_eq!(farm.core.job(ID).unwrap().steps[1].state, StepState::Open);
    farm.drain();
    assert_eq!((farm.state(1), farm.counts(1).done), (JobState::Completed, 9));
}

#[test]
fn a_frame_is_made_before_the_parts_of_later_ones() {
    let mut farm = Farm::new();
    farm.submit(frames(1, 30, &[(2, &[]), (1, &[same_frame(0, DependencyEnd::Done)])]));
    farm.join(1, 1);
    farm.drain();
    let commits = farm.records.iter().filter_map(|record| match record {
        Record::TaskCommitted { task, .. } => Some(task.step.0),
        _ => None,
    });
    let first = commits.enumerate().find(|(_, step)| *step == 1).map(|(at, _)| at);
    // Behind the parts that its slot had queued by then, and not behind all sixty.
    assert!(first.is_some_and(|at| at < 30), "the first frame was number {first:?} of what was made");
}

#[test]
fn a_part_that_is_made_again_outdates_its_frame_and_no_other() {
    let mut farm = Farm::new();
    farm.submit(parts(DependencyEnd::Done));
    farm.join(1, 1);
    farm.drain();
    let again = farm.act(|core, _, out| core.rerender(ID, Some((StepIndex(0), &[TaskIndex(2)])), out));
    assert_eq!(again, Ok(1));
    assert_eq!(generations(&farm, 1, 3), [0, 1, 0]);
    farm.core.sanity_check();
    farm.schedule();
    assert_eq!((out(&farm, 0), out(&farm, 1)), (vec![2], vec![]));
    farm.drain();
    let commits = farm.records.iter().filter(|record| matches!(record, Record::TaskCommitted { .. }));
    assert_eq!((farm.state(1), commits.count()), (JobState::Completed, 9 + 2));
}

#[test]
fn what_is_at_work_on_an_outdated_frame_is_revoked() {
    let mut farm = Farm::new();
    farm.submit(parts(DependencyEnd::Done));
    farm.join(1, 9);
    farm.schedule();
    for part in 0..4 {
        farm.deliver(1, task(0, part));
    }
    farm.schedule();
    assert_eq!(out(&farm, 1), [0, 1]);
    farm.act(|core, _, out| core.rerender(ID, Some((StepIndex(0), &[TaskIndex(1)])), out)).unwrap();
    assert_eq!(farm.revoked.len(), 1);
    assert_eq!(generations(&farm, 1, 3), [1, 0, 0]);
    farm.answer_revokes();
    farm.drain();
    assert_eq!((farm.state(1), farm.counts(1).done), (JobState::Completed, 9));
}

/// Fails the task for good, on one worker after the other.
fn fail(farm: &mut Farm, failed: TaskId) {
    for _ in 0..3 {
        farm.schedule();
        let has =
            |id: &u64| farm.held.values().any(|held| (held.worker, held.assigned.task) == (w(*id), failed));
        let on = (1..=3).find(has).expect("a worker has it");
        farm.fail(on, failed, FailureCause::BadOutput);
    }
}

#[test]
fn a_frame_that_lacks_a_part_is_never_made() {
    let mut farm = Farm::new();
    farm.submit(parts(DependencyEnd::Done));
    (1..=3).for_each(|worker| farm.join(worker, 9));
    farm.schedule();
    fail(&mut farm, task(0, 0));
    farm.drain();
    assert_eq!((farm.state(1), farm.counts(1).done, farm.counts(1).cancelled), (JobState::Failed, 5 + 2, 1));
    assert_eq!(farm.act(|core, _, out| core.retry_failed(ID, out)), Ok(2));
    farm.drain();
    assert_eq!((farm.state(1), farm.counts(1).done), (JobState::Completed, 9));
    assert_eq!(generations(&farm, 1, 3), [0, 0, 0], "nothing was made without a part");
}

#[test]
fn what_waits_for_parts_to_end_goes_on_without_one_and_is_made_again_with_it() {
    let mut farm = Farm::new();
    farm.submit(parts(DependencyEnd::Ended));
    (1..=3).for_each(|worker| farm.join(worker, 9));
    farm.schedule();
    fail(&mut farm, task(0, 0));
    farm.drain();
    assert_eq!((farm.state(1), farm.counts(1).done, farm.counts(1).failed), (JobState::Failed, 8, 1));
    assert_eq!(farm.act(|core, _, out| core.retry_failed(ID, out)), Ok(1));
    assert_eq!(generations(&farm, 1, 3), [1, 0, 0]);
    farm.drain();
    assert_eq!((farm.state(1), farm.counts(1).done), (JobState::Completed, 9));
}

#[test]
fn a_step_may_wait_until_another_has_ended_as_a_whole() {
    let mut farm = Farm::new();
    let until = DependencyEnd::Ended;
    let whole = StepDependency {
        step: StepIndex(0),
        scope: DependencyScope::Step,
        until,
        start: DependencyStart::Met,
    };
    farm.submit(frames(1, 3, &[(1, &[]), (1, &[whole])]));
    (1..=3).for_each(|worker| farm.join(worker, 9));
    farm.schedule();
    fail(&mut farm, task(0, 1));
    farm.drain();
    assert_eq!((farm.state(1), farm.counts(1).done), (JobState::Failed, 5));
    farm.act(|core, _, out| core.retry_failed(ID, out)).unwrap();
    assert_eq!(generations(&farm, 1, 3), [1, 1, 1]);
    farm.drain();
    assert_eq!((farm.state(1), farm.counts(1).done), (JobState::Completed, 6));
}

#[test]
fn frames_are_added_to_every_step_that_has_them() {
    let mut farm = Farm::new();
    farm.submit(parts(DependencyEnd::Done));
    farm.join(1, 2);
    farm.drain();
    let part = farm.act(|core, _, out| core.extend(ID, StepIndex(0), 3, out));
    assert_eq!(part, Err(JobError::PartOfFrame(ID)));
    farm.act(|core, _, out| core.extend(ID, StepIndex(0), 4, out)).unwrap();
    assert_eq!(farm.counts(1).waiting, 4 + 2);
    farm.core.sanity_check();
    farm.drain();
    assert_eq!((farm.state(1), farm.counts(1).done), (JobState::Completed, 10 + 5));
    assert_eq!(generations(&farm, 1, 5), [0; 5], "frames that were there are not made again");
}

#[test]
fn a_restart_blocks_what_was_blocked() {
    let mut farm = Farm::new();
    farm.submit(parts(DependencyEnd::Done));
    farm.join(1, 2);
    farm.schedule();
    for part in 0..2 {
        farm.deliver(1, task(0, part));
    }
    farm.restart();
    farm.core.sanity_check();
    farm.join(1, 9);
    farm.schedule();
    assert_eq!(out(&farm, 1), [0]);
    farm.drain();
    assert_eq!((farm.state(1), farm.counts(1).done), (JobState::Completed, 9));
    assert_eq!(farm.core.task(task(1, 2)).unwrap().generation, Generation(0));
}

#[test]
fn chains_of_frames_are_outdated_to_their_end() {
    let done = DependencyEnd::Done;
    let mut farm = Farm::new();
    let all = StepDependency::from(StepIndex(1));
    farm.submit(frames(
        1,
        4,
        &[(3, &[]), (1, &[same_frame(0, done)]), (2, &[same_frame(1, done)]), (1, &[all])],
    ));
    farm.join(1, 3);
    farm.drain();
    farm.act(|core, _, out| core.rerender(ID, Some((StepIndex(0), &[TaskIndex(11)])), out)).unwrap();
    assert_eq!(generations(&farm, 1, 4), [0, 0, 0, 1]);
    assert_eq!(generations(&farm, 2, 8), [0, 0, 0, 0, 0, 0, 1, 1]);
    assert_eq!(generations(&farm, 3, 4), [1; 4]);
    farm.drain();
    assert_eq!((farm.state(1), farm.counts(1).done), (JobState::Completed, 12 + 4 + 8 + 4));
}
