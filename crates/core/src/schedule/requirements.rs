//! The different requirements of steps, each with the workers that fit it and the steps that wait for it.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

use kiln_types::WorkerId;

use crate::{
    Requirement, WorkerOffer,
    ids::{MemberId, QueueKey, RequirementId, ServeOrder, StepRef},
    state::{Match, Rank},
};

/// The steps that wait for one requirement, in the order in which they are served.
#[derive(Debug, Default)]
pub(crate) struct ReadyQueue {
    levels: BTreeMap<Reverse<u8>, BTreeMap<MemberId, BTreeSet<ServeOrder>>>,
}

impl ReadyQueue {
    pub fn is_empty(&self) -> bool {
        self.levels.is_empty()
    }

    pub fn insert(&mut self, key: QueueKey, step: StepRef) {
        let members = self.levels.entry(Reverse(key.priority)).or_default();
        members.entry(key.member).or_default().insert(step.into());
    }

    pub fn remove(&mut self, key: QueueKey, step: StepRef) {
        let Some(members) = self.levels.get_mut(&Reverse(key.priority)) else { return };
        if members.get_mut(&key.member).is_some_and(|steps| steps.remove(&step.into()) && steps.is_empty()) {
            members.remove(&key.member);
        }
        if members.is_empty() {
            self.levels.remove(&Reverse(key.priority));
        }
    }

    /// The priorities of its steps, from the highest.
    pub fn priorities(&self) -> impl Iterator<Item = u8> {
        self.levels.keys().map(|level| level.0)
    }

    pub fn members(&self, priority: u8) -> impl Iterator<Item = MemberId> {
        self.levels.get(&Reverse(priority)).into_iter().flat_map(|level| level.keys().copied())
    }

    /// The next step of the key behind `last`, in [`ServeOrder`].
    pub fn after(&self, key: QueueKey, last: Option<StepRef>) -> Option<StepRef> {
        let steps = self.levels.get(&Reverse(key.priority))?.get(&key.member)?;
        let from = last.map_or(Bound::Unbounded, |last| Bound::Excluded(ServeOrder::from(last)));
        steps.range((from, Bound::Unbounded)).next().map(|step| (*step).into())
    }

    /// Every step with its member, from the highest priority.
    pub fn steps(&self) -> impl Iterator<Item = (MemberId, StepRef)> {
        let members = self.levels.values().flatten();
        members.flat_map(|(member, steps)| steps.iter().map(|step| (*member, (*step).into())))
    }

    pub fn contains(&self, key: QueueKey, step: StepRef) -> bool {
        let members = self.levels.get(&Reverse(key.priority));
        members.and_then(|members| members.get(&key.member)).is_some_and(|steps| steps.contains(&step.into()))
    }
}

/// A requirement with its counts and its queue.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    pub requirement: Requirement,
    /// The number of steps that have the requirement.
    steps: u32,
    /// The steps with waiting tasks that may run.
    pub ready: ReadyQueue,
    /// The workers that have a vacant slot with room for a task.
    pub vacant: BTreeSet<(Rank, WorkerId)>,
    /// The number of workers that fit and take work, busy or not.
    pub workers: u32,
    /// The number of their slots.
    pub slots: u32,
    /// The number of those workers with incidents.
    pub with_incidents: u32,
    /// The sum of the speeds of those slots, in thousandths, as of the last event of each worker.
    pub power: u64,
    /// The worker that takes no other work until there is room on it.
    pub reserved: Option<WorkerId>,
}

impl Entry {
    /// Counts the worker by its new relation to the requirement instead of the old one.
    pub fn recount(&mut self, id: WorkerId, old: Match, new: Match) {
        self.slots = self.slots - u32::from(old.slots) + u32::from(new.slots);
        self.workers = self.workers - u32::from(old.slots > 0) + u32::from(new.slots > 0);
        self.with_incidents =
            self.with_incidents - u32::from(old.has_incidents) + u32::from(new.has_incidents);
        self.power = self.power - old.power + new.power;
        if let Some(rank) = old.vacant {
            self.vacant.remove(&(rank, id));
        }
        self.vacant.extend(new.vacant.map(|rank| (rank, id)));
    }
}

/// The requirements of all steps. One that no step has is freed, and the next new one gets its place: there are never more
/// than those of the jobs at one time.
#[derive(Debug, Default)]
pub(crate) struct Requirements {
    entries: Vec<Entry>,
    known: BTreeMap<Requirement, RequirementId>,
    /// The requirements in use. Shared, so that entries may be changed during a walk over them.
    used: Arc<[RequirementId]>,
    /// The places without a requirement.
    free: BTreeSet<RequirementId>,
    /// The requirements that no step has and that may still have a queue.
    unused: BTreeSet<RequirementId>,
}

impl Requirements {
    /// The number of places, used or not.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn all(&self) -> impl Iterator<Item = RequirementId> + use<> {
        let used = self.used.clone();
        (0..used.len()).map(move |at| used[at])
    }

    /// For each place, whether the offer meets the requirement there.
    pub fn met_by(&self, offer: &WorkerOffer) -> Vec<bool> {
        let is_met = |id: RequirementId| !self.free.contains(&id) && self[id].requirement.is_met_by(offer);
        (0..self.len()).map(RequirementId).map(is_met).collect()
    }

    /// Counts one more step with the requirement; returns its place, and whether it is new.
    pub fn hold(&mut self, requirement: &Requirement) -> (RequirementId, bool) {
        if let Some(id) = self.known.get(requirement).copied() {
            self[id].steps += 1;
            self.unused.remove(&id);
            return (id, false);
        }
        let id = self.free.pop_first().unwrap_or_else(|| {
            self.entries.push(Entry::default());
            RequirementId(self.entries.len() - 1)
        });
        self.known.insert(requirement.clone(), id);
        self[id] = Entry { requirement: requirement.clone(), steps: 1, ..Entry::default() };
        self.list_used();
        (id, true)
    }

    /// Counts one step less with the requirement.
    pub fn release(&mut self, id: RequirementId) {
        let entry = &mut self[id];
        entry.steps = entry.steps.saturating_sub(1);
        if entry.steps == 0 {
            self.unused.insert(id);
        }
    }

    /// Frees the requirements that are not used, and returns their places.
    pub fn free_unused(&mut self) -> Vec<RequirementId> {
        let entries = &self.entries;
        let freed = self
            .unused
            .extract_if(.., |id| entries[id.0].ready.is_empty() && entries[id.0].reserved.is_none());
        let freed: Vec<RequirementId> = freed.collect();
        for id in &freed {
            self.known.remove(&std::mem::take(&mut self.entries[id.0]).requirement);
        }
        self.free.extend(&freed);
        if !freed.is_empty() {
            self.list_used();
        }
        freed
    }

    fn list_used(&mut self) {
        self.used = (0..self.entries.len()).map(RequirementId).filter(|id| !self.free.contains(id)).collect();
    }

    /// Panics where steps are miscounted, or a requirement is kept that no step has. For tests.
    pub fn check(&self, steps: &BTreeMap<RequirementId, u32>) {
        assert_eq!(self.known.len(), self.used.len(), "known requirements are not those in use");
        for id in self.all() {
            let held = steps.get(&id).copied().unwrap_or(0);
            assert_eq!(self.entries[id.0].steps, held, "{id:?} miscounts its steps");
            assert_eq!(self.unused.contains(&id), held == 0, "{id:?} is kept for nothing");
        }
        assert!(steps.keys().all(|id| !self.free.contains(id)), "a step has a requirement that was freed");
    }
}

impl std::ops::Index<RequirementId> for Requirements {
    type Output = Entry;
    fn index(&self, id: RequirementId) -> &Entry {
        &self.entries[id.0]
    }
}

impl std::ops::IndexMut<RequirementId> for Requirements {
    fn index_mut(&mut self, id: RequirementId) -> &mut Entry {
        &mut self.entries[id.0]
    }
}
