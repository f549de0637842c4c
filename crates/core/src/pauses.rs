//! Pauses of workers that do not take what they are given.
//!
//! A worker that hands work straight back, or fails before Blender has begun, would get it again at once, and
//! again, as fast as the network allows. So it gets nothing more of that session for a while, which doubles
//! each time. Not kept over a restart: the first refusal after it begins anew.

use std::collections::BTreeMap;

use kiln_types::{SessionKey, WorkerId};

use crate::{Core, Moment, job::Need};

/// Milliseconds of the first pause and of the longest one.
const SHORTEST_MS: u64 = 500;
const LONGEST_MS: u64 = 30_000;
/// Milliseconds after the end of a pause for which it is remembered, so that the next one is longer.
const MEMORY_MS: u64 = 60_000;

#[derive(Debug, Default)]
pub(crate) struct Pauses(BTreeMap<(WorkerId, SessionKey), Pause>);

#[derive(Debug)]
struct Pause {
    until: Moment,
    length_ms: u64,
    over: bool,
    why: Why,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// It handed back what it had not begun and nobody had asked back.
    Refused,
    /// It failed by a fault of its own. Such attempts are reported as started, so a start ends nothing.
    Faulty,
}

impl Pauses {
    /// Several refusals of one moment, as of a whole queue, are one.
    fn begin(&mut self, now: Moment, worker: WorkerId, session: SessionKey, why: Why) {
        let known = self.0.get(&(worker, session));
        if known.is_some_and(|pause| !pause.over && pause.why == why) {
            return;
        }
        let length_ms = known.map_or(SHORTEST_MS, |pause| (pause.length_ms * 2).min(LONGEST_MS));
        let pause = Pause { until: now.after(length_ms), length_ms, over: false, why };
        self.0.insert((worker, session), pause);
    }

    /// The pause that goes on.
    fn of(&self, worker: WorkerId, session: SessionKey) -> Option<Why> {
        self.0.get(&(worker, session)).filter(|pause| !pause.over).map(|pause| pause.why)
    }

    pub fn forget(&mut self, worker: WorkerId) {
        self.0.retain(|(of, _), _| *of != worker);
    }

    pub fn tick(&mut self, now: Moment) {
        self.0.retain(|_, pause| {
            pause.over |= pause.until <= now;
            pause.until.after(MEMORY_MS) > now
        });
    }

    /// When [`Pauses::tick`] next has something to do.
    pub fn next_deadline(&self) -> Option<Moment> {
        let end = |pause: &Pause| if pause.over { pause.until.after(MEMORY_MS) } else { pause.until };
        self.0.values().map(end).min()
    }
}

impl Core {
    pub(crate) fn hold_off(&mut self, now: Moment, worker: WorkerId, session: SessionKey, why: Why) {
        self.pauses.begin(now, worker, session, why);
    }

    /// What led to a pause of this kind is over: a start ends refusals, what Blender has worked on ends faults.
    pub(crate) fn takes_again(&mut self, worker: WorkerId, session: SessionKey, why: Why) {
        let place = (worker, session);
        if self.pauses.0.get(&place).is_some_and(|pause| pause.why == why) {
            self.pauses.0.remove(&place);
        }
    }

    /// Whether the worker gets nothing of this session for now. One that is faulty still does while no better
    /// one is there: then its failures soon say to whoever waits what is wrong.
    pub(crate) fn is_held_off(&self, worker: WorkerId, need: Need, session: SessionKey) -> bool {
        match self.pauses.of(worker, session) {
            None => false,
            Some(Why::Refused) => true,
            Some(Why::Faulty) => self.others_take(&[worker], need, session),
        }
    }

    /// Whether a worker besides these could be given work of this session now, and has not refused it.
    pub(crate) fn others_take(&self, besides: &[WorkerId], need: Need, session: SessionKey) -> bool {
        self.workers.iter().any(|(id, worker)| {
            worker.takes_work()
                && worker.offer.slots > 0
                && worker.fits(need)
                && !besides.contains(id)
                && self.pauses.of(*id, session).is_none()
        })
    }
}
