//! Views of the live state for the API.

use std::collections::HashSet;

use kiln_api::{
    RunningList, RunningTask, RunningView, TimeLeft, UnmetView, WaitReason, WorkerQuarantine, WorkerView,
};
use kiln_core::{Explainer, Moment};
use kiln_types::{AttemptId, JobId, JobState, TaskCounts, WorkerId, WorkerState};

use super::{explain::time_left, farm::FarmState, roster::LiveAttempt};

/// The live state of a job, which is not in the records.
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
    /// The sum of the progress that Blender reports for running tasks: 1 is a whole task.
    pub inside: f64,
}

impl FarmState {
    /// Returns `None` for each job that has ended some time ago or does not exist.
    pub(crate) fn job_views(&self, jobs: &[JobId]) -> Vec<Option<LiveJobView>> {
        let mut survey = self.core.explainer(self.clock.now());
        jobs.iter().map(|job| self.survey_job(&mut survey, *job)).collect()
    }

    /// Returns `None` for a job that has ended some time ago or does not exist.
    pub(crate) fn job_view(&self, job: JobId) -> Option<LiveJobView> {
        self.survey_job(&mut self.core.explainer(self.clock.now()), job)
    }

    fn survey_job(&self, survey: &mut Explainer, job: JobId) -> Option<LiveJobView> {
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

    /// Returns all workers, in the order of their names.
    pub(crate) fn workers_by_name(&self) -> Vec<WorkerId> {
        let mut all: Vec<(&str, WorkerId)> =
            self.workers.iter().map(|(id, known)| (known.name.as_str(), *id)).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, id)| id).collect()
    }

    /// Returns the running tasks of a job, at most `most` of them in full; `None` if the scheduler does not hold the job.
    pub(crate) fn running_of(&self, job: JobId, most: usize) -> Option<RunningList> {
        self.jobs.get(&job)?;
        Some(self.running_list(self.attempts.running(job), most))
    }

    /// Returns the running tasks of these workers.
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

    /// Returns the progress of a running task, and whether it is an estimate.
    fn fraction(&self, now: Moment, live: &LiveAttempt) -> (Option<f32>, bool) {
        // Blender reports 0 for a long time, and often nothing after that.
        let reported = live.fraction.filter(|fraction| *fraction > 0.0);
        // There is no estimate for a bake.
        let frame = self.name_of_task(live.task).frame.is_some();
        let mean = self.jobs.get(&live.task.job).filter(|_| frame).and_then(|job| job.mean_frame_s());
        let estimate = live.started.zip(mean.filter(|mean| *mean > 0.0)).map(|(started, mean)| {
            let seconds = now.since(started.moment) as f64 / 1000.0;
            (seconds / mean).min(0.99) as f32
        });
        (reported.or(estimate), reported.is_none())
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
            build: known.info.build.clone(),
            machine: known.info.machine.clone(),
            offered: known.info.offered(),
            slots: known.info.slots,
            tags: known.info.tags.clone(),
            pools: known.pools.iter().map(ToString::to_string).collect(),
            unavailable: known.info.unavailable.clone().filter(|_| known.link.is_some()),
            quarantine: self.core.worker(id).and_then(|view| view.quarantine).map(|known| WorkerQuarantine {
                why: known.reason,
                failed_probes: known.failed_probes,
                next_probe_ms: known.next.map(|at| self.clock.unix_ms(at)),
            }),
            wakes: known.info.wakes,
            blenders: known.info.blenders.clone(),
            running,
            last_seen_ms: known.last_seen_ms,
        })
    }
}
