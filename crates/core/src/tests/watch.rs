//! Attempts that take too long.

use kiln_types::{AttemptState, FailureCause, JobState};

use super::{Farm, job, task};
use crate::{Finish, Record, RevokeReason, SlowAttempt};

/// Workers that have each delivered some frames of a second.
fn measured(workers: u64, frames: u32) -> Farm {
    let mut farm = Farm::new();
    for worker in 1..=workers {
        farm.join(worker, 1);
    }
    farm.submit(job(1, 200));
    farm.schedule();
    for _ in 0..frames {
        for worker in 1..=workers {
            farm.run_next(worker, 1_000, Finish::Delivered);
        }
    }
    farm
}

fn timed_out(farm: &Farm) -> Vec<String> {
    let of = |record: &Record| match record {
        Record::AttemptClosed { state: AttemptState::Failed, failure: Some(failure), .. } => {
            assert_eq!(failure.cause, FailureCause::TimedOut);
            Some(failure.message.clone())
        }
        _ => None,
    };
    farm.records.iter().filter_map(of).collect()
}

fn begin(farm: &mut Farm, worker: u64) -> u32 {
    let index = farm.queue(worker, 0)[0];
    farm.start(worker, task(1, index));
    index
}

#[test]
fn a_frame_is_not_ended_because_others_were_faster() {
    let mut farm = measured(1, 6);
    let slow = begin(&mut farm, 1);
    let attempt = farm.attempt(1, task(1, slow));
    farm.pass(59_000, &[1]);
    assert_eq!(farm.core.slow(farm.now, attempt), None, "a minute is given to every frame");
    farm.pass(2_000, &[1]);
    assert_eq!(farm.core.slow(farm.now, attempt), Some(SlowAttempt { ran_ms: 61_000, usual_ms: 1_000 }));
    // It synchronizes a scene, or is at one sample: its Blender computes, and tells nothing.
    for _ in 0..60 {
        farm.works(1, task(1, slow));
        farm.pass(14 * 60_000, &[1]);
    }
    assert!(timed_out(&farm).is_empty());
    farm.deliver(1, task(1, slow));
    assert_eq!((farm.counts(1).failed, farm.core.slow(farm.now, attempt)), (0, None));
}

#[test]
fn a_worker_of_which_no_frame_was_measured_is_not_compared() {
    let mut farm = measured(2, 6);
    farm.join(3, 1);
    farm.schedule();
    let index = begin(&mut farm, 3);
    farm.pass(14 * 60_000, &[1, 2, 3]);
    assert_eq!(farm.core.slow(farm.now, farm.attempt(3, task(1, index))), None);
}

#[test]
fn what_works_for_a_day_and_shows_nothing_is_ended() {
    let mut farm = Farm::new();
    farm.join(1, 1);
    farm.submit(job(1, 2));
    farm.schedule();
    let index = begin(&mut farm, 1);
    let hour = |farm: &mut Farm| {
        for _ in 0..6 {
            farm.pass(10 * 60_000, &[1]);
            if timed_out(farm).is_empty() {
                farm.works(1, task(1, index));
            }
        }
    };
    for _ in 0..23 {
        hour(&mut farm);
    }
    // One sample in a day suffices.
    farm.progress(1, task(1, index));
    for _ in 0..23 {
        hour(&mut farm);
    }
    assert!(timed_out(&farm).is_empty());
    hour(&mut farm);
    assert_eq!(
        timed_out(&farm),
        [
            "it was stopped: its Blender had worked for 24 h and shown nothing for it: no sample, no message, no byte"
        ]
    );
    let (_, _, why) = farm.revoked[0];
    assert_eq!(why, RevokeReason::TimedOut);
}

#[test]
fn heartbeats_are_no_progress() {
    let mut farm = Farm::new();
    farm.join(1, 1);
    farm.submit(job(1, 2));
    farm.schedule();
    begin(&mut farm, 1);
    farm.pass(15 * 60_000, &[1]);
    assert_eq!(
        timed_out(&farm),
        ["it was stopped: its Blender had done nothing, and reported nothing, for 15 min"]
    );
}

#[test]
fn what_gets_on_may_take_hours() {
    let mut farm = Farm::new();
    farm.join(1, 1);
    farm.submit(job(1, 1));
    farm.schedule();
    let index = begin(&mut farm, 1);
    for _ in 0..30 {
        farm.pass(14 * 60_000, &[1]);
        farm.progress(1, task(1, index));
    }
    farm.deliver(1, task(1, 0));
    assert_eq!(farm.state(1), JobState::Completed);
    assert!(timed_out(&farm).is_empty());
}

#[test]
fn a_step_says_how_long_it_may_be_silent() {
    let mut farm = Farm::new();
    farm.join(1, 1);
    let mut step = job(1, 1).steps()[0].clone();
    step.hang_ms = Some(20_000);
    farm.submit(crate::JobPlan::new(kiln_types::JobId(1), vec![step]).unwrap());
    farm.schedule();
    begin(&mut farm, 1);
    let deadline = farm.core.next_deadline().unwrap();
    assert!(deadline <= farm.now.after(20_000), "the server would wake too late");
    farm.pass(20_000, &[1]);
    assert_eq!(timed_out(&farm).len(), 1);
}

#[test]
fn nothing_hangs_while_a_sign_that_it_works_may_wait() {
    let mut farm = Farm::new();
    farm.join(1, 1);
    farm.submit(job(1, 1));
    farm.schedule();
    farm.start(1, task(1, 0));
    farm.pass(14 * 60_000, &[1]);
    assert!(farm.core.hanging(farm.now).is_empty());
    // The server was held up, and has not been told yet what came meanwhile.
    farm.now = farm.now.after(2 * 60_000);
    assert_eq!(farm.core.hanging(farm.now), [super::w(1)].into());
    for _ in 0..3 {
        farm.act(|core, now, out| {
            core.renew_lease(now, super::w(1));
            core.postpone_hang(now, super::w(1));
            core.tick(now, out);
        });
        farm.now = farm.now.after(1_000);
    }
    assert!(timed_out(&farm).is_empty());
    farm.works(1, task(1, 0));
    farm.pass(14 * 60_000, &[1]);
    assert!(timed_out(&farm).is_empty());
    farm.pass(2 * 60_000, &[1]);
    assert_eq!(timed_out(&farm).len(), 1, "it is ended all the same where nothing comes");
}
