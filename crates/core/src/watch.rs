//! Attempts that do not get on: their Blender does nothing, or works for a day and shows nothing for it. How long other
//! frames take ends none: a frame may be slow, and is then shown as slow.

use std::collections::{BTreeMap, BTreeSet};

use kiln_types::{AttemptId, Failure, FailureCause, WorkerId};

use crate::{
    Config, Core, Moment, Outbox, Push, RevokeReason,
    job::Step,
    worker::{Attempt, AttemptPhase},
};

/// A frame is shown as slow when it takes so many times as long as the middle one of the step's latest frames, and no
/// fewer milliseconds than this.
const TIMES_MEDIAN: f32 = 10.0;
const LEAST_MS: u64 = 60_000;
/// Milliseconds for which nothing is ended of a worker that may have said that it works.
const POSTPONED_MS: u64 = 1_000;
/// Frames from which on they are compared.
const ENOUGH: usize = 5;

/// How long an attempt has run that takes far longer than other frames of its step, and how long those take there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slow {
    /// Milliseconds.
    pub ran_ms: u64,
    pub usual_ms: u64,
}

/// The attempts that run, and when each is to be looked at.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    running: BTreeMap<AttemptId, Watched>,
    timers: BTreeSet<(Moment, AttemptId)>,
}

#[derive(Debug, Clone, Copy)]
struct Watched {
    /// When its Blender was last seen to work; its start, where it was not.
    worked: Moment,
    /// The last sign that it gets on.
    moved: Moment,
    timer: Moment,
}

/// Why an attempt is ended.
enum Overdue {
    Idle { ms: u64 },
    Stalled { ms: u64 },
}

impl Watch {
    /// It is looked at for the first time after so many milliseconds.
    pub fn begin(&mut self, now: Moment, attempt: AttemptId, after_ms: u64) {
        self.end(attempt);
        let timer = now.after(after_ms);
        self.running.insert(attempt, Watched { worked: now, moved: now, timer });
        self.timers.insert((timer, attempt));
    }

    pub fn end(&mut self, attempt: AttemptId) {
        if let Some(known) = self.running.remove(&attempt) {
            self.timers.remove(&(known.timer, attempt));
        }
    }

    /// Those whose timers are over.
    fn due(&self, now: Moment) -> impl Iterator<Item = AttemptId> {
        self.timers.iter().take_while(move |(at, _)| *at <= now).map(|(_, attempt)| *attempt)
    }

    pub fn next_deadline(&self) -> Option<Moment> {
        self.timers.first().map(|(at, _)| *at)
    }

    pub fn attempts(&self) -> impl Iterator<Item = AttemptId> {
        self.running.keys().copied()
    }

    /// Panics where something is watched without a timer. For tests.
    pub fn check(&self) {
        let timers: BTreeSet<_> = self.running.iter().map(|(id, known)| (known.timer, *id)).collect();
        assert_eq!(timers, self.timers, "a timer is lost or left");
    }

    /// The next whose timer is over; it has none then.
    fn pop(&mut self, now: Moment) -> Option<(AttemptId, Watched)> {
        let &(at, attempt) = self.timers.first().filter(|(at, _)| *at <= now)?;
        self.timers.remove(&(at, attempt));
        self.running.get(&attempt).map(|known| (attempt, *known))
    }

    fn look_again(&mut self, attempt: AttemptId, at: Moment) {
        if let Some(known) = self.running.get_mut(&attempt) {
            known.timer = at;
            self.timers.insert((at, attempt));
        }
    }
}

impl Core {
    /// The attempt shows that it gets on: a sample is done, its Blender says something, bytes are written.
    pub fn attempt_moved(&mut self, now: Moment, worker: WorkerId, attempt: AttemptId) {
        if let Some(known) = self.watched(worker, attempt) {
            (known.worked, known.moved) = (now, now);
        }
    }

    /// Its Blender has worked on it, and shows nothing else: not that its worker lives.
    pub fn attempt_worked(&mut self, now: Moment, worker: WorkerId, attempt: AttemptId) {
        if let Some(known) = self.watched(worker, attempt) {
            known.worked = now;
        }
    }

    fn watched(&mut self, worker: WorkerId, attempt: AttemptId) -> Option<&mut Watched> {
        self.attempts.get(&attempt).filter(|known| known.worker == worker)?;
        self.watch.running.get_mut(&attempt)
    }

    /// Workers on which something may hang by now. What has arrived of one of them and has not been told to the core may be
    /// the sign that it does not: see [`Core::postpone_hang`].
    pub fn hanging(&self, now: Moment) -> BTreeSet<WorkerId> {
        self.watch.due(now).filter_map(|id| self.attempts.get(&id)).map(|attempt| attempt.worker).collect()
    }

    /// Nothing on the worker is ended for a second: something of it waits to be told.
    pub fn postpone_hang(&mut self, now: Moment, id: WorkerId) {
        let of_worker =
            |attempt: &AttemptId| self.attempts.get(attempt).is_some_and(|attempt| attempt.worker == id);
        let due: Vec<AttemptId> = self.watch.due(now).filter(of_worker).collect();
        for attempt in due {
            if let Some(known) = self.watch.running.get(&attempt) {
                self.watch.timers.remove(&(known.timer, attempt));
                self.watch.look_again(attempt, now.after(POSTPONED_MS));
            }
        }
    }

    /// The attempt runs from now on.
    pub(crate) fn watch_over(&mut self, now: Moment, id: AttemptId) {
        let step = self.attempts.get(&id).and_then(|attempt| self.step(attempt.task));
        if let Some(hang_ms) = step.map(|step| step.hang_ms(&self.config)) {
            self.watch.begin(now, id, hang_ms.min(self.config.stall_ms));
        }
    }

    /// Brings the watch up to date with what the worker's slots run.
    pub(crate) fn watch_slots(&mut self, now: Moment, id: WorkerId) {
        let live: Vec<AttemptId> =
            self.workers.get(&id).into_iter().flat_map(|worker| worker.live()).collect();
        for attempt in live {
            let runs = self.attempts.get(&attempt).is_some_and(Attempt::runs);
            if !runs {
                self.watch.end(attempt);
            } else if !self.watch.running.contains_key(&attempt) {
                self.watch_over(now, attempt);
            }
        }
    }

    /// Ends what takes too long.
    pub(crate) fn end_overdue(&mut self, now: Moment, out: &mut impl Outbox) {
        while let Some((id, watched)) = self.watch.pop(now) {
            match self.look_at(now, id, watched) {
                Ok(again) => self.watch.look_again(id, again),
                Err(overdue) => {
                    let failure = Failure::new(FailureCause::TimedOut, overdue.sentence());
                    self.time_out(now, id, failure, out);
                }
            }
        }
    }

    /// When to look at it again, or why to end it.
    fn look_at(&self, now: Moment, id: AttemptId, watched: Watched) -> Result<Moment, Overdue> {
        let never = Ok(Moment(u64::MAX));
        let Some(attempt) = self.attempts.get(&id) else { return never };
        let (AttemptPhase::Running { .. }, Some(step)) = (attempt.phase, self.step(attempt.task)) else {
            return never;
        };
        let idle_at = watched.worked.after(step.hang_ms(&self.config));
        let stalled_at = watched.moved.after(self.config.stall_ms);
        if idle_at <= now {
            return Err(Overdue::Idle { ms: now.since(watched.worked) });
        }
        if stalled_at <= now {
            return Err(Overdue::Stalled { ms: now.since(watched.moved) });
        }
        Ok(idle_at.min(stalled_at))
    }

    /// Tells of an attempt that runs and takes far longer than other frames of its step take on its worker. `None` also
    /// where too little is known of the step or the worker.
    pub fn slow(&self, now: Moment, id: AttemptId) -> Option<Slow> {
        let attempt = self.attempts.get(&id)?;
        let AttemptPhase::Running { since } = attempt.phase else { return None };
        let step = self.step(attempt.task)?;
        let (median, frames) = step.pace.median()?;
        let worker = self.workers.get(&attempt.worker)?;
        let slot = worker.slots.get(usize::from(attempt.slot.0))?;
        let here = slot.frame_ms.filter(|_| slot.session == Some(step.plan.session));
        if frames < ENOUGH || !(worker.measured || here.is_some()) {
            return None;
        }
        let usual = (median / worker.speed).max(here.unwrap_or(0) as f32);
        let most = ((usual * TIMES_MEDIAN) as u64).max(LEAST_MS);
        let opening = if attempt.cold { self.opening_ms(step, attempt.worker) } else { 0 };
        let ran_ms = now.since(since);
        (ran_ms > most.saturating_add(opening)).then_some(Slow { ran_ms, usual_ms: usual as u64 })
    }

    /// The attempt fails and is taken back; its slot waits until it is stopped.
    fn time_out(&mut self, now: Moment, id: AttemptId, failure: Failure, out: &mut impl Outbox) {
        let Some(attempt) = self.detach(id) else { return };
        if let Some(slot) =
            self.workers.get_mut(&attempt.worker).and_then(|worker| worker.slot_mut(attempt.slot))
        {
            slot.close(id);
        }
        self.push(attempt.worker, Push::Revoke { attempt: id, why: RevokeReason::TimedOut }, out);
        self.failed(now, id, &attempt, failure, out);
    }
}

impl Overdue {
    fn sentence(&self) -> String {
        match self {
            Self::Idle { ms } => {
                format!(
                    "it was stopped: its Blender had done nothing, and reported nothing, for {}",
                    time(*ms)
                )
            }
            Self::Stalled { ms } => format!(
                "it was stopped: its Blender had worked for {} and shown nothing for it: no sample, no message, no byte",
                time(*ms)
            ),
        }
    }
}

fn time(ms: u64) -> String {
    match ms / 1000 {
        0..10 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        seconds @ 10..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

impl Step {
    fn hang_ms(&self, config: &Config) -> u64 {
        self.plan.hang_ms.unwrap_or(config.hang_ms).max(1)
    }
}

impl Attempt {
    pub fn runs(&self) -> bool {
        matches!(self.phase, AttemptPhase::Running { .. })
    }
}
