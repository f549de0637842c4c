//! Pauses of workers that do not take what they are given.
//!
//! A worker that hands work straight back, or fails before Blender has begun, would get it again at once, and
//! again, as fast as the network allows. So it gets nothing more of that session for a while, which doubles
//! each time. Not kept over a restart: the first refusal after it begins anew.

use std::collections::{BTreeMap, BTreeSet};

use kiln_types::{SessionKey, WorkerId};

use crate::{Core, Moment, needs::Need};

/// Milliseconds of the first pause and of the longest one.
const SHORTEST_MS: u64 = 500;
const LONGEST_MS: u64 = 30_000;
/// Milliseconds after the end of a pause for which it is remembered, so that the next one is longer.
const MEMORY_MS: u64 = 60_000;

#[derive(Debug, Default)]
pub(crate) struct Pauses(BTreeMap<(SessionKey, WorkerId), Pause>);

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
        let known = self.0.get(&(session, worker));
        if known.is_some_and(|pause| !pause.over && pause.why == why) {
            return;
        }
        let length_ms = known.map_or(SHORTEST_MS, |pause| (pause.length_ms * 2).min(LONGEST_MS));
        let pause = Pause { until: now.after(length_ms), length_ms, over: false, why };
        self.0.insert((session, worker), pause);
    }

    /// The pause that goes on.
    fn of(&self, worker: WorkerId, session: SessionKey) -> Option<Why> {
        self.0.get(&(session, worker)).filter(|pause| !pause.over).map(|pause| pause.why)
    }

    pub fn forget(&mut self, worker: WorkerId) {
        self.0.retain(|(_, of), _| *of != worker);
    }

    /// Those whose pause is over since the last time.
    fn tick(&mut self, now: Moment) -> Vec<WorkerId> {
        let mut ended = Vec::new();
        self.0.retain(|(_, worker), pause| {
            if !pause.over && pause.until <= now {
                pause.over = true;
                ended.push(*worker);
            }
            pause.until.after(MEMORY_MS) > now
        });
        ended
    }

    /// Workers that get nothing of this session for now.
    pub fn paused(&self, session: SessionKey) -> impl Iterator<Item = WorkerId> {
        let least = (session, WorkerId::MIN);
        let of = self.0.range(least..).take_while(move |((of, _), _)| *of == session);
        of.filter(|(_, pause)| !pause.over).map(|((_, worker), _)| *worker)
    }

    /// When [`Core::end_pauses`] next has something to do.
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
        let place = (session, worker);
        if self.pauses.0.get(&place).is_some_and(|pause| pause.why == why) {
            self.pauses.0.remove(&place);
            self.indexes.dirty.insert(worker);
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

    /// Pauses that are over by now end; their workers are looked at again.
    pub(crate) fn end_pauses(&mut self, now: Moment) {
        let ended = self.pauses.tick(now);
        self.indexes.dirty.extend(ended);
    }

    /// Whether a worker besides these could be given work of this session now, and has not refused it.
    pub(crate) fn others_take(&self, besides: &[WorkerId], need: Need, session: SessionKey) -> bool {
        let gone: BTreeSet<WorkerId> = besides.iter().copied().chain(self.pauses.paused(session)).collect();
        let gone = gone.into_iter().filter(|worker| self.is_willing(*worker, need)).count();
        self.willing(need) > gone
    }

    /// How many workers that take work fit the need, busy or not.
    pub(crate) fn willing(&self, need: Need) -> usize {
        let counted = self.needs[need].willing as usize;
        // Those that changed since they were counted.
        self.indexes.dirty.iter().filter_map(|id| self.workers.get_key_value(id)).fold(
            counted,
            |sum, (id, worker)| {
                let was = worker.standpoints.get(need.0).is_some_and(|standpoint| standpoint.slots > 0);
                sum + usize::from(self.is_willing(*id, need)) - usize::from(was)
            },
        )
    }

    pub(crate) fn is_willing(&self, worker: WorkerId, need: Need) -> bool {
        self.workers.get(&worker).is_some_and(|known| known.takes_work() && known.fits(need))
    }
}
