//! The signs of running attempts, and the timers of their checks. See [`crate::failure::time_limit`].

use std::collections::{BTreeMap, BTreeSet};

use kiln_types::AttemptId;

use crate::{Moment, tuning::time_limit::POSTPONED_MS};

/// The running attempts, each with a timer for its next check.
#[derive(Debug, Default)]
pub(crate) struct TimeLimits {
    running: BTreeMap<AttemptId, Signs>,
    timers: BTreeSet<(Moment, AttemptId)>,
}

/// The times of an attempt's last signs, at first its start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signs {
    /// Blender used the processor.
    pub worked: Moment,
    /// The attempt made progress.
    pub moved: Moment,
    timer: Moment,
}

impl TimeLimits {
    /// Begins to watch an attempt, with the first check after `after_ms` milliseconds.
    pub fn begin(&mut self, now: Moment, attempt: AttemptId, after_ms: u64) {
        self.end(attempt);
        let timer = now.after(after_ms);
        self.running.insert(attempt, Signs { worked: now, moved: now, timer });
        self.timers.insert((timer, attempt));
    }

    pub fn is_watched(&self, attempt: AttemptId) -> bool {
        self.running.contains_key(&attempt)
    }

    pub fn end(&mut self, attempt: AttemptId) {
        if let Some(signs) = self.running.remove(&attempt) {
            self.timers.remove(&(signs.timer, attempt));
        }
    }

    /// Notes that Blender worked. `moved`: with progress.
    pub fn note_sign(&mut self, now: Moment, attempt: AttemptId, moved: bool) {
        if let Some(signs) = self.running.get_mut(&attempt) {
            signs.worked = now;
            if moved {
                signs.moved = now;
            }
        }
    }

    /// The attempts whose timers have run out.
    pub fn due(&self, now: Moment) -> impl Iterator<Item = AttemptId> {
        self.timers.iter().take_while(move |(at, _)| *at <= now).map(|(_, attempt)| *attempt)
    }

    pub fn next_deadline(&self) -> Option<Moment> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Takes the next timer that has run out.
    pub fn pop(&mut self, now: Moment) -> Option<(AttemptId, Signs)> {
        let &(at, attempt) = self.timers.first().filter(|(at, _)| *at <= now)?;
        self.timers.remove(&(at, attempt));
        self.running.get(&attempt).map(|signs| (attempt, *signs))
    }

    pub fn look_again(&mut self, attempt: AttemptId, at: Moment) {
        if let Some(signs) = self.running.get_mut(&attempt) {
            self.timers.remove(&(signs.timer, attempt));
            signs.timer = at;
            self.timers.insert((at, attempt));
        }
    }

    /// Delays the check of the attempt.
    pub fn postpone(&mut self, now: Moment, attempt: AttemptId) {
        self.look_again(attempt, now.after(POSTPONED_MS));
    }

    /// Panics if others than these attempts are watched, or a timer is wrong. For tests.
    pub fn check(&self, running: &BTreeSet<AttemptId>) {
        let watched: BTreeSet<AttemptId> = self.running.keys().copied().collect();
        assert_eq!(*running, watched, "the watched attempts are not those that run");
        let timers: BTreeSet<_> = self.running.iter().map(|(id, signs)| (signs.timer, *id)).collect();
        assert_eq!(timers, self.timers, "timers are wrong");
    }
}
