//! The steps that a slot takes by itself, whenever something has changed: what is the next task, and what it lacks.

use std::{collections::btree_map::Entry, time::Duration};

use kiln_types::{Failure, FailureCause, SessionKey};

use super::{
    effect::{Effect, Surroundings, Told},
    state::{Files, Phase, Slot},
    work::{Kind, Work},
};
use crate::TaskKind;

/// How long frames may wait for memory before they are handed back; meanwhile other slots may steal them.
const MEMORY_PATIENCE: Duration = Duration::from_secs(10);

/// How the next task's files lie.
enum Lie {
    Here(SessionKey),
    Coming,
    Failed,
}

impl Slot {
    /// Takes every step that is possible now.
    pub(crate) fn advance(&mut self, around: &impl Surroundings) {
        while self.step(around) {}
        self.release();
    }

    /// Whether there may be another step at once.
    fn step(&mut self, around: &impl Surroundings) -> bool {
        match &self.phase {
            Phase::Cold if self.closing => {
                if !self.closed {
                    self.closed = true;
                    self.tell(Told::Closed);
                }
                false
            }
            Phase::Cold => self.step_cold(around),
            Phase::Idle { .. } if self.closing || self.resting => {
                self.recycle();
                false
            }
            Phase::Idle { kind, open } => {
                let (kind, open) = (kind.clone(), *open);
                self.step_idle(kind, open, around)
            }
            Phase::Starting { .. } | Phase::Opening { .. } | Phase::Working { .. } | Phase::Recycling => {
                false
            }
        }
    }

    fn step_cold(&mut self, around: &impl Surroundings) -> bool {
        let Some(kind) = self.queue.front().map(Work::process).or_else(|| self.ahead.clone()) else {
            return false;
        };
        if !around.has(kind.series) {
            self.ahead = self.ahead.take().filter(|ahead| ahead.series != kind.series);
            let message = format!(
                "this worker has no Blender {}; `kiln blender install {}` gets one",
                kind.series, kind.series
            );
            self.fail_front(Failure::new(FailureCause::CannotStart, message));
            return true;
        }
        let mut files = None;
        if kind.brings.is_some() {
            // The process reads them when it starts, so it starts when they are here.
            match self.files_of_front() {
                Lie::Here(key) => files = Some(key),
                Lie::Coming => return false,
                Lie::Failed => return true,
            }
        }
        self.phase = Phase::Starting { kind: kind.clone() };
        self.effects.push(Effect::Start(kind, files));
        false
    }

    /// Whether the next task's files are here; where they cannot be had, it has failed, and another is the next.
    fn files_of_front(&mut self) -> Lie {
        let Some(front) = self.queue.front().cloned() else { return Lie::Coming };
        match self.files.get(&front.key) {
            Some(Files::Here) => Lie::Here(front.key),
            Some(Files::Coming) => Lie::Coming,
            Some(Files::Failed(failure)) => {
                let failure = failure.clone();
                self.fail_front(failure);
                // The next frame of it tries again.
                self.files.remove(&front.key);
                if let Some(next) = self.queue.iter().find(|work| work.key == front.key).cloned() {
                    self.want_files(&next);
                }
                Lie::Failed
            }
            None => {
                self.want_files(&front);
                Lie::Coming
            }
        }
    }

    fn step_idle(&mut self, kind: Kind, open: Option<SessionKey>, around: &impl Surroundings) -> bool {
        let Some(front) = self.queue.front() else {
            self.no_memory_since = None;
            return false;
        };
        let wanted = front.process();
        if wanted != kind && kind.may_become(&wanted) {
            // What is open has the old part.
            self.phase = Phase::Idle { kind: wanted, open: None };
            return true;
        }
        if wanted != kind || around.worn() {
            self.recycle();
            return false;
        }
        // A bake works on a copy of its own, whatever is open.
        let opens = front.kind != TaskKind::Bake;
        if opens && open == Some(front.key) {
            // Otherwise the outbox calls when it has room again.
            if around.outbox_open()
                && let Some(work) = self.queue.pop_front()
            {
                self.tell(Told::Began(work.clone()));
                self.work(kind, work);
            }
            return false;
        }
        match self.files_of_front() {
            Lie::Here(_) => {}
            Lie::Coming => return false,
            Lie::Failed => return true,
        }
        if self.queue.front().is_some_and(|front| !around.room(front)) {
            return self.wait_for_memory(around);
        }
        self.no_memory_since = None;
        if let Some(work) = self.queue.pop_front() {
            self.tell(Told::Began(work.clone()));
            if opens {
                self.effects.push(Effect::Open(work.clone()));
                self.phase = Phase::Opening { kind, work };
            } else {
                self.work(kind, work);
            }
        }
        false
    }

    pub(super) fn work(&mut self, kind: Kind, work: Work) {
        self.effects.push(Effect::Work(work.clone()));
        self.phase = Phase::Working { kind, work };
    }

    fn wait_for_memory(&mut self, around: &impl Surroundings) -> bool {
        let since = *self.no_memory_since.get_or_insert(around.now());
        if around.now().duration_since(since) >= MEMORY_PATIENCE {
            self.no_memory_since = None;
            self.hand_back_queue();
            return true;
        }
        self.effects.push(Effect::Wake(Duration::from_millis(500)));
        false
    }

    pub(super) fn want_files(&mut self, work: &Work) {
        if let Entry::Vacant(place) = self.files.entry(work.key) {
            place.insert(Files::Coming);
            self.effects.push(Effect::Fetch(work.session.clone()));
        }
    }

    /// Files that nothing here needs any more are let go.
    fn release(&mut self) {
        let open = match &self.phase {
            Phase::Idle { open, .. } => *open,
            Phase::Opening { work, .. } | Phase::Working { work, .. } => Some(work.key),
            _ => None,
        };
        let queue = &self.queue;
        let effects = &mut self.effects;
        self.files.retain(|key, _| {
            let wanted = Some(*key) == open || queue.iter().any(|work| work.key == *key);
            if !wanted {
                effects.push(Effect::Release(*key));
            }
            wanted
        });
    }

    pub(super) fn stop_current(&mut self) {
        if let Phase::Opening { work, .. } | Phase::Working { work, .. } =
            std::mem::replace(&mut self.phase, Phase::Recycling)
        {
            self.tell(Told::HandedBack(work));
            self.effects.push(Effect::Recycle);
        }
    }

    pub(super) fn recycle(&mut self) {
        self.phase = Phase::Recycling;
        self.effects.push(Effect::Recycle);
    }

    pub(super) fn fail_front(&mut self, failure: Failure) {
        if let Some(work) = self.queue.pop_front() {
            self.tell(Told::Began(work.clone()));
            self.tell(Told::Failed { work, failure, seconds: 0.0 });
        }
    }

    pub(super) fn give_back(&mut self, running: bool, around: &impl Surroundings) {
        self.hand_back_queue();
        if running && self.current().is_some() {
            self.stop_current();
        } else if matches!(self.phase, Phase::Starting { .. }) {
            self.recycle();
        }
        self.advance(around);
    }

    fn hand_back_queue(&mut self) {
        while let Some(work) = self.queue.pop_front() {
            self.tell(Told::HandedBack(work));
        }
    }

    pub(super) fn tell(&mut self, told: Told) {
        self.effects.push(Effect::Tell(told));
    }
}
