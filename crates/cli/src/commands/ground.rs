//! What a render or a submission stands on: the output folder, what lies in it, and what is left to render.

use std::{path::PathBuf, sync::Arc};

use kiln_api::JobView;
use kiln_client::{
    Client, Existing, ExistingError, Fetcher, Identity, Manifest, Naming, OutFolder, Prepared, ToRender,
    recorded, to_render,
};
use kiln_types::{DeviceClass, FrameSet};
use serde_json::json;
use tokio::task::JoinError;

use super::{
    Context,
    attach::{manifest, open_folder},
    device::{Place, candidates, earlier_devices, settle},
    earlier::{Earlier, Running},
};
use crate::{
    args::{JobArgs, WhereArgs},
    ask,
    exit::{Exit, Fault, Outcome},
    output::{
        Output,
        blend::summary,
        suspicious,
        text::{self, count, shown},
    },
    settings::Settings,
};

/// The folder, what is in it, and the frames that are left to render.
pub struct Ground {
    pub folder: Arc<OutFolder>,
    pub manifest: Manifest,
    pub existing: Existing,
    pub to_render: ToRender,
    /// A job that renders this already.
    pub running: Option<Running>,
    /// What was told of the scene's files.
    pub notices: Vec<String>,
}

/// Looks at the output folder, and settles on which device the job renders.
///
/// # Errors
/// Where it cannot be written, files are in the way, or this machine lacks the device.
pub async fn ground(
    output: Output,
    settings: &Settings,
    args: &JobArgs,
    prepared: &mut Prepared,
    landing: &WhereArgs,
    place: &Place<'_>,
) -> Outcome<Ground> {
    let (choice, order) = (settings.device.value, &args.order);
    let out: PathBuf = landing.out.clone().unwrap_or_else(|| prepared.folder.clone());
    let folder = Arc::new(open_folder(out).await?);
    let existing = landing.existing.unwrap_or_default();
    let manifest = manifest(&folder, prepared.session.own_stem())?;
    let candidates = if existing == Existing::Overwrite { Vec::new() } else { candidates(choice, prepared) };
    let (running, manifest) = match place {
        Place::Farm(client) => {
            let refuse_black = args.refuse_black;
            let earlier =
                Earlier { output, settings, client, prepared, folder: &folder, existing, refuse_black };
            earlier.look(choice, &candidates, manifest).await?
        }
        Place::Here(_) => (None, manifest),
    };
    let known = |device: &DeviceClass| (*device, prepared.identity(*device, folder.real_path()));
    let identities: Vec<(DeviceClass, Identity)> = candidates.iter().map(known).collect();
    let earlier = earlier_devices(prepared.session.device);
    let (frames, there) = (prepared.frames.clone(), Arc::clone(&folder));
    let look = tokio::task::spawn_blocking(move || {
        (recorded(&there, &manifest, &identities, earlier, &frames), manifest)
    });
    let (recorded, manifest) = look.await.map_err(unread)?;
    let chosen = settle(choice, recorded, prepared, place).await?;
    let cpu = prepared.session.device == DeviceClass::Cpu;
    if cpu && (order.gpus.is_some() || order.gpu_memory.is_some()) {
        return Err(Fault::bad_input(
            "--gpus and --gpu-memory are for GPUs, and this renders on the CPU; choose GPUs with --device gpu",
        ));
    }
    if let Some(line) = chosen {
        output.note(&line);
    }
    let look = Look {
        folder: &folder,
        identity: prepared.identity(prepared.session.device, folder.real_path()),
        refuse_black: args.refuse_black,
        frames: prepared.frames.clone(),
        naming: prepared.naming()?,
    };
    let (manifest, found) = look.at(manifest, existing).await?;
    let (mut manifest, existing, to_render) = match found {
        Ok(found) => (manifest, existing, found),
        Err(ExistingError::OtherChoices { found, changes }) if output.can_ask() => {
            let files = count(found.count as u64, "file");
            let question = format!(
                "{files} in {} were made from {} with other settings ({}). Replace them? [y/N] ",
                text::path(folder.path()),
                prepared.shown_name(),
                changes.join("; ")
            );
            if !ask::yes(question).await {
                return Err(ExistingError::OtherChoices { found, changes }.into());
            }
            let (manifest, found) = look.at(manifest, Existing::Replace).await?;
            (manifest, Existing::Replace, found?)
        }
        Err(error) => return Err(error.into()),
    };
    if let Some(frames) = &to_render.frames {
        place.check(prepared.session.device).await?;
        if running.as_ref().is_some_and(|running| running.makes_any_of(frames)) {
            // Its frames are wanted by this save, too.
            manifest = look.see(manifest).await?;
        }
    }
    Ok(Ground { folder, manifest, existing, to_render, running, notices: prepared.notices.clone() })
}

/// What a command asks of the output folder.
struct Look<'a> {
    folder: &'a Arc<OutFolder>,
    identity: Identity,
    refuse_black: bool,
    frames: FrameSet,
    naming: Naming,
}

impl Look<'_> {
    /// Looks off the async threads.
    async fn at(
        &self,
        mut manifest: Manifest,
        mode: Existing,
    ) -> Outcome<(Manifest, Result<ToRender, ExistingError>)> {
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
        look.await.map_err(unread)
    }

    /// Notes that what a job makes is asked for here.
    async fn see(&self, mut manifest: Manifest) -> Outcome<Manifest> {
        let (folder, identity) = (Arc::clone(self.folder), self.identity.clone());
        let see = tokio::task::spawn_blocking(move || {
            if let Err(error) = manifest.see(&folder, &identity, None) {
                // At worst a job of an earlier save replaces them one day.
                tracing::debug!(%error, "what is rendered was not noted again");
            }
            manifest
        });
        see.await.map_err(unread)
    }
}

fn unread(error: JoinError) -> Fault {
    Fault::failed(format!("the output folder could not be read ({error})"))
}

impl Ground {
    /// Tells what is about to render, and what of it stays as it is.
    pub fn tell(&self, output: Output, prepared: &Prepared) {
        for line in summary(prepared) {
            output.note(&line);
        }
        let ToRender { kept, skipped, replaced, older, broken, .. } = &self.to_render;
        if *replaced > 0 {
            let what = if self.existing == Existing::Replace {
                "an earlier save or of other settings"
            } else {
                "an earlier save"
            };
            output.note(&format!("{} of {what} will be replaced", count(*replaced, "frame")));
        }
        if *older > 0 {
            let frames = count(*older, "frame");
            output.note(&format!("{frames} of an earlier save, outside the frames asked for, will stay"));
        }
        if *kept > 0 {
            output.note(&format!(
                "{} of this scene and these settings are there already",
                count(*kept, "frame")
            ));
        }
        if *skipped > 0 {
            output.note(&format!("{} skipped: files of their names are there", count(*skipped, "frame")));
        }
        if broken.count > 0 {
            output.warning(&format!(
                "{} among them empty or cut off ({broken}) and not Kiln's: left as it is, --existing overwrite replaces it",
                count(broken.count as u64, "file")
            ));
        }
    }

    /// The result of a command that found nothing to render.
    pub fn nothing_left(&self, context: &Context) -> Exit {
        let ToRender { kept, skipped, replaced, older, suspicious, .. } = &self.to_render;
        let out = self.folder.path();
        let value = json!({
            "end": "ended", "job": null, "out": shown(Some(out)), "landed": 0, "kept": kept, "skipped": skipped,
            "replaced": replaced, "older": older, "left": [], "failed": [], "report": null, "suspicious": suspicious,
            "notices": self.notices, "exit_code": 0,
        });
        context.output.result(&value, || {
            let there = count(kept + skipped, "frame");
            let mut lines = vec![format!("Nothing is left to render: {there} in {}", text::path(out))];
            lines.extend(suspicious::summary(suspicious, kept + skipped));
            lines.join("\n")
        });
        Exit::Done
    }

    /// What brings the job's frames here.
    pub fn fetcher(self, client: &Client, job: &JobView) -> Fetcher {
        Fetcher::new(client.clone(), job, true, self.existing, self.folder, self.manifest)
    }
}
