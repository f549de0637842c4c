//! Cooldowns of workers that refuse assignments.

use kiln_types::{DesiredState, FailureCause, JobState};

use super::farm::{Farm, job, task, w};
use crate::Finish;

/// Milliseconds until the worker is given something again.
fn until_next(farm: &mut Farm, worker: u64, alive: &[u64]) -> u64 {
    let before = farm.now;
    farm.schedule();
    while farm.holdings(worker).is_empty() {
        // The server wakes up exactly then, or never if nothing is due.
        let deadline = farm.core.next_deadline().unwrap();
        assert!(deadline > farm.now, "the server would turn in a circle");
        let next = deadline.since(farm.now).min(5_000);
        farm.pass(next, alive);
        farm.schedule();
    }
    farm.now.since(before)
}

fn return_all(farm: &mut Farm, worker: u64) {
    for held in farm.holdings(worker) {
        farm.finish(worker, held.task, Finish::Returned);
    }
}

#[test]
fn a_worker_that_returns_everything_gets_work_ever_less_often() {
    let mut farm = Farm::new();
    farm.submit(job(1, 20));
    farm.join(1, 2);
    farm.schedule();
    for pause in [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
        assert!(!farm.holdings(1).is_empty());
        return_all(&mut farm, 1);
        assert_eq!(until_next(&mut farm, 1, &[1]), pause);
    }
    // Once it begins something, it is a worker as any other.
    let first = farm.holdings(1)[0].task;
    farm.start(1, first);
    farm.deliver(1, first);
    return_all(&mut farm, 1);
    assert_eq!(until_next(&mut farm, 1, &[1]), 500);
    farm.drain();
    assert_eq!(farm.state(1), JobState::Completed);
}

#[test]
fn other_sessions_and_other_workers_go_on() {
    let mut farm = Farm::new();
    farm.submit(job(1, 4));
    farm.join(1, 1);
    farm.schedule();
    return_all(&mut farm, 1);
    farm.submit(job(2, 1));
    farm.join(2, 1);
    farm.schedule();
    assert!(farm.holdings(1).iter().all(|held| held.task == task(2, 0)), "{:?}", farm.holdings(1));
    assert_eq!(farm.holdings(1).len(), 1);
    assert!(farm.holdings(2).iter().any(|held| held.task.job.0 == 1));
    // An idle slot that may not take it does not ask for it either.
    farm.deliver(1, task(2, 0));
    farm.schedule();
    assert!(farm.revoked.is_empty(), "{:?}", farm.revoked);
}

#[test]
fn the_return_of_a_preempted_attempt_is_no_refusal() {
    let mut farm = Farm::new();
    farm.submit(job(1, 3));
    farm.join(1, 1);
    farm.schedule();
    farm.act(|core, _, out| core.pause_job(kiln_types::JobId(1), out)).unwrap();
    farm.answer_revokes();
    farm.act(|core, _, out| core.resume_job(kiln_types::JobId(1), out)).unwrap();
    assert_eq!(until_next(&mut farm, 1, &[1]), 0);
    // One that drains, and then works again.
    farm.act(|core, _, out| core.set_desired_state(w(1), DesiredState::Draining, out));
    return_all(&mut farm, 1);
    farm.act(|core, _, out| core.set_desired_state(w(1), DesiredState::Active, out));
    assert_eq!(until_next(&mut farm, 1, &[1]), 0);
}

/// As a worker reports it: begun, and failed.
fn cannot_start(farm: &mut Farm, worker: u64) -> usize {
    let held = farm.holdings(worker);
    for held in &held {
        farm.start(worker, held.task);
        farm.fail(worker, held.task, FailureCause::CannotStart);
    }
    held.len()
}

#[test]
fn broken_workers_do_not_fail_a_job_that_others_render() {
    let mut farm = Farm::new();
    farm.submit(job(1, 30));
    for worker in 1..=5 {
        farm.join(worker, 1);
    }
    let mut failures = 0;
    while farm.state(1) != JobState::Completed {
        farm.schedule();
        for broken in 1..=4 {
            failures += cannot_start(&mut farm, broken);
        }
        if let Some(held) = farm.holdings(5).first().copied() {
            farm.start(5, held.task);
            farm.pass(1_000, &[1, 2, 3, 4, 5]);
            farm.deliver(5, held.task);
        }
        assert!(!farm.state(1).is_end() || farm.counts(1).failed == 0, "{:?}", farm.counts(1));
    }
    // Half a minute of rendering: each broken one was tried a handful of times, with its queue of two.
    assert!(failures <= 4 * 7 * 2, "{failures} failures");
}

#[test]
fn where_all_are_broken_the_job_soon_says_so() {
    let mut farm = Farm::new();
    farm.submit(job(1, 10));
    farm.join(1, 2);
    farm.join(2, 1);
    farm.schedule();
    let begin = farm.now;
    while !farm.state(1).is_end() {
        let failed = cannot_start(&mut farm, 1) + cannot_start(&mut farm, 2);
        assert!(failed > 0, "nobody is given anything");
        farm.schedule();
    }
    assert_eq!(farm.state(1), JobState::Failed);
    assert_eq!(farm.now, begin, "nobody had to wait");
}

#[test]
fn a_fault_of_the_scene_still_has_three_attempts() {
    let mut farm = Farm::new();
    farm.submit(job(1, 1));
    for worker in 1..=5 {
        farm.join(worker, 1);
    }
    for attempt in 1..=3 {
        farm.schedule();
        let worker = (1..=5).find(|worker| !farm.holdings(*worker).is_empty()).unwrap();
        farm.start(worker, task(1, 0));
        farm.fail(worker, task(1, 0), FailureCause::Crashed);
        assert_eq!(farm.state(1).is_end(), attempt == 3);
    }
}

#[test]
fn a_task_that_broken_workers_have_failed_waits_for_the_one_that_returned_it() {
    let mut farm = Farm::new();
    farm.submit(job(1, 1));
    for worker in 1..=3 {
        farm.join(worker, 1);
        farm.schedule();
        // A fourth worker may do it, so the third failure is not the last.
        if worker == 3 {
            farm.join(4, 1);
        }
        assert_eq!(cannot_start(&mut farm, worker), 1, "worker {worker} has it");
    }
    farm.schedule();
    assert_eq!(farm.queue(4, 0), [0]);
    return_all(&mut farm, 4);
    assert_eq!(farm.counts(1).waiting, 1, "nothing went wrong with it");
    assert!(until_next(&mut farm, 4, &[4]) > 0);
    farm.start(4, task(1, 0));
    farm.deliver(4, task(1, 0));
    assert_eq!(farm.state(1), JobState::Completed);
}
