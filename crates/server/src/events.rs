//! The numbered sequence of the farm's changes: into the records, and out to all listeners.

use std::sync::Arc;

use futures_util::{Stream, stream};
use kiln_api::Change;
use kiln_store::{NewEvent, Store, StoreError, StoredEvent};
use kiln_types::{EventNumber, JobId, WorkerId};
use serde_json::Value;
use tokio::sync::broadcast::{self, error::RecvError};

/// Events by which a slow listener may lag before it reads the records again.
const BACKLOG: usize = 1024;
/// Events that are read from the records at once.
const PAGE: u32 = 500;

/// Returns an event that has no number yet. It holds the worker's name, because a worker may be renamed or removed.
pub(crate) fn new_event(
    at_ms: i64,
    job: Option<JobId>,
    worker: Option<(WorkerId, String)>,
    change: &Change,
) -> NewEvent {
    let mut data = serde_json::to_value(change).unwrap_or_default();
    let kind = data.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    let (worker, name) = worker.unzip();
    if let (Some(name), Value::Object(fields)) = (name, &mut data) {
        fields.insert("worker".to_owned(), Value::String(name));
    }
    NewEvent { at_ms, job, worker, kind, data }
}

/// An event, ready to be sent.
#[derive(Debug)]
pub(crate) struct EncodedEvent {
    pub number: EventNumber,
    pub job: Option<JobId>,
    pub kind: String,
    /// A [`kiln_api::Event`].
    pub json: String,
}

impl EncodedEvent {
    fn new(event: StoredEvent) -> Self {
        let mut data = event.data;
        if let Value::Object(fields) = &mut data {
            fields.insert("number".to_owned(), event.number.0.into());
            fields.insert("at_ms".to_owned(), event.at_ms.into());
            if let Some(job) = event.job {
                fields.insert("job".to_owned(), job.0.into());
            }
        }
        Self { number: event.number, job: event.job, kind: event.kind, json: data.to_string() }
    }
}

/// Sends events to everyone who listens now.
#[derive(Debug)]
pub(crate) struct Hub {
    sender: broadcast::Sender<Arc<EncodedEvent>>,
}

impl Hub {
    pub(crate) fn new() -> Self {
        Self { sender: broadcast::Sender::new(BACKLOG) }
    }

    /// Sends events that have just been written, in their order.
    pub(crate) fn publish(&self, events: &[StoredEvent]) {
        if self.sender.receiver_count() == 0 {
            return;
        }
        for event in events {
            let _ = self.sender.send(Arc::new(EncodedEvent::new(event.clone())));
        }
    }

    /// Returns the events after `since`, or from now on, of one job or of all, without gap or duplicate. The stream ends
    /// with an error if the records cannot be read.
    pub(crate) async fn follow(
        self: &Arc<Self>,
        store: Store,
        since: Option<EventNumber>,
        job: Option<JobId>,
    ) -> Result<impl Stream<Item = Result<Arc<EncodedEvent>, StoreError>> + use<>, StoreError> {
        // Subscribed before the records are read: an event written in between arrives twice, and is dropped once.
        let live = self.sender.subscribe();
        let newest = store.last_event().await?;
        let last = since.map_or(newest, |since| since.min(newest));
        let follower = Follower {
            hub: self.clone(),
            store,
            job,
            live,
            last,
            page: Vec::new().into_iter(),
            is_reading: true,
        };
        Ok(stream::try_unfold(follower, Follower::next))
    }
}

struct Follower {
    hub: Arc<Hub>,
    store: Store,
    job: Option<JobId>,
    live: broadcast::Receiver<Arc<EncodedEvent>>,
    /// The number of the last event that was returned or left out.
    last: EventNumber,
    page: std::vec::IntoIter<StoredEvent>,
    /// Reads from the records, until they hold no newer event.
    is_reading: bool,
}

impl Follower {
    async fn next(mut self) -> Result<Option<(Arc<EncodedEvent>, Self)>, StoreError> {
        loop {
            if let Some(event) = self.page.next() {
                self.last = event.number;
                return Ok(Some((Arc::new(EncodedEvent::new(event)), self)));
            }
            if self.is_reading {
                let page = self.store.events_after(self.last, PAGE, self.job).await?;
                self.is_reading = !page.is_empty();
                self.page = page.into_iter();
                continue;
            }
            match self.live.recv().await {
                Ok(event) if event.number <= self.last => {}
                Ok(event) => {
                    self.last = event.number;
                    if self.job.is_none() || event.job == self.job {
                        return Ok(Some((event, self)));
                    }
                }
                Err(RecvError::Lagged(_)) => {
                    self.live = self.hub.sender.subscribe();
                    self.is_reading = true;
                }
                Err(RecvError::Closed) => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, time::Duration};

    use futures_util::TryStreamExt;
    use kiln_store::{Durability, Write};

    use super::*;

    async fn write(store: &Store, hub: &Hub, job: u64, count: usize) {
        let event = || Write::Event(new_event(1, Some(JobId(job)), None, &Change::JobDeleted));
        let events = store.commit((0..count).map(|_| event()).collect()).await.unwrap();
        hub.publish(&events);
    }

    /// Returns the numbers of the events up to the newest.
    async fn numbers(
        stream: impl Stream<Item = Result<Arc<EncodedEvent>, StoreError>>,
        newest: u64,
    ) -> Vec<u64> {
        let mut stream = pin!(stream);
        let mut numbers = Vec::new();
        while numbers.last() != Some(&newest) {
            let next = tokio::time::timeout(Duration::from_secs(10), stream.try_next()).await;
            numbers.push(next.unwrap().unwrap().unwrap().number.0);
        }
        numbers
    }

    #[tokio::test]
    async fn a_listener_that_lags_reads_the_records_again() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(folder.path(), Durability::Ephemeral).await.unwrap();
        let hub = Arc::new(Hub::new());
        write(&store, &hub, 1, 10).await;
        let all = hub.follow(store.clone(), Some(EventNumber(3)), None).await.unwrap();
        let fresh = hub.follow(store.clone(), None, Some(JobId(1))).await.unwrap();
        let other = hub.follow(store.clone(), Some(EventNumber(0)), Some(JobId(2))).await.unwrap();
        // Far more than the listeners' queues hold, before any of them listens.
        for _ in 0..3 {
            write(&store, &hub, 1, BACKLOG).await;
        }
        write(&store, &hub, 2, 1).await;
        let newest = 11 + 3 * BACKLOG as u64;
        assert_eq!(numbers(all, newest).await, (4..=newest).collect::<Vec<_>>());
        assert_eq!(numbers(fresh, newest - 1).await, (11..newest).collect::<Vec<_>>());
        assert_eq!(numbers(other, newest).await, [newest]);
    }
}
