//! Explanations of jobs that wait.

use kiln_types::{DesiredState, FailureCause, JobId, StepIndex};

use super::{Farm, job, task, w};
use crate::{Account, JobPlan, Label, MissingResource, Moment, SchedulingOptions, Share, WaitCause};

fn waits(farm: &Farm, job: u64) -> Vec<WaitCause> {
    let mut steps = farm.core.explainer(farm.now).explain(JobId(job));
    assert!(steps.len() <= 1, "{steps:?}");
    steps
        .pop()
        .map(|(step, waits)| {
            assert_eq!(step, StepIndex(0));
            waits
        })
        .unwrap_or_default()
}

fn scheduled(id: u64, count: u32, scheduling: SchedulingOptions) -> JobPlan {
    job(id, count).scheduled(scheduling)
}

#[test]
fn nobody_is_here_nobody_has_it_all_are_busy_with_what_goes_first() {
    let mut farm = Farm::new();
    let mut picky = job(1, 5).steps()[0].clone();
    picky.requires = ["Blender 4.5", "device cuda"].into_iter().collect();
    farm.submit(JobPlan::new(JobId(1), vec![picky]).unwrap());
    assert_eq!(waits(&farm, 1), [WaitCause::NoWorker]);
    farm.join_with(1, 1, &["device cuda"]);
    farm.join_with(2, 1, &[]);
    let blender = MissingResource::Label(Label::from("Blender 4.5"));
    let nobody = WaitCause::NoWorkerFits {
        all_lack: [blender.clone()].into(),
        nearest: w(1),
        lacks: [blender].into(),
    };
    assert_eq!(waits(&farm, 1), [nobody]);

    farm.submit(scheduled(2, 50, SchedulingOptions { priority: 80, ..SchedulingOptions::default() }));
    farm.submit(job(3, 5));
    farm.schedule();
    let [WaitCause::Busy { workers: 2, with }] = &waits(&farm, 3)[..] else {
        panic!("{:?}", waits(&farm, 3))
    };
    assert_eq!((with[0].job, with[0].slots, with[0].priority), (JobId(2), 2, std::cmp::Ordering::Greater));

    farm.act(|core, _, out| core.set_desired_state(w(1), DesiredState::Paused, out));
    farm.act(|core, _, out| core.set_desired_state(w(2), DesiredState::Draining, out));
    let idle = WaitCause::NotWorking { paused: 1, draining: 1, unavailable: 0, quarantined: 0, others: 0 };
    assert_eq!(waits(&farm, 3), [idle]);
}

#[test]
fn what_has_failed_on_the_worker_that_is_free_waits_for_another() {
    let mut farm = Farm::new();
    farm.join(1, 1);
    farm.join(2, 1);
    farm.submit(job(1, 1));
    farm.schedule();
    farm.start(1, task(1, 0));
    farm.submit(job(2, 1));
    farm.schedule();
    farm.start(2, task(2, 0));
    farm.fail(2, task(2, 0), FailureCause::Other);
    farm.schedule();
    // Nothing of it was delivered yet: the worker is asked again later.
    farm.pass(600, &[1, 2]);
    let with = vec![crate::Occupant { job: JobId(1), slots: 1, priority: std::cmp::Ordering::Equal }];
    assert_eq!(waits(&farm, 2), [WaitCause::FailedHere { vacant: vec![w(2)], others: 1, with }]);
    farm.deliver(1, task(1, 0));
    farm.schedule();
    assert_eq!(farm.queue(1, 0), [0], "the other has it");
    assert!(waits(&farm, 2).is_empty());
}

#[test]
fn what_a_person_set_is_named() {
    let mut farm = Farm::new();
    farm.join(1, 1);
    farm.join(2, 1);
    farm.submit(scheduled(1, 9, SchedulingOptions { max_workers: Some(1), ..SchedulingOptions::default() }));
    farm.schedule();
    assert_eq!(waits(&farm, 1), [WaitCause::JobFull(1)]);

    farm.core.set_share(Account::User("ada".into()), Share { max_slots: Some(0), ..Share::default() });
    farm.submit(scheduled(2, 9, SchedulingOptions { user: "ada".into(), ..SchedulingOptions::default() }));
    farm.schedule();
    assert_eq!(waits(&farm, 2), [WaitCause::AccountFull(Account::User("ada".into()), 0)]);

    let mut licensed = job(3, 9).steps()[0].clone();
    licensed.requires.limits.insert("houdini".into(), 1);
    farm.submit(JobPlan::new(JobId(3), vec![licensed]).unwrap());
    farm.schedule();
    assert_eq!(waits(&farm, 3), [WaitCause::Limit { name: "houdini".into(), total: 0, used: 0 }]);

    let later = SchedulingOptions {
        after: [JobId(1), JobId(77)].into(),
        not_before: Some(Moment(5_000)),
        ..SchedulingOptions::default()
    };
    farm.submit(scheduled(4, 1, later));
    let both = [
        WaitCause::Dependencies { open: vec![JobId(1)], ended: vec![JobId(77)] },
        WaitCause::Until(Moment(5_000)),
    ];
    assert_eq!(waits(&farm, 4), both);
    farm.act(|core, _, out| core.pause_job(JobId(4), out)).unwrap();
    assert_eq!(waits(&farm, 4), [WaitCause::Paused]);
}

#[test]
fn time_left_is_a_range_that_narrows() {
    let mut farm = Farm::new();
    farm.submit(job(1, 40));
    farm.join(1, 1);
    farm.join(2, 1);
    farm.schedule();
    assert_eq!(farm.core.forecast(farm.now, JobId(1)), None, "nobody knows yet");
    let mut widths = Vec::new();
    for round in 0..16 {
        for worker in 1..=2 {
            let index = farm.queue(worker, 0)[0];
            farm.start(worker, task(1, index));
        }
        farm.now = farm.now.after(if round % 2 == 0 { 9_000 } else { 11_000 });
        for worker in 1..=2 {
            let index = farm.queue(worker, 0)[0];
            farm.deliver(worker, task(1, index));
        }
        farm.schedule();
        if let Some(forecast) = farm.core.forecast(farm.now, JobId(1)) {
            let left = 10_000 * u64::from(40 - farm.counts(1).done) / 2;
            assert!(
                (forecast.soonest_ms..=forecast.latest_ms).contains(&left),
                "{left} is not in {forecast:?}"
            );
            widths.push((forecast.latest_ms - forecast.soonest_ms) as f64 / forecast.likely_ms as f64);
        }
    }
    assert!(widths.len() > 10 && widths[widths.len() - 1] < widths[0] / 2.0, "{widths:?}");
}
