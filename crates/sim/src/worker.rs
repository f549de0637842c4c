//! A simulated worker with its attempts and answers. It keeps the rules of a real one; the world injects its faults.

use std::collections::{BTreeMap, VecDeque};

use kiln_core::{Assigned, Finish, HeldAttempt, HeldPhase, RevokeReason, WorkerOffer};
use kiln_types::{AttemptId, SlotIndex, WorkerId};

use crate::world::ToWorker;

#[derive(Debug)]
pub struct SimWorker {
    pub id: WorkerId,
    pub offer: WorkerOffer,
    /// The time of a frame in hundredths of the average.
    pub speed: u64,
    pub slots: Vec<SimSlot>,
    /// Rendered attempts that are being uploaded, each with its slot.
    pub uploading: BTreeMap<AttemptId, (SlotIndex, Assigned)>,
    pub streams: BTreeMap<AttemptId, Assigned>,
    /// Reports that the server has not settled, which are repeated at each connection; without a slot for streams.
    pub unsettled: BTreeMap<AttemptId, (Option<SlotIndex>, Assigned, Finish)>,
    /// The messages that have arrived and were not read yet, each with its connection.
    pub inbox: VecDeque<(u64, ToWorker)>,
    /// The number of the present connection.
    pub connection: Option<u64>,
    /// The number of the process: events of an earlier one are void.
    pub life: u32,
    pub alive: bool,
    /// The time until which the process does nothing, as of a machine that sleeps.
    pub stalled_until: u64,
    /// The time until which the worker returns every assignment.
    pub refuses_until: u64,
    /// The time until which Blender does not start.
    pub broken_until: u64,
}

#[derive(Debug, Default)]
pub struct SimSlot {
    pub running: Option<Assigned>,
    /// The running attempt is being killed, and will be reported as returned.
    pub killing: bool,
    pub queue: VecDeque<Assigned>,
}

/// A message of a worker.
#[derive(Debug, Clone)]
pub enum ToServer {
    Hello(Vec<HeldAttempt>),
    Started(AttemptId),
    /// The progress of the attempt's frame, in hundredths.
    Progress(AttemptId, u8),
    Finished(AttemptId, Finish),
    /// True while the worker takes no work, by its own rules.
    Unavailable(bool),
    Heartbeat,
}

/// The answer to a revoke.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    Nothing,
    /// Report the end of this attempt.
    Report(AttemptId),
    /// Kill the process on this slot.
    Kill(SlotIndex),
}

impl SimWorker {
    pub fn new(id: WorkerId, offer: WorkerOffer) -> Self {
        Self {
            id,
            slots: (0..offer.slots).map(|_| SimSlot::default()).collect(),
            offer,
            speed: 100,
            uploading: BTreeMap::new(),
            streams: BTreeMap::new(),
            unsettled: BTreeMap::new(),
            inbox: VecDeque::new(),
            connection: None,
            life: 0,
            alive: true,
            stalled_until: 0,
            refuses_until: 0,
            broken_until: 0,
        }
    }

    /// Ends the process with all its attempts.
    pub fn die(&mut self) {
        self.life += 1;
        self.alive = false;
        self.connection = None;
        self.stalled_until = 0;
        self.slots.iter_mut().for_each(|slot| *slot = SimSlot::default());
        self.uploading.clear();
        self.streams.clear();
        self.unsettled.clear();
        self.inbox.clear();
    }

    pub fn held(&self) -> Vec<HeldAttempt> {
        let mut held = Vec::new();
        let mut hold = |assigned: &Assigned, phase| {
            let Assigned { attempt, task, generation } = *assigned;
            held.push(HeldAttempt { attempt, task, generation, phase });
        };
        for (index, place) in self.slots.iter().enumerate() {
            let slot = SlotIndex(index as u16);
            place.running.iter().for_each(|running| hold(running, HeldPhase::Running { slot }));
            place.queue.iter().for_each(|queued| hold(queued, HeldPhase::Queued { slot }));
        }
        for (slot, assigned) in self.uploading.values() {
            hold(assigned, HeldPhase::Finished { slot: *slot });
        }
        self.streams.values().for_each(|streaming| hold(streaming, HeldPhase::Streaming));
        for (slot, assigned, _) in self.unsettled.values() {
            hold(assigned, slot.map_or(HeldPhase::Streaming, |slot| HeldPhase::Finished { slot }));
        }
        held
    }

    /// Returns, unasked, the attempts that have not begun on a slot.
    pub fn return_queues(&mut self) -> Vec<AttemptId> {
        let mut back = Vec::new();
        while let Some((attempt, assigned)) = self.streams.pop_first() {
            self.unsettled.insert(attempt, (None, assigned, Finish::Returned));
            back.push(attempt);
        }
        for (index, slot) in self.slots.iter_mut().enumerate() {
            for assigned in slot.queue.drain(..) {
                let finish = Finish::Returned;
                self.unsettled.insert(assigned.attempt, (Some(SlotIndex(index as u16)), assigned, finish));
                back.push(assigned.attempt);
            }
        }
        back
    }

    /// The running and queued attempts with their slots.
    pub fn on_slots(&self) -> impl Iterator<Item = (SlotIndex, Assigned)> {
        self.slots.iter().enumerate().flat_map(|(index, slot)| {
            let all = slot.running.iter().chain(&slot.queue);
            all.map(move |assigned| (SlotIndex(index as u16), *assigned))
        })
    }

    pub fn revoke(&mut self, attempt: AttemptId, why: RevokeReason) -> Next {
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let slot_index = SlotIndex(index as u16);
            if let Some(at) = slot.queue.iter().position(|queued| queued.attempt == attempt) {
                if let Some(assigned) = slot.queue.remove(at) {
                    self.unsettled.insert(attempt, (Some(slot_index), assigned, Finish::Returned));
                }
                return Next::Report(attempt);
            }
            if slot.running.is_some_and(|running| running.attempt == attempt) {
                if why == RevokeReason::Preempted || slot.killing {
                    return Next::Nothing;
                }
                slot.killing = true;
                return Next::Kill(slot_index);
            }
        }
        if self.unsettled.contains_key(&attempt) {
            return Next::Nothing;
        }
        if why != RevokeReason::Preempted
            && let Some(assigned) = self.streams.remove(&attempt)
        {
            self.unsettled.insert(attempt, (None, assigned, Finish::Returned));
        }
        match (self.uploading.remove(&attempt), why) {
            (Some(upload), RevokeReason::Preempted) => {
                self.uploading.insert(attempt, upload);
                Next::Nothing
            }
            (Some((slot, assigned)), _) => {
                self.unsettled.insert(attempt, (Some(slot), assigned, Finish::Returned));
                Next::Report(attempt)
            }
            (None, _) => Next::Report(attempt),
        }
    }
}
