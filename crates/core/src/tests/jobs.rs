//! Jobs: how they end, and what a person does to them.

use std::num::NonZeroU32;

use kiln_types::{FailureCause, Generation, JobId, JobState, StepIndex, TaskIndex, TaskState};

use super::{Farm, frames::same_frame, job, steps, task, w};
use crate::{
    DependencyEnd, Finish, JobError, JobPlan, PlanError, Record, ReportOutcome, RevokeReason, StepPlan,
    StepState,
};

const ID: JobId = JobId(1);

#[test]
fn a_job_renders_and_completes() {
    let mut farm = Farm::new();
    farm.submit(job(1, 5));
    assert_eq!(farm.state(1), JobState::Queued);
    farm.join(1, 2);
    farm.schedule();
    farm.start(1, task(1, 0));
    assert_eq!(farm.state(1), JobState::Running);
    farm.drain();
    assert_eq!(farm.state(1), JobState::Completed);
    assert_eq!(farm.counts(1).done, 5);
    assert!(farm.core.is_idle());
}

#[test]
fn a_step_waits_for_the_steps_before_it() {
    let mut farm = Farm::new();
    farm.submit(steps(1, &[(2, &[]), (1, &[0]), (1, &[1])]));
    farm.join(1, 4);
    farm.schedule();
    assert_eq!(farm.counts(1).assigned, 2);
    farm.deliver(1, task(1, 0));
    farm.schedule();
    assert_eq!(farm.core.job(ID).unwrap().steps[1].state, StepState::Waiting);
    farm.deliver(1, task(1, 1));
    assert_eq!(farm.core.job(ID).unwrap().steps[1].state, StepState::Open);
    farm.drain();
    assert_eq!(farm.state(1), JobState::Completed);
}

#[test]
fn a_step_behind_a_failed_one_never_runs_and_comes_back_with_a_retry() {
    let mut farm = Farm::new();
    farm.submit(steps(1, &[(2, &[]), (3, &[0])]));
    farm.join(1, 1);
    for _ in 0..3 {
        farm.schedule();
        farm.fail(1, task(1, 0), FailureCause::Crashed);
    }
    farm.drain();
    assert_eq!(farm.state(1), JobState::Failed);
    let counts = farm.counts(1);
    assert_eq!((counts.done, counts.failed, counts.cancelled), (1, 1, 3));
    assert_eq!(farm.act(|core, _, out| core.retry_failed(ID, out)), Ok(4));
    farm.drain();
    assert_eq!(farm.state(1), JobState::Completed);
}

#[test]
fn a_black_frame_is_tried_once_more_elsewhere_and_not_at_all_where_nobody_else_is() {
    let mut farm = Farm::new();
    farm.submit(job(1, 1));
    farm.join(1, 1);
    farm.schedule();
    farm.fail(1, task(1, 0), FailureCause::BlackFrame);
    assert_eq!((farm.state(1), farm.counts(1).failed), (JobState::Failed, 1));

    let mut farm = Farm::new();
    farm.submit(job(1, 1));
    for worker in 1..=3 {
        farm.join(worker, 1);
    }
    let mut on = Vec::new();
    for _ in 0..2 {
        assert_eq!(farm.counts(1).failed, 0);
        farm.schedule();
        let holder = (1..=3).find(|worker| !farm.queue(*worker, 0).is_empty()).unwrap();
        on.push(holder);
        farm.fail(holder, task(1, 0), FailureCause::BlackFrame);
    }
    assert_ne!(on[0], on[1], "it went to one worker twice");
    assert_eq!(farm.state(1), JobState::Failed);
}

#[test]
fn a_task_fails_after_three_attempts_on_different_workers() {
    let mut farm = Farm::new();
    farm.submit(job(1, 1));
    for worker in 1..=4 {
        farm.join(worker, 1);
    }
    let mut on = Vec::new();
    for _ in 0..3 {
        farm.schedule();
        let holder = (1..=4).find(|worker| !farm.queue(*worker, 0).is_empty()).unwrap();
        on.push(holder);
        farm.fail(holder, task(1, 0), FailureCause::OutOfMemory);
    }
    on.sort_unstable();
    on.dedup();
    assert_eq!(on.len(), 3, "it went to one worker twice");
    assert_eq!(farm.state(1), JobState::Failed);
    let reason = farm.records.iter().find_map(|record| match record {
        Record::TaskFailed { reason, .. } => Some(reason.cause),
        _ => None,
    });
    assert_eq!(reason, Some(FailureCause::OutOfMemory));
}

#[test]
fn with_one_worker_only_it_gets_the_task_again() {
    let mut farm = Farm::new();
    farm.submit(job(1, 1));
    farm.join(1, 1);
    for left in [2, 1, 0] {
        farm.schedule();
        assert_eq!(farm.queue(1, 0), [0], "{left} left");
        farm.fail(1, task(1, 0), FailureCause::Crashed);
    }
    farm.schedule();
    assert_eq!(farm.state(1), JobState::Failed);
}

#[test]
fn a_fault_of_the_job_stops_it_at_once() {
    let mut farm = Farm::new();
    farm.submit(job(1, 100));
    farm.join(1, 1);
    farm.join(2, 1);
    farm.schedule();
    farm.start(2, task(1, 1));
    farm.fail(1, task(1, 0), FailureCause::NoCamera);
    assert_eq!(farm.state(1), JobState::Failed);
    let counts = farm.counts(1);
    assert_eq!((counts.failed, counts.cancelled), (1, 99));
    assert!(farm.revoked.iter().any(|(who, _, why)| *who == w(2) && *why == RevokeReason::Cancelled));
    let reason = farm.records.iter().any(|record| {
        matches!(record, Record::JobState { state: JobState::Failed, reason: Some(why), .. }
            if why.cause == FailureCause::NoCamera)
    });
    assert!(reason, "the job does not say why it stopped");
    farm.answer_revokes();
    farm.act(|core, _, out| core.retry_failed(ID, out)).unwrap();
    farm.drain();
    assert_eq!(farm.counts(1).done, 100);
}

#[test]
fn pause_lets_run_what_runs_and_asks_back_what_is_queued() {
    let mut farm = Farm::new();
    farm.submit(job(1, 10));
    farm.join(1, 1);
    farm.schedule();
    farm.start(1, task(1, 0));
    farm.act(|core, _, out| core.pause_job(ID, out)).unwrap();
    farm.answer_revokes();
    farm.schedule();
    assert_eq!(farm.queue(1, 0), [0]);
    assert_eq!(farm.deliver(1, task(1, 0)), ReportOutcome::Committed);
    farm.schedule();
    assert_eq!((farm.state(1), farm.counts(1).waiting), (JobState::Paused, 9));
    farm.act(|core, _, out| core.resume_job(ID, out)).unwrap();
    farm.drain();
    assert_eq!(farm.state(1), JobState::Completed);
}

#[test]
fn a_cancelled_slot_gets_nothing_before_it_reports() {
    let mut farm = Farm::new();
    farm.submit(job(1, 3));
    farm.submit(job(2, 3));
    farm.join(1, 1);
    farm.schedule();
    farm.start(1, task(1, 0));
    farm.act(|core, _, out| core.cancel_job(ID, out)).unwrap();
    assert_eq!(farm.state(1), JobState::Cancelled);
    farm.schedule();
    assert!(farm.held.values().all(|holding| holding.assigned.task.job == ID), "given work while it may run");
    farm.answer_revokes();
    farm.schedule();
    assert!(farm.held.values().all(|holding| holding.assigned.task.job == JobId(2)));
    assert!(!farm.held.is_empty());
}

#[test]
fn what_a_cancelled_attempt_delivers_is_dropped() {
    let mut farm = Farm::new();
    farm.submit(job(1, 1));
    farm.join(1, 1);
    farm.schedule();
    farm.start(1, task(1, 0));
    farm.act(|core, _, out| core.cancel_job(ID, out)).unwrap();
    assert_eq!(farm.deliver(1, task(1, 0)), ReportOutcome::Superseded);
    assert_eq!(farm.counts(1).cancelled, 1);
}

#[test]
fn rendering_again_raises_the_generation() {
    let mut farm = Farm::new();
    farm.submit(job(1, 4));
    farm.join(1, 1);
    farm.drain();
    let chosen = [TaskIndex(1), TaskIndex(2)];
    let again = farm.act(|core, _, out| core.rerender(ID, Some((StepIndex(0), &chosen)), out));
    assert_eq!(again, Ok(2));
    let view = farm.core.task(task(1, 1)).unwrap();
    assert_eq!((view.state, view.generation), (TaskState::Waiting, Generation(1)));
    farm.drain();
    assert_eq!(farm.state(1), JobState::Completed);
    assert_eq!(farm.act(|core, _, out| core.rerender(ID, None, out)), Ok(4));
    farm.drain();
    let generations: Vec<u32> =
        (0..4).map(|index| farm.core.task(task(1, index)).unwrap().generation.0).collect();
    assert_eq!(generations, [1, 2, 2, 1]);
}

#[test]
fn rendering_a_step_again_does_what_depends_on_it_again() {
    let mut farm = Farm::new();
    farm.submit(steps(1, &[(2, &[]), (1, &[0])]));
    farm.join(1, 1);
    farm.drain();
    farm.act(|core, _, out| core.rerender(ID, Some((StepIndex(0), &[TaskIndex(0)])), out)).unwrap();
    assert_eq!(farm.counts(1).waiting, 2);
    farm.drain();
    assert_eq!(farm.state(1), JobState::Completed);
    let commits = farm.records.iter().filter(|record| matches!(record, Record::TaskCommitted { .. })).count();
    assert_eq!(commits, 5);
}

#[test]
fn extending_while_the_next_step_runs_takes_it_back() {
    let mut farm = Farm::new();
    farm.submit(steps(1, &[(1, &[]), (1, &[0])]));
    farm.join(1, 1);
    farm.schedule();
    farm.deliver(1, task(1, 0));
    farm.schedule();
    farm.act(|core, _, out| core.extend(ID, StepIndex(0), 2, out)).unwrap();
    assert_eq!(farm.revoked.len(), 1, "the step behind works on what is not whole");
    farm.answer_revokes();
    farm.drain();
    assert_eq!((farm.state(1), farm.counts(1).done), (JobState::Completed, 4));
}

#[test]
fn a_completed_job_can_grow() {
    let mut farm = Farm::new();
    farm.submit(job(1, 2));
    farm.join(1, 1);
    farm.drain();
    farm.act(|core, _, out| core.extend(ID, StepIndex(0), 3, out)).unwrap();
    assert_eq!((farm.state(1), farm.counts(1).waiting), (JobState::Running, 3));
    farm.drain();
    assert_eq!(farm.counts(1).done, 5);
}

#[test]
fn rendering_one_frame_of_a_cancelled_job_does_not_wake_the_rest() {
    let mut farm = Farm::new();
    farm.submit(job(1, 9));
    farm.join(1, 1);
    farm.schedule();
    farm.deliver(1, task(1, 0));
    farm.act(|core, _, out| core.cancel_job(ID, out)).unwrap();
    farm.answer_revokes();
    farm.act(|core, _, out| core.rerender(ID, Some((StepIndex(0), &[TaskIndex(0)])), out)).unwrap();
    farm.restart();
    farm.join(1, 1);
    farm.drain();
    assert_eq!((farm.state(1), farm.counts(1).done), (JobState::Cancelled, 1));
}

#[test]
fn verbs_that_make_no_sense_say_so() {
    let mut farm = Farm::new();
    farm.submit(job(1, 2));
    farm.join(1, 1);
    let nine = JobId(9);
    let unknown = farm.act(|core, _, out| core.cancel_job(nine, out));
    assert_eq!(unknown, Err(JobError::NoSuchJob(nine)));
    let twice = farm.act(|core, now, out| core.submit(now, job(1, 2), out));
    assert_eq!(twice, Err(JobError::JobExists(ID)));
    assert_eq!(farm.core.forget(ID), Err(JobError::JobNotEnded { job: ID, state: JobState::Queued }));
    let none = farm.act(|core, _, out| core.rerender(ID, None, out));
    assert_eq!(none, Err(JobError::NothingToRerender(ID)));
    let beyond = farm.act(|core, _, out| core.rerender(ID, Some((StepIndex(0), &[TaskIndex(2)])), out));
    assert_eq!(beyond, Err(JobError::NoSuchTask { job: ID, step: StepIndex(0), index: TaskIndex(2) }));
    let huge = farm.act(|core, _, out| core.extend(ID, StepIndex(0), u32::MAX, out));
    assert_eq!(huge, Err(JobError::TooManyTasks(ID)));
    farm.drain();
    let ended = JobError::JobEnded { job: ID, state: JobState::Completed };
    assert_eq!(farm.act(|core, _, out| core.cancel_job(ID, out)), Err(ended.clone()));
    assert_eq!(farm.act(|core, _, out| core.pause_job(ID, out)), Err(ended));
    let retry = farm.act(|core, _, out| core.retry_failed(ID, out));
    assert_eq!(retry, Err(JobError::NothingToRetry(ID)));
    assert_eq!(farm.core.forget(ID), Ok(()));
    assert_eq!(farm.core.job(ID), None);
}

#[test]
fn plans_are_checked() {
    let plan = job(1, 1).steps()[0].clone();
    assert_eq!(JobPlan::new(ID, vec![]), Err(PlanError::NoSteps));
    let mut empty = plan.clone();
    empty.count = 0;
    assert_eq!(JobPlan::new(ID, vec![empty]), Err(PlanError::NoTasks(StepIndex(0))));
    let mut huge = plan.clone();
    huge.count = kiln_types::MAX_TASKS + 1;
    assert_eq!(JobPlan::new(ID, vec![huge]), Err(PlanError::TooManyTasks(StepIndex(0))));
    let mut itself = plan.clone();
    itself.after = vec![StepIndex(0).into()];
    let not_before = PlanError::NotBefore { step: StepIndex(0), after: StepIndex(0) };
    assert_eq!(JobPlan::new(ID, vec![itself]), Err(not_before));
    let of_frames =
        |count, per_frame| StepPlan { count, per_frame: NonZeroU32::new(per_frame), ..plan.clone() };
    assert_eq!(JobPlan::new(ID, vec![of_frames(5, 2)]), Err(PlanError::PartOfFrame(StepIndex(0))));
    let behind = |step: StepPlan| StepPlan { after: vec![same_frame(0, DependencyEnd::Done)], ..step };
    let other = Err(PlanError::OtherFrames { step: StepIndex(1), after: StepIndex(0) });
    assert_eq!(JobPlan::new(ID, vec![of_frames(6, 2), behind(of_frames(2, 1))]), other);
    assert_eq!(JobPlan::new(ID, vec![plan.clone(), behind(of_frames(1, 1))]), other);
    assert_eq!(JobPlan::new(ID, vec![plan.clone(), behind(plan)]), other);
}

#[test]
fn a_report_from_the_wrong_worker_or_of_nothing_changes_nothing() {
    let mut farm = Farm::new();
    farm.submit(job(1, 2));
    farm.join(1, 1);
    farm.join(2, 1);
    farm.schedule();
    let (mine, theirs) = (farm.attempt(1, task(1, 0)), farm.attempt(2, task(1, 1)));
    farm.records.clear();
    assert_eq!(farm.report(1, theirs, Finish::Returned), ReportOutcome::Unknown);
    assert_eq!(farm.report(2, mine, Finish::Delivered), ReportOutcome::Superseded);
    let invented = kiln_types::AttemptId { epoch: kiln_types::Epoch(7), counter: 3 };
    assert_eq!(farm.report(1, invented, Finish::Delivered), ReportOutcome::Unknown);
    assert!(farm.records.is_empty());
    assert_eq!(farm.deliver(1, task(1, 0)), ReportOutcome::Committed);
    assert_eq!(farm.report(1, mine, Finish::Delivered), ReportOutcome::Superseded, "delivered twice");
}

/// A job of which every slot takes the one licence there is.
fn licensed(farm: &mut Farm, id: u64) -> JobPlan {
    farm.core.set_limit("nuke", 1);
    let mut step = job(id, 3).steps()[0].clone();
    step.requires.limits.insert("nuke".to_owned(), 1);
    JobPlan::new(JobId(id), vec![step]).unwrap()
}

/// Two workers and two jobs that want the licence; the first job renders on the first worker, and is cancelled.
fn licence_revoked() -> Farm {
    let mut farm = Farm::new();
    for worker in 1..=2 {
        farm.join(worker, 1);
    }
    for id in 1..=2 {
        let plan = licensed(&mut farm, id);
        farm.submit(plan);
    }
    farm.schedule();
    farm.start(1, task(1, 0));
    farm.act(|core, _, out| core.cancel_job(ID, out)).unwrap();
    farm.schedule();
    assert!(farm.queue(2, 0).is_empty(), "the Blender that is to die has the licence yet");
    farm
}

#[test]
fn a_licence_is_free_when_its_worker_says_that_what_was_revoked_is_gone() {
    let mut farm = licence_revoked();
    farm.act(|core, _, _| core.forget(ID)).unwrap();
    farm.schedule();
    assert!(farm.queue(2, 0).is_empty(), "nor is it free for that the job is forgotten");
    farm.answer_revokes();
    farm.drain();
    assert_eq!(farm.state(2), JobState::Completed);
}

#[test]
fn a_licence_is_free_when_the_lease_of_its_worker_has_run_out() {
    let mut farm = licence_revoked();
    farm.pass(31_000, &[2]);
    farm.schedule();
    assert_eq!(farm.queue(2, 0)[0], 0);
}

#[test]
fn a_job_that_is_cancelled_and_forgotten_at_once_holds_no_licence() {
    let mut farm = Farm::new();
    let [first, second] = [1, 2].map(|id| licensed(&mut farm, id));
    farm.submit(first);
    farm.join(1, 1);
    farm.schedule();
    farm.act(|core, _, out| {
        core.cancel_job(ID, out).unwrap();
        core.forget(ID).unwrap();
    });
    farm.answer_revokes();
    farm.submit(second);
    farm.drain();
    assert_eq!(farm.state(2), JobState::Completed);
}
