//! Why a job waits, in words.

use std::collections::{BTreeSet, HashSet};

use kiln_api::{Explanation, TimeLeft, UnmetView, WaitReason};
use kiln_core::{Account, Explainer, Forecast, Missing, Occupant, UnmetStep, WaitCause};
use kiln_types::{DeviceClass, JobId, WorkerId, duration::rough};

use super::{Farm, plan::device_label};

/// Jobs named as those that hold the slots, at most.
const NAMED: usize = 3;

impl Farm {
    /// `None` where the brain does not hold the job.
    pub(crate) fn explanation(&self, job: JobId) -> Option<Explanation> {
        let view = self.core.job(job)?;
        let live = self.jobs.get(&job)?;
        let now = self.clock.now();
        let mut survey = self.core.explainer(now);
        let mut reasons = Vec::new();
        for (step, waits) in survey.explain(job) {
            let Some(kind) = live.steps.get(step).map(|step| step.kind) else { continue };
            let tasks = view.steps.get(usize::from(step.0)).map_or(0, |step| step.counts.waiting);
            let texts = waits.iter().map(|wait| self.sentence_of(job, wait)).collect();
            reasons.push(WaitReason { step: kind, tasks, texts });
        }
        let left = self.core.forecast(now, job).map(time_left);
        Some(Explanation {
            state: view.state,
            counts: super::look::counts(view.counts()),
            reasons,
            unmet: self.unmet(&mut survey, job),
            left,
        })
    }

    /// Why nothing of a job that waits runs: a sentence, and what connected workers lack.
    pub(super) fn waits_for(&self, survey: &mut Explainer, job: JobId) -> (Option<String>, Vec<UnmetView>) {
        let wait = survey.explain(job).into_iter().flat_map(|(_, waits)| waits).next();
        (wait.map(|wait| self.sentence_of(job, &wait)), self.unmet(survey, job))
    }

    fn unmet(&self, survey: &mut Explainer, job: JobId) -> Vec<UnmetView> {
        let view = |unmet: UnmetStep| UnmetView {
            worker: self.name_of(unmet.worker),
            missing: worded(unmet.missing.into_iter().map(|label| label.0).collect()).into_iter().collect(),
        };
        let mut views: Vec<UnmetView> =
            survey.unmet(job, UnmetView::MAX_LISTED).into_iter().map(view).collect();
        views.sort_by(|a, b| a.worker.cmp(&b.worker));
        views.dedup();
        views
    }

    fn sentence_of(&self, job: JobId, wait: &WaitCause) -> String {
        match wait {
            WaitCause::Paused => format!("It is paused; `kiln jobs resume {job}` goes on."),
            WaitCause::Dependencies { open, ended } => for_jobs(open, ended),
            WaitCause::Until(at) => {
                let seconds = at.since(self.clock.now()).div_ceil(1000);
                format!("It does not start for another {}.", rough(seconds as f64))
            }
            WaitCause::NoWorker => "No worker is connected.".to_owned(),
            WaitCause::NoWorkerFits { all_lack, nearest, lacks } => {
                self.nobody_fits(job, all_lack, *nearest, lacks)
            }
            WaitCause::NotWorking { quarantined: 0, others: 0, .. } => {
                "Every worker that could take it is paused, resting or leaving.".to_owned()
            }
            WaitCause::NotWorking { paused, draining, unavailable, quarantined, others } => {
                let parts = [
                    (*paused, "paused"),
                    (*draining, "leaving"),
                    (*unavailable, "resting"),
                    (*quarantined, "sick (see `kiln workers`)"),
                    (*others, "silent"),
                ];
                let parts: Vec<String> =
                    parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
                format!("No worker that could take it works now: {}.", parts.join(", "))
            }
            WaitCause::Cooldown(_) => {
                "The workers that could take it handed it back or failed to begin it; they are asked \
                                 again within half a minute."
                    .to_owned()
            }
            WaitCause::Limit { name, total: 0, .. } => {
                format!(
                    "It needs the limit {name}, of which the farm has none; `kiln limits set {name} N` says how many there are."
                )
            }
            WaitCause::Limit { name, total, used } => {
                format!("All {total} of the limit {name} are in use ({used}).")
            }
            WaitCause::JobFull(1) => "It is on a worker already, and may not be on more than one.".to_owned(),
            WaitCause::JobFull(most) => format!("It is on {most} workers already, and may not be on more."),
            WaitCause::AccountFull(party, most) => {
                let (what, name) = match party {
                    Account::Project(name) => ("project", name),
                    Account::User(name) => ("user", name),
                };
                let slots = if *most == 1 { "slot".to_owned() } else { format!("{most} slots") };
                format!("The {what} {name} holds the {slots} that it may hold at once.")
            }
            WaitCause::Busy { workers, with } => {
                let who = match workers {
                    1 => "The one worker that can take it is busy".to_owned(),
                    n => format!("All {n} workers that can take it are busy"),
                };
                self.busy(&who, with)
            }
            WaitCause::FailedHere { vacant, others, with } => self.failed_here(vacant, *others, with),
            WaitCause::Room { reserved: Some(worker) } => {
                format!(
                    "It needs more of a machine than is free; {} is kept for it as others end.",
                    self.name_of(*worker)
                )
            }
            WaitCause::Room { reserved: None } => {
                "It needs more of a machine than is free on any one; it takes the first that has room."
                    .to_owned()
            }
        }
    }

    fn nobody_fits(
        &self,
        job: JobId,
        all: &BTreeSet<Missing>,
        nearest: WorkerId,
        lacks: &BTreeSet<Missing>,
    ) -> String {
        let all = worded(all.iter().map(words).collect());
        match all.first() {
            Some(thing) => format!("No worker of the farm has {thing}.{}", self.of_device(job, thing)),
            None => {
                let lacks: Vec<String> = worded(lacks.iter().map(words).collect()).into_iter().collect();
                let nearest = self.name_of(nearest);
                format!(
                    "No worker of the farm has everything that this job needs; {nearest} comes nearest, and lacks {}.",
                    lacks.join(" and ")
                )
            }
        }
    }

    /// What a person can do where a job that may render on any GPU lacks its device.
    fn of_device(&self, job: JobId, thing: &str) -> String {
        let Some(spec) = self.jobs.get(&job).map(|live| &live.spec).filter(|spec| spec.any_gpu) else {
            return String::new();
        };
        let (series, device) = (spec.session.blender, spec.session.device);
        if thing != device_label(series, device).0 {
            return String::new();
        }
        let why = match device {
            DeviceClass::Gpu => "The job takes the first that comes, whatever its backend".to_owned(),
            _ => format!("The job began on {device}, and all of it must come from one backend"),
        };
        format!(
            " {why}; with --device cpu it renders on processors: submit it so if no such worker will come."
        )
    }

    fn failed_here(&self, vacant: &[WorkerId], others: u32, with: &[Occupant]) -> String {
        let mut free: Vec<String> = vacant.iter().take(NAMED).map(|id| self.name_of(*id)).collect();
        if vacant.len() > NAMED {
            free.push(format!("{} more", vacant.len() - NAMED));
        }
        let are = if vacant.len() == 1 { "is" } else { "are" };
        let who = match others {
            1 => "the one worker on which it has not failed is busy".to_owned(),
            n => format!("the {n} workers on which it has not failed are busy"),
        };
        let who = format!("It has failed on {}, which {are} free; {who}", free.join(", "));
        self.busy(&who, with)
    }

    fn busy(&self, who: &str, with: &[Occupant]) -> String {
        if with.is_empty() {
            return format!("{who} with this job.");
        }
        let named: Vec<String> = with
            .iter()
            .take(NAMED)
            .map(|occupant| {
                let name = self.jobs.get(&occupant.job).map_or("", |job| job.spec.name.as_str());
                let rank = match occupant.priority {
                    std::cmp::Ordering::Greater => ", of higher priority",
                    std::cmp::Ordering::Less => ", of lower priority (its frames end first)",
                    std::cmp::Ordering::Equal => "",
                };
                let slots = if occupant.slots == 1 {
                    "1 slot".to_owned()
                } else {
                    format!("{} slots", occupant.slots)
                };
                format!("job {} ({name}; {slots}{rank})", occupant.job)
            })
            .collect();
        let more = with.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{who}, with {}{more}.", named.join(", "))
    }
}

fn for_jobs(open: &[JobId], ended: &[JobId]) -> String {
    let list = |jobs: &[JobId]| {
        let ids: Vec<String> = jobs.iter().map(ToString::to_string).collect();
        format!("{} {}", if jobs.len() == 1 { "job" } else { "jobs" }, ids.join(", "))
    };
    let mut text = String::new();
    if !open.is_empty() {
        text = format!("It waits for {} to be completed.", list(open));
    }
    if !ended.is_empty() {
        let space = if text.is_empty() { "" } else { " " };
        let end = if ended.len() == 1 {
            "ended without being completed"
        } else {
            "ended without all being completed"
        };
        text = format!(
            "{text}{space}It waits for {}, which {end}: retry it, or release this job from it.",
            list(ended)
        );
    }
    text
}

fn words(lack: &Missing) -> String {
    match lack {
        Missing::Label(label) => label.0.clone(),
        Missing::Cores(cores) => format!("{cores} cores"),
        Missing::Memory(bytes) => format!("{:.1} GiB of memory", *bytes as f64 / f64::from(1 << 30)),
        Missing::Gpus => "the GPUs that it asks for".to_owned(),
    }
}

/// Without what follows from something else that is missing: who lacks a Blender lacks its engines too.
fn worded(missing: BTreeSet<String>) -> BTreeSet<String> {
    let blenders: HashSet<String> =
        missing.iter().filter(|text| text.starts_with("Blender ")).cloned().collect();
    let follows = |text: &String| {
        !text.starts_with("Blender ") && blenders.iter().any(|blender| text.ends_with(blender))
    };
    missing.into_iter().filter(|text| !follows(text)).collect()
}

pub(super) fn time_left(forecast: Forecast) -> TimeLeft {
    let seconds = |ms: u64| ms as f64 / 1000.0;
    TimeLeft {
        soonest_s: seconds(forecast.soonest_ms),
        likely_s: seconds(forecast.likely_ms),
        latest_s: seconds(forecast.latest_ms),
    }
}
