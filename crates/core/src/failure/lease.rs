//! Workers whose leases expire.

use std::collections::BTreeSet;

use kiln_types::{AttemptId, WorkerId};

use crate::{
    Core, Moment, Outbox,
    state::{Presence, Slot},
};

impl Core {
    /// Ends every live attempt of a worker whose lease has expired, or that is removed; their tasks wait. `counts`: the
    /// loss counts against the tasks that may have caused it.
    pub(crate) fn expire_worker(&mut self, now: Moment, id: WorkerId, counts: bool, out: &mut impl Outbox) {
        let worker = self.state.worker_mut(id);
        worker.presence = match worker.presence {
            Presence::Connected { .. } | Presence::Silent => Presence::Silent,
            Presence::Away { .. } | Presence::Offline => Presence::Offline,
        };
        let live: Vec<AttemptId> = worker.live().collect();
        let suspects = if counts { self.suspects(id) } else { BTreeSet::new() };
        self.state.touch(id);
        self.note_loss(now, id, &suspects.iter().copied().collect::<Vec<_>>(), out);
        for attempt in live {
            self.attempt_unfinished(attempt, suspects.contains(&attempt), true, out);
        }
        let worker = self.state.worker_mut(id);
        if worker.presence == Presence::Offline {
            self.state.forget_reports(id).resize();
        }
    }

    /// The attempts that count as losses if the worker is lost now: on each slot the one that ran or was next, because
    /// loading a scene can kill a machine too. An attempt of an earlier epoch that never began does not count: the server
    /// may have died before it was sent.
    pub(crate) fn suspects(&self, id: WorkerId) -> BTreeSet<AttemptId> {
        let slots = self.state.find_worker(id).into_iter().flat_map(|worker| worker.slots());
        let may_count = |id: &AttemptId| id.epoch == self.epoch || self.state.attempt(*id).phase.has_begun();
        slots.flat_map(Slot::foremost).filter(may_count).collect()
    }
}
