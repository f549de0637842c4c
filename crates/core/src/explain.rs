//! Why a job waits, and how long it will take: what a person asks of a scheduler.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use kiln_types::{JobId, StepIndex, WorkerId, WorkerWish};

use crate::{
    Core, Label, Moment, Party, Requirement,
    core::step_index,
    job::{Job, JobEnd, JobPhase, Step, Trouble},
    needs::{self, Need},
    worker::{AttemptPhase, Worker},
};

/// Why nothing more of a job starts now, most telling first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// A person paused it.
    Paused,
    /// Jobs that must be completed first; those that ended otherwise will not be by themselves.
    ForJobs {
        open: Vec<JobId>,
        ended: Vec<JobId>,
    },
    Until(Moment),
    NoWorker,
    /// No worker that is here has what it takes. What they all lack, and what the nearest one lacks.
    NobodyFits {
        all_lack: BTreeSet<Lack>,
        nearest: WorkerId,
        lacks: BTreeSet<Lack>,
    },
    /// Workers that fit and take no work.
    NotWorking {
        paused: u32,
        leaving: u32,
        resting: u32,
        sick: u32,
        others: u32,
    },
    /// Workers that fit handed such work back or failed to begin it, and are asked again soon.
    HeldOff(u32),
    /// The farm-wide limit is used up.
    Limit {
        name: String,
        total: u32,
        used: u32,
    },
    /// It is on as many workers as it may be.
    JobFull(u32),
    /// Its project or user holds all the slots that it may.
    PartyFull(Party, u32),
    /// Slots of workers that fit are at work for others.
    Busy {
        workers: u32,
        with: Vec<Occupant>,
    },
    /// What waits has failed on every worker that has a vacant slot, and is tried next on one of so many others, which are
    /// at work for these.
    FailedHere {
        vacant: Vec<WorkerId>,
        others: u32,
        with: Vec<Occupant>,
    },
    /// There are vacant slots, but not room enough on any one machine; this one is kept free for it.
    Room {
        reserved: Option<WorkerId>,
    },
}

/// Something that a worker lacks for a step.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lack {
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

/// Milliseconds until a job is through, as the farm is now and its frames were so far.
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

/// A worker that is there and does not fit a step that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmet {
    pub worker: WorkerId,
    pub step: StepIndex,
    pub missing: BTreeSet<Label>,
}

/// Why jobs wait at one moment. Of as many jobs as one likes the workers are looked at once for each different need.
pub struct Survey<'a> {
    core: &'a Core,
    now: Moment,
    crowds: BTreeMap<Need, Rc<Crowd<'a>>>,
}

/// The workers that are here, as they stand to a need.
struct Crowd<'a> {
    unfit: Vec<(WorkerId, &'a Worker)>,
    /// They fit and take no work.
    idle: Vec<&'a Worker>,
    /// They handed such work back or failed to begin it.
    held_off: u32,
    /// Of the others, those with a slot that does nothing, and whether one of these has room for it.
    vacant: Vec<WorkerId>,
    room: bool,
    /// The rest, and how many of their slots each job holds.
    busy: u32,
    slots: BTreeMap<JobId, u32>,
}

impl<'a> Crowd<'a> {
    fn of(core: &'a Core, need: Need, held_off: impl Fn(WorkerId) -> bool) -> Self {
        let mut crowd = Self {
            unfit: Vec::new(),
            idle: Vec::new(),
            held_off: 0,
            vacant: Vec::new(),
            room: false,
            busy: 0,
            slots: BTreeMap::new(),
        };
        let room = core.needs[need].requirement.room;
        for (id, worker) in core.workers.iter().filter(|(_, worker)| worker.presence.is_connected()) {
            if !worker.fits(need) {
                crowd.unfit.push((*id, worker));
            } else if !worker.takes_work() {
                crowd.idle.push(worker);
            } else if held_off(*id) {
                crowd.held_off += 1;
            } else if worker.vacant_slots().next().is_some() {
                crowd.vacant.push(*id);
                crowd.room = crowd.room || needs::claim(worker, &worker.claims(None), room).is_some();
            } else {
                crowd.busy += 1;
                let held = worker.slots.iter().flat_map(|slot| &slot.counted);
                held.for_each(|(job, _)| *crowd.slots.entry(*job).or_default() += 1);
            }
        }
        crowd
    }
}

impl<'a> Survey<'a> {
    /// Why tasks of the job wait, by step. Empty where none does, or the next turn hands them out.
    pub fn explain(&mut self, id: JobId) -> Vec<(StepIndex, Vec<Wait>)> {
        let Some(job) = self.core.jobs.get(&id).filter(|job| !job.has_ended()) else { return Vec::new() };
        let open = job.steps.iter().enumerate().filter(|(index, _)| job.could_run(*index));
        open.map(|(index, step)| (step_index(index), self.explain_step(id, job, step))).collect()
    }

    /// Workers that are there and do not fit a step whose waiting tasks may run, with what each lacks; `most` of a
    /// step.
    pub fn unmet(&mut self, id: JobId, most: usize) -> Vec<Unmet> {
        let Some(job) = self.core.jobs.get(&id) else { return Vec::new() };
        let mut unmet = Vec::new();
        for (index, step) in job.steps.iter().enumerate().filter(|(index, _)| job.could_run(*index)) {
            let crowd = self.crowd(job, step);
            let lacking = crowd.unfit.iter().filter_map(|(worker, known)| {
                let missing = step.plan.requires.missing(&known.offer.labels);
                (!missing.is_empty()).then_some(Unmet { worker: *worker, step: step_index(index), missing })
            });
            unmet.extend(lacking.take(most));
        }
        unmet
    }

    fn crowd(&mut self, job: &Job, step: &Step) -> Rc<Crowd<'a>> {
        let (core, need) = (self.core, step.need);
        let look = |off: &dyn Fn(WorkerId) -> bool| Rc::new(Crowd::of(core, need, off));
        if step.plan.sessions().any(|session| core.pauses.paused(session).next().is_some()) {
            // Of this scene alone.
            return look(&|worker| {
                let session = core.session_on(worker, job, step);
                session.is_some_and(|session| core.is_held_off(worker, need, session))
            });
        }
        self.crowds.entry(need).or_insert_with(|| look(&|_| false)).clone()
    }

    fn explain_step(&mut self, id: JobId, job: &Job, step: &Step) -> Vec<Wait> {
        let core = self.core;
        if job.phase == JobPhase::Paused {
            return vec![Wait::Paused];
        }
        if !job.released {
            return core.explain_release(self.now, job);
        }
        let crowd = self.crowd(job, step);
        let taking = crowd.busy > 0 || !crowd.vacant.is_empty();
        if !taking && crowd.idle.is_empty() && crowd.held_off == 0 {
            let lack = core.explain_lack(&core.needs[step.need].requirement, &crowd.unfit);
            return vec![lack.unwrap_or(Wait::NoWorker)];
        }
        let mut waits = Vec::new();
        if let Some(name) = core.lacking_limit(step.need) {
            let limit = core.limits.get(name).copied().unwrap_or_default();
            waits.push(Wait::Limit { name: name.to_owned(), total: limit.total, used: limit.used });
        }
        if let Some(most) = job.standing.max_workers.filter(|_| job.is_full()) {
            waits.push(Wait::JobFull(most));
        }
        if let Some((party, cap)) = core.accounts.full_party(job.account) {
            waits.push(Wait::PartyFull(party, cap));
        }
        if !taking && !crowd.idle.is_empty() {
            waits.push(not_working(&crowd.idle));
        }
        if !taking && crowd.held_off > 0 {
            waits.push(Wait::HeldOff(crowd.held_off));
        }
        if taking && waits.is_empty() {
            waits.extend(core.explain_busy(id, job, step, &crowd));
        }
        waits
    }
}

impl Core {
    /// To ask of jobs why they wait.
    pub fn survey(&self, now: Moment) -> Survey<'_> {
        Survey { core: self, now, crowds: BTreeMap::new() }
    }

    fn explain_release(&self, now: Moment, job: &Job) -> Vec<Wait> {
        let phase = |before: &JobId| self.jobs.get(before).map(|job| job.phase);
        let after = job.standing.after.iter().copied();
        let (mut open, mut ended) = (Vec::new(), Vec::new());
        for before in after {
            match phase(&before) {
                Some(JobPhase::Ended(JobEnd::Completed)) => {}
                Some(JobPhase::Ended(_)) | None => ended.push(before),
                Some(_) => open.push(before),
            }
        }
        let mut waits = Vec::new();
        if !open.is_empty() || !ended.is_empty() {
            waits.push(Wait::ForJobs { open, ended });
        }
        waits.extend(job.standing.not_before.filter(|at| *at > now).map(Wait::Until));
        waits
    }

    fn explain_lack(&self, requirement: &Requirement, unfit: &[(WorkerId, &Worker)]) -> Option<Wait> {
        let lacks = unfit.iter().map(|(id, worker)| (*id, lacks(worker, requirement)));
        let lacks: Vec<(WorkerId, BTreeSet<Lack>)> = lacks.collect();
        let (nearest, least) = lacks.iter().min_by_key(|(_, lacks)| lacks.len())?.clone();
        let all_lack = least.iter().filter(|lack| lacks.iter().all(|(_, other)| other.contains(lack)));
        Some(Wait::NobodyFits { all_lack: all_lack.cloned().collect(), nearest, lacks: least })
    }

    fn explain_busy(&self, id: JobId, job: &Job, step: &Step, crowd: &Crowd<'_>) -> Option<Wait> {
        if crowd.vacant.is_empty() {
            return Some(Wait::Busy { workers: crowd.busy, with: self.occupants(id, job, &crowd.slots) });
        }
        if !crowd.room {
            return Some(Wait::Room { reserved: self.needs[step.need].reserved });
        }
        let here = |trouble: &Trouble| crowd.vacant.iter().any(|id| self.may_take(*id, step.need, trouble));
        let failed_here = step.waiting_len() > 0 && crowd.busy > 0 && step.next(here).is_none();
        failed_here.then(|| Wait::FailedHere {
            vacant: crowd.vacant.clone(),
            others: crowd.busy,
            with: self.occupants(id, job, &crowd.slots),
        })
    }

    /// The other jobs that hold slots, those with the most first.
    fn occupants(&self, id: JobId, job: &Job, slots: &BTreeMap<JobId, u32>) -> Vec<Occupant> {
        let others = slots.iter().filter(|(other, _)| **other != id);
        let mut with: Vec<Occupant> = others
            .filter_map(|(other, slots)| {
                let theirs = self.jobs.get(other)?.standing.priority;
                Some(Occupant { job: *other, slots: *slots, priority: theirs.cmp(&job.standing.priority) })
            })
            .collect();
        with.sort_by_key(|occupant| std::cmp::Reverse(occupant.slots));
        with
    }

    /// How long the job will take yet. `None` before a frame of it was measured, while nothing of it runs, and where
    /// steps are to come of which nothing is known.
    pub fn forecast(&self, now: Moment, id: JobId) -> Option<Forecast> {
        let job = self.jobs.get(&id).filter(|job| job.phase == JobPhase::Active)?;
        let mut open = job.steps.iter().filter(|step| !step.is_complete());
        let step = open.next()?;
        if open.next().is_some() {
            return None;
        }
        let (work, doubt) = step.pace.expected()?;
        let left = self.frames_left(now, step, work);
        let held = job.on.iter().filter_map(|(worker, slots)| {
            let speed = self.workers.get(worker).filter(|worker| worker.presence.is_connected())?.speed;
            Some(f64::from(speed) * f64::from(*slots))
        });
        let held: f64 = held.sum();
        if held <= 0.0 || left <= 0.0 {
            return None;
        }
        let all = self.needs[step.need].power as f64 / 1000.0;
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
        if step.live.len() > EACH {
            // One with another, what runs is half done.
            return f64::from(step.waiting_len() + step.queued()) + f64::from(step.running) / 2.0;
        }
        let running = step.live.values().filter_map(|id| self.attempts.get(id)).map(|attempt| {
            let speed = self.workers.get(&attempt.worker).map_or(1.0, |worker| worker.speed);
            match attempt.phase {
                AttemptPhase::Running { since } => {
                    (1.0 - now.since(since) as f64 * f64::from(speed) / f64::from(work.max(1.0))).max(0.05)
                }
                AttemptPhase::Delivering => 0.0,
                AttemptPhase::Assigned { .. } | AttemptPhase::Late { .. } => 1.0,
            }
        });
        f64::from(step.waiting_len()) + running.sum::<f64>()
    }
}

fn not_working(workers: &[&Worker]) -> Wait {
    let (mut paused, mut leaving, mut resting, mut sick, mut others) = (0, 0, 0, 0, 0);
    for worker in workers {
        match worker.wish {
            WorkerWish::Pause => paused += 1,
            WorkerWish::Drain | WorkerWish::Stop => leaving += 1,
            WorkerWish::Work if worker.offer.resting => resting += 1,
            WorkerWish::Work if worker.sick.is_some() => sick += 1,
            WorkerWish::Work => others += 1,
        }
    }
    Wait::NotWorking { paused, leaving, resting, sick, others }
}

fn lacks(worker: &Worker, requirement: &Requirement) -> BTreeSet<Lack> {
    let offer = &worker.offer;
    let mut lacks: BTreeSet<Lack> = requirement.missing(&offer.labels).into_iter().map(Lack::Label).collect();
    let room = requirement.room;
    if offer.cores > 0 && room.cores > offer.cores {
        lacks.insert(Lack::Cores(room.cores));
    }
    if offer.memory > 0 && room.memory > offer.memory {
        lacks.insert(Lack::Memory(room.memory));
    }
    let rest = Requirement {
        room: crate::Room { gpus: room.gpus, ..crate::Room::default() },
        ..Requirement::default()
    };
    if offer.slots > 0 && !needs::fits(offer, &rest) {
        lacks.insert(Lack::Gpus);
    }
    lacks
}
