//! What a submission stands on: the output folder, what lies in it, the device, and what is left to render.

use std::{path::PathBuf, sync::Arc};

use kiln_types::{BlenderSeries, DeviceClass, FrameSet, GpuUse, Resolution};

use super::{
    SubmissionOptions,
    channel::{EventSender, QuestionTopic},
    device::{RenderPlace, candidates, earlier_devices, settle},
    earlier::{EarlierJobs, RunningJob},
    error::SubmissionError,
    event::{FollowEnd, JobOutcome, RenderInputs, RenderPlan, SubmissionEvent, SubmissionResult},
};
use crate::{
    Existing, ExistingError, FrameIdentity, Manifest, Naming, OutFolder, Prepared, ToRender, recorded,
    to_render,
};

const LOOKING: &str = "looking at the output folder";

/// A submission whose .blend and files are read and hashed.
pub struct ReadSubmission {
    pub(crate) options: SubmissionOptions,
    pub(crate) events: EventSender,
    pub(crate) prepared: Prepared,
}

/// A submission whose output folder was looked at: it is known what is left to render, and on which device.
pub struct PlannedSubmission {
    pub(crate) options: SubmissionOptions,
    pub(crate) events: EventSender,
    pub(crate) prepared: Prepared,
    pub(crate) folder: Arc<OutFolder>,
    pub(crate) manifest: Manifest,
    pub(crate) existing: Existing,
    pub(crate) to_render: ToRender,
    /// A job that renders this already.
    pub(crate) running: Option<RunningJob>,
}

impl ReadSubmission {
    /// Returns the series of Blender that is to render.
    pub fn blender(&self) -> BlenderSeries {
        self.prepared.session.blender
    }

    /// Lets another series render than the one that wrote the file.
    pub fn render_with(&mut self, blender: BlenderSeries) {
        self.prepared.session.blender = blender;
    }

    /// Looks at the output folder, and settles on which device the job renders. Fetches what earlier jobs of the very same
    /// frames still hold.
    ///
    /// # Errors
    /// The folder cannot be written, files are in the way, or this machine lacks the device.
    pub async fn plan(self, place: &RenderPlace<'_>) -> Result<PlannedSubmission, SubmissionError> {
        let Self { options, events, mut prepared } = self;
        let out = options.out.clone().unwrap_or_else(|| prepared.folder.clone());
        let folder = Arc::new(open_folder(out).await?);
        let existing = options.existing;
        let manifest = load_manifest(&folder, prepared.session.own_stem())?;
        let choice = options.request.device;
        let candidates =
            if existing == Existing::Overwrite { Vec::new() } else { candidates(choice, &prepared) };
        let (running, manifest) = match (place, &options.data) {
            (RenderPlace::Farm(client), Some(data)) => {
                let earlier = EarlierJobs {
                    events: &events,
                    data,
                    client,
                    prepared: &prepared,
                    folder: &folder,
                    existing,
                    refuse_black: options.job.refuse_black,
                };
                earlier.look(choice, &candidates, manifest).await?
            }
            _ => (None, manifest),
        };
        let known = |device: &DeviceClass| (*device, prepared.identity(*device, folder.real_path()));
        let identities: Vec<(DeviceClass, FrameIdentity)> = candidates.iter().map(known).collect();
        let earlier = earlier_devices(prepared.session.device);
        let (frames, there) = (prepared.frames.clone(), Arc::clone(&folder));
        let look = tokio::task::spawn_blocking(move || {
            (recorded(&there, &manifest, &identities, earlier, &frames), manifest)
        });
        let (recorded, manifest) = look.await.map_err(SubmissionError::broken_off(LOOKING))?;
        let chosen = settle(choice, recorded, &mut prepared, place).await?;
        let (device, needs) = (prepared.session.device, &options.job.needs);
        if device == DeviceClass::Cpu && (needs.gpus != GpuUse::default() || needs.gpu_memory.is_some()) {
            return Err(SubmissionError::GpusOnCpu);
        }
        if let Some(event) = chosen {
            events.tell(event);
        }
        let look = Look {
            folder: &folder,
            identity: prepared.identity(device, folder.real_path()),
            refuse_black: options.job.refuse_black,
            frames: prepared.frames.clone(),
            naming: prepared.naming()?,
        };
        let (mut manifest, existing, to_render) = look.settle(manifest, existing, &events, &prepared).await?;
        if let Some(frames) = &to_render.frames {
            place.check(device).await?;
            if running.as_ref().is_some_and(|running| running.makes_any_of(frames)) {
                // Its frames are wanted by this save, too.
                manifest = look.see(manifest).await?;
            }
        }
        events.tell(SubmissionEvent::Inputs(Box::new(inputs(&prepared))));
        let planned =
            PlannedSubmission { options, events, prepared, folder, manifest, existing, to_render, running };
        planned.events.tell(SubmissionEvent::Planned(Box::new(planned.planned())));
        Ok(planned)
    }
}

impl PlannedSubmission {
    /// Returns the frames that are left to render; `None` where every one is there.
    pub fn left(&self) -> Option<&FrameSet> {
        self.to_render.frames.as_ref()
    }

    /// Returns the series of Blender that is to render.
    pub fn blender(&self) -> BlenderSeries {
        self.prepared.session.blender
    }

    fn planned(&self) -> RenderPlan {
        let ToRender { frames, kept, skipped, replaced, older, broken, .. } = self.to_render.clone();
        RenderPlan {
            out: self.folder.path().to_owned(),
            existing: self.existing,
            frames,
            kept,
            skipped,
            replaced,
            older,
            broken: broken.count,
            first_broken: broken.first,
        }
    }

    /// The result of a submission that found nothing left to render.
    pub fn nothing_left(self) -> SubmissionResult {
        let ToRender { kept, skipped, replaced, older, suspicious, .. } = self.to_render;
        SubmissionResult {
            outcome: JobOutcome::Done,
            end: FollowEnd::Ended,
            job: None,
            out: Some(self.folder.path().to_owned()),
            landed: 0,
            kept,
            skipped,
            replaced,
            older,
            left: Vec::new(),
            fetch_error: None,
            failed: Vec::new(),
            log_tail: Vec::new(),
            report: None,
            suspicious,
            notices: self.prepared.notices,
        }
    }
}

/// Opens the output folder, ready to be written.
///
/// # Errors
/// It cannot be made or written.
pub async fn open_folder(out: PathBuf) -> Result<OutFolder, SubmissionError> {
    let named = out.clone();
    let opened = tokio::task::spawn_blocking(move || OutFolder::prepare(&out)).await;
    let reason = match opened {
        Ok(Ok(folder)) => return Ok(folder),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    Err(SubmissionError::Folder { out: named, reason })
}

/// Reads what Kiln wrote into the folder earlier.
pub(crate) fn load_manifest(folder: &OutFolder, blend: &str) -> Result<Manifest, SubmissionError> {
    Manifest::load(folder, blend).map_err(|source| {
        let path = folder.path().join(".kiln");
        SubmissionError::Manifest { path, source }
    })
}

/// What a submission asks of the output folder.
struct Look<'a> {
    folder: &'a Arc<OutFolder>,
    identity: FrameIdentity,
    refuse_black: bool,
    frames: FrameSet,
    naming: Naming,
}

impl Look<'_> {
    /// Finds what is left to render. Where frames of other settings are in the way, asks whether they are replaced.
    async fn settle(
        &self,
        manifest: Manifest,
        existing: Existing,
        events: &EventSender,
        prepared: &Prepared,
    ) -> Result<(Manifest, Existing, ToRender), SubmissionError> {
        let (manifest, found) = self.at(manifest, existing).await?;
        let (found, changes) = match found {
            Ok(found) => return Ok((manifest, existing, found)),
            Err(ExistingError::OtherChoices { found, changes }) => (found, changes),
            Err(error) => return Err(error.into()),
        };
        let topic = QuestionTopic::ReplaceFrames {
            files: found.count,
            out: self.folder.path().to_owned(),
            blend: prepared.shown_name().into_owned(),
            changes: changes.clone(),
        };
        if events.ask(topic).await != Some(true) {
            return Err(ExistingError::OtherChoices { found, changes }.into());
        }
        let (manifest, found) = self.at(manifest, Existing::Replace).await?;
        Ok((manifest, Existing::Replace, found?))
    }

    /// Looks off the async threads.
    async fn at(
        &self,
        mut manifest: Manifest,
        mode: Existing,
    ) -> Result<(Manifest, Result<ToRender, ExistingError>), SubmissionError> {
        let (folder, frames, naming) = (Arc::clone(self.folder), self.frames.clone(), self.naming.clone());
        let (identity, refuse_black) = (self.identity.clone(), self.refuse_black);
        let look = tokio::task::spawn_blocking(move || {
            let names = |frame| naming.frame(frame);
            let found = to_render(&folder, &manifest, mode, &identity, refuse_black, &frames, names);
            if found.as_ref().is_ok_and(|found| found.kept > 0)
                && let Err(error) = manifest.renew(&folder, &identity, &frames)
            {
                // At worst they are rendered again one day.
                tracing::debug!(%error, "what is there was not noted again");
            }
            (manifest, found)
        });
        look.await.map_err(SubmissionError::broken_off(LOOKING))
    }

    /// Notes that what a job makes is asked for here.
    async fn see(&self, mut manifest: Manifest) -> Result<Manifest, SubmissionError> {
        let (folder, identity) = (Arc::clone(self.folder), self.identity.clone());
        let see = tokio::task::spawn_blocking(move || {
            if let Err(error) = manifest.see(&folder, &identity, None) {
                // At worst a job of an earlier save replaces them one day.
                tracing::debug!(%error, "what is rendered was not noted again");
            }
            manifest
        });
        see.await.map_err(SubmissionError::broken_off(LOOKING))
    }
}

/// What is about to render: what was asked for goes over what the file says.
fn inputs(prepared: &Prepared) -> RenderInputs {
    let (scene, asked) = (&prepared.scene, &prepared.session.settings);
    let (width, height, percent) = match asked.resolution {
        None => (scene.width, scene.height, scene.percent),
        Some(Resolution::Percent(percent)) => (scene.width, scene.height, u32::from(percent)),
        Some(Resolution::Pixels { width, height }) => (width, height, 100),
    };
    // The file's number is that of its own engine.
    let own_samples = asked.engine.is_none().then_some(scene.samples).flatten();
    RenderInputs {
        blend: prepared.shown_name().into_owned(),
        scene: scene.name.clone(),
        frames: prepared.frames.clone(),
        width,
        height,
        percent,
        camera: asked.camera.clone().or_else(|| scene.camera.clone()),
        has_camera_markers: asked.camera.is_none() && !scene.camera_markers.is_empty(),
        engine: asked.engine.clone().unwrap_or_else(|| scene.engine.clone()),
        samples: asked.samples.or(own_samples),
        blender: prepared.session.blender,
        files: prepared.files(),
        bytes: prepared.size(),
    }
}
