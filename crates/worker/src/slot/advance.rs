//! The transitions that a slot makes by itself whenever something has changed: to the next task, or to what that lacks.

use std::{collections::btree_map::Entry, time::Duration};

use kiln_types::{Failure, FailureCause, SessionKey};

use super::{
    effects::{SlotEffect, SlotEnvironment, SlotNotice},
    state::{BundleState, DirectRun, SlotMachine, SlotPhase},
    task::{BlenderAction, BlenderTask, SlotTask},
};
use crate::process::ProcessKind;

/// The time that tasks wait for memory before they are returned; meanwhile other slots may take them over.
const MEMORY_PATIENCE: Duration = Duration::from_secs(10);

/// The state of the next task's bundle.
enum NextBundle {
    Here(SessionKey),
    Coming,
    /// The task has failed; another is the next.
    Failed,
}

impl SlotMachine {
    /// Makes every transition that is possible now.
    pub(crate) fn advance(&mut self, environment: &impl SlotEnvironment) {
        while self.step(environment) {}
        self.release_bundles();
    }

    /// Returns whether there may be another transition at once.
    fn step(&mut self, environment: &impl SlotEnvironment) -> bool {
        let is_free = self.direct == DirectRun::None;
        match &self.phase {
            SlotPhase::Cold if self.closing => {
                if is_free && !self.closed {
                    self.closed = true;
                    self.tell(SlotNotice::Closed);
                }
                false
            }
            SlotPhase::Idle { .. } if self.closing || self.unavailable => {
                self.recycle();
                false
            }
            SlotPhase::Opening { .. } | SlotPhase::Working { .. } => false,
            _ if !is_free => false,
            _ if matches!(self.queue.front(), Some(SlotTask::Direct(_))) => self.step_direct(environment),
            SlotPhase::Cold => self.step_cold(environment),
            SlotPhase::Idle { kind, open } => {
                let (kind, open) = (kind.clone(), *open);
                self.step_idle(kind, open, environment)
            }
            SlotPhase::Starting { .. } | SlotPhase::Recycling => false,
        }
    }

    /// Runs the next task, which needs no Blender, whatever the process does.
    fn step_direct(&mut self, environment: &impl SlotEnvironment) -> bool {
        // Otherwise the upload queue reports when it has room again.
        if !environment.has_upload_room() {
            return false;
        }
        if self.queue.front().is_some_and(|task| !environment.has_memory(task)) {
            if matches!(self.phase, SlotPhase::Idle { .. }) {
                self.recycle();
            }
            return self.wait_for_memory(environment);
        }
        self.no_memory_since = None;
        if let Some(SlotTask::Direct(task)) = self.queue.pop_front() {
            self.tell(SlotNotice::Started(task.head));
            self.direct = DirectRun::Running(task.head);
            self.effects.push(SlotEffect::Run(task));
        }
        false
    }

    fn step_cold(&mut self, environment: &impl SlotEnvironment) -> bool {
        let next = self.queue.front().and_then(SlotTask::blender).map(BlenderTask::process);
        let Some(kind) = next.or_else(|| self.ahead.clone()) else { return false };
        if !environment.has_blender(kind.series) {
            self.ahead = self.ahead.take().filter(|ahead| ahead.series != kind.series);
            let message = format!(
                "this worker has no Blender {}; `kiln blender install {}` gets one",
                kind.series, kind.series
            );
            self.fail_front(Failure::new(FailureCause::CannotStart, message));
            return true;
        }
        let mut session = None;
        if kind.startup.is_some() {
            // The process reads them when it starts, so it starts when they are here.
            match self.next_bundle() {
                NextBundle::Here(key) => session = Some(key),
                NextBundle::Coming => return false,
                NextBundle::Failed => return true,
            }
        }
        self.phase = SlotPhase::Starting { kind: kind.clone() };
        self.effects.push(SlotEffect::Start(kind, session));
        false
    }

    /// Looks for the next task's bundle. If that cannot be had, the task fails.
    fn next_bundle(&mut self) -> NextBundle {
        let Some(front) = self.queue.front().and_then(SlotTask::blender).cloned() else {
            return NextBundle::Coming;
        };
        let key = front.key;
        match self.bundles.get(&key) {
            Some(BundleState::Here) => NextBundle::Here(key),
            Some(BundleState::Coming) => NextBundle::Coming,
            Some(BundleState::Failed(failure)) => {
                let failure = failure.clone();
                self.fail_front(failure);
                // The next frame of it tries again.
                self.bundles.remove(&key);
                let mut tasks = self.queue.iter().filter_map(SlotTask::blender);
                if let Some(next) = tasks.find(|task| task.key == key).cloned() {
                    self.want_bundle(&next);
                }
                NextBundle::Failed
            }
            None => {
                self.want_bundle(&front);
                NextBundle::Coming
            }
        }
    }

    fn step_idle(
        &mut self,
        kind: ProcessKind,
        open: Option<SessionKey>,
        environment: &impl SlotEnvironment,
    ) -> bool {
        let Some(front) = self.queue.front().and_then(SlotTask::blender) else {
            self.no_memory_since = None;
            return false;
        };
        let wanted = front.process();
        if wanted != kind && kind.can_become(&wanted) {
            // The open file has the old share.
            self.phase = SlotPhase::Idle { kind: wanted, open: None };
            return true;
        }
        if wanted != kind || environment.is_worn() {
            self.recycle();
            return false;
        }
        // A bake works on a copy of its own, whatever is open.
        let opens = front.action != BlenderAction::Bake;
        let is_open = opens && open == Some(front.key);
        if is_open {
            // Otherwise the upload queue reports when it has room again.
            if !environment.has_upload_room() {
                return false;
            }
        } else {
            match self.next_bundle() {
                NextBundle::Here(_) => {}
                NextBundle::Coming => return false,
                NextBundle::Failed => return true,
            }
            if self.queue.front().is_some_and(|front| !environment.has_memory(front)) {
                return self.wait_for_memory(environment);
            }
            self.no_memory_since = None;
        }
        if let Some(SlotTask::Blender(task)) = self.queue.pop_front() {
            self.tell(SlotNotice::Started(task.head));
            if opens && !is_open {
                self.effects.push(SlotEffect::Open(task.clone()));
                self.phase = SlotPhase::Opening { kind, task };
            } else {
                self.work(kind, task);
            }
        }
        false
    }

    pub(super) fn work(&mut self, kind: ProcessKind, task: BlenderTask) {
        self.effects.push(SlotEffect::Work(task.clone()));
        self.phase = SlotPhase::Working { kind, task };
    }

    fn wait_for_memory(&mut self, environment: &impl SlotEnvironment) -> bool {
        let since = *self.no_memory_since.get_or_insert(environment.now());
        if environment.now().duration_since(since) >= MEMORY_PATIENCE {
            self.no_memory_since = None;
            self.return_queue();
            return true;
        }
        self.effects.push(SlotEffect::Wake(Duration::from_millis(500)));
        false
    }

    pub(super) fn want_bundle(&mut self, task: &BlenderTask) {
        if let Entry::Vacant(place) = self.bundles.entry(task.key) {
            place.insert(BundleState::Coming);
            self.effects.push(SlotEffect::Fetch(task.session.clone()));
        }
    }

    /// Releases bundles that nothing here uses any longer.
    fn release_bundles(&mut self) {
        let open = match &self.phase {
            SlotPhase::Idle { open, .. } => *open,
            _ => self.blender_task().map(|task| task.key),
        };
        let queued: Vec<SessionKey> =
            self.queue.iter().filter_map(|task| Some(task.blender()?.key)).collect();
        let effects = &mut self.effects;
        self.bundles.retain(|key, _| {
            let is_used = Some(*key) == open || queued.contains(key);
            if !is_used {
                effects.push(SlotEffect::Release(*key));
            }
            is_used
        });
    }

    pub(super) fn stop_current(&mut self) {
        if let DirectRun::Running(task) = self.direct {
            self.direct = DirectRun::Cancelled;
            self.tell(SlotNotice::Returned(task));
            self.effects.push(SlotEffect::CancelRun);
        } else if let Some(task) = self.blender_task().map(|task| task.head) {
            self.tell(SlotNotice::Returned(task));
            self.recycle();
        }
    }

    pub(super) fn recycle(&mut self) {
        self.phase = SlotPhase::Recycling;
        self.effects.push(SlotEffect::Recycle);
    }

    pub(super) fn fail_front(&mut self, failure: Failure) {
        if let Some(task) = self.queue.pop_front().map(|task| task.head()) {
            self.tell(SlotNotice::Started(task));
            self.tell(SlotNotice::Failed { task, failure, seconds: 0.0 });
        }
    }

    pub(super) fn return_tasks(&mut self, running: bool, environment: &impl SlotEnvironment) {
        self.return_queue();
        if running && self.current().is_some() {
            self.stop_current();
        } else if matches!(self.phase, SlotPhase::Starting { .. }) {
            self.recycle();
        }
        self.advance(environment);
    }

    fn return_queue(&mut self) {
        while let Some(task) = self.queue.pop_front() {
            self.tell(SlotNotice::Returned(task.head()));
        }
    }

    pub(super) fn tell(&mut self, notice: SlotNotice) {
        self.effects.push(SlotEffect::Tell(notice));
    }
}
