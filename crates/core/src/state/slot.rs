//! The slots of a worker.

use std::collections::{BTreeMap, VecDeque};

use kiln_types::{AttemptId, SessionKey};

use super::attempt::{AttemptPhase, AttemptTable};
use crate::{Claim, Moment, ids::StepRef, tuning::MAX_DELIVERING};

#[derive(Debug, Default)]
pub(crate) struct Slot {
    /// Live attempts in the order in which they run; only the front one may be running.
    queue: VecDeque<AttemptId>,
    /// Attempts that have left Blender and are being uploaded.
    delivering: Vec<AttemptId>,
    /// Revoked or expired attempts that the worker may still have in its Blender or queue: until each is reported closed,
    /// the slot gets no new work.
    closing: Vec<AttemptId>,
    /// The session that Blender has open after the last attempt of the queue.
    session: Option<SessionKey>,
    /// Milliseconds that a frame of that session takes here, smoothed; at least 1.
    frame_ms: Option<u32>,
    /// The step of the last dispatched task with a session.
    pub last: Option<StepRef>,
    /// The claim while the slot has a queue.
    pub claim: Claim,
    /// The claim is not known, and is taken to be the largest possible.
    pub claim_is_guessed: bool,
    /// The steps that count the slot as at work for them.
    pub counted: Vec<StepRef>,
    /// The number that the slot holds of each limit.
    pub limits: BTreeMap<String, u32>,
}

impl Slot {
    /// Returns whether the slot holds nothing and is counted nowhere.
    pub fn is_empty(&self) -> bool {
        !self.is_at_work() && self.delivering.is_empty() && self.counted.is_empty() && self.limits.is_empty()
    }

    /// Returns whether the slot's claim is in use.
    pub fn is_at_work(&self) -> bool {
        !self.queue.is_empty() || !self.closing.is_empty()
    }

    /// Returns whether the slot may get a first task.
    pub fn is_vacant(&self) -> bool {
        !self.is_at_work() && !self.is_behind()
    }

    /// Returns whether the slot has too many uploads under way for new work.
    pub fn is_behind(&self) -> bool {
        self.delivering.len() >= MAX_DELIVERING
    }

    pub fn queue(&self) -> &VecDeque<AttemptId> {
        &self.queue
    }

    pub fn delivering(&self) -> &[AttemptId] {
        &self.delivering
    }

    pub fn closing(&self) -> &[AttemptId] {
        &self.closing
    }

    pub fn live(&self) -> impl Iterator<Item = AttemptId> {
        self.queue.iter().chain(&self.delivering).copied()
    }

    /// The attempt that runs or is next, or else those that have left Blender.
    pub fn foremost(&self) -> Vec<AttemptId> {
        self.queue.front().map_or_else(|| self.delivering.clone(), |front| vec![*front])
    }

    pub fn push(&mut self, attempt: AttemptId) {
        self.queue.push_back(attempt);
    }

    pub fn push_delivering(&mut self, attempt: AttemptId) {
        self.delivering.push(attempt);
    }

    /// Puts an attempt that runs at the front. The one that ran before has left Blender: returns it and its start.
    pub fn run(&mut self, id: AttemptId, attempts: &mut AttemptTable) -> Option<(AttemptId, Moment)> {
        self.detach(id);
        let mut left = None;
        if let Some(front) = self.queue.front().copied()
            && let Some(known) = attempts.get_mut(front)
            && let AttemptPhase::Running { slot, since } = known.phase
        {
            known.phase = AttemptPhase::Delivering { slot };
            self.queue.pop_front();
            self.delivering.push(front);
            left = Some((front, since));
        }
        self.queue.push_front(id);
        left
    }

    /// Takes a live attempt off the slot.
    pub fn detach(&mut self, attempt: AttemptId) {
        self.queue.retain(|id| *id != attempt);
        self.delivering.retain(|id| *id != attempt);
    }

    /// Gives the slot no work until the worker reports this attempt closed.
    pub fn close(&mut self, attempt: AttemptId) {
        if !self.closing.contains(&attempt) {
            self.closing.push(attempt);
        }
    }

    /// The worker reports the attempt closed; returns whether the slot waited for that.
    pub fn reopen(&mut self, attempt: AttemptId) -> bool {
        let at = self.closing.iter().position(|id| *id == attempt);
        at.map(|at| self.closing.remove(at)).is_some()
    }

    /// Stops waiting; returns the attempts that it waited for.
    pub fn reopen_all(&mut self) -> Vec<AttemptId> {
        std::mem::take(&mut self.closing)
    }

    /// Forgets every attempt.
    pub fn clear(&mut self) {
        self.queue.clear();
        self.delivering.clear();
        self.closing.clear();
    }

    pub fn session(&self) -> Option<SessionKey> {
        self.session
    }

    pub fn has_open(&self, session: SessionKey) -> bool {
        self.session == Some(session)
    }

    /// Returns whether work of this session has to open it first.
    pub fn must_open(&self, session: Option<SessionKey>) -> bool {
        session.is_some_and(|session| !self.has_open(session))
    }

    /// Sets the session of the last attempt in the queue. One without a session leaves the open one as it is.
    pub fn set_session(&mut self, session: Option<SessionKey>) {
        if self.must_open(session) {
            self.session = session;
            self.frame_ms = None;
        }
    }

    /// Milliseconds that a frame of this session takes here.
    pub fn frame_ms(&self, session: Option<SessionKey>) -> Option<u32> {
        self.frame_ms.filter(|_| session.is_some() && !self.must_open(session))
    }

    /// Learns from the milliseconds of a frame.
    pub fn measure(&mut self, ms: u64) {
        let ms = u32::try_from(ms).unwrap_or(u32::MAX).max(1);
        self.frame_ms = Some(match self.frame_ms {
            // The first frame of a session loads the scene: it should not weigh on the quick ones after it.
            Some(old) if ms > old / 2 => ((u64::from(old) * 3 + u64::from(ms)) / 4).max(1) as u32,
            _ => ms,
        });
    }
}
