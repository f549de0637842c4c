//! Cooldowns of workers that refuse assignments.
//!
//! A worker that returns work at once, or fails before Blender has begun, would get it again as fast as the network
//! allows. So it gets no work of that session during a cooldown, which doubles each time. Cooldowns do not survive a
//! restart.

use kiln_types::{SessionKey, WorkerId};

use crate::{Core, Moment, state::CooldownCause};

impl Core {
    /// Ends a cooldown of this cause: the start of an attempt ends one for refusals, a report from Blender one for faults.
    pub(crate) fn end_cooldown(
        &mut self,
        worker: WorkerId,
        session: Option<SessionKey>,
        cause: CooldownCause,
    ) {
        if self.cooldowns.drop_cause(worker, session, cause) {
            self.state.changed_workers.insert(worker);
        }
    }

    /// Ends the cooldowns that are over by now.
    pub(crate) fn end_cooldowns(&mut self, now: Moment) {
        let ended = self.cooldowns.end(now);
        self.state.changed_workers.extend(ended);
    }
}
