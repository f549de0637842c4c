//! What jobs that this machine made earlier still do for the same .blend and output folder: one that renders the very same
//! is gone on with, what an ended one holds is fetched, and one of an earlier save is named.

use std::sync::Arc;

use kiln_api::{JobView, ProblemCode, SubmitJob};
use kiln_client::{Client, Existing, Fetcher, How, Identity, Manifest, OutFolder, Prepared};
use kiln_types::{DeviceChoice, DeviceClass, FrameSet, JobId, JobState};

use super::attach::manifest;
use crate::{
    ask,
    exit::Outcome,
    marker::Marker,
    output::{
        Output,
        text::{self, count, moment},
    },
    settings::Settings,
};

/// A job that goes on, and whose frames are those that are asked for.
pub struct Running {
    job: JobView,
}

/// Where this machine's jobs for one .blend and folder are looked for.
pub struct Earlier<'a> {
    pub output: Output,
    pub settings: &'a Settings,
    pub client: &'a Client,
    pub prepared: &'a Prepared,
    pub folder: &'a Arc<OutFolder>,
    pub existing: Existing,
    pub refuse_black: bool,
}

impl Earlier<'_> {
    /// Fetches what jobs of the very same frames hold, and returns one of them that goes on. The manifest is read again
    /// where something came.
    pub async fn look(
        &self,
        choice: DeviceChoice,
        devices: &[DeviceClass],
        notes: Manifest,
    ) -> Outcome<(Option<Running>, Manifest)> {
        // These modes keep nothing that an earlier job made.
        if matches!(self.existing, Existing::Overwrite | Existing::Error) {
            return Ok((None, notes));
        }
        let (data, out) = (&self.settings.data.value, self.folder.real_path());
        let (mut running, mut came) = (None, false);
        for marker in Marker::of_output(data, self.client.url(), out, self.prepared.session.own_stem()) {
            let Some(job) = self.job(&marker).await? else {
                marker.forget(data);
                continue;
            };
            let theirs = Identity::of_job(&job.spec, Some(out));
            let device = job.spec.session.device;
            let fits = match choice {
                DeviceChoice::Auto | DeviceChoice::Gpu => devices.contains(&device) || job.spec.any_gpu,
                _ => device == self.prepared.session.device,
            };
            let mine = self.prepared.identity(device, out);
            if !fits || !mine.is_same_but_device(&theirs) {
                if !job.state.is_end() {
                    self.name_other(&job, mine.is_same_content(&theirs)).await?;
                }
                continue;
            }
            if !makes_any_of(&job, &self.prepared.frames) {
                continue;
            }
            came |= self.fetch(&marker, &job).await?;
            if !job.state.is_end() && job.spec.refuse_black == self.refuse_black {
                running = Some(Running { job });
            }
        }
        let notes = if came { manifest(self.folder, self.prepared.session.own_stem())? } else { notes };
        Ok((running, notes))
    }

    /// The job of a marker; `None` where it is deleted, or the farm at that address is another one.
    async fn job(&self, marker: &Marker) -> Outcome<Option<JobView>> {
        match self.client.job(marker.job).await {
            Ok(job) => Ok(Some(job).filter(|job| job.created_ms == marker.created_ms)),
            Err(error) if error.code() == Some(ProblemCode::NotFound) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Brings what a job holds here. Whether anything came.
    async fn fetch(&self, marker: &Marker, job: &JobView) -> Outcome<bool> {
        let (client, folder) = (self.client.clone(), Arc::clone(self.folder));
        let notes = manifest(self.folder, self.prepared.session.own_stem())?;
        let mut fetcher = Fetcher::new(client, job, true, self.existing, folder, notes);
        let (mut came, mut stays) = (0_u32, false);
        fetcher
            .sweep(|landed| match landed.how {
                How::Written | How::Replaced => came += 1,
                How::Left(_) => stays = true,
                How::AlreadyThere | How::Gone => {}
            })
            .await?;
        fetcher.finish().await;
        if came > 0 {
            let frames = count(came, "frame");
            self.output.note(&format!("{frames} of job {} were still at the farm, and are fetched", job.id));
        }
        if job.state.is_end() && !stays {
            marker.forget(&self.settings.data.value);
        }
        Ok(came > 0)
    }

    /// A job of another save, or with other settings, that renders into the same folder.
    async fn name_other(&self, job: &JobView, is_same_content: bool) -> Outcome {
        let id = job.id;
        let (blend, out) = (self.prepared.shown_name(), text::path(self.folder.path()));
        let what = if is_same_content {
            format!("job {id} still renders {blend} with other settings into {out}")
        } else {
            format!("job {id} still renders an earlier save of {blend} into {out}")
        };
        let what = format!("{what} (made {})", moment(job.created_ms));
        if self.output.can_ask() {
            if ask::yes(format!("{what}. Cancel it? [y/N] ")).await {
                self.client.cancel(id).await?;
                self.output.note(&format!("job {id} is cancelled"));
            }
        } else {
            self.output.note(&format!("{what}; `kiln jobs cancel {id}` ends it"));
        }
        Ok(())
    }
}

/// What becomes of frames that a running job lacks, where it renders others of those that are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// They join that job, whose end is waited for.
    Join,
    /// They are a job of their own.
    Apart,
}

/// What a running job leaves to do.
pub enum Left {
    /// It is the job.
    Nothing(Box<JobView>),
    /// These frames are still to be submitted.
    Frames(FrameSet),
}

impl Running {
    pub fn id(&self) -> JobId {
        self.job.id
    }

    /// Whether it stands in the queue as this request would, and has the same needs.
    pub fn is_asked_as(&self, request: &SubmitJob) -> bool {
        let spec = &self.job.spec;
        spec.order == request.order
            && spec.standing == request.standing
            && spec.needs == request.needs
            && spec.frame_time_limit_s == request.frame_time_limit_s
            && spec.hang_s == request.hang_s
    }

    /// Whether it renders some of these frames.
    pub fn makes_any_of(&self, frames: &FrameSet) -> bool {
        makes_any_of(&self.job, frames)
    }

    /// What of these frames, none of which is here, it leaves to do.
    pub async fn take(
        &self,
        output: Output,
        client: &Client,
        frames: FrameSet,
        rest: Others,
    ) -> Outcome<Left> {
        let (id, made) = (self.job.id, moment(self.job.created_ms));
        let others: Vec<i32> =
            frames.iter().filter(|frame| self.job.spec.frames.index_of(*frame).is_none()).collect();
        let (lacks, asked) = (others.len(), frames.len() as usize);
        // Fails only where there are none.
        let Ok(others) = FrameSet::from_frames(others) else {
            let paused = match self.job.state {
                JobState::Paused => format!("; it is paused, and `kiln jobs resume {id}` lets it go on"),
                _ => String::new(),
            };
            output.note(&format!("job {id}, made {made}, renders this already{paused}"));
            return Ok(Left::Nothing(Box::new(client.job(id).await?)));
        };
        if lacks == asked {
            return Ok(Left::Frames(frames));
        }
        let done = count((asked - lacks) as u64, "frame");
        if rest == Others::Apart {
            output.note(&format!("{done} of these are being rendered by job {id}, made {made}, already"));
            return Ok(Left::Frames(others));
        }
        match client.extend(id, others).await {
            Ok(()) => {
                let more = count(lacks as u64, "more frame");
                output.note(&format!(
                    "job {id}, made {made}, renders {done} of these already; {more} are added to it"
                ));
                Ok(Left::Nothing(Box::new(client.job(id).await?)))
            }
            // It has ended meanwhile.
            Err(error) if error.code() == Some(ProblemCode::Conflict) => Ok(Left::Frames(frames)),
            Err(error) => Err(error.into()),
        }
    }
}

fn makes_any_of(job: &JobView, frames: &FrameSet) -> bool {
    frames.iter().any(|frame| job.spec.frames.index_of(frame).is_some())
}
