//! Wake-on-LAN: sleeping machines are woken when work waits for them, or on request.

mod decide;
mod packet;
mod wakeable;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use crate::scheduler::{Refusal, SchedulerHandle};
use decide::Alarm;

/// The interval at which the tasks that wait are read.
const EVERY: Duration = Duration::from_secs(5);

pub(crate) struct Waker {
    pub scheduler: SchedulerHandle,
    /// `None` for every network of this machine.
    pub targets: Option<Vec<SocketAddr>>,
    /// The time for which work waits before a worker is woken for it.
    pub patience: Duration,
}

impl Waker {
    /// Wakes machines for which work waits, until the server stops.
    pub(crate) async fn run(&self, stop: CancellationToken) {
        let mut alarm = Alarm::new(self.patience);
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let Ok((waiting, sleeping)) = self.scheduler.read(|farm| farm.wakeable()).await else { return };
            for worker in alarm.choose(&waiting, &sleeping, Instant::now()) {
                let Ok(name) = self.scheduler.read(move |farm| farm.name_of(worker)).await else { return };
                if let Err(error) = self.wake(name).await {
                    tracing::warn!(%worker, %error, "worker not woken");
                }
            }
        }
    }

    /// Sends the packets that wake a worker; the only answer is that it connects.
    pub(crate) async fn wake(&self, name: String) -> Result<(), Refusal> {
        let wanted = name.clone();
        let macs = self.scheduler.read(move |farm| farm.macs_of(&wanted)).await??;
        let targets = self.targets.clone();
        let sent = tokio::task::spawn_blocking(move || packet::send(&macs, targets.as_deref())).await;
        let failed = |error: &dyn std::fmt::Display| Refusal::failed("the worker could not be woken", error);
        sent.map_err(|panic| failed(&panic))?.map_err(|error| failed(&error))?;
        tracing::info!(%name, "wake-on-LAN packets sent");
        Ok(())
    }
}
