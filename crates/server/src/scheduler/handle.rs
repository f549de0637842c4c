//! The others' way to the scheduler.

use std::sync::Arc;

use kiln_types::WorkerId;
use tokio::sync::{mpsc, oneshot};

use super::{
    farm::FarmState,
    input::{Input, Look, Reply},
    refusal::Refusal,
};
use crate::{
    arrivals::{Arrival, Arrivals},
    clock::Clock,
};

/// Speaks to the scheduler; cheap to clone.
#[derive(Clone)]
pub(crate) struct SchedulerHandle {
    pub(super) told: mpsc::Sender<Input>,
    pub(super) asked: mpsc::Sender<Input>,
    pub(super) arrivals: Arc<Arrivals>,
    pub(super) clock: Clock,
}

impl SchedulerHandle {
    /// A connection of this worker begins; [`Input::Gone`] ends it.
    pub(crate) fn connect(&self, worker: WorkerId) -> Arc<Arrival> {
        self.arrivals.connect(worker, self.clock.now())
    }

    /// The connection has handed on what it received, and listens again.
    pub(crate) fn listen(&self, arrival: &Arrival) {
        arrival.listen(self.clock.now());
    }

    /// Hands on an input of a worker's link; inputs of one link keep their order. Waits while the scheduler is behind. An
    /// input after the scheduler's end is dropped, its reply with it.
    pub(crate) async fn tell(&self, input: Input) {
        let _ = self.told.send(input).await;
    }

    /// Sends an input and waits for its answer, which comes when its consequences are on disk.
    pub(crate) async fn ask<T>(&self, input: impl FnOnce(Reply<T>) -> Input) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        let _ = self.asked.send(input(reply)).await;
        answer.await.unwrap_or_else(|_| Err(self.unanswered()))
    }

    /// The answer that nobody gave: the scheduler has ended, or has dropped the batch.
    fn unanswered(&self) -> Refusal {
        if self.asked.is_closed() { Refusal::Stopping } else { Refusal::BatchDropped }
    }

    /// Reads the live state, as it is on disk.
    pub(crate) async fn look<T, F>(&self, look: F) -> Result<T, Refusal>
    where
        T: Send + 'static,
        F: FnOnce(&FarmState) -> T + Send + 'static,
    {
        self.look_by(&self.asked, look).await
    }

    /// The same, when all that was told before is on disk.
    pub(crate) async fn look_behind<T, F>(&self, look: F) -> Result<T, Refusal>
    where
        T: Send + 'static,
        F: FnOnce(&FarmState) -> T + Send + 'static,
    {
        self.look_by(&self.told, look).await
    }

    async fn look_by<T, F>(&self, way: &mpsc::Sender<Input>, look: F) -> Result<T, Refusal>
    where
        T: Send + 'static,
        F: FnOnce(&FarmState) -> T + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let look: Look = Box::new(move |farm| {
            // The request may be gone.
            let _ = reply.send(look(farm));
        });
        let _ = way.send(Input::Look(look)).await;
        answer.await.map_err(|_| self.unanswered())
    }
}
