//! Attempts that take too long: longer than the step's other frames by far, or without a sign of progress.

use std::collections::{BTreeMap, BTreeSet};

use kiln_types::{AttemptId, Failure, FailureCause, WorkerId};

use crate::{
    Config, Core, Moment, Outbox, Push, RevokeReason,
    job::Step,
    worker::{Attempt, AttemptPhase},
};

/// How many times as long as the middle one of the step's latest frames an attempt may take, and never fewer
/// milliseconds than this.
const TIMES_MEDIAN: f32 = 10.0;
const LEAST_MS: u64 = 60_000;
/// Frames from which on they are compared.
const ENOUGH: usize = 5;
/// What took too long may take so many times as long when it is tried again: it may be the frame.
const MORE_EACH_TIME: u64 = 4;
/// Milliseconds between two looks while nobody knows how long a frame takes.
const LOOK_EVERY_MS: u64 = 60_000;

/// The attempts that run, and when each is to be looked at.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    running: BTreeMap<AttemptId, Watched>,
    timers: BTreeSet<(Moment, AttemptId)>,
}

#[derive(Debug, Clone, Copy)]
struct Watched {
    /// The last sign of progress; its start, where there was none.
    sign: Moment,
    timer: Moment,
}

/// Why an attempt is ended.
enum Overdue {
    Slow { took_ms: u64, usual_ms: u64 },
    Hangs { silent_ms: u64 },
}

impl Watch {
    /// It is looked at for the first time after at most so many milliseconds.
    pub fn begin(&mut self, now: Moment, attempt: AttemptId, within_ms: u64) {
        self.end(attempt);
        let timer = now.after(LOOK_EVERY_MS.min(within_ms));
        self.running.insert(attempt, Watched { sign: now, timer });
        self.timers.insert((timer, attempt));
    }

    pub fn end(&mut self, attempt: AttemptId) {
        if let Some(known) = self.running.remove(&attempt) {
            self.timers.remove(&(known.timer, attempt));
        }
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
    fn pop(&mut self, now: Moment) -> Option<(AttemptId, Moment)> {
        let &(at, attempt) = self.timers.first().filter(|(at, _)| *at <= now)?;
        self.timers.remove(&(at, attempt));
        self.running.get(&attempt).map(|known| (attempt, known.sign))
    }

    fn look_again(&mut self, attempt: AttemptId, at: Moment) {
        if let Some(known) = self.running.get_mut(&attempt) {
            known.timer = at;
            self.timers.insert((at, attempt));
        }
    }
}

impl Core {
    /// The attempt shows that it gets on: not that its worker lives, but that its Blender does something.
    pub fn attempt_progressed(&mut self, now: Moment, worker: WorkerId, attempt: AttemptId) {
        if self.attempts.get(&attempt).is_some_and(|known| known.worker == worker)
            && let Some(known) = self.watch.running.get_mut(&attempt)
        {
            known.sign = now;
        }
    }

    /// The attempt runs from now on.
    pub(crate) fn watch_over(&mut self, now: Moment, id: AttemptId) {
        let step = self.attempts.get(&id).and_then(|attempt| self.step(attempt.task));
        if let Some(hang_ms) = step.map(|step| step.hang_ms(&self.config)) {
            self.watch.begin(now, id, hang_ms);
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
        while let Some((id, sign)) = self.watch.pop(now) {
            match self.look_at(now, id, sign) {
                Ok(again) => self.watch.look_again(id, again),
                Err(overdue) => {
                    let failure = Failure::new(FailureCause::TimedOut, overdue.sentence());
                    self.time_out(now, id, failure, out);
                }
            }
        }
    }

    /// When to look at it again, or why to end it.
    fn look_at(&self, now: Moment, id: AttemptId, sign: Moment) -> Result<Moment, Overdue> {
        let never = Ok(Moment(u64::MAX));
        let Some(attempt) = self.attempts.get(&id) else { return never };
        let (AttemptPhase::Running { since }, Some(step)) = (attempt.phase, self.step(attempt.task)) else {
            return never;
        };
        let hang_ms = step.hang_ms(&self.config);
        let hangs_at = sign.after(hang_ms);
        if hangs_at <= now {
            return Err(Overdue::Hangs { silent_ms: now.since(sign) });
        }
        let Some((usual_ms, most_ms)) = self.time_limit(step, attempt) else {
            return Ok(hangs_at.min(now.after(LOOK_EVERY_MS)));
        };
        let slow_at = since.after(most_ms);
        if slow_at <= now {
            return Err(Overdue::Slow { took_ms: now.since(since), usual_ms });
        }
        Ok(hangs_at.min(slow_at))
    }

    /// Milliseconds that a frame of the step usually takes here, and that this one may take at most. `None` where too
    /// little is known of the step or the worker.
    fn time_limit(&self, step: &Step, attempt: &Attempt) -> Option<(u64, u64)> {
        let (median, frames) = step.pace.median()?;
        let worker = self.workers.get(&attempt.worker)?;
        let slot = worker.slots.get(usize::from(attempt.slot.0))?;
        let here = slot.frame_ms.filter(|_| slot.session == Some(step.plan.session));
        if frames < ENOUGH || !(worker.measured || here.is_some()) {
            return None;
        }
        let usual = (median / worker.speed).max(here.unwrap_or(0) as f32);
        let mut most = ((usual * TIMES_MEDIAN) as u64).max(LEAST_MS);
        let timed_out = step.troubles.get(&attempt.task.index).map_or(0, |trouble| trouble.timed_out);
        most = most.saturating_mul(MORE_EACH_TIME.saturating_pow(u32::from(timed_out)));
        // Opening the scene may take as long as anything may.
        let opening = if attempt.cold { step.hang_ms(&self.config) } else { 0 };
        Some((usual as u64, most.saturating_add(opening)))
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
            Self::Slow { took_ms, usual_ms } => format!(
                "it was stopped after {}: frames of this job take {} on this worker; a frame may take ten times that, a \
                 minute at least, and four times longer each time it is tried again",
                time(*took_ms),
                time(*usual_ms)
            ),
            Self::Hangs { silent_ms } => {
                format!(
                    "it was stopped: its Blender had done nothing, and reported nothing, for {}",
                    time(*silent_ms)
                )
            }
        }
    }
}

fn time(ms: u64) -> String {
    match ms / 1000 {
        0..10 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        seconds @ 10..120 => format!("{seconds} s"),
        seconds => format!("{} min", seconds / 60),
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
