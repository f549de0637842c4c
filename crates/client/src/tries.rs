//! How patient a download is.

use std::time::Duration;

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
        if self.0 > MOST || !failed.is_transient() {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(100) * 2u32.pow(self.0)).await;
        true
    }
}
