//! The jobs of all variants, followed together, and their results.

use std::sync::Arc;

use futures_util::future::join_all;

use super::{
    error::SubmissionError,
    event::{JobOutcome, SubmissionResult, VariantSummary, VariantsResult},
    finish::FollowedJob,
    follow::FollowOptions,
    submit::SubmittedJob,
};

/// The end of one variant.
#[derive(Debug)]
pub struct VariantResult {
    /// `None` if the submission has one variant.
    pub variant: Option<Arc<str>>,
    pub result: Result<Box<SubmissionResult>, SubmissionError>,
}

/// The job of one variant, which was followed until its end or until the caller stopped that.
pub struct VariantFollowed {
    variant: Option<Arc<str>>,
    followed: Result<FollowedJob, SubmissionError>,
}

/// Follows jobs until each has ended. If one cannot be followed, the others are.
pub async fn follow_all(jobs: Vec<SubmittedJob>, options: &FollowOptions) -> Vec<VariantFollowed> {
    let each = jobs.into_iter().map(|job| async {
        let variant = job.variant().cloned();
        VariantFollowed { variant, followed: job.follow(options).await }
    });
    join_all(each).await
}

impl VariantFollowed {
    /// Reads the result of the job, as [`FollowedJob::finish`] does.
    pub async fn finish(self) -> VariantResult {
        let result = match self.followed {
            Ok(followed) => followed.finish().await.map(Box::new),
            Err(error) => Err(error),
        };
        VariantResult { variant: self.variant, result }
    }
}

impl VariantResult {
    pub fn outcome(&self) -> JobOutcome {
        self.result.as_ref().map_or(JobOutcome::Failed, |result| result.outcome)
    }

    fn summary(&self) -> VariantSummary {
        let (variant, outcome) = (self.variant.clone().unwrap_or_default(), self.outcome());
        match &self.result {
            Ok(result) => VariantSummary {
                variant,
                outcome,
                job: result.job.as_ref().map(|job| job.id),
                out: result.out.clone(),
                frames: result.landed + result.kept + result.skipped,
                failed: result.failed.len(),
                error: result.fetch_error.clone(),
            },
            Err(error) => VariantSummary {
                variant,
                outcome,
                job: None,
                out: None,
                frames: 0,
                failed: 0,
                error: Some(error.to_string()),
            },
        }
    }
}

impl VariantsResult {
    /// Summarizes the results of all variants of a submission.
    pub fn of(results: &[VariantResult]) -> Self {
        let outcome = results.iter().map(VariantResult::outcome).max().unwrap_or(JobOutcome::Done);
        Self { outcome, variants: results.iter().map(VariantResult::summary).collect() }
    }
}
