//! The repetition of a transfer that fails.

use std::time::Duration;

use kiln_api::ProblemCode;

use crate::{Backoff, ClientError};

/// The number of tries of a transfer without progress. They wait 6 to 13 seconds in all, in which a server can start again.
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

    /// Waits before the next try, longer each time. Returns false if there is none.
    pub(crate) async fn again(&mut self, failed: &ClientError) -> bool {
        self.count += 1;
        // After a conflict, the next try asks again what the server lacks.
        let is_temporary = failed.is_transient() || failed.code() == Some(ProblemCode::Conflict);
        if self.count > MOST || !is_temporary {
            return false;
        }
        tokio::time::sleep(self.backoff.failed()).await;
        true
    }
}
