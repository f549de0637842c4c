//! Attempts that take too long.

use kiln_types::{AttemptState, FailureCause, JobState};

use super::{Farm, job, task};
use crate::{Finish, Record, RevokeReason};

/// Workers that have each delivered so many frames of a second.
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
fn a_frame_that_takes_ten_times_as_long_as_the_others_is_stopped() {
    let mut farm = measured(2, 4);
    let index = begin(&mut farm, 1);
    farm.pass(59_000, &[1, 2]);
    assert!(timed_out(&farm).is_empty(), "a minute is given to every frame");
    farm.pass(1_000, &[1, 2]);
    assert_eq!(
        timed_out(&farm),
        [
            "it was stopped after 60 s: frames of this job take 1.0 s on this worker; a frame may take ten times that, a \
             minute at least, and four times longer each time it is tried again"
        ]
    );
    let (_, attempt, why) = farm.revoked[0];
    assert_eq!((attempt, why), (farm.attempt(1, task(1, index)), RevokeReason::TimedOut));
    farm.schedule();
    assert!(farm.queue(1, 0).contains(&index), "the slot waits until it has stopped it");
    farm.answer_revokes();
    farm.drain();
    assert_eq!(farm.state(1), JobState::Completed);
}

#[test]
fn a_frame_that_is_heavier_than_the_others_gets_more_time_when_it_is_tried_again() {
    let mut farm = measured(1, 6);
    let heavy = farm.queue(1, 0)[0];
    for (attempt, minutes) in [1, 4, 16].into_iter().enumerate() {
        while farm.queue(1, 0)[0] != heavy {
            farm.run_next(1, 1_000, Finish::Delivered);
        }
        begin(&mut farm, 1);
        for _ in 0..2 {
            farm.pass(minutes * 30_000 - 500, &[1]);
            farm.progress(1, task(1, heavy));
        }
        assert_eq!(timed_out(&farm).len(), attempt, "after less than {minutes} minutes");
        if minutes < 16 {
            farm.pass(1_000, &[1]);
            assert_eq!(timed_out(&farm).len(), attempt + 1);
            farm.answer_revokes();
            farm.schedule();
        }
    }
    farm.deliver(1, task(1, heavy));
    assert_eq!(farm.counts(1).failed, 0);
}

#[test]
fn a_worker_of_which_no_frame_was_measured_is_not_compared() {
    let mut farm = measured(2, 6);
    farm.join(3, 1);
    farm.schedule();
    begin(&mut farm, 3);
    farm.pass(14 * 60_000, &[1, 2, 3]);
    assert!(timed_out(&farm).is_empty());
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
