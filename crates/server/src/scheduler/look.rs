//! The live state, as pages show it.

use std::collections::HashSet;

use kiln_api::{
    RunningList, RunningTask, RunningView, TimeLeft, UnmetView, WaitReason, WorkerQuarantine, WorkerView,
};
use kiln_core::{Explainer, Moment};
use kiln_types::{AttemptId, JobId, JobState, TaskCounts, WorkerId, WorkerState};

use super::{explain::time_left, farm::FarmState, roster::LiveAttempt};

/// The live state of a job, which the records do not have.
pub(crate) struct LiveJobView {
    pub state: JobState,
    /// One for each step.
    pub steps: Vec<LiveStep>,
    pub workers_busy: u32,
    pub waits_for: Option<WaitReason>,
    pub unmet: Vec<UnmetView>,
    pub mean_frame_s: Option<f64>,
    pub left: Option<TimeLeft>,
}

pub(crate) struct LiveStep {
    pub tasks: TaskCounts,
    /// Of tasks that run, the parts that are done, as Blender says: 1 is a whole task.
    pub inside: f64,
}

impl FarmState {
    /// Each `None` where the job has ended some time ago, or does not exist.
    pub(crate) fn job_views(&self, jobs: &[JobId]) -> Vec<Option<LiveJobView>> {
        let mut survey = self.core.explainer(self.clock.now());
        jobs.iter().map(|job| self.surveyed(&mut survey, *job)).collect()
    }

    /// The same of one.
    pub(crate) fn job_view(&self, job: JobId) -> Option<LiveJobView> {
        self.surveyed(&mut self.core.explainer(self.clock.now()), job)
    }

    fn surveyed(&self, survey: &mut Explainer, job: JobId) -> Option<LiveJobView> {
        let live = self.jobs.get(&job)?;
        let view = self.core.job(job)?;
        let steps = view.steps.iter().map(|step| LiveStep { tasks: step.counts, inside: 0.0 });
        let mut steps: Vec<LiveStep> = steps.collect();
        let mut workers = HashSet::new();
        for (_, attempt) in self.attempts.running(job) {
            workers.insert(attempt.worker);
            if let Some(step) = steps.get_mut(usize::from(attempt.task.step.0)) {
                step.inside += f64::from(attempt.fraction.unwrap_or(0.0));
            }
        }
        let all = view.counts();
        let stuck = matches!(view.state, JobState::Queued | JobState::Running)
            && all.assigned + all.running == 0
            && all.waiting > 0;
        let may_be_held = view.state == JobState::Paused && live.spec.hold.is_some();
        let (waits_for, unmet) =
            if stuck || may_be_held { self.waits_for(survey, job) } else { (None, Vec::new()) };
        Some(LiveJobView {
            state: view.state,
            steps,
            workers_busy: u32::try_from(workers.len()).unwrap_or(u32::MAX),
            waits_for,
            unmet,
            mean_frame_s: live.mean_frame_s(),
            left: self.core.forecast(self.clock.now(), job).map(time_left),
        })
    }

    /// All that the records know, by their names.
    pub(crate) fn workers_by_name(&self) -> Vec<WorkerId> {
        let mut all: Vec<(&str, WorkerId)> =
            self.workers.iter().map(|(id, known)| (known.name.as_str(), *id)).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, id)| id).collect()
    }

    /// What runs of a job, and at most so many of it in full; `None` where the farm holds no such job.
    pub(crate) fn running_of(&self, job: JobId, most: usize) -> Option<RunningList> {
        self.jobs.get(&job)?;
        Some(self.running_list(self.attempts.running(job), most))
    }

    /// What runs on these workers.
    pub(crate) fn running_on(&self, workers: &[WorkerId]) -> RunningList {
        self.running_list(workers.iter().flat_map(|worker| self.attempts.of_worker(*worker)), usize::MAX)
    }

    fn running_list<'a>(
        &self,
        attempts: impl Iterator<Item = (AttemptId, &'a LiveAttempt)>,
        most: usize,
    ) -> RunningList {
        let now = self.clock.now();
        let mut list = RunningList { count: 0, inside: 0.0, running: Vec::new() };
        for (attempt, live) in attempts.filter(|(_, live)| live.started.is_some()) {
            list.count = list.count.saturating_add(1);
            let fraction =
                self.fraction(now, live).0.filter(|_| self.name_of_task(live.task).frame.is_some());
            list.inside += f64::from(fraction.unwrap_or(0.0));
            if list.running.len() < most
                && let Some(task) = self.running_view(now, attempt, live)
            {
                list.running.push(RunningTask { worker: self.name_of(live.worker), task });
            }
        }
        list
    }

    fn running_view(&self, now: Moment, attempt: AttemptId, live: &LiveAttempt) -> Option<RunningView> {
        let started = live.started?;
        let (fraction, estimated) = self.fraction(now, live);
        Some(RunningView {
            slot: live.slot?,
            attempt,
            job: live.task.job,
            name: self.name_of_task(live.task),
            since_ms: started.at_ms,
            fraction,
            estimated,
            slow: self.core.slow(now, attempt).map(|slow| slow.usual_ms),
        })
    }

    /// How far a task that runs has come, and whether that is an estimate.
    fn fraction(&self, now: Moment, live: &LiveAttempt) -> (Option<f32>, bool) {
        // Blender says 0 for long, and then often nothing more.
        let said = live.fraction.filter(|fraction| *fraction > 0.0);
        // How long a bake takes, nobody knows.
        let frame = self.name_of_task(live.task).frame.is_some();
        let mean = self.jobs.get(&live.task.job).filter(|_| frame).and_then(|job| job.mean_frame_s());
        let guess = live.started.zip(mean.filter(|mean| *mean > 0.0)).map(|(started, mean)| {
            let seconds = now.since(started.moment) as f64 / 1000.0;
            (seconds / mean).min(0.99) as f32
        });
        (said.or(guess), said.is_none())
    }

    pub(crate) fn worker_view(&self, id: WorkerId) -> Option<WorkerView> {
        let known = self.workers.get(&id)?;
        let state = match (&known.link, self.core.worker(id)) {
            (Some(_), Some(view)) => view.state,
            _ => WorkerState::Offline,
        };
        let now = self.clock.now();
        let mut running: Vec<RunningView> = self
            .attempts
            .of_worker(id)
            .filter_map(|(attempt, live)| self.running_view(now, attempt, live))
            .collect();
        running.sort_by_key(|view| (view.slot, view.attempt));
        Some(WorkerView {
            id,
            name: known.name.clone(),
            state,
            desired: known.desired,
            build: known.said.build.clone(),
            machine: known.said.machine.clone(),
            offered: known.said.offered(),
            slots: known.said.slots,
            tags: known.said.tags.clone(),
            pools: known.pools.iter().map(ToString::to_string).collect(),
            unavailable: known.said.unavailable.clone().filter(|_| known.link.is_some()),
            quarantine: self.core.worker(id).and_then(|view| view.quarantine).map(|known| WorkerQuarantine {
                why: known.reason,
                failed_probes: known.failed_probes,
                next_probe_ms: known.next.map(|at| self.clock.unix_ms(at)),
            }),
            wakes: known.said.wakes,
            blenders: known.said.blenders.clone(),
            running,
            last_seen_ms: known.last_seen_ms,
        })
    }
}
