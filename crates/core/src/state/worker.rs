//! The workers.

use kiln_types::{AttemptId, DesiredState, SlotIndex, WorkerId, WorkerState};

use super::{
    incident::{Incident, Probe, Quarantined},
    slot::Slot,
    streams::WorkerStreams,
};
use crate::{
    Claim, Moment, WorkerOffer,
    claims::{self, Claimed},
    estimate::speed::Speed,
    ids::{RequirementId, SlotRef, StepRef},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    /// Connected.
    Connected { until: Moment },
    /// Its connection is lost; its lease goes on.
    Away { until: Moment },
    /// Connected, but silent for so long that its lease expired. It holds no live attempt.
    Silent,
    /// It holds no live attempt.
    Offline,
}

impl Presence {
    pub fn lease_end(self) -> Option<Moment> {
        match self {
            Self::Connected { until } | Self::Away { until } => Some(until),
            Self::Silent | Self::Offline => None,
        }
    }

    pub fn is_connected(self) -> bool {
        matches!(self, Self::Connected { .. } | Self::Silent)
    }
}

/// The relation of a worker to a requirement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Match {
    /// It has what is required, whatever it does now.
    pub fits: bool,
    /// The slots by which it is counted for the requirement; 0 where it is not counted.
    pub slots: u16,
    /// It is counted among those with incidents.
    pub has_incidents: bool,
    /// Its part of the requirement's power.
    pub power: u64,
    /// Its rank among the vacant workers, where it is one.
    pub vacant: Option<Rank>,
}

/// The order in which vacant workers are asked: the least busy first, then the fastest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub busy: u16,
    /// Thousandths of the time that a middling worker takes.
    pub slowness: u32,
}

#[derive(Debug)]
pub(crate) struct Worker {
    pub offer: WorkerOffer,
    pub desired: DesiredState,
    pub presence: Presence,
    /// At least as many as offered; those beyond still hold attempts and get nothing new.
    slots: Vec<Slot>,
    /// To be changed by [`super::State::update_streams`].
    pub streams: WorkerStreams,
    /// By requirement.
    pub matches: Vec<Match>,
    pub speed: Speed,
    /// Its incidents since it last delivered.
    pub incidents: Vec<Incident>,
    pub quarantined: Option<Quarantined>,
    /// It takes nothing else until there is room for this.
    pub reserved: Option<RequirementId>,
    /// As last recorded.
    pub state: WorkerState,
}

impl Worker {
    /// A worker of which only the id is known.
    pub fn unknown() -> Self {
        Self {
            offer: WorkerOffer::default(),
            desired: DesiredState::Active,
            presence: Presence::Offline,
            slots: Vec::new(),
            streams: WorkerStreams::default(),
            matches: Vec::new(),
            speed: Speed::default(),
            incidents: Vec::new(),
            quarantined: None,
            reserved: None,
            state: WorkerState::Offline,
        }
    }

    /// Sets the offer. `fits` says for each requirement, by its place, whether the offer meets it.
    pub fn set_offer(&mut self, mut offer: WorkerOffer, fits: impl Fn(&WorkerOffer) -> Vec<bool>) {
        offer.slots = offer.slots.min(WorkerOffer::MAX_SLOTS);
        let fits = fits(&offer);
        self.matches.resize_with(fits.len(), Match::default);
        for (known, fits) in self.matches.iter_mut().zip(fits) {
            known.fits = fits;
        }
        self.offer = offer;
        self.resize();
    }

    /// Drops slots that are no longer offered and hold nothing; adds those that are.
    pub fn resize(&mut self) {
        let offered = usize::from(self.offer.slots);
        while self.slots.len() > offered && self.slots.last().is_some_and(Slot::is_empty) {
            self.slots.pop();
        }
        self.slots.resize_with(self.slots.len().max(offered), Slot::default);
    }

    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    pub fn slots_mut(&mut self) -> &mut [Slot] {
        &mut self.slots
    }

    pub fn slot(&self, slot: SlotIndex) -> Option<&Slot> {
        self.slots.get(usize::from(slot.0))
    }

    /// The slot, made if the worker has fewer; `None` where nobody could offer it.
    pub fn slot_mut(&mut self, slot: SlotIndex) -> Option<&mut Slot> {
        if slot.0 >= WorkerOffer::MAX_SLOTS {
            return None;
        }
        let place = usize::from(slot.0);
        if place >= self.slots.len() {
            self.slots.resize_with(place + 1, Slot::default);
        }
        self.slots.get_mut(place)
    }

    /// Takes a live attempt off its slot, where that is still there.
    pub fn detach(&mut self, slot: SlotIndex, attempt: AttemptId) {
        if let Some(slot) = self.slots.get_mut(usize::from(slot.0)) {
            slot.detach(attempt);
        }
    }

    pub fn fits(&self, requirement: RequirementId) -> bool {
        self.matches.get(requirement.0).is_some_and(|known| known.fits)
    }

    /// Returns whether it may be given work, as far as the worker itself goes. One in quarantine is only probed.
    pub fn takes_work(&self) -> bool {
        self.is_probeable() && self.quarantined.is_none()
    }

    /// Returns whether it is connected, and available for work.
    pub fn is_probeable(&self) -> bool {
        matches!(self.presence, Presence::Connected { .. }) && self.is_available()
    }

    /// Returns whether the farm and the worker itself want it to work.
    pub fn is_available(&self) -> bool {
        self.desired == DesiredState::Active && !self.offer.unavailable
    }

    /// The live attempts on its slots, and those that stream.
    pub fn live(&self) -> impl Iterator<Item = AttemptId> {
        self.slots.iter().flat_map(Slot::live).chain(self.streams.live())
    }

    /// Returns whether the attempt is the probe of a quarantined worker.
    pub fn is_probe(&self, attempt: AttemptId) -> bool {
        self.quarantined.as_ref().is_some_and(|known| known.probe == Probe::Runs(attempt))
    }

    /// The steps in which deliveries of others may show that it is the origin of failures: it has several incidents and
    /// is not in quarantine.
    pub fn suspected_in(&self) -> impl Iterator<Item = StepRef> {
        let is_suspected = self.incidents.len() >= 2 && self.quarantined.is_none();
        self.incidents.iter().filter(move |_| is_suspected).map(|incident| incident.task.into())
    }

    /// The offered slots that do nothing.
    pub fn vacant_slots(&self) -> impl Iterator<Item = (SlotIndex, &Slot)> {
        let offered = self.slots.iter().take(usize::from(self.offer.slots)).enumerate();
        offered.filter(|(_, slot)| slot.is_vacant()).map(|(place, slot)| (SlotIndex(place as u16), slot))
    }

    /// Returns whether no slot but this one is at work, and nothing streams.
    pub fn is_unclaimed(&self, but: Option<SlotIndex>) -> bool {
        self.at_work(but).next().is_none() && self.streams.is_empty()
    }

    /// The claims of its slots at work together, but for this one, and of its streams.
    pub fn claimed(&self, but: Option<SlotIndex>) -> Claimed {
        let slots = self.claimed_by_slots(but);
        if self.streams.is_empty() { slots } else { claims::add(slots, Claim::memory(self.streams.memory())) }
    }

    /// The claims of its slots at work together, but for this one.
    pub fn claimed_by_slots(&self, but: Option<SlotIndex>) -> Claimed {
        self.at_work(but).fold(None, |sum, slot| claims::add(sum, slot.claim))
    }

    fn at_work(&self, but: Option<SlotIndex>) -> impl Iterator<Item = &Slot> {
        let slots = self.slots.iter().enumerate();
        let others = slots.filter(move |(place, _)| but.is_none_or(|but| usize::from(but.0) != *place));
        others.map(|(_, slot)| slot).filter(|slot| slot.is_at_work())
    }

    pub fn state(&self) -> WorkerState {
        match (self.presence, self.desired) {
            (Presence::Silent | Presence::Offline, _) => WorkerState::Offline,
            (_, DesiredState::Paused) => WorkerState::Paused,
            (_, DesiredState::Draining | DesiredState::Stopped) => WorkerState::Draining,
            (_, DesiredState::Active) if self.offer.unavailable => WorkerState::Unavailable,
            (_, DesiredState::Active) if self.quarantined.is_some() => WorkerState::Quarantined,
            (_, DesiredState::Active) if self.slots.iter().all(Slot::is_empty) && self.streams.is_empty() => {
                WorkerState::Idle
            }
            (_, DesiredState::Active) => WorkerState::Rendering,
        }
    }
}

/// The slots of a worker, with their names.
pub(crate) fn slot_refs(id: WorkerId, worker: &Worker) -> impl Iterator<Item = (SlotRef, &Slot)> {
    worker.slots.iter().enumerate().map(move |(place, slot)| (SlotRef::new(id, place), slot))
}
