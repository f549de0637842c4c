//! From what is left to render to a job at the server.

use std::{path::PathBuf, sync::Arc};

use kiln_api::{JobView, SubmitJob};
use kiln_types::Simulations;

use super::{
    channel::EventSender,
    earlier::Remaining,
    error::SubmissionError,
    event::{SubmissionEvent, SubmissionReceipt},
    marker::Marker,
    plan::{PlannedSubmission, load_manifest, open_folder},
    throttle::Throttle,
};
use crate::{Client, Existing, Fetcher, Manifest, OutFolder, ToRender, UploadProgress};

/// A job at the server, and the folder that its frames go to.
pub struct SubmittedJob {
    pub(crate) client: Client,
    pub(crate) job: JobView,
    pub(crate) target: Option<FetchTarget>,
    /// What was there when the job was made.
    pub(crate) before: Option<ToRender>,
    /// Sentences on the scene's files.
    pub(crate) notices: Vec<String>,
    pub(crate) marker: Option<(PathBuf, Marker)>,
    pub(crate) events: EventSender,
}

/// The folder that the frames of a job go to.
pub struct FetchTarget {
    folder: Arc<OutFolder>,
    manifest: Manifest,
    existing: Existing,
    /// The job was made on this machine.
    is_of_here: bool,
}

impl FetchTarget {
    /// Opens the folder for the frames of a job of the .blend with this name (without its ending).
    ///
    /// # Errors
    /// The folder cannot be written.
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

impl PlannedSubmission {
    /// Sends the files and makes the job of the frames that are left, or goes on with one that renders the same already. Notes
    /// on this machine where its frames go.
    ///
    /// # Errors
    /// A file has changed meanwhile, or the server refuses.
    pub async fn submit(self, client: &Client) -> Result<SubmittedJob, SubmissionError> {
        let frames = self.to_render.frames.clone().unwrap_or_else(|| self.prepared.frames.clone());
        let options = &self.options.job;
        let mut request = SubmitJob {
            user: options.user.clone(),
            project: options.project.clone(),
            held: options.held,
            hang_s: options.hang_s,
            refuse_black: options.refuse_black,
            standing: options.standing.clone(),
            needs: options.needs.clone(),
            ..self.prepared.job(frames.clone(), options.order, options.frame_time_limit_s)
        };
        let joins = self.options.joins_running_job;
        let mut taken = None;
        // Who submits with other wishes wants another job.
        if let Some(running) = self.running.as_ref().filter(|one| joins || one.is_asked_as(&request)) {
            match running.take(&self.events, client, frames, joins).await? {
                Remaining::Nothing(job) => taken = Some(*job),
                Remaining::Frames(frames) => request.frames = Some(frames),
            }
        }
        let job = match taken {
            Some(job) => job,
            None => self.send(client, &request).await?,
        };
        let marker = Marker {
            server: client.url().to_owned(),
            job: job.id,
            created_ms: job.created_ms,
            out: self.folder.path().to_owned(),
            blend: self.prepared.session.own_stem().to_owned(),
            existing: self.existing,
        };
        if let Some(data) = &self.options.data
            && let Err(error) = marker.save(data)
        {
            let (data, reason) = (data.clone(), error.to_string());
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
        Ok(SubmittedJob {
            client: client.clone(),
            job,
            target: Some(target),
            before: Some(self.to_render),
            notices: self.prepared.notices,
            marker: self.options.data.map(|data| (data, marker)),
            events: self.events,
        })
    }

    async fn send(&self, client: &Client, request: &SubmitJob) -> Result<JobView, SubmissionError> {
        let simulations = self.prepared.unbaked();
        if !simulations.is_empty() {
            let bakes = self.prepared.session.policy.simulations == Simulations::Bake;
            self.events.tell(SubmissionEvent::Unbaked { simulations, bakes });
        }
        let mut throttle = Throttle::default();
        let sent = |UploadProgress { done, total, there }: UploadProgress| {
            if throttle.is_due(done == total) {
                self.events.tell(SubmissionEvent::Uploading {
                    bytes_done: done,
                    bytes: total,
                    bytes_there: there,
                });
            }
        };
        Ok(client.submit_prepared(&self.prepared, request, sent).await?)
    }
}

impl SubmittedJob {
    /// A job that was made earlier, or by somebody else. Its frames are fetched where there is a target. `marker` is what
    /// this machine noted of it, with the folder of its notes.
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

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Returns whether the frames of the job come here.
    pub fn is_fetched_here(&self) -> bool {
        self.target.is_some()
    }

    /// Leaves the job alone. The output folder stays, though nothing is in it yet: the frames are to land there later.
    pub fn leave(mut self) -> JobView {
        if let Some(folder) = self.target.as_mut().and_then(|target| Arc::get_mut(&mut target.folder)) {
            folder.keep();
        }
        self.job
    }
}
