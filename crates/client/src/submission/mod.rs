//! Submissions, from a .blend to frames on the disk: read, plan, submit, follow, fetch (decision 025).
//!
//! Each stage is a type, made by the one before it:
//!
//! ```text
//! Submission ── read ── ReadSubmission ── plan ── PlannedSubmission ── submit ── SubmittedJob ── follow ── FollowedJob ── finish
//! ```
//!
//! A stage reports to an [`EventSender`]. Nothing here prints, reads a terminal, or ends the program.

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
mod variant;
mod variants;

use std::{
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use kiln_types::{JobRequirements, JobScheduling, Order, Owner, Project, RenderSettings};

pub(crate) use self::throttle::Throttle;
pub use self::{
    channel::{EventReceiver, EventSender, Question, QuestionTopic, SubmissionMessage},
    device::{DevicesFuture, LocalDevice, LocalDevices, RenderPlace},
    error::SubmissionError,
    event::{
        Baking, DeviceReason, FetchTotals, FollowEnd, JobDifference, JobOutcome, JobProgress, MissingFile,
        OtherFrames, OtherJob, RenderInputs, RenderPlan, RunningFrame, RunningFrames, SubmissionEvent,
        SubmissionReceipt, SubmissionResult, VariantEvent, VariantJob, VariantSummary, VariantsResult,
    },
    finish::{FollowedJob, failed_tasks},
    follow::{FollowOptions, JobHome, Stop},
    marker::Marker,
    plan::{PlannedSubmission, ReadSubmission},
    submit::{FetchTarget, SubmittedJob, VariantRun},
    variant::{MAX_VARIANTS, VariantChoices, VariantError},
    variants::{VariantFollowed, VariantResult, follow_all},
};
use self::{plan::ReadVariant, variant::Variant};
use crate::{Existing, PrepareError, Prepared, Request};

/// The request of a submission.
#[derive(Debug, Clone)]
pub struct SubmissionOptions {
    pub choices: VariantChoices,
    /// The request of every variant, whose settings `choices` overrides.
    pub request: Request,
    /// A folder, or a pattern with tokens such as `{scene}`; the folder of the .blend if `None`. Without tokens, each of several
    /// variants gets a folder in it.
    pub out: Option<PathBuf>,
    pub existing: Existing,
    pub job: JobOptions,
    /// A job that renders the same scene into the same folder gets the frames that it lacks. Otherwise they become a job of
    /// their own.
    pub joins_running_job: bool,
    /// The folder in which this machine saves its jobs, to continue them later. `None` if a job ends with the caller.
    pub data: Option<PathBuf>,
}

/// The scheduling options of a job, and its requirements.
#[derive(Debug, Clone, Default)]
pub struct JobOptions {
    pub user: Option<Owner>,
    pub project: Option<Project>,
    pub order: Order,
    pub held: bool,
    /// The job is paused after this number of frames of its order, until a person resumes it.
    pub hold_after: Option<NonZeroU32>,
    pub refuse_black: bool,
    pub frame_time_limit_s: Option<u32>,
    pub hang_s: Option<u32>,
    pub scheduling: JobScheduling,
    pub requirements: JobRequirements,
}

/// A submission whose files are not read.
#[derive(Debug)]
pub struct Submission {
    options: SubmissionOptions,
    events: EventSender,
}

impl Submission {
    pub fn new(options: SubmissionOptions, events: EventSender) -> Self {
        Self { options, events }
    }

    /// Reads and hashes each .blend once, with the files that its variants need, off the async threads.
    pub async fn read(self) -> Result<ReadSubmission, SubmissionError> {
        let Self { options, events } = self;
        let mut all = options.choices.variants()?;
        let mut variants = Vec::new();
        for (at, file) in options.choices.files.iter().enumerate() {
            let of_file: Vec<Variant> = all.extract_if(.., |variant| variant.file == at).collect();
            let settings =
                of_file.iter().map(|variant| variant.settings(&options.request.settings)).collect();
            let prepared = read_file(file, &options.request, settings, &events).await?;
            let labelled = prepared.into_iter().zip(of_file).map(|(mut prepared, variant)| {
                prepared.label = variant.label(&options.choices);
                ReadVariant { variant, prepared }
            });
            variants.extend(labelled);
        }
        Ok(ReadSubmission { options, events, variants })
    }
}

/// Reads a .blend for all of these settings.
async fn read_file(
    file: &Path,
    request: &Request,
    settings: Vec<RenderSettings>,
    events: &EventSender,
) -> Result<Vec<Prepared>, SubmissionError> {
    events.tell(SubmissionEvent::Reading { file: file.to_owned() });
    let (file, request, reports) = (file.to_owned(), request.clone(), events.clone());
    let read =
        tokio::task::spawn_blocking(move || Prepared::variants(&file, &request, &settings, &reports)).await;
    let read = read.map_err(SubmissionError::broken_off("reading the .blend"))?;
    if let Err(PrepareError::Missing(files)) = &read {
        let named = |file: &kiln_blend::MissingDependency| MissingFile {
            named_by: file.holder.clone(),
            file: file.to_string(),
        };
        events.tell(SubmissionEvent::Missing { files: files.iter().map(named).collect() });
    }
    let prepared = read?;
    // The variants have the same files, and so the same notices.
    for notice in prepared.iter().take(1).flat_map(|one| &one.notices) {
        events.tell(SubmissionEvent::Notice { text: notice.clone() });
    }
    Ok(prepared)
}
