//! Any sequence of events leaves the core sane, and what was recorded is what it knows.

use std::{collections::BTreeMap, num::NonZeroU32};

use kiln_types::{
    AttemptId, BlobHash, DesiredState, Epoch, Failure, FailureCause, Generation, JobId, Order, SessionKey,
    SlotIndex, StepIndex, TaskIndex,
};
use proptest::prelude::*;

use super::{
    Farm,
    device::{GPU, open},
    farm::Decisions,
    frames::{frames, same_frame, streaming},
    job,
    order::orders,
    steps, task, w,
};
use crate::{
    DependencyEnd, DependencyScope, Finish, HeldPhase, JobPlan, Record, StepDependency, StepPlan,
    first_in_order,
};

#[derive(Debug, Clone)]
enum Event {
    Submit {
        shape: u8,
        count: u32,
        order: Order,
        hold: u32,
    },
    Join {
        worker: u64,
        slots: u16,
    },
    Crash {
        worker: u64,
    },
    Leave {
        worker: u64,
    },
    /// Reports of the attempt at this place among all that are held.
    Start {
        which: usize,
    },
    Deliver {
        which: usize,
    },
    Fail {
        which: usize,
        cause: u8,
    },
    Return {
        which: usize,
    },
    AnswerRevokes,
    Lie {
        worker: u64,
        counter: u64,
        how: u8,
    },
    Pass {
        ms: u64,
        alive: u64,
    },
    DesiredState {
        worker: u64,
        state: u8,
    },
    Pause {
        job: u64,
    },
    Resume {
        job: u64,
    },
    Cancel {
        job: u64,
    },
    Retry {
        job: u64,
    },
    Rerender {
        job: u64,
        task: Option<u32>,
    },
    Extend {
        job: u64,
        step: u16,
    },
    AddStep {
        job: u64,
        shape: u8,
    },
    Forget {
        job: u64,
        worker: u64,
    },
    Unquarantine {
        worker: u64,
    },
    Progress {
        which: usize,
    },
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    let (worker, job, which) = (1u64..5, 1u64..4, 0usize..64);
    prop_oneof![
        2 => (0u8..8, 1u32..12, orders(), 0u32..8)
            .prop_map(|(shape, count, order, hold)| Event::Submit { shape, count, order, hold }),
        4 => (worker.clone(), 0u16..4).prop_map(|(worker, slots)| Event::Join { worker, slots }),
        1 => worker.clone().prop_map(|worker| Event::Crash { worker }),
        2 => worker.clone().prop_map(|worker| Event::Leave { worker }),
        10 => which.clone().prop_map(|which| Event::Start { which }),
        10 => which.clone().prop_map(|which| Event::Deliver { which }),
        3 => (which.clone(), 0u8..8).prop_map(|(which, cause)| Event::Fail { which, cause }),
        2 => which.clone().prop_map(|which| Event::Return { which }),
        1 => which.prop_map(|which| Event::Progress { which }),
        4 => Just(Event::AnswerRevokes),
        2 => (worker.clone(), 0u64..40, 0u8..3)
            .prop_map(|(worker, counter, how)| Event::Lie { worker, counter, how }),
        1 => (60_000u64..2_000_000, 0u64..16).prop_map(|(ms, alive)| Event::Pass { ms, alive }),
        3 => (1u64..40_000, 0u64..16).prop_map(|(ms, alive)| Event::Pass { ms, alive }),
        1 => (worker.clone(), 0u8..4).prop_map(|(worker, state)| Event::DesiredState { worker, state }),
        1 => job.clone().prop_map(|job| Event::Pause { job }),
        2 => job.clone().prop_map(|job| Event::Resume { job }),
        1 => job.clone().prop_map(|job| Event::Cancel { job }),
        1 => job.clone().prop_map(|job| Event::Retry { job }),
        1 => (job.clone(), prop::option::of(0u32..12))
            .prop_map(|(job, task)| Event::Rerender { job, task }),
        1 => (job.clone(), 0u16..2).prop_map(|(job, step)| Event::Extend { job, step }),
        1 => worker.clone().prop_map(|worker| Event::Unquarantine { worker }),
        2 => (job.clone(), 0u8..6).prop_map(|(job, shape)| Event::AddStep { job, shape }),
        1 => (job, worker).prop_map(|(job, worker)| Event::Forget { job, worker }),
        1 => Just(Event::Restart),
    ]
}

fn apply(farm: &mut Farm, event: Event) {
    let pick = |farm: &Farm, which: usize| {
        let held: Vec<AttemptId> = farm.held.keys().copied().collect();
        (!held.is_empty()).then(|| held[which % held.len()])
    };
    match event {
        Event::Submit { shape, count, order, hold } => {
            let id = (1..4).find(|id| farm.core.job(JobId(*id)).is_none());
            if let Some(id) = id {
                let plan = match shape {
                    0 => job(id, count),
                    1 => steps(id, &[(count, &[]), (2, &[0])]),
                    3 => open(id, &[(1, &[]), (count, &[0])]),
                    4 => frames(id, count, &[(2, &[]), (1, &[same_frame(0, DependencyEnd::Done)])]),
                    5 => {
                        let (done, ended) =
                            (same_frame(0, DependencyEnd::Done), same_frame(1, DependencyEnd::Ended));
                        frames(id, count.min(4), &[(1, &[]), (3, &[done]), (1, &[done, ended])])
                    }
                    6 => {
                        let parts = streaming(same_frame(0, DependencyEnd::Done));
                        frames(
                            id,
                            count.min(4),
                            &[(3, &[]), (1, &[parts]), (1, &[streaming(StepIndex(1).into())])],
                        )
                    }
                    7 => {
                        let ended = same_frame(0, DependencyEnd::Ended);
                        let all = streaming(StepDependency { scope: DependencyScope::Step, ..ended });
                        frames(id, count.min(4), &[(3, &[]), (1, &[all])])
                    }
                    _ => steps(id, &[(2, &[]), (count, &[]), (1, &[0, 1])]),
                };
                let ordered = plan.steps().iter().map(|step| StepPlan { order, ..step.clone() });
                let plan = JobPlan::new(JobId(id), ordered.collect()).unwrap();
                let first = first_in_order(order, count.min(4), hold.min(count.min(4)));
                // One without frames cannot be held.
                let held = (hold > 0).then(|| plan.clone().held_after(first).ok()).flatten();
                farm.submit(held.unwrap_or(plan));
            }
        }
        Event::Join { worker, slots } => farm.join_with(worker, slots, labels(worker)),
        Event::Crash { worker } => farm.crash(worker),
        Event::Leave { worker } => farm.leave(worker),
        Event::Start { which } => {
            if let Some(attempt) = pick(farm, which) {
                let holding = farm.held.get_mut(&attempt).unwrap();
                holding.run();
                let worker = holding.worker;
                farm.act(|core, now, out| core.attempt_started(now, worker, attempt, out));
            }
        }
        Event::Deliver { which } => report(farm, pick(farm, which), Finish::Delivered),
        Event::Fail { which, cause } => {
            let cause = match cause {
                0 => FailureCause::NoCamera,
                1..=3 => FailureCause::CannotStart,
                _ => FailureCause::Crashed,
            };
            report(farm, pick(farm, which), Finish::Failed(Failure::new(cause, "no")));
        }
        Event::Return { which } => report(farm, pick(farm, which), Finish::Returned),
        Event::AnswerRevokes => farm.answer_revokes(),
        Event::Lie { worker, counter, how } => {
            let attempt = AttemptId { epoch: Epoch(1), counter };
            if farm.held.get(&attempt).is_some_and(|holding| holding.worker == w(worker)) {
                return;
            }
            match how {
                0 => farm.act(|core, now, out| core.attempt_started(now, w(worker), attempt, out)),
                1 => {
                    let failure = Failure::new(FailureCause::Other, "a lie");
                    farm.report(worker, attempt, Finish::Failed(failure));
                }
                _ => {
                    let mut held = farm.holdings(worker);
                    held.push(crate::HeldAttempt {
                        attempt,
                        task: task(1, counter as u32),
                        generation: Generation(0),
                        phase: HeldPhase::Running { slot: SlotIndex((counter % 3) as u16) },
                    });
                    let offer = crate::WorkerOffer { slots: 2, ..crate::WorkerOffer::default() };
                    farm.act(|core, now, out| core.worker_joined(now, w(worker), offer, &held, out));
                }
            }
        }
        Event::Pass { ms, alive } => {
            let alive: Vec<u64> = (1..5).filter(|worker| alive >> (worker - 1) & 1 == 1).collect();
            farm.pass(ms, &alive);
        }
        Event::DesiredState { worker, state } => {
            let state = DesiredState::ALL[usize::from(state) % DesiredState::ALL.len()];
            farm.act(|core, _, out| core.set_desired_state(w(worker), state, out));
        }
        Event::Pause { job } => drop(farm.act(|core, _, out| core.pause_job(JobId(job), out))),
        Event::Resume { job } => drop(farm.act(|core, _, out| core.resume_job(JobId(job), out))),
        Event::Cancel { job } => drop(farm.act(|core, _, out| core.cancel_job(JobId(job), out))),
        Event::Retry { job } => drop(farm.act(|core, _, out| core.retry_failed(JobId(job), out))),
        Event::Rerender { job, task } => {
            let which = task.map(|task| [TaskIndex(task)]);
            let which = which.as_ref().map(|tasks| (StepIndex(0), &tasks[..]));
            drop(farm.act(|core, _, out| core.rerender(JobId(job), which, out)));
        }
        Event::Extend { job, step } => {
            drop(farm.act(|core, _, out| core.extend(JobId(job), StepIndex(step), 2, out)));
        }
        Event::AddStep { job, shape } => {
            let Some(known) = farm.core.job(JobId(job)).filter(|known| known.steps.len() < 5) else { return };
            let last = StepIndex(known.steps.len() as u16 - 1);
            let total = known.steps[0].counts.total;
            let (count, on): (u32, StepDependency) = match shape {
                0 => (2, last.into()),
                1 => (1, streaming(last.into())),
                2 => (1, StepDependency { until: DependencyEnd::Ended, ..streaming(StepIndex(0).into()) }),
                _ => (total, streaming(same_frame(0, DependencyEnd::Done))),
            };
            let session = (shape % 2 == 0).then(|| SessionKey(BlobHash::of(&[shape])));
            let per_frame = NonZeroU32::new(u32::from(shape > 2));
            let measures_speed = session.is_some();
            let plan =
                StepPlan { after: vec![on], per_frame, measures_speed, ..StepPlan::new(count, session) };
            let (core, mut said) = (&mut farm.core, Decisions::default());
            let added = core.add_step(JobId(job), plan.clone(), &mut said);
            assert_eq!(added.is_ok(), !said.records.is_empty(), "a step that is refused leaves something");
            if added.is_ok() {
                farm.ledger.add_step(JobId(job), plan);
            }
            farm.deliver_decisions(said);
        }
        Event::Forget { job, worker } => {
            if farm.core.forget(JobId(job)).is_ok() {
                farm.ledger.remove_job(JobId(job));
            }
            farm.held.retain(|_, holding| holding.worker != w(worker));
            farm.act(|core, now, out| core.forget_worker(now, w(worker), out));
            farm.ledger.remove_worker(w(worker));
        }
        Event::Unquarantine { worker } => {
            farm.act(|core, _, out| core.unquarantine_worker(w(worker), out));
        }
        Event::Progress { which } => {
            if let Some(attempt) = pick(farm, which) {
                let worker = farm.held[&attempt].worker;
                farm.act(|core, now, _| core.attempt_moved(now, worker, attempt));
            }
        }
        Event::Restart => {
            let view = |farm: &Farm| -> Vec<_> {
                let jobs = farm.core.job_ids().map(|id| farm.core.job(id).unwrap());
                jobs.map(|job| {
                    let counts = job.counts();
                    (job.id, job.state, counts.total, counts.done, counts.failed, counts.cancelled)
                })
                .collect()
            };
            let quarantined = |farm: &Farm| -> Vec<_> {
                let workers = farm.core.workers().into_iter();
                let known = workers.filter_map(|one| Some((one.id, one.quarantine?)));
                known.map(|(id, known)| (id, known.reason, known.failed_probes)).collect()
            };
            let before = (view(farm), quarantined(farm));
            farm.restart();
            assert_eq!((view(farm), quarantined(farm)), before, "the records are not enough");
        }
    }
    farm.schedule();
}

/// The last worker has no GPU.
fn labels(worker: u64) -> &'static [&'static str] {
    match worker {
        1 => &[GPU, "optix", "cuda"],
        2 => &[GPU, "cuda"],
        3 => &[GPU, "hip"],
        _ => &[],
    }
}

fn report(farm: &mut Farm, attempt: Option<AttemptId>, finish: Finish) {
    if let Some(attempt) = attempt {
        let worker = farm.held.remove(&attempt).unwrap().worker;
        farm.act(|core, now, out| core.attempt_finished(now, worker, attempt, finish, out));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_events_leaves_the_core_sane(events in prop::collection::vec(event(), 1..120)) {
        let mut farm = Farm::new();
        let mut commits = std::collections::BTreeSet::new();
        let mut lifted = std::collections::BTreeSet::new();
        let (mut workers, mut devices) = (BTreeMap::new(), BTreeMap::new());
        // Added steps render on no device of the job.
        let mut added = std::collections::BTreeSet::new();
        for event in events {
            if matches!(event, Event::Forget { .. }) {
                // A forgotten job's id may come again.
                commits.clear();
                lifted.clear();
                devices.clear();
                added.clear();
            }
            apply(&mut farm, event);
            for record in farm.records.drain(..) {
                match record {
                    Record::AttemptOpened { attempt, worker, .. } => drop(workers.insert(attempt, worker)),
                    Record::JobPinned { job, device: Some(device) } => drop(devices.insert(job, device.0)),
                    Record::HoldLifted { job } => prop_assert!(lifted.insert(job), "job {job} was held again"),
                    Record::StepAdded { job, step } => drop(added.insert((job, step))),
                    Record::TaskCommitted { task, generation, attempt } => {
                        prop_assert!(commits.insert((task, generation)), "{task} committed twice");
                        let device = devices.get(&task.job).filter(|_| !added.contains(&(task.job, task.step)));
                        if let Some(device) = device {
                            let has = labels(workers[&attempt].bits()).contains(&device.as_str());
                            prop_assert!(has, "{task} is delivered by another device than {device}");
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}
