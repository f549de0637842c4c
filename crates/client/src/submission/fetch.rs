//! Fetches the frames that a job has made so far, without following it.

use kiln_types::SuspiciousFrames;

use super::{error::SubmissionError, event::FetchTotals, follow::frame_fetched, submit::SubmittedJob};
use crate::FetchResult;

impl SubmittedJob {
    /// Fetches the frames that the job has made so far; `None` if they have no folder.
    pub async fn fetch(self) -> Result<Option<FetchTotals>, SubmissionError> {
        let Some(target) = self.target else { return Ok(None) };
        let mut totals = FetchTotals {
            job: self.job.id,
            state: self.job.state,
            out: target.path(),
            fetched: 0,
            there: 0,
            replaced: 0,
            left: Vec::new(),
            gone: Vec::new(),
            suspicious: SuspiciousFrames::default(),
        };
        let mut suspicious = Vec::new();
        let mut fetcher = target.fetcher(&self.client, &self.job);
        fetcher
            .sweep(|landed| {
                match landed.result {
                    FetchResult::Written => totals.fetched += 1,
                    FetchResult::Replaced => {
                        totals.fetched += 1;
                        totals.replaced += 1;
                    }
                    FetchResult::AlreadyThere => totals.there += 1,
                    FetchResult::Left => totals.left.extend(landed.left.iter().cloned()),
                    FetchResult::Gone => totals.gone.push(landed.frame),
                }
                if matches!(
                    landed.result,
                    FetchResult::Written | FetchResult::Replaced | FetchResult::AlreadyThere
                ) {
                    suspicious.push((landed.frame, landed.suspicious.clone()));
                }
                self.events.tell(frame_fetched(landed));
            })
            .await?;
        fetcher.finish().await;
        totals.suspicious = SuspiciousFrames::collect(suspicious);
        if let Some((data, marker)) = &self.marker
            && self.job.state.is_end()
            && totals.left.is_empty()
        {
            marker.forget(data);
        }
        Ok(Some(totals))
    }
}
