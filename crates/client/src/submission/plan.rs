//! The plan of a submission: the output folders, the files in them, the devices, and the frames that are left to render.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use kiln_types::{BlenderSeries, DeviceClass, FrameSet, GpuUse, Resolution};

use super::{
    SubmissionOptions,
    channel::{EventSender, QuestionTopic},
    device::{RenderPlace, candidates, choose_device, earlier_devices},
    earlier::{EarlierJobs, RunningJob},
    error::SubmissionError,
    event::{FollowEnd, JobOutcome, RenderInputs, RenderPlan, SubmissionEvent, SubmissionResult},
    variant::{PlacedVariant, Variant, check_folders},
    variants::VariantResult,
};
use crate::{
    Existing, ExistingError, FrameIdentity, Manifest, Naming, OutFolder, Prepared, ToRender,
    find_frames_to_render, recorded_device,
};

const COMPARING: &str = "comparing the output folder";

/// A submission whose .blend files, and the files that these need, are read and hashed.
pub struct ReadSubmission {
    pub(crate) options: SubmissionOptions,
    pub(crate) events: EventSender,
    pub(crate) variants: Vec<ReadVariant>,
}

pub(crate) struct ReadVariant {
    pub variant: Variant,
    pub prepared: Prepared,
}

/// A submission whose output folders were compared with its frames: the frames that are left and their devices are known.
pub struct PlannedSubmission {
    pub(crate) options: SubmissionOptions,
    pub(crate) events: EventSender,
    pub(crate) variants: Vec<PlannedVariant>,
}

pub(crate) struct PlannedVariant {
    pub(crate) events: EventSender,
    pub(crate) prepared: Prepared,
    pub(crate) folder: Arc<OutFolder>,
    pub(crate) manifest: Manifest,
    pub(crate) existing: Existing,
    pub(crate) to_render: ToRender,
    /// A job that renders the same already.
    pub(crate) running: Option<RunningJob>,
}

impl ReadSubmission {
    /// Returns each .blend with the series of Blender that renders it.
    pub fn blenders(&self) -> Vec<(PathBuf, BlenderSeries)> {
        let files = self.options.choices.files.iter().enumerate();
        let of = |(at, file): (usize, &PathBuf)| {
            let variant = self.variants.iter().find(|one| one.variant.file == at)?;
            Some((file.clone(), variant.prepared.session.blender))
        };
        files.filter_map(of).collect()
    }

    /// Chooses the series of Blender that renders a file.
    pub fn render_with(&mut self, file: &Path, blender: BlenderSeries) {
        let files = &self.options.choices.files;
        for one in self.variants.iter_mut().filter(|one| files[one.variant.file] == file) {
            one.prepared.session.blender = blender;
        }
    }

    /// Compares the output folders with the frames, and chooses the devices of the jobs. Fetches frames of earlier jobs that
    /// render the same.
    ///
    /// # Errors
    /// If two variants would write the same file, a folder cannot be written, files are in the way, or this machine lacks the
    /// device.
    pub async fn plan(self, place: &RenderPlace<'_>) -> Result<PlannedSubmission, SubmissionError> {
        let Self { options, events, variants } = self;
        let folder_of = |one: &ReadVariant| one.variant.folder(options.out.as_deref(), &one.prepared);
        let folders = variants.iter().map(folder_of).collect::<Result<Vec<_>, _>>()?;
        let placed = variants.iter().zip(&folders).map(|(one, folder)| PlacedVariant {
            name: one.variant.name.as_deref().unwrap_or_default(),
            folder,
            prepared: &one.prepared,
        });
        check_folders(&placed.collect::<Vec<_>>())?;
        let folders = open_all(folders).await?;
        let all: Vec<Prepared> = variants.iter().map(|one| one.prepared.clone()).collect();
        let mut planned = Vec::new();
        for (ReadVariant { variant, prepared }, folder) in variants.into_iter().zip(folders) {
            let plan =
                VariantPlan { options: &options, events: events.of(variant.name), place, siblings: &all };
            planned.push(plan.make(prepared, folder).await?);
        }
        Ok(PlannedSubmission { options, events, variants: planned })
    }
}

/// Opens each folder once, for writing.
async fn open_all(folders: Vec<PathBuf>) -> Result<Vec<Arc<OutFolder>>, SubmissionError> {
    let mut open: Vec<Arc<OutFolder>> = Vec::new();
    for out in folders {
        let mut folder = open_folder(out).await?;
        folder.share_cleanup(&open);
        let known = open.iter().find(|known| known.real_path() == folder.real_path()).cloned();
        open.push(known.unwrap_or_else(|| Arc::new(folder)));
    }
    Ok(open)
}

/// The planning of one variant.
struct VariantPlan<'a> {
    options: &'a SubmissionOptions,
    events: EventSender,
    place: &'a RenderPlace<'a>,
    /// All variants of the submission.
    siblings: &'a [Prepared],
}

impl VariantPlan<'_> {
    async fn make(
        self,
        mut prepared: Prepared,
        folder: Arc<OutFolder>,
    ) -> Result<PlannedVariant, SubmissionError> {
        let Self { options, events, place, siblings } = self;
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
                    siblings,
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
            (recorded_device(&there, &manifest, &identities, earlier, &frames), manifest)
        });
        let (recorded, manifest) = look.await.map_err(SubmissionError::broken_off(COMPARING))?;
        let chosen = choose_device(choice, recorded, &mut prepared, place).await?;
        let (device, requirements) = (prepared.session.device, &options.job.requirements);
        if device == DeviceClass::Cpu
            && (requirements.gpus != GpuUse::default() || requirements.gpu_memory.is_some())
        {
            return Err(SubmissionError::GpusOnCpu);
        }
        if let Some(event) = chosen {
            events.tell(event);
        }
        let comparison = FolderComparison {
            folder: &folder,
            identity: prepared.identity(device, folder.real_path()),
            refuse_black: options.job.refuse_black,
            frames: prepared.frames.clone(),
            naming: prepared.naming()?,
        };
        let (mut manifest, existing, to_render) =
            comparison.resolve(manifest, existing, &events, &prepared).await?;
        if let Some(frames) = &to_render.frames {
            place.check(prepared.session.blender, device).await?;
            if running.as_ref().is_some_and(|running| running.makes_any_of(frames)) {
                // This save has its frames, too.
                manifest = comparison.see(manifest).await?;
            }
        }
        events.tell(SubmissionEvent::Inputs(Box::new(inputs(&prepared))));
        let planned = PlannedVariant { events, prepared, folder, manifest, existing, to_render, running };
        planned.events.tell(SubmissionEvent::Planned(Box::new(planned.planned())));
        Ok(planned)
    }
}

impl PlannedSubmission {
    /// Returns the frames that are left to render of each variant, if there are any.
    pub fn left(&self) -> impl Iterator<Item = Option<&FrameSet>> {
        self.variants.iter().map(|one| one.to_render.frames.as_ref())
    }

    /// Returns the first series of Blender that renders; `None` if nothing is left to render.
    pub fn blender(&self) -> Option<BlenderSeries> {
        let first = self.variants.iter().find(|one| one.to_render.frames.is_some());
        first.map(|one| one.prepared.session.blender)
    }

    /// Returns the results of a submission that found nothing to render.
    pub fn nothing_left(self) -> Vec<VariantResult> {
        self.variants.into_iter().map(PlannedVariant::nothing_left).collect()
    }
}

impl PlannedVariant {
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

    /// Returns the result of a variant that found nothing to render.
    pub(crate) fn nothing_left(self) -> VariantResult {
        let ToRender { kept, skipped, replaced, older, suspicious, .. } = self.to_render;
        let result = SubmissionResult {
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
        };
        VariantResult { variant: self.events.variant().cloned(), result: Ok(Box::new(result)) }
    }
}

/// Opens an output folder for writing.
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

/// Reads the manifest of a .blend in an output folder.
pub(crate) fn load_manifest(folder: &OutFolder, blend: &str) -> Result<Manifest, SubmissionError> {
    Manifest::load(folder, blend).map_err(|source| {
        let path = folder.path().join(".kiln");
        SubmissionError::Manifest { path, source }
    })
}

/// The comparison of an output folder with the frames of a variant.
struct FolderComparison<'a> {
    folder: &'a Arc<OutFolder>,
    identity: FrameIdentity,
    refuse_black: bool,
    frames: FrameSet,
    naming: Naming,
}

impl FolderComparison<'_> {
    /// Finds the frames that are left to render. If frames of other settings are in the way, asks whether to replace them.
    async fn resolve(
        &self,
        manifest: Manifest,
        existing: Existing,
        events: &EventSender,
        prepared: &Prepared,
    ) -> Result<(Manifest, Existing, ToRender), SubmissionError> {
        let (manifest, found) = self.compare(manifest, existing).await?;
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
        let (manifest, found) = self.compare(manifest, Existing::Replace).await?;
        Ok((manifest, Existing::Replace, found?))
    }

    /// Compares off the async threads.
    async fn compare(
        &self,
        mut manifest: Manifest,
        mode: Existing,
    ) -> Result<(Manifest, Result<ToRender, ExistingError>), SubmissionError> {
        let (folder, frames, naming) = (Arc::clone(self.folder), self.frames.clone(), self.naming.clone());
        let (identity, refuse_black) = (self.identity.clone(), self.refuse_black);
        let look = tokio::task::spawn_blocking(move || {
            let names = |frame| naming.frame(frame);
            let found =
                find_frames_to_render(&folder, &manifest, mode, &identity, refuse_black, &frames, names);
            if found.as_ref().is_ok_and(|found| found.kept > 0)
                && let Err(error) = manifest.renew(&folder, &identity, &frames)
            {
                // At worst the frames render again later.
                tracing::debug!(%error, "manifest line not written");
            }
            (manifest, found)
        });
        look.await.map_err(SubmissionError::broken_off(COMPARING))
    }

    /// Writes to the manifest that this save has the frames of a running job.
    async fn see(&self, mut manifest: Manifest) -> Result<Manifest, SubmissionError> {
        let (folder, identity) = (Arc::clone(self.folder), self.identity.clone());
        let see = tokio::task::spawn_blocking(move || {
            if let Err(error) = manifest.see(&folder, &identity, None) {
                // At worst a job of an earlier save replaces them.
                tracing::debug!(%error, "manifest line not written");
            }
            manifest
        });
        see.await.map_err(SubmissionError::broken_off(COMPARING))
    }
}

/// Describes the scene that is about to render, with the overrides of the request.
fn inputs(prepared: &Prepared) -> RenderInputs {
    let (scene, asked) = (&prepared.scene, &prepared.session.settings);
    let (width, height, percent) = match asked.resolution {
        None => (scene.width, scene.height, scene.percent),
        Some(Resolution::Percent(percent)) => (scene.width, scene.height, u32::from(percent)),
        Some(Resolution::Pixels { width, height }) => (width, height, 100),
    };
    // The number of samples in the file is that of its own engine.
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
