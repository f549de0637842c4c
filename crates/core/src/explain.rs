//! Explanations for people: why a job waits, and how long it will take.

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

/// A reason for which nothing more of a job starts now; the most telling come first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitCause {
    /// A person paused it.
    Paused,
    /// Its first frames are rendered, and a person is to look at them.
    Held,
    /// Jobs that must be completed first; those that ended otherwise will not be by themselves.
    Dependencies { open: Vec<JobId>, ended: Vec<JobId> },
    /// It does not start before this time.
    Until(Moment),
    /// No worker is connected.
    NoWorker,
    /// No connected worker meets the requirement: what all of them lack, and what the nearest one lacks.
    NoWorkerFits { all_lack: BTreeSet<Missing>, nearest: WorkerId, lacks: BTreeSet<Missing> },
    /// Workers that fit and take no work.
    NotWorking { paused: u32, draining: u32, unavailable: u32, quarantined: u32, others: u32 },
    /// Workers that fit returned such work or failed to begin it, and are asked again soon.
    Cooldown(u32),
    /// The farm-wide limit is used up.
    Limit { name: String, total: u32, used: u32 },
    /// It is on as many workers as it may be.
    JobFull(u32),
    /// Its project or user holds all the slots that it may.
    AccountFull(Account, u32),
    /// Slots of workers that fit are at work for others.
    Busy { workers: u32, with: Vec<Occupant> },
    /// Its waiting tasks have failed on every worker that has a vacant slot. They are tried next on one of the others,
    /// which are at work for these jobs.
    FailedHere { vacant: Vec<WorkerId>, others: u32, with: Vec<Occupant> },
    /// There are vacant slots, but not room enough on any one machine; this one is reserved for it.
    Room { reserved: Option<WorkerId> },
}

/// Something that a step requires and a worker lacks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Missing {
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
    /// Compared with the one that waits.
    pub priority: std::cmp::Ordering,
}

/// The time until a job is done, as the farm is now and its frames were so far; milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forecast {
    /// If every worker that may takes part, and frames stay among the quicker ones.
    pub soonest_ms: u64,
    /// With the slots that it has.
    pub likely_ms: u64,
    /// With the slots that it has, and frames among the slower ones.
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

/// Explains why jobs wait at one moment. However many jobs are asked about, the workers are looked at once for each
/// requirement.
pub struct Explainer<'a> {
    core: &'a Core,
    now: Moment,
    crowds: BTreeMap<RequirementId, Rc<Crowd<'a>>>,
}

/// The connected workers, as they stand to a requirement.
#[derive(Default)]
struct Crowd<'a> {
    unfit: Vec<(WorkerId, &'a Worker)>,
    /// They fit and take no work.
    idle: Vec<&'a Worker>,
    /// They returned such work or failed to begin it.
    cooling: u32,
    /// Of the others, those with a slot that does nothing, and whether one of these has room for it.
    vacant: Vec<WorkerId>,
    room: bool,
    /// The rest, and how many of their slots each job holds.
    busy: u32,
    slots: BTreeMap<JobId, u32>,
}

impl<'a> Crowd<'a> {
    fn of(core: &'a Core, job: &Job, step: &Step) -> Self {
        let mut crowd = Self::default();
        let room = core.requirements[step.requirement].requirement.room;
        let has_cooldown = |worker: WorkerId| {
            let session = core.session_on(worker, job, step);
            session.is_some_and(|session| core.has_cooldown(worker, step.requirement, session))
        };
        for (id, worker) in core.state.workers().iter().filter(|(_, worker)| worker.presence.is_connected()) {
            if !worker.fits(step.requirement) {
                crowd.unfit.push((*id, worker));
            } else if !worker.takes_work() {
                crowd.idle.push(worker);
            } else if has_cooldown(*id) {
                crowd.cooling += 1;
            } else if worker.vacant_slots().next().is_some() {
                crowd.vacant.push(*id);
                crowd.room = crowd.room || claim(&worker.offer, worker.claimed(None), room).is_some();
            } else {
                crowd.busy += 1;
                let held = worker.slots().iter().flat_map(|slot| &slot.counted);
                held.for_each(|step| *crowd.slots.entry(step.job).or_default() += 1);
            }
        }
        crowd
    }
}

impl<'a> Explainer<'a> {
    /// Returns why tasks of the job wait, by step. Empty where none does, or the next turn hands them out.
    pub fn explain(&mut self, id: JobId) -> Vec<(StepIndex, Vec<WaitCause>)> {
        let Some(job) = self.core.state.find_job(id) else { return Vec::new() };
        if let Some(held) = job.held_step() {
            return vec![(StepRef::new(id, held).step, vec![WaitCause::Held])];
        }
        let open = job.steps.iter().enumerate().filter(|(index, _)| job.could_run(*index));
        open.map(|(index, step)| (StepRef::new(id, index).step, self.explain_step(id, job, step))).collect()
    }

    /// The connected workers that do not fit a step whose waiting tasks may run, with what each lacks; `most` of a
    /// step.
    pub fn unmet(&mut self, id: JobId, most: usize) -> Vec<UnmetStep> {
        let Some(job) = self.core.state.find_job(id) else { return Vec::new() };
        let mut unmet = Vec::new();
        for (index, step) in job.steps.iter().enumerate().filter(|(index, _)| job.could_run(*index)) {
            let crowd = self.crowd(job, step);
            let lacking = crowd.unfit.iter().map(|(worker, known)| UnmetStep {
                worker: *worker,
                step: StepRef::new(id, index).step,
                missing: step.plan.requires.missing(&known.offer.labels),
            });
            unmet.extend(lacking.filter(|unmet| !unmet.missing.is_empty()).take(most));
        }
        unmet
    }

    fn crowd(&mut self, job: &Job, step: &Step) -> Rc<Crowd<'a>> {
        let core = self.core;
        let look = || Rc::new(Crowd::of(core, job, step));
        // A cooldown is of this scene alone.
        let sessions = step.plan.all_sessions().map(Some).chain([step.session()]);
        if sessions.into_iter().any(|session| core.cooldowns.workers(session).next().is_some()) {
            return look();
        }
        self.crowds.entry(step.requirement).or_insert_with(look).clone()
    }

    fn explain_step(&mut self, id: JobId, job: &Job, step: &Step) -> Vec<WaitCause> {
        let core = self.core;
        if job.phase == JobPhase::Paused {
            return vec![WaitCause::Paused];
        }
        if !job.is_released {
            return core.explain_release(self.now, job);
        }
        let crowd = self.crowd(job, step);
        let taking = crowd.busy > 0 || !crowd.vacant.is_empty();
        if !taking && crowd.idle.is_empty() && crowd.cooling == 0 {
            let lack = explain_missing(&core.requirements[step.requirement].requirement, &crowd.unfit);
            return vec![lack.unwrap_or(WaitCause::NoWorker)];
        }
        let mut waits = Vec::new();
        if let Some(name) = core.exhausted_limit(step.requirement) {
            let limit = core.limits.get(name).copied().unwrap_or_default();
            waits.push(WaitCause::Limit { name: name.to_owned(), total: limit.total, used: limit.used });
        }
        waits.extend(job.options.max_workers.filter(|_| job.is_full()).map(WaitCause::JobFull));
        let full = core.fair_share.full_account(job.member);
        waits.extend(full.map(|(account, cap)| WaitCause::AccountFull(account, cap)));
        if !taking {
            waits.extend((!crowd.idle.is_empty()).then(|| not_working(&crowd.idle)));
            waits.extend((crowd.cooling > 0).then_some(WaitCause::Cooldown(crowd.cooling)));
        } else if waits.is_empty() {
            waits.extend(core.explain_busy(id, job, step, &crowd));
        }
        waits
    }
}

impl Core {
    pub fn explainer(&self, now: Moment) -> Explainer<'_> {
        Explainer { core: self, now, crowds: BTreeMap::new() }
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

    fn explain_busy(&self, id: JobId, job: &Job, step: &Step, crowd: &Crowd<'_>) -> Option<WaitCause> {
        let Crowd { vacant, busy, .. } = crowd;
        let with = || self.occupants(id, job, &crowd.slots);
        if vacant.is_empty() {
            return Some(WaitCause::Busy { workers: *busy, with: with() });
        }
        if !crowd.room {
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

    /// Returns how long the job will take yet. `None` before a frame of it was measured, while nothing of it runs, and
    /// where steps are to come of which nothing is known.
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

    /// Frames that are not done, those that run by the part that is left of them.
    fn frames_left(&self, now: Moment, step: &Step, work: f32) -> f64 {
        let tasks = &step.tasks;
        if tasks.live_len() as usize > EACH {
            // One with another, what runs is half done.
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

fn not_working(workers: &[&Worker]) -> WaitCause {
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
    let lacks = unfit.iter().map(|(id, worker)| (*id, lacks(worker, requirement)));
    let lacks: Vec<(WorkerId, BTreeSet<Missing>)> = lacks.collect();
    let (nearest, least) = lacks.iter().min_by_key(|(_, lacks)| lacks.len())?.clone();
    let all_lack = least.iter().filter(|lack| lacks.iter().all(|(_, other)| other.contains(lack)));
    Some(WaitCause::NoWorkerFits { all_lack: all_lack.cloned().collect(), nearest, lacks: least })
}

fn lacks(worker: &Worker, requirement: &Requirement) -> BTreeSet<Missing> {
    let (offer, room) = (&worker.offer, requirement.room);
    let labels = requirement.missing(&offer.labels).into_iter().map(Missing::Label);
    let has_few_cores = offer.cores > 0 && room.cores > offer.cores;
    let has_little_memory = offer.memory > 0 && room.memory > offer.memory;
    let rest = Requirement { room: Room { gpus: room.gpus, ..Room::default() }, ..Requirement::default() };
    let has_few_gpus = offer.slots > 0 && !rest.is_met_by(offer);
    labels
        .chain(has_few_cores.then_some(Missing::Cores(room.cores)))
        .chain(has_little_memory.then_some(Missing::Memory(room.memory)))
        .chain(has_few_gpus.then_some(Missing::Gpus))
        .collect()
}
