//! Workers.

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
    Connected {
        until: Moment,
    },
    /// Not connected, with a lease that goes on.
    Away {
        until: Moment,
    },
    /// Connected, but without a lease and a live attempt after a long silence.
    Silent,
    /// Not connected, without a lease and a live attempt.
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
    /// The offer meets the requirement, whatever the worker does now.
    pub fits: bool,
    /// The slots that are counted for the requirement.
    pub slots: u16,
    /// The worker is counted among those with incidents.
    pub has_incidents: bool,
    /// The worker's part of the requirement's power.
    pub power: u64,
    /// The rank among the vacant workers.
    pub vacant: Option<Rank>,
}

/// The rank of a vacant worker: the least busy first, then the fastest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub busy: u16,
    /// Thousandths of the time that an average worker takes.
    pub slowness: u32,
}

#[derive(Debug)]
pub(crate) struct Worker {
    pub offer: WorkerOffer,
    pub desired: DesiredState,
    pub presence: Presence,
    /// At least as many as offered; those beyond still hold attempts and get no new ones.
    slots: Vec<Slot>,
    /// Changed only by [`super::State::update_streams`].
    pub streams: WorkerStreams,
    /// The match with each requirement, by its place.
    pub matches: Vec<Match>,
    pub speed: Speed,
    /// The incidents since the last delivery.
    pub incidents: Vec<Incident>,
    pub quarantined: Option<Quarantined>,
    /// The requirement that the worker is reserved for.
    pub reserved: Option<RequirementId>,
    /// The state that was last recorded.
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

    /// Sets the offer. `fits` returns for each requirement, by its place, whether the offer meets it.
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

    /// Drops empty slots that are not offered, and adds those that are.
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

    /// The slot, which is added if it is not there; `None` if no worker can have it.
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

    /// Takes a live attempt off its slot.
    pub fn detach(&mut self, slot: SlotIndex, attempt: AttemptId) {
        if let Some(slot) = self.slots.get_mut(usize::from(slot.0)) {
            slot.detach(attempt);
        }
    }

    pub fn fits(&self, requirement: RequirementId) -> bool {
        self.matches.get(requirement.0).is_some_and(|known| known.fits)
    }

    /// Returns whether the worker is available and not in quarantine.
    pub fn takes_work(&self) -> bool {
        self.is_probeable() && self.quarantined.is_none()
    }

    /// Returns whether the worker is connected, has a lease and is available.
    pub fn is_probeable(&self) -> bool {
        matches!(self.presence, Presence::Connected { .. }) && self.is_available()
    }

    /// Returns whether the worker should and can take work by its desired state and its own rules.
    pub fn is_available(&self) -> bool {
        self.desired == DesiredState::Active && !self.offer.unavailable
    }

    /// The live attempts on slots, and the streams.
    pub fn live(&self) -> impl Iterator<Item = AttemptId> {
        self.slots.iter().flat_map(Slot::live).chain(self.streams.live())
    }

    /// Returns whether the attempt is the probe of a quarantined worker.
    pub fn is_probe(&self, attempt: AttemptId) -> bool {
        self.quarantined.as_ref().is_some_and(|known| known.probe == Probe::Runs(attempt))
    }

    /// The steps in which deliveries of others may show that the worker is the origin of failures, if it has several
    /// incidents and is not in quarantine.
    pub fn suspected_in(&self) -> impl Iterator<Item = StepRef> {
        let is_suspected = self.incidents.len() >= 2 && self.quarantined.is_none();
        self.incidents.iter().filter(move |_| is_suspected).map(|incident| incident.task.into())
    }

    /// The offered slots that may get a first task.
    pub fn vacant_slots(&self) -> impl Iterator<Item = (SlotIndex, &Slot)> {
        let offered = self.slots.iter().take(usize::from(self.offer.slots)).enumerate();
        offered.filter(|(_, slot)| slot.is_vacant()).map(|(place, slot)| (SlotIndex(place as u16), slot))
    }

    /// Returns whether no slot but `except` is at work, and none streams.
    pub fn is_unclaimed(&self, except: Option<SlotIndex>) -> bool {
        self.at_work(except).next().is_none() && self.streams.is_empty()
    }

    /// The sum of the claims of streams and of slots at work but `except`.
    pub fn claimed(&self, except: Option<SlotIndex>) -> Claimed {
        let slots = self.claimed_by_slots(except);
        if self.streams.is_empty() { slots } else { claims::add(slots, Claim::memory(self.streams.memory())) }
    }

    /// The sum of the claims of slots at work but `except`.
    pub fn claimed_by_slots(&self, except: Option<SlotIndex>) -> Claimed {
        self.at_work(except).fold(None, |sum, slot| claims::add(sum, slot.claim))
    }

    fn at_work(&self, except: Option<SlotIndex>) -> impl Iterator<Item = &Slot> {
        let slots = self.slots.iter().enumerate();
        let others = slots.filter(move |(place, _)| except.is_none_or(|slot| usize::from(slot.0) != *place));
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

/// The slots of a worker, with their references.
pub(crate) fn slot_refs(id: WorkerId, worker: &Worker) -> impl Iterator<Item = (SlotRef, &Slot)> {
    worker.slots.iter().enumerate().map(move |(place, slot)| (SlotRef::new(id, place), slot))
}
