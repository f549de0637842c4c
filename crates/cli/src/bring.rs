//! Brings the frames of a job home, beside whatever else a command does.

use std::time::Duration;

use kiln_client::{FetchError, Fetcher, Landed};
use tokio::sync::{mpsc, watch};

/// Between two tries to reach a server that is away.
pub const FIRST_PAUSE: Duration = Duration::from_millis(100);
pub const LONGEST_PAUSE: Duration = Duration::from_secs(5);

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
    let mut pause = FIRST_PAUSE;
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
                pause = FIRST_PAUSE;
                if wishes.changed().await.is_err() {
                    return;
                }
            }
            Err(FetchError::Client(error)) if error.is_transient() => {
                let _ = news.send(News::Again(error.to_string()));
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            Err(error) => {
                let _ = news.send(News::Failed(error));
                return;
            }
        }
    }
}
