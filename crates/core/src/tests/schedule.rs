//! The choice of slots and tasks.

use kiln_types::{FailureCause, JobId, JobState, Order, TaskIndex};

use super::{Farm, job, task, w};
use crate::{Gpus, JobPlan, Moment, ReportOutcome, SchedulingOptions, WorkerOffer};

#[test]
fn idle_slots_come_before_queues() {
    let mut farm = Farm::new();
    farm.join(1, 1);
    farm.join(2, 2);
    farm.submit(job(1, 4));
    farm.schedule();
    assert_eq!([farm.queue(1, 0), farm.queue(2, 0), farm.queue(2, 1)], [vec![0, 3], vec![1], vec![2]]);
}

#[test]
fn a_turn_dispatches_a_part_and_the_next_one_goes_on() {
    // To workers that wait for work, and to workers that come while work waits.
    for workers_first in [true, false] {
        let mut farm = Farm::new();
        let join = |farm: &mut Farm| (1..=15).for_each(|worker| farm.join(worker, 100));
        if workers_first {
            join(&mut farm);
            farm.schedule();
            farm.submit(job(1, 3000));
        } else {
            farm.submit(job(1, 3000));
            farm.schedule();
            join(&mut farm);
        }
        let (mut assigned, mut turns) = (0, 0);
        while farm.counts(1).assigned < 1500 {
            farm.schedule();
            let more = farm.counts(1).assigned - assigned;
            assert!((1..=512).contains(&more), "{more}");
            assert_eq!(farm.core.next_deadline(), Some(Moment(0)), "it goes on without being told anything");
            (assigned, turns) = (assigned + more, turns + 1);
        }
        assert_eq!(turns, 3);
        let slots = (1..=15).flat_map(|worker| (0..100).map(move |slot| (worker, slot)));
        let longest = slots.map(|(worker, slot)| farm.queue(worker, slot).len()).max();
        assert!(longest <= Some(2), "no queue is filled before every slot has a task");
    }
}

#[test]
fn quick_frames_are_queued_deep_and_slow_ones_are_not() {
    let depth = |frame_ms: u64| {
        let mut farm = Farm::new();
        farm.join(1, 1);
        farm.submit(job(1, 1000));
        farm.schedule();
        for index in 0..6 {
            farm.start(1, task(1, index));
            farm.now = farm.now.after(frame_ms);
            farm.deliver(1, task(1, index));
            farm.schedule();
        }
        farm.queue(1, 0).len()
    };
    // 20 s of frames, filled when half of it is worked off; but for a bound.
    assert!((128..=257).contains(&depth(10)), "{}", depth(10));
    assert!((50..=101).contains(&depth(200)), "{}", depth(200));
    assert_eq!(depth(60_000), 2);
}

#[test]
fn the_measures_of_an_earlier_epoch_are_known_before_the_first_frame() {
    let mut farm = Farm::new();
    farm.submit(job(1, 1000));
    for index in 0..40 {
        let (worker, ms) = [(1, 1_000), (2, 10_000)][index as usize % 2];
        farm.core.learn_past_time(task(1, index), w(worker), ms);
    }
    // A step and a frame that no longer exist.
    farm.core.learn_past_time(task(1, 1000), w(1), 1);
    farm.core.learn_past_time(task(9, 0), w(1), 1);
    farm.join(1, 1);
    farm.join(2, 1);
    let step = farm.core.state.step(task(1, 500));
    let takes = |worker| farm.core.frame_ms(step, TaskIndex(500), w(worker), None).unwrap();
    assert!((900..1_200).contains(&takes(1)), "{} ms", takes(1));
    assert!((9_000..12_000).contains(&takes(2)), "{} ms", takes(2));
}

#[test]
fn nobody_queues_more_than_a_fair_share() {
    let mut farm = Farm::new();
    for worker in 1..=4 {
        farm.join(worker, 1);
    }
    farm.submit(job(1, 24));
    farm.schedule();
    for _ in 0..2 {
        for worker in 1..=4 {
            let index = farm.queue(worker, 0)[0];
            farm.start(worker, task(1, index));
            farm.now = farm.now.after(1);
            farm.deliver(worker, task(1, index));
            farm.schedule();
        }
    }
    assert!((1..=4).all(|worker| farm.queue(worker, 0).len() <= 4), "a slot hoards");
    farm.drain();
    assert_eq!(farm.state(1), JobState::Completed);
}

#[test]
fn an_idle_slot_takes_what_is_queued_elsewhere() {
    let mut farm = Farm::new();
    farm.join(1, 1);
    farm.submit(job(1, 2));
    farm.schedule();
    farm.start(1, task(1, 0));
    assert_eq!(farm.queue(1, 0), [0, 1]);
    farm.join(2, 1);
    farm.schedule();
    farm.schedule();
    assert_eq!(farm.revoked.len(), 1, "asked once");
    assert!(farm.queue(2, 0).is_empty(), "given before the other has handed it back");
    farm.answer_revokes();
    farm.schedule();
    assert_eq!((farm.queue(1, 0), farm.queue(2, 0)), (vec![0], vec![1]));
}

/// A job on every GPU of a worker with two slots, of one frame more than can run.
fn on_all_gpus(farm: &mut Farm) {
    let mut step = job(1, 2).steps()[0].clone();
    step.requires.room.gpus = Gpus::All { memory: 0 };
    let alone = SchedulingOptions { max_workers: Some(1), ..SchedulingOptions::default() };
    farm.submit(JobPlan::new(JobId(1), vec![step]).unwrap().scheduled(alone));
    for worker in 1..=2 {
        let offer = WorkerOffer { slots: 2, gpus: vec![8 << 30], ..WorkerOffer::default() };
        farm.act(|core, now, out| core.worker_joined(now, w(worker), offer, &[], out));
        farm.schedule();
    }
    farm.start(1, task(1, 0));
    assert_eq!(farm.queue(1, 0), [0, 1]);
}

#[test]
fn nothing_is_preempted_for_a_slot_beside_it_that_has_no_gpu_left() {
    let mut farm = Farm::new();
    on_all_gpus(&mut farm);
    farm.now = farm.now.after(1_000);
    farm.schedule();
    assert_eq!(farm.revoked, [], "the other worker is one too many, the other slot has nothing to render on");
}

#[test]
fn what_waits_behind_a_frame_that_is_late_is_taken_too() {
    let mut farm = Farm::new();
    farm.join(1, 1);
    farm.submit(job(1, 4));
    farm.schedule();
    for index in 0..2 {
        farm.start(1, task(1, index));
        farm.now = farm.now.after(100);
        farm.deliver(1, task(1, index));
        farm.schedule();
    }
    farm.start(1, task(1, 2));
    farm.now = farm.now.after(10_000);
    farm.join(2, 1);
    farm.schedule();
    farm.answer_revokes();
    farm.schedule();
    assert_eq!(farm.queue(2, 0), [3], "its turn seemed near, and is not");
}

#[test]
fn a_preempted_attempt_that_has_begun_goes_on() {
    let mut farm = Farm::new();
    farm.join(1, 1);
    farm.submit(job(1, 2));
    farm.schedule();
    farm.start(1, task(1, 0));
    farm.join(2, 1);
    farm.schedule();
    farm.deliver(1, task(1, 0));
    farm.start(1, task(1, 1));
    farm.answer_revokes();
    farm.schedule();
    assert!(farm.queue(2, 0).is_empty());
    assert_eq!(farm.deliver(1, task(1, 1)), ReportOutcome::Committed);
    assert_eq!(farm.state(1), JobState::Completed);
}

#[test]
fn later_jobs_use_what_earlier_ones_cannot() {
    let mut farm = Farm::new();
    let mut picky = job(1, 50).steps()[0].clone();
    picky.requires = ["device cuda"].into_iter().collect();
    farm.submit(JobPlan::new(JobId(1), vec![picky]).unwrap());
    farm.submit(job(2, 50));
    farm.join_with(1, 1, &["device cuda"]);
    farm.join_with(2, 1, &[]);
    farm.schedule();
    let jobs = |worker: u64| -> Vec<u64> {
        let mine = farm.held.values().filter(|holding| holding.worker == w(worker));
        mine.map(|holding| holding.assigned.task.job.0).collect()
    };
    assert_eq!((jobs(1), jobs(2)), (vec![1, 1], vec![2, 2]));
}

#[test]
fn a_warm_slot_is_preferred() {
    let mut farm = Farm::new();
    farm.join(1, 1);
    farm.submit(job(1, 1));
    farm.drain();
    farm.join(2, 1);
    farm.submit(job(2, 1));
    farm.schedule();
    assert_eq!(farm.queue(2, 0), [0], "a cold slot is better than one with another scene");
    farm.submit(job(3, 1));
    farm.drain();
    farm.act(|core, _, out| core.rerender(JobId(2), None, out)).unwrap();
    farm.schedule();
    assert_eq!(farm.queue(2, 0), [0]);
}

#[test]
fn reverse_order_starts_at_the_end() {
    let mut farm = Farm::new();
    let mut step = job(1, 100).steps()[0].clone();
    step.order = Order::Reverse;
    farm.submit(JobPlan::new(JobId(1), vec![step]).unwrap());
    farm.join(1, 1);
    farm.schedule();
    assert_eq!(farm.queue(1, 0), [99, 98]);
}

#[test]
fn a_failed_task_is_not_queued_on_the_worker_it_failed_on() {
    let mut farm = Farm::new();
    farm.submit(job(1, 4));
    farm.join(1, 1);
    farm.join(2, 1);
    farm.schedule();
    farm.fail(1, task(1, 0), FailureCause::Crashed);
    farm.schedule();
    assert!(!farm.queue(1, 0).contains(&0));
    farm.drain();
    assert_eq!(farm.state(1), JobState::Completed);
}

#[test]
fn the_next_may_begin_before_the_last_is_uploaded() {
    let mut farm = Farm::new();
    farm.submit(job(1, 3));
    farm.join(1, 1);
    farm.schedule();
    farm.start(1, task(1, 0));
    farm.start(1, task(1, 1));
    farm.schedule();
    assert_eq!(farm.queue(1, 0), [0, 1, 2], "the slot is ahead again");
    assert_eq!(farm.deliver(1, task(1, 0)), ReportOutcome::Committed);
    farm.drain();
    assert_eq!(farm.state(1), JobState::Completed);
}

#[test]
fn a_million_tasks_cost_what_their_gaps_cost() {
    let mut farm = Farm::new();
    farm.submit(job(1, 1_048_576));
    for worker in 1..=4 {
        farm.join(worker, 4);
    }
    for _ in 0..50 {
        farm.schedule();
        let (attempt, holding) = farm.held.pop_first().unwrap();
        let worker = holding.worker;
        farm.now = farm.now.after(3);
        farm.act(|core, now, out| core.attempt_started(now, worker, attempt, out));
        let finish = crate::Finish::Delivered;
        farm.act(|core, now, out| core.attempt_finished(now, worker, attempt, finish, out));
    }
    let tasks = &farm.core.state.step(task(1, 0)).tasks;
    let spans = tasks.waiting_spans() + tasks.done().spans().count();
    assert!(spans < 50, "{spans} spans");
    assert!(tasks.done().contains(TaskIndex(0)));
    farm.act(|core, _, out| core.cancel_job(JobId(1), out)).unwrap();
    assert_eq!(farm.counts(1).cancelled, 1_048_576 - 50);
}

#[test]
fn a_job_waits_for_two_others_of_which_the_first_is_long_forgotten() {
    let mut farm = Farm::new();
    farm.join(1, 1);
    farm.submit(job(1, 1));
    farm.submit(job(2, 1));
    let after = [JobId(1), JobId(2)].into();
    farm.submit(job(3, 1).scheduled(SchedulingOptions { after, ..SchedulingOptions::default() }));
    farm.schedule();
    farm.start(1, task(1, 0));
    farm.deliver(1, task(1, 0));
    farm.schedule();
    farm.act(|core, _, _| core.forget(JobId(1))).unwrap();
    assert_eq!(farm.counts(3).waiting, 1, "the second has not ended");
    farm.schedule();
    farm.start(1, task(2, 0));
    farm.deliver(1, task(2, 0));
    farm.schedule();
    assert_eq!(farm.counts(3).assigned, 1);
}

#[test]
fn a_peak_that_cannot_be_is_no_more_than_a_peak() {
    let mut farm = Farm::new();
    farm.join(1, 1);
    farm.submit(job(1, 2));
    farm.schedule();
    farm.start(1, task(1, 0));
    farm.deliver(1, task(1, 0));
    farm.act(|core, _, _| core.learn_memory(task(1, 0), w(1), u64::MAX));
    farm.drain();
    assert_eq!(farm.state(1), JobState::Completed);
}
