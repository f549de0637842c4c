//! Workers that fall silent, come back, pause and change.

use kiln_types::{
    AttemptState, DesiredState, FailureCause, JobId, JobState, SlotIndex, TaskState, WorkerState,
};

use super::{Farm, job, task, w};
use crate::{
    Finish, HeldAttempt, HeldPhase, Label, Moment, Record, ReportOutcome, RevokeReason, StepPlan, WorkerOffer,
};

fn lease(farm: &Farm) -> u64 {
    farm.core.config.lease_ms
}

#[test]
fn a_silent_worker_loses_its_frame_and_another_gets_it() {
    let mut farm = Farm::new();
    farm.submit(job(1, 1));
    farm.join(1, 1);
    farm.schedule();
    farm.start(1, task(1, 0));
    farm.join(2, 1);
    farm.pass(lease(&farm), &[2]);
    assert_eq!(farm.core.worker(w(1)).unwrap().state, WorkerState::Offline);
    farm.schedule();
    assert_eq!(farm.queue(2, 0), [0]);
    assert_eq!(farm.deliver(2, task(1, 0)), ReportOutcome::Committed);
    assert_eq!(farm.deliver(1, task(1, 0)), ReportOutcome::Superseded);
    assert_eq!(farm.state(1), JobState::Completed);
}

#[test]
fn an_expired_attempt_that_delivers_first_wins() {
    let mut farm = Farm::new();
    farm.submit(job(1, 1));
    farm.join(1, 1);
    farm.schedule();
    farm.start(1, task(1, 0));
    farm.join(2, 1);
    farm.pass(lease(&farm), &[2]);
    farm.schedule();
    farm.start(2, task(1, 0));
    assert_eq!(farm.deliver(1, task(1, 0)), ReportOutcome::Committed);
    assert_eq!(farm.revoked.pop().map(|revoke| revoke.2), Some(RevokeReason::Stale));
    assert_eq!(farm.deliver(2, task(1, 0)), ReportOutcome::Superseded);
    let commits = farm.records.iter().filter(|record| matches!(record, Record::TaskCommitted { .. })).count();
    assert_eq!(commits, 1);
}

#[test]
fn the_third_loss_fails_the_task() {
    let mut farm = Farm::new();
    farm.submit(job(1, 2));
    for worker in 1..=3 {
        farm.join(worker, 1);
        farm.schedule();
        farm.start(worker, task(1, 0));
        farm.crash(worker);
        farm.pass(lease(&farm), &[]);
    }
    let task = farm.core.task(task(1, 0)).unwrap();
    assert_eq!(task.state, TaskState::Failed);
    let reason = farm.records.iter().find_map(|record| match record {
        Record::TaskFailed { reason, .. } => Some(reason.message.clone()),
        _ => None,
    });
    assert_eq!(reason.as_deref(), Some("took three workers down: w1, w2, w3"));
    // The loss does not count against the one that was queued behind it.
    assert_eq!(farm.counts(1).waiting, 1);
}

#[test]
fn a_worker_that_crashes_and_restarts_at_once_counts_as_a_loss() {
    let mut farm = Farm::new();
    farm.submit(job(1, 1));
    for _ in 0..3 {
        farm.join(1, 1);
        farm.schedule();
        farm.start(1, task(1, 0));
        farm.crash(1);
    }
    farm.join(1, 1);
    assert_eq!(farm.state(1), JobState::Failed);
}

#[test]
fn a_worker_goes_on_after_its_connection_was_lost() {
    let mut farm = Farm::new();
    farm.submit(job(1, 4));
    farm.join(1, 1);
    farm.schedule();
    farm.start(1, task(1, 0));
    farm.leave(1);
    farm.pass(lease(&farm) / 2, &[]);
    farm.join(1, 1);
    assert!(farm.revoked.is_empty());
    assert_eq!(farm.queue(1, 0), [0, 1]);
    farm.drain();
    assert_eq!(farm.counts(1).done, 4);
    let bad =
        |r: &&Record| matches!(r, Record::AttemptClosed { state, .. } if *state != AttemptState::Committed);
    assert_eq!(farm.records.iter().find(bad), None);
}

#[test]
fn a_worker_that_was_silent_takes_up_what_nobody_else_took() {
    let mut farm = Farm::new();
    farm.submit(job(1, 1));
    farm.join(1, 1);
    farm.schedule();
    farm.start(1, task(1, 0));
    farm.pass(lease(&farm), &[]);
    assert_eq!(farm.counts(1).waiting, 1);
    farm.act(|core, now, out| core.heartbeat(now, w(1), out));
    assert_eq!(farm.counts(1).running, 1);
    assert!(farm.revoked.is_empty());
    assert_eq!(farm.deliver(1, task(1, 0)), ReportOutcome::Committed);
}

#[test]
fn a_worker_that_was_silent_stops_what_another_took() {
    let mut farm = Farm::new();
    farm.submit(job(1, 8));
    farm.join(1, 1);
    farm.schedule();
    farm.start(1, task(1, 0));
    farm.join(2, 1);
    farm.pass(lease(&farm), &[2]);
    farm.schedule();
    assert_eq!(farm.queue(2, 0), [0, 1]);
    farm.act(|core, now, out| core.heartbeat(now, w(1), out));
    assert_eq!(farm.revoked.len(), 2);
    farm.schedule();
    assert_eq!(farm.queue(1, 0), [0, 1], "given work before it reported");
    farm.answer_revokes();
    farm.schedule();
    assert_eq!(farm.queue(1, 0), [2, 3]);
}

#[test]
fn work_survives_a_restart_of_the_server() {
    let mut farm = Farm::new();
    farm.submit(job(1, 6));
    farm.join(1, 1);
    farm.schedule();
    farm.start(1, task(1, 0));
    farm.deliver(1, task(1, 0));
    farm.schedule();
    farm.start(1, task(1, 1));
    farm.restart();
    assert_eq!(farm.counts(1).done, 1);
    assert_eq!(farm.state(1), JobState::Running);
    farm.held.values_mut().for_each(|holding| {
        if let HeldPhase::Running { slot } = holding.phase {
            holding.phase = HeldPhase::Finished { slot };
        }
    });
    farm.join(1, 1);
    assert!(farm.revoked.is_empty());
    assert_eq!(farm.deliver(1, task(1, 1)), ReportOutcome::Committed);
    farm.drain();
    assert_eq!(farm.state(1), JobState::Completed);
}

#[test]
fn after_a_restart_a_worker_that_does_not_come_back_loses_its_work() {
    let mut farm = Farm::new();
    farm.submit(job(1, 2));
    farm.join(1, 1);
    farm.schedule();
    farm.start(1, task(1, 0));
    farm.restart();
    farm.join(2, 1);
    farm.schedule();
    assert_eq!(farm.counts(1).waiting, 0, "the grace is not over");
    farm.pass(lease(&farm), &[2]);
    farm.held.retain(|_, holding| holding.worker == w(2));
    farm.drain();
    assert_eq!(farm.state(1), JobState::Completed);
}

#[test]
fn what_the_server_never_sent_before_it_died_is_nobodys_fault() {
    let mut farm = Farm::new();
    farm.submit(job(1, 1));
    for _ in 0..5 {
        farm.join(1, 1);
        farm.schedule();
        farm.held.clear();
        farm.restart();
    }
    farm.join(1, 1);
    farm.drain();
    assert_eq!(farm.state(1), JobState::Completed);
}

#[test]
fn counted_failures_survive_a_restart() {
    let mut farm = Farm::new();
    farm.submit(job(1, 1));
    for _ in 0..3 {
        farm.join(1, 1);
        farm.schedule();
        farm.fail(1, task(1, 0), FailureCause::Crashed);
        farm.restart();
    }
    assert_eq!(farm.state(1), JobState::Failed);
}

#[test]
fn a_task_that_a_machine_is_too_small_for_is_not_tried_there_again_after_a_restart() {
    let mut farm = Farm::new();
    farm.submit(job(1, 1));
    let join = |farm: &mut Farm, worker: u64, gib: u64| {
        let offer = WorkerOffer { slots: 1, memory: gib << 30, ..WorkerOffer::default() };
        farm.act(|core, now, out| core.worker_joined(now, w(worker), offer, &[], out));
        farm.schedule();
    };
    join(&mut farm, 1, 8);
    join(&mut farm, 2, 16);
    farm.act(|core, _, out| core.set_desired_state(w(2), DesiredState::Paused, out));
    farm.start(1, task(1, 0));
    farm.fail(1, task(1, 0), FailureCause::OutOfMemory);
    farm.restart();
    join(&mut farm, 1, 8);
    assert!(farm.queue(1, 0).is_empty());
    join(&mut farm, 2, 16);
    assert_eq!(farm.queue(2, 0), [0]);
}

#[test]
fn a_paused_worker_gets_nothing_and_returns_what_it_has_not_begun() {
    let mut farm = Farm::new();
    farm.submit(job(1, 8));
    farm.join(1, 1);
    farm.schedule();
    farm.start(1, task(1, 0));
    farm.act(|core, _, out| core.set_desired_state(w(1), DesiredState::Paused, out));
    farm.answer_revokes();
    farm.schedule();
    assert_eq!(farm.queue(1, 0), [0]);
    assert_eq!(farm.core.worker(w(1)).unwrap().state, WorkerState::Paused);
    farm.deliver(1, task(1, 0));
    farm.schedule();
    assert!(farm.queue(1, 0).is_empty());
    farm.act(|core, _, out| core.set_desired_state(w(1), DesiredState::Active, out));
    farm.drain();
    assert_eq!(farm.counts(1).done, 8);
}

#[test]
fn made_up_attempts_are_revoked_and_block_only_their_slot() {
    let mut farm = Farm::new();
    farm.submit(job(1, 8));
    let attempt = kiln_types::AttemptId { epoch: kiln_types::Epoch(0), counter: 77 };
    let foreign = HeldAttempt {
        attempt,
        task: task(1, 3),
        generation: kiln_types::Generation(0),
        phase: HeldPhase::Running { slot: SlotIndex(0) },
    };
    let offer = WorkerOffer { name: "liar".into(), slots: 2, ..WorkerOffer::default() };
    farm.act(|core, now, out| core.worker_joined(now, w(1), offer, &[foreign, foreign], out));
    assert_eq!(farm.revoked, [(w(1), attempt, RevokeReason::Stale)]);
    farm.schedule();
    assert!(farm.queue(1, 0).is_empty() && !farm.queue(1, 1).is_empty());
    assert_eq!(farm.report(1, attempt, Finish::Returned), ReportOutcome::Recorded);
    farm.schedule();
    assert!(!farm.queue(1, 0).is_empty());
}

#[test]
fn an_attempt_named_with_another_task_is_not_the_one_that_was_given() {
    let mut farm = Farm::new();
    farm.submit(job(1, 1));
    farm.join(1, 1);
    farm.schedule();
    let mut held = farm.holdings(1);
    held[0].task = task(1, 5);
    let offer = WorkerOffer { name: "w1".into(), slots: 1, ..WorkerOffer::default() };
    farm.act(|core, now, out| core.worker_joined(now, w(1), offer, &held, out));
    assert_eq!(farm.revoked.len(), 1);
    assert_eq!(farm.counts(1).waiting, 1);
}

/// Of a job that waits for its bake, the frames behind it do not explain why nothing runs.
#[test]
fn a_step_that_is_locked_lacks_nothing() {
    let mut farm = Farm::new();
    let mut plans = super::steps(1, &[(1, &[]), (3, &[0])]).steps().to_vec();
    for (plan, needs) in plans.iter_mut().zip(["blender 3.4", "device cuda"]) {
        plan.requires = [needs].into_iter().collect();
    }
    farm.submit(crate::JobPlan::new(JobId(1), plans).unwrap());
    farm.join_with(1, 1, &["device cpu"]);
    let lacks = |farm: &Farm| {
        let unmet = farm.core.explainer(farm.now).unmet(JobId(1), 10);
        unmet.into_iter().map(|unmet| (unmet.step.0, unmet.missing.len())).collect::<Vec<_>>()
    };
    assert_eq!(lacks(&farm), [(0, 1)]);
    farm.join_with(2, 1, &["blender 3.4"]);
    farm.schedule();
    farm.start(2, task(1, 0));
    farm.deliver(2, task(1, 0));
    assert_eq!(lacks(&farm), [(1, 1), (1, 1)]);
}

#[test]
fn a_worker_that_does_not_fit_waits_and_says_what_it_lacks() {
    let mut farm = Farm::new();
    let mut step: StepPlan = job(1, 2).steps()[0].clone();
    step.requires = ["blender 5.0", "device cpu"].into_iter().collect();
    farm.submit(crate::JobPlan::new(JobId(1), vec![step]).unwrap());
    farm.join_with(1, 1, &["blender 3.4", "device cpu"]);
    farm.schedule();
    assert!(farm.held.is_empty());
    let unmet = farm.core.explainer(farm.now).unmet(JobId(1), 10);
    assert_eq!(unmet.len(), 1);
    assert_eq!(unmet[0].missing.iter().collect::<Vec<_>>(), [&Label::from("blender 5.0")]);
    let labels = ["blender 5.0", "device cpu"].map(Label::from).into_iter().collect();
    let offer = WorkerOffer { name: "w1".into(), slots: 1, labels, ..WorkerOffer::default() };
    farm.act(|core, _, out| core.worker_offer_changed(w(1), offer, out));
    assert!(farm.core.explainer(farm.now).unmet(JobId(1), 10).is_empty());
    farm.drain();
    assert_eq!(farm.state(1), JobState::Completed);
}

#[test]
fn fewer_slots_work_off_what_they_began() {
    let mut farm = Farm::new();
    farm.submit(job(1, 20));
    farm.join(1, 3);
    farm.schedule();
    farm.start(1, task(1, 2));
    let offer = WorkerOffer { name: "w1".into(), slots: 1, ..WorkerOffer::default() };
    farm.act(|core, _, out| core.worker_offer_changed(w(1), offer, out));
    farm.answer_revokes();
    farm.schedule();
    assert_eq!((farm.queue(1, 1).len(), farm.queue(1, 2)), (0, vec![2]));
    farm.drain();
    assert_eq!(farm.counts(1).done, 20);
    assert_eq!(farm.core.state.worker(w(1)).slots().len(), 1);
}

/// Offers one slot, available or not.
fn set_unavailable(farm: &mut Farm, worker: u64, unavailable: bool) {
    let offer = WorkerOffer { name: format!("w{worker}"), slots: 1, unavailable, ..WorkerOffer::default() };
    farm.act(|core, _, out| core.worker_offer_changed(w(worker), offer, out));
}

#[test]
fn an_unavailable_worker_ends_what_it_renders_and_others_get_its_queue() {
    let mut farm = Farm::new();
    farm.submit(job(1, 6));
    farm.join(1, 1);
    farm.schedule();
    farm.start(1, task(1, 0));
    set_unavailable(&mut farm, 1, true);
    assert_eq!(farm.core.worker(w(1)).unwrap().state, WorkerState::Unavailable);
    farm.answer_revokes();
    farm.schedule();
    assert_eq!(farm.queue(1, 0), [0], "what runs goes on, and nothing comes to it");
    farm.deliver(1, task(1, 0));
    farm.schedule();
    assert!(farm.queue(1, 0).is_empty());
    farm.join(2, 1);
    farm.schedule();
    assert!(!farm.queue(2, 0).is_empty());
    set_unavailable(&mut farm, 1, false);
    farm.schedule();
    assert!(!farm.queue(1, 0).is_empty());
    farm.drain();
    assert_eq!(farm.counts(1).done, 6);
}

#[test]
fn a_frame_that_an_unavailable_worker_returns_may_be_its_own_again() {
    let mut farm = Farm::new();
    farm.submit(job(1, 1));
    farm.join(1, 1);
    farm.schedule();
    farm.start(1, task(1, 0));
    set_unavailable(&mut farm, 1, true);
    farm.finish(1, task(1, 0), Finish::Returned);
    farm.schedule();
    assert_eq!((farm.counts(1).waiting, farm.counts(1).failed), (1, 0));
    set_unavailable(&mut farm, 1, false);
    farm.schedule();
    assert_eq!(farm.queue(1, 0), [0], "it has no cooldown for what it returned");
}

#[test]
fn a_worker_that_leaves_with_nothing_is_offline_at_once() {
    let mut farm = Farm::new();
    farm.join(1, 1);
    assert!(farm.core.next_deadline().is_some());
    farm.leave(1);
    assert_eq!(farm.core.worker(w(1)).unwrap().state, WorkerState::Offline);
    // The end of its lease may be looked at once, for nothing.
    farm.pass(60_000, &[]);
    assert_eq!(farm.core.next_deadline(), None);
    assert!(farm.act(|core, now, out| core.forget_worker(now, w(1), out)));
    assert!(farm.core.workers().is_empty());
}

#[test]
fn a_removed_worker_frees_its_tasks_and_none_counts() {
    let mut farm = Farm::new();
    farm.submit(job(1, 1));
    for worker in 1..=4 {
        farm.join(worker, 1);
        farm.schedule();
        farm.start(worker, task(1, 0));
        farm.act(|core, now, out| core.forget_worker(now, w(worker), out));
        farm.held.clear();
    }
    assert_eq!(farm.counts(1).waiting, 1);
}

/// Four workers with a frame each, at the end of a time in which the server did nothing.
fn held_up(ms: u64) -> Farm {
    let mut farm = Farm::new();
    for worker in 1..=4 {
        farm.submit(job(worker, 1));
        farm.join(worker, 1);
        farm.schedule();
        farm.start(worker, task(worker, 0));
    }
    farm.now = farm.now.after(ms);
    farm
}

fn tick(farm: &mut Farm) {
    farm.act(|core, now, out| core.tick(now, out));
}

fn states(farm: &Farm) -> Vec<WorkerState> {
    farm.core.workers().into_iter().map(|worker| worker.state).collect()
}

#[test]
fn a_server_that_was_held_up_expires_nobody_of_whom_something_waits() {
    use WorkerState::{Offline, Rendering};
    let lease = lease(&Farm::new());
    let mut farm = held_up(lease + 20_000);
    assert_eq!(farm.core.expiring(farm.now), [1, 2, 3, 4].map(w));
    // The heartbeat of one arrived 10 s ago, of another too long ago, and of a third just now: it has connected again.
    farm.act(|core, _, out| core.worker_left(w(3), out));
    for (worker, ago) in [(1, 10_000), (2, lease), (3, 0)] {
        let arrived = Moment(farm.now.0 - ago);
        farm.act(|core, _, _| core.renew_lease(arrived, w(worker)));
    }
    assert_eq!(farm.core.expiring(farm.now), [w(2), w(4)]);
    tick(&mut farm);
    assert_eq!(states(&farm), [Rendering, Offline, Rendering, Offline]);
    // Leases run from when it arrived, not from when the core was told.
    farm.now = farm.now.after(lease - 10_001);
    tick(&mut farm);
    assert_eq!(states(&farm), [Rendering, Offline, Rendering, Offline]);
    farm.now = farm.now.after(1);
    tick(&mut farm);
    assert_eq!(states(&farm), [Offline, Offline, Rendering, Offline]);
    // Expired attempts are resumed by a heartbeat alone.
    farm.act(|core, now, _| core.renew_lease(now, w(1)));
    assert_eq!(states(&farm)[0], Offline);
    farm.act(|core, now, out| core.heartbeat(now, w(1), out));
    assert_eq!(states(&farm)[0], Rendering);
}

#[test]
fn an_old_sign_of_life_takes_nothing_from_a_lease() {
    let lease = lease(&Farm::new());
    let mut farm = held_up(20_000);
    farm.act(|core, now, out| core.heartbeat(now, w(1), out));
    let before = Moment(farm.now.0 - 15_000);
    farm.act(|core, _, out| core.heartbeat(before, w(1), out));
    farm.act(|core, _, _| core.renew_lease(before, w(1)));
    farm.now = farm.now.after(lease - 1);
    tick(&mut farm);
    assert_eq!(states(&farm)[0], WorkerState::Rendering);
}
