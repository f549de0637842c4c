//! Brings the frames of a job home, beside whatever else a command does.

use std::time::Duration;

use kiln_client::{Backoff, FetchError, Fetcher, Landed};
use tokio::sync::{mpsc, watch};

/// The waits of a command that stays with a job for a server that is away.
pub fn backoff() -> Backoff {
    Backoff::new(Duration::from_millis(100), Duration::from_secs(5))
}

/// What becomes of the frames that come home.
pub enum News {
    Landed(Landed),
    /// Broken off, and tried again.
    Again(String),
    Failed(FetchError),
    /// Everything that was committed when the last wish came is home.
    Home,
}

/// What the fetcher is asked: a sweep for each change, and the last one after the job has ended.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wish {
    pub sweep: u64,
    pub last: bool,
}

/// Sweeps at each wish, until the last one is fulfilled.
pub async fn bring(
    mut fetcher: Fetcher,
    mut wishes: watch::Receiver<Wish>,
    news: mpsc::UnboundedSender<News>,
) {
    let mut backoff = backoff();
    loop {
        let wish = *wishes.borrow_and_update();
        let landed = |landed| {
            let _ = news.send(News::Landed(landed));
        };
        match fetcher.sweep(landed).await {
            Ok(()) if wish.last => {
                fetcher.finish().await;
                let _ = news.send(News::Home);
                return;
            }
            Ok(()) => {
                backoff.succeeded();
                if wishes.changed().await.is_err() {
                    return;
                }
            }
            Err(FetchError::Client(error)) if error.is_transient() => {
                let _ = news.send(News::Again(error.to_string()));
                tokio::time::sleep(backoff.failed()).await;
            }
            Err(error) => {
                let _ = news.send(News::Failed(error));
                return;
            }
        }
    }
}
