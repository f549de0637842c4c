//! The claim of a slot on its machine for a requirement.

use crate::{Claim, GpuSet, Gpus, Requirement, Room, WorkerOffer};

impl Requirement {
    /// Returns whether a worker with nothing else to do meets the requirement. An amount that its offer does not tell
    /// suffices.
    pub fn is_met_by(&self, offer: &WorkerOffer) -> bool {
        let Room { cores, memory, gpus, .. } = self.room;
        let has = |offered: u64, needed: u64| offered == 0 || needed <= offered;
        self.labels.is_subset(&offer.labels)
            && offer.slots > 0
            && has(u64::from(offer.cores), u64::from(cores))
            && has(offer.memory, memory)
            && choose_gpus(&offer.gpus, GpuSet::default(), gpus).is_some()
    }
}

/// The sum of the claims of some slots of a worker; `None` if there is no such slot.
pub(crate) type Claimed = Option<Claim>;

pub(crate) fn add(sum: Claimed, claim: Claim) -> Claimed {
    let sum = sum.unwrap_or_default();
    Some(Claim {
        cores: sum.cores.saturating_add(claim.cores),
        memory: sum.memory.saturating_add(claim.memory),
        gpus: GpuSet(sum.gpus.0 | claim.gpus.0),
    })
}

/// The claim of a slot for this room, beside the claims of the worker's other slots; `None` where too little is left.
pub(crate) fn claim(offer: &WorkerOffer, beside: Claimed, room: Room) -> Option<Claim> {
    if room.whole && beside.is_some() {
        return None;
    }
    let used = beside.unwrap_or_default();
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
    let memory = if room.whole { offer.memory } else { stream_memory(offer, room) };
    if !has_memory(offer, used.memory, memory) {
        return None;
    }
    let gpus = choose_gpus(&offer.gpus, used.gpus, room.gpus)?;
    Some(Claim { cores, memory, gpus })
}

/// Returns whether this much memory of the worker is free; bytes.
pub(crate) fn has_memory(offer: &WorkerOffer, used: u64, memory: u64) -> bool {
    offer.memory == 0 || used < offer.memory && memory <= offer.memory - used
}

/// The memory of a stream that requires this room, and of a slot that shares its machine; bytes.
pub(crate) fn stream_memory(offer: &WorkerOffer, room: Room) -> u64 {
    let most = if offer.memory > 0 { offer.memory } else { u64::MAX };
    room.memory.max(room.learned.min(most))
}

/// The most that a slot may hold for this room, where its claim is not known.
pub(crate) fn largest_claim(offer: &WorkerOffer, room: Room) -> Claim {
    let share = offer.cores / u32::from(offer.slots.max(1));
    let cores = if room.whole { offer.cores } else { room.cores.max(share) };
    let memory = if room.whole { offer.memory } else { room.memory.max(room.learned.min(offer.memory)) };
    let gpus = match room.gpus {
        Gpus::None => GpuSet::default(),
        Gpus::Some { memory, .. } | Gpus::All { memory } => {
            choose_gpus(&offer.gpus, GpuSet::default(), Gpus::All { memory }).unwrap_or_default()
        }
    };
    Claim { cores, memory, gpus }
}

/// Chooses GPUs from those offered; `None` if there are not enough.
fn choose_gpus(offered: &[u64], used: GpuSet, wanted: Gpus) -> Option<GpuSet> {
    let large_enough = |least: u64| {
        let offered = offered.iter().take(WorkerOffer::MAX_GPUS).enumerate();
        offered.filter(move |(_, memory)| **memory == 0 || **memory >= least).map(|(index, _)| 1u64 << index)
    };
    match wanted {
        Gpus::None => Some(GpuSet::default()),
        Gpus::Some { count, memory } => {
            let free: Vec<u64> = large_enough(memory).filter(|bit| used.0 & bit == 0).collect();
            let taken = free.get(..usize::from(count.get()))?;
            Some(GpuSet(taken.iter().fold(0, |set, bit| set | bit)))
        }
        Gpus::All { memory } => {
            let all = large_enough(memory).fold(0, |set, bit| set | bit);
            (all != 0 && all & used.0 == 0).then_some(GpuSet(all))
        }
    }
}
