//! The simulated people, who submit jobs and change their minds.

use std::{
    collections::BTreeSet,
    num::{NonZeroU16, NonZeroU32},
};

use kiln_core::{
    DependencyEnd, DependencyScope, DeviceOption, Gpus, JobError, JobPlan, Label, Moment, OpenDevice, Record,
    Requirement, Room, SchedulingOptions, StepPlan, first_in_order,
};
use kiln_types::{BlobHash, DesiredState, JobId, Order, SessionKey, StepIndex, TaskIndex};
use rand::RngExt;

use crate::world::{GIB, SimEvent, World};

/// The limit that some jobs count against.
pub const LICENCE: &str = "renderer";
/// The label of every worker with a GPU, whatever its backend.
pub const ANY_GPU: &str = "a GPU";
pub const PROJECTS: [&str; 2] = ["show", "ad"];
pub const USERS: [&str; 3] = ["ada", "bob", "cy"];

/// Lets the step render on any GPU, the best first.
fn open_device(step: &mut StepPlan) {
    let Some(session) = step.session else { return };
    let option = |backend: &str| {
        let label = Label(format!("device {backend}"));
        let session = SessionKey(BlobHash::of(format!("{} on {label}", session.0).as_bytes()));
        DeviceOption { label, session }
    };
    let options = ["optix", "cuda", "hip"].map(option).to_vec();
    step.requires.labels = [ANY_GPU.into()].into();
    step.device = Some(OpenDevice { any: ANY_GPU.into(), session, options });
}

impl World {
    pub fn make_plan(&mut self) -> JobPlan {
        self.last_job += 1;
        let id = self.last_job;
        if self.scenario.kinds && self.rng.random_bool(0.8) {
            return self.make_kinds(id);
        }
        let steps = self.rng.random_range(1..=3u16);
        // Some jobs share a scene, and so a session.
        let session = SessionKey(BlobHash::of(&[self.rng.random_range(0..3u8)]));
        let plan = |index: u16, world: &mut Self| StepPlan {
            count: world.rng.random_range(1..=world.scenario.tasks),
            per_frame: None,
            after: (0..index)
                .filter(|_| world.rng.random_bool(0.6))
                .map(|step| StepIndex(step).into())
                .collect(),
            order: world.make_order(),
            requires: world.make_requirement(),
            session: Some(session),
            measures_speed: true,
            hang_ms: None,
            device: None,
        };
        let mut steps: Vec<StepPlan> = (0..steps).map(|index| plan(index, self)).collect();
        if id.is_multiple_of(3) {
            steps.iter_mut().for_each(open_device);
        }
        if id.is_multiple_of(4) {
            self.count_frames(&mut steps);
        }
        self.note_steps(JobId(id), &steps);
        let options = self.make_options(id);
        JobPlan::new(JobId(id), steps).expect("steps wait for lower ones only").scheduled(options)
    }

    /// Holds some jobs of frames after their first ones. People and the end of the run resume them.
    fn hold(&mut self, plan: JobPlan) -> JobPlan {
        let first = &plan.steps()[0];
        let Some(each) = first.per_frame.filter(|_| plan.id().0.is_multiple_of(8)) else { return plan };
        let (order, frames) = (first.order, first.count / each);
        let count = self.rng.random_range(1..=frames);
        plan.held_after(first_in_order(order, frames, count)).expect("the job has these frames")
    }

    /// Makes the steps be about the same frames, each with one to three tasks for a frame, and some dependencies on the same
    /// frame, done or ended.
    fn count_frames(&mut self, steps: &mut [StepPlan]) {
        let frames = self.rng.random_range(1..=self.scenario.tasks.div_ceil(3));
        for step in steps {
            let tasks = NonZeroU32::MIN.saturating_add(self.rng.random_range(0..3));
            (step.per_frame, step.count) = (Some(tasks), frames * tasks.get());
            for after in &mut step.after {
                if self.rng.random_bool(0.7) {
                    after.scope = DependencyScope::Frame;
                }
                if self.rng.random_bool(0.3) {
                    after.until = DependencyEnd::Ended;
                }
            }
        }
    }

    /// Notes the sessions of a job again when it is pinned to a device.
    pub fn note_sessions(&mut self, record: &Record) {
        let Record::JobPinned { job, .. } = record else { return };
        let Some((plan, _)) = self.server.disk.ledger.restored(*job) else { return };
        self.note_steps(*job, plan.steps());
    }

    pub fn note_steps(&mut self, job: JobId, steps: &[StepPlan]) {
        for (index, step) in steps.iter().enumerate() {
            let of = (job, StepIndex(index as u16));
            self.sessions.extend(step.session.map(|session| (of, session)));
        }
    }

    pub fn make_requirement(&mut self) -> Requirement {
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

    /// Draws scheduling options: some jobs wait for an earlier one, or for a time.
    pub fn make_options(&mut self, id: u64) -> SchedulingOptions {
        let rng = &mut self.rng;
        let mut rarely = |part: f64| !self.calm && rng.random_bool(part);
        let (waits, later, capped) = (rarely(0.25), rarely(0.2), rarely(0.3));
        SchedulingOptions {
            priority: [0, 50, 50, 80, 100][rng.random_range(0..5)],
            project: PROJECTS[rng.random_range(0..PROJECTS.len())].into(),
            user: USERS[rng.random_range(0..USERS.len())].into(),
            max_workers: capped.then(|| rng.random_range(1..=3)),
            after: (1..id).filter(|_| waits).map(JobId).collect(),
            not_before: later.then(|| Moment(self.now + rng.random_range(1..60_000))),
        }
    }

    /// Drops the job's dependencies and start time, as a person does.
    pub fn drop_dependencies(&mut self, job: JobId) {
        let Some(options) = self.server.disk.ledger.options(job).cloned() else { return };
        let options = SchedulingOptions { after: BTreeSet::new(), not_before: None, ..options };
        self.checker.set_options(job, options.clone());
        self.server.disk.ledger.set_options(job, options.clone());
        // In the calm the server does not die: the disk may be written first.
        let _ = self.batch(None, |core, now, _| core.set_scheduling(now, job, options));
    }

    fn make_order(&mut self) -> Order {
        match self.rng.random_range(0..10) {
            0..5 => Order::Sequential,
            5 => Order::Reverse,
            6 | 7 => Order::Coarse,
            _ => Order::Every(NonZeroU32::MIN.saturating_add(self.rng.random_range(0..12))),
        }
    }

    /// Does something that a person may do.
    pub fn act(&mut self) {
        let wait = self.about(self.scenario.act_every_ms);
        self.later(wait, SimEvent::Act);
        if self.last_job < u64::from(self.scenario.jobs) {
            let plan = self.make_plan();
            let plan = self.hold(plan);
            self.submit(plan);
            return;
        }
        let job = JobId(self.rng.random_range(1..=self.last_job));
        if self.scenario.kinds && self.rng.random_bool(0.25) {
            return self.add_step(job);
        }
        let which = self.rng.random_range(0..12);
        let index = TaskIndex(self.rng.random_range(0..self.scenario.tasks));
        let all = self.rng.random_bool(0.2);
        let worker = self.rng.random_range(0..self.workers.len());
        let (worker, desired) = (self.workers[worker].id, DesiredState::ALL[self.rng.random_range(0..4)]);
        match which {
            0 => self.decide(|core, _, out| core.pause_job(job, out)),
            1 | 2 => self.decide(|core, _, out| core.resume_job(job, out)),
            3 => self.decide(|core, _, out| core.cancel_job(job, out)),
            4 | 5 => self.decide(|core, _, out| core.retry_failed(job, out).map(drop)),
            6 | 7 => self.decide(|core, _, out| {
                let which = if all { None } else { Some((StepIndex(0), &[index][..])) };
                core.rerender(job, which, out).map(drop)
            }),
            8 => {
                let each = self.checker.tasks_per_frame(job);
                self.decide(|core, _, out| core.extend(job, StepIndex(0), each * (1 + index.0 / 4), out));
            }
            9 => self.forget(job),
            10 => self.set_desired(worker, desired),
            _ => self.set_desired(worker, DesiredState::Active),
        }
    }

    fn decide(
        &mut self,
        verb: impl FnOnce(
            &mut kiln_core::Core,
            kiln_core::Moment,
            &mut crate::server::Decisions,
        ) -> Result<(), JobError>,
    ) {
        // A refusal is an answer like any other; checks show that it changes nothing.
        let _ = self.batch(None, verb);
    }

    pub fn submit(&mut self, plan: JobPlan) {
        let written = self.batch(Some(&plan), |core, now, out| core.submit(now, plan.clone(), out));
        match written {
            Some(answer) => {
                answer.expect("a new id");
                if self.calm {
                    self.drop_dependencies(plan.id());
                }
            }
            // The server died before the job was on disk: the person tries again.
            None => self.later(5_000, SimEvent::Submit(plan)),
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

    pub fn set_desired(&mut self, worker: kiln_types::WorkerId, desired: DesiredState) {
        let written = self.batch(None, |core, _, out| core.set_desired_state(worker, desired, out));
        if written.is_some() {
            self.server.disk.desired.insert(worker, desired);
        }
    }
}
