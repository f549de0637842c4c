//! Jobs with steps of every kind: one task, frames and parts; dependencies on a step or a frame, done or ended; streams; no
//! session; added to a job that runs or has ended.

use std::num::NonZeroU32;

use kiln_core::{
    Assigned, Core, DependencyEnd, DependencyScope, DependencyStart, Finish, JobPlan, Record, Room,
    StepDependency, StepPlan,
};
use kiln_types::{AttemptId, BlobHash, Failure, FailureCause, JobId, SessionKey, SlotIndex, StepIndex};
use rand::RngExt;

use crate::world::{GIB, SimEvent, World};

/// The most steps that a job has.
const STEPS: usize = 6;

impl World {
    /// Draws a job of frames in parts, perhaps with a bake before them, and with steps that use them.
    pub fn make_kinds(&mut self, id: u64) -> JobPlan {
        let frames = self.rng.random_range(1..=self.scenario.tasks.div_ceil(4));
        let mut steps: Vec<StepPlan> = Vec::new();
        if self.rng.random_bool(0.3) {
            steps.push(self.make_step(1, None, true));
        }
        let parts = NonZeroU32::MIN.saturating_add(self.rng.random_range(0..4));
        let bake = (!steps.is_empty()).then(|| StepDependency::from(StepIndex(0)));
        let rendered = StepPlan {
            after: bake.into_iter().collect(),
            requires: self.make_requirement(),
            ..self.make_step(frames * parts.get(), Some(parts), true)
        };
        steps.push(rendered);
        for _ in 0..self.rng.random_range(1..=3) {
            let step = self.make_consumer(&steps);
            steps.push(step);
        }
        self.note_steps(JobId(id), &steps);
        let options = self.make_options(id);
        JobPlan::new(JobId(id), steps).expect("steps wait for lower ones only").scheduled(options)
    }

    /// Draws a step that depends on one or two of these.
    fn make_consumer(&mut self, before: &[StepPlan]) -> StepPlan {
        let last = before.len() - 1;
        let mut on: Vec<usize> = vec![last];
        on.extend((last > 0 && self.rng.random_bool(0.3)).then(|| self.rng.random_range(0..last)));
        let frames = |step: &StepPlan| step.per_frame.map(|tasks| step.count / tasks);
        let per_frame = if frames(&before[last]).is_some() && self.rng.random_bool(0.7) {
            NonZeroU32::new(self.rng.random_range(1..=2))
        } else {
            None
        };
        let count = match (frames(&before[last]), per_frame) {
            (Some(frames), Some(tasks)) => frames * tasks.get(),
            _ => 1,
        };
        let after = on.into_iter().map(|step| {
            let is_same = per_frame.is_some() && frames(&before[step]) == frames(&before[last]);
            StepDependency {
                step: StepIndex(step as u16),
                scope: if is_same && self.rng.random_bool(0.9) {
                    DependencyScope::Frame
                } else {
                    DependencyScope::Step
                },
                until: if self.rng.random_bool(0.3) { DependencyEnd::Ended } else { DependencyEnd::Done },
                start: if self.rng.random_bool(0.7) {
                    DependencyStart::FirstDone
                } else {
                    DependencyStart::Met
                },
            }
        });
        let after: Vec<StepDependency> = after.collect();
        let opens = self.rng.random_bool(0.3);
        StepPlan { after, ..self.make_step(count, per_frame, opens) }
    }

    fn make_step(&mut self, count: u32, per_frame: Option<NonZeroU32>, opens: bool) -> StepPlan {
        let session = opens.then(|| SessionKey(BlobHash::of(&[self.rng.random_range(0..3u8)])));
        let memory = [0, 0, GIB, 4 * GIB, 12 * GIB][self.rng.random_range(0..5)];
        let mut plan = StepPlan { per_frame, measures_speed: opens, ..StepPlan::new(count, session) };
        plan.requires.room = Room { memory, ..Room::default() };
        plan
    }

    /// Adds a step to a job, as a person does.
    pub fn add_step(&mut self, job: JobId) {
        let Some((plan, _)) = self.server.disk.ledger.restored(job) else { return };
        if plan.steps().len() >= STEPS {
            return;
        }
        let step = self.make_consumer(plan.steps());
        let had_ended =
            self.server.core.as_ref().and_then(|core| core.job(job)).map(|job| job.state.is_end());
        self.adding = Some(step.clone());
        let added = self.batch(None, |core: &mut Core, _, out| core.add_step(job, step, out));
        self.adding = None;
        self.checker.report.added_late += u64::from(had_ended == Some(true) && matches!(added, Some(Ok(_))));
    }

    /// Notes and stores a step together with the record of its addition.
    pub fn note_added(&mut self, record: &Record) {
        if let Record::StepAdded { job, .. } = record {
            let plan = self.adding.take().expect("a person adds it");
            self.checker.step_added(*job, &plan);
            self.server.disk.ledger.add_step(*job, plan);
            if let Some((plan, _)) = self.server.disk.ledger.restored(*job) {
                self.note_steps(*job, plan.steps());
            }
        }
    }

    /// Begins a stream; some fail before they are placed.
    pub fn stream(&mut self, worker: usize, task: Assigned) {
        let attempt = task.attempt;
        self.workers[worker].streams.insert(attempt, task);
        if self.workers[worker].refuses_until > self.now {
            return self.refuse_queue(worker);
        }
        if self.one_in(self.scenario.fails_one_in.div_ceil(3)) {
            let (life, wait) = (self.workers[worker].life, self.about(self.scenario.frame_ms));
            self.later(wait, SimEvent::StreamFails { worker, life, attempt });
        }
    }

    /// Queues a streaming attempt on its slot.
    pub fn place(&mut self, worker: usize, attempt: AttemptId, slot: SlotIndex) {
        let known = &mut self.workers[worker];
        if let Some(task) = known.streams.remove(&attempt) {
            known.slots[usize::from(slot.0)].queue.push_back(task);
            self.start_next(worker, slot);
        }
    }

    pub fn fail_stream(&mut self, worker: usize, attempt: AttemptId) {
        if let Some(task) = self.workers[worker].streams.remove(&attempt) {
            let finish = Finish::Failed(Failure::new(FailureCause::Crashed, "the stream went wrong"));
            self.workers[worker].unsettled.insert(attempt, (None, task, finish));
            self.report_end(worker, attempt);
        }
    }
}
