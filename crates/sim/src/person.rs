//! People: they submit jobs and change their minds.

use std::{
    collections::BTreeSet,
    num::{NonZeroU16, NonZeroU32},
};

use kiln_core::{
    DeviceOption, Gpus, JobError, JobPlan, Label, Moment, OpenDevice, Record, Requirement, Room, Standing,
    StepPlan,
};
use kiln_types::{BlobHash, JobId, Order, SessionKey, StepIndex, TaskIndex, WorkerWish};
use rand::RngExt;

use crate::world::{Event, GIB, World};

/// The named limit that some jobs count against, and who has jobs.
pub const LICENCE: &str = "renderer";
/// What every worker with a GPU has, whatever its backend.
pub const ANY_GPU: &str = "a GPU";
pub const PROJECTS: [&str; 2] = ["film", "ad"];
pub const USERS: [&str; 3] = ["ada", "bob", "cy"];

/// The step renders on any GPU, the best first.
fn open_device(step: &mut StepPlan) {
    let option = |backend: &str| {
        let label = Label(format!("device {backend}"));
        let session = SessionKey(BlobHash::of(format!("{} on {label}", step.session.0).as_bytes()));
        DeviceOption { label, session }
    };
    let options = ["optix", "cuda", "hip"].map(option).to_vec();
    step.requires.labels = [ANY_GPU.into()].into();
    step.device = Some(OpenDevice { any: ANY_GPU.into(), session: step.session, options });
}

impl World {
    pub fn make_plan(&mut self) -> JobPlan {
        self.last_job += 1;
        let id = self.last_job;
        let steps = self.rng.random_range(1..=3u16);
        // Some jobs share a scene, and so a session.
        let session = SessionKey(BlobHash::of(&[self.rng.random_range(0..3u8)]));
        let plan = |index: u16, world: &mut Self| StepPlan {
            count: world.rng.random_range(1..=world.scenario.tasks),
            after: (0..index).filter(|_| world.rng.random_bool(0.6)).map(StepIndex).collect(),
            order: world.make_order(),
            requires: world.make_requirement(),
            session,
            hang_ms: None,
            device: None,
        };
        let mut steps: Vec<StepPlan> = (0..steps).map(|index| plan(index, self)).collect();
        if id.is_multiple_of(3) {
            steps.iter_mut().for_each(open_device);
        }
        for (index, step) in steps.iter().enumerate() {
            self.sessions.insert((JobId(id), StepIndex(index as u16)), step.session);
        }
        let standing = self.make_standing(id);
        JobPlan::new(JobId(id), steps).expect("steps wait for lower ones only").standing(standing)
    }

    /// What a job has open follows the device that it is pinned to.
    pub fn note_sessions(&mut self, record: &Record) {
        let Record::JobPinned { job, .. } = record else { return };
        let Some((plan, _)) = self.server.disk.ledger.restored(*job) else { return };
        for (index, step) in plan.steps().iter().enumerate() {
            self.sessions.insert((*job, StepIndex(index as u16)), step.session);
        }
    }

    fn make_requirement(&mut self) -> Requirement {
        let mut requires = match self.rng.random_range(0..4) {
            0 => Requirement::from_iter(["device cuda"]),
            _ => Requirement::default(),
        };
        if self.rng.random_bool(0.4) {
            let rng = &mut self.rng;
            requires.room = Room {
                cores: [0, 0, 2, 4][rng.random_range(0..4)],
                memory: [0, 0, 2 * GIB, 6 * GIB][rng.random_range(0..4)],
                gpus: match rng.random_range(0..6) {
                    0 => Gpus::Some { count: NonZeroU16::MIN, memory: 4 * GIB },
                    1 => Gpus::All { memory: 0 },
                    _ => Gpus::None,
                },
                whole: rng.random_bool(0.1),
                ..Room::default()
            };
        }
        if self.rng.random_bool(0.2) {
            requires.limits.insert(LICENCE.into(), self.rng.random_range(1..=2));
        }
        requires
    }

    /// Some jobs wait for an earlier one, or for a time.
    fn make_standing(&mut self, id: u64) -> Standing {
        let rng = &mut self.rng;
        let mut rarely = |part: f64| !self.calm && rng.random_bool(part);
        let (waits, later, capped) = (rarely(0.25), rarely(0.2), rarely(0.3));
        Standing {
            priority: [0, 50, 50, 80, 100][rng.random_range(0..5)],
            project: PROJECTS[rng.random_range(0..PROJECTS.len())].into(),
            user: USERS[rng.random_range(0..USERS.len())].into(),
            max_workers: capped.then(|| rng.random_range(1..=3)),
            after: (1..id).filter(|_| waits).map(JobId).collect(),
            not_before: later.then(|| Moment(self.now + rng.random_range(1..60_000))),
        }
    }

    /// A person lets the job wait for no other any more.
    pub fn let_go(&mut self, job: JobId) {
        let Some(standing) = self.server.disk.ledger.standing(job).cloned() else { return };
        let standing = Standing { after: BTreeSet::new(), not_before: None, ..standing };
        self.checker.stands(job, standing.clone());
        self.server.disk.ledger.set_standing(job, standing.clone());
        // In the calm the server does not die: what is on its disk is what it knows.
        let _ = self.brain(None, |core, now, _| core.set_standing(now, job, standing));
    }

    fn make_order(&mut self) -> Order {
        match self.rng.random_range(0..10) {
            0..5 => Order::Sequential,
            5 => Order::Reverse,
            6 | 7 => Order::Preview,
            _ => Order::Every(NonZeroU32::MIN.saturating_add(self.rng.random_range(0..12))),
        }
    }

    /// A person does something.
    pub fn verb(&mut self) {
        let wait = self.about(self.scenario.verb_every_ms);
        self.later(wait, Event::Verb);
        if self.last_job < u64::from(self.scenario.jobs) {
            let plan = self.make_plan();
            self.submit(plan);
            return;
        }
        let job = JobId(self.rng.random_range(1..=self.last_job));
        let which = self.rng.random_range(0..12);
        let index = TaskIndex(self.rng.random_range(0..self.scenario.tasks));
        let all = self.rng.random_bool(0.2);
        let worker = self.rng.random_range(0..self.workers.len());
        let (worker, wish) = (self.workers[worker].id, WorkerWish::ALL[self.rng.random_range(0..4)]);
        match which {
            0 => self.decide(|core, now, out| core.pause_job(now, job, out)),
            1 | 2 => self.decide(|core, now, out| core.resume_job(now, job, out)),
            3 => self.decide(|core, now, out| core.cancel_job(now, job, out)),
            4 | 5 => self.decide(|core, now, out| core.retry_failed(now, job, out).map(drop)),
            6 | 7 => self.decide(|core, now, out| {
                let which = if all { None } else { Some((StepIndex(0), &[index][..])) };
                core.rerender(now, job, which, out).map(drop)
            }),
            8 => self.decide(|core, now, out| core.extend(now, job, StepIndex(0), 1 + index.0 / 4, out)),
            9 => self.forget(job),
            10 => self.wish(worker, wish),
            _ => self.wish(worker, WorkerWish::Work),
        }
    }

    fn decide(
        &mut self,
        verb: impl FnOnce(
            &mut kiln_core::Core,
            kiln_core::Moment,
            &mut crate::server::Said,
        ) -> Result<(), JobError>,
    ) {
        // A refusal is an answer like any other; that it leaves nothing behind is seen by the checks.
        let _ = self.brain(None, verb);
    }

    pub fn submit(&mut self, plan: JobPlan) {
        let written = self.brain(Some(&plan), |core, now, out| core.submit(now, plan.clone(), out));
        match written {
            Some(answer) => {
                answer.expect("a new id");
                if self.calm {
                    self.let_go(plan.id());
                }
            }
            // The server died before it was on disk: the person tries again.
            None => self.later(5_000, Event::Submit(plan)),
        }
    }

    fn forget(&mut self, job: JobId) {
        if let Some(core) = &mut self.server.core
            && core.forget(job).is_ok()
        {
            self.server.disk.ledger.remove_job(job);
            self.checker.forget(job);
        }
    }

    pub fn wish(&mut self, worker: kiln_types::WorkerId, wish: WorkerWish) {
        let written = self.brain(None, |core, now, out| core.set_wish(now, worker, wish, out));
        if written.is_some() {
            self.server.disk.wishes.insert(worker, wish);
        }
    }
}
