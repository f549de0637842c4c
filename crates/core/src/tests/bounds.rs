//! Bounds: what a farm that runs for years keeps, and what the core looks at for one event.

use kiln_types::{DesiredState, FailureCause, JobId, StepIndex};

use super::{Farm, job, task, w};
use crate::{
    Account, JobPlan, Requirement, RestoredJob, Room, SchedulingOptions, Share, StepPlan, WorkerOffer,
};

const STEP: StepIndex = StepIndex(0);

/// A job with a user, a project and a requirement that no other job has.
fn unique_job(id: u64) -> JobPlan {
    let room = Room { cores: id as u32, ..Room::default() };
    let limits = [(format!("licence {id}"), 1)].into();
    let requires = Requirement { room, limits, ..Requirement::default() };
    let step = StepPlan { requires, ..job(id, 2).steps()[0].clone() };
    let scheduling = SchedulingOptions {
        user: format!("user {id}"),
        project: format!("show {id}"),
        ..SchedulingOptions::default()
    };
    JobPlan::new(JobId(id), vec![step]).unwrap().scheduled(scheduling)
}

#[test]
fn what_only_ended_jobs_needed_is_freed_when_they_are_forgotten() {
    let mut farm = Farm::new();
    // The offer does not tell its cores, so that it fits every requirement.
    farm.join(1, 2);
    for id in 1..=200 {
        let licence = format!("licence {id}");
        farm.core.set_limit(&licence, 1);
        farm.submit(unique_job(id));
        farm.schedule();
        // The memory of frames is learned as they render, and each change makes a new requirement.
        for gib in 1..=3 {
            farm.act(|core, _, _| core.learn_memory(task(id, 0), w(1), gib << 30));
            farm.schedule();
        }
        farm.drain();
        farm.core.set_limit(&licence, 0);
        if id > 2 {
            // As the server does: some time after its end.
            farm.act(|core, _, _| core.forget(JobId(id - 2))).unwrap();
            farm.ledger.remove_job(JobId(id - 2));
            farm.schedule();
        }
        let (requirements, accounts) = (farm.core.requirements.len(), farm.core.held_slots().len());
        assert!(requirements <= 8, "{requirements} requirements are kept for 2 jobs");
        assert!(accounts <= 6, "{accounts} users and projects are kept for 2 jobs");
        assert!(farm.core.limits().count() <= 1, "limits that nobody set and nothing uses are kept");
    }
    assert_eq!(farm.counts(200).done, 2);
}

#[test]
fn a_requirement_in_the_place_of_another_has_its_own_matches() {
    let mut farm = Farm::new();
    farm.join_with(1, 1, &["gpu"]);
    farm.join_with(2, 1, &["big"]);
    let labelled = |id: u64, label: &str| {
        let mut step = job(id, 4).steps()[0].clone();
        step.requires.labels = [label.into()].into();
        JobPlan::new(JobId(id), vec![step]).unwrap()
    };
    farm.submit(labelled(1, "gpu"));
    farm.drain();
    farm.act(|core, _, _| core.forget(JobId(1))).unwrap();
    farm.ledger.remove_job(JobId(1));
    farm.schedule();
    let places = farm.core.requirements.len();
    farm.submit(labelled(2, "big"));
    farm.schedule();
    assert_eq!(farm.core.requirements.len(), places, "it has a place of its own");
    assert_eq!((farm.queue(1, 0).len(), farm.queue(2, 0).len()), (0, 2), "it goes to the worker that fits");
}

#[test]
fn a_job_that_cannot_be_taken_up_leaves_nothing_behind() {
    let mut farm = Farm::new();
    let plan = unique_job(1);
    let mut restored = RestoredJob::new(kiln_types::JobState::Running, 1);
    restored.steps[0].done = crate::IndexSet::first(1);
    restored.steps[0].failed = crate::IndexSet::first(1);
    let refused = farm.act(|core, now, _| core.restore_job(now, plan, restored));
    assert!(refused.is_err());
    farm.schedule();
    assert_eq!(farm.core.requirements.all().count(), 0);
    assert!(farm.core.held_slots().is_empty());
}

#[test]
fn an_account_that_was_forgotten_has_the_share_that_was_set() {
    let mut farm = Farm::new();
    farm.join(1, 2);
    let capped = Share { max_slots: Some(1), ..Share::default() };
    farm.core.set_share(Account::User("user 1".into()), capped);
    let plan = |id| {
        let plan = job(id, 20);
        plan.scheduled(SchedulingOptions { user: "user 1".into(), ..SchedulingOptions::default() })
    };
    for id in 1..=3 {
        farm.submit(plan(id));
        farm.schedule();
        assert_eq!(farm.core.held_slots()[&Account::User("user 1".into())], 1, "job {id}");
        farm.act(|core, _, out| core.cancel_job(JobId(id), out)).unwrap();
        farm.answer_revokes();
        farm.schedule();
        farm.act(|core, _, _| core.forget(JobId(id))).unwrap();
        farm.ledger.remove_job(JobId(id));
    }
}

#[test]
fn what_is_known_of_memory_outlives_an_attempt_of_a_worker_that_is_not() {
    let mut farm = Farm::new();
    for (worker, gib) in [(1, 16), (2, 8), (3, 32)] {
        let name = format!("w{worker}");
        let offer = WorkerOffer { name, slots: 1, memory: gib << 30, ..WorkerOffer::default() };
        farm.act(|core, now, out| core.worker_joined(now, w(worker), offer, &[], out));
    }
    farm.submit(job(1, 30));
    farm.act(|core, _, out| core.set_desired_state(w(3), DesiredState::Paused, out));
    farm.schedule();
    // Frames went well on 8 GiB, and one was too much for 16: that one is heavy, and the others are not.
    farm.act(|core, _, _| core.learn_memory(task(1, 0), w(2), 1 << 30));
    let heavy = farm.queue(1, 0)[0];
    farm.start(1, task(1, heavy));
    farm.fail(1, task(1, heavy), FailureCause::OutOfMemory);
    let least = |farm: &Farm| farm.core.requirement(JobId(1), STEP).unwrap().room.memory;
    assert_eq!(least(&farm), 0);
    farm.act(|core, _, _| core.learn_memory(task(1, 0), w(99), 1 << 30));
    assert_eq!(least(&farm), 0, "it is thought that no machine of 8 GiB can do it");
    // The same from the records: the worker was removed since.
    farm.act(|core, _, _| core.learn_peak(JobId(1), STEP, 2 << 30, 0));
    assert_eq!(least(&farm), 0);
    farm.act(|core, _, _| core.learn_peak(JobId(1), STEP, 2 << 30, 24 << 30));
    assert_eq!(least(&farm), 0);
}

#[test]
fn a_session_without_a_step_is_forgotten() {
    let mut farm = Farm::new();
    farm.join(1, 1);
    for id in 1..=20 {
        farm.submit(job(id, 1));
        farm.drain();
        farm.act(|core, _, _| core.forget(JobId(id))).unwrap();
        farm.ledger.remove_job(JobId(id));
        farm.schedule();
    }
    assert!(farm.core.indexes.warm.len() <= 1, "one slot has one session");
    assert!(farm.core.indexes.had.is_empty());
}
