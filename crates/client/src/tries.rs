//! The patience of a transfer, up or down.

use std::time::Duration;

use kiln_api::ProblemCode;

use crate::{Backoff, ClientError};

/// The number of times that a broken transfer is tried again without a byte of progress. They wait 6 to 13 seconds in all:
/// a server may start again meanwhile.
const MOST: u32 = 7;
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_millis(3200);

/// Tries since the last byte of progress.
#[derive(Debug)]
pub(crate) struct Tries {
    count: u32,
    backoff: Backoff,
}

impl Default for Tries {
    fn default() -> Self {
        Self { count: 0, backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT) }
    }
}

impl Tries {
    pub(crate) fn progress(&mut self) {
        self.count = 0;
        self.backoff.succeeded();
    }

    /// Waits before the next try, each time longer. Returns false where there is none.
    pub(crate) async fn again(&mut self, failed: &ClientError) -> bool {
        self.count += 1;
        // A conflict: what was there a moment ago is gone; the next question says what is missing now.
        let heals = failed.is_transient() || failed.code() == Some(ProblemCode::Conflict);
        if self.count > MOST || !heals {
            return false;
        }
        tokio::time::sleep(self.backoff.failed()).await;
        true
    }
}
