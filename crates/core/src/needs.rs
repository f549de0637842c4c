//! Every different requirement of a step, once: who could meet it, who can now, and which steps wait for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kiln_types::WorkerId;

use crate::{Claim, GpuSet, Gpus, Requirement, Room, WorkerOffer, ready::Ready, worker::Worker};

/// A requirement, by its place in [`Needs`]: steps that need the same share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Need(pub usize);

/// Which of several vacant workers is asked first: the least busy, then the fastest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub busy: u16,
    /// Thousandths of the time that a middling worker takes.
    pub slowness: u32,
}

#[derive(Debug, Default)]
pub(crate) struct NeedState {
    pub requirement: Requirement,
    /// Steps that have it, whatever they do.
    steps: u32,
    /// Steps with waiting tasks that may run.
    pub ready: Ready,
    /// Workers that could take one of those tasks now on a slot that does nothing.
    pub vacant: BTreeSet<(Rank, WorkerId)>,
    /// Workers that fit and take work, busy or not, and their slots.
    pub willing: u32,
    pub slots: u32,
    /// How many of those workers something went wrong on since they last delivered.
    pub struck: u32,
    /// Of those slots, the speeds together; thousandths. As of the last event of each worker.
    pub power: u64,
    /// A worker that takes nothing else until there is room on it for this.
    pub reserved: Option<WorkerId>,
}

impl NeedState {
    /// The worker stands otherwise to the need than it did.
    pub fn moved(&mut self, id: WorkerId, old: Standpoint, new: Standpoint) {
        self.slots = self.slots - u32::from(old.slots) + u32::from(new.slots);
        self.willing = self.willing - u32::from(old.slots > 0) + u32::from(new.slots > 0);
        self.struck = self.struck - u32::from(old.struck) + u32::from(new.struck);
        self.power = self.power - old.power + new.power;
        if let Some(rank) = old.vacant {
            self.vacant.remove(&(rank, id));
        }
        if let Some(rank) = new.vacant {
            self.vacant.insert((rank, id));
        }
    }
}

/// What a worker is for a need.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Standpoint {
    /// It has what is needed, whatever it does now.
    pub fits: bool,
    /// The slots by which it is counted in [`NeedState::slots`]; 0 where it is not counted.
    pub slots: u16,
    /// It is counted in [`NeedState::struck`].
    pub struck: bool,
    /// Its part of [`NeedState::power`].
    pub power: u64,
    pub vacant: Option<Rank>,
}

/// The needs of all steps. One that no step has any more is freed, and its place goes to the next new one: a farm that
/// runs for years keeps as many as it has jobs at once.
#[derive(Debug)]
pub(crate) struct Needs {
    list: Vec<NeedState>,
    known: BTreeMap<Requirement, Need>,
    /// Those in use, in their order. Shared, so that whoever walks them may change what stands there.
    used: Arc<[Need]>,
    /// Places that nothing uses.
    free: BTreeSet<Need>,
    /// Needs of which the last step is gone, and that may still be on a shelf.
    unused: BTreeSet<Need>,
}

impl Default for Needs {
    fn default() -> Self {
        Self {
            list: Vec::new(),
            known: BTreeMap::new(),
            used: Arc::from([]),
            free: BTreeSet::new(),
            unused: BTreeSet::new(),
        }
    }
}

impl Needs {
    /// The places that there are, used or not.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    pub fn all(&self) -> impl Iterator<Item = Need> + use<> {
        let used = self.used.clone();
        (0..used.len()).map(move |at| used[at])
    }

    pub fn find(&self, requirement: &Requirement) -> Option<Need> {
        self.known.get(requirement).copied()
    }

    /// A need that is not known yet, and that no step has yet.
    pub fn add(&mut self, requirement: &Requirement) -> Need {
        let need = self.free.pop_first().unwrap_or_else(|| {
            self.list.push(NeedState::default());
            Need(self.list.len() - 1)
        });
        self.known.insert(requirement.clone(), need);
        self.list[need.0] = NeedState { requirement: requirement.clone(), ..NeedState::default() };
        self.unused.insert(need);
        self.list_used();
        need
    }

    /// One more step has it.
    pub fn hold(&mut self, need: Need) {
        self.list[need.0].steps += 1;
        self.unused.remove(&need);
    }

    /// One step less has it.
    pub fn release(&mut self, need: Need) {
        let state = &mut self.list[need.0];
        state.steps = state.steps.saturating_sub(1);
        if state.steps == 0 {
            self.unused.insert(need);
        }
    }

    /// Frees the needs that nothing has any more; those that were freed.
    pub fn free_unused(&mut self) -> Vec<Need> {
        let is_free = |need: &Need| {
            let state = &self.list[need.0];
            state.ready.is_empty() && state.reserved.is_none()
        };
        let freed: Vec<Need> = self.unused.iter().copied().filter(is_free).collect();
        for need in &freed {
            self.unused.remove(need);
            let state = std::mem::take(&mut self.list[need.0]);
            self.known.remove(&state.requirement);
            self.free.insert(*need);
        }
        if !freed.is_empty() {
            self.list_used();
        }
        freed
    }

    fn list_used(&mut self) {
        self.used = (0..self.list.len()).map(Need).filter(|need| !self.free.contains(need)).collect();
    }

    /// Panics where steps are miscounted, or what none has is kept. For tests.
    pub fn check(&self, steps: &BTreeMap<Need, u32>) {
        assert_eq!(
            self.known.len(),
            self.used.len(),
            "a need is known that is in no use, or the other way round"
        );
        for need in self.all() {
            let held = steps.get(&need).copied().unwrap_or(0);
            assert_eq!(self.list[need.0].steps, held, "{need:?} miscounts its steps");
            assert_eq!(self.unused.contains(&need), held == 0, "{need:?} is kept for nothing");
        }
        assert!(steps.keys().all(|need| !self.free.contains(need)), "a step has a need that was freed");
    }
}

impl std::ops::Index<Need> for Needs {
    type Output = NeedState;
    fn index(&self, need: Need) -> &NeedState {
        &self.list[need.0]
    }
}

impl std::ops::IndexMut<Need> for Needs {
    fn index_mut(&mut self, need: Need) -> &mut NeedState {
        &mut self.list[need.0]
    }
}

/// Whether the worker, with nothing else to do, meets the requirement. What an offer does not tell is enough.
pub(crate) fn fits(offer: &WorkerOffer, requirement: &Requirement) -> bool {
    let Room { cores, memory, gpus, .. } = requirement.room;
    let has = |offered: u64, needed: u64| offered == 0 || needed <= offered;
    requirement.labels.is_subset(&offer.labels)
        && offer.slots > 0
        && has(u64::from(offer.cores), u64::from(cores))
        && has(offer.memory, memory)
        && chosen(&offer.gpus, GpuSet::default(), gpus).is_some()
}

/// What a slot would claim for this room beside the other slots of the worker that are at work; `None` where there
/// is not enough left.
pub(crate) fn claim(worker: &Worker, beside: &[Claim], room: Room) -> Option<Claim> {
    let offer = &worker.offer;
    if room.whole && !beside.is_empty() {
        return None;
    }
    let used = beside.iter().fold(Claim::default(), |sum, claim| Claim {
        cores: sum.cores.saturating_add(claim.cores),
        memory: sum.memory.saturating_add(claim.memory),
        gpus: GpuSet(sum.gpus.0 | claim.gpus.0),
    });
    let share = (offer.cores / u32::from(offer.slots.max(1))).max(u32::from(offer.cores > 0));
    let free = offer.cores.saturating_sub(used.cores);
    let cores = match room {
        Room { whole: true, .. } => offer.cores,
        Room { cores: 0, .. } => share.min(free),
        Room { cores, .. } => cores,
    };
    if offer.cores > 0 && (cores > free || cores == 0) {
        return None;
    }
    let memory = match room.whole {
        true => offer.memory,
        false if offer.memory > 0 => room.memory.max(room.learned.min(offer.memory)),
        false => room.memory.max(room.learned),
    };
    let full = used.memory >= offer.memory || memory > offer.memory - used.memory;
    if offer.memory > 0 && full {
        return None;
    }
    let gpus = chosen(&offer.gpus, used.gpus, room.gpus)?;
    Some(Claim { cores, memory, gpus })
}

/// What a slot may hold that was given something for this room, nobody knows beside what.
pub(crate) fn most_claimed(offer: &WorkerOffer, room: Room) -> Claim {
    let share = offer.cores / u32::from(offer.slots.max(1));
    let memory = if room.whole { offer.memory } else { room.memory.max(room.learned.min(offer.memory)) };
    let all = |gpus: Gpus| match gpus {
        Gpus::None => GpuSet::default(),
        Gpus::Some { memory, .. } | Gpus::All { memory } => {
            chosen(&offer.gpus, GpuSet::default(), Gpus::All { memory }).unwrap_or_default()
        }
    };
    let cores = if room.whole { offer.cores } else { room.cores.max(share) };
    Claim { cores, memory, gpus: all(room.gpus) }
}

/// The GPUs that would be taken.
fn chosen(offered: &[u64], used: GpuSet, wanted: Gpus) -> Option<GpuSet> {
    let enough = |least: u64| {
        let offered = offered.iter().take(WorkerOffer::MAX_GPUS).enumerate();
        offered.filter(move |(_, memory)| **memory == 0 || **memory >= least).map(|(index, _)| 1u64 << index)
    };
    match wanted {
        Gpus::None => Some(GpuSet::default()),
        Gpus::Some { count, memory } => {
            let free: Vec<u64> = enough(memory).filter(|bit| used.0 & bit == 0).collect();
            let taken = free.get(..usize::from(count.get()))?;
            Some(GpuSet(taken.iter().fold(0, |set, bit| set | bit)))
        }
        Gpus::All { memory } => {
            let all = enough(memory).fold(0, |set, bit| set | bit);
            (all != 0 && all & used.0 == 0).then_some(GpuSet(all))
        }
    }
}
