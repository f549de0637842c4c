//! The handle by which requests and links reach the scheduler.

use std::sync::Arc;

use kiln_types::WorkerId;
use tokio::sync::{mpsc, oneshot};

use super::{
    farm::FarmState,
    input::{Input, Reply, StateReader},
    refusal::Refusal,
};
use crate::{
    arrivals::{Arrival, Arrivals},
    clock::Clock,
};

/// Sends inputs to the scheduler; cheap to clone.
#[derive(Clone)]
pub(crate) struct SchedulerHandle {
    pub(super) messages: mpsc::Sender<Input>,
    pub(super) requests: mpsc::Sender<Input>,
    pub(super) arrivals: Arc<Arrivals>,
    pub(super) clock: Clock,
}

impl SchedulerHandle {
    /// Notes a new connection of this worker; [`Input::Disconnected`] ends it.
    pub(crate) fn connect(&self, worker: WorkerId) -> Arc<Arrival> {
        self.arrivals.connect(worker, self.clock.now())
    }

    /// Notes that the connection has passed on its message and listens again.
    pub(crate) fn listen(&self, arrival: &Arrival) {
        arrival.listen(self.clock.now());
    }

    /// Sends an input of a worker's link, in order. Waits while the queue is full. After the end of the scheduler the input is
    /// dropped, with its reply.
    pub(crate) async fn tell(&self, input: Input) {
        let _ = self.messages.send(input).await;
    }

    /// Sends a request and waits for its answer, which arrives once its consequences are on disk.
    pub(crate) async fn ask<T>(&self, input: impl FnOnce(Reply<T>) -> Input) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        let _ = self.requests.send(input(reply)).await;
        answer.await.unwrap_or_else(|_| Err(self.unanswered()))
    }

    /// Returns the reason for which no answer came: the scheduler has ended, or has dropped the batch.
    fn unanswered(&self) -> Refusal {
        if self.requests.is_closed() { Refusal::Stopping } else { Refusal::BatchDropped }
    }

    /// Reads the live state, as it is on disk.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&FarmState) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        self.read_by(&self.requests, read).await
    }

    /// Reads the live state once all messages that were sent before are on disk.
    pub(crate) async fn read_after_messages<T: Send + 'static>(
        &self,
        read: impl FnOnce(&FarmState) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        self.read_by(&self.messages, read).await
    }

    async fn read_by<T: Send + 'static>(
        &self,
        queue: &mpsc::Sender<Input>,
        read: impl FnOnce(&FarmState) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        let read: StateReader = Box::new(move |farm| {
            // The request may be gone.
            let _ = reply.send(read(farm));
        });
        let _ = queue.send(Input::Read(read)).await;
        answer.await.map_err(|_| self.unanswered())
    }
}
