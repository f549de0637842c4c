//! The origins of failures: the worker, the task, or the job.

use kiln_types::{Failure, FailureCause, JobId, JobState, TaskIndex, TaskState, WorkerId, WorkerState};

use super::{Farm, job, task, w};
use crate::{Finish, JobPlan, Record, WorkerOffer};

fn crash() -> Finish {
    Finish::Failed(Failure::new(FailureCause::Crashed, "Blender died of signal 11"))
}

fn is_quarantined(farm: &Farm, worker: u64) -> bool {
    farm.core.worker(w(worker)).unwrap().quarantine.is_some()
}

/// A farm on which all workers but the first have delivered.
fn proven(workers: u64, tasks: u32) -> Farm {
    let mut farm = Farm::new();
    for worker in 1..=workers {
        farm.join(worker, 1);
    }
    farm.submit(job(1, tasks));
    farm.schedule();
    for worker in 2..=workers {
        farm.run_next(worker, 1_000, Finish::Delivered);
    }
    farm
}

/// A farm whose first worker is quarantined: every frame crashes on it, and others deliver.
fn quarantined(workers: u64, tasks: u32) -> Farm {
    let mut farm = proven(workers, tasks);
    for _ in 0..3 {
        assert!(!is_quarantined(&farm, 1));
        farm.run_next(1, 100, crash());
    }
    assert!(is_quarantined(&farm, 1));
    farm
}

/// The quarantine records of the worker since the last look: its failed probes; `None`: the quarantine has ended.
fn quarantine_records(farm: &mut Farm, worker: u64) -> Vec<Option<u32>> {
    let of = |record: Record| match record {
        Record::WorkerQuarantine { worker: id, quarantine } if id == w(worker) => {
            Some(quarantine.map(|one| one.failed_probes))
        }
        _ => None,
    };
    farm.records.drain(..).filter_map(of).collect()
}

fn end_reason(farm: &Farm) -> String {
    let reason = |record: &Record| match record {
        Record::JobState { reason: Some(reason), .. } => Some(reason.message.clone()),
        _ => None,
    };
    farm.records.iter().rev().find_map(reason).expect("the job ended for no reason")
}

fn failed_on(farm: &Farm, index: u32) -> Vec<WorkerId> {
    let history = farm.core.state.step(task(1, index)).tasks.history(TaskIndex(index));
    history.map(|history| history.failed_on().to_vec()).unwrap_or_default()
}

#[test]
fn a_worker_that_fails_where_others_deliver_is_quarantined_and_its_failures_do_not_count() {
    let mut farm = quarantined(3, 40);
    let view = farm.core.worker(w(1)).unwrap();
    assert_eq!(view.state, WorkerState::Quarantined);
    let reason = view.quarantine.unwrap().reason;
    assert_eq!(reason, "it failed 3 times in a row where others render; the last: Blender died of signal 11");
    assert!((0..40).all(|index| failed_on(&farm, index).is_empty()), "a failure counts against a task");
    farm.answer_revokes();
    farm.schedule();
    assert!(farm.holdings(1).is_empty(), "{:?}", farm.queue(1, 0));
    farm.drain();
    assert_eq!((farm.state(1), farm.counts(1).done), (JobState::Completed, 40));
}

#[test]
fn a_quarantined_worker_is_probed_with_one_task_after_pauses_that_double() {
    let mut farm = quarantined(2, 2_000);
    farm.answer_revokes();
    for minutes in [1, 2, 4, 8, 16, 30, 30] {
        let before = farm.now;
        while farm.holdings(1).is_empty() {
            let deadline = farm.core.next_deadline().unwrap();
            assert!(deadline > farm.now, "the server would turn in a circle");
            farm.pass(deadline.since(farm.now).min(5_000), &[1, 2]);
            farm.schedule();
        }
        assert_eq!(farm.now.since(before), minutes * 60_000);
        assert_eq!(farm.queue(1, 0).len(), 1, "a probe is one task");
        farm.run_next(1, 0, crash());
        assert!(is_quarantined(&farm, 1));
    }
    assert_eq!(farm.counts(1).failed, 0);
    assert_eq!(quarantine_records(&mut farm, 1), [0, 1, 2, 3, 4, 5, 6, 7].map(Some));
}

#[test]
fn a_delivery_ends_the_quarantine_and_so_does_a_person() {
    let mut farm = quarantined(2, 200);
    farm.answer_revokes();
    farm.pass(60_000, &[1, 2]);
    farm.schedule();
    farm.run_next(1, 500, Finish::Delivered);
    assert!(!is_quarantined(&farm, 1));
    farm.schedule();
    assert!(farm.queue(1, 0).len() > 1, "it is a worker as any other");
    assert_eq!(quarantine_records(&mut farm, 1), [Some(0), None]);

    let mut farm = quarantined(2, 200);
    assert!(farm.act(|core, _, out| core.unquarantine_worker(w(1), out)));
    assert!(!farm.act(|core, _, out| core.unquarantine_worker(w(1), out)), "it is not in quarantine");
    farm.answer_revokes();
    farm.schedule();
    assert!(!farm.holdings(1).is_empty());
}

#[test]
fn a_worker_that_delivers_between_failures_is_not_quarantined() {
    let mut farm = proven(2, 60);
    for _ in 0..6 {
        farm.run_next(1, 100, crash());
        farm.run_next(1, 100, Finish::Delivered);
    }
    assert!(!is_quarantined(&farm, 1));
}

#[test]
fn a_later_delivery_of_others_shows_the_origin_too() {
    let mut farm = Farm::new();
    farm.join(1, 1);
    farm.join(2, 1);
    farm.submit(job(1, 60));
    farm.schedule();
    let slow = farm.queue(2, 0)[0];
    farm.start(2, task(1, slow));
    for _ in 0..3 {
        while farm.queue(1, 0).is_empty() {
            farm.pass(500, &[1, 2]);
            farm.schedule();
        }
        farm.run_next(1, 100, crash());
    }
    assert!(!is_quarantined(&farm, 1), "nobody has shown that it can be done");
    farm.deliver(2, task(1, slow));
    assert!(is_quarantined(&farm, 1));
    farm.answer_revokes();
    farm.drain();
    assert_eq!(farm.state(1), JobState::Completed);
}

/// The first of too many incidents are forgotten: deliveries of others in those steps say nothing about the worker
/// then.
#[test]
fn a_worker_is_suspected_for_the_incidents_that_are_kept_and_no_others() {
    let mut farm = Farm::new();
    farm.join(1, 1);
    farm.submit(job(1, 1));
    farm.schedule();
    farm.run_next(1, 100, crash());
    farm.act(|core, _, out| core.pause_job(JobId(1), out)).unwrap();
    farm.answer_revokes();
    farm.submit(job(2, 40));
    for number in 0..16 {
        farm.schedule();
        let (attempt, holding) = farm.held.pop_first().unwrap();
        assert_eq!(holding.assigned.task.job, JobId(2));
        farm.act(|core, now, out| core.attempt_started(now, w(1), attempt, out));
        let failure =
            Failure::new(FailureCause::Crashed, format!("Blender died in {} way", "another ".repeat(number)));
        farm.report(1, attempt, Finish::Failed(failure));
    }
    let is_suspected_in =
        |job: u64| farm.core.state.worker(w(1)).suspected_in().any(|step| step.job == JobId(job));
    assert_eq!([is_suspected_in(1), is_suspected_in(2)], [false, true]);
}

#[test]
fn frames_that_fail_everywhere_are_not_the_workers_fault() {
    let mut farm = Farm::new();
    for worker in 1..=3 {
        farm.join(worker, 1);
    }
    farm.submit(job(1, 30));
    farm.schedule();
    for worker in 1..=3 {
        farm.run_next(worker, 1_000, Finish::Delivered);
    }
    // From here on each crashes.
    let mut rounds = 0;
    while !farm.state(1).is_end() {
        for worker in 1..=3 {
            if !farm.state(1).is_end() && !farm.queue(worker, 0).is_empty() {
                farm.run_next(worker, 50, crash());
            }
        }
        farm.answer_revokes();
        farm.pass(1_000, &[1, 2, 3]);
        farm.schedule();
        rounds += 1;
        assert!(rounds < 2_000, "they are tried without end");
    }
    assert_eq!((farm.state(1), farm.counts(1).failed), (JobState::Failed, 27));
    assert!(rounds < 200, "{rounds} rounds");
}

#[test]
fn the_last_worker_is_not_quarantined() {
    let mut farm = proven(2, 20);
    farm.leave(2);
    farm.crash(2);
    for _ in 0..3 {
        farm.run_next(1, 100, crash());
    }
    assert!(!is_quarantined(&farm, 1));
    assert!(!farm.holdings(1).is_empty());
}

#[test]
fn a_quarantine_survives_a_restart() {
    let mut farm = quarantined(2, 50);
    farm.restart();
    farm.held.clear();
    farm.join(1, 1);
    farm.join(2, 1);
    assert_eq!(farm.core.worker(w(1)).unwrap().state, WorkerState::Quarantined);
    farm.schedule();
    assert!(farm.holdings(1).is_empty());
    farm.pass(60_000, &[1, 2]);
    farm.schedule();
    assert_eq!(farm.holdings(1).len(), 1);
}

#[test]
fn a_worker_that_goes_down_whatever_it_renders_is_quarantined_and_no_task_is_the_origin() {
    let mut farm = proven(3, 100);
    for _ in 0..2 {
        let index = farm.queue(1, 0)[0];
        farm.start(1, task(1, index));
        farm.crash(1);
        farm.join(1, 1);
        farm.schedule();
        farm.run_next(2, 100, Finish::Delivered);
    }
    let quarantine = farm.core.worker(w(1)).unwrap().quarantine.expect("it goes down again and again");
    assert_eq!(quarantine.reason, "it went down 2 times, with other frames each time, where others render");
    let histories = farm.core.state.step(task(1, 0)).tasks.histories();
    assert_eq!(histories.map(|(_, history)| history.lost_on().len()).sum::<usize>(), 0);
    assert!(farm.holdings(1).is_empty());
    // Its pause begins when it is back.
    farm.leave(1);
    farm.pass(50_000, &[2, 3]);
    farm.join(1, 1);
    farm.pass(50_000, &[1, 2, 3]);
    farm.schedule();
    assert!(farm.holdings(1).is_empty());
    farm.pass(10_000, &[1, 2, 3]);
    farm.schedule();
    assert_eq!(farm.holdings(1).len(), 1);
}

#[test]
fn a_task_that_takes_three_workers_down_fails_and_they_are_not_quarantined() {
    let mut farm = proven(4, 100);
    let poison = farm.queue(1, 0)[0];
    let mut down = Vec::new();
    while farm.core.task(task(1, poison)).unwrap().state != TaskState::Failed {
        for worker in 1..=4 {
            let Some(&next) = farm.queue(worker, 0).first() else { continue };
            if next == poison {
                farm.start(worker, task(1, poison));
                farm.crash(worker);
                farm.join(worker, 1);
                down.push(worker);
                farm.schedule();
            } else {
                farm.run_next(worker, 100, Finish::Delivered);
            }
        }
    }
    down.sort_unstable();
    down.dedup();
    assert_eq!(down.len(), 3, "it is tried on others: {down:?}");
    assert!((1..=4).all(|worker| !is_quarantined(&farm, worker)));
    assert_eq!(farm.counts(1).failed, 1);
}

#[test]
fn a_worker_that_comes_back_with_its_frame_did_not_go_down() {
    let mut farm = proven(2, 100);
    for _ in 0..3 {
        let index = farm.queue(1, 0)[0];
        if farm.core.task(task(1, index)).unwrap().state == TaskState::Assigned {
            farm.start(1, task(1, index));
        }
        farm.pass(farm.core.config.lease_ms, &[2]);
        farm.act(|core, now, out| core.heartbeat(now, w(1), out));
        farm.schedule();
    }
    assert!(!is_quarantined(&farm, 1));
}

fn no_embree(frame: u32) -> Finish {
    let message = format!("Build without Embree (/tmp/slot/{frame}/out/{frame:04}.exr)");
    Finish::Failed(Failure::new(FailureCause::Other, message))
}

#[test]
fn a_failure_of_a_worker_whose_offer_no_longer_fits_counts_against_no_frame() {
    let mut farm = Farm::new();
    farm.join_with(1, 1, &["denoiser"]);
    let mut step = job(1, 1).steps()[0].clone();
    step.requires = ["denoiser"].into_iter().collect();
    farm.submit(JobPlan::new(JobId(1), vec![step]).unwrap());
    for _ in 0..4 {
        farm.schedule();
        farm.start(1, task(1, 0));
        let offer = WorkerOffer { slots: 1, ..WorkerOffer::default() };
        farm.act(|core, _, out| core.worker_offer_changed(w(1), offer, out));
        farm.fail(1, task(1, 0), FailureCause::DenoiserMissing);
        farm.schedule();
        assert_eq!(farm.state(1), JobState::Running);
        assert!(farm.queue(1, 0).is_empty() && !is_quarantined(&farm, 1));
        // Another Blender was put in the old one's place.
        farm.crash(1);
        farm.join_with(1, 1, &["denoiser"]);
        farm.pass(60_000, &[1]);
    }
    farm.drain();
    assert_eq!(farm.state(1), JobState::Completed);
}

#[test]
fn a_job_whose_first_frames_all_fail_alike_costs_a_handful_of_attempts() {
    let mut farm = Farm::new();
    for worker in 1..=2 {
        farm.join(worker, 1);
    }
    farm.submit(job(1, 20));
    farm.schedule();
    let mut attempts = 0;
    while !farm.state(1).is_end() {
        for worker in 1..=2 {
            if !farm.state(1).is_end() && !farm.queue(worker, 0).is_empty() {
                let index = farm.queue(worker, 0)[0];
                farm.run_next(worker, 2_000, no_embree(index));
                attempts += 1;
            }
        }
        farm.pass(500, &[1, 2]);
        farm.schedule();
    }
    assert_eq!(farm.state(1), JobState::Failed);
    assert!(attempts <= 6, "{attempts} attempts");
    let reason = end_reason(&farm);
    assert!(
        reason.starts_with("the first 3 frames failed alike on 2 workers: Build without Embree"),
        "{reason}"
    );
    assert!(farm.counts(1).failed >= 3, "those that failed are shown as failed");
    // A person may try again, with a clean slate.
    farm.answer_revokes();
    farm.act(|core, _, out| core.retry_failed(JobId(1), out)).unwrap();
    farm.schedule();
    farm.drain();
    assert_eq!(farm.state(1), JobState::Completed);
}

#[test]
fn one_worker_alone_is_enough_where_there_is_no_other() {
    let mut farm = Farm::new();
    farm.join(1, 1);
    farm.submit(job(1, 20));
    farm.schedule();
    let mut attempts = 0;
    while !farm.state(1).is_end() {
        farm.run_next(1, 2_000, no_embree(attempts));
        attempts += 1;
    }
    assert!(attempts <= 4, "{attempts} attempts");
    assert!(end_reason(&farm).contains("failed alike on one worker"));
}

#[test]
fn a_job_does_not_stop_while_a_worker_that_may_do_it_is_at_it() {
    let mut farm = Farm::new();
    for worker in 1..=3 {
        farm.join(worker, 1);
    }
    farm.submit(job(1, 20));
    farm.schedule();
    let slow = farm.queue(3, 0)[0];
    farm.start(3, task(1, slow));
    for _ in 0..30 {
        for worker in 1..=2 {
            if let Some(&index) = farm.queue(worker, 0).first() {
                farm.run_next(worker, 100, no_embree(index));
            }
        }
        farm.pass(1_000, &[1, 2, 3]);
        farm.schedule();
    }
    assert_eq!(farm.state(1), JobState::Running);
    farm.deliver(3, task(1, slow));
    assert!(is_quarantined(&farm, 1) && is_quarantined(&farm, 2));
}

#[test]
fn failures_of_several_kinds_do_not_stop_a_job() {
    let mut farm = Farm::new();
    for worker in 1..=2 {
        farm.join(worker, 1);
    }
    farm.submit(job(1, 20));
    farm.schedule();
    for (turn, what) in ["no light", "no air", "no sound", "no heat"].into_iter().enumerate() {
        let worker = turn as u64 % 2 + 1;
        while farm.queue(worker, 0).is_empty() {
            farm.pass(500, &[1, 2]);
            farm.schedule();
        }
        farm.run_next(worker, 100, Finish::Failed(Failure::new(FailureCause::PythonError, what)));
    }
    assert_eq!(farm.state(1), JobState::Running);
}
