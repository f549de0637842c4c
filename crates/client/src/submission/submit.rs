//! Submits the frames that are left to render.

use std::{
    collections::HashSet,
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::Arc,
};

use kiln_api::{JobView, SubmitJob};
use kiln_types::{FrameSet, JobId, Simulations};

use super::{
    SubmissionOptions,
    channel::EventSender,
    earlier::Remaining,
    error::SubmissionError,
    event::{SubmissionEvent, SubmissionReceipt},
    marker::Marker,
    plan::{PlannedSubmission, PlannedVariant, load_manifest, open_folder},
    throttle::Throttle,
    variants::VariantResult,
};
use crate::{Client, Existing, Fetcher, Manifest, OutFolder, Prepared, ToRender, UploadProgress};

/// A job on the server, and the folder that its frames go to.
pub struct SubmittedJob {
    pub(crate) client: Client,
    pub(crate) job: JobView,
    pub(crate) target: Option<FetchTarget>,
    /// The comparison of the output folder at the submission.
    pub(crate) before: Option<ToRender>,
    /// Sentences about the scene's files.
    pub(crate) notices: Vec<String>,
    pub(crate) marker: Option<(PathBuf, Marker)>,
    pub(crate) events: EventSender,
}

/// The folder that the frames of a job go to.
pub struct FetchTarget {
    folder: Arc<OutFolder>,
    manifest: Manifest,
    existing: Existing,
    /// The job was submitted from this machine.
    is_of_here: bool,
}

impl FetchTarget {
    /// Opens the folder for the frames of a .blend with this name (without its ending).
    pub async fn open(
        out: PathBuf,
        blend: &str,
        existing: Existing,
        is_of_here: bool,
    ) -> Result<Self, SubmissionError> {
        let folder = Arc::new(open_folder(out).await?);
        let manifest = load_manifest(&folder, blend)?;
        Ok(Self { folder, manifest, existing, is_of_here })
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    pub(crate) fn fetcher(self, client: &Client, job: &JobView) -> Fetcher {
        Fetcher::new(client.clone(), job, self.is_of_here, self.existing, self.folder, self.manifest)
    }
}

/// A variant after its submission.
pub enum VariantRun {
    Job(Box<SubmittedJob>),
    /// Nothing was left to render.
    Ended(VariantResult),
}

impl VariantRun {
    pub fn job(&self) -> Option<&SubmittedJob> {
        match self {
            Self::Job(job) => Some(job),
            Self::Ended(_) => None,
        }
    }
}

/// A variant that is about to be submitted.
struct Outgoing {
    planned: PlannedVariant,
    job: OutgoingJob,
}

enum OutgoingJob {
    /// A job that renders the same already.
    Taken(Box<JobView>),
    New(Box<SubmitJob>),
}

impl PlannedSubmission {
    /// Sends the files, and submits a job of the remaining frames of each variant or continues one that renders the same. Saves
    /// on this machine where the frames go. After an error, no new job is left.
    pub async fn submit(self, client: &Client) -> Result<Vec<VariantRun>, SubmissionError> {
        let Self { options, events, variants } = self;
        let mut outgoing = Vec::new();
        for planned in variants {
            outgoing.push(match &planned.to_render.frames {
                None => Err(planned.nothing_left()),
                Some(frames) => {
                    let frames = frames.clone();
                    let job = planned.job(client, &options, frames).await?;
                    Ok(Outgoing { planned, job })
                }
            });
        }
        let mut sent = HashSet::new();
        for Outgoing { planned, .. } in outgoing.iter().flatten().filter(|one| one.is_new()) {
            planned.tell_unbaked();
            if sent.insert(planned.prepared.session.bundle) {
                send(client, &planned.prepared, &events).await?;
            }
        }
        let (mut runs, mut made) = (Vec::new(), Vec::new());
        for one in outgoing {
            let Outgoing { planned, job } = match one {
                Ok(outgoing) => outgoing,
                Err(ended) => {
                    runs.push(VariantRun::Ended(ended));
                    continue;
                }
            };
            let job = match job {
                OutgoingJob::Taken(job) => *job,
                OutgoingJob::New(request) => match client.submit(&request).await {
                    Ok(job) => {
                        made.push(job.id);
                        job
                    }
                    Err(error) => {
                        cancel_all(client, &made).await;
                        return Err(error.into());
                    }
                },
            };
            runs.push(VariantRun::Job(Box::new(planned.submitted(client, job, options.data.as_deref()))));
        }
        Ok(runs)
    }
}

/// Sends the files of a bundle.
async fn send(client: &Client, prepared: &Prepared, events: &EventSender) -> Result<(), SubmissionError> {
    let mut throttle = Throttle::default();
    let sent = |UploadProgress { done, total, there }: UploadProgress| {
        if throttle.is_due(done == total) {
            events.tell(SubmissionEvent::Uploading { bytes_done: done, bytes: total, bytes_there: there });
        }
    };
    Ok(client.send_bundle(prepared, sent).await?)
}

async fn cancel_all(client: &Client, jobs: &[JobId]) {
    for job in jobs {
        if let Err(error) = client.cancel(*job).await {
            tracing::warn!(%job, %error, "job not cancelled");
        }
    }
}

impl Outgoing {
    fn is_new(&self) -> bool {
        matches!(self.job, OutgoingJob::New(_))
    }
}

impl PlannedVariant {
    /// Returns the job of these frames: one that renders them already, or a request for those that it does not render.
    async fn job(
        &self,
        client: &Client,
        all: &SubmissionOptions,
        frames: FrameSet,
    ) -> Result<OutgoingJob, SubmissionError> {
        let options = &all.job;
        let mut request = SubmitJob {
            user: options.user.clone(),
            project: options.project.clone(),
            held: options.held,
            hold_after: options.hold_after.map(NonZeroU32::get),
            hang_s: options.hang_s,
            refuse_black: options.refuse_black,
            scheduling: options.scheduling.clone(),
            requirements: options.requirements.clone(),
            ..self.prepared.job(frames.clone(), options.order, options.frame_time_limit_s)
        };
        let joins = all.joins_running_job;
        // A job with other scheduling options is another one.
        if let Some(running) = self.running.as_ref().filter(|one| joins || one.is_asked_as(&request)) {
            match running.take(&self.events, client, frames, joins).await? {
                Remaining::Nothing(job) => return Ok(OutgoingJob::Taken(job)),
                Remaining::Frames(frames) => request.frames = Some(frames),
            }
        }
        Ok(OutgoingJob::New(Box::new(request)))
    }

    fn tell_unbaked(&self) {
        let simulations = self.prepared.unbaked();
        if !simulations.is_empty() {
            let bakes = self.prepared.session.policy.simulations == Simulations::Bake;
            self.events.tell(SubmissionEvent::Unbaked { simulations, bakes });
        }
    }

    fn submitted(self, client: &Client, job: JobView, data: Option<&Path>) -> SubmittedJob {
        let marker = Marker {
            server: client.url().to_owned(),
            job: job.id,
            created_ms: job.created_ms,
            out: self.folder.path().to_owned(),
            blend: self.prepared.session.own_stem().to_owned(),
            existing: self.existing,
        };
        if let Some(data) = data
            && let Err(error) = marker.save(data)
        {
            let (data, reason) = (data.to_owned(), error.to_string());
            self.events.tell(SubmissionEvent::NotRemembered { data, reason });
        }
        let ToRender { kept, replaced, older, .. } = self.to_render;
        self.events.tell(SubmissionEvent::Submitted(Box::new(SubmissionReceipt {
            new: self.running.as_ref().is_none_or(|running| running.id() != job.id),
            job: job.clone(),
            kept,
            replaced,
            older,
            notices: self.prepared.notices.clone(),
        })));
        let target = FetchTarget {
            folder: self.folder,
            manifest: self.manifest,
            existing: self.existing,
            is_of_here: true,
        };
        SubmittedJob {
            client: client.clone(),
            job,
            target: Some(target),
            before: Some(self.to_render),
            notices: self.prepared.notices,
            marker: data.map(|data| (data.to_owned(), marker)),
            events: self.events,
        }
    }
}

impl SubmittedJob {
    /// Attaches to a job that exists. Its frames are fetched if there is a target. `marker` is that of this machine, with its
    /// folder.
    pub fn attach(
        client: Client,
        job: JobView,
        target: Option<FetchTarget>,
        marker: Option<(PathBuf, Marker)>,
        events: EventSender,
    ) -> Self {
        Self { client, job, target, before: None, notices: Vec::new(), marker, events }
    }

    pub fn job(&self) -> &JobView {
        &self.job
    }

    /// Returns the name of its variant, if the submission has several.
    pub fn variant(&self) -> Option<&Arc<str>> {
        self.events.variant()
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Returns the folder that its frames are fetched to, if they are.
    pub fn out(&self) -> Option<PathBuf> {
        self.target.as_ref().map(FetchTarget::path)
    }

    /// Leaves the job to the farm. The output folder stays even if it is empty, because the frames come later.
    pub fn leave(self) -> JobView {
        if let Some(target) = &self.target {
            target.folder.keep();
        }
        self.job
    }
}
