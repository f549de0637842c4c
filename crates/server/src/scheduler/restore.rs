//! Restoration of the live state from the records.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kiln_core::{
    Core, JobPlan, RestoredAttempt, RestoredHistory, RestoredJob, RestoredPhase, RestoredStep,
    SchedulingOptions, Share, TaskSpan,
};
use kiln_store::{AttemptRow, Store, StoreError, StoredJob, StoredStep};
use kiln_types::{
    AttemptState, JobId, JobState, ProductKind, StepIndex, TaskId, TaskIndex, TaskState, WorkerId,
};

use super::{
    farm::{FarmState, LiveJob, account},
    paths::Paths,
    plan::{plan_of, scheduling_of},
    roster::{LiveAttempt, Started},
    worker::KnownWorker,
};
use crate::{clock::Clock, error::ServerError};

/// Frames of a job from whose times the estimates and the speeds of workers are restored.
const TIMES: u32 = 1000;

/// Restores the farm as it was when the last epoch ended.
pub(super) async fn farm(
    store: &Store,
    clock: Clock,
    config: kiln_core::Config,
    heartbeat_ms: u64,
) -> Result<FarmState, ServerError> {
    let mut farm = FarmState {
        core: Core::new(store.epoch(), config),
        clock,
        epoch: store.epoch(),
        heartbeat_ms,
        last_job: store.last_job().await?,
        jobs: Default::default(),
        attempts: Default::default(),
        workers: Default::default(),
        shares: Default::default(),
        limits: store.limits().await?,
        swept: kiln_core::Moment(0),
    };
    for row in store.shares().await? {
        let (account, share) =
            (account(row.kind, row.name), Share { weight: row.weight, max_slots: row.max_slots });
        farm.core.set_share(account.clone(), share);
        farm.shares.insert(account, share);
    }
    for (name, total) in &farm.limits {
        farm.core.set_limit(name, *total);
    }
    let now = farm.clock.now();
    for row in store.workers().await? {
        if let Some(quarantine) = row.quarantine {
            farm.core.restore_quarantine(now, row.id, quarantine);
        }
        let known = KnownWorker {
            name: row.name,
            info: serde_json::from_value(row.info).unwrap_or_default(),
            desired: row.desired,
            pools: row.pools,
            last_seen_ms: row.last_seen_ms,
            link: None,
        };
        farm.workers.insert(row.id, known);
    }
    let unfinished = store.unfinished_jobs().await?;
    let jobs = unfinished.len();
    for stored in unfinished {
        let loaded = LoadedJob::read(store, stored).await?;
        job(&mut farm, store, loaded).await?;
    }
    tracing::info!(epoch = %farm.epoch, jobs, workers = farm.workers.len(), "farm restored");
    Ok(farm)
}

/// A job of the records, with the data that grows with its frames.
pub(super) struct LoadedJob {
    stored: StoredJob,
    /// The sum over all finished frames.
    seconds: f64,
    finished: u32,
    paths: Paths,
    peaks: Vec<(StepIndex, WorkerId, u64)>,
    times: Vec<(TaskIndex, WorkerId, f64)>,
    /// Tasks that are done and whose intermediate files were removed.
    without_files: Vec<TaskId>,
}

impl LoadedJob {
    /// Reads a job. A large one takes long: not in the middle of a turn.
    pub(super) async fn read(store: &Store, stored: StoredJob) -> Result<Self, StoreError> {
        let (job, render) = (stored.row.id, stored.row.plan.frames_step());
        let (mut seconds, mut finished) = (0.0, 0_u32);
        for share in store.job_report(job, render).await? {
            seconds += share.seconds;
            finished = finished.saturating_add(u32::try_from(share.frames).unwrap_or(u32::MAX));
        }
        let mut paths = Paths::default();
        store.current_paths(job, |step, index, path| paths.insert(step, index, path)).await?;
        let peaks = store.job_peaks(job).await?;
        let times = store.step_times(job, render, TIMES).await?;
        let mut without_files = Vec::new();
        for (step, _) in stored.row.plan.iter().filter(|(_, step)| step.product == ProductKind::Intermediate)
        {
            let tasks = store.tasks_without_files(job, step).await?;
            without_files.extend(tasks.into_iter().map(|index| TaskId { job, step, index }));
        }
        Ok(Self { stored, seconds, finished, paths, peaks, times, without_files })
    }
}

/// Adds a job of the records to the farm.
pub(super) async fn job(farm: &mut FarmState, store: &Store, loaded: LoadedJob) -> Result<(), StoreError> {
    let LoadedJob { stored, seconds, finished, paths, peaks, times, without_files } = loaded;
    let after = stored.row.spec.scheduling.after.iter().filter(|before| !farm.jobs.contains_key(before));
    let after: Vec<JobId> = after.copied().collect();
    let completed =
        if after.is_empty() { BTreeSet::new() } else { completed_of(store.job_states(&after).await?) };
    let scheduling = scheduling_of(&stored.row.spec, &farm.clock, &completed);
    let (plan, restored) = restored_job(&stored, scheduling)?;
    let row = stored.row;
    let damaged = |why: String| StoreError::Damaged { what: "job", why };
    let render = row.plan.frames_step();
    let mut live = LiveJob::new(Arc::new(row.spec), row.plan);
    live.notices = row.notices.into_iter().map(|notice| notice.text).collect();
    for step in &row.steps {
        let makes_bundle = live.steps.get(step.step).is_some_and(|spec| spec.product == ProductKind::Bundle);
        if makes_bundle && step.done > 0 && step.bundle.is_none() {
            let why = format!(
                "step {} of job {} is done, and the bundle that it made is not recorded",
                step.step, row.id
            );
            return Err(damaged(why));
        }
        live.bundles.extend(step.bundle.map(|bundle| (step.step, bundle)));
    }
    (live.seconds, live.finished, live.paths) = (seconds, finished, paths);
    without_files.into_iter().for_each(|task| live.note_files_removed(task));
    let now = farm.clock.now();
    live.ended = row.state.is_end().then_some(now);
    live.ended_ms = row.ended_ms;
    live.archived = row.kept.archived_ms.is_some();
    live.inputs_gone_ms = row.kept.inputs_gone_ms;
    for attempt in stored.open {
        let Some(phase) = phase_of(&attempt) else { continue };
        if matches!(phase, RestoredPhase::Expired { .. }) {
            continue;
        }
        let task = attempt.task;
        let started = matches!(phase, RestoredPhase::Running { .. })
            .then(|| Started { moment: now, at_ms: attempt.started_ms.unwrap_or(attempt.opened_ms) });
        let (worker, slot) = (attempt.worker, attempt.slot);
        let open = LiveAttempt { task, worker, slot, started, fraction: None };
        farm.attempts.insert(attempt.id, open);
    }
    farm.core.restore_job(now, plan, restored).map_err(|error| damaged(error.to_string()))?;
    farm.jobs.insert(row.id, live);
    for (step, worker, bytes) in peaks {
        let on = farm.workers.get(&worker).map_or(0, |known| known.info.offered().memory);
        farm.core.learn_peak(row.id, step, bytes, on);
    }
    for (index, worker, seconds) in times {
        if farm.workers.contains_key(&worker) {
            let task = TaskId { job: row.id, step: render, index };
            farm.core.learn_past_time(task, worker, (seconds * 1000.0) as u64);
        }
    }
    Ok(())
}

pub(super) fn completed_of(states: BTreeMap<JobId, JobState>) -> BTreeSet<JobId> {
    states.into_iter().filter(|(_, state)| *state == JobState::Completed).map(|(job, _)| job).collect()
}

/// Returns the plan and the state with which the core restores a job.
pub(super) fn restored_job(
    stored: &StoredJob,
    scheduling: SchedulingOptions,
) -> Result<(JobPlan, RestoredJob), StoreError> {
    let row = &stored.row;
    let damaged = |why: String| StoreError::Damaged { what: "job", why };
    let plan =
        plan_of(row.id, &row.spec, &row.plan, scheduling).map_err(|error| damaged(error.to_string()))?;
    let mut restored = RestoredJob::new(row.state, plan.steps().len());
    for step in &stored.steps {
        let place = restored.steps.get_mut(usize::from(step.step.0));
        *place.ok_or_else(|| damaged(format!("job {} has a step {} too many", row.id, step.step)))? =
            restored_step(step);
    }
    for attempt in &stored.open {
        if let (Some(step), Some(phase)) =
            (restored.steps.get_mut(usize::from(attempt.task.step.0)), phase_of(attempt))
        {
            step.attempts.push(RestoredAttempt {
                attempt: attempt.id,
                task: attempt.task.index,
                generation: attempt.generation,
                worker: attempt.worker,
                phase,
            });
        }
    }
    Ok((plan, restored))
}

/// Returns `None` for an attempt that streamed when it expired: it cannot go on.
fn phase_of(attempt: &AttemptRow) -> Option<RestoredPhase> {
    Some(match (attempt.state, attempt.slot) {
        (AttemptState::Assigned, None) => RestoredPhase::Streaming,
        (AttemptState::Assigned, Some(slot)) => RestoredPhase::Assigned { slot },
        (AttemptState::Running, Some(slot)) => RestoredPhase::Running { slot },
        (AttemptState::Expired, Some(slot)) => RestoredPhase::Expired { slot },
        _ => return None,
    })
}

fn restored_step(stored: &StoredStep) -> RestoredStep {
    let mut step = RestoredStep::default();
    for run in &stored.runs {
        let span = TaskSpan { first: run.first, last: run.last };
        match run.state {
            TaskState::Done => step.done.insert_span(span),
            TaskState::Failed => step.failed.insert_span(span),
            _ => {}
        }
        if run.generation.0 > 0 {
            step.generations.set(span, run.generation);
        }
    }
    for (first, last) in &stored.cancelled {
        step.cancelled.insert_span(TaskSpan { first: *first, last: *last });
    }
    step.histories = stored
        .faults
        .iter()
        .map(|fault| RestoredHistory {
            task: fault.index,
            lost_on: fault.expired_on.clone(),
            failed_on: fault.failed_on.clone(),
            least_memory: fault.outgrew,
        })
        .collect();
    step
}
