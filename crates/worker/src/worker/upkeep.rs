//! The Blenders of a worker: found, started ahead of work, and kept spare.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use kiln_host::BlenderInstall;
use kiln_types::BlenderSeries;
use tokio::task::spawn_blocking;

use super::actor::{IdleMonitor, WorkerActor, WorkerInput};
use crate::{
    availability::ActivityMonitor,
    event::WorkerEvent,
    gpus::GpuMemory,
    offers::Offers,
    process::ProcessKind,
    sizing::{self, SpareNeed},
    slot::SlotCommand,
};

/// The time between two looks of a worker without a Blender.
const LOOK_AGAIN: Duration = Duration::from_secs(20);
/// The time between two decisions of a worker without work about its spare process.
const IDLE_LOOK: Duration = Duration::from_secs(30);
/// The time without work after which a Blender is started only to probe it.
const QUIET: Duration = Duration::from_secs(5);

impl WorkerActor {
    pub(super) async fn look_for_blenders(&mut self) {
        let (extra, home, cache) = self.search_paths();
        let look = spawn_blocking(move || kiln_host::discover(&extra, &home, &cache));
        let (found, gpus) = tokio::join!(look, GpuMemory::ask());
        self.gpus = Arc::new(gpus);
        self.found(found.unwrap_or_default());
        if self.offers.is_empty() {
            self.emit(WorkerEvent::NoBlender);
        }
    }

    pub(super) fn search_paths(&self) -> (Vec<PathBuf>, PathBuf, PathBuf) {
        let cache = self.options.blender_cache.clone().unwrap_or_else(|| self.options.data.clone());
        let home = self.options.installs.clone().unwrap_or_else(|| self.options.data.clone());
        (self.options.blenders.clone(), home, cache)
    }

    pub(super) fn found(&mut self, installs: Vec<BlenderInstall>) {
        if installs.is_empty() {
            return;
        }
        let versions = installs.iter().map(|install| install.version.to_string()).collect();
        self.emit(WorkerEvent::Blenders { versions });
        self.offers = Offers::new(&installs, self.options.devices.as_deref(), self.gpus.clone());
        self.context.processes.set_installs(installs);
    }

    pub(super) fn prestart(&mut self) {
        if self.unavailable.is_some() {
            return;
        }
        if let Some(series) = self.first_series() {
            self.command_all(|| SlotCommand::Prestart(series));
        }
    }

    /// The series that the first job most likely needs.
    fn first_series(&self) -> Option<BlenderSeries> {
        let processes = &self.context.processes;
        let newest = processes.installs().first().map(|install| install.version.series());
        let candidates = [self.options.prestart, self.last_series, newest];
        candidates.into_iter().flatten().find(|series| processes.install(*series).is_some())
    }

    /// The series that had the most work, if it is installed.
    fn usual_series(&self) -> Option<BlenderSeries> {
        let (series, _) = self.used.iter().max_by_key(|(_, count)| **count)?;
        Some(*series).filter(|series| self.context.processes.install(*series).is_some())
    }

    pub(super) fn tick(&mut self, now: Instant) {
        self.send_reports();
        let busy = self.attempts.is_busy();
        if busy != self.busy.0 {
            self.busy = (busy, now);
        }
        if self.leaving.is_some() {
            return;
        }
        self.update_availability();
        if self.unavailable.is_some() {
            // One that was being started then is here by now.
            self.context.processes.drop_spare();
            return;
        }
        let steady = now.duration_since(self.busy.1);
        if !busy && steady >= self.options.idle_after {
            self.be_idle(now);
        } else {
            self.idle.decided = None;
            self.keep_a_spare(busy, steady);
        }
        if !busy && steady >= QUIET {
            self.probe();
        }
        if self.offers.is_empty() && now.duration_since(self.looked) >= LOOK_AGAIN {
            self.looked = now;
            let (extra, home, cache) = self.search_paths();
            let inputs = self.inputs.clone();
            self.tasks.spawn(async move {
                let found = spawn_blocking(move || kiln_host::discover(&extra, &home, &cache)).await;
                let _ = inputs.send(WorkerInput::Found(found.unwrap_or_default()));
            });
        }
    }

    /// Starts a spare process of the series used most, once there has been work.
    pub(super) fn keep_a_spare(&mut self, busy: bool, steady: Duration) {
        let Some(series) = self.usual_series() else { return };
        let have = self.context.processes.has_spare();
        // The machine is asked for its memory only where the answer matters.
        if have || steady < QUIET {
            return;
        }
        let memory = self.context.memory_now();
        let facts = SpareNeed { have, steady, busy, available: memory.available, total: memory.total };
        if sizing::want_spare(facts) {
            self.start_spare(series);
        }
    }

    fn start_spare(&mut self, series: BlenderSeries) {
        let processes = self.context.processes.clone();
        self.tasks.spawn(async move { processes.start_spare(series).await });
    }

    /// Ends the processes of all slots after minutes without work. A single spare one is kept for them unless the machine is
    /// used otherwise.
    fn be_idle(&mut self, now: Instant) {
        let pause = IDLE_LOOK.min(self.options.idle_after);
        if self.idle.decided.is_some_and(|at| now.duration_since(at) < pause) {
            return;
        }
        self.idle.decided = Some(now);
        self.command_all(|| SlotCommand::EndIdle);
        if self.availability.watches() {
            return self.keep_an_idle_spare();
        }
        let monitor = match std::mem::replace(&mut self.idle.monitor, IdleMonitor::Looking) {
            IdleMonitor::Looking => return,
            IdleMonitor::None => ActivityMonitor::new(),
            IdleMonitor::Here(monitor) => *monitor,
        };
        let inputs = self.inputs.clone();
        self.tasks.spawn(async move {
            let (monitor, seen) = monitor.look().await;
            let _ = inputs.send(WorkerInput::IdleMachineUse(Box::new(monitor), seen));
        });
    }

    /// Keeps or drops the spare process of a worker that has had no work for long.
    pub(super) fn keep_an_idle_spare(&mut self) {
        // Work may have come during the look.
        if self.idle.decided.is_none() || self.unavailable.is_some() || self.leaving.is_some() {
            return;
        }
        let Some(series) = self.usual_series().or_else(|| self.first_series()) else { return };
        let (have, memory) = (self.context.processes.has_spare(), self.context.memory_now());
        let keeps =
            sizing::keeps_idle_spare(have, self.availability.is_used(), memory.available, memory.total);
        if have && !keeps {
            self.context.processes.drop_spare();
        } else if keeps && !have {
            self.start_spare(series);
        }
    }

    /// Probes a Blender that no slot has started yet, while there is nothing else to do.
    pub(super) fn probe(&mut self) {
        let Some(series) = self.offers.unprobed() else { return };
        if self.probing {
            return;
        }
        self.probing = true;
        let (processes, inputs) = (self.context.processes.clone(), self.inputs.clone());
        self.tasks.spawn(async move {
            let result = processes.probe(ProcessKind::plain(series)).await;
            let _ = inputs.send(WorkerInput::IdleProbed(series, result.map(Box::new)));
        });
    }
}
