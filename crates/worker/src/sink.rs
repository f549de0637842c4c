//! The way of events from the parts of a worker to the actor that owns them.

use std::{fmt, sync::Arc};

use tokio::sync::mpsc::UnboundedSender;

/// Sends the events of one part. The part knows its own events only, and not those of the parts around it.
pub(crate) struct EventSink<T>(Arc<dyn Fn(T) -> bool + Send + Sync>);

impl<T> EventSink<T> {
    /// Sends each event as `wrap` makes it.
    pub(crate) fn new<W: Send + 'static>(
        sender: UnboundedSender<W>,
        wrap: impl Fn(T) -> W + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(move |event| sender.send(wrap(event)).is_ok()))
    }

    /// Returns false if the worker has ended.
    pub(crate) fn send(&self, event: T) -> bool {
        (self.0)(event)
    }
}

impl<T> Clone for EventSink<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> fmt::Debug for EventSink<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EventSink")
    }
}
