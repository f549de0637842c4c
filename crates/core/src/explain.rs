//! Explanations for people: the causes for which a job waits, and its forecast.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use kiln_types::{DesiredState, JobId, StepIndex, WorkerId};

use crate::{
    Account, Core, Label, Moment, Requirement, Room,
    claims::claim,
    ids::{RequirementId, StepRef},
    state::{AttemptPhase, FailureHistory, Job, JobPhase, Step, Worker},
};

/// A cause for which no further task of a step starts now; the most telling come first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitCause {
    /// A person paused the job.
    Paused,
    /// The job is held after its first frames.
    Held,
    /// Jobs that must be completed first. `ended`: those that ended without being completed.
    Dependencies { open: Vec<JobId>, ended: Vec<JobId> },
    /// The job does not start before this time.
    Until(Moment),
    /// No worker is connected.
    NoWorker,
    /// No connected worker meets the requirement. `nearest` is the one that lacks least.
    NoWorkerFits { all_lack: BTreeSet<MissingResource>, nearest: WorkerId, lacks: BTreeSet<MissingResource> },
    /// All workers that fit take no work.
    NotWorking { paused: u32, draining: u32, unavailable: u32, quarantined: u32, others: u32 },
    /// Workers that fit returned such work or failed to begin it, and get it again soon.
    Cooldown(u32),
    /// The farm-wide limit is used up.
    Limit { name: String, total: u32, used: u32 },
    /// The job is on as many workers as it may be.
    JobFull(u32),
    /// The project or the user holds as many slots as it may.
    AccountFull(Account, u32),
    /// Slots of workers that fit are at work for others.
    Busy { workers: u32, with: Vec<Occupant> },
    /// The waiting tasks have failed on every worker with a vacant slot. They are tried next on one of the others, which
    /// are at work for these jobs.
    FailedHere { vacant: Vec<WorkerId>, others: u32, with: Vec<Occupant> },
    /// There are vacant slots, but too little room on each machine. This one is reserved.
    Room { reserved: Option<WorkerId> },
}

/// A part of a step's requirement that a worker lacks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum MissingResource {
    Label(Label),
    Cores(u32),
    /// Bytes.
    Memory(u64),
    Gpus,
}

/// A job that holds slots which another waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occupant {
    pub job: JobId,
    pub slots: u32,
    /// The job's priority compared with that of the one that waits.
    pub priority: std::cmp::Ordering,
}

/// The expected time until a job is done, by its frames so far; milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forecast {
    /// With quick frames on every worker that fits.
    pub soonest_ms: u64,
    /// With the slots that the job has.
    pub likely_ms: u64,
    /// With slow frames on the slots that the job has.
    pub latest_ms: u64,
}

/// Attempts of a step up to which a forecast looks at each.
const EACH: usize = 1000;

/// A connected worker that does not meet the requirement of a step that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnmetStep {
    pub worker: WorkerId,
    pub step: StepIndex,
    pub missing: BTreeSet<Label>,
}

/// Explains why jobs wait at one moment. The workers are looked at once for each requirement, whatever the number of jobs.
pub struct Explainer<'a> {
    core: &'a Core,
    now: Moment,
    by_requirement: BTreeMap<RequirementId, Rc<WorkerGroups<'a>>>,
}

/// The connected workers, grouped by their relation to a requirement.
#[derive(Default)]
struct WorkerGroups<'a> {
    unfit: Vec<(WorkerId, &'a Worker)>,
    /// Those that fit and take no work.
    idle: Vec<&'a Worker>,
    /// The number of those with a cooldown.
    cooling: u32,
    /// Of the others, those with a vacant slot.
    vacant: Vec<WorkerId>,
    /// One of the vacant ones has room.
    room: bool,
    /// The number of all others.
    busy: u32,
    /// The number of slots of the busy ones that each job holds.
    slots: BTreeMap<JobId, u32>,
}

impl<'a> WorkerGroups<'a> {
    fn of(core: &'a Core, job: &Job, step: &Step) -> Self {
        let mut groups = Self::default();
        let room = core.requirements[step.requirement].requirement.room;
        let has_cooldown = |worker: WorkerId| {
            let session = core.session_on(worker, job, step);
            session.is_some_and(|session| core.has_cooldown(worker, step.requirement, session))
        };
        for (id, worker) in core.state.workers().iter().filter(|(_, worker)| worker.presence.is_connected()) {
            if !worker.fits(step.requirement) {
                groups.unfit.push((*id, worker));
            } else if !worker.takes_work() {
                groups.idle.push(worker);
            } else if has_cooldown(*id) {
                groups.cooling += 1;
            } else if worker.vacant_slots().next().is_some() {
                groups.vacant.push(*id);
                groups.room = groups.room || claim(&worker.offer, worker.claimed(None), room).is_some();
            } else {
                groups.busy += 1;
                let held = worker.slots().iter().flat_map(|slot| &slot.counted);
                held.for_each(|step| *groups.slots.entry(step.job).or_default() += 1);
            }
        }
        groups
    }
}

impl<'a> Explainer<'a> {
    /// The causes for which tasks of the job wait, by step. Empty where none waits, or the next turn dispatches them.
    pub fn explain(&mut self, id: JobId) -> Vec<(StepIndex, Vec<WaitCause>)> {
        let Some(job) = self.core.state.find_job(id) else { return Vec::new() };
        if let Some(held) = job.held_step() {
            return vec![(StepRef::new(id, held).step, vec![WaitCause::Held])];
        }
        let open = job.steps.iter().enumerate().filter(|(index, _)| job.has_ready_tasks(*index));
        open.map(|(index, step)| (StepRef::new(id, index).step, self.explain_step(id, job, step))).collect()
    }

    /// The connected workers that do not fit a step whose waiting tasks may run, at most `most` of each step.
    pub fn unmet(&mut self, id: JobId, most: usize) -> Vec<UnmetStep> {
        let Some(job) = self.core.state.find_job(id) else { return Vec::new() };
        let mut unmet = Vec::new();
        for (index, step) in job.steps.iter().enumerate().filter(|(index, _)| job.has_ready_tasks(*index)) {
            let groups = self.groups(job, step);
            let lacking = groups.unfit.iter().map(|(worker, known)| UnmetStep {
                worker: *worker,
                step: StepRef::new(id, index).step,
                missing: step.plan.requires.missing(&known.offer.labels),
            });
            unmet.extend(lacking.filter(|unmet| !unmet.missing.is_empty()).take(most));
        }
        unmet
    }

    fn groups(&mut self, job: &Job, step: &Step) -> Rc<WorkerGroups<'a>> {
        let core = self.core;
        let look = || Rc::new(WorkerGroups::of(core, job, step));
        // A cooldown concerns one scene, not every step of the requirement.
        let sessions = step.plan.all_sessions().map(Some).chain([step.session()]);
        if sessions.into_iter().any(|session| core.cooldowns.workers(session).next().is_some()) {
            return look();
        }
        self.by_requirement.entry(step.requirement).or_insert_with(look).clone()
    }

    fn explain_step(&mut self, id: JobId, job: &Job, step: &Step) -> Vec<WaitCause> {
        let core = self.core;
        if job.phase == JobPhase::Paused {
            return vec![WaitCause::Paused];
        }
        if !job.is_released {
            return core.explain_release(self.now, job);
        }
        let groups = self.groups(job, step);
        let taking = groups.busy > 0 || !groups.vacant.is_empty();
        if !taking && groups.idle.is_empty() && groups.cooling == 0 {
            let lack = explain_missing(&core.requirements[step.requirement].requirement, &groups.unfit);
            return vec![lack.unwrap_or(WaitCause::NoWorker)];
        }
        let mut waits = Vec::new();
        if let Some(name) = core.exhausted_limit(step.requirement) {
            let limit = core.limits.get(name).copied().unwrap_or_default();
            waits.push(WaitCause::Limit { name: name.to_owned(), total: limit.total, used: limit.used });
        }
        waits.extend(job.options.max_workers.filter(|_| job.is_full()).map(WaitCause::JobFull));
        let full = core.fair_share.full_account(job.member);
        waits.extend(full.map(|(account, cap)| WaitCause::AccountFull(account.clone(), cap)));
        if !taking {
            waits.extend((!groups.idle.is_empty()).then(|| count_idle(&groups.idle)));
            waits.extend((groups.cooling > 0).then_some(WaitCause::Cooldown(groups.cooling)));
        } else if waits.is_empty() {
            waits.extend(core.explain_busy(id, job, step, &groups));
        }
        waits
    }
}

impl Core {
    pub fn explainer(&self, now: Moment) -> Explainer<'_> {
        Explainer { core: self, now, by_requirement: BTreeMap::new() }
    }

    fn explain_release(&self, now: Moment, job: &Job) -> Vec<WaitCause> {
        let find = |id: &JobId| self.state.find_job(*id);
        let after = job.options.after.iter().copied();
        let incomplete = after.filter(|id| !find(id).is_some_and(Job::is_completed));
        let (ended, open): (Vec<_>, Vec<_>) = incomplete.partition(|id| find(id).is_none_or(Job::has_ended));
        let mut waits = Vec::new();
        if !open.is_empty() || !ended.is_empty() {
            waits.push(WaitCause::Dependencies { open, ended });
        }
        waits.extend(job.options.not_before.filter(|at| *at > now).map(WaitCause::Until));
        waits
    }

    fn explain_busy(
        &self,
        id: JobId,
        job: &Job,
        step: &Step,
        groups: &WorkerGroups<'_>,
    ) -> Option<WaitCause> {
        let WorkerGroups { vacant, busy, .. } = groups;
        let with = || self.occupants(id, job, &groups.slots);
        if vacant.is_empty() {
            return Some(WaitCause::Busy { workers: *busy, with: with() });
        }
        if !groups.room {
            return Some(WaitCause::Room { reserved: self.requirements[step.requirement].reserved });
        }
        let here = |history: &FailureHistory| vacant.iter().any(|id| self.may_retry(*id, step, history));
        let failed_here = step.tasks.waiting_len() > 0 && *busy > 0 && step.next(here).is_none();
        failed_here.then(|| WaitCause::FailedHere { vacant: vacant.clone(), others: *busy, with: with() })
    }

    /// The other jobs that hold slots, those with the most first.
    fn occupants(&self, id: JobId, job: &Job, slots: &BTreeMap<JobId, u32>) -> Vec<Occupant> {
        let occupant = |(other, slots): (&JobId, &u32)| {
            let theirs = self.state.find_job(*other)?.options.priority;
            Some(Occupant { job: *other, slots: *slots, priority: theirs.cmp(&job.options.priority) })
        };
        let others = slots.iter().filter(|(other, _)| **other != id);
        let mut with: Vec<Occupant> = others.filter_map(occupant).collect();
        with.sort_by_key(|occupant| std::cmp::Reverse(occupant.slots));
        with
    }

    /// The forecast of the job. `None` before a frame was measured, while no attempt runs, and while more than one step is
    /// open.
    pub fn forecast(&self, now: Moment, id: JobId) -> Option<Forecast> {
        let job = self.state.find_job(id).filter(|job| job.phase == JobPhase::Active)?;
        let open: Vec<&Step> = job.steps.iter().filter(|step| !step.tasks.are_all_done()).collect();
        let [step] = open[..] else { return None };
        let (work, doubt) = step.times.expected()?;
        let left = self.frames_left(now, step, work);
        let held = job.on.iter().filter_map(|(worker, slots)| {
            let worker = self.state.find_worker(*worker).filter(|worker| worker.presence.is_connected())?;
            Some(f64::from(worker.speed.get()) * f64::from(*slots))
        });
        let held: f64 = held.sum();
        if held <= 0.0 || left <= 0.0 {
            return None;
        }
        let all = self.requirements[step.requirement].power as f64 / 1000.0;
        let ms = |work: f64, speed: f64| (left * work / speed) as u64;
        let work = f64::from(work);
        let likely = ms(work, held);
        Some(Forecast {
            soonest_ms: ms(work / (1.0 + doubt), all.max(held)).min(likely),
            likely_ms: likely,
            latest_ms: ms(work * (1.0 + doubt), held).max(likely),
        })
    }

    /// The number of frames that are not done; of one that runs the part that is left.
    fn frames_left(&self, now: Moment, step: &Step, work: f32) -> f64 {
        let tasks = &step.tasks;
        if tasks.live_len() as usize > EACH {
            // On average, a running frame is half done.
            let counts = tasks.counts();
            return f64::from(counts.waiting + counts.assigned) + f64::from(counts.running) / 2.0;
        }
        let running = tasks.live().map(|(_, id)| {
            let attempt = self.state.attempt(id);
            let speed = self.state.worker(attempt.worker).speed.get();
            match attempt.phase {
                AttemptPhase::Running { since, .. } => {
                    (1.0 - now.since(since) as f64 * f64::from(speed) / f64::from(work.max(1.0))).max(0.05)
                }
                AttemptPhase::Delivering { .. } => 0.0,
                _ => 1.0,
            }
        });
        f64::from(tasks.waiting_len()) + running.sum::<f64>()
    }
}

fn count_idle(workers: &[&Worker]) -> WaitCause {
    let (mut paused, mut draining, mut unavailable, mut quarantined, mut others) = (0, 0, 0, 0, 0);
    for worker in workers {
        match worker.desired {
            DesiredState::Paused => paused += 1,
            DesiredState::Draining | DesiredState::Stopped => draining += 1,
            DesiredState::Active if worker.offer.unavailable => unavailable += 1,
            DesiredState::Active if worker.quarantined.is_some() => quarantined += 1,
            DesiredState::Active => others += 1,
        }
    }
    WaitCause::NotWorking { paused, draining, unavailable, quarantined, others }
}

fn explain_missing(requirement: &Requirement, unfit: &[(WorkerId, &Worker)]) -> Option<WaitCause> {
    let lacks = unfit.iter().map(|(id, worker)| (*id, missing_resources(worker, requirement)));
    let lacks: Vec<(WorkerId, BTreeSet<MissingResource>)> = lacks.collect();
    let (nearest, least) = lacks.iter().min_by_key(|(_, lacks)| lacks.len())?.clone();
    let all_lack = least.iter().filter(|lack| lacks.iter().all(|(_, other)| other.contains(lack)));
    Some(WaitCause::NoWorkerFits { all_lack: all_lack.cloned().collect(), nearest, lacks: least })
}

fn missing_resources(worker: &Worker, requirement: &Requirement) -> BTreeSet<MissingResource> {
    let (offer, room) = (&worker.offer, requirement.room);
    let labels = requirement.missing(&offer.labels).into_iter().map(MissingResource::Label);
    let has_few_cores = offer.cores > 0 && room.cores > offer.cores;
    let has_little_memory = offer.memory > 0 && room.memory > offer.memory;
    let rest = Requirement { room: Room { gpus: room.gpus, ..Room::default() }, ..Requirement::default() };
    let has_few_gpus = offer.slots > 0 && !rest.is_met_by(offer);
    labels
        .chain(has_few_cores.then_some(MissingResource::Cores(room.cores)))
        .chain(has_little_memory.then_some(MissingResource::Memory(room.memory)))
        .chain(has_few_gpus.then_some(MissingResource::Gpus))
        .collect()
}
