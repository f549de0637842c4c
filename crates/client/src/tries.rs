//! How patient a transfer is, up or down.

use std::time::Duration;

use kiln_api::ProblemCode;

use crate::ClientError;

/// How often a broken transfer is taken up again without a byte of progress.
const MOST: u32 = 5;

/// Tries since the last byte of progress.
#[derive(Debug, Default)]
pub(crate) struct Tries(u32);

impl Tries {
    pub(crate) fn progress(&mut self) {
        self.0 = 0;
    }

    /// Waits before the next try, each time longer; whether there is one.
    pub(crate) async fn again(&mut self, failed: &ClientError) -> bool {
        self.0 += 1;
        // A conflict: what was there a moment ago is gone; the next question says what is missing now.
        let heals = failed.is_transient() || failed.code() == Some(ProblemCode::Conflict);
        if self.0 > MOST || !heals {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(100) * 2u32.pow(self.0)).await;
        true
    }
}
