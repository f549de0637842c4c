//! A worker, its slots, and attempts.

use std::{
    collections::{BTreeMap, VecDeque},
    num::NonZeroU32,
};

use kiln_types::{AttemptId, Generation, SessionKey, SlotIndex, TaskId, WorkerId, WorkerState, WorkerWish};

use crate::{
    Claim, HeldPhase, Moment, WorkerOffer,
    attempt_table::AttemptTable,
    health::{Sick, Strike},
    needs::{self, Need, Needs, Standpoint},
    ready::StepId,
};

/// One run of one task on one slot.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub task: TaskId,
    pub worker: WorkerId,
    pub generation: Generation,
    pub slot: SlotIndex,
    pub phase: AttemptPhase,
    /// What its account was charged for it when it was handed out; milliseconds.
    pub charged_ms: u32,
    /// Its slot had to open the scene first: its time tells little of the frames.
    pub cold: bool,
    /// What its frame takes once the scene is open, as its own progress foretells; milliseconds.
    pub frame_ms: Option<NonZeroU32>,
    /// What its Blender said first of how far the frame had come.
    pub told: Option<Told>,
}

/// How far a frame had come when, as its Blender said.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told {
    /// Milliseconds since it began, once the scene was open.
    pub after: NonZeroU32,
    /// Above 0 and below 1.
    pub part: f32,
}

/// A million of these may be in flight on a large farm.
const _: () = assert!(size_of::<Attempt>() <= 64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AttemptPhase {
    /// In its slot's queue. `recalled`: asked back, not yet answered.
    Assigned { recalled: bool },
    /// At the front of its slot's queue.
    Running { since: Moment },
    /// It has left Blender; its report follows. The slot is free for the next.
    Delivering,
    /// Closed, its task not its own any more. Should it deliver while its generation is still open, that
    /// counts. `counted`: as a lapse against the task.
    Late { counted: bool, was: HeldPhase },
}

impl AttemptPhase {
    pub fn is_live(self) -> bool {
        !matches!(self, Self::Late { .. })
    }

    pub fn has_begun(self) -> bool {
        matches!(self, Self::Running { .. } | Self::Delivering)
    }

    pub fn held(self) -> HeldPhase {
        match self {
            Self::Assigned { .. } => HeldPhase::Queued,
            Self::Running { .. } => HeldPhase::Running,
            Self::Delivering => HeldPhase::Finished,
            Self::Late { was, .. } => was,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    /// Connected.
    Here { until: Moment },
    /// Its connection is lost; its lease goes on.
    Away { until: Moment },
    /// Connected, but silent for so long that its lease ran out. Holds no live attempt.
    Silent,
    /// Holds no live attempt.
    Offline,
}

impl Presence {
    pub fn lease_end(self) -> Option<Moment> {
        match self {
            Self::Here { until } | Self::Away { until } => Some(until),
            Self::Silent | Self::Offline => None,
        }
    }

    pub fn is_connected(self) -> bool {
        matches!(self, Self::Here { .. } | Self::Silent)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Slot {
    /// Live attempts in the order in which they run; only the front one may be running.
    pub queue: VecDeque<AttemptId>,
    /// Rendered, being uploaded.
    pub delivering: Vec<AttemptId>,
    /// Revoked or lapsed, and perhaps still in the worker's Blender or queue: until each is reported closed,
    /// the slot gets no new work.
    pub closing: Vec<AttemptId>,
    /// What its warm process holds when it has worked off its queue.
    pub session: Option<SessionKey>,
    /// What a frame of that session takes here, smoothed; milliseconds, at least 1.
    pub frame_ms: Option<u32>,
    /// The step that it was given work of last.
    pub last: Option<StepId>,
    /// What it holds of the machine while it has a queue.
    pub claim: Claim,
    /// Nobody remembers what it was given: it is taken to hold as much as it could.
    pub claim_guessed: bool,
    /// The steps by which it is counted as at work ([`crate::Core::reindex`]).
    pub counted: Vec<StepId>,
    /// What it holds of limits, by name.
    pub limits: BTreeMap<String, u32>,
}

impl Slot {
    /// Also of what it is counted for: that is let go of when the indexes are brought up to date.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
            && self.delivering.is_empty()
            && self.closing.is_empty()
            && self.counted.is_empty()
            && self.limits.is_empty()
    }

    /// Puts an attempt that is said to run at the front. A slot runs one: what was said to run before has left it.
    pub fn runs(&mut self, id: AttemptId, attempts: &mut AttemptTable) {
        if let Some(front) = self.queue.front().copied()
            && let Some(before) = attempts.get_mut(&front)
            && before.phase.has_begun()
        {
            before.phase = AttemptPhase::Delivering;
            self.queue.pop_front();
            self.delivering.push(front);
        }
        self.queue.push_front(id);
    }

    pub fn live(&self) -> impl Iterator<Item = AttemptId> {
        self.queue.iter().chain(&self.delivering).copied()
    }

    /// What ran or was about to, or else what has left Blender and was being checked.
    pub fn foremost(&self) -> Vec<AttemptId> {
        self.queue.front().map_or_else(|| self.delivering.clone(), |front| vec![*front])
    }

    pub fn detach(&mut self, attempt: AttemptId) {
        self.queue.retain(|id| *id != attempt);
        self.delivering.retain(|id| *id != attempt);
    }

    pub fn close(&mut self, attempt: AttemptId) {
        if !self.closing.contains(&attempt) {
            self.closing.push(attempt);
        }
    }

    /// What follows is of this session.
    pub fn set_session(&mut self, session: SessionKey) {
        if self.session != Some(session) {
            self.session = Some(session);
            self.frame_ms = None;
        }
    }

    pub fn measured(&mut self, ms: u64) {
        let ms = u32::try_from(ms).unwrap_or(u32::MAX).max(1);
        self.frame_ms = Some(match self.frame_ms {
            // The first frame of a session loads the scene: do not let that weigh on the quick ones after it.
            Some(old) if ms > old / 2 => ((u64::from(old) * 3 + u64::from(ms)) / 4).max(1) as u32,
            _ => ms,
        });
    }
}

#[derive(Debug)]
pub(crate) struct Worker {
    pub offer: WorkerOffer,
    pub wish: WorkerWish,
    pub presence: Presence,
    /// At least as many as offered; those beyond still hold attempts and get no more.
    pub slots: Vec<Slot>,
    /// What it is for each need that the core knows.
    pub standpoints: Vec<Standpoint>,
    /// Work that it does in the time in which a middling worker does 1.
    pub speed: f32,
    /// Frames by which that is known.
    pub frames: u32,
    /// Whether a frame of it was measured, so that its speed means something.
    pub measured: bool,
    /// What went wrong on it since it last delivered.
    pub strikes: Vec<Strike>,
    pub sick: Option<Sick>,
    /// It takes nothing else until there is room for this.
    pub reserved: Option<Need>,
    /// As last recorded.
    pub state: WorkerState,
}

impl Worker {
    /// One known only by its id.
    pub fn unseen(presence: Presence) -> Self {
        Self {
            offer: WorkerOffer::default(),
            wish: WorkerWish::Work,
            presence,
            slots: Vec::new(),
            standpoints: Vec::new(),
            speed: 1.0,
            frames: 0,
            measured: false,
            strikes: Vec::new(),
            sick: None,
            reserved: None,
            state: WorkerState::Offline,
        }
    }

    pub fn set_offer(&mut self, mut offer: WorkerOffer, needs: &Needs) {
        offer.slots = offer.slots.min(WorkerOffer::MAX_SLOTS);
        self.standpoints.resize_with(needs.len(), Standpoint::default);
        for need in needs.all() {
            self.standpoints[need.0].fits = needs::fits(&offer, &needs[need].requirement);
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
        if self.slots.len() < offered {
            self.slots.resize_with(offered, Slot::default);
        }
    }

    /// The slot, made where the worker has not so many; None where nobody could offer it.
    pub fn slot_mut(&mut self, slot: SlotIndex) -> Option<&mut Slot> {
        if slot.0 >= WorkerOffer::MAX_SLOTS {
            return None;
        }
        let index = usize::from(slot.0);
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, Slot::default);
        }
        self.slots.get_mut(index)
    }

    pub fn fits(&self, need: Need) -> bool {
        self.standpoints.get(need.0).is_some_and(|standpoint| standpoint.fits)
    }

    pub fn is_offered(&self, slot: SlotIndex) -> bool {
        slot.0 < self.offer.slots
    }

    /// Whether it may be given work, as far as the worker itself goes. One that is sick may not, but on trial.
    pub fn takes_work(&self) -> bool {
        matches!(self.presence, Presence::Here { .. }) && self.is_to_work() && self.sick.is_none()
    }

    /// Whether the farm and the worker itself want it to work.
    pub fn is_to_work(&self) -> bool {
        self.wish == WorkerWish::Work && !self.offer.resting
    }

    pub fn live(&self) -> impl Iterator<Item = AttemptId> {
        self.slots.iter().flat_map(Slot::live)
    }

    pub fn state(&self) -> WorkerState {
        match (self.presence, self.wish) {
            (Presence::Silent | Presence::Offline, _) => WorkerState::Offline,
            (_, WorkerWish::Pause) => WorkerState::Paused,
            (_, WorkerWish::Drain | WorkerWish::Stop) => WorkerState::Draining,
            (_, WorkerWish::Work) if self.offer.resting => WorkerState::Resting,
            (_, WorkerWish::Work) if self.sick.is_some() => WorkerState::Sick,
            (_, WorkerWish::Work) if self.slots.iter().all(Slot::is_empty) => WorkerState::Idle,
            (_, WorkerWish::Work) => WorkerState::Rendering,
        }
    }
}
