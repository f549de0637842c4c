//! The added steps of the random farms: parts of frames, steps that merge them as they arrive, and removed files.

use kiln_store::FileFilter;
use kiln_types::{
    DependencyEnd, DependencyScope, DependencyStart, JobSteps, ProductKind, StepDependency, StepIndex,
    StepInput, StepSpec, TaskFile, TaskId, TaskIndex, TaskSpace,
};

use super::*;
use crate::scheduler::farm::LiveJob;

/// The most steps of a job.
const STEPS: usize = 5;

/// A file that no other attempt makes.
pub(super) fn made_by(attempt: AttemptId) -> MadeFiles {
    let path = kiln_types::RelPath::new(&format!("test/{attempt}")).unwrap();
    let hash = BlobHash::of(attempt.to_string().as_bytes());
    MadeFiles::Files(vec![TaskFile { path, hash, size: 1, picture: None }])
}

/// Returns a step that makes parts of each frame, merges those of a frame from the first on, or uses all of them.
fn any_step(rng: &mut StdRng, steps: &JobSteps) -> StepSpec {
    let of_frame = |step| StepDependency { scope: DependencyScope::Frame, ..StepDependency::from(step) };
    let spec = |space, after, product| StepSpec {
        kind: StepKind::Test,
        space,
        order: steps.get(steps.frames_step()).unwrap().order,
        after: vec![after],
        opens: StepInput::None,
        renders: false,
        product,
    };
    let parts = steps.iter().filter(|(_, step)| matches!(step.space, TaskSpace::Parts(_))).last();
    let choice = rng.random_range(0..4);
    let Some((parts, _)) = parts.filter(|_| choice > 0) else {
        let count = rng.random_range(2..5).try_into().unwrap();
        return spec(TaskSpace::Parts(count), of_frame(steps.frames_step()), ProductKind::Intermediate);
    };
    let start = DependencyStart::FirstDone;
    if choice > 1 {
        let product = [ProductKind::Preview, ProductKind::Intermediate][rng.random_range(0..2)];
        return spec(TaskSpace::Frames, StepDependency { start, ..of_frame(parts) }, product);
    }
    let until = [DependencyEnd::Done, DependencyEnd::Ended][rng.random_range(0..2)];
    let all = StepDependency { start, until, ..parts.into() };
    spec(TaskSpace::One, all, ProductKind::Intermediate)
}

/// Checks that the files of all tasks on which an attempt at this task depends are stored. Returns their number.
async fn count_inputs(store: &Store, live: &LiveJob, task: TaskId) -> usize {
    let own = live.steps.get(task.step).unwrap();
    let mut found = 0;
    for after in &own.after {
        let made = live.steps.get(after.step).unwrap();
        if made.product != ProductKind::Intermediate || after.until != DependencyEnd::Done {
            continue;
        }
        let (tasks, count) = match (after.scope, own.space.per_frame(), made.space.per_frame()) {
            (DependencyScope::Frame, Some(own), Some(made)) => {
                let first = task.index.0 / u32::from(own.get()) * u32::from(made.get());
                let last = first + u32::from(made.get()) - 1;
                (Some((TaskIndex(first), TaskIndex(last))), made.get().into())
            }
            _ => (None, made.tasks(&live.spec.frames)),
        };
        let filter = FileFilter { job: task.job, step: after.step, outputs: false, tasks, after_seq: 0 };
        let files = store.step_files(&filter, 1000).await.unwrap();
        assert_eq!(files.len(), count as usize, "{task} is at work without the files of step {}", after.step);
        found += files.len();
    }
    found
}

impl World {
    pub(super) async fn add_step(&mut self, job: JobId) {
        let Some(live) = self.scheduler().farm.jobs.get(&job) else { return };
        let steps = live.steps.clone();
        if steps.iter().count() < STEPS {
            let step = any_step(&mut self.rng, &steps);
            self.command(job, JobCommand::AddStep(Box::new(step))).await;
        }
    }

    /// Connects all workers and lets them finish their tasks for a while, so that dependent tasks begin.
    pub(super) async fn calm(&mut self) {
        for worker in 0..self.puppets.len() {
            if self.puppets[worker].downs.is_none() {
                self.join(worker).await;
            }
        }
        for _ in 0..3 {
            for worker in 0..self.puppets.len() {
                self.answer_revokes(worker).await;
                let held = self.puppets[worker].held.values().map(|(held, _)| held);
                let on_slots = held.filter(|held| held.phase.slot().is_some()).map(|held| held.attempt);
                for attempt in on_slots.take(4).collect::<Vec<_>>() {
                    self.up(worker, Up::Started { attempt }).await;
                    self.finish(worker, attempt, None).await;
                    self.turn().await;
                }
            }
        }
    }

    /// Tells the ledger of steps that were added, before it hears the records that follow from them.
    pub(super) fn learn_steps(&mut self) {
        for (job, live) in &self.scheduler.as_ref().unwrap().farm.jobs {
            let known = self.steps.get_mut(job).unwrap();
            for (_, step) in live.steps.iter().skip(*known) {
                self.ledger.add_step(*job, plan::step_plan(*job, &live.spec, step));
                *known += 1;
                *self.compared.entry("added steps").or_default() += 1;
            }
        }
    }

    /// Checks that the scheduler knows which intermediate files are stored, and that running tasks have their inputs.
    pub(super) async fn compare_files(&mut self) {
        let farm = &self.scheduler.as_ref().unwrap().farm;
        let store = self.scheduler.as_ref().unwrap().store.clone();
        let mut count = |what, times| *self.compared.entry(what).or_default() += times;
        for (job, live) in &farm.jobs {
            for (step, _) in live.steps.iter().filter(|(_, step)| step.product == ProductKind::Intermediate) {
                let believed = live.without_files.get(&step).cloned().unwrap_or_default();
                let stored = store.tasks_without_files(*job, step).await.unwrap();
                assert_eq!(believed.iter().collect::<Vec<_>>(), stored, "files of {job}.{step} are gone");
                count("tasks without files", stored.len());
            }
        }
        for puppet in &self.puppets {
            for (_, attempt) in farm.attempts.of_worker(puppet.id) {
                let live = &farm.jobs[&attempt.task.job];
                let streams = attempt.slot.is_none();
                let first_test = StepIndex(live.steps.frames_step().0 + 1);
                if streams {
                    count("streams", 1);
                } else if attempt.task.step >= first_test {
                    count("inputs of tasks at work", count_inputs(&store, live, attempt.task).await);
                }
            }
        }
    }
}
