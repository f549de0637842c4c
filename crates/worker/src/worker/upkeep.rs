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
};

/// How often a worker without a Blender looks again.
const LOOK_AGAIN: Duration = Duration::from_secs(20);
/// How long there must have been no work before a Blender is started only to learn what it can do.
const QUIET: Duration = Duration::from_secs(5);

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
        let garage = &self.shop.garage;
        let known = |series: &BlenderSeries| garage.install(*series).is_some();
        let newest = garage.installs().first().map(|install| install.version.series());
        let wished = [self.options.prestart, self.last_series, newest];
        if let Some(series) = wished.into_iter().flatten().find(known) {
            self.order_all(|| Order::Prestart(series));
        }
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
        self.keep_a_spare(busy, steady);
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
        let Some((series, _)) = self.used.iter().max_by_key(|(_, count)| **count) else { return };
        let series = *series;
        let have = self.shop.garage.has_spare();
        // The machine is asked for its memory only where the answer matters.
        if have || steady < QUIET || self.shop.garage.install(series).is_none() {
            return;
        }
        let memory = self.shop.memory_now();
        let facts = SpareFacts { have, steady, busy, available: memory.available, total: memory.total };
        if sizing::want_spare(facts) {
            let garage = self.shop.garage.clone();
            self.tasks.spawn(async move { garage.start_spare(series).await });
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
