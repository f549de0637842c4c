//! Wake-on-LAN: machines that sleep are called when work waits for them, or a person says so.

mod decide;
mod packet;
mod wakeable;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use kiln_types::WorkerId;
use tokio_util::sync::CancellationToken;

use crate::scheduler::{Refusal, SchedulerHandle};
use decide::Alarm;

/// Between two looks at what waits.
const LOOK_EVERY: Duration = Duration::from_secs(5);

pub(crate) struct Waker {
    pub scheduler: SchedulerHandle,
    /// Every network of this machine where `None`.
    pub targets: Option<Vec<SocketAddr>>,
    /// How long work waits before somebody is woken for it.
    pub patience: Duration,
}

impl Waker {
    /// Calls machines that work waits for, until the server stops.
    pub(crate) async fn run(&self, stop: CancellationToken) {
        let mut alarm = Alarm::new(self.patience);
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = looks.tick() => {}
            }
            let Ok((waiting, sleepers)) = self.scheduler.look(|farm| farm.wakeable()).await else { return };
            for worker in alarm.due(&waiting, &sleepers, Instant::now()) {
                if let Err(error) = self.call(worker).await {
                    tracing::warn!(%worker, %error, "a sleeping worker cannot be woken");
                }
            }
        }
    }

    async fn call(&self, worker: WorkerId) -> Result<(), Refusal> {
        let name = self.scheduler.look(move |farm| farm.name_of(worker)).await?;
        self.wake(name).await
    }

    /// Sends the call; nobody answers it but the worker itself, when it is up.
    ///
    /// # Errors
    /// Where there is no such worker, it is here already, nothing is known of its network cards, or the call cannot
    /// leave.
    pub(crate) async fn wake(&self, name: String) -> Result<(), Refusal> {
        let wanted = name.clone();
        let macs = self.scheduler.look(move |farm| farm.macs_of(&wanted)).await??;
        let targets = self.targets.clone();
        let sent = tokio::task::spawn_blocking(move || packet::send(&macs, targets.as_deref())).await;
        let sent = sent.map_err(|error| Refusal::failed("the wake-up packet was not sent", error))?;
        sent.map_err(|error| Refusal::failed("the wake-up packet could not be sent", error))?;
        tracing::info!(%name, "wake-up packet sent");
        Ok(())
    }
}
