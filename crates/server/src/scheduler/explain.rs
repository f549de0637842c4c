//! The reasons for which a job waits: from the core's data to the codes and parameters of the wire.

use kiln_api::{
    Explanation, RelativePriority, SlotHolder, StepWait, TimeLeft, UnmetRequirement, UnmetView, WaitReason,
};
use kiln_core::{Explainer, Forecast, MissingResource, Occupant, UnmetStep, WaitCause};
use kiln_types::{FrameSet, JobId, StepIndex, WorkerId};

use super::{
    farm::{FarmState, kind_and_name},
    plan::labels,
};

impl FarmState {
    /// Returns `None` if the scheduler does not hold the job.
    pub(crate) fn explanation(&self, job: JobId) -> Option<Explanation> {
        let view = self.core.job(job)?;
        let live = self.jobs.get(&job)?;
        let now = self.clock.now();
        let mut survey = self.core.explainer(now);
        let mut steps = Vec::new();
        for (step, causes) in survey.explain(job) {
            let Some(kind) = live.steps.get(step).map(|step| step.kind) else { continue };
            let tasks = view.steps.get(usize::from(step.0)).map_or(0, |step| step.counts.waiting);
            let reasons = causes.into_iter().map(|cause| self.reason(job, step, cause)).collect();
            steps.push(StepWait { step: kind, tasks, reasons });
        }
        let left = self.core.forecast(now, job).map(time_left);
        Some(Explanation {
            state: view.state,
            counts: view.counts(),
            steps,
            unmet: self.unmet(&mut survey, job),
            left,
        })
    }

    /// Returns the first reason for which no task of a job runs, and the connected workers that do not meet its requirement.
    pub(super) fn waits_for(
        &self,
        survey: &mut Explainer,
        job: JobId,
    ) -> (Option<WaitReason>, Vec<UnmetView>) {
        let causes = survey.explain(job).into_iter();
        let mut causes = causes.flat_map(|(step, causes)| causes.into_iter().map(move |cause| (step, cause)));
        let reason = causes.next().map(|(step, cause)| self.reason(job, step, cause));
        (reason, self.unmet(survey, job))
    }

    fn unmet(&self, survey: &mut Explainer, job: JobId) -> Vec<UnmetView> {
        let view = |unmet: UnmetStep| UnmetView {
            worker: self.name_of(unmet.worker),
            missing: self.requirements(
                job,
                unmet.step,
                unmet.missing.into_iter().map(MissingResource::Label),
            ),
        };
        let mut views: Vec<UnmetView> =
            survey.unmet(job, UnmetView::MAX_LISTED).into_iter().map(view).collect();
        views.sort_by(|a, b| (&a.worker, &a.missing).cmp(&(&b.worker, &b.missing)));
        views.dedup();
        views
    }

    fn reason(&self, job: JobId, step: StepIndex, cause: WaitCause) -> WaitReason {
        let spec = self.jobs.get(&job).map(|live| &live.spec);
        match cause {
            WaitCause::Paused => WaitReason::Paused { job },
            WaitCause::Held => {
                let hold = spec.and_then(|spec| spec.hold.as_ref());
                WaitReason::Held { job, frames: hold.map_or(0, FrameSet::len) }
            }
            WaitCause::Dependencies { open, ended } => WaitReason::Dependencies { open, ended },
            WaitCause::Until(at) => WaitReason::StartTime {
                at_ms: spec
                    .and_then(|spec| spec.scheduling.not_before_ms)
                    .unwrap_or_else(|| self.clock.unix_ms(at)),
                in_s: at.since(self.clock.now()).div_ceil(1000),
            },
            WaitCause::NoWorker => WaitReason::NoWorker,
            WaitCause::NoWorkerFits { all_lack, nearest, lacks } => WaitReason::NoWorkerFits {
                missing: self.requirements(job, step, all_lack),
                nearest: self.name_of(nearest),
                nearest_missing: self.requirements(job, step, lacks),
                any_gpu: spec.is_some_and(|spec| spec.any_gpu),
            },
            WaitCause::NotWorking { paused, draining, unavailable, quarantined, others } => {
                WaitReason::NotWorking { paused, draining, unavailable, quarantined, silent: others }
            }
            WaitCause::Cooldown(workers) => WaitReason::Cooldown { workers },
            WaitCause::Limit { name, total, used } => WaitReason::Limit { name, total, used },
            WaitCause::JobFull(max_workers) => WaitReason::WorkerCap { max_workers },
            WaitCause::AccountFull(account, max_slots) => {
                let (kind, name) = kind_and_name(&account);
                WaitReason::AccountCap { kind, name: name.to_owned(), max_slots }
            }
            WaitCause::Busy { workers, with } => {
                let (holders, more) = self.holders(&with);
                WaitReason::Busy { workers, holders, more }
            }
            WaitCause::FailedHere { vacant, others, with } => {
                let (free, more_free) = first(&vacant, |worker: &WorkerId| self.name_of(*worker));
                let (holders, more) = self.holders(&with);
                WaitReason::FailedHere { free, more_free, busy: others, holders, more }
            }
            WaitCause::Room { reserved } => {
                WaitReason::NoRoom { reserved: reserved.map(|worker| self.name_of(worker)) }
            }
        }
    }

    /// Returns the parts of a step's requirement that are missing.
    fn requirements(
        &self,
        job: JobId,
        step: StepIndex,
        missing: impl IntoIterator<Item = MissingResource>,
    ) -> Vec<UnmetRequirement> {
        let Some(live) = self.jobs.get(&job) else { return Vec::new() };
        let Some(step) = live.steps.get(step) else { return Vec::new() };
        let (known, requirements) = (labels(&live.spec, step), &live.spec.requirements);
        let part = |missing| match missing {
            MissingResource::Label(label) => {
                known.iter().find(|(known, _)| *known == label).map(|(_, part)| part.clone())
            }
            MissingResource::Cores(cores) => Some(UnmetRequirement::Cores { cores }),
            MissingResource::Memory(bytes) => Some(UnmetRequirement::Memory { bytes }),
            MissingResource::Gpus => {
                Some(UnmetRequirement::Gpus { gpus: requirements.gpus, memory: requirements.gpu_memory })
            }
        };
        let mut parts: Vec<UnmetRequirement> = missing.into_iter().filter_map(part).collect();
        parts.sort();
        UnmetRequirement::without_consequences(parts)
    }

    fn holders(&self, with: &[Occupant]) -> (Vec<SlotHolder>, u32) {
        first(with, |occupant: &Occupant| SlotHolder {
            job: occupant.job,
            name: self.jobs.get(&occupant.job).map_or_else(String::new, |live| live.spec.name.clone()),
            slots: occupant.slots,
            priority: match occupant.priority {
                std::cmp::Ordering::Less => RelativePriority::Lower,
                std::cmp::Ordering::Equal => RelativePriority::Same,
                std::cmp::Ordering::Greater => RelativePriority::Higher,
            },
        })
    }
}

/// Returns the first few, and the number of the others.
fn first<T, U>(all: &[T], shown: impl Fn(&T) -> U) -> (Vec<U>, u32) {
    let named = all.iter().take(WaitReason::MAX_NAMED).map(shown).collect();
    let more = all.len().saturating_sub(WaitReason::MAX_NAMED);
    (named, u32::try_from(more).unwrap_or(u32::MAX))
}

pub(super) fn time_left(forecast: Forecast) -> TimeLeft {
    let seconds = |ms: u64| ms as f64 / 1000.0;
    TimeLeft {
        soonest_s: seconds(forecast.soonest_ms),
        likely_s: seconds(forecast.likely_ms),
        latest_s: seconds(forecast.latest_ms),
    }
}
