//! A job that may render on one of several devices renders on one.

use kiln_types::{BlobHash, JobId, SessionKey, StepIndex};

use super::{Farm, steps, task, w};
use crate::{
    DeviceOption, Finish, JobPlan, Label, MissingResource, OpenDevice, Record, ReportOutcome, StepPlan,
    WaitCause,
};

pub const GPU: &str = "a GPU";

fn session(of: &str) -> SessionKey {
    SessionKey(BlobHash::of(of.as_bytes()))
}

/// A job of steps that render on any of three devices, the best of which is OptiX.
pub fn open(id: u64, shape: &[(u32, &[u16])]) -> JobPlan {
    let plan = |(step, plan): (usize, &StepPlan)| {
        let own = format!("{id}.{step}");
        let option = |label: &&str| DeviceOption {
            label: Label::from(*label),
            session: session(&format!("{own} on {label}")),
        };
        let options = ["optix", "cuda", "hip"].iter().map(option).collect();
        let device = Some(OpenDevice { any: GPU.into(), session: session(&own), options });
        StepPlan {
            requires: [GPU].into_iter().collect(),
            session: Some(session(&own)),
            device,
            ..plan.clone()
        }
    };
    let plans = steps(id, shape);
    JobPlan::new(JobId(id), plans.steps().iter().enumerate().map(plan).collect()).unwrap()
}

/// Returns what the records say of the job's pin, in their order.
fn pins(farm: &Farm, id: u64) -> Vec<Option<String>> {
    let pin = |record: &Record| match record {
        Record::JobPinned { job, device } if *job == JobId(id) => Some(device.clone().map(|label| label.0)),
        _ => None,
    };
    farm.records.iter().filter_map(pin).collect()
}

fn held_by(farm: &Farm, worker: u64) -> usize {
    farm.held.values().filter(|holding| holding.worker == w(worker)).count()
}

#[test]
fn the_first_worker_pins_the_job_to_the_best_that_it_has() {
    let mut farm = Farm::new();
    farm.submit(open(1, &[(8, &[])]));
    farm.join_with(1, 1, &["processor"]);
    farm.schedule();
    let waits = farm.core.explainer(farm.now).explain(JobId(1));
    let lack = MissingResource::Label(GPU.into());
    let nobody =
        WaitCause::NoWorkerFits { all_lack: [lack.clone()].into(), nearest: w(1), lacks: [lack].into() };
    assert_eq!(waits, [(StepIndex(0), vec![nobody])]);
    assert_eq!(pins(&farm, 1), []);

    farm.join_with(2, 1, &[GPU, "cuda", "optix"]);
    farm.schedule();
    assert_eq!(pins(&farm, 1), [Some("optix".to_owned())]);
    assert!(held_by(&farm, 2) > 0);
    farm.join_with(3, 1, &[GPU, "cuda"]);
    farm.join_with(4, 1, &[GPU, "optix"]);
    farm.schedule();
    assert_eq!(held_by(&farm, 3), 0, "a frame of another backend is another picture");
    assert!(held_by(&farm, 4) > 0);
}

#[test]
fn all_workers_of_the_device_are_served_in_the_turn_that_pins() {
    let mut farm = Farm::new();
    for worker in 1..=3 {
        farm.join_with(worker, 2, &[GPU, "optix"]);
    }
    farm.join_with(4, 2, &[GPU, "hip"]);
    farm.schedule();
    farm.submit(open(1, &[(40, &[])]));
    farm.schedule();
    let device = pins(&farm, 1);
    let on_optix = (1..=3).map(|worker| held_by(&farm, worker)).filter(|held| *held >= 2).count();
    match device.as_slice() {
        [Some(device)] if device == "optix" => assert_eq!((on_optix, held_by(&farm, 4)), (3, 0)),
        [Some(device)] if device == "hip" => assert!(on_optix == 0 && held_by(&farm, 4) >= 2),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_pin_outlives_the_server_and_holds_for_every_step() {
    let mut farm = Farm::new();
    farm.submit(open(1, &[(1, &[]), (4, &[0])]));
    farm.join_with(1, 1, &[GPU, "cuda"]);
    farm.schedule();
    farm.start(1, task(1, 0));
    farm.deliver(1, task(1, 0));
    farm.restart();
    farm.join_with(2, 1, &[GPU, "optix"]);
    farm.schedule();
    assert_eq!(held_by(&farm, 2), 0);
    farm.join_with(1, 1, &[GPU, "cuda"]);
    farm.schedule();
    assert!(held_by(&farm, 1) > 0);
    assert_eq!(pins(&farm, 1), [Some("cuda".to_owned())]);
    assert_eq!(farm.core.job(JobId(1)).unwrap().pinned, Some("cuda".into()));
}

#[test]
fn a_pin_that_binds_nothing_is_released() {
    let mut farm = Farm::new();
    farm.submit(open(1, &[(2, &[])]));
    farm.join_with(1, 1, &[GPU, "hip"]);
    farm.schedule();
    farm.start(1, task(1, 0));
    let late = farm.attempt(1, task(1, 0));
    // It goes for good, and has delivered nothing.
    farm.crash(1);
    farm.join_with(2, 1, &[GPU, "cuda"]);
    farm.schedule();
    assert_eq!(held_by(&farm, 2), 0, "it may come back within its lease");
    farm.pass(31_000, &[2]);
    farm.schedule();
    let hip = || Some("hip".to_owned());
    assert_eq!(pins(&farm, 1), [hip(), None, Some("cuda".to_owned())]);
    while farm.counts(1).done == 0 {
        farm.run_next(2, 10, Finish::Delivered);
    }

    // What it delivers after all does not count, also after a restart: it is of another backend.
    farm.restart();
    farm.join_with(2, 1, &[GPU, "cuda"]);
    farm.join_with(1, 1, &[GPU, "hip"]);
    let done = farm.counts(1).done;
    assert_eq!(farm.report(1, late, Finish::Delivered), ReportOutcome::Superseded);
    assert_eq!(farm.counts(1).done, done);
    assert_eq!(farm.core.job(JobId(1)).unwrap().pinned, Some("cuda".into()));
}

#[test]
fn a_dropped_attempt_does_not_come_back_with_the_server() {
    let mut farm = Farm::new();
    farm.submit(open(1, &[(2, &[])]));
    farm.join_with(1, 1, &[GPU, "hip"]);
    farm.schedule();
    farm.start(1, task(1, 0));
    farm.pass(31_000, &[]);
    // It was silent for too long, and has nothing when it comes back.
    farm.crash(1);
    farm.join_with(1, 1, &[GPU]);
    farm.schedule();
    farm.restart();
    assert_eq!(farm.core.job(JobId(1)).unwrap().pinned, None);
    farm.join_with(2, 1, &[GPU, "cuda"]);
    farm.schedule();
    assert_eq!(farm.core.job(JobId(1)).unwrap().pinned, Some("cuda".into()));
}

#[test]
fn a_worker_that_refuses_is_not_asked_at_once_again() {
    let mut farm = Farm::new();
    farm.submit(open(1, &[(2, &[])]));
    farm.join_with(1, 1, &[GPU, "optix"]);
    farm.schedule();
    farm.finish(1, task(1, 0), Finish::Returned);
    farm.finish(1, task(1, 1), Finish::Returned);
    farm.schedule();
    assert_eq!((held_by(&farm, 1), pins(&farm, 1).last()), (0, Some(&None)));
    farm.join_with(2, 1, &[GPU, "cuda"]);
    farm.schedule();
    assert!(held_by(&farm, 2) > 0);
    assert_eq!(farm.core.job(JobId(1)).unwrap().pinned, Some("cuda".into()));
}
