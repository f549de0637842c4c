//! Hang timeouts: an attempt is ended whose Blender does nothing, or works for a day without a sign of progress. A frame
//! that takes longer than others is only shown as slow.

use kiln_types::{AttemptId, Failure, FailureCause, WorkerId, duration::rough};

use crate::{Core, Moment, Outbox, Push, RevokeReason};

impl Core {
    /// Watches an attempt that runs from now on.
    pub(crate) fn begin_time_limit(&mut self, now: Moment, id: AttemptId) {
        self.time_limits.begin(now, id, self.hang_ms(id).min(self.config.stall_ms));
    }

    /// Watches the attempts that the worker's slots run, and no others of it.
    pub(crate) fn sync_time_limits(&mut self, now: Moment, id: WorkerId) {
        let live: Vec<AttemptId> = self.state.worker(id).live().collect();
        for attempt in live {
            if !self.state.attempt(attempt).phase.is_running() {
                self.time_limits.end(attempt);
            } else if !self.time_limits.is_watched(attempt) {
                self.begin_time_limit(now, attempt);
            }
        }
    }

    /// Revokes and fails the attempts that hang.
    pub(crate) fn end_hanging(&mut self, now: Moment, out: &mut impl Outbox) {
        while let Some((id, signs)) = self.time_limits.pop(now) {
            let idle_at = signs.worked.after(self.hang_ms(id));
            let stalled_at = signs.moved.after(self.config.stall_ms);
            let what = if idle_at <= now {
                let time = rough(seconds(now.since(signs.worked)));
                format!("it was stopped: its Blender had done nothing, and reported nothing, for {time}")
            } else if stalled_at <= now {
                let time = rough(seconds(now.since(signs.moved)));
                format!(
                    "it was stopped: its Blender had worked for {time} and shown nothing for it: no sample, no message, no \
                     byte"
                )
            } else {
                self.time_limits.look_again(id, idle_at.min(stalled_at));
                continue;
            };
            debug_assert!(self.state.attempt(id).phase.is_running());
            let Some(of) = self.state.attempt(id).place() else { continue };
            // The slot stays closed until the worker has stopped the attempt.
            self.state.slot_mut(of).close(id);
            self.push(of.worker, Push::Revoke { attempt: id, why: RevokeReason::TimedOut }, out);
            self.attempt_failed(now, id, Failure::new(FailureCause::TimedOut, what), out);
        }
    }

    /// Milliseconds without work of its Blender after which the attempt hangs.
    fn hang_ms(&self, id: AttemptId) -> u64 {
        let step = self.state.step(self.state.attempt(id).task);
        step.plan.hang_ms.unwrap_or(self.config.hang_ms).max(1)
    }
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}
