//! Cooldowns of workers that do not take what they are given.
//!
//! A worker that returns work at once, or fails before Blender has begun, would get it again at once, and again, as
//! fast as the network allows. So it gets nothing more of that session for a while, which doubles each time. Cooldowns
//! do not survive a restart: the first refusal after it begins with the shortest.

use kiln_types::{SessionKey, WorkerId};

use crate::{Core, Moment, state::CooldownCause};

impl Core {
    /// Ends a cooldown of this cause: a start ends refusals, and what Blender has worked on ends faults.
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

    /// Ends the cooldowns that are over by now; their workers are looked at again.
    pub(crate) fn end_cooldowns(&mut self, now: Moment) {
        let ended = self.cooldowns.end(now);
        self.state.changed_workers.extend(ended);
    }
}
