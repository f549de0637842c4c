//! Earlier jobs of this machine with the same .blend and output folder: one that renders the same is joined, the frames of an
//! ended one are fetched, and one of another save is reported.

use std::{path::Path, sync::Arc};

use kiln_api::{JobView, ProblemCode, SubmitJob};
use kiln_types::{DeviceChoice, DeviceClass, FrameSet, JobId};

use super::{
    channel::{EventSender, QuestionTopic},
    error::SubmissionError,
    event::{JobDifference, OtherFrames, OtherJob, SubmissionEvent},
    marker::Marker,
    plan::load_manifest,
};
use crate::{Client, Existing, FetchResult, Fetcher, FrameIdentity, Manifest, OutFolder, Prepared};

/// An open job that renders frames of this submission.
pub(crate) struct RunningJob {
    job: JobView,
}

/// A search for this machine's jobs of one .blend and folder.
pub(crate) struct EarlierJobs<'a> {
    pub events: &'a EventSender,
    /// The folder in which this machine saves its jobs.
    pub data: &'a Path,
    pub client: &'a Client,
    pub prepared: &'a Prepared,
    /// All variants of the submission, which may share the folder.
    pub siblings: &'a [Prepared],
    pub folder: &'a Arc<OutFolder>,
    pub existing: Existing,
    pub refuse_black: bool,
}

impl EarlierJobs<'_> {
    /// Fetches the frames of jobs that render the same, and returns an open one of them. The manifest is read again if frames were
    /// fetched.
    pub async fn look(
        &self,
        choice: DeviceChoice,
        devices: &[DeviceClass],
        manifest: Manifest,
    ) -> Result<(Option<RunningJob>, Manifest), SubmissionError> {
        // These modes keep no frames of an earlier job.
        if matches!(self.existing, Existing::Overwrite | Existing::Error) {
            return Ok((None, manifest));
        }
        let out = self.folder.real_path();
        let (mut running, mut came) = (None, false);
        for marker in Marker::of_output(self.data, self.client.url(), out, self.prepared.session.own_stem()) {
            let Some(job) = self.job(&marker).await? else {
                marker.forget(self.data);
                continue;
            };
            let theirs = FrameIdentity::of_job(&job.spec, Some(out));
            let device = job.spec.session.device;
            let fits = match choice {
                DeviceChoice::Auto | DeviceChoice::Gpu => devices.contains(&device) || job.spec.any_gpu,
                _ => device == self.prepared.session.device,
            };
            let mine = self.prepared.identity(device, out);
            if !fits || !mine.is_same_but_device(&theirs) {
                let is_of_sibling = |one: &Prepared| one.identity(device, out).is_same_but_device(&theirs);
                if !job.state.is_end() && !self.siblings.iter().any(is_of_sibling) {
                    self.report_other(&job, mine.is_same_content(&theirs)).await?;
                }
                continue;
            }
            if !makes_any_of(&job, &self.prepared.frames) {
                continue;
            }
            came |= self.fetch(&marker, &job).await?;
            if !job.state.is_end() && job.spec.refuse_black == self.refuse_black {
                running = Some(RunningJob { job });
            }
        }
        let manifest = if came { self.manifest()? } else { manifest };
        Ok((running, manifest))
    }

    fn manifest(&self) -> Result<Manifest, SubmissionError> {
        load_manifest(self.folder, self.prepared.session.own_stem())
    }

    /// Reads the job of a marker; `None` if it was deleted, or another farm has the address now.
    async fn job(&self, marker: &Marker) -> Result<Option<JobView>, SubmissionError> {
        match self.client.job(marker.job).await {
            Ok(job) => Ok(Some(job).filter(|job| job.created_ms == marker.created_ms)),
            Err(error) if error.code() == Some(ProblemCode::NotFound) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Fetches the frames of a job, and returns whether there were any.
    async fn fetch(&self, marker: &Marker, job: &JobView) -> Result<bool, SubmissionError> {
        let (client, folder) = (self.client.clone(), Arc::clone(self.folder));
        let mut fetcher = Fetcher::new(client, job, true, self.existing, folder, self.manifest()?);
        let (mut frames, mut stays) = (0_u32, false);
        fetcher
            .sweep(|landed| match landed.result {
                FetchResult::Written | FetchResult::Replaced => frames += 1,
                FetchResult::Left => stays = true,
                FetchResult::AlreadyThere | FetchResult::Gone => {}
            })
            .await?;
        fetcher.finish().await;
        if frames > 0 {
            self.events.tell(SubmissionEvent::EarlierFetched { job: job.id, frames });
        }
        if job.state.is_end() && !stays {
            marker.forget(self.data);
        }
        Ok(frames > 0)
    }

    /// Reports a job of another save or with other settings that renders into the same folder, and cancels it if the person wants
    /// that.
    async fn report_other(&self, job: &JobView, is_same_content: bool) -> Result<(), SubmissionError> {
        let differs_in = if is_same_content { JobDifference::Settings } else { JobDifference::Save };
        let other = OtherJob {
            job: job.id,
            created_ms: job.created_ms,
            differs_in,
            blend: self.prepared.shown_name().into_owned(),
            out: self.folder.path().to_owned(),
        };
        match self.events.ask(QuestionTopic::CancelOtherJob(other.clone())).await {
            Some(true) => {
                self.client.cancel(job.id).await?;
                self.events.tell(SubmissionEvent::OtherJobCancelled { job: job.id });
            }
            Some(false) => {}
            None => self.events.tell(SubmissionEvent::OtherJob(other)),
        }
        Ok(())
    }
}

/// The frames that a running job does not render.
pub(crate) enum Remaining {
    /// The running job is the job.
    Nothing(Box<JobView>),
    /// These frames are still to be submitted.
    Frames(FrameSet),
}

impl RunningJob {
    pub fn id(&self) -> JobId {
        self.job.id
    }

    /// Returns whether it has the scheduling options and requirements of this request.
    pub fn is_asked_as(&self, request: &SubmitJob) -> bool {
        let spec = &self.job.spec;
        spec.order == request.order
            && spec.scheduling == request.scheduling
            && spec.requirements == request.requirements
            && spec.frame_time_limit_s == request.frame_time_limit_s
            && spec.hang_s == request.hang_s
    }

    /// Returns whether it renders some of these frames.
    pub fn makes_any_of(&self, frames: &FrameSet) -> bool {
        makes_any_of(&self.job, frames)
    }

    /// Returns the missing frames that the job does not render. With `joins`, they are added to it.
    pub async fn take(
        &self,
        events: &EventSender,
        client: &Client,
        frames: FrameSet,
        joins: bool,
    ) -> Result<Remaining, SubmissionError> {
        let id = self.job.id;
        let others: Vec<i32> =
            frames.iter().filter(|frame| self.job.spec.frames.index_of(*frame).is_none()).collect();
        let other_frames = others.len() as u32;
        let renders = frames.len() - other_frames;
        let tell = |others| {
            events.tell(SubmissionEvent::AlreadyRendering {
                job: id,
                created_ms: self.job.created_ms,
                state: self.job.state,
                frames: renders,
                others,
                other_frames,
            });
        };
        // Fails only if there are none.
        let Ok(others) = FrameSet::from_frames(others) else {
            tell(OtherFrames::None);
            return Ok(Remaining::Nothing(Box::new(client.job(id).await?)));
        };
        if renders == 0 {
            return Ok(Remaining::Frames(frames));
        }
        if !joins {
            tell(OtherFrames::Submitted);
            return Ok(Remaining::Frames(others));
        }
        match client.extend(id, others).await {
            Ok(()) => {
                tell(OtherFrames::Added);
                Ok(Remaining::Nothing(Box::new(client.job(id).await?)))
            }
            // The job has ended meanwhile.
            Err(error) if error.code() == Some(ProblemCode::Conflict) => Ok(Remaining::Frames(frames)),
            Err(error) => Err(error.into()),
        }
    }
}

fn makes_any_of(job: &JobView, frames: &FrameSet) -> bool {
    frames.iter().any(|frame| job.spec.frames.index_of(frame).is_some())
}
