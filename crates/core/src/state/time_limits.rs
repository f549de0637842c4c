//! The signs of running attempts, and when each is to be looked at. See [`crate::failure::time_limit`].

use std::collections::{BTreeMap, BTreeSet};

use kiln_types::AttemptId;

use crate::{Moment, tuning::time_limit::POSTPONED_MS};

/// The attempts that run, and when each is to be looked at.
#[derive(Debug, Default)]
pub(crate) struct TimeLimits {
    running: BTreeMap<AttemptId, Signs>,
    timers: BTreeSet<(Moment, AttemptId)>,
}

/// The last signs of an attempt; its start, where there was none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signs {
    /// Its Blender worked.
    pub worked: Moment,
    /// It made progress.
    pub moved: Moment,
    timer: Moment,
}

impl TimeLimits {
    /// Begins to watch an attempt: it is looked at for the first time after `after_ms` milliseconds.
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

    /// Its Blender worked; `moved`: and it made progress.
    pub fn note_sign(&mut self, now: Moment, attempt: AttemptId, moved: bool) {
        if let Some(signs) = self.running.get_mut(&attempt) {
            signs.worked = now;
            if moved {
                signs.moved = now;
            }
        }
    }

    /// The attempts whose timers are over.
    pub fn due(&self, now: Moment) -> impl Iterator<Item = AttemptId> {
        self.timers.iter().take_while(move |(at, _)| *at <= now).map(|(_, attempt)| *attempt)
    }

    pub fn next_deadline(&self) -> Option<Moment> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Takes out the next timer that is over.
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

    /// Looks at the attempt a second later than it would be, where it is due.
    pub fn postpone(&mut self, now: Moment, attempt: AttemptId) {
        self.look_again(attempt, now.after(POSTPONED_MS));
    }

    /// Panics where others are watched than these, or without a timer. For tests.
    pub fn check(&self, running: &BTreeSet<AttemptId>) {
        let watched: BTreeSet<AttemptId> = self.running.keys().copied().collect();
        assert_eq!(*running, watched, "other attempts run than are watched");
        let timers: BTreeSet<_> = self.running.iter().map(|(id, signs)| (signs.timer, *id)).collect();
        assert_eq!(timers, self.timers, "a timer is lost or left");
    }
}
