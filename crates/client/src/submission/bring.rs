//! Fetches the frames of a job in the background.

use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::{Backoff, FetchError, FetchedFrame, Fetcher};

/// Returns the waits for a server that is away while a job is followed.
pub(crate) fn backoff() -> Backoff {
    Backoff::new(Duration::from_millis(100), Duration::from_secs(5))
}

/// A report on the frames that are fetched.
pub(crate) enum FetchNews {
    Landed(FetchedFrame),
    /// The fetch was interrupted, and is tried again.
    Again(String),
    Failed(FetchError),
    /// Everything is here that was committed at the time of the last request.
    Done,
}

/// A request to the fetcher: a sweep for each change, and the last one after the job has ended.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct FetchRequest {
    pub sweep: u64,
    pub is_last: bool,
}

/// Sweeps at each request, until the last one is fulfilled.
pub(crate) async fn fetch_frames(
    mut fetcher: Fetcher,
    mut requests: watch::Receiver<FetchRequest>,
    news: mpsc::UnboundedSender<FetchNews>,
) {
    let mut backoff = backoff();
    loop {
        let request = *requests.borrow_and_update();
        let landed = |landed| {
            let _ = news.send(FetchNews::Landed(landed));
        };
        match fetcher.sweep(landed).await {
            Ok(()) if request.is_last => {
                fetcher.finish().await;
                let _ = news.send(FetchNews::Done);
                return;
            }
            Ok(()) => {
                backoff.succeeded();
                if requests.changed().await.is_err() {
                    return;
                }
            }
            Err(FetchError::Client(error)) if error.is_transient() => {
                let _ = news.send(FetchNews::Again(error.to_string()));
                tokio::time::sleep(backoff.failed()).await;
            }
            Err(error) => {
                let _ = news.send(FetchNews::Failed(error));
                return;
            }
        }
    }
}
