//! The cooldowns of workers, by session; steps without one share theirs. See [`crate::failure::cooldown`].

use std::collections::BTreeMap;

use kiln_types::{SessionKey, WorkerId};

use crate::{
    Moment,
    tuning::cooldown::{FIRST_MS, LAST_MS, REMEMBERED_MS},
};

#[derive(Debug, Default)]
pub(crate) struct Cooldowns(BTreeMap<(Option<SessionKey>, WorkerId), Cooldown>);

#[derive(Debug)]
struct Cooldown {
    until: Moment,
    length_ms: u64,
    is_over: bool,
    cause: CooldownCause,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CooldownCause {
    /// The worker returned, unasked, an attempt that had not begun.
    Refused,
    /// The worker failed by a fault of its own. Such attempts are reported as started, so a start does not end it.
    Faulty,
}

impl Cooldowns {
    /// Starts a cooldown, or extends one that is over. Several refusals at one time, as of a whole queue, are one.
    pub fn start(
        &mut self,
        now: Moment,
        worker: WorkerId,
        session: Option<SessionKey>,
        cause: CooldownCause,
    ) {
        let known = self.0.get(&(session, worker));
        if known.is_some_and(|known| !known.is_over && known.cause == cause) {
            return;
        }
        let length_ms = known.map_or(FIRST_MS, |known| (known.length_ms * 2).min(LAST_MS));
        let cooldown = Cooldown { until: now.after(length_ms), length_ms, is_over: false, cause };
        self.0.insert((session, worker), cooldown);
    }

    /// The cause of the present cooldown.
    pub fn cause(&self, worker: WorkerId, session: Option<SessionKey>) -> Option<CooldownCause> {
        self.0.get(&(session, worker)).filter(|known| !known.is_over).map(|known| known.cause)
    }

    pub fn forget(&mut self, worker: WorkerId) {
        self.0.retain(|(_, of), _| *of != worker);
    }

    /// Ends the cooldowns that are over by now; returns their workers.
    pub fn end(&mut self, now: Moment) -> Vec<WorkerId> {
        let mut ended = Vec::new();
        self.0.retain(|(_, worker), known| {
            if !known.is_over && known.until <= now {
                known.is_over = true;
                ended.push(*worker);
            }
            known.until.after(REMEMBERED_MS) > now
        });
        ended
    }

    /// The workers that have a cooldown for this session.
    pub fn workers(&self, session: Option<SessionKey>) -> impl Iterator<Item = WorkerId> {
        let of = self.0.range((session, WorkerId::MIN)..).take_while(move |((of, _), _)| *of == session);
        of.filter(|(_, known)| !known.is_over).map(|((_, worker), _)| *worker)
    }

    pub fn next_deadline(&self) -> Option<Moment> {
        let end =
            |known: &Cooldown| if known.is_over { known.until.after(REMEMBERED_MS) } else { known.until };
        self.0.values().map(end).min()
    }

    /// Forgets a cooldown of this cause; returns whether there was one.
    pub fn drop_cause(
        &mut self,
        worker: WorkerId,
        session: Option<SessionKey>,
        cause: CooldownCause,
    ) -> bool {
        let has = self.0.get(&(session, worker)).is_some_and(|known| known.cause == cause);
        has && self.0.remove(&(session, worker)).is_some()
    }
}
