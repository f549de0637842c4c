//! A .blend on its way to frames on the disk: read, plan, submit, follow, fetch (decision 025).
//!
//! Each stage is a type, made by the one before it:
//!
//! ```text
//! Submission ── read ── ReadSubmission ── plan ── PlannedSubmission ── submit ── SubmittedJob ── follow ── Followed ── finish
//! ```
//!
//! A stage reports to an [`EventSender`] as it goes on. Nothing here prints, reads a terminal, or ends the program.

mod bring;
mod channel;
mod device;
mod earlier;
mod error;
mod event;
mod fetch;
mod finish;
mod follow;
mod marker;
mod plan;
#[cfg(test)]
mod samples;
mod submit;
mod throttle;

use std::path::PathBuf;

use kiln_types::{JobStanding, Needs, Order, Owner, Project};

pub(crate) use self::throttle::Throttle;
pub use self::{
    channel::{EventReceiver, EventSender, Question, QuestionTopic, SubmissionMessage},
    device::{DevicesFuture, LocalDevice, LocalDevices, RenderPlace},
    error::SubmissionError,
    event::{
        Baking, DeviceReason, FetchResult, FetchTotals, FollowEnd, JobDifference, JobOutcome, JobProgress,
        MissingFile, OtherFrames, OtherJob, RenderInputs, RenderPlan, RunningFrame, RunningFrames,
        SubmissionEvent, SubmissionReceipt, SubmissionResult,
    },
    finish::{Followed, failed_tasks},
    follow::{FollowOptions, JobHome, Stop},
    marker::Marker,
    plan::{PlannedSubmission, ReadSubmission},
    submit::{FetchTarget, SubmittedJob},
};
use crate::{Existing, PrepareError, Prepared, Request};

/// What is asked for.
#[derive(Debug, Clone)]
pub struct SubmissionOptions {
    /// The .blend.
    pub file: PathBuf,
    pub request: Request,
    /// The folder of the .blend where `None`.
    pub out: Option<PathBuf>,
    pub existing: Existing,
    pub job: JobOptions,
    /// A job that renders the same scene into the same folder already is joined, and frames that it lacks are added to it.
    /// Otherwise they are a job of their own.
    pub joins_running_job: bool,
    /// The folder in which this machine notes its jobs, to go on with them later. `None` where a job ends with the caller.
    pub data: Option<PathBuf>,
}

/// How a job stands among others, and what it needs.
#[derive(Debug, Clone, Default)]
pub struct JobOptions {
    pub user: Option<Owner>,
    pub project: Option<Project>,
    pub order: Order,
    pub held: bool,
    pub refuse_black: bool,
    pub frame_time_limit_s: Option<u32>,
    pub hang_s: Option<u32>,
    pub standing: JobStanding,
    pub needs: Needs,
}

/// A submission of which nothing was read yet.
#[derive(Debug)]
pub struct Submission {
    options: SubmissionOptions,
    events: EventSender,
}

impl Submission {
    pub fn new(options: SubmissionOptions, events: EventSender) -> Self {
        Self { options, events }
    }

    /// Reads the .blend and all that it needs, and hashes them, off the async threads.
    ///
    /// # Errors
    /// The .blend cannot be rendered as it is asked for, or files that it needs are missing.
    pub async fn read(self) -> Result<ReadSubmission, SubmissionError> {
        let Self { options, events } = self;
        events.tell(SubmissionEvent::Reading { file: options.file.clone() });
        let (file, request, reports) = (options.file.clone(), options.request.clone(), events.clone());
        let read = tokio::task::spawn_blocking(move || Prepared::reporting(&file, &request, &reports)).await;
        let read = read.map_err(SubmissionError::broken_off("reading the .blend"))?;
        if let Err(PrepareError::Missing(files)) = &read {
            let named = |file: &kiln_blend::MissingDependency| MissingFile {
                named_by: file.holder.clone(),
                file: file.to_string(),
            };
            events.tell(SubmissionEvent::Missing { files: files.iter().map(named).collect() });
        }
        let prepared = read?;
        for notice in &prepared.notices {
            events.tell(SubmissionEvent::Notice { text: notice.clone() });
        }
        Ok(ReadSubmission { options, events, prepared })
    }
}
