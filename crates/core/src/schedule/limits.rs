//! Farm-wide limits, such as licences.

use std::collections::BTreeMap;

use super::indexes::FarmLimit;
use crate::{Core, ids::SlotRef};

impl Core {
    /// Sets the total of a limit, which is 0 until then.
    pub fn set_limit(&mut self, name: &str, total: u32) {
        let limit = self.limits.entry(name.to_owned()).or_default();
        limit.total = total;
        self.drop_unused_limit(name);
        self.look_again();
    }

    /// Counts what the slot holds of limits: the requirements of its steps, and as long as it waits for the report of a
    /// revoked attempt what it held before, because a Blender that is being killed still has its licence. A worker whose
    /// lease has expired holds nothing.
    pub(crate) fn recount_limits(&mut self, of: SlotRef) {
        let slot = self.state.slot(of);
        let mut now: BTreeMap<String, u32> = BTreeMap::new();
        let steps = slot.counted.iter().filter_map(|step| self.state.find_step(*step));
        for (name, count) in steps.flat_map(|step| &step.plan.requires.limits) {
            *now.entry(name.clone()).or_default() += count;
        }
        let is_expired = self.state.worker(of.worker).presence.lease_end().is_none();
        if !slot.closing().is_empty() && !is_expired {
            for (name, count) in &slot.limits {
                let held = now.entry(name.clone()).or_default();
                *held = (*held).max(*count);
            }
        }
        if slot.limits == now {
            return;
        }
        let before = std::mem::replace(&mut self.state.slot_mut(of).limits, now.clone());
        for (name, count) in now {
            self.limits.entry(name).or_default().used += count;
        }
        for (name, count) in &before {
            if let Some(limit) = self.limits.get_mut(name) {
                limit.used = limit.used.saturating_sub(*count);
                self.drop_unused_limit(name);
            }
        }
        if !before.is_empty() {
            self.look_again();
        }
    }

    fn drop_unused_limit(&mut self, name: &str) {
        if self.limits.get(name) == Some(&FarmLimit::default()) {
            self.limits.remove(name);
        }
    }
}
