//! Streams, added steps, and steps without a session.

use kiln_types::{BlobHash, FailureCause, JobId, JobState, SessionKey, StepIndex, TaskId, TaskIndex};

use super::{
    Farm,
    farm::Decisions,
    frames::{frames, same_frame, streaming},
    job, steps, task, w,
};
use crate::{
    DependencyEnd, Finish, HeldPhase, JobError, JobPlan, PlanError, Record, ReportOutcome, RevokeReason,
    StepPlan, WorkerOffer,
};

const ID: JobId = JobId(1);

/// One frame of `parts` parts, and what merges them as they come. A part needs `memory` bytes, the merge 4.
fn merged(parts: u32, memory: u64) -> JobPlan {
    let plan = frames(1, 1, &[(parts, &[]), (1, &[streaming(same_frame(0, DependencyEnd::Done))])]);
    let mut steps = plan.steps().to_vec();
    steps[0].requires.room.memory = memory;
    steps[1].requires.room.memory = 4;
    (steps[1].session, steps[1].measures_speed) = (None, false);
    JobPlan::new(ID, steps).unwrap()
}

fn merge() -> TaskId {
    TaskId { job: ID, step: StepIndex(1), index: TaskIndex(0) }
}

/// A worker of `slots` slots with this memory.
fn join(farm: &mut Farm, worker: u64, slots: u16, memory: u64) {
    let offer = WorkerOffer { name: format!("w{worker}"), slots, memory, ..WorkerOffer::default() };
    let held = farm.holdings(worker);
    farm.act(|core, now, out| core.worker_joined(now, w(worker), offer, &held, out));
}

fn part(farm: &mut Farm, worker: u64, index: u32) {
    farm.start(worker, task(1, index));
    farm.deliver(worker, task(1, index));
    farm.schedule();
}

/// The worker that holds the merge, and how.
fn held(farm: &Farm) -> Option<(u64, HeldPhase)> {
    let of_merge = farm.held.values().find(|held| held.assigned.task == merge());
    of_merge.map(|held| (held.worker.bits(), held.phase))
}

#[test]
fn a_merge_streams_from_the_first_part_on_and_gets_a_slot_after_the_last() {
    let mut farm = Farm::new();
    farm.submit(merged(3, 8));
    join(&mut farm, 1, 1, 16);
    farm.schedule();
    assert_eq!(held(&farm), None, "nothing to merge yet");
    part(&mut farm, 1, 0);
    assert_eq!(held(&farm), Some((1, HeldPhase::Streaming)));
    let attempt = farm.attempt(1, merge());
    part(&mut farm, 1, 1);
    assert_eq!(farm.arrived, [attempt]);
    let early = farm.act(|core, now, out| core.attempt_finished(now, w(2), attempt, Finish::Delivered, out));
    assert_eq!(early, ReportOutcome::Superseded, "another worker's");
    part(&mut farm, 1, 2);
    assert!(matches!(held(&farm), Some((1, HeldPhase::Queued { .. }))), "the same attempt, on a slot");
    assert_eq!(farm.attempt(1, merge()), attempt);
    farm.start(1, merge());
    assert_eq!(farm.deliver(1, merge()), ReportOutcome::Committed);
    farm.schedule();
    assert_eq!(farm.state(1), JobState::Completed);
}

#[test]
fn what_streams_cannot_commit() {
    let mut farm = Farm::new();
    farm.submit(merged(2, 8));
    join(&mut farm, 1, 1, 16);
    farm.schedule();
    part(&mut farm, 1, 0);
    assert_eq!(farm.deliver(1, merge()), ReportOutcome::Superseded);
    farm.schedule();
    part(&mut farm, 1, 1);
    farm.drain();
    assert_eq!(farm.state(1), JobState::Completed);
}

#[test]
fn a_merge_gives_its_memory_up_for_a_part_that_fits_nowhere_else() {
    let mut farm = Farm::new();
    farm.submit(merged(2, 14));
    join(&mut farm, 1, 2, 16);
    farm.schedule();
    part(&mut farm, 1, 0);
    // The second part waits behind the first on the slot that has its room: the merge streams beside nothing.
    farm.schedule();
    let streamed = held(&farm);
    farm.answer_revokes();
    farm.drain();
    assert_eq!(farm.state(1), JobState::Completed, "{streamed:?}");
}

#[test]
fn a_merge_is_displaced_for_work_of_another_job_and_counts_nothing() {
    let mut farm = Farm::new();
    farm.submit(merged(2, 1));
    join(&mut farm, 1, 2, 16);
    farm.schedule();
    part(&mut farm, 1, 0);
    let attempt = farm.attempt(1, merge());
    let mut heavy = job(2, 1).steps().to_vec();
    heavy[0].requires.room.memory = 14;
    // The part that runs takes 1, the merge 4.
    farm.submit(JobPlan::new(JobId(2), heavy).unwrap());
    farm.schedule();
    assert_eq!(farm.revoked, [(w(1), attempt, RevokeReason::Displaced)]);
    assert!(farm.queue(1, 0).is_empty(), "its memory is claimed until it is reported");
    farm.answer_revokes();
    farm.schedule();
    assert_eq!(farm.queue(1, 0), [0]);
    assert_eq!(held(&farm), None, "it does not come back in its way");
    farm.drain();
    assert_eq!((farm.state(1), farm.state(2)), (JobState::Completed, JobState::Completed));
}

#[test]
fn a_merge_is_placed_elsewhere_where_its_worker_is_busy_and_another_is_not() {
    let mut farm = Farm::new();
    farm.submit(merged(2, 1));
    join(&mut farm, 1, 1, 16);
    join(&mut farm, 2, 1, 16);
    farm.schedule();
    let of = |farm: &Farm, index| {
        farm.held.values().find(|h| h.assigned.task == task(1, index)).unwrap().worker.bits()
    };
    let (first, second) = (of(&farm, 0), of(&farm, 1));
    farm.start(second, task(1, 1));
    part(&mut farm, first, 0);
    let (worker, phase) = held(&farm).unwrap();
    assert_eq!(phase, HeldPhase::Streaming);
    farm.deliver(second, task(1, 1));
    farm.schedule();
    farm.answer_revokes();
    farm.schedule();
    assert!(matches!(held(&farm), Some((_, HeldPhase::Queued { .. }))), "it streamed on {worker}");
    farm.drain();
    assert_eq!(farm.state(1), JobState::Completed);
}

#[test]
fn a_merge_that_turns_out_to_take_more_gets_its_slot_before_other_work() {
    let mut farm = Farm::new();
    farm.submit(merged(2, 1));
    join(&mut farm, 1, 2, 16);
    farm.schedule();
    part(&mut farm, 1, 0);
    assert_eq!(held(&farm), Some((1, HeldPhase::Streaming)));
    let attempt = farm.attempt(1, merge());
    let mut other = job(2, 20).steps().to_vec();
    other[0].requires.room.memory = 6;
    farm.submit(JobPlan::new(JobId(2), other).unwrap());
    farm.schedule();
    // The merge of another frame took 12. Beside a task of the other job there is no room for a tenth more.
    farm.act(|core, _, _| core.learn_memory(merge(), w(1), 12));
    part(&mut farm, 1, 1);
    let mut others = 0;
    while held(&farm) == Some((1, HeldPhase::Streaming)) {
        let at_work = farm.held.values().find(|held| held.assigned.task.job == JobId(2)).unwrap();
        let next = at_work.assigned.task;
        farm.start(1, next);
        farm.deliver(1, next);
        farm.schedule();
        others += 1;
    }
    assert!(matches!(held(&farm), Some((1, HeldPhase::Queued { .. }))), "{:?}", farm.revoked);
    assert_eq!(farm.attempt(1, merge()), attempt);
    assert!((1..=3).contains(&others), "{others} tasks of the other job went before it");
    let on_slots = farm.held.values().filter(|held| held.assigned.task.job == JobId(2)).count();
    assert_eq!(on_slots, 0, "nothing is beside it");
    farm.drain();
    assert_eq!((farm.state(1), farm.state(2)), (JobState::Completed, JobState::Completed));
}

#[test]
fn streams_survive_a_restart_and_a_connection_and_end_with_their_worker() {
    for lost in [false, true] {
        let mut farm = Farm::new();
        farm.submit(merged(3, 1));
        join(&mut farm, 1, 1, 16);
        farm.schedule();
        part(&mut farm, 1, 0);
        let attempt = farm.attempt(1, merge());
        farm.restart();
        if lost {
            farm.crash(1);
        }
        join(&mut farm, 1, 1, 16);
        farm.schedule();
        assert!(farm.revoked.is_empty());
        assert_eq!(farm.attempt(1, merge()) == attempt, !lost);
        farm.drain();
        while farm.state(1) != JobState::Completed {
            farm.drain();
        }
    }
}

#[test]
fn a_worker_that_was_not_told_of_its_slot_streams_again() {
    let mut farm = Farm::new();
    farm.submit(merged(1, 1));
    join(&mut farm, 1, 1, 16);
    farm.submit(merged_again());
    farm.schedule();
    // One part: what merges it never streams.
    part(&mut farm, 1, 0);
    assert!(matches!(held(&farm), Some((1, HeldPhase::Queued { .. }))));
    let attempt = farm.attempt(1, merge());
    // The message was lost with the connection.
    farm.held.get_mut(&attempt).unwrap().phase = HeldPhase::Streaming;
    join(&mut farm, 1, 1, 16);
    farm.schedule();
    assert!(matches!(held(&farm), Some((1, HeldPhase::Queued { .. }))), "it is placed again");
    farm.drain();
    assert_eq!(farm.state(1), JobState::Completed);
}

fn merged_again() -> JobPlan {
    JobPlan::new(JobId(3), job(3, 1).steps().to_vec()).unwrap()
}

#[test]
fn a_part_that_is_made_again_revokes_what_merges_it() {
    let mut farm = Farm::new();
    farm.submit(merged(2, 1));
    join(&mut farm, 1, 1, 16);
    farm.schedule();
    part(&mut farm, 1, 0);
    let attempt = farm.attempt(1, merge());
    farm.act(|core, _, out| core.rerender(ID, Some((StepIndex(0), &[TaskIndex(0)])), out)).unwrap();
    assert_eq!(farm.revoked, [(w(1), attempt, RevokeReason::Stale)]);
    farm.answer_revokes();
    farm.schedule();
    farm.drain();
    assert_eq!(farm.state(1), JobState::Completed);
}

#[test]
fn pauses_and_people_end_streams_and_they_come_back() {
    let mut farm = Farm::new();
    farm.submit(merged(3, 1));
    join(&mut farm, 1, 1, 16);
    farm.schedule();
    part(&mut farm, 1, 0);
    farm.act(|core, _, out| core.pause_job(ID, out)).unwrap();
    assert!(farm.revoked.iter().any(|(_, _, why)| *why == RevokeReason::Displaced));
    farm.answer_revokes();
    farm.schedule();
    assert_eq!(held(&farm), None);
    farm.act(|core, _, out| core.resume_job(ID, out)).unwrap();
    farm.schedule();
    assert!(held(&farm).is_some());
    farm.act(|core, _, out| core.cancel_job(ID, out)).unwrap();
    assert!(farm.revoked.iter().any(|(_, _, why)| *why == RevokeReason::Cancelled));
    assert_eq!(farm.state(1), JobState::Cancelled);
}

#[test]
fn a_stream_that_always_fails_fails_its_task() {
    let mut farm = Farm::new();
    farm.submit(merged(2, 1));
    join(&mut farm, 1, 1, 16);
    farm.schedule();
    part(&mut farm, 1, 0);
    farm.start(1, task(1, 1));
    for _ in 0..3 {
        assert_eq!(held(&farm), Some((1, HeldPhase::Streaming)));
        farm.fail(1, merge(), FailureCause::Crashed);
        farm.pass(40_000, &[1]);
        farm.schedule();
    }
    assert_eq!(held(&farm), None);
    farm.deliver(1, task(1, 1));
    farm.schedule();
    assert_eq!(farm.state(1), JobState::Failed);
    assert!(
        farm.records
            .iter()
            .any(|record| matches!(record, Record::TaskFailed { task, .. } if *task == merge()))
    );
}

#[test]
fn a_job_whose_parts_fail_ends_though_something_streams() {
    let mut farm = Farm::new();
    farm.submit(merged(2, 1));
    join(&mut farm, 1, 1, 16);
    farm.schedule();
    part(&mut farm, 1, 0);
    for _ in 0..3 {
        farm.start(1, task(1, 1));
        farm.fail(1, task(1, 1), FailureCause::Crashed);
        farm.pass(40_000, &[1]);
        farm.schedule();
    }
    assert_eq!(farm.state(1), JobState::Failed);
    assert!(farm.revoked.iter().any(|(_, _, why)| *why == RevokeReason::Cancelled));
}

/// Adds a step to the job as the server does.
fn add(farm: &mut Farm, plan: StepPlan) -> Result<StepIndex, JobError> {
    let mut said = Decisions::default();
    let added = farm.core.add_step(ID, plan.clone(), &mut said);
    if added.is_ok() {
        farm.ledger.add_step(ID, plan);
    }
    farm.deliver_decisions(said);
    added
}

fn video(until: DependencyEnd) -> StepPlan {
    let on = kiln_types::StepDependency { until, ..StepIndex(0).into() };
    StepPlan { after: vec![on], measures_speed: false, ..StepPlan::new(1, None) }
}

#[test]
fn a_step_is_added_to_a_job_that_runs_and_to_one_that_has_ended() {
    for has_ended in [false, true] {
        let mut farm = Farm::new();
        farm.submit(job(1, 2));
        farm.join(1, 1);
        if has_ended {
            farm.drain();
            assert_eq!(farm.state(1), JobState::Completed);
        }
        assert_eq!(add(&mut farm, video(DependencyEnd::Done)), Ok(StepIndex(1)));
        assert_ne!(farm.state(1), JobState::Completed);
        farm.restart();
        farm.held.clear();
        farm.join(1, 1);
        farm.drain();
        assert_eq!(farm.state(1), JobState::Completed);
        assert_eq!(farm.counts(1).done, 3);
    }
}

#[test]
fn a_step_is_refused_that_does_not_fit_or_that_nothing_can_be_made_of() {
    let mut farm = Farm::new();
    farm.submit(job(1, 1));
    farm.join(1, 1);
    let late = StepPlan { after: vec![StepIndex(1).into()], ..StepPlan::new(1, None) };
    let error = PlanError::NotBefore { step: StepIndex(1), after: StepIndex(1) };
    assert_eq!(add(&mut farm, late), Err(JobError::BadStep { job: ID, error }));
    farm.schedule();
    farm.start(1, task(1, 0));
    farm.fail(1, task(1, 0), FailureCause::NoCamera);
    assert_eq!(farm.state(1), JobState::Failed);
    assert_eq!(add(&mut farm, video(DependencyEnd::Done)), Err(JobError::DependencyFailed(ID)));
    assert_eq!(add(&mut farm, video(DependencyEnd::Ended)), Ok(StepIndex(1)), "it makes what there is");
    farm.drain();
    assert_eq!(farm.state(1), JobState::Failed, "its frame is still missing");
    farm.act(|core, _, out| core.retry_failed(ID, out)).unwrap();
    farm.act(|core, _, out| core.cancel_job(ID, out)).unwrap();
    assert_eq!(add(&mut farm, video(DependencyEnd::Ended)), Err(JobError::Cancelled(ID)));
}

#[test]
fn a_step_without_a_session_leaves_open_what_is_and_teaches_no_speed() {
    let session = |job: u64| SessionKey(BlobHash::of(&job.to_be_bytes()));
    let mut farm = Farm::new();
    farm.submit(job(1, 4));
    farm.join(1, 1);
    for _ in 0..4 {
        farm.schedule();
        farm.run_next(1, 10_000, Finish::Delivered);
    }
    let speed = |farm: &Farm| farm.core.state.worker(w(1)).speed.get();
    let open = |farm: &Farm| {
        let slot = &farm.core.state.worker(w(1)).slots()[0];
        (slot.session(), slot.frame_ms(Some(session(1))))
    };
    let before = (speed(&farm), open(&farm));
    let steps: Vec<StepPlan> = steps(2, &[(4, &[])]).steps().to_vec();
    let plain = steps.into_iter().map(|step| StepPlan { session: None, measures_speed: false, ..step });
    farm.submit(JobPlan::new(JobId(2), plain.collect()).unwrap());
    farm.schedule();
    for index in 0..4 {
        farm.start(1, task(2, index));
        farm.now = farm.now.after(90_000);
        farm.act(|core, now, out| core.heartbeat(now, w(1), out));
        farm.deliver(1, task(2, index));
        farm.schedule();
    }
    assert_eq!((speed(&farm), open(&farm)), before);
    assert_eq!(farm.state(2), JobState::Completed);
}
