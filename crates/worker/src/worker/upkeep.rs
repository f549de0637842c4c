//! What a worker does besides frames: finding its Blenders, starting them ahead of work, keeping a spare.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use kiln_host::BlenderInstall;
use kiln_types::BlenderSeries;
use tokio::task::spawn_blocking;

use super::{Input, Worker};
use crate::{
    Happening, WorkerExit,
    gpus::GpuMemory,
    offers::Offers,
    sizing::{self, SpareFacts},
    slot::{Kind, Order},
    wishes::presence::Watch,
};

/// How often a worker without a Blender looks again.
const LOOK_AGAIN: Duration = Duration::from_secs(20);
/// How often a worker without work decides anew whether a Blender waits for it.
const IDLE_LOOK: Duration = Duration::from_secs(30);
/// How long there must have been no work before a Blender is started only to learn what it can do.
const QUIET: Duration = Duration::from_secs(5);

/// What a worker does while it has had no work for long.
#[derive(Debug, Default)]
pub(super) struct Idle {
    /// When it last decided what waits for work.
    decided: Option<Instant>,
    pub(super) watch: Looks,
}

/// Looks at the machine only while there is no work, of a worker that leaves the machine to nobody.
#[derive(Debug, Default)]
pub(super) enum Looks {
    #[default]
    NotYet,
    UnderWay,
    Here(Box<Watch>),
}

impl Worker {
    pub(super) async fn look_for_blenders(&mut self) {
        let (extra, home, cache) = self.where_to_look();
        let look = spawn_blocking(move || kiln_host::discover(&extra, &home, &cache));
        let (found, gpus) = tokio::join!(look, GpuMemory::ask());
        self.gpus = Arc::new(gpus);
        self.found(found.unwrap_or_default());
        if self.offers.is_empty() {
            self.happen(Happening::NoBlender);
        }
    }

    pub(super) fn where_to_look(&self) -> (Vec<PathBuf>, PathBuf, PathBuf) {
        let cache = self.options.blender_cache.clone().unwrap_or_else(|| self.options.data.clone());
        let home = self.options.installs.clone().unwrap_or_else(|| self.options.data.clone());
        (self.options.blenders.clone(), home, cache)
    }

    pub(super) fn found(&mut self, installs: Vec<BlenderInstall>) {
        if installs.is_empty() {
            return;
        }
        let versions = installs.iter().map(|install| install.version.to_string()).collect();
        self.happen(Happening::Blenders { versions });
        self.offers = Offers::new(&installs, self.options.devices.as_deref(), self.gpus.clone());
        self.shop.garage.set_installs(installs);
    }

    pub(super) fn prestart(&mut self) {
        if self.resting.is_some() {
            return;
        }
        if let Some(series) = self.first_series() {
            self.order_all(|| Order::Prestart(series));
        }
    }

    /// The Blender that the first work will ask for, most likely.
    fn first_series(&self) -> Option<BlenderSeries> {
        let garage = &self.shop.garage;
        let newest = garage.installs().first().map(|install| install.version.series());
        let wished = [self.options.prestart, self.last_series, newest];
        wished.into_iter().flatten().find(|series| garage.install(*series).is_some())
    }

    /// The Blender that there was most work for, where there was any and it is there still.
    fn usual_series(&self) -> Option<BlenderSeries> {
        let (series, _) = self.used.iter().max_by_key(|(_, count)| **count)?;
        Some(*series).filter(|series| self.shop.garage.install(*series).is_some())
    }

    pub(super) fn tick(&mut self, now: Instant) -> Option<WorkerExit> {
        self.report();
        let busy = self.ledger.is_busy();
        if busy != self.busy.0 {
            self.busy = (busy, now);
        }
        if self.leaving.is_some() {
            return None;
        }
        self.consider_rest();
        if self.resting.is_some() {
            // One that was on its way when the rest began is here by now.
            self.shop.garage.drop_spare();
            return None;
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
            let (extra, home, cache) = self.where_to_look();
            let inputs = self.inputs.clone();
            self.tasks.spawn(async move {
                let found = spawn_blocking(move || kiln_host::discover(&extra, &home, &cache)).await;
                let _ = inputs.send(Input::Found(found.unwrap_or_default()));
            });
        }
        None
    }

    /// One spare process of the series used most, once there has been work at all.
    pub(super) fn keep_a_spare(&mut self, busy: bool, steady: Duration) {
        let Some(series) = self.usual_series() else { return };
        let have = self.shop.garage.has_spare();
        // The machine is asked for its memory only where the answer matters.
        if have || steady < QUIET {
            return;
        }
        let memory = self.shop.memory_now();
        let facts = SpareFacts { have, steady, busy, available: memory.available, total: memory.total };
        if sizing::want_spare(facts) {
            self.start_spare(series);
        }
    }

    fn start_spare(&mut self, series: BlenderSeries) {
        let garage = self.shop.garage.clone();
        self.tasks.spawn(async move { garage.start_spare(series).await });
    }

    /// Nobody has had work for it for minutes: no slot keeps a process. Whether a single spare one waits for all of them is
    /// decided by what else the machine is needed for.
    fn be_idle(&mut self, now: Instant) {
        let pause = IDLE_LOOK.min(self.options.idle_after);
        if self.idle.decided.is_some_and(|at| now.duration_since(at) < pause) {
            return;
        }
        self.idle.decided = Some(now);
        self.order_all(|| Order::EndIdle);
        if self.policy.watches() {
            // It is looked at all the time.
            return self.keep_an_idle_spare();
        }
        let watch = match std::mem::replace(&mut self.idle.watch, Looks::UnderWay) {
            Looks::UnderWay => return,
            Looks::NotYet => Watch::new(),
            Looks::Here(watch) => *watch,
        };
        let inputs = self.inputs.clone();
        self.tasks.spawn(async move {
            let (watch, facts) = watch.look().await;
            let _ = inputs.send(Input::LookedIdle(Box::new(watch), facts));
        });
    }

    /// The spare process of a worker that has had no work for long, where nobody misses its memory.
    pub(super) fn keep_an_idle_spare(&mut self) {
        // What was looked at takes a moment, in which work may have come.
        if self.idle.decided.is_none() || self.resting.is_some() || self.leaving.is_some() {
            return;
        }
        let Some(series) = self.usual_series().or_else(|| self.first_series()) else { return };
        let (have, memory) = (self.shop.garage.has_spare(), self.shop.memory_now());
        let keeps = sizing::keeps_idle_spare(have, self.policy.is_used(), memory.available, memory.total);
        if have && !keeps {
            self.shop.garage.drop_spare();
        } else if keeps && !have {
            self.start_spare(series);
        }
    }

    /// Looks at a Blender that no slot has started yet, while there is nothing else to do.
    pub(super) fn probe(&mut self) {
        let Some(series) = self.offers.unknown() else { return };
        if self.probing {
            return;
        }
        self.probing = true;
        let (garage, inputs) = (self.shop.garage.clone(), self.inputs.clone());
        self.tasks.spawn(async move {
            let result = garage.meet(Kind::plain(series)).await;
            let _ = inputs.send(Input::Probed(series, result.map(Box::new)));
        });
    }
}
